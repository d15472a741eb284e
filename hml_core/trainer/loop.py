"""The loop of one run: its stages, epochs and steps, its evaluations and its checkpoints, in this order.

What a step does stands in :mod:`hml_core.trainer.update`, what a stage trains in
:mod:`hml_core.trainer.phase`, what an evaluation measures in :mod:`hml_core.trainer.evaluation`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hml_core import models, schedule
from hml_core.config import RunConfig, identity
from hml_core.datasets import Splits
from hml_core.errors import RunError
from hml_core.models import trained
from hml_core.system import devices, interruptions
from hml_core.trainer import checkpoints, feeds
from hml_core.trainer.batches import Batches
from hml_core.trainer.branches import Point
from hml_core.trainer.chance import LayerChance
from hml_core.trainer.epochs import (
    Epoch,
    Shares,
    image_shape,
    is_due,
    require_batch_statistics,
)
from hml_core.trainer.evaluation import Evaluator
from hml_core.trainer.phase import (
    Phase,
    build_model,
    build_network,
    is_looked_at,
    require_losses,
    require_samplers,
)
from hml_core.trainer.views import Views
from hml_core.trainer.world import ALONE, World


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite: training stopped."""


class Watcher(Protocol):
    """Who is told how far a run is: it writes checkpoints and shows progress."""

    def after_step(self, trainer: Trainer) -> None:
        """A step is done."""

    def after_epoch(self, trainer: Trainer) -> None:
        """An epoch is over and evaluated."""


def train(trainer: Trainer, watcher: Watcher) -> Iterator[None]:
    """Train a run to its end, from wherever it stands; rests after every step."""
    while not trainer.done:
        interruptions.heed()
        for _ in trainer.train_epoch():
            watcher.after_step(trainer)  # a checkpoint, every so many steps
            yield
        trainer.end_epoch()
        watcher.after_epoch(trainer)  # a checkpoint


