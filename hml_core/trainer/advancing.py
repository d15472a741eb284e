"""A run on its way, as those see it who keep it in a checkpoint or look at it meanwhile."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hml_core.config import RunConfig
from hml_core.datasets import Splits
from hml_core.trainer.epochs import Epoch, Shares
from hml_core.trainer.evaluation import Evaluator
from hml_core.trainer.phase import Phase
from hml_core.trainer.world import World


class Keeper(Protocol):
    """What can be kept in a checkpoint beside the run."""

    def state(self, epoch: int) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any], epoch: int) -> None: ...


class Advancing(Protocol):
    """A run on its way: :class:`hml_core.trainer.loop.Trainer`, which says what these are."""

    config: RunConfig
    splits: Splits
    device: torch.device
    world: World
    shares: Shares
    model: nn.Module
    phase: Phase | None
    evaluator: Evaluator
    views: Keeper
    current: Epoch | None
    epoch: int
    seconds: float
    stage_ends: tuple[int, ...]
    history: list[dict[str, Any]]
    confidence: list[Tensor]
    branch: dict[str, Any] | None

    def enter_stage(self, index: int) -> None: ...
    def set_stage_ends(self, stage_ends: tuple[int, ...]) -> None: ...
    def require_finite(self, losses: Tensor) -> None: ...
    def restore(self, state: dict[str, Any]) -> None: ...
