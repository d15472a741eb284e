"""One's own backbone is found out where it cannot be trained as it says: by its name, before a run or in
the step in which it changes, and no record is lost."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from hml_core import models
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, RunError
from hml_core.models import inventory
from hml_core.runs import Run
from hml_core.system import devices
from hml_core.trainer import fit, loop
from tests.own_methods.helpers import Small

CONFIG = {"dataset": "digits", "epochs": 3, "recipe": "ce"}


class Lazy(Small):
    """Its first layer waits for images."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.net[0] = nn.LazyConv2d(8, 3)


class Growing(Small):
    """Makes a parameter when it is first trained."""

    def forward(self, images):
        if self.training and not hasattr(self, "gain"):
            self.gain = nn.Parameter(torch.ones(()))
        return super().forward(images) * getattr(self, "gain", 1)


class Empty(Small):
    def state_dict(self, *given, **named):
        return {}


class Deaf(Small):
    """Says what it holds, and takes nothing of it back."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.shift = nn.Parameter(torch.zeros(8))

    def forward(self, images):
        return super().forward(images) + self.shift

    def _load_from_state_dict(self, *given):
        pass


class Forgetful(Small):
    """Keeps what it evaluates with where no checkpoint finds it."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.mean = torch.zeros(8)

    def forward(self, images):
        features = super().forward(images)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * features.detach().mean(0)
        return features - self.mean


class Hidden(Forgetful):
    """… in a buffer that is not part of its state."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        del self.mean
        self.register_buffer("mean", torch.zeros(8), persistent=False)


class DetachedInTraining(Small):
    def forward(self, images):
        features = super().forward(images)
        return features.detach() if self.training else features


class Blind(Small):
    """What it makes depends on its parameters, but does not change with them."""

    def forward(self, images):
        features = super().forward(images)
        return features.detach() + 0 * features


class Viewing(Small):
    """Takes for granted how images lie in memory."""

    def forward(self, images):
        return super().forward(images.view(len(images), -1).view(images.shape))


class Two(Small):
    """Knows how many images there are."""

    def forward(self, images):
        return super().forward(images).view(2, -1)


class Failing(Small):
    def forward(self, images):
        if self.training:
            raise KeyError("no such layer")
        return super().forward(images)


class Counting(Small):
    """Makes whole numbers of images."""

    def forward(self, images):
        return super().forward(images).long()


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (Lazy, r"makes 'backbone\.net\.0\.weight' of the first images .*a lazy layer"),
        (Growing, r"changed while it was trained: 'backbone\.gain' was added"),
        (Empty, r"`state_dict` of the model 'odd' lacks 'backbone\.net\.0\.bias', "),
        (Deaf, "makes other features once it is restored"),
        (Forgetful, "makes other features once it is restored from its `state_dict`"),
        (Hidden, "makes other features once it is restored from its `state_dict`"),
        (DetachedInTraining, "no gradient reaches them"),
        (Blind, "no gradient reaches them"),
        (
            Viewing,
            r"does not work on images of 3 × 32 × 32, 2 at a time: RuntimeError: view .*test_ba",
        ),
        (Two, r"of shape \(3, 8\) out of 3 images of 3 × 32 × 32, got \(2, 12\)"),
        (Failing, r"2 at a time: KeyError: 'no such layer' \(.*test_backbones\.py:\d+\)"),
        (Counting, "floating-point numbers, got torch.int64"),
    ],
)
def test_what_a_few_images_tell_is_refused_when_it_is_registered(backbone, said):
    before = torch.random.get_rng_state()
    with pytest.raises(ConfigError, match=rf"'odd'.*|{said}") as told:
        models.register(backbone, name="odd")
    assert told.match(said)
    assert "'odd'" in str(told.value)
    assert "odd" not in models.MODELS
    assert torch.equal(before, torch.random.get_rng_state())


class Drawing(Small):
    """Draws in evaluation, too, from a stream of its own: never the same, and nobody's fault."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.stream = np.random.default_rng()

    def forward(self, images):
        features = super().forward(images)
        return features + torch.from_numpy(self.stream.random(features.shape)).float()


