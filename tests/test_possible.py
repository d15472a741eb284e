"""What a checkpoint says, and no run can have come to: it is set aside, and the run trained anew."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hml_core.config import RunConfig
from hml_core.runs import RunFolder
from hml_core.trainer import fit, possible
from tests.begun import until_its_checkpoint

# What a checkpoint says, and cannot: one of each is quick.
IMPOSSIBLE = [
    ("epoch", 10**9),
    ("epoch", -1),
    ("epoch", 1.0),
    ("epoch", 2),  # of which it holds no history
    ("stage", 7),
    ("stage", 1),  # long before it begins
    ("stage", -1),
    ("stage_ends", [10**9]),
    ("stage_ends", []),
    ("stage_ends", [1]),  # without a plateau
    ("history", []),
    ("history", [400]),
    ("history", [{"epoch": 3}]),
    ("history", [{"epoch": 1, "train_loss": "low"}]),
    ("history", lambda known: known[0].pop("train_loss")),
    ("history", lambda known: known[0].update(epoch=True)),
    ("history", lambda known: known[0].update(stage=1)),
    ("history", lambda known: known[0].update(learning_rate=1e300)),
    ("history", lambda known: known[0].update(train_loss=math.nan)),
    ("history", lambda known: known[0].update(train_accuracy=None)),
    ("history", lambda known: known[0].update(test_accuracy=42.0)),
    ("history", lambda known: known[0].update(test_balanced_accuracy=None)),  # it was due
    ("history", lambda known: known[0].update(seconds=-5.0)),
    ("history", lambda known: known[0].update(waiting_seconds=10**400)),
    ("history", lambda known: known[0].update({"=cmd|x": 1})),
    ("optimizer", lambda known: known["state"].update({0: 0})),
    ("optimizer", lambda known: known["state"].update({9999: {}})),
    ("optimizer", lambda known: known["state"][0].update(momentum_buffer=torch.zeros(2))),
    ("optimizer", lambda known: known["state"][0].update(momentum_buffer="x")),
    ("optimizer", lambda known: known["state"][0].update(momentum_buffer=3.0)),
    (
        "optimizer",
        lambda known: known["state"][0].update(
            momentum_buffer=known["state"][0]["momentum_buffer"].to_sparse()
        ),
    ),
    ("confidence", []),
    ("confidence", [None]),
    ("confidence", [torch.zeros(2, 2, dtype=torch.int32)]),
    ("confidence", [torch.zeros(10, 20)]),
    ("confidence", [torch.zeros(10, 20, dtype=torch.int32)]),  # of no image
    ("confidence", lambda known: known[0].neg_()),
    ("confidence", lambda known: known[0].view(-1)[:2].copy_(torch.tensor([-1, 10**6]))),
    ("confidence", lambda known: known.__setitem__(0, known[0].to(torch.uint16))),
    ("confidence", lambda known: known.__setitem__(0, known[0].to("meta"))),
    ("seconds", float("nan")),
    ("seconds", "1.0"),
    ("seconds", 10**400),
    ("seconds", 1e300),
    ("seconds", torch.tensor(1.0)),
    ("branch", "x"),
    ("branch", {"epoch": 1, "from": "x"}),
    ("branch", {"epoch": 1, "from": "x", "seconds": "1.0"}),
    ("branch", {"epoch": 1, "from": "x", "seconds": 1e6}),  # more than the run has had
    ("branch", {"epoch": 0, "from": "x", "seconds": 0.0}),
    ("branch", {"epoch": 1, "from": "x", "seconds": 0.0, "more": 1}),
    ("branch", {"epoch": 1, "from": "\ud800", "seconds": 0.0}),
    ("branch", {"epoch": 1, "from": "x" * 1000, "seconds": 0.0}),
    ("branch", {"epoch": 1, "from": "\x1b[2J", "seconds": 0.0}),
    ("current", {"step": 10**9}),
    ("optimizer", lambda known: known["state"][0].clear() or known["state"][0].update(step=1)),
    ("optimizer", lambda known: _change(known["state"][0], "momentum_buffer", torch.Tensor.half)),
    ("optimizer", lambda known: _change(known["state"][0], "momentum_buffer", _one_number)),
    # What was measured, of which one of the kinds is looked at again in another place.
    ("evaluator", lambda known: known.update(last=None)),
    ("evaluator", lambda known: known["best"].clear()),
    ("evaluator", lambda known: known["best"].update(last=known["best"]["best_test"])),
    ("evaluator", lambda known: known["best"]["best_test"].update(epoch=10**9)),
    ("evaluator", lambda known: known["best"]["best_test"].update(epoch=0)),
    ("evaluator", lambda known: known["best"]["best_test"].update(score=None)),
    ("evaluator", lambda known: known["best"]["best_test"].update(score=2.0)),
    ("evaluator", lambda known: known["best"]["best_test"].update(score=0.5)),  # the history's?
    ("evaluator", lambda known: known["best"]["best_test"].update(test={})),
    ("evaluator", lambda known: _change(known["last"], "logits", lambda all: all[:5])),
    ("evaluator", lambda known: _change(known["last"], "logits", torch.Tensor.bfloat16)),
    ("evaluator", lambda known: _change(known["last"], "logits", lambda all: all * torch.nan)),
    ("evaluator", lambda known: known["last"].update(logits=None)),
    ("evaluator", lambda known: _change(known["last"], "classes", lambda all: all * 0 - 7)),
    ("evaluator", lambda known: _change(known["last"], "classes", lambda all: all * 0 + 10)),
    ("evaluator", lambda known: _change(known["last"], "classes", lambda all: (all + 1) % 10)),
    ("evaluator", lambda known: _change(known["last"], "confidence", lambda all: all + 1)),
    ("evaluator", lambda known: _change(known["last"], "log_probability", lambda all: all + 99)),
    ("evaluator", lambda known: known.update(features="x")),
    ("evaluator", lambda known: known.update(features=torch.zeros(5, 8).half())),
    (
        "evaluator",
        lambda known: known.update(features=torch.zeros(len(known["last"]["classes"]), 8).half()),
    ),
    ("evaluator", lambda known: known["last"].update(classes=known["last"]["classes"].flip(0))),
    ("evaluator", lambda known: known.update(kept={**KEPT, "epoch": 10**9})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "epoch": 0})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "epoch": 2})),  # which has not been
    ("evaluator", lambda known: known.update(kept={**KEPT, "tensors": {"x": 1}})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "described": None})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "described": {"x": torch.zeros(1)}})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "tensors": _two_in_one_place()})),
    ("evaluator", lambda known: known.update(kept={**KEPT, "which": 1})),
]
KEPT = {"which": "last", "epoch": 1, "tensors": {}, "described": {}}
# And of an epoch on its way.
IMPOSSIBLE_WITHIN = {
    "losses": [
        lambda all: all[:1],
        lambda all: _one_number(all),
        lambda all: all + 1,
        lambda all: all.double(),
        lambda all: all * torch.nan,
    ],
    "correct": [lambda _: torch.tensor(10**9), lambda _: torch.tensor(-1), float],
    "counts": [lambda all: all[:1], lambda all: all.float(), lambda all: all + 1, torch.neg],
    "seconds": [str, lambda _: float("nan")],
    "waiting": [str, lambda _: -1.0],
    "step": [float, lambda _: 10**9, lambda _: 0],
}


def _change(known: dict, name: str, change) -> None:
    known[name] = change(known[name])


def _one_number(tensor: torch.Tensor) -> torch.Tensor:
    """In the form of the tensor: who writes to each of its elements writes beyond it."""
    return torch.zeros(1).expand(tensor.shape)


def _two_in_one_place() -> dict[str, torch.Tensor]:
    both = torch.ones(2)
    return {"a": both, "b": both[1:]}


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> Path:
    """A folder of runs with one that was stopped after its first epoch; no test writes into it."""
    config = RunConfig(dataset="digits", recipe="hml1", epochs=3, batch_size=64)
    root = tmp_path_factory.mktemp("begun")
    until_its_checkpoint(config, runs_root=root)
    return root


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, marks=[pytest.mark.slow] * (name == before))
        for (before, _), (name, value) in itertools.pairwise([("", None), *IMPOSSIBLE])
    ],
)
def test_a_checkpoint_that_no_run_can_have_is_set_aside(name, value, begun, tiny, tmp_path):
    config = tiny(recipe="hml1", epochs=3)
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    folder = RunFolder(tmp_path, config)
    state = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    told = rf"its ({name}|history).* cannot be in a run of 3 epochs"
    if callable(value):
        value(state[name])
    if name == "optimizer":
        told = r"its optimiser's .*(is none|is not of its shape|is another's)"
    folder.checkpoint(state if callable(value) else {**state, name: value})
    with pytest.warns(UserWarning, match=rf"unusable \({told}"):
        run = fit(config, runs_root=tmp_path, progress=False)
    assert run.history["epoch"].tolist() == [1, 2, 3]
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


@pytest.mark.parametrize("upwards", [True, False])
@pytest.mark.parametrize("name", ["learning_rate", "test_balanced_accuracy"])
def test_the_last_bit_is_another_processor_s(name, upwards, begun, tiny, tmp_path):
    """A cosine, and the mean over classes, as another C library or numpy rounds them."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    folder = RunFolder(tmp_path, tiny(recipe="hml1", epochs=3))
    state = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    rounded = math.nextafter(state["history"][0][name], math.inf * (1 if upwards else -1))
    for best in state["evaluator"]["best"].values():  # is taken from the same row
        if best["score"] == state["history"][0][name]:
            best["score"] = rounded
    state["history"][0][name] = rounded
    folder.checkpoint(state)
    run = fit(folder.config, runs_root=tmp_path, progress=False)
    assert run.history[name][0] == rounded
    assert not (tmp_path / ".damaged").exists()


