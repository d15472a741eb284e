"""A phase: what one stage of a run trains, and with what."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hml_core import models, sampling
from hml_core.config import RunConfig, identity
from hml_core.datasets import Splits
from hml_core.errors import ConfigError, RunError, raised_by_handler, said
from hml_core.losses import trials
from hml_core.losses.cross_entropy import label_aware_smoothing
from hml_core.models import post_hoc
from hml_core.recipes import Stage
from hml_core.system import seeds
from hml_core.trainer.chance import LayerChance
from hml_core.trainer.cuda_graphs import GraphedStep
from hml_core.trainer.epochs import image_shape
from hml_core.trainer.update import Step, Update, build_loss, build_optimizer
from hml_core.trainer.world import World

COSINE_SCALE = 30.0  # of a cosine head under a loss that does not scale by itself


class Phase:
    """What a stage trains and with what: a function of (config, stage) and of the network it begins with.

    ================  =====================================  ==============================================
    ``trains``        the classifier when the stage begins   what moves in it
    ================  =====================================  ==============================================
    "all"             stays                                  everything but ``config.frozen``
    "classifier"      is drawn anew                          the new classifier
    "class_scales"    gets a factor 1 for each class         these factors
    ================  =====================================  ==============================================

    A stage that trains the same as the one before it goes on with that one's classifier, momentum and
    average of the weights: only loss, sampler and rate change.

    Parameters
    ----------
    config : RunConfig
    index : int
        Of the stage, from 0.
    model : nn.Module
        As the stage before has left it, or as built; its classifier may be replaced here.
    frozen : set of Tensor
        What never moves, see :func:`build_network`.
    splits : Splits
    device : torch.device
    before : Phase, optional
        Of the stage before.

    Attributes
    ----------
    criterion : nn.Module
        The loss, with weights and class counts filled in.
    sampler : str
    optimizer : torch.optim.Optimizer
        Of what moves.
    averaged : AveragedModel or None
        The moving average of the network, where the run has one.
    update : Update
    step : callable or None
        The update, on CUDA as a captured graph; None until :meth:`build_step`.
    """

    def __init__(
        self,
        config: RunConfig,
        index: int,
        model: nn.Module,
        frozen: set[Tensor],
        splits: Splits,
        device: torch.device,
        before: Phase | None = None,
    ) -> None:
        stage = config.stages[index]
        self.config, self.index, self.model, self.device = config, index, model, device
        self.classes = splits.num_classes
        self.trains = stage.trains
        self.sampler = config.sampler if stage.sampler == "instance" else stage.sampler
        self._new_loss = lambda: stage_loss(config, stage, splits.class_counts, index)
        self.criterion = self._new_loss().to(device)
        self.has_own_loss = not identity.is_built_in("loss", stage.loss)
        self.steps_done = 0  # in this process
        self.rate = torch.zeros((), device=device)
        self.step: Step | None = None
        if before is not None and before.trains == stage.trains:
            self.optimizer, self.averaged = before.optimizer, before.averaged
            self.inventory = before.inventory
            return
        if self.trains == "classifier":
            fresh = build_model(config, splits, "classifier", index).classifier
            model.replace_classifier(fresh.to(device))
        elif self.trains == "class_scales":
            scaled = post_hoc.ClassScales(model.classifier, splits.num_classes)
            model.replace_classifier(scaled.to(device))
        let_move(model, self.trains, frozen)
        self.optimizer = build_optimizer(config, model, device)
        self.inventory = models.inventory(model)
        self.averaged: AveragedModel | None = None
        if config.ema_decay:
            average = get_ema_multi_avg_fn(config.ema_decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)

    @property
    def trains_all(self) -> bool:
        """Whether the whole network moves, not only what its logits are made of."""
        return self.trains == "all"

    def build_step(self, *, world: World, chance: LayerChance, **shared: Any) -> None:
        """Make what a step does; ``shared`` is what :class:`Update` takes besides.

        All processes must call it: they connect their networks.
        """
        self.update = Update(
            self.config,
            self.model,
            self.optimizer,
            self.criterion,
            device=self.device,
            trains_all=self.trains_all,
            world=world,
            chance=chance,
            **shared,
        )
        # A captured step holds the loss and what it trains: every stage captures anew. Parts of a batch
        # that each seed their layers cannot be captured.
        is_captured = self.device.type == "cuda" and world.size == 1 and not chance.seeds_parts
        allowed = chance.can_be_captured
        self.step = GraphedStep(self.update, allowed=allowed) if is_captured else self.update

    def set_learning_rate(self, rate: float) -> None:
        """On CUDA into one tensor that stays where it is, for a captured step reads it there."""
        on_cuda = self.device.type == "cuda"
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.fill_(rate) if on_cuda else rate

    def end_step(self) -> None:
        """Look whether one's own network is what it was, and let an average of the weights follow."""
        if self.inventory is not None:
            self.inventory.require_same()
        self.steps_done += 1
        if is_looked_at(self.steps_done):
            self.require_no_memory()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def require_no_memory(self) -> None:
        """One's own loss is still what it was when it was made.

        Raises
        ------
        RunError
        """
        if not self.has_own_loss:
            return
        number = min(self.classes + 2, self.config.batch_size, trials.MOST_LOOKED_AT)
        features = ()
        if self.criterion.needs_features:
            widths = [one.shape[1] for one in self.model.classifier.parameters() if one.ndim == 2]
            features = (torch.ones(number, *widths[:1], device=self.device),)
        logits = torch.zeros(number, self.classes, device=self.device)
        try:
            remembers = trials.remembers(
                self.criterion, lambda: self._new_loss().to(self.device), logits, *features
            )
        except Exception as error:  # made-up logits are none for it: real ones will tell
            if raised_by_handler(error):
                raise
            return
        if remembers:
            name = self.config.stages[self.index].loss
            raise RunError(trials.FORGETFUL.format(f"The loss {name!r}"))

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated: the average where there is one."""
        return self.model if self.averaged is None else self.averaged.module


def is_looked_at(done: int) -> bool:
    """Whether one's own code is looked at after so many steps or epochs: 1, 2, 4, 8, …"""
    return done & (done - 1) == 0


