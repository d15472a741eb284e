"""The number of processes does not change a run; a lost process costs no more than some steps."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from data_prep.folder import example, images
from data_prep.folder import source as sources
from data_prep.folder.prepare import prepare
from hml_core.config import RunConfig
from hml_core.runs import CLOCK, Run
from hml_core.trainer import fit
from hml_lab import notebooks
from tests.distributed.helpers import REPOSITORY, run, start, start_on_hosts
from tests.distributed.jobs import SMALL
from tests.engines.helpers import wait_for
from tests.quick import slow_but

CONFIGS = {
    "ce": {"recipe": "ce"},
    "hml1": {"recipe": "hml1"},
    "class-balanced, mixup": {"recipe": "ce", "sampler": "class_balanced", "mix": "mixup"},
    "crt": {"recipe": "crt", "epochs": 3, "stage_ends": [2]},
    "average": {"recipe": "balanced_softmax", "ema_decay": 0.9},
    # At the rate of the others, LDAM's cosines of scale 30 multiply a last digit by thousands.
    "ldam_drw": {"recipe": "ldam_drw", "epochs": 3, "stage_ends": [2], "learning_rate": 5e-4},
    "tau_norm": {"recipe": "tau_norm"},
}


QUICK = ("ce", "class-balanced, mixup", "crt")
FEW = {"subset_images": 160}  # (5 steps an epoch)


def configs() -> dict[str, RunConfig]:
    return {name: RunConfig(**SMALL | FEW | fields) for name, fields in CONFIGS.items()}


def write(path, *chosen: RunConfig):
    path.write_text(json.dumps([config.to_dict() for config in chosen]))
    return path


@pytest.fixture(scope="module")
def two_processes(miniature, tmp_path_factory):
    """Runs of a group of two, by whether their tests are quick ones."""

    @functools.cache
    def trained(is_quick: bool) -> Path:
        root = tmp_path_factory.mktemp("two")
        chosen = [config for name, config in configs().items() if (name in QUICK) == is_quick]
        file = write(root / "configs.json", *chosen)
        status, said = run("train", miniature, root / "runs", file)
        assert status == 0, said
        return root / "runs"

    return trained


@pytest.mark.parametrize("name", slow_but(QUICK, CONFIGS))
def test_two_processes_train_as_one_does(name, two_processes, miniature, tmp_path):
    """The same batches, the same statistics, exact metrics: only the order of sums differs."""
    config = configs()[name]
    one = fit(config, data_root=miniature, runs_root=tmp_path, progress=False)
    two = Run(two_processes(name in QUICK) / config.run_id).verify()
    # The first epoch's sums differ in the last digit; steps multiply that, by how much the processor says.
    # A mean taken over each process by itself would differ by some per cent.
    np.testing.assert_allclose(two.history["train_loss"], one.history["train_loss"], rtol=2e-3)
    assert two.history["train_loss"][0] == pytest.approx(one.history["train_loss"][0], rel=1e-5)
    np.testing.assert_allclose(two.predictions[0], one.predictions[0], rtol=5e-2, atol=5e-2)
    assert np.array_equal(two.test_targets, one.test_targets)
    assert two.confidence.sum() == one.confidence.sum(), "every image of a batch is counted once"
    assert two.manifest == one.manifest
    described = json.loads((two.path / "environment.json").read_text())
    assert described["processes"] == 2


def test_two_processes_stop_early_where_one_does_and_keep_the_same_network(tmp_path):
    """On one's own images: an evaluation between two that are due, and the best network on validation."""
    data = prepare(
        sources.read(example.make(tmp_path / "drawn", 90, ratio=6)), tmp_path / "mine",
        images.Options(size=32), workers=1, progress=False,
    )  # fmt: skip
    config = RunConfig(
        **SMALL | {"dataset": "folder", "weights": "none", "image_size": 28, "batch_size": 16},
        **{"early_stopping": 1, "evaluate_every": 2},
    )
    # A rate at which nothing gets better: evaluated after 2 epochs, and after 3, where it stops.
    config = dataclasses.replace(config, epochs=8, learning_rate=1e-12)
    file = write(tmp_path / "configs.json", config)
    status, said = run("train", data.folder, tmp_path / "two", file, "best")
    assert status == 0, said
    two = Run(tmp_path / "two" / config.run_id).verify()
    one = fit(
        config, data_root=data.folder, runs_root=tmp_path, progress=False, keep_weights="best"
    )
    for made in (one, two):
        assert made.selection()["epoch"] == len(made.history) == 3
        assert made.selection("best_validation")["epoch"] == made.model().described["epoch"] == 2
        assert made.history["test_accuracy"].notna().tolist() == [False, True, True]
    np.testing.assert_allclose(two.test_logits(), one.test_logits(), rtol=1e-2, atol=1e-3)


