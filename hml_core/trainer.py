"""One training run: the loop, its stages, its evaluations and its record."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hml_core import (
    datasets,
    devices,
    environment,
    feeds,
    imbalance,
    models,
    post_hoc,
    sampling,
    schedule,
    seeds,
)
from hml_core.augment import Mix, draw_mix, remix_share
from hml_core.checks import takes_smoothing
from hml_core.config import RunConfig
from hml_core.datasets import Splits
from hml_core.devices import autocast
from hml_core.errors import DataError, RunError
from hml_core.evaluation import Evaluator
from hml_core.graphs import GraphedStep
from hml_core.losses import LOSSES
from hml_core.losses.cross_entropy import label_aware_smoothing
from hml_core.progress import Progress
from hml_core.recipes import Stage
from hml_core.runs import Run, RunFolder

# An epoch of a tiny data set takes less than writing its checkpoint; then at most one a second.
CHECKPOINT_INTERVAL_S = 1.0
CONFIDENCE_BINS = 20  # of the true-class probability, equally wide
COSINE_SCALE = 30.0  # of a cosine head under a loss that does not scale by itself

Result = TypeVar("Result")


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite: training stopped."""


def fit(
    config: RunConfig,
    *,
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    wait: float | None = None,
) -> Run:
    """Train the run that ``config`` describes, or find it finished, or go on where it was killed.

    Parameters
    ----------
    config : RunConfig
    data_root : path, optional
        Folder of the data set's files, where it has any.
    runs_root : path
        The run is recorded in ``<runs_root>/<run_id>/``.
    device : str
        "auto", "cpu", "cuda" or "cuda:<number>".
    progress : bool
        Show the epochs go by.
    wait : float, optional
        Seconds to wait for another process that works on the same run; default: until it is done.

    Returns
    -------
    Run

    Raises
    ------
    RunBusyError
        Another process still works on the run after ``wait`` seconds.
    DeviceError, DataError, RunError
        Before anything is trained or written: a device that is not there, missing or unusable data, a
        results folder that cannot be written to.
    NonFiniteLossError
        With epoch, step and config; the run is recorded as failed.
    """
    return exhaust(
        training(
            config,
            data_root=data_root,
            runs_root=runs_root,
            device=device,
            progress=progress,
            wait=wait,
        )
    )


def exhaust(steps: Generator[None, None, Result]) -> Result:
    """Go through all steps; what the generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def training(
    config: RunConfig,
    *,
    data_root: str | Path | None = None,
    runs_root: str | Path = "results/runs",
    device: str | torch.device = "auto",
    progress: bool = True,
    wait: float | None = None,
) -> Generator[None, None, Run]:
    """:func:`fit` step by step: a generator that rests after every step and returns the run.

    It leaves no trace in torch's settings while it rests, so that several can take turns.
    """
    where = devices.resolve(device)
    devices.keep_freed_memory()
    with contextlib.closing(
        _training(config, data_root, runs_root, where, progress, wait)
    ) as steps:
        while True:
            with devices.current(where), devices.algorithms(config.deterministic):
                try:
                    next(steps)
                except StopIteration as stop:
                    return stop.value
            yield


def _training(
    config: RunConfig,
    data_root: str | Path | None,
    runs_root: str | Path,
    device: torch.device,
    progress: bool,
    wait: float | None,
) -> Generator[None, None, Run]:
    folder = RunFolder(runs_root, config)
    with folder.locked(wait):
        if (done := folder.finished()) is not None:
            _require_same_images(done, data_root)
            return done
        splits = datasets.load(config, data_root)
        trainer = Trainer(config, splits, device)
        record = environment.describe(device, trainer.autocast_dtype)
        checkpoint = folder.begin(record, splits.manifest())
        if checkpoint is not None:
            try:
                trainer.restore(checkpoint)
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                folder.set_aside(
                    f"The checkpoint of the run {config.run_id} is unusable ({error})."
                )
                trainer = Trainer(config, splits, device)
                folder.begin(record, splits.manifest())
        try:
            return (yield from _run_to_end(trainer, folder, progress))
        except NonFiniteLossError as error:
            folder.fail(error, resumable=False)
            raise
        except Exception as error:
            folder.fail(error)
            raise


def _require_same_images(done: Run, data_root: str | Path | None) -> None:
    """A config names a data set, not its files: refuse a record made from other images.

    Without the files there is nothing to compare, and the record stands.
    """
    try:
        splits = datasets.load(done.config, data_root)
    except DataError:
        return
    if splits.manifest()["sha256"] != done.manifest["sha256"]:
        raise RunError(
            f"The run {done.run_id} was made from other images than those in {str(data_root)!r}: "
            "expected another `runs_root` for other data."
        )


def _run_to_end(trainer: Trainer, folder: RunFolder, progress: bool) -> Generator[None, None, Run]:
    config = trainer.config
    last_checkpoint = time.monotonic()
    bar = Progress(
        config.epochs, config.run_id, enabled=progress, initial=trainer.epoch, unit="epochs"
    )
    with bar:
        while not trainer.done:
            yield from trainer.train_epoch()
            trainer.end_epoch()
            bar.update(trainer.headline())
            if time.monotonic() - last_checkpoint >= CHECKPOINT_INTERVAL_S:
                folder.checkpoint(trainer.state())
                folder.write_history(trainer.history)
                last_checkpoint = time.monotonic()
    folder.write_history(trainer.history)
    return folder.finish(trainer.results(), trainer.arrays())


@dataclass(frozen=True)
class Batch:
    """What a step works on: the feed's payload, classes int64 (B,) and how images are mixed, if so."""

    payload: Any
    target: Tensor
    mix: Mix | None


