"""docs/verdict.md, and the pages beside it, say what the stored runs say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hml_core.config import RunConfig
from hml_core.runs import Run
from hml_lab import published, stats
from hml_lab.studies import audit, dermoscopy, quoted, verdict
from hml_lab.studies.verdict import beside, stored

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "verdict.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text().replace("−", "-")


def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > 40
    headings = {f"#{head.lower().replace(' ', '-')}" for head in re.findall(r"\n#+ (.+)", page)}
    assert [a for a in links if not (a in headings or (PAGE.parent / a).exists())] == []


def test_every_number_that_links_to_a_run_is_that_runs(page):
    linked = re.findall(r"\[(\d+\.\d\d)\]\(([^)]+metrics\.json)\)", page)
    shown = {Path(path).parent.name for _, path in linked if "_cpu/" not in path}
    assert shown == {*stored.frame()["run_id"]}
    assert len(linked) == len(shown) + 2
    for text, path in linked:
        metrics = json.loads((PAGE.parent / path).read_text())["selections"]["last"]
        assert f"{100 * metrics['balanced_accuracy']:.2f}" == text


def test_no_result_on_the_page_is_typed():
    """Outside of the paragraphs that are made of records there is no decimal, p, ± or n."""
    text = PAGE.read_text(encoding="utf-8")
    assert verdict.typed_numbers(text) == []
    for typed in ("gains 0.48 points", "p = 0.02", "p < 0.001", "n = 3", "40 ± 1", "−0.5 points"):
        found = verdict.typed_numbers(text.replace("## Against", f"It {typed}.\n\n## Against"))
        assert found == [f"It {typed}."]


def test_a_stale_page_is_noticed():
    text = PAGE.read_text(encoding="utf-8")
    made = verdict.PARAGRAPHS["primary"]()
    stale = text.replace(made, made.replace("0.", "1.", 1))
    assert stale != text
    assert quoted.written(stale, "primary", made) == text


def test_the_primary_contrast_is_that_of_its_runs(page, full):
    """By scipy from the records' own JSON."""
    each = (full["hml1"] - full["control"]).dropna()
    text = re.sub(r"\s+", " ", page)
    n = len(each)
    for confidence, words in ((0.95, "95 %: [{:.2f}, {:.2f}]"), (0.9, "90 %: [{:.2f}, {:.2f}]")):
        ends = scipy.stats.t.interval(confidence, n - 1, each.mean(), scipy.stats.sem(each))
        assert words.format(*ends) in text
    assert f"{each.mean():.2f} points of balanced accuracy" in text
    assert f"ratio 100, n = {n}; δ = 1e4, not tuned)" in text
    p = scipy.stats.ttest_1samp(each, 0).pvalue
    assert f"paired t, p {p_in_words(p)};" in text
    ends = np.sqrt((n - 1) / scipy.stats.chi2.ppf([0.975, 0.025], n - 1)) * each.std(ddof=1)
    assert "between {:.2f} and {:.2f} (95 %)".format(*ends) in text
    assert ", ".join(f"{value:.2f}" for value in each) in text