WHOLE_WAY = {  # parameters of the notebook, and the fields of its runs
    "model": "resnet8",
    "image_size": 32,
    "epochs": 3,
    "batch_size": 32,
    "micro_batch_size": 8,
}


@pytest.mark.slow
@pytest.mark.begun_first
def test_a_killed_process_costs_no_more_than_the_steps_since_the_checkpoint(
    miniature, tmp_path, forked_kernels
):
    """kill -9 in mid-epoch: torchrun starts the group anew, the run ends with the bits of one that went
    through, on two hosts, and the notebook takes it up."""
    hard_mining = {"delta": 1e4, "weighting": "CS", "weight_placement": "outer"}
    config = RunConfig(dataset="inat2018", recipe="hml1", seed=4, **WHOLE_WAY, **hard_mining)
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    ends = {}
    for name in ("whole", "killed"):
        log, runs_root = tmp_path / f"{name}.log", tmp_path / name
        where = ("--data-root", miniature, "--runs-root", runs_root, "--checkpoint-steps", 4)
        job = ("logged", log, "--config", file, *where, "--device", "cpu")
        if name == "whole":
            hosts = start_on_hosts(*job)
        else:
            hosts = [start(*job, restarts=1)]
            # An epoch has 12 steps: the checkpoint is one of mid-epoch.
            wait_for(lambda log=log: steps_of(log, 1) >= 18, "18 steps")
            os.kill(pids(log)[1], signal.SIGKILL)
        for host in hosts:
            said, _ = host.communicate(timeout=600)
            assert host.returncode == 0, said
        ends[name] = Run(runs_root / config.run_id).verify()
    done = ends["killed"]
    assert len(set(pids(tmp_path / "killed.log", of_all=True))) == 4, "nobody was started anew"
    assert steps_of(tmp_path / "whole.log", 0) == 36
    assert 36 < steps_of(tmp_path / "killed.log", 0) <= 36 + 4 + 2
    ours, theirs = (one.history.drop(columns=[*CLOCK]) for one in (done, ends["whole"]))
    assert ours.equals(theirs)
    assert done.predictions[0].tobytes() == ends["whole"].predictions[0].tobytes()
    assert done.metrics["selections"] == ends["whole"].metrics["selections"]
    in_a_notebook(done, miniature, tmp_path)


def in_a_notebook(done: Run, miniature, tmp_path) -> None:
    """The recovered run beside another one that the notebook trains."""
    given = {
        **WHOLE_WAY,
        "recipes": ["ce", "hml1"],
        "seeds": [4],
        "data_root": str(miniature),
        "runs_root": str(done.path.parent),
        "results_root": str(tmp_path / "results"),
        "device": "cpu",
    }
    before = (done.path / "metrics.json").read_bytes()
    path = REPOSITORY / "notebooks" / "04_inaturalist2018.ipynb"
    notebooks.execute(path, given, tmp_path / "out.ipynb", show_progress=False)
    assert (done.path / "metrics.json").read_bytes() == before, "trained again"
    table = (tmp_path / "results" / "tables" / "inaturalist2018.md").read_text()
    (row,) = (line for line in table.splitlines() if line.startswith("| HML1"))
    assert f"{100 * done.selection('last')['top1']:.1f}" in row
    assert len(list((tmp_path / "results" / "figures").glob("*.png"))) == 4


def lines(log) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def steps_of(log, rank: int) -> int:
    return sum(int(line[1]) == rank for line in lines(log) if len(line) == 3)


def pids(log, *, of_all: bool = False):
    """The last process of each rank, or all that there were."""
    found = [(int(line[1]), int(line[0])) for line in lines(log) if len(line) == 3]
    return [pid for _, pid in found] if of_all else dict(found)


@pytest.mark.slow
def test_a_run_of_two_goes_on_with_one(miniature, tmp_path):
    """Interrupted in mid-epoch; the sums of both processes are in the checkpoint."""
    config = configs()["average"]
    file = write(tmp_path / "configs.json", config)
    status, said = run("interrupt", miniature, tmp_path / "runs", file, 7)
    assert status != 0
    assert (tmp_path / "runs" / config.run_id / "checkpoint.pt").exists(), said
    resumed = fit(config, data_root=miniature, runs_root=tmp_path / "runs", progress=False)
    whole = fit(config, data_root=miniature, runs_root=tmp_path / "whole", progress=False)
    columns = ["train_loss", "train_accuracy"]
    np.testing.assert_allclose(resumed.history[columns], whole.history[columns], rtol=1e-4)
    assert resumed.confidence.sum() == whole.confidence.sum()
    np.testing.assert_allclose(resumed.predictions[0], whole.predictions[0], rtol=5e-2, atol=5e-2)


