"""docs/verdict.md says what the stored runs say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hml_lab import stats

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "verdict.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text().replace("−", "-")


def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 40
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_every_number_that_links_to_a_run_is_that_runs(page):
    linked = re.findall(r"\[(\d+\.\d\d)\]\(([^)]+metrics\.json)\)", page)
    assert len(linked) == 12 * 3 + 2
    for text, path in linked:
        metrics = json.loads((PAGE.parent / path).read_text())["selections"]["last"]
        assert f"{100 * metrics['balanced_accuracy']:.2f}" == text


def test_the_primary_contrast_is_that_of_its_runs(page):
    """Recomputed from the page's own table."""
    cells = dict(re.findall(r"^\| ((?:CE|HML1)[^|]*?) \|(.+)$", page, re.MULTILINE))
    control = "CE re-weighted like HML1, over images + early drop"
    hml, other = (
        np.array([float(v) for v in re.findall(r"\[(\d+\.\d\d)\]", cells[name])])
        for name in ("HML1 + early drop", control)
    )
    found, same = stats.paired_difference(hml, other), stats.equivalence(hml, other, 1.0)
    assert (
        f"{found.difference:.2f} points of balanced accuracy\n[{found.low:.2f}, {found.high:.2f}]"
        in page
    )
    assert f"90 %: [{same.low:.2f}, {same.high:.2f}]" in page
    assert f"p = {found.p_value:.4f}" in page
    low, high = stats.sd_interval(found.sd, found.n)
    assert f"between {low:.2f} and {high:.2f}" in page


def test_the_steps_are_those_of_the_stored_table(page):
    steps = pd.read_csv(ROOT / "results" / "tables" / "audit_cifar100_full_way.csv").iloc[1:]
    for row in steps.itertuples():
        assert f"| {row.difference:+.2f} [{row.low:.2f}, {row.high:.2f}] |" in page
        assert f"| [{row.low_simultaneous:.2f}, {row.high_simultaneous:.2f}] |" in page
