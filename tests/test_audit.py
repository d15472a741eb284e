"""The audit: cells differ in their switch alone, effects are paired, the authors' runs are all used."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_core import runs
from hml_core.runs import Run
from hml_core.trainer.branches import epochs_to_train
from hml_lab import plots, published, tables, timed
from hml_lab.studies import audit
from hml_lab.tables.contrasts import MEANS

BASE = {"dataset": "digits", "epochs": 4, "batch_size": 64, "protocol": "controlled"}
LOSS = {"recipe", "delta", "weight_placement", "loss_scale"}  # what CE and HML1 differ in


def test_cells_differ_from_their_neighbour_in_the_switch_alone():
    cells = audit.cells(BASE, [0], [1e2], [0.1])

    def changed(a: str, b: str) -> set[str]:
        first, second = (cells[name][0].to_dict() for name in (a, b))
        return {key for key in first if first[key] != second[key]}

    assert changed("CE", "CE + early drop") == {"early_drop"}
    assert changed("HML1", "HML1 + early drop") == {"early_drop"}
    assert changed("CE re-weighted like HML1, over images", "HML1") == LOSS
    assert changed("CE re-weighted like HML1, over images", "CE re-weighted like HML1") == {
        "mean_over"
    }
    assert changed("CE re-weighted like HML1", "HML1, over weights") == LOSS
    assert changed("HML1", "HML1, over weights") == {"mean_over"}
    by_axis = (LOSS, {"mean_over"}, {"early_drop"})
    for first, second in itertools.combinations(audit.CUBE, 2):
        differ = [own for own, a, b in zip(by_axis, first, second, strict=True) if a != b]
        assert changed(audit.CUBE[first], audit.CUBE[second]) == set().union(*differ)
    assert changed("HML1", "HML1, inner") == {"weight_placement"}
    assert changed("HML1", "HML1, δ = 1e+02") == {"delta"}
    assert changed("HML1 + early drop", "HML1, inner, ×10 + early drop") == {
        "weight_placement",
        "loss_scale",
    }
    official = "HML2 as in the authors' code (official, δ = 1e10)"
    assert changed("HML2 + early drop", official) == {"delta", "protocol"}
    assert changed("HML2", "HML2 + early drop") == {"early_drop"}
    assert [stage.loss_options["delta"] for stage in cells[official][0].stages] == [1e10, 1e10]
    assert changed("HML1", "HML1, second stage ×0.1") == {"second_stage_rate"}
    authors = "HML1 as in the authors' code (official, inner, ×10)"
    assert changed("HML1 + early drop", authors) == {"protocol", "weight_placement", "loss_scale"}
    for _, with_switch, without in audit.QUESTIONS:
        assert {with_switch, without} <= set(cells)
    assert {cell for _, cell in audit.WAY} <= set(cells)


def test_the_primary_contrast_changes_the_loss_alone():
    first, second = (audit.cells(BASE, [0])[cell][0].to_dict() for cell in audit.PRIMARY)
    assert {key for key in first if first[key] != second[key]} == LOSS
    assert second["mean_over"] == "images"  # as HML divides
    assert audit.PRIMARY in [(a, b) for _, a, b in audit.QUESTIONS]


def test_the_subset_follows_the_seed_where_asked():
    follows = audit.cells({**BASE, "subset_seed": "seed"}, [0, 2])["HML1"]
    assert [config.subset_seed for config in follows] == [0, 2]


def made_up(**cells) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cell": cell,
                "seed": seed,
                "status": "done",
                "last_balanced_accuracy": value,
                "stage_ends": (8,),
                "epochs": 10,
            }
            for cell, values in cells.items()
            for seed, value in enumerate(values)
        ]
    )


def test_an_effect_is_the_paired_difference_in_points():
    frame = made_up(**{"CE": [0.70, 0.72, 0.71], "CE + early drop": [0.71, 0.74, 0.72]})
    found = audit.effect(frame, "CE + early drop", "CE")
    reference = scipy.stats.ttest_rel([71, 74, 72], [70, 72, 71])
    assert found.difference == pytest.approx(4 / 3)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert audit.effect(frame, "HML1", "CE") is None
    assert audit.effects(frame)["label"].tolist() == ["The early drop alone, given to CE"]


def test_what_is_not_there_is_no_line_and_changes_no_other():
    """Stored results of before a cell was added."""
    there = {"CE": [0.70, 0.72, 0.71], "CE + early drop": [0.71, 0.74, 0.72]}
    official = "HML2 as in the authors' code (official, δ = 1e10)"
    without = audit.effects(made_up(**there, **{"HML2 + early drop": [0.6, 0.7, 0.6]}))
    pd.testing.assert_frame_equal(without, audit.effects(made_up(**there)))
    hml2 = {"HML2 + early drop": [0.6, 0.7, 0.6], official: [0.62, 0.71, 0.63]}
    both = audit.effects(made_up(**there, **hml2)).set_index("label")
    assert both.loc[audit.QUESTIONS[-1][0], "difference"] == pytest.approx(2.0)
    lacking = made_up(**there, **hml2)
    lacking.loc[lacking["cell"] == official, "status"] = "missing"
    assert len(audit.effects(lacking)) == 1


def test_the_answer_names_numbers_or_what_is_missing():
    frame = made_up(
        **{
            "CE": [0.70, 0.72],
            "CE + early drop": [0.73, 0.74],
            "HML1": [0.71, 0.75],
            "HML1 + early drop": [0.76, 0.77],
            "CE re-weighted like HML1, over images": [0.72, 0.73],
            "CE re-weighted like HML1, over images + early drop": [0.74, 0.76],
        }
    )
    text = audit.answer(frame)
    assert "is +5.5 [" in text
    assert "gives plain CE +2.5 [" in text
    assert "adds to that is +1.5 [" in text
    assert "(with the drop) or +0.5 [" in text
    assert "n = 2" in text
    partial = audit.answer(frame[frame["cell"] != "CE re-weighted like HML1, over images"])
    assert "not there: CE re-weighted like HML1, over images − CE" in partial


FULL = Path(__file__).parents[1] / "results" / "records" / "cifar100_lt_full"
BASE_FULL = {"dataset": "imagefolder", "imbalance_ratio": 100.0, "protocol": "controlled"}
BASE_FULL |= {"epochs": 200, "model": "resnet32", "evaluate_every": 5, "subset_seed": "seed"}


@pytest.fixture(scope="module")
def full() -> pd.DataFrame:
    """The stored runs at the full protocol, by cell."""
    cells = audit.cells(BASE_FULL, [0, 1, 2])
    return audit.run(cells, runs_root=FULL, train=False, progress=False)


def test_the_way_adds_up_and_is_paired(full):
    way = audit.way(full)
    steps = way["difference"].iloc[1:-1]
    assert steps.sum() == pytest.approx(way["difference"].iloc[-1])
    assert way["mean"].iloc[0] + steps.sum() == pytest.approx(way["mean"].iloc[-2])
    assert set(way["test"].dropna()) == {"paired"}
    assert not {"p_value", "p_holm"} & set(way)  # said once, in the family of the effects
    with pytest.raises(ValueError, match="finished runs of HML1 \\+ early drop"):
        audit.way(full[full["cell"] != "HML1 + early drop"])


def test_the_figure_of_the_way_draws_every_step_with_its_interval(full):
    way = audit.way(full)
    (ax,) = plots.way(way, audit.beside(full)).axes
    written = [text.get_text() for text in ax.texts]
    for row in way.iloc[1:].itertuples():
        said = f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        assert said.replace("-", "−") in written
    lines = [sorted(line.get_xdata()) for line in ax.lines]
    last = way.iloc[-1]
    shift = last["mean"] - last["difference"]
    assert any(ends == pytest.approx([shift + last["low"], shift + last["high"]]) for ends in lines)
    assert len(ax.get_yticks()) == len(way) + len(audit.BESIDE)


def test_the_verdict_of_the_stored_runs(full):
    """Written down by hand from the records' balanced accuracies."""
    hml, control = np.array([41.61, 41.28, 39.84]), np.array([42.03, 41.63, 40.30])
    reference = scipy.stats.ttest_rel(hml, control)
    said = audit.verdict(full)
    assert f"{(hml - control).mean():+.2f} [-0.55, -0.27] points" in said
    assert f"p = {reference.pvalue:.4f}" in said
    assert "Equivalent within ±1 point" in said


