"""Figures: what is drawn is what was measured, and one method looks the same everywhere."""

from __future__ import annotations

import copy
import dataclasses
import io
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from hml_core import recipes
from hml_core.config import RunConfig
from hml_core.errors import ConfigError
from hml_core.runs import Run
from hml_core.trainer import fit
from hml_lab import notebooks, plots, stats
from hml_lab.experiment import Experiment
from hml_lab.plots import looks as looks_of
from hml_lab.plots import spreads, style, tradeoffs
from hml_lab.plots.looks import BUILT_IN, LIMIT, look, variant
from hml_lab.plots.methods import by_recipe
from hml_lab.tables import ranks
from tests.quick import slow_but


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from hml_core.config import grid

    root = tmp_path_factory.mktemp("runs")
    configs = grid(recipe=["ce", "hml1"], seed=[0, 1, 2], epochs=3, batch_size=64)
    return [fit(config, runs_root=root, progress=False) for config in configs]


def test_looks_differ_without_colour():
    names = recipes.names()
    looks = [look(name) for name in names]
    assert len({one.colour for one in looks}) == len(names)
    quickstart = ["ce", "focal", "cs_ce", "ldam_drw", "balanced_softmax", "hml1", "hml2"]
    for a, b in itertools.combinations(quickstart, 2):
        assert look(a).marker != look(b).marker
    assert look("somebody_elses") == look("somebody_elses")


def drawn_as(name):
    return look(name).colour, look(name).marker, look(name).line


def test_no_two_methods_wear_the_same_look(monkeypatch):
    """Built-in, variants and more of one's own than there are reserved looks, names chosen by nobody."""
    monkeypatch.setattr(looks_of, "_taken", {})
    monkeypatch.setattr(looks_of, "_variants", {})
    own = ["paco", "ours", "mine", "cap", "pac", *(f"method_{i}" for i in range(130))]
    variants = [variant(name, f"setting {i}") for name in ("ce", "hml1") for i in range(4)]
    looks = [drawn_as(name) for name in [*BUILT_IN, *variants[1:4], *variants[5:], *own]]
    assert len(set(looks)) == len(looks)
    reserved = {drawn_as(name) for name in own[:60]}
    for part in range(3):
        assert not {item[part] for item in reserved} & {item[part] for item in BUILT_IN.values()}
    few = [drawn_as(name) for name in own[:5]]
    assert len({colour for colour, _, _ in few}) == len({marker for _, marker, _ in few}) == 5
    assert LIMIT[0] not in {colour for colour, _, _ in looks}


def test_no_two_curves_of_the_formulas_look_the_same():
    for made in (
        plots.loss_curves(gammas=[0.5, 1.0, 2.0, 3.0, 5.0]),
        plots.outlier_cuts([500, 50, 5], [0.1, 1.0, 2.0], deltas=[10.0**k for k in range(1, 7)]),
    ):
        shown = [(line.get_color(), line.get_linestyle()) for line in made.axes[0].lines]
        assert len({str(one) for one in shown}) == len(shown)
    limit = next(
        line for line in plots.loss_curves().axes[0].lines if "L_f" in str(line.get_label())
    )
    assert limit.get_color() != look("hml2").colour


def test_balanced_accuracy_shows_means_and_seeds(finished):
    (ax,) = plots.balanced_accuracy(finished).axes
    dots = np.concatenate([line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 3])
    measured = [100 * run.selection()["balanced_accuracy"] for run in finished]
    assert sorted(dots) == pytest.approx(sorted(measured))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["HML1", "CE"]