class Usual(nn.Module):
    """What people write: dropout, batch norm, tied weights, a part that stays as it is."""

    out_features = 8

    def __init__(self, in_channels):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.fixed = nn.Linear(8, 8).requires_grad_(False)
        self.register_buffer("table", torch.ones(8), persistent=False)

    def forward(self, images):
        features = self.net(images).mean((2, 3)) * self.table
        with torch.no_grad():
            shift = self.fixed(features)
        return self.second(self.first(features)) + shift


@pytest.mark.parametrize("backbone", [Small, Usual, Drawing])
def test_a_backbone_that_can_be_trained_is_taken(backbone):
    models.register(backbone, name="odd")
    assert models.MODELS["odd"].backbone is backbone


class FewTaken(Small):
    """Takes as many images as it was tried on when it was registered."""

    most = 3

    def forward(self, images):
        return super().forward(images)[: self.most]


class NotAlone(FewTaken):
    """Loses the dimension of a single image."""

    def forward(self, images):
        return super(FewTaken, self).forward(images).squeeze()


class NotInEvaluation(Small):
    def forward(self, images):
        features = super().forward(images)
        return features if self.training or len(images) <= 128 else features[1:]


class Square(Small):
    """Works on images of 32 pixels and not on those of 8."""

    def forward(self, images):
        return super().forward(nn.functional.max_pool2d(images, 8))


@pytest.mark.parametrize(
    ("backbone", "fields", "said"),
    [
        (FewTaken, {}, r"of shape \(\d+, 8\) .*images of 1 × 8 × 8, got \(3, 8\)"),
        (NotAlone, {"batch_size": 382}, r"of shape \(1, 8\) .* got \(8,\)"),
        (NotInEvaluation, {}, r"of shape \(\d+, 8\) out of \d+ images .*, got \(\d+, 8\)"),
        (Square, {}, "'odd' does not work on images of 1 × 8 × 8, 2 at a time: RuntimeError"),
    ],
)
def test_what_only_the_runs_images_tell_is_refused_before_the_record(
    backbone, fields, said, tmp_path
):
    models.register(backbone, name="odd")
    with pytest.raises(ConfigError, match=said):
        fit(RunConfig(**CONFIG, model="odd", **fields), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.glob("*/config.json"))