@pytest.mark.parametrize("part", ["model", "averaged"])
def test_a_checkpoint_of_another_kind_of_numbers_is_not_rounded(part, tiny, tmp_path):
    config = tiny(epochs=2, ema_decay=0.5)
    until_its_checkpoint(config, runs_root=tmp_path)
    folder = RunFolder(tmp_path, config)
    state = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    name = next(name for name, one in state[part].items() if one.is_floating_point())
    _change(state[part], name, torch.Tensor.to_sparse if part == "model" else torch.Tensor.char)
    folder.checkpoint(state)
    with pytest.warns(UserWarning, match=f"its tensor '{name}' is of another kind"):
        fit(config, runs_root=tmp_path, progress=False)


def test_a_network_of_one_s_own_may_hold_what_is_no_dense_tensor():
    held = {"sparse": torch.eye(2).to_sparse(), "said": "x", "spread": torch.zeros(1).expand(3)}
    possible.require_like(held, held)


@pytest.fixture(scope="module")
def begun_within(tmp_path_factory) -> Path:
    """As `begun`, stopped within an epoch."""
    config = RunConfig(dataset="digits", recipe="hml1", epochs=3, batch_size=64)
    root = tmp_path_factory.mktemp("begun_within")
    until_its_checkpoint(config, runs_root=root, checkpoint_steps=2)
    return root


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(name, change, marks=[pytest.mark.slow] * (change is not changes[0]))
        for name, changes in IMPOSSIBLE_WITHIN.items()
        for change in changes
    ],
)
def test_a_checkpoint_within_an_epoch_that_cannot_be_is_set_aside(
    name, change, begun_within, tiny, tmp_path
):
    shutil.copytree(begun_within, tmp_path, dirs_exist_ok=True)
    folder = RunFolder(tmp_path, tiny(recipe="hml1", epochs=3))
    state = torch.load(folder.path / "checkpoint.pt", weights_only=True)
    _change(state["current"], name, change)
    folder.checkpoint(state)
    with pytest.warns(UserWarning, match=r"its current cannot be in a run of 3 epochs"):
        fit(folder.config, runs_root=tmp_path, progress=False)
    assert len(list((tmp_path / ".damaged").iterdir())) == 1