def test_few_seeds_are_dots_and_five_have_an_interval():
    def drawn(values):
        _, (ax,) = style.figure()
        marks = spreads.Marks(ax, "y")
        marks.add(0, spreads.spread(values), look("ce"))
        marks.finish()
        return ax

    one = drawn([40.0])
    assert [list(line.get_ydata()) for line in one.lines] == [[40.0]], (
        "a mark, no zero-width interval"
    )
    assert sorted(drawn([40.0, 44.0, 48.0]).lines[0].get_ydata()) == [40.0, 44.0, 48.0]
    five = [40.0, 44.0, 48.0, 42.0, 46.0]
    interval = stats.mean_interval(five)
    assert list(drawn(five).lines[0].get_ydata()) == pytest.approx([interval.low, interval.high])


@pytest.mark.parametrize("along", ["x", "y"])
def test_axes_stay_inside_the_possible_and_intervals_end_there(along):
    """An arrow says that an interval goes on; beyond 100 % of a share there is nothing to go on to."""
    _, (ax,) = style.figure()
    marks = spreads.Marks(ax, along)
    for place, values in enumerate([[1.0, 2.0, 1.0, 60.0, 3.0], [98.0, 99.0, 99.5, 60.0, 99.0]]):
        marks.add(place, spreads.spread(values), look("ce"))
    marks.finish()
    low, high = ax.get_xlim() if along == "x" else ax.get_ylim()
    assert (low, high) == (0.0, 100.0)
    assert [line for line in ax.lines if line.get_gid() == "leaves the axis"] == []
    caps = [line for line in ax.lines if line.get_marker() == ("|" if along == "x" else "_")]
    ends = [(line.get_xdata() if along == "x" else line.get_ydata())[0] for line in caps]
    assert (min(ends), max(ends)) == (0.0, 100.0)


def test_one_wide_interval_does_not_flatten_the_others():
    rows = [("a", 1.0, 0.5, 1.5), ("b", 2.0, 1.0, 3.0), ("c", -0.5, -125.0, 124.0)]
    table = pd.DataFrame(rows, columns=["label", "difference", "low", "high"]).assign(p_holm=0.2)
    ax = plots.forest(table, xlabel="points").axes[0]
    low, high = ax.get_xlim()
    assert -10 < low < 0.5
    assert 3 < high < 10
    assert "arrow: goes on" in ax.get_xlabel()
    assert [line.get_gid() for line in ax.lines].count("leaves the axis") == 2


def test_per_class_accuracy_shows_the_mean_and_the_seeds_of_each_class(finished):
    ax = plots.per_class_accuracy(finished).axes[0]
    accuracy = 100 * np.array([run.per_class_accuracy() for run in finished[:3]])
    marks = [line for line in ax.lines if line.get_marker() == look("ce").marker]
    assert [float(line.get_ydata()[0]) for line in marks] == pytest.approx(accuracy.mean(axis=0))
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert sorted(dots[9].get_ydata()) == pytest.approx(sorted(accuracy[:, 9]))
    assert ax.get_ylim() == (0, 100)


def test_unlike_runs_of_one_recipe_are_several_methods(finished):
    """Means over runs with and without the early drop are nobody's result."""
    other = fit_like(finished[3], early_drop=True)
    groups = by_recipe([*finished, other])
    assert list(groups) == ["ce", "hml1, no early drop", "hml1, early drop"]
    assert [len(members) for members in groups.values()] == [3, 3, 1]
    assert "n = 1 to 3 seeds" in plots.balanced_accuracy([*finished, other]).axes[0].get_xlabel()
    ticks = plots.balanced_accuracy([*finished, other]).axes[0].get_yticklabels()
    assert [" ".join(tick.get_text().split()) for tick in ticks] == [
        "HML1, early drop", "HML1, no early drop", "CE",
    ], "names in full: what tells methods apart may stand at their end"  # fmt: skip
    legend = plots.shot_group_accuracy([*finished, other]).legends[0]
    assert [t.get_text() for t in legend.get_texts()] == [
        "CE", "HML1, no early drop", "HML1, early drop",
    ]  # fmt: skip


def fit_like(run, **fields):
    """The record of a run with another config."""
    changed = copy.copy(run)
    changed.config = dataclasses.replace(run.config, **fields)
    return changed


