"""Published figures: complete, sourced, and the yardsticks of the documentation are among them."""

from __future__ import annotations

import pytest

from hml_core import published
from hml_core.errors import DataError


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