RECORDS = FULL.parent


def stored(folder: str, *recipes: str) -> list[Run]:
    names = [f"*-{recipe}-s*/config.json" for recipe in recipes]
    return [Run(path.parent) for name in names for path in sorted((RECORDS / folder).glob(name))]


@pytest.mark.filterwarnings("ignore:The run .* is whole")  # three of an older form
def test_the_audits_figures_say_what_their_runs_are(full):
    """Images, protocol; where a run collapsed no mean is drawn, or it is said to be nobody's."""
    own = stored("cifar100_lt_full", "hml1")
    for drawn in (
        plots.way(audit.way(full), audit.beside(full), title="Way", runs=own),
        plots.forest(audit.effects(full), xlabel="points", title="Way", runs=own),
    ):
        (ax,) = drawn.axes
        title = ax.get_title() + ax.get_title(loc="left")
        assert title.splitlines()[:3] == [
            "Way",
            "imagefolder (100 classes, ratio 100), resnet32, 200 epochs",
            "CIFAR-100-LT, lossless: official class counts, other members (another order of files)",
        ]
    short = stored("cifar10_lt_short", "ce", "hml1")
    frame = runs.load(RECORDS / "cifar10_lt_short")
    drawn = plots.delta_sweep(frame[frame["recipe"].isin(["ce", "hml1"])], short)
    title = drawn.axes[0].get_title()
    assert "SHORTENED protocol: resnet8, 12 epochs" in title
    assert "RECOMPRESSED" in title
    assert "a run collapsed, no mean" in title
    means = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == 4]
    assert [np.isnan(line.get_ydata()).tolist() for line in means] == [[True, False, False, False]]
    mined = frame[frame["recipe"] == "hml1"].assign(last_balanced_accuracy=0.99)
    others = [
        mined.assign(run_id=f"other {field}", **{field: value})
        for field, value in {"mean_over": "weights", "second_stage_rate": 0.1}.items()
    ]
    again = plots.delta_sweep(pd.concat([frame, *others]), short)
    (line,) = (line for line in again.axes[0].lines if len(line.get_xdata()) == 4)
    np.testing.assert_array_equal(line.get_ydata(), means[0].get_ydata())  # δ alone differs


