"""Accuracy of groups of classes: by hand, and at the width of iNaturalist 2018."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from hml_core.config import RunConfig
from hml_lab import plots
from hml_lab.tables import class_groups

COUNTS = np.array([600, 200, 100, 30, 8, 7, 2])
GROUPS = ("Aves", "Aves", "Fungi", "Aves", "Fungi", "Mollusca", "Fungi")
FIRST = np.array([1.0, 0.9, 0.8, 0.6, 0.4, np.nan, 0.0])  # one class has no test image
SECOND = np.array([0.8, 0.7, 0.6, 0.6, 0.2, np.nan, 0.2])


def run(recipe: str, accuracy: np.ndarray, counts=COUNTS, groups=GROUPS) -> SimpleNamespace:
    """What the functions ask a run for."""
    return SimpleNamespace(
        config=RunConfig(dataset="inat2018", recipe=recipe),
        class_counts=counts,
        class_groups=groups,
        synthetic=True,
        initialised_from="random",
        per_class_accuracy=lambda selection="last": accuracy,
        selection=lambda name: {"balanced_accuracy": float(np.mean(accuracy))},
    )


def test_bins_hold_every_tested_class_once_with_the_mean_over_the_runs():
    found = class_groups.by_frequency([run("ce", FIRST), run("ce", SECOND)]).set_index("group")
    assert found.index.tolist() == ["1–5", "6–10", "21–50", "51–100", "101–200", "> 500"]
    assert found["classes"].tolist() == [1] * 6
    assert found["images"].tolist() == [2, 15, 30, 100, 200, 600]
    np.testing.assert_allclose(found["mean"], [0.1, 0.3, 0.6, 0.7, 0.8, 0.9])
    assert found[["low", "high"]].isna().all(axis=None), "one class has no spread"


def test_groups_come_by_size_with_an_interval_over_their_classes():
    found = class_groups.by_group([run("ce", FIRST), run("hml1", SECOND)])
    assert found["group"].tolist() == ["Aves", "Aves", "Fungi", "Fungi"]  # Mollusca is not tested
    assert found["images"].tolist() == [830, 830, 110, 110]
    aves = found.iloc[0]
    assert aves["mean"] == pytest.approx((1.0 + 0.9 + 0.6) / 3)
    # Three classes: Student's t, cut off at 1.
    half = scipy.stats.t.ppf(0.975, 2) * np.std([1.0, 0.9, 0.6], ddof=1) / np.sqrt(3)
    assert aves["low"] == pytest.approx(aves["mean"] - half)
    assert aves["high"] == 1.0
    table = class_groups.table(found)
    assert table.loc["Aves", "CE"] == "83.3 [31.6, 100.0]"
    assert table.loc["Fungi", "Training images"] == "110"


def test_few_classes_have_an_interval_that_holds_what_it_says():
    """Four classes of one kind, drawn 300 times; a percentile bootstrap holds the mean in about 80 %."""
    random = np.random.default_rng(0)
    accuracy = random.normal(0.5, 0.1, (300, 4))
    held = 0
    for values in accuracy:
        (row,) = class_groups.by_frequency([run("ce", values, np.full(4, 30), ())]).itertuples()
        held += row.low < 0.5 < row.high
    assert 0.91 < held / 300 < 0.99


def test_recipes_whose_bars_overlap_may_differ_by_class():
    random = np.random.default_rng(0)
    for number in (8, 40):  # Student's t, a bootstrap
        counts, first = np.full(number, 30), random.uniform(0.2, 0.8, number)
        second = first + 0.05 + random.normal(0, 0.01, number)
        runs = [run("ce", first, counts, ()), run("hml1", second, counts, ())]
        found = class_groups.by_frequency(runs).set_index("recipe")
        assert found.loc["hml1", "low"] < found.loc["ce", "high"], "the bars overlap"
        row, paired = found.loc["hml1"], second - first
        assert row["difference"] == pytest.approx(paired.mean())
        expected = scipy.stats.t.interval(0.95, number - 1, paired.mean(), scipy.stats.sem(paired))
        assert [row["difference_low"], row["difference_high"]] == pytest.approx(expected, abs=1e-3)
        assert found.loc["ce", list(class_groups.DIFFERENCE)].isna().all()
        table = class_groups.table_of_differences(found.reset_index())
        assert list(table.columns) == ["Classes", "Training images", "HML1"]
        assert table.loc["21–50", "HML1"].startswith(f"{100 * paired.mean():+.1f} [+")


def test_a_single_class_has_a_difference_without_interval():
    found = class_groups.by_frequency([run("ce", FIRST), run("hml1", SECOND)])
    table = class_groups.table_of_differences(found)
    assert table.loc["> 500", "HML1"] == "-20.0"


def test_a_binomial_spread_gives_the_interval_that_theory_says():
    random = np.random.default_rng(0)
    counts = np.full(2000, 30)
    accuracy = (random.random(2000) < 0.3).astype(float)
    row = class_groups.by_frequency([run("ce", accuracy, counts, ())]).iloc[0]
    half = 1.96 * accuracy.std() / np.sqrt(2000)
    assert row["low"] == pytest.approx(row["mean"] - half, abs=0.002)
    assert row["high"] == pytest.approx(row["mean"] + half, abs=0.002)


def test_runs_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least one finished run"):
        class_groups.by_frequency([])
    with pytest.raises(ValueError, match="same training set"):
        class_groups.by_frequency([run("ce", FIRST), run("ce", FIRST, COUNTS[::-1])])
    with pytest.raises(ValueError, match="have groups"):
        class_groups.by_group([run("ce", FIRST, groups=())])


@pytest.mark.slow
def test_8142_classes_and_seven_recipes_are_drawn_in_seconds(tmp_path):
    random = np.random.default_rng(0)
    counts = np.sort(np.geomspace(1000, 2, 8142).astype(int))[::-1]
    groups = tuple(random.choice(["Plantae", "Insecta", "Aves", "Fungi", "Reptilia"], 8142))
    recipes = ["ce", "ldam_drw", "balanced_softmax", "crt", "tau_norm", "hml1", "hml2"]
    runs = [run(r, random.integers(0, 4, 8142) / 3, counts, groups) for r in recipes]
    started = time.process_time()
    for made in (
        plots.accuracy_by_frequency(runs),
        plots.accuracy_by_group(runs),
        plots.class_counts(counts, [""] * 8142, synthetic=True),
    ):
        made.savefig(tmp_path / "drawn.png")
        assert "SYNTHETIC" in made.axes[0].get_title()
    assert time.process_time() - started < 30  # of the processor, however busy it is
    labels = [t.get_text() for t in plots.accuracy_by_frequency(runs).axes[0].get_xticklabels()]
    numbers = [int(text.split("(")[1].strip(")").replace(",", "")) for text in labels]
    assert sum(numbers) == 8142
    handles = plots.accuracy_by_group(runs).legends[0].get_texts()
    assert len(handles) == 7


def test_runs_of_one_recipe_in_unlike_settings_are_not_averaged():
    """Neither classes of a bin nor of a group; the message names the field that separates them."""
    early, late = run("hml1", FIRST), run("hml1", SECOND)
    late.config = RunConfig(dataset="inat2018", recipe="hml1", delta=1e7, seed=1)
    for measure in (class_groups.by_frequency, class_groups.by_group, plots.accuracy_by_frequency):
        with pytest.raises(
            ValueError, match=r"'hml1' .* several settings \(δ = 10000; δ = 1e\+07\)"
        ):
            measure([run("ce", FIRST), early, late])
