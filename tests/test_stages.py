"""What a stage trains is a function of (config, stage): every ordered pair, resumed or not."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch

from hml_core import datasets, recipes
from hml_core.config import RunConfig
from hml_core.datasets import Splits
from hml_core.errors import ConfigError
from hml_core.models import post_hoc
from hml_core.recipes import TRAINS, Stage
from hml_core.runs import Run
from hml_core.trainer import Trainer, fit, fitting, phase, update
from tests.quick import slow_but

CPU = torch.device("cpu")
PAIRS = list(itertools.product(TRAINS, repeat=2))


@pytest.fixture
def registered():
    """Recipes of this test's own, gone after it."""
    names = []

    def make(*trains: str) -> str:
        name = "_then_".join(trains)

        def build():
            ends = [*(k / len(trains) for k in range(1, len(trains))), 1.0]
            return tuple(
                Stage("cross_entropy", until=until, trains=part)
                for part, until in zip(trains, ends, strict=True)
            )

        build.__name__ = name
        recipes.register(title=name, source="this test")(build)
        names.append(name)
        return name

    yield make
    for name in set(names):
        del recipes.RECIPES[name]


def snapshot(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def handed_on(trainer: Trainer) -> Trainer:
    """Another trainer, at the checkpoint of this one."""
    buffer = io.BytesIO()
    torch.save(trainer.state(), buffer)
    buffer.seek(0)
    other = Trainer(trainer.config, trainer.splits, CPU)
    other.restore(torch.load(buffer, weights_only=True))
    return other


def trained(config: RunConfig, splits: Splits, resume_at: tuple[int, ...] = ()) -> tuple:
    """The trainer at the end, and its weights after every epoch (from 0: as built)."""
    trainer = Trainer(config, splits, CPU)
    seen = [snapshot(trainer)]
    while not trainer.done:
        for _ in trainer.train_epoch():
            pass
        trainer.end_epoch()
        seen.append(snapshot(trainer))
        if trainer.epoch in resume_at:
            trainer = handed_on(trainer)
    return trainer, seen


def moved(before: dict, after: dict, names: set[str]) -> set[str]:
    """Parameters that are not what they were."""
    assert before.keys() == after.keys()
    return {name for name in names if not torch.equal(before[name], after[name])}


def expected(trains: str, names: set[str], frozen: int, built: list[str]) -> set[str]:
    """Parameters that a stage moves."""
    if trains == "class_scales":
        return {"linear.scales"}
    if trains == "classifier":
        return {name for name in names if name.startswith("linear.")}
    return names - set(built[:frozen])


@pytest.mark.begun_first
@pytest.mark.parametrize("frozen", slow_but([0.5], [0.0, 0.5]))
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_each_stage_moves_what_it_trains_and_nothing_else(first, second, frozen, tiny, registered):
    config = tiny(recipe=registered(first, second), epochs=4, frozen=frozen, learning_rate=0.01)
    splits = datasets.load(config)
    built = [name for name, _ in Trainer(config, splits, CPU).model.named_parameters()]
    trainer, seen = trained(config, splits)
    resumed, seen_again = trained(config, splits, resume_at=(1, 3))
    assert trainer.stage_ends == (2,)
    for epoch, part in ((1, first), (3, second)):  # the last of either stage
        names = {name for name in seen[epoch] if name in seen[epoch + 1]}
        names -= {name for name in names if name.rpartition(".")[2] in BUFFERS}
        found = moved(seen[epoch], seen[epoch + 1], names)
        assert found == expected(part, names, int(frozen * len(built)), built)
    for ours, theirs in zip(seen, seen_again, strict=True):
        assert not moved(ours, theirs, set(ours)), "resumed to the same bits"
    kinds = [type(one.model.classifier) for one in (trainer, resumed)]
    assert kinds[0] is kinds[1]
    assert issubclass(kinds[0], post_hoc.ClassScales) == (
        second == "class_scales" or (first, second) == ("class_scales", "all")
    )


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_run_killed_in_the_second_stage_goes_on(
    first, second, tiny, registered, tmp_path, monkeypatch
):
    """In the middle of its first epoch: the same record as a run that nobody disturbed."""
    config = tiny(recipe=registered(first, second), epochs=2, ema_decay=0.5, learning_rate=0.01)
    straight = fit(config, runs_root=tmp_path / "straight", progress=False)
    plain, done = update.Update.__call__, []
    steps = 6 + 3

    def cut_off(self, batch):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(1)
        return plain(self, batch)

    where = {"runs_root": tmp_path / "killed", "progress": False, "checkpoint_steps": 2}
    with monkeypatch.context() as patch:
        patch.setattr(update.Update, "__call__", cut_off)
        with pytest.raises(KeyboardInterrupt):
            fit(config, **where)
    counted = []
    monkeypatch.setattr(
        update.Update, "__call__", lambda self, batch: counted.append(1) or plain(self, batch)
    )
    resumed = fit(config, **where)
    assert isinstance(resumed, Run)
    assert len(counted) == 2 * 6 - (6 + 2), "it goes on from its last checkpoint"
    assert np.array_equal(resumed.predictions[0], straight.predictions[0])
    assert resumed.history["train_loss"].equals(straight.history["train_loss"])
    assert not (tmp_path / "killed" / ".damaged").exists()


@pytest.mark.parametrize(
    "trains",
    [("classifier", "class_scales", "all"), ("class_scales", "all", "class_scales")],
    ids="-".join,
)
def test_three_stages_resume_through_all_that_was_put_in(trains, tiny, registered):
    config = tiny(recipe=registered(*trains), epochs=6, learning_rate=0.01)
    splits = datasets.load(config)
    _, seen = trained(config, splits)
    _, again = trained(config, splits, resume_at=(3, 5))
    assert not moved(seen[-1], again[-1], set(seen[-1]))


def test_a_checkpoint_of_other_parameters_is_set_aside(tiny, registered, tmp_path, monkeypatch):
    """As versions left it in which nothing but the classifier moved after a stage that trained it."""
    config = tiny(recipe=registered("classifier", "all"), epochs=4)
    straight = fit(config, runs_root=tmp_path / "straight", progress=False)
    monkeypatch.setattr(fitting, "CHECKPOINT_INTERVAL_S", 0.0)
    plain = Trainer.train_epoch

    def cut_off(self):
        if self.epoch == 3:
            raise KeyboardInterrupt
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", cut_off)
        patch.setattr("hml_core.trainer.phase.let_move", only_the_classifier)
        with pytest.raises(KeyboardInterrupt):
            fit(config, runs_root=tmp_path / "runs", progress=False)
    with pytest.warns(UserWarning, match="unusable"):
        again = fit(config, runs_root=tmp_path / "runs", progress=False)
    assert np.array_equal(again.predictions[0], straight.predictions[0])


def only_the_classifier(model, trains, frozen) -> None:
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)


