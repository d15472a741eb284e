"""Common beginnings: which runs train the same up to which epoch, and where they part.

Two runs agree up to an epoch if they have the same network, images and chance and, in every epoch so far,
the same stage (loss, weights, sampler, what is trained) at the same learning rate. What happens later does
not matter, and neither does how the network is evaluated: CE, its τ-normalised classifier and a run that
leaves CE at half of its epochs are one training until they part. A sweep trains it once
(:mod:`hml_core.trainer.beginnings`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hml_core import schedule
from hml_core.config import OPTIONS, RunConfig, identity
from hml_core.errors import ConfigError
from hml_core.losses import LOSSES
from hml_core.recipes import Stage
from hml_core.system import fingerprints

# Fields that matter through the stages and learning rates that they lead to, epoch by epoch.
_BY_EPOCH = (
    "recipe",
    *OPTIONS,
    "stage_ends",
    "protocol",
    "early_drop",
    "learning_rate",
    "second_stage_rate",
    "lr_schedule",
    "warmup_epochs",
)
_OWN = ("dataset", "model", "sampler")  # what a user may bring, by the setting that names it
_OF_EVALUATION = ("evaluate_every", "post_hoc_tau")


@dataclass(frozen=True)
class Point:
    """An epoch after which runs part that are the same until then.

    Parameters
    ----------
    epoch : int
        From 1: how many epochs they share.
    key : str
        SHA-256 of everything that these epochs depend on.
    views : tuple of RunConfig
        One of the runs for each way in which they evaluate the network.
    """

    epoch: int
    key: str
    views: tuple[RunConfig, ...]

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "epoch": self.epoch,
            "key": self.key,
            "views": [view.to_dict() for view in self.views],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Point:
        """The inverse of :meth:`to_dict`."""
        views = tuple(RunConfig.from_dict(view) for view in values["views"])
        return cls(values["epoch"], values["key"], views)


def prefixes(config: RunConfig) -> list[str]:
    """A key for each epoch; two runs with the same key train the same up to the end of that epoch."""
    shared = {
        known.name: getattr(config, known.name)
        for known in dataclasses.fields(config)
        if known.name not in (*_BY_EPOCH, *_OF_EVALUATION)
    }
    shared["classifier"] = config.method.head, config.scales_itself
    given = [config.options]
    shared["own"] = [identity.digest(kind, getattr(config, kind), given) for kind in _OWN]
    if config.switch_patience:  # it switches when its own evaluations say so
        shared["whole"] = config.hash
    digest = hashlib.sha256(json.dumps(shared, sort_keys=True).encode())
    stages, found = config.stages, []
    contents = [_content(stage, given) for stage in stages]
    for epoch, rate in enumerate(schedule.learning_rates(config)):
        index = schedule.stage_of_epoch(config.stage_ends, epoch)
        digest.update(f"{index} {contents[index]} {float(rate).hex()}".encode())
        if config.early_stopping and index == len(stages) - 1:  # its evaluations may end it
            digest.update(evaluation(config).encode())
        found.append(digest.hexdigest())
    return found


def _content(stage: Stage, given_to_all: Sequence[Any] = ()) -> str:
    """What a stage does in every epoch; options that are left out are those of the loss."""
    # A loss that is not there is that run's error when it is trained, not the sweep's.
    known = stage.loss in LOSSES
    parameters = inspect.signature(LOSSES[stage.loss]).parameters if known else {}
    options = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    } | dict(stage.loss_options)
    if stage.weighting == "none":
        options.pop("mean_over", None)
    given = sorted((name, _text(value, options)) for name, value in options.items())
    shown = stage.loss, given, stage.weighting, stage.sampler, stage.trains, stage.logit_scale
    # A beginning stays on disk where a sweep was killed: an edit since then makes it another's.
    own = (("loss", stage.loss), ("sampler", stage.sampler))
    return repr((shown, *(identity.digest(*one, [options, *given_to_all]) for one in own)))


def _text(value: Any, options: Mapping[str, Any]) -> str:
    """An option as text; a default that has no identity is the same for all runs of this process."""
    try:
        return fingerprints.of_value(value, given=options.values())
    except ConfigError:
        return repr(value)


def evaluation(config: RunConfig) -> str:
    """What the evaluations of a run depend on, beside its network: text."""
    method = config.method
    tau = method.options["tau"] if method.post_hoc == "tau_norm" else None
    own = [getattr(config, name) for name in _OF_EVALUATION]
    return json.dumps([method.post_hoc, tau, *own])


def plan(configs: Iterable[RunConfig]) -> dict[str, tuple[Point, ...]]:
    """For each run (by run_id), the points where others part from it, in the order of their epochs."""
    runs = {config.run_id: config for config in configs}
    keys = {run_id: prefixes(config) for run_id, config in runs.items()}
    members = defaultdict(list)
    for run_id, own in keys.items():
        for key in own:
            members[key].append(run_id)

    def point(epoch: int, key: str) -> Point:
        views = {evaluation(runs[run_id]): runs[run_id] for run_id in members[key]}
        return Point(epoch, key, tuple(views.values()))

    found = {}
    for run_id, own in keys.items():
        numbers = [len(members[key]) for key in own]
        after = [*numbers[1:], 1]
        found[run_id] = tuple(
            point(epoch, own[epoch - 1])
            for epoch, (now, then) in enumerate(zip(numbers, after, strict=True), start=1)
            if now > then
        )
    return found


def epochs_to_train(configs: Sequence[RunConfig]) -> int:
    """Epochs that a sweep over unfinished runs trains, where each beginning is trained once."""
    return len({key for config in configs for key in prefixes(config)})
