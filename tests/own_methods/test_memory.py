"""One's own code that remembers or draws: a run is the same alone, after others, and when it goes on."""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hml_core import datasets, models
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, RunError
from hml_core.losses import ClassificationLoss
from hml_core.recipes import Stage
from hml_core.runs import Run
from hml_core.trainer import fit
from hml_core.trainer.chance import LOOKS, LayerChance
from tests.own_methods.helpers import Small, recipe

CONFIG = {"dataset": "digits", "epochs": 3, "batch_size": 64}
ticks = 0


class Own(ClassificationLoss):
    """Cross-entropy, times what a subclass makes of it."""

    def factor(self, losses):
        return 1.0

    def per_sample(self, logits, target):
        losses = F.cross_entropy(self._check(logits, target), target, reduction="none")
        return losses * self.factor(losses)


# What remembers --------------------------------------------------------------------------------------


class CountsInItsModule(Own):
    def factor(self, losses):
        global ticks
        ticks += 1
        return 1.0 if ticks < 30 else 3.0


def tick():
    tick.times += 1
    return tick.times


tick.times = 0


class CountsInAFunction(Own):
    def factor(self, losses):
        return 1.0 if tick() < 30 else 3.0


class FollowsAMean(Own):
    mean = 1.0

    def factor(self, losses):
        self.mean = 0.9 * self.mean + 0.1 * losses.mean().item()
        return self.mean


class HasAGenerator(Own):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def factor(self, losses):
        return torch.rand(len(losses), generator=self.generator)


@pytest.mark.begun_first
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (CountsInItsModule, "changes, while it works, a value of its module"),
        (CountsInAFunction, "changes, while it works, a value of its module"),
        (FollowsAMean, "it keeps a state .a counter, a mean"),
        (HasAGenerator, "it keeps a state"),
    ],
)
def test_a_loss_that_remembers_is_refused(loss, said):
    """Sweeps train in one process: a run would depend on what ran before it, under one id."""
    with pytest.raises(ConfigError, match=said):
        recipe(Stage(loss))


class WarmsUp(Own):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def factor(self, losses):
        self.steps += 1
        return 1.0 if self.steps < 10 else 3.0


class Undetachable(WarmsUp):
    """It holds a tensor with a gradient, and cannot be copied."""

    def factor(self, losses):
        self.last = losses.mean() * 1.0
        return super().factor(losses)


@pytest.mark.parametrize("loss", [WarmsUp, Undetachable])
def test_a_loss_whose_memory_shows_later_ends_the_run(loss, tmp_path):
    """As a run that goes on has a new one, whose warm-up would begin again."""
    recipe(Stage(loss))
    config = RunConfig(**CONFIG, recipe="mine")
    with pytest.raises(RunError, match=f"The loss '{loss.__name__}' gives another value"):
        fit(config, runs_root=tmp_path, progress=False)
    assert not (tmp_path / config.run_id / "metrics.json").exists()


class Notes(Own):
    """What no result depends on: a log, a cache, a part of the computation."""

    table = None

    def __init__(self):
        super().__init__()
        self.seen, self.history = 0, deque(maxlen=5)

    def factor(self, losses):
        if self.table is None:
            self.table = torch.full((1,), 0.5)
        self.seen += 1
        self.history.append(losses.detach().mean())
        self.scaled = losses.detach() * self.table
        return self.scaled.sigmoid()


def test_a_loss_may_keep_what_no_result_depends_on(tmp_path):
    recipe(Stage(Notes))
    fit(RunConfig(**CONFIG, recipe="mine"), runs_root=tmp_path, progress=False).verify()


class Slows(Small):
    """A backbone that counts its steps beside its ``state_dict``."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        return super().forward(images) * (1.0 if self.steps < 10 else 0.5)


def test_a_backbone_whose_memory_shows_later_ends_the_run(tmp_path):
    models.register(Slows, name="slows")
    config = RunConfig(**CONFIG, recipe="ce", model="slows")
    with pytest.raises(
        RunError, match="The model 'slows' makes other features than one that is restored"
    ):
        fit(config, runs_root=tmp_path, progress=False)


# What draws ------------------------------------------------------------------------------------------


class Draws(Own):
    def factor(self, losses):
        return 0.5 + torch.rand(len(losses)) + np.random.rand() + random.random()  # noqa: NPY002


class Noisy(Small):
    """Chance without a layer for it."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.by = np.random.rand()  # noqa: NPY002

    def forward(self, images):
        features = F.dropout(super().forward(images), 0.3, self.training)
        return features * (1 + self.by * random.random()) if self.training else features


def methods(which: str) -> dict:
    if which == "loss":
        recipe(Stage(Draws))
        return {"recipe": "mine"}
    models.register(Noisy, name="noisy")
    return {"recipe": "ce", "model": "noisy"}


