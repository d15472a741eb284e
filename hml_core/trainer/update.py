"""One update of a network: what a step works on, the loss of a stage, its optimiser."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hml_core import imbalance
from hml_core.augment import Mix, remix_share
from hml_core.config import RunConfig
from hml_core.errors import RunError
from hml_core.losses import wrapping
from hml_core.models import training
from hml_core.recipes import Stage
from hml_core.system import registries
from hml_core.system.devices import Beside, autocast
from hml_core.trainer.chance import LayerChance
from hml_core.trainer.feeds import Feed
from hml_core.trainer.world import World


@dataclass(frozen=True)
class MicroBatch:
    """Images that pass the network together, with their classes int64 (M,) and how they are mixed."""

    payload: Any
    target: Tensor
    mix: Mix | None


Batch = tuple[MicroBatch, ...]
Step = Callable[[Batch], tuple[Tensor, Tensor, Tensor]]


class Update:
    """The update of a network by one batch, in one stage of a run.

    Parameters
    ----------
    config : RunConfig
    model : nn.Module
        With the parameters that this stage trains left to require gradients.
    optimizer : torch.optim.Optimizer
    criterion : nn.Module
    feed : Feed
        Makes images of payloads.
    class_counts : Tensor
        int64 (C,), on the device.
    device : torch.device
    autocast_dtype : torch.dtype or None
    trains_all : bool
        False: the network up to its classifier is frozen.
    world : World
        Gradients are averaged over its processes.
    chance : LayerChance
        In which the layers of a micro-batch draw (dropout).
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: nn.Module,
        feed: Feed,
        class_counts: Tensor,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
        *,
        trains_all: bool,
        world: World,
        chance: LayerChance,
    ) -> None:
        self.config, self.optimizer, self.criterion, self.feed = config, optimizer, criterion, feed
        self.class_counts, self.device, self.autocast_dtype = class_counts, device, autocast_dtype
        self.world, self.chance = world, chance
        self.beside = Beside(device)
        features = training.features_of(model, device, autocast_dtype, compiled=config.compile)
        self.network: nn.Module = _TwoParts(model, features, trains_all)
        if world.size > 1:
            self.network = _parallel(self.network, device)
        self.norms = [
            (layer, layer.momentum)
            for layer in model.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is not None
        ]

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Update the network once: loss (), probability of the true class (B,) and hits ().

        A function of tensors alone, so that it can be captured, see :mod:`hml_core.trainer.cuda_graphs`.
        """
        self.optimizer.zero_grad(set_to_none=True)
        losses, found = [], []
        with self.beside() as beside:
            for number, (part, share) in enumerate(zip(batch, self._shares(batch), strict=True)):
                is_last = number == len(batch) - 1
                self._follow(number, len(batch))
                with self._alone(not is_last), self.chance.of_part(number):
                    loss, logits = self._loss(part)
                    self._require_trainable(loss)
                    loss = loss * share
                    found.append(beside(self._found, logits.detach(), part.target))
                    loss.backward()
                losses.append(loss.detach())
        probabilities, hits = zip(*found, strict=True)
        for layer, momentum in self.norms:
            layer.momentum = momentum
        self.optimizer.step()
        if len(batch) == 1:
            return losses[0], probabilities[0], hits[0]
        return torch.stack(losses).sum(), torch.cat(probabilities), torch.stack(hits).sum()

    def _found(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Of logits (M, C), the probability of the true class (M,) and the hits ()."""
        probability = (logits.float() * self.criterion.logit_scale).softmax(dim=1)
        hits = (probability.argmax(dim=1) == target).sum()
        return probability.gather(1, target[:, None])[:, 0], hits

    def _shares(self, batch: Batch) -> list[float | Tensor]:
        """What the mean loss of each micro-batch is multiplied with, so that gradients, averaged over the
        processes, are those of the mean over the whole batch."""
        if len(batch) == self.world.size == 1:
            return [1.0]
        weights = [
            self.criterion.total_weight(part.target, *self._other_labels(part)) for part in batch
        ]
        if weights[0] is None:
            size = sum(len(part.target) for part in batch)
            return [len(part.target) / size for part in batch]
        total = torch.stack(weights).sum()
        if self.world.size > 1:
            dist.all_reduce(total)
        return [(self.world.size * weight / total).float() for weight in weights]

    def _loss(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Mean loss () and logits (M, C)."""
        images = self.feed.images(part.payload)  # (M, 3, H, W)
        if (mix := part.mix) is not None:
            images = torch.lerp(images[mix.partner], images, mix.share[:, None, None, None])
        with autocast(self.device, self.autocast_dtype):
            features, logits = self.network(images)  # (M, d), (M, C)
        extra = (features,) if self.criterion.needs_features else ()
        return self.criterion_of(logits, part, *extra), logits

    def _require_trainable(self, loss: Any) -> None:
        """RunError for what somebody's own loss gives and nothing can be learned from."""
        if not isinstance(loss, Tensor):
            got = repr(loss)
        elif loss.ndim == 0 and loss.is_floating_point() and loss.requires_grad:
            return
        else:
            has = "a" if loss.requires_grad else "no"
            got = f"{loss.dtype} of shape {tuple(loss.shape)} with {has} gradient"
        raise RunError(
            f"Expected the loss of a step of the run {self.config.run_id} to be one floating-point number "
            f"with a gradient, got {got}, of {', '.join(stage.loss for stage in self.config.stages)}."
        )

    def criterion_of(self, logits: Tensor, part: MicroBatch, *features: Tensor) -> Tensor:
        """Mean loss () of logits (M, C), and of features (M, d) where the loss takes them."""
        if part.mix is None:
            return self.criterion(logits, part.target, *features)
        return self.criterion.mixed(logits, part.target, *self._other_labels(part), *features)

    def _other_labels(self, part: MicroBatch) -> tuple[Tensor, ...]:
        """Of mixed images, the second label (M,) and the share of the first (M,)."""
        if part.mix is None:
            return ()
        other, share = part.target[part.mix.partner], part.mix.share
        if self.config.mix == "remix":
            counts = self.class_counts.float()
            share = remix_share(share, counts[part.target], counts[other])
        return other, share

    def _alone(self, alone: bool) -> contextlib.AbstractContextManager:
        """Gradients are exchanged once a step, with the last micro-batch."""
        if alone and self.world.size > 1:
            return self.network.no_sync()
        return contextlib.nullcontext()

    def _follow(self, number: int, of: int) -> None:
        """Let batch norms move by the mean of the micro-batches' statistics, whatever their order.

        With momenta m / (K − m·(K − 1 − i)) for i = 0 … K − 1 the running statistics r become
        (1 − m)·r + m·mean(s_i). That is linear in s: processes that each follow their own micro-batches
        need to average r only when it is used.
        """
        for layer, momentum in self.norms:
            layer.momentum = momentum / (of - momentum * (of - 1 - number))


def _parallel(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """The network, with gradients averaged over the processes; its buffers are left alone (_follow)."""
    takes = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in takes else "broadcast_buffers"
    return DistributedDataParallel(
        network,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{buffers: False},
    )


class _TwoParts(nn.Module):
    """A network as features and logits, in one call: (N, C, H, W) → (N, d), (N, classes)."""

    def __init__(self, model: nn.Module, features: training.Features, trains_all: bool) -> None:
        super().__init__()
        self.model, self.features, self.trains_all = model, features, trains_all

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(self.trains_all):
            features = self.features(images)
        return features, self.model.classifier(features)


def build_optimizer(
    config: RunConfig, model: nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of what the model has to train; on CUDA its step can be captured."""
    trainable = [tensor for tensor in model.parameters() if tensor.requires_grad]
    shared = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "adam":
        return torch.optim.Adam(trainable, capturable=device.type == "cuda", **shared)
    return torch.optim.SGD(trainable, momentum=config.momentum, **shared)


@registries.asks("loss")
def build_loss(stage: Stage, class_counts: np.ndarray, label_smoothing=0.0) -> nn.Module:
    """The loss of a stage, with class counts, weights and smoothing filled in where it takes them."""
    weight = None
    if stage.weighting != "none":
        weight = imbalance.class_weights(class_counts, stage.weighting)
    options = stage.loss_options
    loss = wrapping.make(stage.loss_class, class_counts, options, weight, label_smoothing)
    return loss if stage.logit_scale == 1 else wrapping.ScaledLoss(loss, stage.logit_scale)