class Later(Small):
    """Is what it seems until its hundredth image in training."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images):
        features = super().forward(images)
        if not self.training:
            return features
        self.seen += len(images)
        return self.change(features) if self.seen > 800 else features

    def change(self, features):
        raise NotImplementedError


class LaterGrown(Later):
    def change(self, features):
        if not hasattr(self, "gain"):
            self.gain = nn.Parameter(torch.ones(()))
        return self.gain * features


class LaterReplaced(Later):
    def change(self, features):
        self.net[0].weight = nn.Parameter(self.net[0].weight.detach().clone())
        return features


class LaterFixed(Later):
    def change(self, features):
        self.net[0].bias.requires_grad_(False)
        return features


class LaterDetached(Later):
    def change(self, features):
        return features.detach()


class LaterNarrow(Later):
    def change(self, features):
        return features[:, :4]


class LaterFailing(Later):
    def change(self, features):
        raise EOFError("the file ended")


class LaterBuffered(Later):
    def change(self, features):
        self.register_buffer("late", torch.zeros(()))
        return features


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        (LaterGrown, r"changed while it was trained: 'backbone\.gain' was added"),
        (LaterReplaced, r"'backbone\.net\.0\.weight' was replaced"),
        (LaterFixed, r"'backbone\.net\.0\.bias' was given or denied gradients"),
        (LaterDetached, "no gradient reaches them"),
        (LaterNarrow, r"of shape \((\d+), 8\) .* got \(\1, 4\)"),
        (LaterFailing, r"\d+ at a time: EOFError: the file ended \(.*test_backbones\.py:\d+\)"),
        (
            LaterBuffered,
            r"`state_dict` .* changed while it was trained: 'backbone\.late' was added",
        ),
    ],
)
@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.9}])
def test_a_backbone_that_changes_in_training_is_named_in_that_step(
    backbone, said, more, tmp_path, monkeypatch
):
    """The run is recorded as failed, and the checkpoint before it is there to look at."""
    monkeypatch.setattr("hml_core.trainer.fitting.CHECKPOINT_INTERVAL_S", 0.0)
    models.register(backbone, name="odd")
    config = RunConfig(**CONFIG, model="odd", **more)
    with pytest.raises(RunError, match=said) as told:
        fit(config, runs_root=tmp_path, progress=False)
    assert "'odd'" in str(told.value)
    failed = json.loads((tmp_path / config.run_id / "failed.json").read_text())
    assert "'odd'" in failed["error"]
    assert not (tmp_path / config.run_id / "metrics.json").exists()


def test_what_own_code_raises_in_training_is_told_with_its_place(tmp_path, monkeypatch):
    """Of a loss, a sampler or whatever else: not a traceback of ours."""

    def fail(*_):
        raise KeyError("gone")

    models.register(Small, name="odd")
    monkeypatch.setattr(loop.Trainer, "end_epoch", fail)
    config = RunConfig(**CONFIG, model="odd")
    with pytest.raises(
        RunError, match=rf"{config.run_id} failed in its own code: KeyError: 'gone' \(.*py:"
    ):
        fit(config, runs_root=tmp_path, progress=False)
    with pytest.raises(KeyError):  # nothing is one's own
        fit(RunConfig(**CONFIG, model="resnet8"), runs_root=tmp_path, progress=False)


def test_the_trial_changes_nothing_of_a_run(tmp_path):
    """Weights and metrics are those of a network that nobody tried out."""
    models.register(Usual, name="odd")
    config = RunConfig(**{**CONFIG, "epochs": 1}, model="odd")
    tried = fit(config, runs_root=tmp_path / "a", progress=False, keep_weights="last")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "try_out", lambda *given: None)
        patch.setattr(models, "try_sizes", lambda *given, **named: None)
        plain = fit(config, runs_root=tmp_path / "b", progress=False, keep_weights="last")
    assert tried.history["train_loss"].tolist() == plain.history["train_loss"].tolist()
    for name, tensor in Run(tried.path).model().state_dict().items():
        assert torch.equal(tensor, Run(plain.path).model().state_dict()[name])


def test_a_network_of_this_package_is_not_watched():
    assert inventory(models.build("resnet8", 3)) is None
    models.register(Small, name="odd")
    model = models.build("odd", 3)
    watched = inventory(model)
    watched.require_same()
    watched.require_same_state()
    del model.backbone.net[0].bias
    model.backbone.net[0].bias = None
    with pytest.raises(RunError, match=r"'backbone\.net\.0\.bias' was removed"):
        watched.require_same()
    with pytest.raises(RunError, match=r"'backbone\.net\.0\.bias' was added, removed"):
        watched.require_same_state()
    assert copy.deepcopy(models.build("odd", 3)).name == "odd"


def test_a_buffer_that_becomes_another_kind_of_numbers_is_told():
    """A checkpoint of it fits no network that is made anew."""

    class Counting(Small):
        def __init__(self, in_channels):
            super().__init__(in_channels)
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    models.register(Counting, name="counting")
    model = models.build("counting", 3)
    watched = inventory(model)
    model.backbone.seen += 1
    watched.require_same_state()
    model.backbone.seen = model.backbone.seen * 0.5
    with pytest.raises(RunError, match=r"'backbone\.seen' .* another shape or kind of numbers"):
        watched.require_same_state()


def test_sizes_are_tried_under_the_runs_autocast():
    """A backbone that asks for the type of what it computes with."""

    class Typed(Small):
        def forward(self, images):
            weight = self.net[0](images)
            assert weight.dtype == torch.float32, "half"
            return super().forward(images)

    make = models.OwnModel(Typed, "typed")
    shape, cpu = (3, 8, 8), devices.resolve("cpu")
    models.try_sizes(lambda: make(3), "typed", shape, cpu, None, trained=[4], evaluated=[5])
    with pytest.raises(
        ConfigError, match=r"'typed' does not work .* 4 at a time: AssertionError: half"
    ):
        models.try_sizes(
            lambda: make(3), "typed", shape, cpu, torch.bfloat16, trained=[4], evaluated=[5]
        )