def test_the_cube_is_complete_only_with_runs_of_all_its_cells(full):
    stored_cube = audit.cube(full)  # two cells are not there yet, or are
    assert len(stored_cube) == 15
    there = set(full.loc[full["status"] == "done", "cell"])
    for row in stored_cube[stored_cube["cell"] != ""].itertuples():
        assert (row.n > 0) == ({row.cell, row.reference} <= there)
    words = audit.cube_in_words(stored_cube)
    assert (words["difference [95 %]"] == "–").sum() == (stored_cube["n"] == 0).sum()


def test_the_cubes_effects_are_those_of_a_linear_model():
    """Against least squares on the eight cells, for each seed; a collapse has no mean."""
    random = np.random.default_rng(0)
    values = {cell: 0.4 + 0.05 * random.standard_normal(4) for cell in audit.CUBE.values()}
    found = audit.cube(made_up(**values))
    assert (found["n"] == 4).all()
    signs = np.array(
        [
            [
                1.0 if key[axis] == on else -1.0
                for axis, (_, _, on) in enumerate(audit.AXES.values())
            ]
            for key in audit.CUBE
        ]
    )
    design = np.column_stack([np.ones(8), signs / 2])
    by_seed = 100 * np.array(list(values.values()))
    effects = np.linalg.lstsq(design, by_seed, rcond=None)[0][1:]  # (3, seeds)
    mean = found[found["setting"] == "on average"]
    np.testing.assert_allclose(mean["difference"], effects.mean(axis=1))
    for row, own in zip(mean.itertuples(), effects, strict=True):
        low, high = scipy.stats.t.interval(0.95, 3, own.mean(), scipy.stats.sem(own))
        assert (row.low, row.high) == pytest.approx((low, high))
    simple = found[(found["cell"] == "HML1") & (found["reference"] == "HML1, over weights")]
    expected = 100 * (values["HML1"] - values["HML1, over weights"]).mean()
    assert simple["difference"].item() == pytest.approx(expected)
    lost = made_up(**{**values, "HML1": [0.01, 0.4, 0.4, 0.4]}).assign(num_classes=100)
    cube = audit.cube(lost)
    assert cube["difference"].isna().sum() == 3 + 3  # HML1 is in one row and the mean of each axis
    assert "/" in audit.cube_in_words(cube).loc[lambda t: t["with"] == "on average"].iloc[0, 1]