def test_the_gain_is_paired_by_class_and_seed(finished):
    made = plots.gain_by_frequency(finished)
    ax = made.axes[0]
    counts = finished[0].class_counts
    gain = 100 * np.mean(
        [
            h.per_class_accuracy() - c.per_class_accuracy()
            for c, h in zip(finished[:3], finished[3:], strict=True)
        ],
        axis=0,
    )
    line = next(line for line in ax.lines if len(line.get_xdata()) == len(np.unique(counts)))
    assert line.get_ydata() == pytest.approx(
        [gain[counts == n].mean() for n in np.unique(counts)[::-1]]
    )
    left, right = ax.get_xlim()
    assert left > counts.max() > counts.min() > right, "head to tail"
    with pytest.raises(ValueError, match="`baseline` to be one of ce, hml1, got 'focal'"):
        plots.gain_by_frequency(finished, baseline="focal")
    with pytest.raises(ValueError, match="runs of other methods with a seed of CE"):
        plots.gain_by_frequency(finished[:3])
    with pytest.raises(ValueError, match="runs of other methods with a seed of CE"):
        plots.gain_by_frequency([finished[0], finished[4]])


def test_the_reliability_diagram_holds_every_test_image(finished):
    ax, below = plots.reliability(finished, bins=5).axes
    shares = below.patches[0].get_data().values
    assert shares.sum() == pytest.approx(100)
    right = np.concatenate([run.test_classes() == run.test_targets for run in finished[:3]])
    sure = np.concatenate([run.test_predictions().confidence for run in finished[:3]])
    top = [
        100
        * (run.test_classes() == run.test_targets)[run.test_predictions().confidence > 0.8].mean()
        for run in finished[:3]
    ]
    assert (sure > 0.8).sum() >= 20, len(right)
    assert ax.lines[1].get_ydata()[-1] == pytest.approx(np.mean(top))


def test_of_few_test_images_there_is_a_diagram_without_curves(finished, monkeypatch):
    """One's own photographs may be so few that no bin has as many as a share needs."""
    monkeypatch.setattr(tradeoffs, "FEWEST_IMAGES", 10**6)
    drawn = plots.reliability(finished)
    ax, below = drawn.axes
    assert len(ax.lines) == 1, "the diagonal"
    assert len(below.patches) == 2, "how sure they are is drawn"
    entries = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert sum("; no bin has 1000000 test images)" in entry for entry in entries) == 2
    monkeypatch.setattr(tradeoffs, "FEWEST_IMAGES", 1)
    assert len(plots.reliability(finished).axes[0].lines) == 3


def test_cost_is_the_time_of_all_epochs(finished):
    ax = plots.accuracy_by_cost(finished).axes[0]
    mark = next(line for line in ax.lines if line.get_marker() == look("hml1").marker)
    minutes = np.mean([run.history["seconds"].sum() / 60 for run in finished[3:]])
    assert float(mark.get_xdata()[0]) == pytest.approx(minutes)
    assert ax.get_xlim()[0] == 0


def ranked(**scores):
    return pd.DataFrame(
        [
            {"recipe": recipe, "seed": seed, "status": "done", "imbalance_ratio": ratio,
             "last_balanced_accuracy": value + 0.001 * seed}
            for recipe, values in scores.items()
            for ratio, value in enumerate(values)
            for seed in (0, 1)
        ]
    )  # fmt: skip


def test_the_critical_difference_is_that_of_demsar():
    """Table 5 of Demšar (2006): q = 2.569 for four classifiers; with 14 data sets CD = 1.25."""
    rng = np.random.default_rng(0)
    frame = ranked(**{name: rng.random(14) for name in ("ce", "focal", "hml1", "hml2")})
    found = ranks.mean_ranks(frame)
    assert found.critical == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    means = frame.groupby(["imbalance_ratio", "recipe"])["last_balanced_accuracy"].mean().unstack()
    expected = means.rank(axis=1, ascending=False).mean()
    pd.testing.assert_series_equal(found.ranks, expected)