def drawn() -> tuple:
    """What a program around would draw next."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    found = torch.rand(()).item(), np.random.rand(), random.random()  # noqa: NPY002
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
    return found


@pytest.mark.parametrize("which", ["loss", "backbone"])
@pytest.mark.parametrize("more", [{}, {"micro_batch_size": 32}], ids=["whole", "parts"])
def test_what_own_code_draws_is_the_run_s(which, more, tmp_path, begin):
    """Whatever was drawn before, and when it goes on; the program's own generators stay as they were."""
    config = RunConfig(**CONFIG, **methods(which), **more)
    before = drawn()
    one = fit(config, runs_root=tmp_path / "one", progress=False)
    assert drawn() == before
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(99)
    begin(config, runs_root=tmp_path / "other")
    random.random()
    other = fit(config, runs_root=tmp_path / "other", progress=False)
    assert np.array_equal(one.predictions[0], other.predictions[0])
    assert one.history["train_loss"].tolist() == other.history["train_loss"].tolist()
    assert Run(other.path).verify()


def shuffled(config, data_root):
    """A data set that splits its images by chance, as many do."""
    splits = datasets.BUILT_IN["digits"].load(config, data_root)
    order = np.random.permutation(len(splits.test.targets))  # noqa: NPY002
    half = order[: len(order) // 2 + random.randrange(9)]
    test = datasets.LabelledImages(splits.test.images[half], splits.test.targets[half])
    mean = tuple(one + 0.01 * torch.rand(()).item() for one in splits.mean)
    return dataclasses.replace(splits, test=test, mean=mean)


def test_what_a_data_set_draws_is_the_same_for_every_run(tmp_path):
    """But for those of another subset; the program's own generators stay as they were."""
    info = datasets.info("digits")
    datasets.register("shuffled", datasets.DatasetInfo(shuffled, 10, 100, info.defaults, {}, True))
    config = RunConfig(**{**CONFIG, "dataset": "shuffled"})
    before = drawn()
    one = fit(config, runs_root=tmp_path / "one", progress=False)
    assert drawn() == before
    np.random.seed(99)  # noqa: NPY002
    other = fit(dataclasses.replace(config, seed=1), runs_root=tmp_path, progress=False)
    assert other.manifest["sha256"] == one.manifest["sha256"]
    assert fit(config, runs_root=tmp_path / "one", progress=False).path == one.path
    subset = dataclasses.replace(config, subset_seed=1)
    assert datasets.load(subset).manifest()["sha256"] != one.manifest["sha256"]


def test_what_no_graph_replays_is_not_captured():
    """A step that draws from numpy's or Python's generators would draw the same in each replay."""
    config = RunConfig(**CONFIG, recipe="ce")
    shares = SimpleNamespace(is_split=False)
    cuda = torch.device("cuda")
    steps = {
        "nothing": lambda: None,
        "torch": lambda: torch.rand(()),
        "numpy": lambda: np.random.rand(),  # noqa: NPY002
        "python": random.random,
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("get_rng_state", "set_rng_state"):
            patch.setattr(f"torch.cuda.{name}", lambda *_: torch.zeros(1))
        patch.setattr("torch.cuda.is_current_stream_capturing", lambda: False)
        for split in (False, True):
            shares.is_split, shares.per_step, shares.world = split, 1, SimpleNamespace(rank=0)
            for name, draw in steps.items():
                chance = LayerChance(config, shares, cuda, is_needed=False, is_own=True)
                with chance.of_step(0, 0), chance.of_part(0):
                    draw()
                found[name, split] = chance.can_be_captured()
        patch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
        with chance.of_part(0) as recorded:  # no generator can be seeded meanwhile
            assert recorded is None
        assert chance.looks_left == LOOKS - 1
    assert [found[name, False] for name in steps] == [True, True, False, False]
    assert [found[name, True] for name in steps] == [True, False, False, False]


# What is given later ---------------------------------------------------------------------------------


class Later(Own):
    """After some steps: no gradient, no number, no tensor."""

    kind = "detached"

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, logits, target):
        self.steps += logits.requires_grad
        loss = super().forward(logits, target)
        if self.steps <= 5:
            return loss
        others = {
            "detached": loss.detach(),
            "complex": loss.to(torch.complex64),
            "float": loss.item(),
        }
        return others[self.kind]


@pytest.mark.parametrize("kind", ["detached", "complex", "float"])
def test_a_loss_without_a_gradient_in_a_later_step_is_named(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(Later, "kind", kind)
    recipe(Stage(Later))
    config = RunConfig(**CONFIG, recipe="mine")
    with pytest.raises(
        RunError, match=rf"loss of a step of the run {config.run_id} .*, of Later\."
    ):
        fit(config, runs_root=tmp_path, progress=False)