def test_what_cannot_be_trained_is_refused_on_every_process(miniature, tmp_path):
    """One group meets one problem after the other: no process waits for one that has given up."""
    missing, out_of_range = (copy_of(miniature, tmp_path / name) for name in ("gone", "range"))
    next((missing / "prepared" / "images").rglob("*.jpg")).unlink()
    spoil_category(out_of_range / "prepared")
    bare = tmp_path / "bare"
    bare.mkdir()
    (tmp_path / "file").write_text("")
    runs = str(tmp_path / "runs")
    good = SMALL | {"recipe": "ce"}
    cases = {
        "nothing prepared": (good, str(bare), runs),
        "an image is gone": (good, str(missing), runs),
        "category": (good, str(out_of_range), runs),
        "batch": (good | {"micro_batch_size": 32}, str(miniature), runs),
        "config": (good | {"delta": -1.0, "recipe": "hml1"}, str(miniature), runs),
        "no folder": (good, str(miniature), str(tmp_path / "file" / "runs")),
        "only one sees it": (good, [str(miniature), str(bare)], runs),
        "too few images": (good | {"batch_size": 1024}, str(miniature), runs),
        "other options": ([good, good | {"seed": 5}], str(miniature), runs),
    }
    expected = {
        "nothing prepared": "run `hml prepare inat2018",
        "an image is gone": "1 prepared image(s) are gone",
        "category": "has the category 99: expected 0 … 23",
        "batch": "2 processes cannot share a batch of 32",
        "config": "Expected `delta` > 0",
        "no folder": "cannot be written to",
        "only one sees it": "Process 1: There is no prepared inat2018",
        "too few images": "less than a batch",
        "other options": "`seed` is 0 for process 0 and 5 for process 1",
    }
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    status, said = run("refuse", file)
    assert status == 0, said
    told = [(tmp_path / f"cases.json.{rank}").read_text().splitlines() for rank in (0, 1)]
    answers = [json.loads(line) for lines_of_one in told for line in lines_of_one]
    assert sorted((name, rank) for name, rank, _ in answers) == sorted(
        (name, rank) for name in cases for rank in (0, 1)
    )
    for name, rank, text in answers:
        if (name, rank) != ("only one sees it", 1):
            assert expected[name] in text, (name, rank, text)
    assert not list((tmp_path / "runs").glob("inat*")), "nothing was begun"


def copy_of(root, target):
    import shutil

    return shutil.copytree(root, target, copy_function=os.link)


def spoil_category(folder) -> None:
    """A manifest that names a category that does not exist, and whose sum holds."""
    from hml_core.datasets import prepared
    from hml_core.system import files

    path = folder / "manifest.csv"
    header, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    cells[header.split(",").index("category")] = "99"
    path.unlink()  # it is the same file as the original's
    path.write_text("\n".join([header, ",".join(cells), *rest]) + "\n")
    described = files.unsealed(json.loads((folder / "prepared.json").read_text()))
    prepared.describe(folder, described | {"manifest_sha256": files.sha256(path)})


def test_an_image_that_is_damaged_stops_all_processes_with_its_name(miniature, tmp_path):
    """One of them reads it, in the middle of an epoch; the other one waits for gradients."""
    damaged = copy_of(miniature, tmp_path / "damaged")
    path = sorted((damaged / "prepared" / "images").rglob("*.jpg"))[40]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:100])
    config = RunConfig(**SMALL | {"recipe": "ce"})
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    where = ("--data-root", damaged, "--runs-root", tmp_path / "runs", "--device", "cpu")
    status, said = run("-m", "hml_core", "train", "--config", file, *where)
    assert status != 0
    for rank in (0, 1):
        (told,) = (line for line in said.splitlines() if f"Error in process {rank} of 2" in line)
        assert path.name in told
    failed = json.loads((tmp_path / "runs" / config.run_id / "failed.json").read_text())
    assert path.name in failed["error"]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2])
def test_what_torch_does_at_the_end_of_the_interpreter_fails_no_finished_run(epochs, tmp_path):
    """Its threads may abort the process then, with status -6, which torchrun takes for a failed run.

    Here every process is made to abort there. An error keeps its status.
    """
    fields = {"dataset": "digits", "epochs": epochs, "batch_size": 64, "micro_batch_size": 16}
    config = RunConfig(
        **fields | ({"learning_rate": 1e30, "warmup_epochs": 0} if epochs > 1 else {})
    )
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    where = ("--runs-root", tmp_path / "runs", "--device", "cpu", "--quiet")
    status, said = run("abort_at_the_end", "--config", file, *where, forked=False)
    assert "Signal 6" not in said
    assert "exitcode: -6" not in said
    if epochs == 1:
        assert status == 0, said
        assert "Test metrics" in said, "everything was said before"
        assert Run(tmp_path / "runs" / config.run_id).verify()
    else:
        assert status == 1, said
        assert "loss became nan" in said