def test_the_diagram_joins_what_is_not_apart():
    n = 30
    frame = ranked(ce=[0.5] * n, focal=[0.5] * n, hml1=[0.9] * n)
    found = ranks.mean_ranks(frame)
    assert found.ranks.tolist() == [2.5, 2.5, 1.0]
    assert found.cliques() == [(1, 2)]
    made = plots.critical_difference(frame)
    assert "Not apart: CE to Focal" in made.alt
    assert "30 settings" in made.axes[0].get_title()
    with pytest.raises(ValueError, match="three methods in two settings, got 2 in 30"):
        ranks.mean_ranks(frame[frame["recipe"] != "ce"])
    with pytest.raises(ValueError, match="got several of 'ce' with seed 0"):
        ranks.mean_ranks(pd.concat([frame, frame[:1]]))


NAMES = ["melanoma", "actinic keratosis / Bowen's disease", "vascular lesion", "x", "naevus"]


def class_labels(ax, figure):
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
    return sorted((box.x0, box.x1) for box in boxes)


@pytest.mark.begun_first
@pytest.mark.parametrize(
    ("classes", "width"),
    slow_but([(7, 3.5), (10, None), (30, 3.5)], itertools.product([2, 7, 10, 20, 30], [None, 3.5])),
)
def test_class_names_never_overlap(classes, width):
    names = [NAMES[i % len(NAMES)] for i in range(classes)]
    made = plots.class_counts(np.linspace(500, 5, classes).astype(int), names, width=width)
    ends = class_labels(made.axes[0], made)
    assert ends, "some are named"
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("classes", slow_but([100], [100, 1000]))
def test_an_axis_of_many_classes_names_some(classes):
    made, (ax,) = style.figure(5, 4)
    ax.set_xlim(-0.5, classes - 0.5)
    style.name_classes(ax, range(classes), [NAMES[i % len(NAMES)] for i in range(classes)])
    style.fit_texts(made)
    ends = class_labels(ax, made)
    assert 5 < len(ends) < classes
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("letters", range(60, 120, 10))
def test_the_title_of_the_last_panel_stays_on_the_page(letters):
    """It stands nearer to the edge of the page than its panel is wide."""
    made, axes = style.figure(11, 4.2, columns=2)
    title = ("word " * letters)[:letters].strip()
    axes[1].set_title(title)
    style.fit_texts(made)
    made.draw_without_rendering()
    extent = axes[1].title.get_window_extent()
    assert extent.x1 <= made.bbox.x1
    assert axes[1].get_title().replace("\n", " ") == title


def test_a_figure_is_drawn_anew_at_a_columns_width(finished):
    for made in (plots.learning_curves(finished), plots.per_class_accuracy(finished)):
        column = made.at_width(3.5)
        assert column.get_figwidth() == 3.5
        assert made.get_figwidth() > 8
        column.draw_without_rendering()
        legend = column.legends[0].get_window_extent()
        assert legend.x0 >= -1
        assert legend.x1 <= column.bbox.x1 + 1
        for ax in column.axes:
            box = ax.get_window_extent()
            assert box.width > 100
            assert legend.y1 <= box.y0, "the legend stands below the axes"
            title = ax.title.get_window_extent()
            assert not ax.get_title() or (title.x0 > -1 and title.x1 < column.bbox.x1 + 1)
    with pytest.raises(ConfigError, match=r"width of a figure to be 1\.5 to 40"):
        plots.loss_curves(width=350)