ADAM = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.zeros(2, 3)}


@pytest.mark.parametrize("known", [{}, ADAM, {**ADAM, "step": 1.0}, {**ADAM, "more": 1}])
def test_what_adam_knows_of_a_tensor(known):
    optimizer = torch.optim.Adam([torch.zeros(2, 3)])
    possible.require_moved(optimizer, {0: known})
    possible.require_moved(optimizer, {})


@pytest.mark.parametrize(
    "change",
    [
        *({"step": torch.tensor(step)} for step in (-1.0, math.nan, math.inf)),
        *({"step": step} for step in (-1, "1", None, torch.ones(2))),
        {"exp_avg": None},
        {"exp_avg_sq": torch.zeros(3, 2)},
        {"exp_avg_sq": torch.zeros(2, 3).double()},
        {"exp_avg": torch.zeros(3).expand(2, 3)},
        {"exp_avg": torch.zeros(4).as_strided((2, 3), (1, 1))},
    ],
    ids=str,
)
def test_what_adam_cannot_know(change):
    optimizer = torch.optim.Adam([torch.zeros(2, 3)])
    with pytest.raises(ValueError, match=f"its optimiser's {next(iter(change))} of tensor 0"):
        possible.require_moved(optimizer, {0: {**ADAM, **change}})


def test_without_momentum_there_may_be_none():
    """Some versions of torch say so."""
    optimizer = torch.optim.SGD([torch.zeros(2)], lr=0.1)
    possible.require_moved(optimizer, {0: {"momentum_buffer": None}})


