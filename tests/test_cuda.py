"""The CUDA path: captured steps, runs that take turns, repeats to the bit. Skipped without a GPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from hml_core import datasets, engines
from hml_core.config import RunConfig, grid
from hml_core.models import training
from hml_core.models.cifar import resnet32
from hml_core.runs import Run
from hml_core.system import devices
from hml_core.trainer import Trainer, fit
from hml_core.trainer.cuda_graphs import WARM_UP_STEPS, GraphedStep
from tests.distributed.jobs import SMALL

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
EPOCHS = 8


@pytest.fixture
def repeatable():
    """Trainers without :func:`fit` around them leave torch the choice, and the fastest algorithms add in
    another order each time. At this rate, and with HML's second stage, two runs then soon part."""
    with devices.algorithms(deterministic=True):
        yield


def config(**fields) -> RunConfig:
    return RunConfig(**{"dataset": "digits", "recipe": "ce", "epochs": EPOCHS, **fields})


def whole(one: Trainer) -> Trainer:
    while one.epoch < one.config.epochs:
        for _ in one.train_epoch():
            pass
        one.end_epoch()
    return one


@pytest.mark.parametrize("recipe", ["ce", "hml1", "ldam_drw", "crt", "ib"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_captured_run_goes_as_an_eager_one(recipe, optimizer, repeatable, monkeypatch):
    rate = {"learning_rate": 1e-3} if optimizer == "adam" else {}
    given = config(recipe=recipe, optimizer=optimizer, deterministic=True, **rate)
    splits, device = datasets.load(given), torch.device("cuda", 0)
    captured = whole(Trainer(given, splits, device))
    assert isinstance(captured.phase.step, GraphedStep)
    assert captured.phase.step.failure is None
    assert captured.phase.step.captured, "nothing was captured"
    monkeypatch.setattr("hml_core.trainer.phase.GraphedStep", lambda step: step)
    eager = whole(Trainer(given, splits, device))
    losses = [[row["train_loss"] for row in one.history] for one in (captured, eager)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_kernels_of_our_own_are_as_near_to_float64_as_the_library():
    device = torch.device("cuda", 0)
    torch.manual_seed(0)
    exact = resnet32(100).double().to(device, memory_format=torch.channels_last).train()
    ours, theirs = (copy.deepcopy(exact).float() for _ in range(2))
    features = training.features_of(ours, device, torch.bfloat16)
    assert features != ours.features, "the kernels were not built"
    images = torch.randn(95, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    direction = torch.randn(95, 64, device=device)
    with torch.autocast("cuda", torch.bfloat16):
        given = [features(images), theirs.features(images)]
    given.append(exact.features(images.double()))
    for one in given:
        (one.float() * direction).sum().backward()
    gradients = [
        torch.cat([tensor.grad.flatten().double() for name, tensor in model.named_parameters()
                   if not name.startswith("linear")])
        for model in (ours, theirs, exact)
    ]  # fmt: skip
    for of_ours, of_theirs, of_exact in (given, gradients):
        errors = [(one.double() - of_exact).norm() for one in (of_ours, of_theirs)]
        assert errors[0] < 1.2 * errors[1]


def test_nothing_in_a_step_waits_for_the_device():
    one = Trainer(config(mix="mixup"), datasets.load(config()), torch.device("cuda", 0))
    steps = one.train_epoch()
    next(steps)  # the epoch's preparation may wait
    for number, mode in ((WARM_UP_STEPS - 1, "error"), (1, "default"), (5, "error")):
        try:  # eager steps, the capture, replays
            torch.cuda.set_sync_debug_mode(mode)
            for _ in range(number):
                next(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert one.phase.step.captured


def test_runs_that_take_turns_end_as_alone(tmp_path):
    configs = grid(recipe=["ce", "hml1"], seed=[0, 1], dataset="digits", epochs=EPOCHS)
    alone = engines.sweep(configs, runs_root=tmp_path / "a", device="cuda", progress=False)
    turns = engines.sweep(
        configs,
        engine="interleave:4",
        runs_root=tmp_path / "b",
        device="cuda",
        progress=False,
    )
    assert (turns["status"] == "done").all(), turns["error"].tolist()
    difference = alone["last_top1"] - turns["last_top1"]
    assert difference.abs().max() < 0.1


@pytest.mark.parametrize("recipe", ["ce", "hml1", "ldam_drw", "ib"])
def test_deterministic_runs_repeat_to_the_bit(recipe, tmp_path):
    given = config(recipe=recipe, deterministic=True)
    first, second = (
        fit(given, runs_root=tmp_path / name, device="cuda", progress=False) for name in "ab"
    )
    assert isinstance(first, Run)
    assert np.array_equal(first.predictions[0], second.predictions[0])


def test_a_checkpoint_of_a_gpu_goes_on_there(repeatable, tmp_path):
    given = config(recipe="hml1", deterministic=True)
    splits, device = datasets.load(given), torch.device("cuda", 0)
    straight = whole(Trainer(given, splits, device))
    first = Trainer(given, splits, device)
    for _ in range(EPOCHS // 2 + 1):
        for _ in first.train_epoch():
            pass
        first.end_epoch()
    torch.save(first.state(), tmp_path / "state.pt")
    second = Trainer(given, splits, device)
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True, map_location="cpu"))
    whole(second)
    losses = [[row["train_loss"] for row in one.history] for one in (second, straight)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_captured_micro_batches_go_as_eager_ones(repeatable, monkeypatch):
    given = config(recipe="hml1", deterministic=True, micro_batch_size=8, ema_decay=0.9)
    splits, device = datasets.load(given), torch.device("cuda", 0)
    captured = whole(Trainer(given, splits, device))
    assert captured.phase.step.captured, "nothing was captured"
    monkeypatch.setattr("hml_core.trainer.phase.GraphedStep", lambda step: step)
    eager = whole(Trainer(given, splits, device))
    losses = [[row["train_loss"] for row in one.history] for one in (captured, eager)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_image_files_train_on_a_gpu_as_on_a_cpu(miniature, tmp_path):
    given = RunConfig(**SMALL | {"recipe": "hml1"})
    where = {"data_root": miniature, "progress": False}
    ends = [fit(given, runs_root=tmp_path / name, device=name, **where) for name in ("cpu", "cuda")]
    np.testing.assert_allclose(*(end.history["train_loss"][:1] for end in ends), rtol=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_train_as_one(miniature, tmp_path):
    given = [RunConfig(**SMALL | {"recipe": "hml1"})]
    where = {"data_root": miniature, "device": "cuda", "progress": False}
    engines.sweep(given, engine="torchrun:2", runs_root=tmp_path / "two", **where)
    one = fit(given[0], runs_root=tmp_path / "one", **where)
    two = Run(tmp_path / "two" / one.run_id)
    np.testing.assert_allclose(two.history["train_loss"], one.history["train_loss"], rtol=0.02)
