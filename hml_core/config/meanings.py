"""Where the meaning of a config has changed: what makes an old record another run than a new one.

A run's id is made of its config. Where the code behind an unchanged config was corrected so that it trains
something else, an entry here gives the config another id, so that no old record is taken for a new one.
Everything that is not named here keeps its id from release to release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hml_core import datasets
from hml_core.config.settings import Settings
from hml_core.schedule import ENDING


def _unit_class_vectors(config: Settings) -> bool:
    """Class vectors of a cosine head start at norm 1, and the network draws its convolutions as with a
    linear head. Before, at norms about √(d/3), and from other draws."""
    return config.head == "cosine"


def _own_rate(config: Settings) -> list[float] | None:
    """IB trains its second stage at 0.01 of the rate. Before, at the rate of every other recipe."""
    scales = [stage.own_learning_rate_scale for stage in config.stages]
    return scales if config.method.has_own_schedule else None


def _new_classifier(config: Settings) -> bool:
    """cRT draws its second classifier anew. Before, it was the first one's initial state."""
    return any(stage.trains == "classifier" for stage in config.stages[1:])


def _ended_schedule(config: Settings) -> bool:
    """A cosine or a cycle is over before the classifier is re-trained. Before, it was cut off."""
    restarts = any(stage.restart for stage in config.stages[1:])
    return restarts and config.lr_schedule in ENDING


def _drawn_validation(config: Settings) -> bool:
    """The validation split of a training set that is kept as it is, is drawn. Before, it was each class's
    last images by name. (Image files of an archive have always been drawn.)"""
    streamed = datasets.info(config.dataset).streamed
    return config.imbalance_type == "natural" and config.validation_fraction > 0 and not streamed


CHANGES: dict[str, Callable[[Settings], Any]] = {
    "unit class vectors": _unit_class_vectors,
    "own rate": _own_rate,
    "new classifier": _new_classifier,
    "ended schedule": _ended_schedule,
    "drawn validation": _drawn_validation,
}


def changes(config: Settings) -> dict[str, Any]:
    """The changes that concern a config; a new one may be added, none may be taken away."""
    found = {name: concerns(config) for name, concerns in CHANGES.items()}
    return {name: value for name, value in found.items() if value}
