"""Published figures: complete, sourced, and the yardsticks of the documentation are among them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hml_core.errors import DataError
from hml_lab import published


@pytest.mark.parametrize("name", ["cifar_lt", "inaturalist2018"])
def test_every_figure_has_a_source_and_a_grade(name):
    frame = published.table(name)
    columns = ["source", "method", "dataset", "metric", "mean_percent", "evidence"]
    assert not frame[columns].isna().to_numpy().any()
    assert set(frame["evidence"]) <= {"paper", "repo_rerun", "authors_slides", "secondary"}
    assert frame["mean_percent"].between(0, 100).all()


def test_the_yardsticks_are_there():
    frame = published.table("cifar_lt")
    row = frame[
        frame["source"].str.startswith("Cao2019")
        & (frame["method"] == "CE (ERM)")
        & (frame["dataset"] == "cifar10")
        & (frame["imbalance_type"] == "exp")
        & (frame["imbalance_ratio"] == 100)
    ]
    assert row["mean_percent"].tolist() == [70.36]


def test_all_of_the_authors_runs_are_there():
    assert len(published.table("isic2018_author_runs")) == 225


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="Expected a published table out of"):
        published.table("imagenet_lt")
    with pytest.raises(DataError, match=r"'cifar_lt.csv' are not there"):
        published.table("cifar_lt", folder=tmp_path)


def test_recipes_are_set_beside_comparable_rows_alone():
    from hml_core import recipes

    yardsticks = {
        ("ce", "cifar10"): 70.36, ("ldam_drw", "cifar10"): 77.03, ("balanced_softmax", "cifar10"): 77.54,
        ("ce", "cifar100"): 38.32, ("ldam_drw", "cifar100"): 42.04,
    }  # fmt: skip
    for (recipe, dataset), expected in yardsticks.items():
        found = published.comparable(recipe, dataset, "exp", 100)
        assert found["mean_percent"] == expected
    assert published.comparable("hml1", "cifar10", "exp", 100) is None
    assert published.comparable("ce", "cifar10", "exp", 37) is None
    choices = pd.read_csv(published.FOLDER / "comparable.csv")
    assert set(choices["recipe"]) <= set(recipes.names())
    assert not choices["source"].str.startswith("Ren2020").any()
    known = published.table("cifar_lt")[["source", "method"]].drop_duplicates()
    assert len(choices.merge(known)) == len(choices)


def test_figures_of_inaturalist_are_chosen_by_name():
    from hml_core import recipes

    expected = {"ce": 61.7, "crt": 65.2, "ldam_drw": 68.0, "balanced_softmax": 69.8}
    for recipe, percent in expected.items():
        assert published.comparable(recipe, "inat2018", "natural", 1.0)["mean_percent"] == percent
    assert published.comparable("hml1", "inat2018", "natural", 1.0) is None
    assert published.comparable("tau_norm", "inat2018", "natural", 1.0)["mean_percent"] == 51.95, (
        "ours is tau = 1: 65.6 and 65.9 are of a tuned tau"
    )
    choices = pd.read_csv(published.FOLDER / "comparable_inaturalist2018.csv")
    assert set(choices["recipe"]) <= set(recipes.names())
    known = published.table("inaturalist2018")[["source", "method"]].drop_duplicates()
    assert len(choices.merge(known)) == len(choices)


def test_epochs_are_those_that_the_sources_name():
    choices = pd.read_csv(published.FOLDER / "comparable_inaturalist2018.csv")
    named = choices["method"].str.extract(r"\((\d+) ep\)", expand=False).astype(float)
    of_table = {"Hong2021 LADE Table 5": 200.0}  # named in its row of CE
    expected = named.fillna(choices["source"].map(of_table))
    pd.testing.assert_series_equal(choices["epochs"], expected, check_names=False)
    found = published.comparable("ldam_drw", "inat2018", "natural", 1.0)
    assert np.isnan(found["epochs"])


@pytest.mark.parametrize(
    ("recipe", "percent"),
    [("crt", 61.7), ("balanced_softmax", 65.0), ("ce_drw", 57.16), ("tau_norm", 61.34)],
)
def test_cross_entropy_of_the_same_source_comes_along(recipe, percent):
    assert published.comparable(recipe, "inat2018", "natural", 1.0)["ce_percent"] == percent


def test_cross_entropy_with_anything_added_is_not_the_baseline_of_a_source():
    names = pd.concat([published.table(name)["method"] for name in ("cifar_lt", "inaturalist2018")])
    found = set(names[names.str.fullmatch(published.PLAIN_CE)])
    assert {"CE", "CE (ERM) SGD", "CE joint (90 ep)", "CE (Softmax, 200 ep)"} <= found
    assert not [name for name in found if any(word in name for word in "+-&") or "DR" in name]
    assert "CE (quoted)" not in found