def test_a_loss_that_a_stage_cannot_make_is_known_before_the_record_is_begun(tiny, tmp_path):
    from hml_core.errors import ConfigError
    from hml_core.losses import LOSSES, ClassificationLoss

    class OfFour(ClassificationLoss):
        """For the four classes that losses are tried with, and no others."""

        def __init__(self, class_counts):
            super().__init__()
            if len(class_counts) != 4:
                raise ValueError(f"four classes, not {len(class_counts)}")

        def per_sample(self, logits, target):
            return logits.logsumexp(1)

    @recipes.register(title="CE, then what?", source="this test")
    def of_four():
        return (Stage("cross_entropy", until=0.5), Stage(OfFour))

    try:
        with pytest.raises(
            ConfigError, match=r"Stage 2 of the recipe 'of_four' .* 'OfFour': four classes, not 10"
        ):
            fit(tiny(recipe="of_four"), runs_root=tmp_path, progress=False)
    finally:
        del recipes.RECIPES["of_four"], LOSSES["OfFour"]
    assert not list(tmp_path.glob("[!.]*"))


def test_scaled_classifiers_can_be_normalised():
    """A recipe may end with class scales and have τ-normalisation after it."""
    linear = torch.nn.Linear(4, 3, bias=False)
    scaled = post_hoc.ClassScales(linear, 3)
    with torch.no_grad():
        scaled.scales.copy_(torch.tensor([1.0, 2.0, 3.0]))
    features = torch.randn(5, 4)
    torch.testing.assert_close(post_hoc.tau_normalised(scaled, 0.0)(features), scaled(features))
    plain = post_hoc.tau_normalised(linear, 1.0)(features)
    torch.testing.assert_close(post_hoc.tau_normalised(scaled, 1.0)(features), plain)


def test_smoothing_beyond_what_the_classes_allow_is_refused_where_only_images_tell(monkeypatch):
    config = RunConfig(label_aware_smoothing=0.6)
    with pytest.raises(ConfigError, match=r"`label_aware_smoothing`: .*below 0\.5"):
        phase.stage_loss(config, Stage("cross_entropy"), np.array([9, 3]), 0)
