"""The trainer: repeats to the bit, survives a kill, refuses and records what goes wrong."""

from __future__ import annotations

import functools
import io
import json
import os
import platform
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from hml_core import datasets, engines, recipes, runs, trainer
from hml_core.config import RunConfig
from hml_core.errors import DeviceError, RunError
from hml_core.recipes import Stage
from hml_core.system import devices
from hml_core.trainer import NonFiniteLossError, Trainer, fit, update
from hml_core.trainer.epochs import Shares
from hml_core.trainer.world import ALONE
from tests import forks
from tests.quick import slow_but

# Everything of a record that does not depend on the clock.
TIMED = ("seconds", "files", "checksum")


def outcome(run) -> tuple:
    metrics = {key: value for key, value in run.metrics.items() if key not in TIMED}
    history = run.history.drop(columns=[*runs.CLOCK])
    return metrics, history.to_csv(), *(array.tobytes() for array in run.predictions)


@pytest.mark.parametrize(
    "recipe", slow_but(["hml2", "lws"], ["hml2", "ldam_drw", "crt", "lws", "ib"])
)
def test_the_same_config_twice_is_the_same_to_the_bit(recipe, tiny, tmp_path):
    config = tiny(recipe=recipe, epochs=10)
    first = fit(config, runs_root=tmp_path / "a", progress=False)
    second = fit(config, runs_root=tmp_path / "b", progress=False)
    assert outcome(first) == outcome(second)


def test_another_seed_is_another_run(tiny, tmp_path):
    logits = [
        fit(tiny(epochs=2, seed=seed), runs_root=tmp_path, progress=False).predictions[0]
        for seed in (0, 1)
    ]
    assert not np.array_equal(*logits)


def test_training_leaves_the_global_generators_alone(tiny, tmp_path):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def weights_after(config, splits, resume_at: int | None = None):
    """Weights, momenta and history at the end, handed over through a checkpoint on the way."""
    one = Trainer(config, splits, torch.device("cpu"))
    while one.epoch < config.epochs:
        for _ in one.train_epoch():
            pass
        one.end_epoch()
        if one.epoch == resume_at:
            buffer = io.BytesIO()
            torch.save(one.state(), buffer)
            buffer.seek(0)
            one = Trainer(config, splits, torch.device("cpu"))
            one.restore(torch.load(buffer, weights_only=True))
    state = one.state()
    return state["model"], state["optimizer"], state["evaluator"]


@pytest.mark.parametrize(
    ("recipe", "resume_at"),
    slow_but(
        [("hml1", 5), ("crt", 9), ("ncm", 4)],
        [
            ("hml1", 3),
            ("hml1", 5),
            ("ldam_drw", 8),
            ("crt", 9),
            ("lws", 9),
            ("ncm", 4),
            ("dhml1", 8),
        ],
    ),
)
def test_a_checkpoint_continues_to_bit_identical_weights(recipe, resume_at, tiny):
    """Also where it falls on a stage switch (hml1: 5, ldam_drw: 8, crt: 9 of 10 epochs)."""
    config = tiny(recipe=recipe, epochs=10, switch_patience=2 if recipe == "dhml1" else 0)
    splits = datasets.load(config)
    straight = weights_after(config, splits)
    resumed = weights_after(config, splits, resume_at)

    def compare(a, b):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                compare(a[key], b[key])
        elif isinstance(a, list | tuple):
            for x, y in zip(a, b, strict=True):
                compare(x, y)
        else:
            assert a == b

    compare(straight, resumed)


@pytest.mark.parametrize("more", [{}, {"micro_batch_size": 16}], ids=["whole", "parts"])
def test_a_checkpoint_after_the_last_step_of_an_epoch_is_gone_on_from(more, tiny, tmp_path, begin):
    """Whose last batch is not full: there is nothing left of that epoch."""
    config = tiny(epochs=2, **more)
    images = int(datasets.load(config).class_counts.sum())
    assert images % config.batch_size
    steps = images // config.batch_size + (not more)
    begin(config, runs_root=tmp_path / "killed", checkpoint_steps=steps)
    (path,) = (tmp_path / "killed").glob("*/checkpoint.pt")
    assert torch.load(path, weights_only=True)["current"]["step"] == steps
    resumed = fit(config, runs_root=tmp_path / "killed", progress=False)
    straight = fit(config, runs_root=tmp_path / "straight", progress=False)
    assert resumed.history["train_loss"].equals(straight.history["train_loss"])
    assert resumed.predictions[0].tobytes() == straight.predictions[0].tobytes()


PATIENCE_S = 600  # with a child, whatever else the machine does
# Trains; kills itself before the step with the number that may be given.
KILLED = """
import os, signal, sys, torch
from hml_core.trainer import fitting, update
from hml_core.config import RunConfig
torch.set_num_threads(1)
fitting.CHECKPOINT_INTERVAL_S = 0.0
plain, left = update.Update.__call__, [int(number) for number in sys.argv[3:]]
def counted(self, batch):
    if left == [0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[:] = [number - 1 for number in left]
    return plain(self, batch)
update.Update.__call__ = counted
fitting.fit(RunConfig.from_json(sys.argv[1]), runs_root=sys.argv[2], progress=False)
"""


