"""The audit: cells differ in their switch alone, effects are paired, the authors' runs are all used."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_core.trainer.branches import epochs_to_train
from hml_lab import published
from hml_lab.studies import audit

BASE = {"dataset": "digits", "epochs": 4, "batch_size": 64, "protocol": "controlled"}


def test_cells_differ_from_their_neighbour_in_the_switch_alone():
    cells = audit.cells(BASE, [0], [1e2])

    def changed(a: str, b: str) -> set[str]:
        first, second = (cells[name][0].to_dict() for name in (a, b))
        return {key for key in first if first[key] != second[key]}

    assert changed("CE", "CE + early drop") == {"early_drop"}
    assert changed("HML1", "HML1 + early drop") == {"early_drop"}
    options = {"recipe", "delta", "weight_placement", "loss_scale", "mean_over"}
    assert changed("CE re-weighted like HML1, over images", "HML1") == options
    assert changed("CE re-weighted like HML1, over images", "CE re-weighted like HML1") == {
        "mean_over"
    }
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
    for _, with_switch, without in audit.QUESTIONS:
        assert {with_switch, without} <= set(cells)


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
    assert "adds to that is +0.5 [" in text
    assert "or +1.5 [" in text
    assert "n = 2" in text
    partial = audit.answer(frame[frame["cell"] != "CE re-weighted like HML1, over images"])
    assert "not there: CE re-weighted like HML1, over images − CE" in partial


def test_the_loss_alone_keeps_what_the_mean_divides_by():
    """HML divides by the number of images; so does every cross-entropy that its loss is set against."""
    cells = audit.cells(BASE, [0])
    for question, _, without in audit.QUESTIONS:
        if question.startswith("The loss alone"):
            assert cells[without][0].mean_over == "images"


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