@pytest.mark.slow
def test_the_page_is_made_of_more_seeds_as_of_few(monkeypatch):
    """As many as are stored: every paragraph of six seeds, made up by moving those of three."""
    own = stored.frame()
    first = own[own["seed"].isin([0, 1, 2])]
    random = np.random.default_rng(0)
    moved = first.assign(seed=first["seed"] + 3)
    moved["last_balanced_accuracy"] += random.normal(0, 0.002, len(moved))
    later = pd.concat([first, moved], ignore_index=True)
    short = stored.frame(stored.SHORT)
    images = stored.images()
    monkeypatch.setattr(
        stored, "frame", lambda name=stored.FULL: later if name == stored.FULL else short
    )
    monkeypatch.setattr(stored, "images", lambda: images)
    for name, make in verdict.PARAGRAPHS.items():
        assert "nan" not in make(), name
    assert "n = 6" in verdict.PARAGRAPHS["lead"]()
    assert "seeds 0 to 5" in verdict.PARAGRAPHS["setting"]()
    assert "What 6 seeds can bear" in verdict.PARAGRAPHS["bears"]()
    assert "(n = 6)" in verdict.PARAGRAPHS["way"]()
    assert "with 6 seeds as blocks" in verdict.PARAGRAPHS["all_pairs"]()
    told = verdict.PARAGRAPHS["collapse"]()
    assert "*HML1* without the drop (δ = 1e4): 2 of 6 runs collapsed" in told
    assert "*HML1, over weights* without the drop: 6 of 6 runs collapsed" in told
    others = first[~first["cell"].isin(["HML1", "HML2"])]
    calm = pd.concat([others, first[first["cell"] == "CE"].assign(cell="HML1")])
    monkeypatch.setattr(stored, "frame", lambda name=stored.FULL: calm)
    told = verdict.PARAGRAPHS["collapse"]()
    assert "*HML1* without the drop (δ = 1e4): 0 of 3 runs collapsed" in told
    assert "HML2" not in told


@pytest.mark.slow
def test_what_the_answer_says_turns_with_the_records(monkeypatch):
    own, images = stored.frame(), stored.images()

    def said(shift: float, spread: float) -> str:
        changed = own.copy()
        hml = changed["cell"] == stored.HML
        move = shift + spread * (-1.0) ** changed.loc[hml, "seed"]
        changed.loc[hml, "last_balanced_accuracy"] += move / 100
        row = images.loc[[audit.PRIMARY]].copy()
        each = (
            changed[hml]
            .set_index("seed")["last_balanced_accuracy"]
            .sub(own[own["cell"] == stored.CONTROL].set_index("seed")["last_balanced_accuracy"])
        )
        each = 100 * each.dropna()
        same = stats.over_images(each, row["image_sd"].item(), margin=1.0)
        row["equivalence_p"] = same.p_value
        row["p_value"] = stats.over_images(each, row["image_sd"].item()).p_value
        monkeypatch.setattr(stored, "frame", lambda name=stored.FULL: changed)
        monkeypatch.setattr(stored, "images", lambda: row)
        return verdict.PARAGRAPHS["lead"]()

    assert "is equivalent within 1 point to" in said(0.0, 0.0)
    assert "points below it**" in said(0.0, 0.0)
    assert "is not shown to be equivalent within 1 point to" in said(0.0, 2.0)
    assert "not distinguishable from it**" in said(0.48, 0.5)
    assert "points above it**" in said(3.0, 0.0)
    assert "is more than what the same weights" in said(3.0, 0.0)


def test_the_steps_are_those_of_the_published_table(page):
    steps = pd.read_csv(ROOT / "results" / "tables" / "audit_cifar100_full_way.csv").iloc[1:]
    for row in steps.itertuples():
        assert f"| {row.difference:+.2f} [{row.low:.2f}, {row.high:.2f}] |" in page
        assert f"| [{row.low_simultaneous:.2f}, {row.high_simultaneous:.2f}] |" in page


# The pages beside it ------------------------------------------------------------------------------


def text_of(page: str) -> str:
    """A page on one line, with plain minus signs."""
    return re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8").replace("−", "-"))


def scores_of(name: str) -> pd.DataFrame:
    """Config and balanced accuracy (percent, last epoch) of every record of a folder."""
    rows = []
    for path in sorted((ROOT / "results" / "records" / name).glob("*/config.json")):
        metrics = json.loads((path.parent / "metrics.json").read_text())
        score = 100 * metrics["selections"]["last"]["balanced_accuracy"]
        peeked = 100 * metrics["selections"]["best_test"]["balanced_accuracy"]
        own = {"score": score, "peeked": peeked, "folder": path.parent}
        rows.append(RunConfig.from_json(path.read_text()).to_dict() | own)
    return pd.DataFrame(rows)