class Trainer:
    """The state of one run and what advances it by an epoch.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    device : torch.device
    """

    def __init__(self, config: RunConfig, splits: Splits, device: torch.device) -> None:
        self.config, self.splits, self.device = config, splits, device
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
        self.evaluator = Evaluator(config, splits, device, self.autocast_dtype)

        self.epoch = 0  # epochs done
        self.stage = -1
        self.history: list[dict[str, Any]] = []
        self.confidence: list[
            Tensor
        ] = []  # per epoch: counts (C, BINS) of the true-class probability
        self.seconds = 0.0

    def _build_model(self) -> nn.Module:
        config = self.config
        scales_itself = any(stage.loss == "ldam" for stage in config.stages)
        with seeds.seeded(config.seed, "initialisation"):
            return models.build(
                config.model,
                self.splits.num_classes,
                config.head,
                in_channels=self.splits.channels,
                head_scale=1.0 if scales_itself else COSINE_SCALE,
            )

    # Stages -------------------------------------------------------------------------------------

    def _enter_stage(self, index: int) -> None:
        """Loss, sampler and trainable part of stage ``index``; momentum survives a change of loss."""
        stages = self.config.stages
        before = stages[self.stage].trains if self.stage >= 0 else None
        self.stage, stage = index, stages[index]
        self._trains_all = stage.trains == "all"
        smoothing = self.config.label_smoothing
        if self.config.label_aware_smoothing:
            smoothing = label_aware_smoothing(
                self.splits.class_counts, self.config.label_aware_smoothing
            )
        self.criterion = build_loss(stage, self.splits.class_counts, smoothing).to(self.device)
        self.sampler = self.config.sampler if stage.sampler == "instance" else stage.sampler
        if stage.trains != before:
            if not self._trains_all:
                self._replace_classifier(stage.trains)
            self.optimizer = build_optimizer(self.config, self.model, self.device)
        # A captured step holds the loss and what it trains: every stage captures anew.
        self.step = (
            GraphedStep(self._eager_step) if self.device.type == "cuda" else self._eager_step
        )

    def _replace_classifier(self, trains: str) -> None:
        """Freeze the network; what is trained from now on is a new classifier, or scales of the old."""
        self.model.requires_grad_(False)
        if trains == "classifier":
            fresh = self._build_model().classifier
        else:
            fresh = post_hoc.ClassScales(self.model.classifier, self.splits.num_classes)
        self.model.replace_classifier(fresh.to(self.device))

    # Training -----------------------------------------------------------------------------------

    def train_epoch(self) -> Iterator[None]:
        """Train for one epoch; yields after every step, and nothing in between waits for the device."""
        started = time.perf_counter()
        config = self.config
        index = schedule.stage_of_epoch(self.stage_ends, self.epoch)
        if index != self.stage:
            self._enter_stage(index)
        self._set_learning_rate(float(self.rates[self.epoch]))
        self.model.train(self._trains_all)  # a frozen backbone keeps its batch statistics, too

        order = sampling.epoch_indices(
            torch.from_numpy(self.splits.train.targets),
            self.sampler,
            generator=seeds.generator(config.seed, "order", self.epoch),
            progress=self.epoch / max(config.epochs - 1, 1),
        )
        stream = seeds.generator(config.seed, "augmentation", self.epoch)
        payloads = self.feed.batches(order, config.batch_size, stream)
        mix = None
        if config.mix != "none":
            seed = seeds.derive(config.seed, "mix", self.epoch)
            mix = draw_mix(len(order), config.batch_size, config.mix_alpha, seed).to(self.device)
        targets = self.train_targets[order.to(self.device)]
        losses = torch.empty(-(-len(order) // config.batch_size), device=self.device)
        confidence = torch.empty(len(order), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)

        for step, payload in enumerate(payloads):
            part = slice(step * config.batch_size, (step + 1) * config.batch_size)
            batch = Batch(payload, targets[part], None if mix is None else mix[part])
            with self._chance(step):
                losses[step], confidence[part], hits = self.step(batch)
            correct += hits
            yield

        losses = losses.cpu()
        self._require_finite(losses)
        self.confidence.append(histogram(confidence, targets, self.splits.num_classes))
        self.epoch += 1
        self.history.append(
            {
                "epoch": self.epoch,
                "stage": index,
                "learning_rate": float(self.rates[self.epoch - 1]),
                "train_loss": losses.mean().item(),
                "train_accuracy": correct.item() / len(order),
                "validation_accuracy": None,
                "validation_balanced_accuracy": None,
                "test_accuracy": None,
                "test_balanced_accuracy": None,
                "seconds": time.perf_counter() - started,
            }
        )

    def _eager_step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Update the network once: loss (), probability of the true class (B,) and hits ().

        A function of tensors alone, so that it can be captured, see :mod:`hml_core.graphs`.
        """
        images = self.feed.images(batch.payload)  # (B, C, H, W)
        target, mix = batch.target, batch.mix  # (B,)
        if mix is not None:
            images = torch.lerp(images[mix.partner], images, mix.share[:, None, None, None])
        with autocast(self.device, self.autocast_dtype):
            with torch.set_grad_enabled(self._trains_all):
                features = self.model.features(images)  # (B, d)
            logits = self.model.classifier(features)  # (B, C)
        extra = (features,) if self.criterion.needs_features else ()
        if mix is None:
            loss = self.criterion(logits, target, *extra)
        else:
            other, share = target[mix.partner], mix.share  # (B,)
            if self.config.mix == "remix":
                counts = self.class_counts.float()
                share = remix_share(share, counts[target], counts[other])
            loss = self.criterion.mixed(logits, target, other, share, *extra)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            probability = (logits.float() * self.criterion.logit_scale).softmax(dim=1)
            hits = (probability.argmax(dim=1) == target).sum()
            return loss.detach(), probability.gather(1, target[:, None])[:, 0], hits

    def _set_learning_rate(self, rate: float) -> None:
        """On CUDA into one tensor that stays where it is, for a captured step reads it there."""
        on_cuda = self.device.type == "cuda"
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.fill_(rate) if on_cuda else rate

    def _chance(self, step: int) -> contextlib.AbstractContextManager:
        """A stream of the step's own for layers that draw from the global generator (dropout)."""
        if not self.draws:
            return contextlib.nullcontext()
        return seeds.seeded(self.config.seed, "layers", self.epoch, step, device=self.device)

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
        """Evaluate, where the epoch is due for it, and remember the best epochs."""
        started = time.perf_counter()
        row = self.history[-1]
        if self.epoch == self.config.epochs or self.epoch % self.config.evaluate_every == 0:
            row |= self.evaluator.evaluate(self.model, self.criterion.logit_scale, self.epoch)
            if not self.evaluator.last_logits.isfinite().all():
                raise NonFiniteLossError(
                    f"The logits of the run {self.config.run_id} became non-finite by the end of epoch "
                    f"{self.epoch}. Expected smaller values of `learning_rate`, `weight_decay` or "
                    f"`post_hoc_tau`. Config: {self.config.to_json()}"
                )
            if self.config.switch_patience and self.epoch < self.stage_ends[0]:
                self._switch_on_plateau()
        row["seconds"] += time.perf_counter() - started
        self.seconds += row["seconds"]

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
            "synthetic": self.splits.synthetic,
            "initialisation": self.initialisation,
            "seconds": self.seconds,
            "device": devices.describe(self.device),
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
        """Everything that the rest of the run depends on, as tensors and plain values."""
        return {
            "epoch": self.epoch,
            "stage": self.stage,
            "stage_ends": list(self.stage_ends),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "confidence": self.confidence,
            "evaluator": self.evaluator.state(),
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
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


def build_optimizer(
    config: RunConfig, model: nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of what the model has to train; on CUDA its step can be captured."""
    trainable = [tensor for tensor in model.parameters() if tensor.requires_grad]
    shared = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "adam":
        return torch.optim.Adam(trainable, capturable=device.type == "cuda", **shared)
    return torch.optim.SGD(trainable, momentum=config.momentum, **shared)


def histogram(confidence: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """int32 (C, BINS) on the CPU: how many images of each class have which probability of it."""
    which = (confidence * CONFIDENCE_BINS).long().clamp(0, CONFIDENCE_BINS - 1)
    flat = torch.bincount(
        targets * CONFIDENCE_BINS + which, minlength=num_classes * CONFIDENCE_BINS
    )
    return flat.reshape(num_classes, CONFIDENCE_BINS).int().cpu()


def build_loss(stage: Stage, class_counts: np.ndarray, label_smoothing=0.0) -> nn.Module:
    """The loss of a stage, with class counts, weights and smoothing filled in where it takes them."""
    kind = LOSSES[stage.loss]
    takes = inspect.signature(kind).parameters
    options = dict(stage.loss_options)
    if "class_counts" in takes:
        options["class_counts"] = class_counts
    if "weight" in takes and stage.weighting != "none":
        options["weight"] = imbalance.class_weights(class_counts, stage.weighting)
    if takes_smoothing(stage.loss):
        options["label_smoothing"] = label_smoothing
    return kind(**options)