def test_seeds_that_not_all_cells_have_do_not_break_the_way_or_all_pairs(full):
    """Records come seed by seed: what is compared is what its cells have in common, and it is said."""
    more = full[full["cell"].isin([cell for _, cell in audit.WAY])].copy()
    later = more.assign(seed=more["seed"] + 10, run_id=more["run_id"] + "x")
    more = pd.concat([full, later], ignore_index=True)
    way = audit.way(more)
    assert {len(values) for values in way["values"]} == {6}
    assert way["difference"].iloc[1:5].sum() == pytest.approx(way["difference"].iloc[-1])
    assert not len(audit.beside(more))  # those have three seeds
    fewer = more.drop(more[(more["cell"] == "CE") & (more["seed"] == 12)].index)
    assert {len(values) for values in audit.way(fewer)["values"]} == {5}
    assert audit.way(fewer)["difference"].iloc[1:5].sum() == pytest.approx(
        audit.way(fewer)["difference"].iloc[-1]
    )
    assert "n = 3 to 6" in audit.answer(more) or "n = 6" in audit.answer(more)
    lone = more[(more["cell"] != "Balanced softmax") | (more["seed"] == 0)]
    pairs = tables.all_pairs(lone, by="cell")
    assert pairs.attrs["few_seeds"] == ["Balanced softmax"]
    assert "Balanced softmax" not in {*pairs["cell"], *pairs["reference"]}
    assert (pairs["n"] == 3).all()
    cells = audit.scores_by_cell(more, ["CE", "LDAM-DRW"], ["few"])
    assert cells["n"].tolist() == ["6", "3"]


@pytest.mark.begun_first
def test_figures_of_methods_draw_the_runs_of_one_that_collapsed_and_no_mean():
    own = audit.cells(BASE_FULL, [0, 1, 3])
    unstable, stable = (
        [Run(FULL / config.run_id) for config in own[cell]] for cell in ("HML1", "CE")
    )
    unstable.sort(key=lambda run: run.config.seed)
    told = "HML1: 2 of 3 runs collapsed: each run by itself, no mean"
    ends = [100 * run.selection("last")["balanced_accuracy"] for run in unstable]

    accuracy = plots.balanced_accuracy([*stable, *unstable]).axes[0]
    assert told in accuracy.get_title()
    drawn = [line.get_xdata() for line in accuracy.lines]
    kept = [end for end in ends if end > 10]
    assert any(sorted(xs) == pytest.approx(sorted(kept)) for xs in map(list, drawn))
    assert "2 runs at 1.0 / 1.0" in [text.get_text() for text in accuracy.texts]
    assert accuracy.get_xlim()[0] > 30, "the others have the axis"
    assert [line.get_gid() for line in accuracy.lines].count("off the axis") == 1
    alone = plots.balanced_accuracy([run for run in unstable if run.config.seed > 0]).axes[0]
    assert alone.get_xlim()[0] < 1 < alone.get_xlim()[1], "without others the axis is theirs"
    assert not any(np.isclose(x, np.mean(ends)) for xs in drawn for x in xs)

    curves = plots.learning_curves([*stable, *unstable])
    assert told in "".join(text.get_text() for text in curves.texts) + str(curves.get_suptitle())
    for ax in curves.axes:
        thin = [line for line in ax.lines if line.get_linewidth() == 0.8]
        assert len(thin) == len(unstable)
        assert len(ax.collections) == 1  # the band of the other
    last = sorted(
        line.get_ydata()[-1] for line in curves.axes[1].lines if line.get_linewidth() == 0.8
    )
    assert last == pytest.approx(sorted(ends))

    for made, bands in (
        (plots.per_class_accuracy([*stable, *unstable]), 1),
        (plots.gain_by_frequency([*stable, *unstable]), 0),
        (plots.accuracy_by_cost([*stable, *unstable]), None),
        (plots.shot_group_accuracy([*stable, *unstable]), None),
        (plots.confusion_matrix([*stable, *unstable], ["hml1"]), None),
    ):
        said = str(made.get_suptitle()) + "".join(t.get_text() for t in made.texts)
        said += "".join(ax.get_title() for ax in made.axes)
        assert "2 of 3 runs collapsed: " in said
        if bands is not None:
            thin = [line for line in made.axes[0].lines if line.get_linewidth() == 0.8]
            assert len(thin) == len(unstable)
            curved = [c for c in made.axes[0].collections if len(c.get_paths()[0].vertices) > 20]
            assert len(curved) == bands
    assert "collapsed" not in plots.balanced_accuracy(stable).axes[0].get_title()


