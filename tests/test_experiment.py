"""An experiment: runs, groups of them, files with its name, and errors that say the cause."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hml_core.config import grid
from hml_core.errors import ConfigError, RunError
from hml_core.runs import listing
from hml_lab import plots
from hml_lab.experiment import Experiment, stored_seeds

TINY = {"dataset": "digits", "epochs": 2, "model": "resnet8", "seed": 0}


@pytest.fixture(scope="module")
def where(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("experiment")
    return {"runs_root": root / "runs", "results_root": root}


@pytest.fixture(scope="module")
def experiment(where) -> Experiment:
    configs = grid(recipe=["ce", "hml1"], imbalance_ratio=[20.0, 10.0], **TINY)
    return Experiment("tiny", configs, **where)


def test_nothing_happens_before_it_is_asked_for(experiment, where):
    assert not where["runs_root"].exists()
    assert experiment.recipes == ["ce", "hml1"]
    assert experiment.hard_mining == ["hml1"]


def test_files_carry_its_name(experiment, where):
    part = experiment.where(imbalance_ratio=20.0)
    part.save_table(part.table(["top1"]), part.table(["few"]), suffix="both")
    part.save_runs()
    part.save_figure(plots.per_class_accuracy(part.runs), "per_class")
    written = {
        str(p.relative_to(where["results_root"])) for p in where["results_root"].glob("*s/tiny*")
    }
    assert written == {
        "tables/tiny_both.md", "tables/tiny_both.html", "tables/tiny_both.tex", "tables/tiny_both.csv",
        "tables/tiny_both_2.csv", "tables/tiny_runs.csv", "tables/tiny_contrasts.csv",
        "figures/tiny_per_class.png",
    }  # fmt: skip
    table = pd.read_csv(where["results_root"] / "tables" / "tiny_both.csv").set_index("Recipe")
    for recipe, label in (("ce", "CE"), ("hml1", "HML1")):
        own = [config.run_id for config in part.configs if config.recipe == recipe]
        assert table.loc[label, "run ids"].split() == own
    for form in ("md", "html", "tex"):
        text = (where["results_root"] / "tables" / f"tiny_both.{form}").read_text()
        assert text.count("Data: digits (10 classes), exponential imbalance, ratio 20.") == 2
        records = [json.loads((run.path / "environment.json").read_text()) for run in part.runs]
        (commit,) = {record["git_commit"] or "unknown" for record in records}
        assert text.count(f"Commit {commit[:10]}") == 2
    tests = pd.read_csv(where["results_root"] / "tables" / "tiny_contrasts.csv")
    assert {"reference", "correlation", "test", "p_holm", "imbalance_ratio"} <= set(tests)
    ids = pd.read_csv(where["results_root"] / "tables" / "tiny_runs.csv")["run_id"]
    assert set(ids) == {config.run_id for config in part.configs}


def test_a_part_holds_its_own_runs_and_trains_nothing_again(experiment):
    part = experiment.where(imbalance_ratio=10.0)
    assert [run.config.imbalance_ratio for run in part.runs] == [10.0, 10.0]
    assert part.frame["run_id"].tolist() == [config.run_id for config in part.configs]
    assert len(experiment.frame) == len(experiment.runs) == 4
    assert "2 runs" in part.status().data
    with pytest.raises(ConfigError, match="at least one run"):
        experiment.where(imbalance_ratio=30.0)


def test_groups_may_share_runs(where):
    """δ = 1e4 is HML1 itself: two rows of the table, one run."""
    ce, hml = (grid(recipe=[name], imbalance_ratio=20.0, **TINY) for name in ("ce", "hml1"))
    groups = {"CE": ce, "HML1": hml, "δ = 1e4": hml}
    grouped = Experiment("cells", groups, by="cell", **where)
    assert grouped.frame["cell"].tolist() == ["CE", "HML1", "δ = 1e4"]
    assert len(grouped.configs) == len(grouped.runs) == 2
    assert grouped.missing() == "All 2 runs are there."


def test_where_every_run_failed_the_error_is_the_first_cause(tmp_path):
    configs = grid(dataset="cifar10", recipe=["ce", "hml1"], seed=0, epochs=2)
    lost = Experiment("lost", configs, data_root=tmp_path / "no", runs_root=tmp_path)
    with pytest.raises(
        RunError, match=r"No run was finished\. cifar10-.*-ce-.*: cifar10 is not in"
    ):
        lost.status()


def test_where_the_baseline_failed_the_table_says_why(experiment, where):
    configs = grid(recipe=["ce", "hml1"], imbalance_ratio=20.0, **TINY)
    part = Experiment("part", configs, **where)
    frame = part.frame.copy()
    frame.loc[0, ["status", "error"]] = ["failed", "the disk is full"]
    part.frame = frame
    for said in (part.table, part.conclusion):
        with pytest.raises(RunError, match=r"No run of the baseline 'ce' .*: the disk is full"):
            said()
    assert "1 of 2 runs is not there" in part.missing()


def test_what_is_not_stored_is_listed_and_not_drawn(tmp_path):
    stored = Experiment("none", grid(recipe="ce", **TINY), runs_root=tmp_path, train=False)
    assert "The run is not there" in stored.missing()
    for asked in (stored.status, stored.table, lambda: stored.runs, stored.save_runs):
        with pytest.raises(RunError, match="With `train` true it would be trained"):
            asked()


def test_of_many_that_are_not_stored_methods_are_listed_with_their_seeds(tmp_path):
    seeds = [0, 1, 2, 5, *range(7, 20)]
    configs = grid(recipe=["ce", "hml1"], **{**TINY, "seed": seeds})
    said = Experiment("none", configs, runs_root=tmp_path, train=False).missing()
    assert "34 of 34 runs are not there" in said
    assert "- ce: missing, 17 seeds (0 to 2, 5, 7 to 19); such as" in said
    assert said.count("\n- ") == 2


def test_the_stored_seeds_are_those_of_the_setting(experiment, where):
    assert len(experiment.frame) == 4
    assert stored_seeds(where["runs_root"], dataset="digits", imbalance_ratio=10.0) == [0]
    with pytest.raises(ConfigError, match=r"Expected `seeds`, or finished runs \(epochs 7\) below"):
        stored_seeds(where["runs_root"], epochs=7)


def test_seeds_are_taken_from_runs_beside_anything_else(experiment, where):
    root = where["runs_root"]
    assert len(experiment.frame) == 4
    for name in ("somebody_s", ".hidden", "copy.bak"):
        (root / name).mkdir()
        (root / name / "metrics.json").write_text("{}")
    assert stored_seeds(root, dataset="digits") == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"selection": "best"}, r"`selection` to be one of .*best_validation.*, got 'best'"),
        (
            {"by": "dataset"},
            "`by` to name a column that the frame of runs does not have, got 'dataset'",
        ),
        ({"by": "run_id"}, "`by`"),
        ({"by": "last_ece"}, "`by`"),
        ({"by": 3}, "`by`"),
        ({"train": "no"}, "`train` to be true or false, got 'no'"),
        ({"figure_width": "3"}, "`figure_width` .* got '3'"),
    ],
)
def test_what_would_fail_afterwards_is_refused_before_anything_is_trained(given, said):
    with pytest.raises(ConfigError, match=said):
        Experiment("none", grid(recipe="ce", **TINY), **given)


def test_every_column_of_a_frame_is_known_as_one(experiment):
    assert [name for name in experiment.frame if not listing.is_column(name)] == []
    assert not listing.is_column("group")


def test_unknown_fields_and_metrics_are_named(experiment, where):
    for choose in (experiment.where, lambda **given: stored_seeds(where["runs_root"], **given)):
        with pytest.raises(ConfigError, match="RunConfig has no field 'recip'"):
            choose(recip="ce")
    with pytest.raises(ValueError, match=r"metrics to be of top1, .*, got 'acc'"):
        experiment.table(["top1", "acc"])


def test_one_configuration_is_an_experiment(where):
    (config,) = grid(recipe="ce", **TINY)
    assert Experiment("one", config, **where).configs == [config]


@pytest.mark.parametrize("name", ["", "a/b", ".."])
def test_a_name_is_the_beginning_of_a_file_s(name):
    with pytest.raises(ConfigError, match="beginning of a file's name"):
        Experiment(name, grid(recipe="ce", **TINY))


def test_no_runs_and_unknown_engines_are_refused():
    with pytest.raises(ConfigError, match="at least one run"):
        Experiment("a", [])
    with pytest.raises(ConfigError, match="Expected `engine`"):
        Experiment("a", grid(recipe="ce", **TINY), engine="fast")


@pytest.mark.parametrize("what", ["", "tables", "figures"])
def test_nothing_is_trained_whose_results_could_not_be_written(what, tmp_path, tiny):
    place = tmp_path / "results"
    if what:
        place.mkdir()
    (place / what).touch()
    experiment = Experiment("x", [tiny()], runs_root=tmp_path / "runs", results_root=place)
    with pytest.raises(
        RunError, match=r"cannot be written to \(.*\): expected a writable `results_root`"
    ):
        experiment.status()
    assert not (tmp_path / "runs").exists()


def test_numbers_about_groups_lead_to_their_runs(tmp_path, tiny):
    """Two clicks from an effect to its runs: the CSV has the ids of both sides, of that setting alone."""
    import pandas as pd

    configs = [tiny(recipe=recipe) for recipe in ("ce", "hml1")]
    experiment = Experiment("x", configs, by="cell", results_root=tmp_path)
    rows = [
        {"run_id": f"{recipe}-{ratio}-{cell}", "recipe": recipe, "cell": f"{recipe}{cell}",
         "imbalance_ratio": ratio, "status": "done"}
        for recipe in ("ce", "hml1") for ratio in (10.0, 100.0) for cell in ("", " + drop")
    ]  # fmt: skip
    experiment.frame = pd.DataFrame(rows)

    def saved(frame: dict, suffix: str) -> list[str] | None:
        experiment.save_frame(pd.DataFrame(frame), suffix)
        found = pd.read_csv(tmp_path / "tables" / f"x_{suffix}.csv")
        return found["run ids"].tolist() if "run ids" in found else None

    effect = {"label": ["loss"], "cell": ["hml1 + drop"], "reference": ["ce"]}
    assert saved(effect, "a") == ["ce-10.0- ce-100.0- hml1-10.0- + drop hml1-100.0- + drop"]
    assert saved({**effect, "imbalance_ratio": [10.0]}, "b") == ["ce-10.0- hml1-10.0- + drop"]
    assert saved({"group": ["ce"], "mean": [1.0]}, "c") == ["ce-10.0- ce-100.0-"]
    assert saved({"label": ["somebody else's"], "mean": [1.0]}, "d") is None
    assert saved({"run_id": ["z"]}, "e") is None
