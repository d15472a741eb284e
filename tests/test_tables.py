"""Tables: the numbers of a small frame written out by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_lab import stats, tables
from hml_lab.tables.contrasts import MEANS

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
            "median": pytest.approx(71.0),
            "collapsed": 0,
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
    wins = tables.conclusion(frame(ce=CE, balanced_softmax=LDAM, hml1=HML))
    assert "**HML1** is better than CE in balanced acc. (75.6 % against 71.0 %): +4.6 [+" in wins
    assert "**HML1** is better than Balanced Softmax in balanced acc. (75.6 % against 71.2" in wins
    assert "family of 3 tests" in wins.lower()
    loses = tables.conclusion(frame(ce=HML, hml1=CE))
    assert "**HML1** is worse than CE" in loses
    assert "Balanced Softmax was not run" in loses
    open_question = tables.conclusion(frame(ce=CE, hml1=LDAM))
    assert "is not distinguishable with 5 seeds from CE" in open_question
    assert "too few seeds" in tables.conclusion(frame(ce=CE[:1], hml1=HML[:1]))


def test_the_reference_is_named_beforehand():
    """LDAM turns out best; nobody is set against it for that."""
    found = tables.conclusion(frame(ce=CE, ldam=HML, balanced_softmax=LDAM, hml1=CE))
    assert "LDAM in balanced" not in found
    assert "from Balanced Softmax" in found
    other = tables.conclusion(frame(ce=CE, ldam=HML, hml1=CE), reference="ldam")
    assert "**HML1** is worse than LDAM" in other


def test_the_conclusion_says_what_could_have_been_detected_over_the_interval_of_the_sd():
    found = tables.conclusion(frame(ce=CE, focal=HML, hml1=LDAM), methods=["hml1"])
    sd = np.std(100 * (np.array(LDAM) - CE), ddof=1)
    alpha = 0.05 / 2
    measured, low, high = (
        stats.minimum_detectable(value, 5, alpha=alpha) for value in (sd, *stats.sd_interval(sd, 5))
    )
    assert f"{measured:.1f} points if the sd is the measured {sd:.2f}" in found
    assert f"{low:.1f} to {high:.1f} over its 95 % interval" in found


def test_table_and_conclusion_are_one_family():
    runs = frame(ce=CE, focal=LDAM, balanced_softmax=LDAM, hml1=HML)
    pairs = tables.family(
        ["ce", "focal", "balanced_softmax", "hml1"], "ce", "balanced_softmax", ["hml1"]
    )
    assert len(pairs) == 4
    tests = tables.contrasts(runs, pairs)
    table = tables.comparison(runs)
    assert table.attrs["family"] == tests.attrs["family"]
    assert "family of 4 tests" in table.attrs["family"]
    against_ce = tests.set_index(["recipe", "reference"]).loc[("hml1", "ce")]
    assert float(table.loc["HML1", "p (Holm)"]) == pytest.approx(against_ce["p_holm"], abs=6e-4)
    assert against_ce["low_simultaneous"] < against_ce["low"] < against_ce["high"]
    single = stats.paired_difference(100 * np.array(HML), 100 * np.array(CE), 1 - 0.05 / 4)
    assert against_ce["low_simultaneous"] == pytest.approx(single.low)


NAMES = ["ce", "focal", "ldam", "balanced_softmax", "hml1", "hml2"]


def p_holm_of_family(scores: np.ndarray) -> np.ndarray:
    """Corrected p-values (tables, tests) of scores (tables, methods, seeds), written down anew."""
    pairs = tables.family(NAMES, "ce", "balanced_softmax", ["hml1", "hml2"])
    index = np.array([[NAMES.index(a), NAMES.index(b)] for a, b in pairs])
    d = scores[:, index[:, 0]] - scores[:, index[:, 1]]
    sd, n = d.std(axis=2, ddof=1), d.shape[2]
    same = sd < 1e-9
    t = np.abs(d.mean(axis=2)) / np.where(same, 1, sd) * np.sqrt(n)
    p = np.where(same, np.where(d[:, :, 0] == 0, 1, 2.0 ** (1 - n)), 2 * scipy.stats.t.sf(t, n - 1))
    return np.array([stats.holm(row) for row in p])


def made_up_scores(tables_: int, n: int, digits: int | None, effect: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(n)
    scores = 0.7 + random.normal(0, 0.02, (tables_, 1, n))
    scores = scores + random.normal(0, 0.006, (tables_, len(NAMES), n))
    scores[:, NAMES.index("hml1")] += effect
    return scores if digits is None else scores.round(digits)


@pytest.mark.parametrize(("n", "digits"), [(3, None), (5, None), (10, None), (3, 2), (5, 2)])
def test_under_no_difference_one_table_in_twenty_at_most_makes_a_claim(n, digits):
    """Table and conclusion together; with two digits differences are often all the same."""
    claims = (p_holm_of_family(made_up_scores(4000, n, digits)) < 0.05).any(axis=1)
    assert claims.mean() <= 0.05


@pytest.mark.parametrize("digits", [None, 2])
def test_table_and_conclusion_claim_what_the_simulation_counts(digits):
    """So that the rate of false claims is that of what is printed."""
    scores = made_up_scores(6, 5, digits, effect=0.03)
    seen = set()
    for values, p in zip(scores, p_holm_of_family(scores) < 0.05, strict=True):
        runs = frame(**dict(zip(NAMES, values, strict=True)))
        said = tables.conclusion(runs, methods=["hml1", "hml2"])
        printed = tables.comparison(runs, metrics=["top1"])["p (Holm)"].iloc[1:]
        assert [float(text.strip("< ")) < 0.05 for text in printed] == p[:5].tolist()
        assert said.count("is better") + said.count("is worse") == p[[3, 4, 5, 6]].sum()
        assert "too few seeds" not in said
        seen |= set(p)
    assert seen == {True, False}


def test_equal_differences_count_as_a_test():
    runs = frame(ce=CE, focal=LDAM, hml1=[value + 0.01 for value in CE])
    tests = tables.differences(runs).set_index("recipe")
    assert tests.attrs["tests"] == 2
    assert tests.loc["hml1", "p_value"] == 2.0**-4
    assert np.isnan(tests.loc["hml1", "low"])


def test_a_collapsed_run_is_told_by_its_runs():
    runs = frame(ce=CE[:3], hml1=[0.41, 0.010, 0.0107]).assign(num_classes=100)
    found = tables.conclusion(runs)
    assert "**HML1** collapsed in 2 of 3 runs (41.0 / 1.0 / 1.1 %; median 1.1 %)" in found
    assert "better" not in found
    assert "worse" not in found
    table = tables.comparison(runs)
    assert table.loc["HML1", "Balanced acc."] == "median 1.1 of 41.0 / 1.0 / 1.1"
    label = next(column for column in table if column.startswith("Δ"))
    assert table.loc["HML1", label] == "-29.0 / -71.0 / -69.9"  # no mean, so no test of one
    assert table.loc["HML1", "p (Holm)"] == "–"
    assert "HML1: the difference of each seed" in table.attrs["family"]
    two_classes = frame(ce=[0.6, 0.51]).assign(num_classes=2)
    assert tables.collapsed(two_classes).tolist() == [False, True]
    ten = frame(ce=[0.134, 0.175, 0.25]).assign(num_classes=10)  # a tenth of the way: 19 %
    assert tables.collapsed(ten).tolist() == [True, True, False]


def test_no_mean_stands_for_a_collapsed_run_anywhere():
    """Not beside published figures, by the epoch that is reported, under a star, or as reference."""
    runs = frame(ce=[0.5, 0.4, 0.4], focal=CE[:3], hml1=[0.9, 0.010, 0.0107])
    runs = runs.assign(
        num_classes=100,
        dataset="cifar100",
        model="resnet32",
        epochs=200,
        imbalance_type="exp",
        imbalance_ratio=100.0,
        synthetic=False,
    )
    runs.loc[runs["recipe"] == "hml1", "last_ece"] = 0.0  # the best there is, of a mean of no run
    found = tables.comparison(runs)
    assert found["ECE"].str.endswith("*").tolist() == [True, False, False]
    beside = tables.beside_published(runs.replace({"recipe": {"hml1": "ldam_drw"}})).set_index(
        "Recipe"
    )
    assert beside.loc["LDAM-DRW", "Ours"] == "median 1.1 of 90.0 / 1.0 / 1.1"
    assert beside.loc["LDAM-DRW", "Difference"] == "–"
    epochs = tables.selections(runs).loc["HML1"]
    assert epochs["last epoch"] == "median 1.1 of 90.0 / 1.0 / 1.1"
    assert epochs["added by peeking"] == "+0.0 / +0.0 / +0.0"
    said = tables.conclusion(runs, reference="hml1", methods=["focal"])
    assert "**Focal** is compared by no mean with HML1, which collapsed in 2 of 3" in said
    assert said.count(" % against ") == 1  # with CE


def test_pairs_stand_beside_n_where_they_are_fewer():
    table = tables.comparison(frame(ce=CE, hml1=HML[:3], ldam=LDAM))
    assert table["n"].tolist() == ["5", "3", "5"]
    assert table["pairs"].tolist() == ["–", "3", "5"]
    assert table.columns.tolist()[1:4] == ["p (Holm)", "n", "pairs"]
    assert "pairs: seeds that a method and" in tables.caption(table, frame(ce=CE, hml1=HML[:3]))
    alike = tables.comparison(frame(ce=CE, hml1=HML))
    assert "pairs" not in alike
    assert "pairs:" not in tables.caption(alike, frame(ce=CE, hml1=HML))


def test_one_rule_blanks_the_means_of_collapsed_runs():
    runs = frame(ce=CE, ldam=LDAM, hml1=[0.41, 0.010, 0.0107, 0.4, 0.4]).assign(num_classes=100)
    pairs = [("ldam", "ce"), ("hml1", "ce")]
    found = tables.contrasts(runs, pairs).set_index("recipe")
    assert found["collapsed"].tolist() == [0, 2]
    assert found.loc["hml1", [c for c in MEANS if c in found]].isna().all()
    assert found.loc["hml1", "each"] == "-29.0 / -71.0 / -69.9 / -29.0 / -33.0"
    whole = tables.contrasts(runs.drop(columns="num_classes"), pairs).set_index("recipe")
    assert found.attrs["tests"] == whole.attrs["tests"] == 2
    assert found.loc["ldam", "p_holm"] == whole.loc["ldam", "p_holm"]  # its test counts
    said = tables.primary(runs, ("hml1", "ce"))
    assert "-29.0 / -71.0 / -69.9 / -29.0 / -33.0 (each seed; 2 of these runs collapsed)" in said
    assert "Equivalen" not in said


def test_a_mean_of_zeros_is_a_median():
    """The geometric mean over classes is 0 as soon as one class is never met."""
    runs = frame(ce=CE, hml1=HML, ldam=LDAM)
    runs.loc[runs["recipe"] == "ce", "last_g_mean"] = [0.0, 0.0, 0.0, 0.99, 0.99]
    runs.loc[runs["recipe"] == "ldam", "last_g_mean"] = 0.0
    table = tables.comparison(runs)
    assert table["G-mean"].tolist() == [
        "median 0.0 of 0.0 / 0.0 / 0.0 / 99.0 / 99.0", "75.6 ± 1.1 *", "0.0 ± 0.0",
    ]  # fmt: skip
    assert "half of the values are 0" in tables.caption(table, runs)


def test_where_holm_is_sharper_than_the_interval_beside_it_that_is_said():
    third = [c + d for c, d in zip(CE, (0.01, 0.02, 0.002, 0.003, 0.015), strict=True)]  # p = 0.044
    runs = frame(
        ce=CE, hml1=HML, ldam=[c + 0.1 + 0.001 * (i % 2) for i, c in enumerate(CE)], cb_ce=third
    )
    pairs = [(name, "ce") for name in ("hml1", "ldam", "cb_ce")]
    found = tables.contrasts(runs, pairs).set_index("recipe")
    row = found.loc["cb_ce"]
    assert row["p_holm"] < 0.05
    assert row["low_simultaneous"] <= 0 <= row["high_simultaneous"]
    assert (
        "although the simultaneous interval holds 0: CB-CE − CE (p = 0.0" in found.attrs["sharper"]
    )
    assert found.attrs["sharper"] in tables.comparison(runs, reference=None).attrs["family"]
    assert tables.contrasts(runs, pairs[:2]).attrs["sharper"] == ""


def test_no_published_p_value_is_zero():
    """Whatever notebook prints it: rounded to nothing, a p-value is said to be smaller than that."""
    checked = 0
    for path in sorted((Path(__file__).parents[1] / "results" / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                html = "".join(output.get("data", {}).get("text/html", ""))
                header = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', html)
                places = [i for i, name in enumerate(header) if re.match(r"p[_ ]|.*_p$", name)]
                for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", html):
                    values = re.split(r"</th><td[^>]*>|</td><td[^>]*>", row.removesuffix("</td>"))
                    for place in places:
                        checked += 1
                        said = values[place].replace("&nbsp;", " ")
                        assert not re.fullmatch(r"0(\.0*)?", said), (path.name, row)
    assert checked > 20
    notebooks = Path(__file__).parents[1] / "notebooks"
    for path in notebooks.glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:differ|pairs|isic|weighted|statistics\(\))\.round\(", text), path


def test_runs_that_are_not_paired_are_not_tested_as_pairs():
    runs = frame(ce=CE, hml1=HML).assign(subset_seed=0, image_size=None, subset_images=np.nan)
    assert tables.differences(runs)["test"].tolist() == ["paired"]
    correlation = np.corrcoef(CE, HML)[0, 1]
    assert tables.differences(runs)["correlation"].tolist() == [pytest.approx(correlation)]
    runs.loc[runs["recipe"] == "hml1", "subset_seed"] = 1
    found = tables.differences(runs).iloc[0]
    reference = scipy.stats.ttest_ind(HML, CE, equal_var=False)
    assert (found["test"], found["n"]) == ("Welch", 10)
    assert found["p_value"] == pytest.approx(reference.pvalue)
    assert np.isnan(found["correlation"])
    assert "not paired: Welch's test" in tables.conclusion(runs)


def test_what_an_interval_covers_is_said():
    runs = frame(ce=CE, hml1=HML)
    fixed = tables.differences(runs.assign(subset_seed=0)).attrs["covers"]
    assert "not another draw of the training subset" in fixed
    follows = tables.differences(runs.assign(subset_seed=runs["seed"])).attrs["covers"]
    assert "another seed and another draw of the training subset, not of the test images" in follows


def test_the_primary_contrast_says_difference_and_equivalence():
    low = [value - 0.005 + step for value, step in zip(CE, (0, 1e-3, 0, -1e-3, 0), strict=True)]
    found = tables.primary(frame(ce=CE, hml1=low), ("hml1", "ce"))
    assert "**Primary contrast: HML1 − CE**" in found
    assert "-0.50 [-0.59, -0.41] points" in found
    assert "Equivalent within ±1 point" in found
    assert "not shown" in tables.primary(frame(ce=CE, hml1=LDAM), ("hml1", "ce"))
    assert "nothing to say" in tables.primary(frame(ce=CE), ("hml1", "ce"))


def test_all_pairs_leave_collapsed_groups_out():
    runs = frame(ce=CE[:3], focal=LDAM[:3], ldam=HML[:3], hml1=[0.41, 0.01, 0.01])
    found = tables.all_pairs(runs.assign(num_classes=100))
    assert found.attrs["left_out"] == ["HML1"]
    assert len(found) == 3
    assert (found["difference"] >= 0).all()


def test_all_pairs_count_results_under_two_names_once():
    """δ = 1e4 is HML1 itself: its scatter would be pooled twice."""
    groups = {"ce": CE[:3], "focal": LDAM[:3], "ldam": HML[:3]}
    found = tables.all_pairs(frame(**groups, hml1=HML[:3]))
    assert found.attrs["same"] == {"HML1": "LDAM"}
    pd.testing.assert_frame_equal(found, tables.all_pairs(frame(**groups)))


def test_where_nothing_is_tested_no_family_is_counted():
    caption = tables.comparison(frame(ce=CE[:1], hml1=HML[:1])).attrs["family"]
    assert caption == "no test, as no two have two seeds in common; compared: HML1 against CE"


def test_the_conclusion_of_hard_mining_alone_has_no_reference():
    found = tables.conclusion(frame(hml1=CE, hml2=HML), baseline="hml1")
    assert "**HML2** is better than HML1" in found
    assert "Balanced Softmax was not run" in found


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
    assert ours["Balanced Softmax"] == "no: epochs 90", "its figure is of 200 epochs"
    assert ours["LDAM-DRW"].startswith("no: theirs: 64.6 in the re-run")
    assert ours["HML1"] == "no figure"
    longer = beside(epochs=200)
    assert (longer["CE"], longer["Balanced Softmax"]) == ("no: epochs 200", "yes")
    assert tables.beside_published(
        published_frame().query("recipe == 'ce'").assign(recipe="ce_drw")
    )["Same protocol"].tolist() == ["not stated"]


@pytest.mark.parametrize(
    "fields",
    [
        {"ema_decay": 0.999}, {"lr_schedule": "steps"}, {"image_size": 112}, {"weight_decay": 1e-3},
        {"augmentation": "strong"}, {"mix": "mixup"}, {"batch_size": 64}, {"early_drop": True},
        {"subset_seed": 1}, {"head": "cosine"}, {"frozen": 0.5}, {"early_stopping": 5},
    ],
)  # fmt: skip
def test_a_changed_protocol_is_not_the_same(fields):
    (name, value) = next(iter(fields.items()))
    assert f"{name.replace('_', ' ')} {value}" in beside(**fields)["CE"]
    assert beside(**fields)["CE"].startswith("no: ")


def test_an_option_of_the_method_is_compared_with_the_methods_own():
    runs = published_frame().query("recipe == 'ldam_drw'").assign(weighting="CB", max_margin=0.5)
    assert "weighting" not in tables.beside_published(runs)["Same protocol"].iloc[0]
    other = tables.beside_published(runs.assign(weighting="CS"))["Same protocol"].iloc[0]
    assert other.startswith("no: weighting CS")


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
        "Ours", "n", "Published", "All published", "Difference", "Same protocol", "Evidence", "Source",
    ]  # fmt: skip
    theirs = "no: theirs: best epoch on the test set (its code)"
    assert found.loc[["CE", "LDAM-DRW"], "Same protocol"].tolist() == [theirs] * 2
    cosine = tables.beside_published(published_frame(**setting | {"lr_schedule": "cosine"}))
    assert cosine["Same protocol"].iloc[0].startswith("no: lr schedule cosine; theirs: best")


def test_published_values_are_a_range_with_their_number_and_empty_rows_say_why():
    setting = {"dataset": "imagefolder", "imbalance_type": "exp", "imbalance_ratio": 100.0}
    setting |= {"model": "resnet32", "epochs": 200, "lr_schedule": "steps", "image_size": None}
    runs = published_frame(**setting, num_classes=100)
    found = tables.beside_published(runs).set_index("Recipe")
    assert found.loc["LDAM-DRW", "All published"] == "41.3–42.9 (6)"
    assert found.loc["CE", "All published"].startswith("38.0–41.0 (")
    assert "images not the official files" in found.loc["CE", "Same protocol"]
    assert found.loc["HML1", "All published"] == "–"
    assert found.loc["HML1", "Source"].startswith("not on file: P1's and P2's own figures")


def test_peeking_is_shown_as_a_gain():
    peeked = frame(ce=CE)
    peeked["best_test_balanced_accuracy"] += 0.02
    assert tables.selections(peeked)["added by peeking"].tolist() == ["+2.0"]
    rarely = tables.selections(peeked.assign(epochs=200, evaluate_every=5))
    assert rarely["epochs looked at"].tolist() == ["40"]


def test_a_shortened_run_has_no_difference_to_what_was_published():
    setting = {"dataset": "imagefolder", "imbalance_type": "exp", "imbalance_ratio": 100.0}
    setting |= {"lr_schedule": "steps", "image_size": None, "num_classes": 100}
    whole = published_frame(**setting, model="resnet32", epochs=200)
    short = published_frame(**setting, model="resnet8", epochs=12)
    differences = [
        tables.beside_published(runs).set_index("Recipe").loc["CE", "Difference"]
        for runs in (whole, short)
    ]
    assert differences == ["+32.7", "–"]