def test_every_figure_says_what_it_shows(finished):
    scores = {run.config.recipe: [] for run in finished}
    for run in finished:
        scores[run.config.recipe].append(100 * run.selection()["balanced_accuracy"])
    alt = plots.balanced_accuracy(finished).alt
    for recipe, values in scores.items():
        assert f"{look(recipe).label} {np.mean(values):.1f} %" in alt
    for made in (
        plots.class_counts(finished[0].class_counts, finished[0].class_names),
        plots.per_class_accuracy(finished),
        plots.learning_curves(finished),
        plots.confusion_matrix(finished, ["ce"]),
        plots.loss_curves(),
        plots.gradient_curves(),
        plots.delta_effect([10.0]),
        plots.weighting_curves(1e4, head_weight=0.1, tail_weight=4.0),
        plots.outlier_cuts([500, 5], [0.1, 2.0]),
    ):
        assert any(letter.isdigit() for letter in made.alt), made.alt


def test_learning_curves_mark_the_switch(finished):
    left, right = plots.learning_curves(finished).axes
    assert any("switch: HML1" in text.get_text() for text in left.texts)
    assert "validation" in right.get_ylabel()


def test_the_confusion_matrix_is_the_mean_share(finished):
    made = plots.confusion_matrix(finished, ["ce", "hml1"])
    assert "mean of 3 seeds" in made.axes[0].get_title()
    values = made.axes[0].images[0].get_array()
    np.testing.assert_allclose(values.sum(axis=1), 100.0)
    with pytest.raises(ValueError, match="runs of focal to draw, got none"):
        plots.confusion_matrix(finished, ["focal"])


def test_axes_are_labelled(finished):
    figures = [
        plots.class_counts(finished[0].class_counts, finished[0].class_names),
        plots.balanced_accuracy(finished),
        plots.per_class_accuracy(finished),
        plots.learning_curves(finished),
        plots.loss_curves(),
        plots.gradient_curves(),
        plots.delta_effect([10.0, 1e4]),
        plots.weighting_curves(1e4, head_weight=0.1, tail_weight=4.0),
        plots.outlier_cuts([500, 50, 5], [0.1, 1.0, 2.0]),
    ]
    for made in figures:
        assert any(ax.get_xlabel() for ax in made.axes)
        assert all(ax.get_ylabel() or ax.get_yticklabels() for ax in made.axes)


def test_a_name_with_dollar_signs_is_no_formula(finished, monkeypatch):
    """A folder of one's own may have any name; matplotlib fails at half a formula."""
    odd = ("$x_$", "$5 to $10", r"a\$b\frac$", "$")
    names = (*odd, *finished[0].class_names[len(odd) :])
    monkeypatch.setattr(Run, "class_names", names)
    counts = plots.class_counts(finished[0].class_counts, names, title="$t_$ of $")
    rows = {name: [np.zeros((2, 2, 3), np.uint8)] for name in odd}
    for drawn in (
        counts,
        plots.per_class_accuracy(finished),
        plots.confusion_matrix(finished, ["ce"]),
        plots.samples(rows, title="$t_$", rows_are="classes"),
    ):
        drawn.savefig(io.BytesIO(), format="svg")
        shown = [text.get_text().replace("\n", " ") for text in drawn.findobj(Text)]
        assert {*odd} <= {*shown}
    powers = [text for text in counts.findobj(Text) if "mathdefault" in text.get_text()]
    assert powers
    assert all(text.get_parse_math() for text in powers)
    handle = Line2D([], [], label="$l_$ and $")
    page, _ = style.figure()
    style.legend(page, [handle])
    page.savefig(io.BytesIO())


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="at least one finished run"):
        plots.balanced_accuracy([])


def test_synthetic_images_and_short_training_are_labelled(finished, monkeypatch):
    monkeypatch.setitem(finished[0].metrics, "synthetic", True)
    assert "SYNTHETIC" in plots.per_class_accuracy(finished).axes[0].get_title()
    monkeypatch.setitem(finished[0].metrics, "synthetic", False)
    assert "SHORTENED" not in plots.per_class_accuracy(finished).axes[0].get_title()
    monkeypatch.setattr(
        finished[0], "config", RunConfig(dataset="cifar10", epochs=12, model="resnet8")
    )
    title = plots.per_class_accuracy(finished).axes[0].get_title()
    assert "SHORTENED protocol: resnet8, 12 epochs" in title