def test_the_runs_that_are_drawn_are_counted():
    """Of HML1's runs those with a run of CE of their seed, here three of which one collapsed."""
    own = audit.cells(BASE_FULL, [0, 1, 2, 3, 4])
    mined = [Run(FULL / config.run_id) for config in own["HML1"]]
    plain = [Run(FULL / config.run_id) for config in own["CE"][:3]]
    (ax,) = plots.gain_by_frequency([*plain, *mined]).axes
    title = ax.get_title()
    assert "HML1: 1 of the 3 runs drawn (2 of 5 runs) collapsed" in title
    assert "n = 3 seeds" in title
    assert sum(line.get_linewidth() == 0.8 for line in ax.lines) == 3
    assert ax.get_ylim()[0] > -30
    assert "curves of collapsed runs leave the axis" in title


def test_times_unlike_each_other_are_no_costs():
    """Three commits, and beginnings that were taken over: no mean, and the title says why."""
    own = audit.cells(BASE_FULL, [0, 1, 2, 3])
    runs = [
        Run(FULL / config.run_id) for cell in ("CE", "Balanced softmax") for config in own[cell]
    ]
    (ax,) = plots.accuracy_by_cost(runs).axes
    title = ax.get_title()
    assert "not timed alike" in title
    assert "3 commits (001e4d5c75, 424d657429-dirty, 613ccefe79)" in title
    assert "1 of 8 runs began with another's epochs" in title
    drawn = sorted(x for line in ax.lines for x in line.get_xdata())
    assert drawn == pytest.approx(sorted(run.history["seconds"].sum() / 60 for run in runs))
    alike = [run for run in runs if run.config.recipe == "balanced_softmax"][:3]
    assert timed.unlike(alike) == []
    assert "marks: means" in plots.accuracy_by_cost(alike).axes[0].get_title()


def test_the_forest_names_what_it_cannot_draw_its_n_and_its_family(full):
    effects = audit.effects(full)
    (ax,) = plots.forest(effects, xlabel="points").axes
    labels = [" ".join(text.get_text().split()) for text in ax.get_yticklabels()]
    assert len(labels) == len(effects)
    assert all("(n = 3)" in label for label in labels)
    said = [text.get_text() for text in ax.texts]
    assert said == [
        f"collapsed runs, no mean: {each}"
        for each in effects.loc[effects["collapsed"] > 0, "each"].iloc[::-1]
    ]
    assert f"family of {len(effects)} tests" in ax.get_xlabel()
    assert "†" not in "".join(labels) + ax.get_xlabel()
    sharp = effects.assign(p_holm=0.04, low_simultaneous=-9.0, high_simultaneous=9.0)
    sharp.attrs = effects.attrs
    (ax,) = plots.forest(sharp, xlabel="points").axes
    assert "Holm's p is sharper than Bonferroni's intervals" in ax.get_xlabel()
    assert "†" in ax.get_yticklabels()[0].get_text()


def test_a_mean_over_other_images_is_none_where_a_run_collapsed(full):
    done = full[full["status"] == "done"]
    records = [Run(FULL / run_id) for run_id in done["run_id"].unique()]
    found = audit.over_images(full, records)
    lost = found["collapsed"] > 0
    assert lost.sum() == 7
    assert found.loc[lost, [c for c in MEANS if c in found]].isna().all(axis=None)
    assert found.loc[~lost, "difference"].notna().all()
    words = audit.over_images_in_words(found)
    row = words.loc["HML1 against CE, both without the drop"]
    assert row.tolist() == ["+1.9 / -38.0 / +1.5", "–", "–", "–", "3"]
    effects = audit.effects(full).set_index("label")["each"]
    assert found.set_index("label").loc[lost.values, "each"].to_dict() == {
        label: effects[label] for label in found.loc[lost, "label"]
    }


