"""The loop of one run: its stages, epochs and steps, its evaluations and its state."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hml_core import models, sampling, schedule
from hml_core.augment import draw_mix
from hml_core.config import RunConfig
from hml_core.datasets import Splits
from hml_core.errors import RunError
from hml_core.losses.cross_entropy import label_aware_smoothing
from hml_core.system import devices, seeds
from hml_core.trainer import feeds, post_hoc
from hml_core.trainer.branches import Point, evaluation
from hml_core.trainer.cuda_graphs import GraphedStep
from hml_core.trainer.epochs import CONFIDENCE_BINS, Epoch, Shares
from hml_core.trainer.evaluation import Evaluator
from hml_core.trainer.update import Batch, MicroBatch, Update, build_loss, build_optimizer
from hml_core.trainer.world import ALONE, World

COSINE_SCALE = 30.0  # of a cosine head under a loss that does not scale by itself


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite: training stopped."""


@dataclass
class View:
    """How another run, which is the same so far, evaluates the network."""

    config: RunConfig
    until: int  # the epoch after which no such run is left
    evaluator: Evaluator
    history: list[dict[str, Any]] = field(default_factory=list)


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

    Raises
    ------
    ConfigError
        Where the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        world: World = ALONE,
        points: Sequence[Point] = (),
    ) -> None:
        self.config, self.splits, self.device, self.world = config, splits, device, world
        self.shares = Shares(config, world, len(splits.train))
        self.steps = self.shares.steps
        self.autocast_dtype = devices.autocast_dtype(config.precision, device)
        self.stage_ends = config.stage_ends
        self.rates = schedule.learning_rates(config)
        self.model = self._build_model()
        self.initialisation = models.load_weights(self.model, config.weights)
        models.freeze(self.model, config.frozen)
        self.model.to(device, memory_format=torch.channels_last)
        self.feed = feeds.make(splits.train, splits, config, device, augmented=True)
        self.draws = models.draws(self.model)
        self.rate = torch.zeros((), device=device)
        self.train_targets = torch.from_numpy(splits.train.targets).to(device)
        self.class_counts = torch.from_numpy(splits.class_counts).to(device)
        self.evaluator = Evaluator(config, splits, device, self.autocast_dtype, world)
        self.views = self._views(points)  # by how they evaluate

        self.epoch = 0  # epochs done
        self.stage = -1
        self.averaged: AveragedModel | None = None
        self.step: Callable[[Batch], tuple[Tensor, Tensor, Tensor]] | None = None  # of the stage
        self.current: Epoch | None = None  # while an epoch is being trained
        self.history: list[dict[str, Any]] = []
        self.confidence: list[
            Tensor
        ] = []  # per epoch: counts (C, BINS) of the true-class probability
        self.seconds = 0.0
        # What was taken over from another run: {"epoch", "from", "seconds"}.
        self.branch: dict[str, Any] | None = None

    def _views(self, points: Sequence[Point]) -> dict[str, View]:
        """How the runs evaluate that part from this one, if not in the same way."""
        views: dict[str, View] = {}
        for point in points:
            for config in point.views:
                if (kind := evaluation(config)) != evaluation(self.config):
                    evaluator = Evaluator(
                        config, self.splits, self.device, self.autocast_dtype, self.world
                    )
                    views[kind] = View(config, point.epoch, evaluator)
        return views

    def _build_model(self, stream: str = "initialisation", *counters: int) -> nn.Module:
        config = self.config
        with seeds.seeded(config.seed, stream, *counters):
            return models.build(
                config.model,
                self.splits.num_classes,
                config.head,
                in_channels=self.splits.channels,
                head_scale=1.0 if config.scales_itself else COSINE_SCALE,
            )

    # Stages -------------------------------------------------------------------------------------

    def _enter_stage(self, index: int) -> None:
        """Loss, sampler and trainable part of stage ``index``; momentum survives a change of loss."""
        stages = self.config.stages
        before = stages[self.stage].trains if self.stage >= 0 else None
        self.stage, stage = index, stages[index]
        smoothing = self.config.label_smoothing
        if self.config.label_aware_smoothing:
            smoothing = label_aware_smoothing(
                self.splits.class_counts, self.config.label_aware_smoothing
            )
        self.criterion = build_loss(stage, self.splits.class_counts, smoothing).to(self.device)
        self.sampler = self.config.sampler if stage.sampler == "instance" else stage.sampler
        if stage.trains != before:
            if not self.trains_all:
                self._replace_classifier(stage.trains)
            self.optimizer = build_optimizer(self.config, self.model, self.device)
            if self.config.ema_decay:
                average = get_ema_multi_avg_fn(self.config.ema_decay)
                self.averaged = AveragedModel(self.model, multi_avg_fn=average, use_buffers=True)
        self.step = None

    def _build_step(self) -> None:
        """What a step of the stage does. All processes must call it: they connect their networks."""
        self.update = Update(
            self.config,
            self.model,
            self.optimizer,
            self.criterion,
            self.feed,
            self.class_counts,
            self.device,
            self.autocast_dtype,
            trains_all=self.trains_all,
            world=self.world,
        )
        # A captured step holds the loss and what it trains: every stage captures anew.
        is_captured = self.device.type == "cuda" and self.world.size == 1
        if self.draws and self.shares.is_split:
            is_captured = False  # each part seeds its layers
        self.step = GraphedStep(self.update) if is_captured else self.update

    @property
    def step_of_epoch(self) -> int:
        """Steps done of the epoch that is being trained."""
        return 0 if self.current is None else self.current.step

    @property
    def trains_all(self) -> bool:
        """Whether the stage trains the whole network, not only what its logits are made of."""
        return self.config.stages[self.stage].trains == "all"

    def _replace_classifier(self, trains: str) -> None:
        """Freeze the network; what is trained from now on is a new classifier, or scales of the old."""
        self.model.requires_grad_(False)
        if trains == "classifier":
            fresh = self._build_model("classifier", self.stage).classifier
        else:
            fresh = post_hoc.ClassScales(self.model.classifier, self.splits.num_classes)
        self.model.replace_classifier(fresh.to(self.device))

    # Training -----------------------------------------------------------------------------------

    def train_epoch(self) -> Iterator[None]:
        """Train for one epoch, or for what is left of it after :meth:`restore`.

        Yields after every step, and nothing in between waits for the device. All processes must call it.
        """
        entered = time.perf_counter()
        index = schedule.stage_of_epoch(self.stage_ends, self.epoch)
        if index != self.stage:
            self._enter_stage(index)
        if self.step is None:
            self._build_step()
        self._set_learning_rate(float(self.rates[self.epoch]))
        self.model.train(self.trains_all)  # a frozen backbone keeps its batch statistics, too
        epoch, batches = self._begin_epoch()
        started = entered - epoch.seconds

        for step in range(epoch.step, self.steps):
            asked = time.perf_counter()
            with self.world.together():  # an image that one cannot read stops all
                batch = next(batches)
            epoch.waiting += time.perf_counter() - asked
            if self.draws:
                self._seed_layers(step)
            with self._chance(step):
                loss, confidence, hits = self.step(batch)
            epoch.losses[step] = loss / self.world.size
            epoch.confidence[epoch.seen : epoch.seen + len(confidence)] = confidence
            epoch.correct += hits
            epoch.seen += len(confidence)
            epoch.step = step + 1
            if self.averaged is not None:
                self.averaged.update_parameters(self.model)
            epoch.seconds = time.perf_counter() - started
            yield

        losses = self.world.total(epoch.losses)
        self._require_finite(losses)
        counts = self.world.total(epoch.confidence_counts())
        self.confidence.append(counts)
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "stage": index,
                "learning_rate": float(self.rates[self.epoch - 1]),
                "train_loss": losses.mean().item(),
                "train_accuracy": self.world.total(epoch.correct).item() / counts.sum().item(),
                "validation_accuracy": None,
                "validation_balanced_accuracy": None,
                "test_accuracy": None,
                "test_balanced_accuracy": None,
                "seconds": time.perf_counter() - started,
                "waiting_seconds": epoch.waiting,
            }
        )
        for view in self.views.values():
            if self.epoch <= view.until:
                view.history.append(dict(self.history[-1]))
        self.current = None

    def _begin_epoch(self) -> tuple[Epoch, Iterator[Batch]]:
        """Where the epoch stands, and this process's parts of the batches that are left.

        The order and all draws depend on seed and epoch alone: every process makes them, and takes its
        places.
        """
        config = self.config
        order = sampling.epoch_indices(
            torch.from_numpy(self.splits.train.targets),
            self.sampler,
            generator=seeds.generator(config.seed, "order", self.epoch),
            progress=self.epoch / max(config.epochs - 1, 1),
        )
        first = 0 if self.current is None else self.current.step
        places = self.shares.places(first)
        stream = seeds.generator(config.seed, "augmentation", self.epoch)
        payloads = self.feed.batches(order, self.shares.micro_batch, stream, places)
        mix = None
        if config.mix != "none":
            seed = seeds.derive(config.seed, "mix", self.epoch)
            mix = draw_mix(len(order), self.shares.micro_batch, config.mix_alpha, seed)[places]
            mix = mix.to(self.device)
        targets = self.train_targets[order[places].to(self.device)]
        if self.current is None:
            shape = (self.splits.num_classes, CONFIDENCE_BINS)
            self.current = Epoch(
                step=0,
                losses=torch.zeros(self.steps, device=self.device),
                correct=torch.zeros((), dtype=torch.int64, device=self.device),
                counts=torch.zeros(shape, dtype=torch.int32),
                confidence=torch.empty(0),
                targets=targets,
            )
        self.current.confidence = torch.empty(len(places), device=self.device)
        self.current.targets, self.current.seen = targets, 0

        def batches() -> Iterator[Batch]:
            parts = (
                MicroBatch(payload, targets[part], None if mix is None else mix[part])
                for payload, part in zip(payloads, self.shares.parts(len(places)), strict=True)
            )
            while batch := tuple(itertools.islice(parts, self.shares.per_step)):
                yield batch

        return self.current, batches()

    def _set_learning_rate(self, rate: float) -> None:
        """On CUDA into one tensor that stays where it is, for a captured step reads it there."""
        on_cuda = self.device.type == "cuda"
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.fill_(rate) if on_cuda else rate

    def _chance(self, step: int) -> contextlib.AbstractContextManager:
        """A stream of the step's own for layers that draw from the global generator (dropout)."""
        if not self.draws or self.shares.is_split:
            return contextlib.nullcontext()
        return seeds.seeded(self.config.seed, "layers", self.epoch, step, device=self.device)

    def _seed_layers(self, step: int) -> None:
        """The same for each micro-batch of a step, whichever process works on it."""
        if not self.shares.is_split:
            return
        first, place = self.world.rank * self.shares.per_step, (self.epoch, step)
        self.update.chance = lambda number: seeds.seeded(
            self.config.seed, "layers", *place, first + number, device=self.device
        )

    def _require_finite(self, losses: Tensor) -> None:
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
        self._average_buffers()  # at every epoch's end: rounding must not depend on who looks when
        if self._is_due(self.config):
            row |= self._evaluate(self.evaluator)
            if not self.evaluator.is_finite:
                raise NonFiniteLossError(
                    f"The logits of the run {self.config.run_id} became non-finite by the end of epoch "
                    f"{self.epoch}. Expected smaller values of `learning_rate`, `weight_decay` or "
                    f"`post_hoc_tau`. Config: {self.config.to_json()}"
                )
            if self.config.switch_patience and self.epoch < self.stage_ends[0]:
                self._switch_on_plateau()
        row["seconds"] += time.perf_counter() - started
        self.seconds += row["seconds"]
        for view in self.views.values():
            if self.epoch <= view.until and self._is_due(view.config):
                started = time.perf_counter()
                view.history[-1] |= self._evaluate(view.evaluator)
                view.history[-1]["seconds"] += time.perf_counter() - started

    def _is_due(self, config: RunConfig) -> bool:
        return self.epoch == config.epochs or self.epoch % config.evaluate_every == 0

    def _evaluate(self, evaluator: Evaluator) -> dict[str, float]:
        model = self.model if self.averaged is None else self.averaged.module
        return evaluator.evaluate(model, self.criterion.logit_scale, self.epoch)

    def _average_buffers(self) -> None:
        """Running statistics as they are with one process, see :class:`hml_core.trainer.update.Update`."""
        for model in (self.model, self.averaged):
            if model is not None:
                found = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
                self.world.average_(found)

    def _switch_on_plateau(self) -> None:
        best = self.evaluator.best["best_validation"]["epoch"]
        if self.epoch - best >= self.config.switch_patience:
            self._set_stage_ends((self.epoch, *self.stage_ends[1:]))

    def _set_stage_ends(self, stage_ends: tuple[int, ...]) -> None:
        self.stage_ends = stage_ends
        self.rates = schedule.learning_rates(self.config, stage_ends)

    @property
    def done(self) -> bool:
        """Whether the last epoch is over, or the last stage has not got better for too long."""
        patience, best = self.config.early_stopping, self.evaluator.best.get("best_validation")
        if patience and best and self.stage == len(self.config.stages) - 1:
            began = (0, *self.stage_ends)[self.stage]
            if self.epoch - max(best["epoch"], began) >= patience:
                return True
        return self.epoch >= self.config.epochs

    def headline(self) -> str:
        """How the last epoch went, for the progress bar."""
        if not self.history:
            return ""
        row = self.history[-1]
        shown = [f"loss {row['train_loss']:.3f}"]
        for name in ("validation_balanced_accuracy", "test_balanced_accuracy"):
            if row[name] is not None:
                shown.append(f"{name.split('_')[0]} {100 * row[name]:.1f} %")
                break
        return ", ".join(shown)

    def results(self) -> dict[str, Any]:
        """The content of ``metrics.json``: test metrics after the last and at the best epochs."""
        return {
            "selections": self.evaluator.selections(self.epoch),
            "class_counts": self.splits.class_counts.tolist(),
            "class_names": list(self.splits.class_names),
            "class_groups": list(self.splits.class_groups),
            "synthetic": self.splits.synthetic,
            "initialisation": self.initialisation,
            "device": devices.describe(self.device),
            **self._trained(),
        }

    def _trained(self) -> dict[str, Any]:
        """What the run computed itself, in which time, and what it took over."""
        taken = self.branch or {"epoch": 0, "seconds": 0.0}
        return {
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

    # Resuming -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as tensors and plain values.

        All processes must call it, and get the same. It may be taken after any step.
        """
        self._average_buffers()
        return {
            **self._training_state(),
            "stage_ends": list(self.stage_ends),
            "current": None if self.current is None else self._progress(self.current),
            "history": self.history,
            "evaluator": self.evaluator.state(),
            "seconds": self.seconds,
            "branch": self.branch,
            "views": self._view_states(),
        }

    def _training_state(self) -> dict[str, Any]:
        """The part that does not depend on who looks at the network."""
        return {
            "epoch": self.epoch,
            "stage": self.stage,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "confidence": self.confidence,
        }

    def _view_states(self) -> dict[str, Any]:
        return {
            kind: {"history": view.history, "evaluator": view.evaluator.state()}
            for kind, view in self.views.items()
            if self.epoch <= view.until
        }

    def beginning(self) -> dict[str, Any]:
        """What runs need that part from this one after the epoch that is over."""
        own = {"history": self.history, "evaluator": self.evaluator.state()}
        return {
            "from": self.config.run_id,
            "state": self._training_state(),
            "views": {evaluation(self.config): own, **self._view_states()},
        }

    def branch_off(self, beginning: dict[str, Any]) -> None:
        """Go on from another run's :meth:`beginning`.

        Raises
        ------
        KeyError
            Where the network was not evaluated there as this run does.
        """
        own = beginning["views"][evaluation(self.config)]
        seconds = sum(row["seconds"] for row in own["history"])
        branch = {"epoch": beginning["epoch"], "from": beginning["from"], "seconds": seconds}
        self.restore(
            {
                **beginning["state"],
                **own,
                "stage_ends": list(self.stage_ends),
                "current": None,
                "seconds": seconds,
                "branch": branch,
                "views": beginning["views"],
            }
        )

    def _progress(self, epoch: Epoch) -> dict[str, Any]:
        """An epoch that is not over, over all processes."""
        losses = self.world.total(epoch.losses)
        self._require_finite(losses)
        return {
            "step": epoch.step,
            "losses": losses,
            "correct": self.world.total(epoch.correct),
            "counts": self.world.total(epoch.confidence_counts()),
            "seconds": epoch.seconds,
            "waiting": epoch.waiting,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`, whatever the number of processes that it was taken with."""
        self._set_stage_ends(tuple(state["stage_ends"]))
        self._enter_stage(state["stage"])
        self.model.load_state_dict(state["model"])
        groups = self.optimizer.state_dict()[
            "param_groups"
        ]  # of this device, not of the checkpoint's
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self.history, self.confidence = state["history"], state["confidence"]
        self.evaluator.restore(state["evaluator"])
        self.branch = state.get("branch")
        known = state.get("views", {})
        # A run that was begun without those that part from it has not looked for them.
        self.views = {kind: view for kind, view in self.views.items() if kind in known}
        for kind, view in self.views.items():
            view.history = known[kind]["history"]
            view.evaluator.restore(known[kind]["evaluator"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        if (current := state["current"]) is not None:
            part = 1 if self.world.is_first else 0  # the sums of before are the first process's
            self.current = Epoch(
                step=current["step"],
                losses=part * current["losses"].to(self.device),
                correct=part * current["correct"].to(self.device),
                counts=part * current["counts"],
                confidence=torch.empty(0),
                targets=torch.empty(0, dtype=torch.int64),
                seconds=current["seconds"],
                waiting=current["waiting"],
            )