def test_a_figure_is_saved_as_pdf_and_svg_beside_png(tmp_path):
    """At the width that was asked for, and with the same bytes whenever it is saved."""
    made = plots.outlier_cuts([500, 50, 5], [0.1, 1.0, 2.0])
    how = {"figure_format": "pdf,svg", "figure_width": 3.5}
    for folder in (tmp_path / "a", tmp_path / "b"):
        shown = notebooks.save(made, "cut", folder, **how)
    names = ["cut.pdf", "cut.png", "cut.svg"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    svg = (tmp_path / "a" / "cut.svg").read_text()
    assert 'width="252pt"' in svg, "3.5 inches of 72 points"
    assert "Outlier cut" in svg, "described in its metadata"
    assert re.search(rb"/MediaBox \[ ?0 0 252 ", (tmp_path / "a" / "cut.pdf").read_bytes())
    with Image.open(tmp_path / "a" / "cut.png") as picture:
        assert picture.width == 1050, "300 dots an inch"
    assert shown.alt.startswith("Outlier cut")
    assert shown._repr_png_()[1]["alt"] == shown.alt, "in the notebook's output"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"figure_format": "jpg"}, "`figure_format` to be of png, pdf, svg, got 'jpg'"),
        ({"figure_width": 0.2}, r"`figure_width` to be 0 or 1\.5 to 40\.0 inches, got 0\.2"),
    ],
)
def test_a_format_that_no_figure_has_is_refused_before_anything_is_trained(how, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Experiment("x", [RunConfig()], runs_root=tmp_path, results_root=tmp_path, **how)
    with pytest.raises(ConfigError, match=message):
        notebooks.save(plots.loss_curves(), "x", tmp_path, **how)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("width", [None, 3.5])
def test_labels_of_several_lines_do_not_touch(width):
    questions = [
        "HML1 with its early drop, against CE without: what a table shows, and what it does not show",
        "The loss alone: HML1 against CE re-weighted like it, over images, with the drop given to both",
        "short",
        "Inner weighting and the factor 10 (the authors' code), with the drop, against the papers' own",
    ]
    table = pd.DataFrame(
        {"label": questions, "difference": 1.0, "low": 0.5, "high": 1.5, "p_holm": 0.2}
    )
    made = plots.forest(table, xlabel="points", width=width)
    made.draw_without_rendering()
    boxes = [tick.get_window_extent() for tick in made.axes[0].get_yticklabels()]
    ends = sorted((box.y0, box.y1) for box in boxes)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ends))
    assert made.axes[0].get_window_extent().width > 60


NOTE = (
    "RECOMPRESSED dermoscopic images (JPEG twice, shorter side 192 pixels, here 64), CC BY-NC 4.0"
)


@pytest.mark.parametrize("width", slow_but([3.5], [None, 3.5]))
@pytest.mark.parametrize(
    "draw",
    [plots.learning_curves, lambda runs, **how: plots.confusion_matrix(runs, ["ce", "hml1"], **how),
     plots.per_class_accuracy, plots.balanced_accuracy, plots.shot_group_accuracy],
    ids=["curves", "confusion", "classes", "accuracy", "groups"],
)  # fmt: skip
def test_a_long_note_on_the_images_is_said_once_and_stays_in_the_figure(
    draw, width, finished, monkeypatch
):
    from hml_lab.plots import methods

    monkeypatch.setattr(methods, "data_note", lambda path: NOTE)
    made = draw(finished, width=width)
    made.draw_without_rendering()
    texts = [ax.title for ax in made.axes] + ([made._suptitle] if made.get_suptitle() else [])
    said = " ".join(text.get_text() for text in texts).split()
    assert " ".join(said).count(NOTE) == 1
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1, text.get_text()
        assert box.x1 <= made.bbox.x1 + 1, text.get_text()