@pytest.mark.parametrize(
    ("ends", "epoch", "is_possible"),
    [
        ([4, 5], 3, True),  # no plateau yet
        ([2, 5], 3, True),
        ([3, 5], 3, True),
        ([3, 5], 2, False),  # which is still to come
        ([0, 5], 3, False),
        ([2, 6], 3, False),
        ([2], 3, False),
        ([5, 5], 5, False),
    ],
)
def test_a_plateau_ends_the_first_stage_alone_and_earlier(ends, epoch, is_possible):
    trainer = SimpleNamespace(stage_ends=(4, 5), config=SimpleNamespace(switch_patience=2))
    assert possible._holds(lambda: possible._are_ends(trainer, ends, epoch)) == is_possible


@pytest.mark.parametrize(
    ("stage", "epoch", "is_within", "is_possible"),
    [
        (0, 2, False, True),  # that is over
        (1, 2, False, True),
        (0, 2, True, False),
        (1, 2, True, True),
        (1, 1, False, False),
        (0, 3, False, False),
    ],
)
def test_a_stage_is_that_of_its_epoch(stage, epoch, is_within, is_possible):
    assert possible._is_stage(stage, [2], epoch, is_within) == is_possible


def _outcome(classes: list[int]) -> dict:
    all = torch.tensor(classes)
    shares = torch.full((len(all),), 0.5, dtype=torch.float64)
    return {
        "classes": all,
        "confidence": shares,
        "log_probability": -shares,
        "logits": None,
    }


@pytest.mark.parametrize("where", ["best", "last"])
@pytest.mark.parametrize(
    ("further", "is_possible"),
    [
        ({}, True),
        ({"official": _outcome([0, 1, 1])}, True),
        ({"another": None}, True),  # is not looked at again
        ({"official": _outcome([0, 1])}, False),
        ({"official": _outcome([0, 1, 2])}, False),
    ],
)
def test_what_is_said_of_further_images_is_of_them(where, further, is_possible):
    targets = SimpleNamespace(targets=np.array([0, 1]))
    evaluator: Any = SimpleNamespace(
        evaluated=("test",),
        further={"official": [0, 1, 0]},
        splits=SimpleNamespace(num_classes=2, test=targets),
        keeps_logits=False,
        info=SimpleNamespace(streamed=False),
    )
    row = {"epoch": 1, "test_accuracy": 1.0, "test_balanced_accuracy": 1.0}
    best = {"epoch": 1, "score": 1.0, "test": _outcome([0, 1])}
    state = {"best": {"best_test": best}, "last": _outcome([0, 1]), "features": None}
    (best if where == "best" else state)["further" if where == "best" else "last_further"] = further
    assert possible._is_evaluated(evaluator, state, [row]) == is_possible


MEASURED = {"test_accuracy": 0.5, "test_balanced_accuracy": 0.5}
UNMEASURED = dict.fromkeys(["validation_accuracy", "validation_balanced_accuracy"])


@pytest.mark.parametrize(
    ("epoch", "row", "is_possible"),
    [
        (1, dict.fromkeys(MEASURED), True),
        (1, MEASURED, True),  # the last one before patience ends
        (2, MEASURED, True),
        (2, dict.fromkeys(MEASURED), False),
        (3, dict.fromkeys(MEASURED), False),  # the last one
        (2, {**MEASURED, "validation_accuracy": 0.5}, False),  # there is no such split
        (2, {**MEASURED, "test_balanced_accuracy": 1.5}, False),
    ],
)
def test_a_row_has_what_was_due_and_of_no_other_images(epoch, row, is_possible):
    config: Any = SimpleNamespace(epochs=3, evaluate_every=2)
    evaluator: Any = SimpleNamespace(config=config, evaluated=("test",))
    row = {"epoch": epoch, **UNMEASURED, **row}
    assert possible._are_measured(row, evaluator) == is_possible


@pytest.mark.parametrize("column", MEASURED)
def test_accuracies_are_those_of_the_images(column):
    """Two of three classes are right, of which one has twice as many images."""
    targets = SimpleNamespace(targets=np.array([0, 0, 1, 2]))
    evaluator: Any = SimpleNamespace(
        splits=SimpleNamespace(num_classes=3, test=targets), keeps_logits=False
    )
    row = {"test_accuracy": 0.75, "test_balanced_accuracy": 2 / 3}
    outcome = _outcome([0, 0, 1, 0])
    assert possible._is_outcome_of(evaluator, outcome, row)
    assert not possible._is_outcome_of(evaluator, outcome, {**row, column: 0.7})


@pytest.mark.parametrize("change", [{}, {"best": {"x": 1}}, {"last": {}}, {"features": 1}])
def test_before_anything_was_measured_nothing_is_said(change):
    state = {"best": {}, "last": None, "features": None, **change}
    row = {"epoch": 1, "test_accuracy": None}
    assert possible._is_evaluated(SimpleNamespace(), state, [row]) == (not change)