def test_kill_9_in_mid_epoch_loses_nothing(tiny, tmp_path):
    """A process is killed while it trains; the resumed run ends as if nothing had happened."""
    config = tiny(recipe="hml1", epochs=6, batch_size=32)
    folder = tmp_path / "killed" / config.run_id
    steps = Shares(config, ALONE, len(datasets.load(config).train.targets)).steps
    number = 3 * steps + steps // 2
    process = forks.Python(["-c", KILLED, config.to_json(), tmp_path / "killed", number])
    assert process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == 3

    resumed = fit(config, runs_root=tmp_path / "killed", progress=False)
    straight = fit(config, runs_root=tmp_path / "straight", progress=False)
    assert outcome(resumed) == outcome(straight)
    assert not (folder / "checkpoint.pt").exists()


def test_a_finished_run_is_read_not_trained(tiny, tmp_path, monkeypatch):
    first = fit(tiny(), runs_root=tmp_path, progress=False)
    monkeypatch.setattr(trainer.Trainer, "train_epoch", lambda self: pytest.fail("trained again"))
    assert outcome(fit(tiny(), runs_root=tmp_path, progress=False)) == outcome(first)


def test_two_processes_asked_for_one_run_train_it_once(tiny, tmp_path):
    config = tiny(recipe="hml1", epochs=8)
    both = [forks.Python(["-c", KILLED, config.to_json(), tmp_path]) for _ in range(2)]
    assert [process.wait(timeout=PATIENCE_S) for process in both] == [0, 0]
    done = runs.Run(tmp_path / config.run_id).verify()
    assert len(done.history) == done.trained_epochs == 8
    assert not (tmp_path / ".damaged").exists()


def test_stages_switch_where_the_recipe_says(tiny, tmp_path, monkeypatch):
    """Loss, weights and sampler of every epoch, seen from inside the loop."""
    seen = []
    original = Trainer.end_epoch

    def spy(self):
        weight = getattr(self.phase.criterion, "weight", None)
        seen.append((type(self.phase.criterion).__name__, weight is not None, self.phase.sampler))
        original(self)

    monkeypatch.setattr(Trainer, "end_epoch", spy)
    fit(tiny(recipe="hml1"), runs_root=tmp_path, progress=False)
    plain = ("CrossEntropyLoss", False, "instance")
    assert seen == [plain, plain] + 2 * [("HardMiningLoss", True, "instance")]
    seen.clear()
    fit(tiny(recipe="ce_drs", epochs=5), runs_root=tmp_path, progress=False)
    assert seen == 4 * [plain] + [("CrossEntropyLoss", False, "class_balanced")]
    seen.clear()
    fit(tiny(recipe="ce", sampler="square_root", epochs=1), runs_root=tmp_path, progress=False)
    assert seen == [("CrossEntropyLoss", False, "square_root")]


def test_a_plateau_on_validation_ends_the_first_stage(tiny, tmp_path):
    """P3's dhml1: at the first epoch that is `patience` after the best one, never after stage_ends."""
    run = fit(
        tiny(recipe="dhml1", epochs=40, switch_patience=3, stage_ends=(38,)),
        runs_root=tmp_path,
        progress=False,
    )
    score = run.history["validation_balanced_accuracy"].to_numpy()
    expected = next(e for e in range(1, 38) if e - 1 - score[:e].argmax() >= 3)
    first_stage = (run.history["stage"] == 0).sum()
    assert first_stage == expected < 38
    fixed = fit(
        tiny(recipe="dhml1", epochs=4, switch_patience=3), runs_root=tmp_path, progress=False
    )
    assert (fixed.history["stage"] == 0).sum() == 2


def test_a_frozen_backbone_does_not_move(tiny):
    """cRT and LWS train the classifier alone: weights and batch statistics of the rest stay."""
    for recipe in ("crt", "lws"):
        config = tiny(recipe=recipe, epochs=10)
        one = Trainer(config, datasets.load(config), torch.device("cpu"))
        snapshots = {}
        while one.epoch < config.epochs:
            for _ in one.train_epoch():
                pass
            one.end_epoch()
            snapshots[one.epoch] = {k: v.clone() for k, v in one.model.state_dict().items()}
        before, after = snapshots[9], snapshots[10]
        backbone = [key for key in before if not key.startswith("linear")]
        assert all(torch.equal(before[key], after[key]) for key in backbone)
        moved = {key for key in after if key.startswith("linear")} & set(before)
        if recipe == "crt":
            assert not any(torch.equal(before[key], after[key]) for key in moved)
        else:
            assert not torch.equal(after["linear.scales"], torch.ones(10))
            assert torch.equal(before["linear.weight"], after["linear.classifier.weight"])


DIGITS = {
    name: RunConfig(recipe=name, epochs=10, batch_size=64, imbalance_ratio=5.0)
    for name in recipes.names()
}