def test_all_pairs_say_whether_the_primary_contrast_is_apart():
    values = {"CE": [0.30, 0.31, 0.32, 0.33], "LDAM-DRW": [0.50, 0.52, 0.51, 0.54]}
    primary = {
        audit.PRIMARY[0]: [0.40, 0.43, 0.42, 0.42],
        audit.PRIMARY[1]: [0.41, 0.42, 0.43, 0.42],
    }
    pairs = tables.all_pairs(made_up(**values, **primary), by="cell")
    said = audit.primary_among(pairs)
    assert f"{audit.PRIMARY[0]} − {audit.PRIMARY[1]}, is **not** apart here: -0.25 [" in said
    assert "n = 4 seeds" in said
    assert "among 6 pairs" in said
    far = {**primary, audit.PRIMARY[1]: [0.20, 0.21, 0.21, 0.20]}
    assert "is apart here: +21" in audit.primary_among(
        tables.all_pairs(made_up(**values, **far), by="cell")
    )
    assert "is not among" in audit.primary_among(tables.all_pairs(made_up(**values), by="cell"))


def test_a_collapse_is_told_by_its_seeds(full):
    effects = audit.effects(full).set_index("label")
    lost = effects.loc["HML1 against CE, both without the drop"]
    assert (lost["collapsed"], lost["each"]) == (1, "+1.9 / -38.0 / +1.5")
    assert "1 of these runs collapsed" in audit.answer(full)
    cells = audit.scores_by_cell(full, ["HML1", "CE", "HML2"], ["balanced_accuracy"])
    assert cells["balanced_accuracy"].tolist() == [
        "median 39.1 of 41.1 / 1.0 / 39.1", "38.6 ± 0.8", "median 1.0 of 1.0 / 1.0 / 1.0",
    ]  # fmt: skip


def test_effects_are_one_family(full):
    effects = audit.effects(full)
    lost = effects["collapsed"] > 0
    assert lost.sum() == 7  # told by their seeds; their tests count
    assert effects.loc[lost, [c for c in MEANS if c in effects]].isna().all(axis=None)
    assert effects.attrs["tests"] == effects["p_value"].notna().sum() + lost.sum() == len(effects)
    assert effects["p_holm"].min() == pytest.approx(len(effects) * effects["p_value"].min())


def test_the_authors_chml2_is_also_set_against_weighted_cross_entropy():
    found = audit.author_contrasts().set_index("label").loc["CHML2, CS − (CE, CS)"]
    assert found["n"] == 20
    assert found[["difference", "low", "high"]].round(2).tolist() == [3.35, 2.27, 4.43]


def test_the_loss_alone_keeps_what_the_mean_divides_by():
    cells = audit.cells(BASE, [0])
    for question, mined, without in audit.QUESTIONS:
        if question.startswith("The loss alone"):
            assert cells[without][0].mean_over == cells[mined][0].mean_over


def test_the_audits_grid_costs_at_most_six_tenths_of_its_runs_alone():
    cells = audit.cells({**BASE, "epochs": 200}, [0, 1], [1e2, 1e3, 1e6])
    configs = list({c.run_id: c for members in cells.values() for c in members}.values())
    assert epochs_to_train(configs) <= 0.6 * 200 * len(configs)


def test_focal_with_gamma_zero_is_cross_entropy_to_the_bit(tmp_path):
    cells = audit.cells(BASE, [0])
    chosen = {name: cells[name] for name in ("CE", "Focal, γ = 0")}
    frame = audit.run(chosen, runs_root=tmp_path, progress=False)
    assert frame["last_nll"].nunique() == 1


def test_all_of_the_authors_runs_are_used_once():
    table = audit.author_statistics()
    runs = published.author_runs()
    assert table["n"].sum() == len(runs) == 225
    row = table.set_index("label").loc["CHML2, CS"]
    own = runs[runs["label"] == "CHML2, CS"].sort_values("run")["balanced_accuracy"].to_numpy()
    plain = runs[runs["label"] == "CE, None"]["balanced_accuracy"].to_numpy()
    assert row["mean"] == pytest.approx(own.mean())
    assert row["sd"] == pytest.approx(own.std(ddof=1))
    assert row["first_five"] == pytest.approx(own[:5].mean())
    reference = scipy.stats.ttest_ind(own, plain, equal_var=False)
    assert row["p_value"] == pytest.approx(reference.pvalue)
    tested = np.sort(table["p_value"].dropna())
    assert table["p_holm"].min() == pytest.approx(tested[0] * len(tested))
    with pytest.raises(ValueError, match="`baseline` to be one of"):
        audit.author_statistics("nobody")