def chosen(runs: pd.DataFrame, recipe: str, **fields) -> pd.Series:
    """The scores of a method by seed."""
    own = runs[runs["recipe"] == recipe]
    for name, value in fields.items():
        own = own[own[name] == value]
    assert not own["seed"].duplicated().any()
    return own.sort_values("seed").set_index("seed")["score"]


def paired(a: pd.Series, b: pd.Series) -> stats.Difference:
    """Over the seeds that both have: not every method has been trained with all of them."""
    each = (a - b).dropna()
    return stats.paired_difference(each.to_numpy(), np.zeros(len(each)))


def p_in_words(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"


def in_brackets(found, form: str = ".1f") -> str:
    return f"[{found.low:{form}}, {found.high:{form}}]"


@pytest.fixture(scope="module")
def full() -> dict[str, pd.Series]:
    every = scores_of("cifar100_lt_full")
    runs = every[every["second_stage_rate"] == 1]
    mined = runs["recipe"].eq("hml1")
    runs = runs[~mined | (runs["mean_over"].eq("images") & runs["delta"].eq(1e4))]
    control = {"weighting": "CS", "mean_over": "images"}
    return {
        "ce": chosen(runs, "ce", early_drop=False),
        "ce_drw": chosen(runs, "ce_drw", weighting="CB"),
        "control": chosen(runs, "ce_drw", early_drop=True, **control),
        "same_rate": chosen(every, "ce_drw", early_drop=False, second_stage_rate=0.1, **control),
        "hml1": chosen(runs, "hml1", early_drop=True, protocol="controlled"),
        "unstable": chosen(runs, "hml1", early_drop=False),
        "authors": chosen(runs, "hml1", protocol="official"),
        "balanced_softmax": chosen(runs, "balanced_softmax"),
        "ldam_drw": chosen(runs, "ldam_drw"),
        "ib": chosen(runs, "ib"),
        "focal": chosen(runs, "focal"),
    }


@pytest.mark.begun_first
def test_paragraphs_made_of_records_say_what_the_records_say():
    """Whoever adds records runs `python -m hml_lab.studies.quoted`."""
    for page, paragraphs in quoted.PARAGRAPHS.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        for name, make in paragraphs.items():
            made = make()
            assert quoted.written(text, name, made) == text
            assert "{" not in made, name  # a number that nobody filled in
    with pytest.raises(ValueError, match="one place for the paragraph 'nothing'"):
        quoted.written("", "nothing", "")


def test_a_claim_on_lesions_needs_every_set_and_both_intervals():
    """What is said of three seeds, from made-up numbers: the stored ones may have one."""
    row = {"difference": 2.0, "low_lesions": 0.5, "high_lesions": 3.0, "p_holm": 0.01}

    def said(**official) -> str:
        found = {"test": [row], "official_test": [{**row, **official}]}
        return dermoscopy._judged(["chml2"], found, 3, 0.05)

    assert (
        said()
        == "Apart from the control by Holm's p over seeds and by the interval over lesions on both "
        "sets: CHML2 (above)."
    )
    for other in (
        {"p_holm": 0.06},
        {"p_holm": np.nan},
        {"low_lesions": -0.1},
        {"difference": -2.0, "low_lesions": -3.0, "high_lesions": -0.5},
    ):
        assert said(**other).startswith("None is apart")
        where = "below" if other.get("difference", 1) < 0 else "above"
        assert said(**other).endswith(
            "CHML2 is so on the split by lesion (above), not on the official test set (above)."
            if where == "above"
            else "CHML2 is so on the split by lesion (above) and on the official test set (below)."
        )
    assert "no result" in dermoscopy._judged(["chml2"], {"test": [row]}, 1, 0.05)
    words = dermoscopy._in_words(row | {"n": 3, "low": 1.0, "high": 3.0})
    assert words == "+2.0 (over seeds [+1.0, +3.0], over lesions [+0.5, +3.0], p = 0.01 after Holm)"
    equal = dermoscopy._in_words(row | {"n": 3, "low": np.nan, "high": np.nan})
    assert "over seeds no spread" in equal


def code_over_images() -> tuple[float, float]:
    """Of the authors' code minus the control: 95 % over seeds and images, in another way than the package.

    The quantile of t·T + σ·Z by simulation; σ from the variance of each class's mean difference of hits.
    """
    own = stored.frame().set_index(["cell", "seed"])["run_id"]
    seeds = sorted({*own[stored.AUTHORS].index} & {*own[stored.CONTROL].index})
    hits = []
    for cell in (stored.AUTHORS, stored.CONTROL):
        found = [Run(stored.folder(stored.FULL) / own[cell, seed]) for seed in seeds]
        hits.append([run.test_classes("last") == run.test_targets for run in found])
    gains = 100 * np.mean(np.asarray(hits[0], dtype=float) - np.asarray(hits[1]), axis=0)
    classes = pd.Series(gains).groupby(found[0].test_targets)
    sigma = np.sqrt((classes.var(ddof=1) / classes.size()).sum()) / classes.ngroups
    each = (stored.scores(stored.AUTHORS) - stored.scores(stored.CONTROL)).dropna()
    random = np.random.default_rng(0)
    drawn = random.standard_t(len(each) - 1, 4_000_000) * each.std(ddof=1) / np.sqrt(len(each))
    half = np.quantile(np.abs(drawn + sigma * random.standard_normal(4_000_000)), 0.95)
    return each.mean() - half, each.mean() + half


def test_the_readme_says_what_the_records_say(full):
    """Its paragraphs are made of the records; here their numbers from the records' own JSON."""
    text = text_of("README.md")
    primary = paired(full["hml1"], full["control"])
    counts = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert (
        f"{primary.difference:.2f} {in_brackets(primary, '.2f')} over {counts[primary.n]} seeds"
        in text
    )
    three = pd.concat([full[name] for name in ("hml1", "control", "ce")], axis=1).dropna()
    gain, control = (paired(three.iloc[:, i], three.iloc[:, 2]) for i in (0, 1))
    code = paired(full["authors"], full["control"])
    told = f"{code.difference:+.2f} {in_brackets(code, '.2f')} over seeds (n = {code.n}), "
    assert f"minus that control is {told}" in text
    # With the test images: worked out here from the stored predictions.
    ends = code_over_images()
    assert f"[{ends[0]:.2f}, {ends[1]:.2f}] with the test images; corrected over all " in text
    later = paired(full["hml1"].loc[3:], full["control"].loc[3:])
    assert f"the later ones alone: {later.difference:.2f} {in_brackets(later, '.2f')}" in text
    fast = full["same_rate"]
    same, beside = (paired(full["authors"][fast.index], other) for other in (fast, full["control"]))
    assert (
        "minus the same cross-entropy at ten times the rate, which makes up for the ×10, "
        f"{same.difference:+.2f} {in_brackets(same, '.2f')}, where minus the control itself it is "
        f"{beside.difference:+.2f} {in_brackets(beside, '.2f')} (seeds 0 to 2; looked at afterwards)"
    ) in text
    assert (
        f"HML1 with outer weights gains +{gain.difference:.1f} {in_brackets(gain)} over plain "
        f"cross-entropy, less than the +{control.difference:.1f} {in_brackets(control)} that deferred "
        "weights and schedule give "
        f"cross-entropy itself ({counts[gain.n]} seeds; "
    ) in text
    effects = pd.read_csv(ROOT / "results" / "tables" / "audit_cifar100_full_effects.csv")
    after = effects.set_index(["cell", "reference"]).loc[("HML1 + early drop", "CE"), "p_holm"]
    whole = paired(full["hml1"], full["ce"])
    assert after < 0.05
    assert (
        f"{counts[whole.n]} seeds; HML1's gain has p {p_in_words(after)} after Holm over the audit's "
        f"{len(effects)} questions)"
    ) in text
    lost, n = int((full["unstable"] < 10).sum()), len(full["unstable"])
    assert f"{counts[lost]} of {counts[n]} runs of HML1 with outer weights ended at chance" in text
    pairs = pd.read_csv(ROOT / "results" / "tables" / "audit_cifar100_full_all_pairs.csv")
    pairs = pairs.set_index(["cell", "reference"])
    rivals = {"ce_drw": "CE-DRW", "balanced_softmax": "Balanced softmax", "ldam_drw": "LDAM-DRW"}
    for cell, name in (("HML1 + early drop", "hml1"), (stored.AUTHORS, "authors")):
        found = [paired(full[other], full[name]) for other in rivals]
        told = [f"{one.difference:+.1f} {in_brackets(one)}" for one in found]
        index = [(other, cell) for other in rivals.values()]
        known = [pairs["p_max_t"][key if key in pairs.index else key[::-1]] for key in index]
        p = ["< 0.01" if value < 0.005 else f"{value:.2f}" for value in known]
        p[0] = p[0] if p[0].startswith("<") else f"= {p[0]}"
        both = [f"{', '.join(part[:-1])} and {part[-1]}" for part in (told, p)]
        assert f"{both[0]} (n = {found[0].n}; corrected over all pairs p {both[1]}, with" in text
    p = pairs["p_max_t"][(stored.AUTHORS, stored.CONTROL)]
    assert f"corrected over all pairs p = {p:.2f} (9 seeds in common)" in text
    gain = paired(full["authors"], full["ce"])
    assert f"in its authors' form it gains {gain.difference:+.1f} {in_brackets(gain)}" in text
    order = ("ce", "control", "hml1", "unstable", "authors", *rivals)
    cells = [f"{v.mean():.1f} ± {v.std(ddof=1):.1f}" for v in map(full.get, order)]
    row = next(
        line for line in (ROOT / "README.md").read_text().splitlines() if "_cells.csv" in line
    )
    found = [cell.strip() for cell in row.split("|")[2:-1]]
    if lost:  # no mean of a collapse
        assert found[3].startswith(f"median {full['unstable'].median():.1f} of ")
        cells[3] = found[3]
    assert found == cells
    assert f"| seeds | {' | '.join(str(len(full[name])) for name in order)} |" in text
    steps = pd.read_csv(ROOT / "results" / "tables" / "audit_cifar100_full_way.csv")
    said = [f"{step:+.1f}" for step in steps["difference"].iloc[1:5]]
    assert (
        f"weights from half of the run on {said[0]}, mean over images {said[1]}, a lower rate {said[2]}, "
        f"the hard-mining loss itself {said[3]} points"
    ) in text


def test_the_verdict_says_what_a_pair_is_worth_when_it_is_run_again(page, full):
    text = re.sub(r"\s+", " ", page)
    again = scores_of("cifar100_lt_full_cpu")
    runs = scores_of("cifar100_lt_full")
    twins = again.merge(runs, left_on=again["folder"].map(lambda f: f.name),
                        right_on=runs["folder"].map(lambda f: f.name))  # fmt: skip
    apart = (twins["score_x"] - twins["score_y"]).to_numpy()
    assert f"up to {np.abs(apart).max():.2f} points from its twin on the CPU" in text
    assert f"an sd of {np.sqrt((apart**2).mean() / 2):.2f} points for one run" in text
    first = scores_of("cifar100_lt_full_first")
    twins = first.merge(runs, left_on=first["folder"].map(lambda f: f.name),
                        right_on=runs["folder"].map(lambda f: f.name))  # fmt: skip
    lost = twins[["score_x", "score_y"]].min(axis=1) < 10
    apart = (twins["score_y"] - twins["score_x"])[~lost]
    focal = twins["recipe_x"] == "deferred_focal"
    assert f"the beginning of the others, up to {apart[focal].abs().max():.2f}." in text
    apart = apart[~focal]
    sd = np.sqrt((apart**2).mean() / 2)
    assert f"up to {apart.abs().max():.2f} from its twin of other kernels (sd {sd:.2f};" in text
    assert f"{lost.sum()} pairs with a collapse left out" in text
    cells = twins[["recipe_x", "early_drop_x", "weighting_x", "mean_over_x", "protocol_x"]]
    cells = cells.fillna("").astype(str).agg(" ".join, axis=1)
    whole = cells[apart.index].value_counts() == 3  # of every seed
    apart = apart[cells[apart.index].map(whole)]
    by_seed = apart.groupby(twins["seed_x"]).mean()
    ends = scipy.stats.t.interval(0.95, len(by_seed) - 1, by_seed.mean(), scipy.stats.sem(by_seed))
    assert f"reached {by_seed.mean():+.2f} [{ends[0]:.2f}, {ends[1]:.2f}] points more" in text
    old = chosen(first, "hml1", early_drop=True, protocol="controlled") - chosen(
        first, "ce_drw", early_drop=True, mean_over="images"
    )
    each = (full["hml1"] - full["control"]).dropna()
    replaced = pd.concat([old, each[each.index >= 3]])
    ends = scipy.stats.t.interval(
        0.95, len(replaced) - 1, replaced.mean(), scipy.stats.sem(replaced)
    )
    assert f"{replaced.mean():.2f} [{ends[0]:.2f}, {ends[1]:.2f}] | {len(replaced)} |" in text
    pair = chosen(again, "hml1", early_drop=True) - chosen(
        again, "ce_drw", early_drop=True, mean_over="images"
    )
    moved = abs(pair[0] - (full["hml1"] - full["control"])[0])
    assert f"{moved:.2f} from its twin." in text
    each = (full["hml1"] - full["control"]).dropna()
    n, middle = len(each), abs(each.mean())
    ends = [
        room * np.sqrt(n) / scipy.stats.t.ppf(level, n - 1)
        for room, level in ((1 - middle, 0.95), (middle, 0.975))
    ]
    below = np.floor(100 * np.array(ends)) / 100  # a bound is not rounded up
    assert "up to an sd of {:.2f}, the sign up to {:.2f}".format(*below) in text
    assert f"{(each < 0).sum()} of the {n} pairs have the sign of the mean" in text
    gain = paired(full["control"], full["ce"])
    assert f"entropy itself, +{gain.difference:.2f} {in_brackets(gain, '.2f')}" in text
    n = len(each)
    detectable = [stats.minimum_detectable(s, n) for s in (0.4, *stats.sd_interval(0.4, n))]
    assert (
        "from {:.1f} points on; over the interval of that sd, from {:.1f} to {:.1f}.".format(
            *detectable
        )
        in text
    )


def test_what_all_pairs_say_is_computed_from_the_records(page):
    runs = scores_of("cifar100_lt_full")
    method = ["recipe", "early_drop", "weighting", "mean_over", "protocol"]
    runs = runs[runs["second_stage_rate"].eq(1) & ~runs["delta"].eq(np.inf)]
    most = runs.groupby(method, dropna=False).size().max()
    found = {
        key: own.set_index("seed")["score"]
        for key, own in runs.groupby(method, dropna=False)
        if 2 * len(own) >= most and own["score"].min() > 10
    }
    by_seed = pd.DataFrame({" ".join(map(str, key)): own for key, own in found.items()}).dropna()
    names = [" ".join(map(str, key)) for key in found]
    difference, half, p_value = stats.all_pairs(by_seed.T.to_numpy())

    def place(*parts: str) -> int:
        (index,) = [
            i for i, name in enumerate(names) if name.startswith(parts[0]) and parts[1] in name
        ]
        return index

    hml1, ce = place("hml1 True", "images controlled"), place("ce False", "")
    text = re.sub(r"\s+", " ", page)

    def is_told(name: str, a: int, b: int) -> None:
        """The ends are drawn, in another order of the cells: they may be rounded to the next digit."""
        pattern = rf"{re.escape(name)} \+([\d.]+) \[(-?[\d.]+), (-?[\d.]+)\], p ([=<]) ([\d.]+)"
        *numbers, sign, p = re.search(pattern, text).groups()
        middle, wide, own = difference[a, b], half[a, b], p_value[a, b]
        assert [*map(float, numbers)] == pytest.approx(
            [middle, middle - wide, middle + wide], abs=0.0151
        )
        assert (sign == "<") == (own < 0.005)
        assert sign == "<" or float(p) == pytest.approx(own, abs=0.0101)

    is_told("HML1 with the drop", hml1, ce)
    for name, there in (("balanced_softmax", "Balanced softmax"), ("ldam_drw", "LDAM-DRW")):
        is_told(there, place(name, ""), hml1)
    above = int(((p_value[:, ce] < 0.05) & (difference[:, ce] > 0)).sum())
    assert f"{above} cells are established above CE" in text
    pairs = int((np.triu(p_value < 0.05, 1)).sum())
    assert f"{pairs} of the pairs differ in all" in text


def test_published_values_are_said_to_lie_within_or_outside_of_one_more_run():
    own = pd.Series([10.0, 10.2, 9.8, 10.1])
    far = beside._another_run(own, pd.Series([50.0]))
    assert (
        "would lie in [9.4, 10.6] (95 %); of the published values within it none, outside 50.0 ("
        in far
    )
    near = beside._another_run(own, pd.Series([10.4, 10.0, 10.0]))
    assert near.endswith("of the published values within it 10.0 and 10.4")


def test_the_yardsticks_are_set_beside_the_records(page, full):
    again = scores_of("cifar100_lt_full_cpu")
    rows = {
        "CE": "ce",
        "CE-DRW": "ce_drw",
        "LDAM-DRW": "ldam_drw",
        "Balanced softmax": "balanced_softmax",
        "IB": "ib",
        "Focal": "focal",
    }
    for title, recipe in rows.items():
        scores, there = full[recipe], published.every(recipe, "cifar100", "exp", 100.0)
        cpu = again[
            (again["recipe"] == recipe) & ~again["early_drop"] & (again["weighting"] != "CS")
        ]
        beside = f" ({cpu['score'].iloc[0]:.1f})" if len(cpu) else ""
        sources = there.index.nunique()
        span = (
            f"{there.min():.1f} to {there.max():.1f}" if len(there) > 1 else f"{there.item():.1f}"
        )
        assert (
            f"| {title} | {scores.mean():.1f} (n = {len(scores)}) | {scores[0]:.1f}{beside} | "
            f"{span} ({sources}) |"
        ) in page
    text = re.sub(r"\s+", " ", page)
    softmax, plain = full["balanced_softmax"], full["ce"]
    assert f"it reaches {softmax.min():.1f} to {softmax.max():.1f}, CE {plain.min():.1f} to" in text
    assert f"their correlation is {softmax.corr(plain):.2f} [" in text
    ldam = full["ldam_drw"]
    gain, source = paired(ldam, plain), published.every("ldam_drw", "cifar100", "exp", 100.0)
    of_ce = published.every("ce", "cifar100", "exp", 100.0)
    assert (
        f"{ldam.mean() - source.max():.1f} points above the highest published value**, "
        f"{ldam.mean() - source['Cao2019 LDAM (NeurIPS 2019) Table 2']:.1f} above its paper's "
        f"({ldam.mean():.1f} [{ldam.mean() - 2.262157 * ldam.sem():.1f}, "
        f"{ldam.mean() + 2.262157 * ldam.sem():.1f}], n = {len(ldam)};"
    ) in text
    half = 2.262157 * ldam.std(ddof=1) * np.sqrt(1.1)
    assert f"in [{ldam.mean() - half:.1f}, {ldam.mean() + half:.1f}] (95 %); of the" in text
    theirs = source.filter(like="Cao2019").item() - of_ce.filter(like="Cao2019").item()
    assert (
        f"It gains {gain.difference:.1f} {in_brackets(gain)} over our cross-entropy "
        f"(n = {gain.n}; {ldam[0] - plain[0]:.1f} with seed 0), {theirs:.1f} in its paper"
    ) in text
    gain = paired(full["balanced_softmax"], full["ce"])
    own = full["balanced_softmax"][0] - full["ce"][0]
    assert f"it gains {gain.difference:.1f} {in_brackets(gain)} ({own:.1f} with seed 0)" in text


def test_the_short_runs_are_quoted_with_the_corrections_of_their_tables():
    folder = ROOT / "results" / "tables"
    tests = pd.read_csv(folder / "cifar10_lt_short_contrasts.csv").set_index(
        ["recipe", "reference"]
    )
    row = tests.loc["hml1", "ce"]
    text = text_of("docs/results.md")
    simultaneous = f"[{row.low_simultaneous:.1f}, {row.high_simultaneous:.1f}]"
    assert (
        f"HML1 stands {row.difference:.1f} points above CE on the same schedule, {simultaneous}"
        in text
    )
    assert f"p = {row.p_holm:.3f} after Holm" in text
    effects = pd.read_csv(folder / "audit_short_effects.csv").set_index(["cell", "reference"])
    row = effects.loc["CE re-weighted like HML1", "CE"]
    assert (
        f"gains {row.difference:.1f} {in_brackets(row)} (p = {row.p_holm:.2f} after Holm over the"
        in text
    )
    assert row.p_holm > 0.05  # so that "just not established" holds
    assert f"over the {len(effects)} questions" in text
    runs = scores_of("cifar10_lt_short")
    hml2 = [f"{value:.1f}" for value in chosen(runs, "hml2")]
    assert f"({hml2[0]}, {hml2[1]} and {hml2[2]} %" in text_of("docs/results.md")
    assert f"({hml2[0]}, {hml2[1]}, {hml2[2]} %" in text_of("docs/verdict.md")
    for page_ in ("docs/results.md", "docs/verdict.md"):
        assert "SHORTENED" in text_of(page_)
        assert "RECOMPRESSED" in text_of(page_)


def test_the_collapse_is_told_as_it_was_recorded():
    text = text_of("results/records/README.md")
    runs = scores_of("cifar100_lt_full_first")  # of which the text speaks
    mined = (runs["recipe"] == "hml1") & (runs["protocol"] == "controlled")
    unstable = runs[mined & ~runs["early_drop"]].sort_values("seed")
    histories = [pd.read_csv(folder / "history.csv") for folder in unstable["folder"]]
    lost = [h["train_loss"].iloc[-1] for h in histories[1:]]
    assert f"train loss {lost[0]:.0e} and {lost[1]:.0e}".replace("e-0", "e-") in text
    late = histories[0].dropna(subset=["test_balanced_accuracy"]).query("epoch > 100")
    worst = late.loc[late["test_balanced_accuracy"].idxmin()]
    fell = f"fell to {100 * worst['test_balanced_accuracy']:.1f} % at epoch {worst['epoch']:.0f}"
    assert fell in text
    classes = []
    for folder in unstable["folder"].iloc[1:]:
        with np.load(folder / "predictions_compact.npz") as arrays:
            classes.append(len(np.unique(arrays["predictions"])))
            assert (arrays["log_probability"].astype(float) < np.log(1e-4)).mean() == pytest.approx(
                0.99, abs=0.005
            )
    assert classes == [2, 3]
    assert "two and three classes predicted" in text


def test_every_command_for_what_is_missing_exists(page):
    missing = page.split("## What is missing")[1]
    files = re.findall(r"notebooks/[\w/]+\.(?:yaml|ipynb)", missing)
    assert len(files) >= 6
    assert [name for name in files if not (ROOT / name).exists()] == []
    audit_cells = json.loads((ROOT / "notebooks" / "07_audit.ipynb").read_text())["cells"]
    (parameters,) = [
        "".join(cell["source"])
        for cell in audit_cells
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    for name in re.findall(r"-p (\w+) ", missing):
        assert re.search(rf"^{name} = ", parameters, re.MULTILINE), name