def build_network(
    config: RunConfig, splits: Splits, device: torch.device
) -> tuple[nn.Module, set[Tensor], str]:
    """The network of a run as it begins, what of it never moves, and where its weights come from.

    ``config.frozen`` is a share of the parameter tensors that the network is built with: a classifier or
    class scales that a stage puts in are none of them.
    """
    model = build_model(config, splits)
    initialisation = models.load_weights(model, config.weights)
    models.freeze(model, config.frozen)
    if isinstance(model, models.Backbone):
        models.try_out(
            lambda: build_model(config, splits), config.model, image_shape(config, splits)
        )
    frozen = {tensor for tensor in model.parameters() if not tensor.requires_grad}
    return model.to(device, memory_format=torch.channels_last), frozen, initialisation


def build_model(
    config: RunConfig, splits: Splits, stream: str = "initialisation", *counters: int
) -> nn.Module:
    """A network with weights drawn from a stream of the run's own."""
    is_own = not identity.is_built_in("model", config.model)
    with seeds.seeded(config.seed, stream, *counters, everywhere=is_own):
        return models.build(
            config.model,
            splits.num_classes,
            config.head,
            in_channels=splits.channels,
            head_scale=1.0 if config.scales_itself else COSINE_SCALE,
        )


def let_move(model: nn.Module, trains: str, frozen: set[Tensor]) -> None:
    """Let gradients reach what a stage trains, and nothing else."""
    model.requires_grad_(False)
    if trains == "all":
        moving = [tensor for tensor in model.parameters() if tensor not in frozen]
    elif trains == "classifier":
        moving = list(model.classifier.parameters())
    else:
        moving = [model.classifier.scales]
    for tensor in moving:
        tensor.requires_grad_(True)


def stage_loss(config: RunConfig, stage: Stage, class_counts: np.ndarray, index: int) -> nn.Module:
    """The loss of a stage of the run, its ``index``-th, with the run's label smoothing."""
    smoothing = config.label_smoothing
    if config.label_aware_smoothing:
        try:
            smoothing = label_aware_smoothing(class_counts, config.label_aware_smoothing)
        except ValueError as error:  # of a data set whose number of classes only its images tell
            raise ConfigError(f"`label_aware_smoothing`: {error}") from error
    if identity.is_built_in("loss", stage.loss):
        return build_loss(stage, class_counts, smoothing)
    with seeds.seeded(config.seed, "loss", index, everywhere=True):
        return build_loss(stage, class_counts, smoothing)


def require_samplers(config: RunConfig, class_counts: np.ndarray) -> None:
    """Ask the samplers of a run for every epoch's probabilities; ConfigError for what are none."""
    for scheme in {config.sampler, *(stage.sampler for stage in config.stages)}:
        for epoch in range(config.epochs):
            progress = epoch / max(config.epochs - 1, 1)
            sampling.sampling_probabilities(class_counts, scheme, progress)


def require_losses(config: RunConfig, class_counts: np.ndarray) -> None:
    """Make the loss of every stage once: the last one's fault is known before the first epoch.

    Raises
    ------
    ConfigError
        Naming the stage, its loss and what is wrong with it.
    """
    for number, stage in enumerate(config.stages, start=1):
        try:
            loss = stage_loss(config, stage, class_counts, number - 1)
            if not identity.is_built_in("loss", stage.loss):
                trials.require_works(loss, len(class_counts))
            if config.mix != "none":
                trials.require_mixable(loss, len(class_counts))
        except ConfigError:
            raise
        except Exception as error:  # whatever somebody's own code raises
            what = f"there is no {said(error)}" if isinstance(error, KeyError) else said(error)
            raise ConfigError(
                f"Stage {number} of the recipe {config.recipe!r} cannot make its loss {stage.loss!r}: "
                f"{what}. Expected a loss, options and class weights that suit {len(class_counts)} "
                f"classes of {class_counts.min():,} to {class_counts.max():,} training images."
            ) from error