QUICK = ("ce", "hml1", "ldam_drw", "crt")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Runs by recipe; what they have in common is trained once (tests/test_branches.py: the same bits)."""
    root = tmp_path_factory.mktemp("digits")

    @functools.cache
    def swept(is_quick: bool) -> Path:
        configs = [config for name, config in DIGITS.items() if (name in QUICK) == is_quick]
        engines.sweep(configs, runs_root=root, progress=False)
        return root

    return swept


@pytest.mark.begun_first
@pytest.mark.parametrize("recipe", slow_but(QUICK, recipes.names()))
def test_every_recipe_learns_the_digits(recipe, swept):
    """Far above the 10 % of guessing after some hundred steps, on every recipe's own schedule."""
    config = DIGITS[recipe]
    run = runs.Run(swept(recipe in QUICK) / config.run_id).verify()
    assert run.selection("best_test")["balanced_accuracy"] > 0.7
    assert run.history["stage"].max() == len(config.stages) - 1


def test_selections_are_labelled_and_consistent(tiny, tmp_path):
    run = fit(tiny(recipe="ce", epochs=8), runs_root=tmp_path, progress=False)
    history = run.history
    last, validation, test = (run.selection(name) for name in runs.SELECTIONS)
    assert last["epoch"] == 8
    assert last["balanced_accuracy"] == pytest.approx(history["test_balanced_accuracy"].iloc[-1])
    best = history["validation_balanced_accuracy"].idxmax()
    assert validation["epoch"] == history["epoch"][best]
    assert validation["balanced_accuracy"] == pytest.approx(history["test_balanced_accuracy"][best])
    assert test["balanced_accuracy"] == pytest.approx(history["test_balanced_accuracy"].max())
    logits, targets = run.predictions
    assert (logits.argmax(axis=1) == targets).mean() == pytest.approx(last["top1"])


def test_evaluation_can_be_rare_but_never_misses_the_end(tiny, tmp_path):
    run = fit(tiny(epochs=5, evaluate_every=2), runs_root=tmp_path, progress=False)
    evaluated = run.history["test_accuracy"].notna().tolist()
    assert evaluated == [False, True, False, True, True]


def test_a_nan_loss_stops_with_epoch_step_and_config_and_is_recorded(tiny, tmp_path):
    config = tiny(learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(
        NonFiniteLossError, match=r"epoch 1, step [23] of 6.*\"learning_rate\": 1e\+30"
    ):
        fit(config, runs_root=tmp_path, progress=False)
    record = json.loads((tmp_path / config.run_id / "failed.json").read_text())
    assert record["type"] == "NonFiniteLossError"
    assert record["config"]["learning_rate"] == 1e30
    assert runs.load(tmp_path).empty
    assert runs.failures(tmp_path)["run_id"].tolist() == [config.run_id]
    with pytest.raises(NonFiniteLossError):  # asked again, it is tried again
        fit(config, runs_root=tmp_path, progress=False)


@pytest.mark.parametrize("tau", [1e20, 1e37])
def test_a_network_that_diverged_without_a_nan_has_a_record_like_any_other(tau, tiny, tmp_path):
    """Its log loss is larger than whole numbers may be in a record."""
    run = fit(tiny(epochs=1, post_hoc_tau=tau), runs_root=tmp_path, progress=False)
    assert run.metrics["selections"]["last"]["nll"] > 2**63
    assert runs.load(tmp_path)["status"].tolist() == ["done"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_results_folder_is_named_before_training(tiny, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot be written to"):
        fit(tiny(), runs_root=tmp_path / "runs", progress=False)


def test_a_results_folder_that_is_a_file_is_named_before_training(tiny, tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(RunError, match=r"results folder .*runs' cannot be written to"):
        fit(tiny(), runs_root=tmp_path / "runs", progress=False)


def test_a_device_that_is_not_there_is_named_and_nothing_is_written(tiny, tmp_path):
    with pytest.raises(DeviceError, match=r"'cuda:99' is not there: this machine shows \d+ CUDA"):
        fit(tiny(), runs_root=tmp_path / "runs", device="cuda:99")
    with pytest.raises(DeviceError, match="'auto', 'cpu', 'cuda'"):
        devices.resolve("gpu")
    with pytest.raises(DeviceError, match="CPU or CUDA"):
        devices.resolve("meta")
    assert not (tmp_path / "runs").exists()


def test_loss_arguments_come_from_the_training_set():
    counts = np.array([30, 10])
    weighted = update.build_loss(Stage("hard_mining", {"delta": 9.0}, "CS"), counts)
    assert weighted.weight.tolist() == [0.5, 1.5]
    assert weighted.delta == 9.0
    assert update.build_loss(Stage("hard_mining"), counts).weight is None
    assert update.build_loss(Stage("ldam"), counts).margins.max().item() == pytest.approx(0.5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc's allocator")
def test_freed_memory_is_kept_on_glibc():
    assert devices.keep_freed_memory()
