"""Tables: the numbers of a small frame written out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_lab import stats, tables

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
    assert (
        "HML1 is better than the best other method, LDAM (75.6 % against 71.2 %): +4.4 [+" in wins
    )
    loses = tables.conclusion(frame(ce=HML, hml1=CE))
    assert "**HML1** is worse than CE" in loses
    assert "No other method is above CE: 71.0 % against 75.6 %." in loses
    open_question = tables.conclusion(frame(ce=CE, hml1=LDAM))
    assert "does not differ significantly from CE" in open_question
    assert "too few seeds" in tables.conclusion(frame(ce=CE[:1], hml1=HML[:1]))


def test_a_higher_mean_alone_is_not_better_than_the_best_other():
    """LDAM's mean is above Focal's by less than the seeds scatter."""
    found = tables.conclusion(frame(ce=[0.5, 0.51, 0.5, 0.52, 0.5], focal=CE, hml1=LDAM))
    paired = 100 * (np.array(LDAM) - CE)
    assert paired.mean() > 0
    half = scipy.stats.t.ppf(0.975, 4) * paired.std(ddof=1) / np.sqrt(5)
    against_best = found.split("\n\n")[1]
    assert "HML1 is not distinguishable with 5 seeds from the best other method, Focal" in found
    assert "is better" not in against_best
    interval = f"{paired.mean():+.1f} [{paired.mean() - half:+.1f}, {paired.mean() + half:+.1f}]"
    assert f"(71.2 % against 71.0 %): {interval} points" in against_best


def test_the_conclusion_says_what_could_have_been_detected():
    found = tables.conclusion(frame(ce=CE, hml1=LDAM))
    sd = np.std(100 * (np.array(LDAM) - CE), ddof=1)
    assert f"Detectable with 80 % power: {stats.minimum_detectable(sd, 5):.1f} points." in found
    shared = tables.conclusion(frame(ce=CE, focal=HML, hml1=LDAM), methods=["hml1"])
    effect = stats.minimum_detectable(sd, 5, alpha=0.05 / 2)
    assert f"Detectable with 80 % power: {effect:.1f} points." in shared.split("\n\n")[0]


def test_the_conclusion_of_hard_mining_alone_has_no_other_method():
    found = tables.conclusion(frame(hml1=CE, hml2=HML), baseline="hml1")
    assert "**HML2** is better than HML1" in found
    assert "other method" not in found


def published_frame(**fields) -> pd.DataFrame:
    """Runs on iNaturalist 2018 on the data set's own protocol, but for ``fields``."""
    setting = {
        "dataset": "inat2018",
        "imbalance_type": "natural",
        "imbalance_ratio": 1.0,
        "synthetic": False,
        "model": "resnet50",
        "epochs": 90,
        "image_size": 224,
        "lr_schedule": "cosine",
        "ema_decay": 0.0,
    }
    groups = {"ce": CE, "balanced_softmax": HML, "ldam_drw": LDAM, "tau_norm": CE, "hml1": HML}
    return frame(**groups).assign(**setting | fields)


def beside(**fields) -> dict[str, str]:
    return tables.beside_published(published_frame(**fields)).set_index("Recipe")["Same protocol"]


def test_the_protocol_is_the_same_where_the_source_says_that_it_is():
    ours = beside()
    assert ours["CE"] == "yes"
    assert ours["Balanced Softmax"] == "no", "its figure is of 200 epochs"
    assert ours["LDAM-DRW"] == "not stated"
    assert ours["HML1"] == "no"
    longer = beside(epochs=200)
    assert (longer["CE"], longer["Balanced Softmax"]) == ("no", "yes")


@pytest.mark.parametrize(
    "fields", [{"ema_decay": 0.999}, {"lr_schedule": "steps"}, {"image_size": 112}]
)
def test_a_changed_protocol_is_not_the_same(fields):
    assert set(beside(**fields)) == {"no"}


def test_published_figures_come_with_their_own_baseline():
    found = tables.beside_published(published_frame()).set_index("Recipe")
    assert found.loc["Balanced Softmax", ["Published", "CE of that source"]].tolist() == [
        "69.8",
        "65.0",
    ]
    assert found.loc["Balanced Softmax", "Remark"] == "200 epochs"
    assert found.loc["LDAM-DRW", "CE of that source"] == "57.1"
    assert found.loc["HML1", ["CE of that source", "Remark"]].tolist() == ["–", ""]


def test_the_table_of_cifar_keeps_its_columns():
    setting = {"dataset": "cifar10", "imbalance_type": "exp", "imbalance_ratio": 100.0}
    setting |= {"model": "resnet32", "epochs": 200, "lr_schedule": "steps", "image_size": None}
    found = tables.beside_published(published_frame(**setting)).set_index("Recipe")
    assert list(found.columns) == [
        "Ours", "n", "Published", "Difference", "Same protocol", "Evidence", "Source",
    ]  # fmt: skip
    assert found["Same protocol"].tolist() == ["yes"] * 4 + ["no"]
    cosine = tables.beside_published(published_frame(**setting | {"lr_schedule": "cosine"}))
    assert set(cosine["Same protocol"]) == {"no"}


def test_peeking_is_shown_as_a_gain():
    peeked = frame(ce=CE)
    peeked["best_test_balanced_accuracy"] += 0.02
    assert tables.selections(peeked)["added by peeking"].tolist() == ["+2.0"]