class Trainer:
    """The state of one run and what advances it by an epoch.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    device : torch.device
    world : World
        The processes that train the run together, each on its share of every batch. Methods that say so
        must be called by all of them.
    points : sequence of Point
        Where other runs part from this one: until then the network is evaluated as they do, too.
    keep_weights : {"last", "best"}, optional
        Which network is to be kept: the one evaluated last, or the best on validation.

    Raises
    ------
    ConfigError
        Where a stage cannot make its loss, the processes cannot share a batch evenly, batch norm would
        meet a batch without statistics, or the weights that are asked for cannot be kept.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        world: World = ALONE,
        points: Sequence[Point] = (),
        keep_weights: str | None = None,
    ) -> None:
        self.config, self.splits, self.device, self.world = config, splits, device, world
        self.points, self.keep_weights = points, keep_weights
        require_losses(config, splits.class_counts)
        require_samplers(config, splits.class_counts)
        self.shares = Shares(config, world, len(splits.train))
        self.steps = self.shares.steps
        self.stage_ends = config.stage_ends
        self.rates = schedule.learning_rates(config)  # (epochs,)
        self.model, self.frozen, self.initialisation = build_network(config, splits, device)
        self.autocast_dtype = devices.autocast_dtype(config.precision, device)
        self.evaluator = self._evaluator_of(config)
        self._try_own_backbone()
        require_batch_statistics(self.model, self.shares, splits, device)
        if keep_weights is not None:
            trained.require_keepable(self.model, config.model)

        self.feed = feeds.make(splits.train, splits, config, device, augmented=True)
        self.batches = Batches(config, splits, self.feed, self.shares, device)
        draws = models.draws(self.model)
        own_losses = [not identity.is_built_in("loss", stage.loss) for stage in config.stages]
        is_own = any(own_losses) or isinstance(self.model, models.Backbone)
        self.chance = LayerChance(config, self.shares, device, is_needed=draws, is_own=is_own)
        self.views = Views(config, points, self._evaluator_of)  # as other runs see the network

        self.epoch = 0  # epochs done
        self.phase: Phase | None = None  # the stage's; None before the first epoch
        self.current: Epoch | None = None  # while an epoch is being trained
        self.history: list[dict[str, Any]] = []
        self.confidence: list[Tensor] = []  # of each epoch: counts (C, BINS), see epochs.histogram
        self.seconds = 0.0
        # What was taken over from another run: {"epoch", "from", "seconds"}.
        self.branch: dict[str, Any] | None = None

    def _evaluator_of(self, config: RunConfig) -> Evaluator:
        return Evaluator(
            config, self.splits, self.device, self.autocast_dtype, self.world, self.keep_weights
        )

    def _try_own_backbone(self) -> None:
        """On as many images at a time as it will get; ConfigError where it fails on them."""
        if isinstance(self.model, models.Backbone):
            models.try_sizes(
                lambda: build_model(self.config, self.splits),
                self.config.model,
                image_shape(self.config, self.splits),
                self.device,
                self.autocast_dtype,
                trained=self.shares.sizes,
                evaluated=self.evaluator.sizes,
            )

    # Stages -------------------------------------------------------------------------------------

    def enter_stage(self, index: int) -> None:
        """Begin what stage ``index`` trains, after the stage before it."""
        self.phase = Phase(
            self.config, index, self.model, self.frozen, self.splits, self.device, self.phase
        )

    def build_step(self) -> None:
        """Make what a step of the stage does. All processes must call it."""
        self.phase.build_step(
            feed=self.feed,
            class_counts=torch.from_numpy(self.splits.class_counts).to(self.device),  # (C,)
            autocast_dtype=self.autocast_dtype,
            world=self.world,
            chance=self.chance,
        )

    def set_stage_ends(self, stage_ends: tuple[int, ...]) -> None:
        """Where stages end, if not where the config says (a plateau)."""
        self.stage_ends = stage_ends
        self.rates = schedule.learning_rates(self.config, stage_ends)

    # Epochs and steps ---------------------------------------------------------------------------

    def train_epoch(self) -> Iterator[None]:
        """Train for one epoch, or for what is left of it after :meth:`restore`.

        Yields after every step, and nothing in between waits for the device. All processes must call it.
        """
        entered = time.perf_counter()
        index = schedule.stage_of_epoch(self.stage_ends, self.epoch)
        if self.phase is None or index != self.phase.index:
            self.enter_stage(index)
        if self.phase.step is None:
            self.build_step()
        rate = float(self.rates[self.epoch])
        self.phase.set_learning_rate(rate)
        self.model.train(self.phase.trains_all)  # a frozen backbone keeps its batch statistics, too
        if self.current is None:
            self.current = Epoch(self.shares, self.splits.num_classes, self.device)
        epoch = self.current
        targets, batches = self.batches.of_epoch(self.epoch, self.phase.sampler, epoch.step)
        epoch.expect(targets)  # (M,)
        started = entered - epoch.seconds

        for step in range(epoch.step, self.steps):
            batch = epoch.await_next(batches)  # B images (B, channels, H, W) and targets (B,)
            with self.chance.of_step(self.epoch, step):
                # Forward to logits (B, C), loss, backward, update of the weights.
                loss, confidence, hits = self.phase.step(batch)  # (), (B,), ()
            epoch.add(loss, confidence, hits)
            self.phase.end_step()
            epoch.seconds = time.perf_counter() - started
            yield

        if self.phase.inventory is not None:
            self.phase.inventory.require_same_state()
            if is_looked_at(self.epoch + 1) or self.epoch + 1 == self.config.epochs:
                self.phase.inventory.require_no_memory(
                    lambda: build_model(self.config, self.splits),
                    image_shape(self.config, self.splits),
                )
        self.phase.require_no_memory()
        sums = epoch.sums()  # losses (steps,), correct (), counts (C, BINS)
        self.require_finite(sums.losses)
        self.confidence.append(sums.counts)
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "stage": index,
                "learning_rate": rate,
                "train_loss": sums.losses.mean().item(),
                "train_accuracy": sums.correct.item() / sums.counts.sum().item(),
                "validation_accuracy": None,
                "validation_balanced_accuracy": None,
                "test_accuracy": None,
                "test_balanced_accuracy": None,
                "seconds": time.perf_counter() - started,
                "waiting_seconds": epoch.waiting,
            }
        )
        self.current = None

    def require_finite(self, losses: Tensor) -> None:
        """Of the steps of an epoch (steps,): NonFiniteLossError with the first that is broken."""
        broken = (~losses.isfinite()).nonzero()
        if len(broken):
            step = int(broken[0])
            raise NonFiniteLossError(
                f"The loss became {losses[step].item()} in epoch {self.epoch + 1}, step {step + 1} of "
                f"{len(losses)}, of the run {self.config.run_id}. Expected a smaller "
                f"`learning_rate` or another loss. Config: {self.config.to_json()}"
            )

    # Evaluation ---------------------------------------------------------------------------------

    def end_epoch(self) -> None:
        """Evaluate, where the epoch is due for it, and remember the best epochs.

        All processes must call it.
        """
        started = time.perf_counter()
        row = self.history[-1]
        self.views.follow(row)
        # At every epoch's end: rounding must not depend on who looks when.
        self.world.average_buffers(self.model, self.phase.averaged)
        if is_due(self.config, self.epoch) or self._is_out_of_patience:
            # A run that would stop here is evaluated here: what is reported is about its last epoch.
            row |= self._measure(self.evaluator)
            self._require_finite_logits()
            if self.config.switch_patience and self.epoch < self.stage_ends[0]:
                self._switch_on_plateau()
        row["seconds"] += time.perf_counter() - started
        self.seconds += row["seconds"]
        self.views.evaluate(self.epoch, self._measure)

    def _measure(self, evaluator: Evaluator) -> dict[str, float]:
        with self.chance.of_evaluation(self.epoch):
            return evaluator.evaluate(
                self.phase.evaluated, self.phase.criterion.logit_scale, self.epoch
            )

    def _require_finite_logits(self) -> None:
        if not self.evaluator.is_finite:
            raise NonFiniteLossError(
                f"The logits of the run {self.config.run_id} became non-finite by the end of epoch "
                f"{self.epoch}. Expected smaller values of `learning_rate`, `weight_decay` or "
                f"`post_hoc_tau`. Config: {self.config.to_json()}"
            )

    def _switch_on_plateau(self) -> None:
        best = self.evaluator.best["best_validation"]["epoch"]
        if self.epoch - best >= self.config.switch_patience:
            self.set_stage_ends((self.epoch, *self.stage_ends[1:]))

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or the last stage has not got better for too long."""
        return self._is_out_of_patience or self.epoch >= self.config.epochs

    @property
    def _is_out_of_patience(self) -> bool:
        patience, best = self.config.early_stopping, self.evaluator.best.get("best_validation")
        if not patience or best is None or self.phase.index < len(self.config.stages) - 1:
            return False
        began = (0, *self.stage_ends)[self.phase.index]
        return self.epoch - max(best["epoch"], began) >= patience

    # Checkpoints and results --------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds (:mod:`hml_core.trainer.checkpoints`). All processes must call it."""
        return checkpoints.state(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`, whatever the number of processes that it was taken with."""
        checkpoints.restore(self, state)

    def lost_weights(self) -> str | None:
        """After :meth:`restore`: why the weights to be kept can no more be had, in words; else None."""
        evaluator = self.evaluator
        if self.keep_weights is None or evaluator.kept is not None or self._has_just_evaluated:
            return None
        best = evaluator.best.get("best_validation")
        if self.keep_weights == "best" and best is not None:
            return f"the weights of its best epoch so far, {best['epoch']}, were not kept"
        # Earlier versions stopped between evaluations.
        if self.keep_weights == "last" and self.done:
            return "the weights that it stopped with were not kept"
        return None

    def keep_what_is_there(self) -> None:
        """After :meth:`restore`: keep the network, where it should have been when it was evaluated.

        All processes must call it.
        """
        wanted = self.keep_weights is not None and self.evaluator.kept is None
        if wanted and self._has_just_evaluated:
            scale = self.phase.criterion.logit_scale
            self.evaluator.keep(self.phase.evaluated, scale, self.epoch)

    @property
    def _has_just_evaluated(self) -> bool:
        """Whether the network stands where it was evaluated as the one that is to be kept."""
        if self.current is not None or not self.history:
            return False
        if self.keep_weights == "best":
            best = self.evaluator.best.get("best_validation")
            return best is not None and best["epoch"] == self.epoch
        return self.history[-1]["test_accuracy"] is not None

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors of ``weights.safetensors`` and what it says of them; None where none are kept.

        Raises
        ------
        NonFiniteLossError
            For a network that diverged, though its logits did not: nobody would take it.
        """
        kept = self.evaluator.kept
        if self.keep_weights is None or kept is None:
            return None
        for name, tensor in kept["tensors"].items():
            if tensor.is_floating_point() and bool(tensor.isnan().any()):
                raise NonFiniteLossError(
                    f"The weights of the run {self.config.run_id} cannot be kept: {name!r} became NaN by "
                    f"the end of epoch {kept['epoch']}. Expected smaller values of `learning_rate` or "
                    f"`weight_decay`. Config: {self.config.to_json()}"
                )
        told = {"run_id": self.config.run_id, "which": kept["which"], "epoch": kept["epoch"]}
        return kept["tensors"], {**kept["described"], **told}

    def results(self) -> dict[str, Any]:
        """The content of ``metrics.json``: test metrics after the last and at the best epochs."""
        taken = self.branch or {"epoch": 0, "seconds": 0.0}  # over from another run
        further = self.evaluator.further_tests(self.epoch)
        return {
            "selections": self.evaluator.selections(self.epoch),
            **({"further_tests": further} if further else {}),
            "class_counts": self.splits.class_counts.tolist(),
            "class_names": list(self.splits.class_names),
            "class_groups": list(self.splits.class_groups),
            "synthetic": self.splits.synthetic,
            **({"images_note": str(self.splits.images_note)} if self.splits.images_note else {}),
            "initialisation": self.initialisation,
            "device": devices.describe(self.device),
            "trained_epochs": self.epoch - taken["epoch"],
            "seconds": self.seconds - taken["seconds"],
            "branch": self.branch and {name: self.branch[name] for name in ("epoch", "from")},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of ``predictions.npz``, see :class:`hml_core.runs.Run`."""
        return {
            **self.evaluator.arrays(),
            "targets": self.splits.test.targets,
            "confidence": torch.stack(self.confidence).numpy(),
        }
