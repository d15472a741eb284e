"""Tables: the numbers of a small frame written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_core import tables

CE = [0.70, 0.72, 0.71, 0.69, 0.73]
HML = [0.75, 0.76, 0.77, 0.74, 0.76]
LDAM = [0.71, 0.71, 0.72, 0.70, 0.72]


def frame(**groups) -> pd.DataFrame:
    rows = [
        {
            "recipe": recipe,
            "seed": seed,
            "status": "done",
            **{
                f"{s}_{m}": value
                for s in ("last", "best_test", "best_validation")
                for m in tables.METRICS
            },
        }
        for recipe, values in groups.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_summary_is_mean_sample_sd_and_n_in_percent():
    found = tables.summary(frame(ce=CE), metrics=["top1"])
    assert found.to_dict("records") == [
        {
            "recipe": "ce",
            "metric": "top1",
            "mean": pytest.approx(71.0),
            "sd": pytest.approx(100 * np.std(CE, ddof=1)),
            "n": 5,
        }
    ]


def test_differences_are_paired_by_seed_and_corrected():
    found = tables.differences(frame(ce=CE, hml1=HML, ldam=LDAM)).set_index("recipe")
    raw = [scipy.stats.ttest_rel(values, CE).pvalue for values in (HML, LDAM)]
    assert found["p_value"].tolist() == pytest.approx(raw)
    assert found["p_holm"].tolist() == pytest.approx(
        [min(2 * raw[0], 1) if raw[0] < raw[1] else max(raw), max(raw)]
    )
    assert found.loc["hml1", "difference"] == pytest.approx(4.6)
    assert found.loc["hml1", "low"] < 4.6 < found.loc["hml1", "high"]


def test_only_seeds_that_both_have_are_paired():
    found = tables.differences(frame(ce=CE, hml1=HML[:3])).iloc[0]
    assert found["n"] == 3
    assert found["difference"] == pytest.approx(100 * (np.mean(HML[:3]) - np.mean(CE[:3])))


def test_mixed_settings_are_refused():
    twice = pd.concat([frame(ce=CE, hml1=HML), frame(hml1=HML)])
    with pytest.raises(ValueError, match="one run for each recipe and seed"):
        tables.differences(twice)
    with pytest.raises(ValueError, match="runs of the baseline 'ce'"):
        tables.differences(frame(hml1=HML))
    with pytest.raises(ValueError, match="at least one finished run"):
        tables.summary(frame(ce=CE).assign(status="failed"))
    with pytest.raises(ValueError, match="`selection` to be one of"):
        tables.summary(frame(ce=CE), selection="best")


def test_the_printed_table_marks_the_best_and_shows_interval_and_p():
    table = tables.comparison(frame(ce=CE, hml1=HML, ldam=LDAM))
    assert table.index.tolist() == ["CE", "HML1", "LDAM"]
    assert table.loc["HML1", "Balanced acc."] == "75.6 ± 1.1 *"
    assert table.loc["CE", "ECE"] == "71.0 ± 1.6 *"  # the lowest is the best
    assert table.loc["HML1", "n"] == "5"
    label = next(c for c in table.columns if c.startswith("Δ"))
    assert table.loc["HML1", label].startswith("+4.6 [+")
    assert table.loc["CE", label] == "–"
    assert float(table.loc["HML1", "p (Holm)"].strip("< ")) < 0.01
    text = tables.to_markdown(table)
    assert len({len(line) for line in text.splitlines()}) == 1
    assert "| HML1 " in text


def test_one_seed_gives_a_table_without_spread_or_test():
    table = tables.comparison(frame(ce=CE[:1], hml1=HML[:1]))
    assert table.loc["HML1", "Top-1"] == "75.0 *"
    assert table.loc["HML1", "p (Holm)"] == "–"


def test_an_empty_shot_group_is_a_dash():
    empty = frame(ce=CE, hml1=HML).assign(last_few=np.nan)
    assert tables.comparison(empty)["Few"].tolist() == ["–", "–"]


def test_the_conclusion_is_honest():
    wins = tables.conclusion(frame(ce=CE, ldam=LDAM, hml1=HML))
    assert "**HML1** is better than CE" in wins
    assert "HML1 wins against the best other method, LDAM" in wins
    loses = tables.conclusion(frame(ce=HML, hml1=CE))
    assert "**HML1** is worse than CE" in loses
    assert "HML1 does not win against the best other method, CE" in loses
    open_question = tables.conclusion(frame(ce=CE, hml1=LDAM))
    assert "does not differ significantly from CE" in open_question
    assert "too few seeds" in tables.conclusion(frame(ce=CE[:1], hml1=HML[:1]))


def test_peeking_is_shown_as_a_gain():
    peeked = frame(ce=CE)
    peeked["best_test_balanced_accuracy"] += 0.02
    assert tables.selections(peeked)["added by peeking"].tolist() == ["+2.0"]
