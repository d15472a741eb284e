"""The weights of a run, where they were asked for: ``weights.safetensors`` beside the record.

The file holds the tensors of the network that was evaluated and, as JSON in its header, what
:func:`hml_core.models.trained.rebuilt` needs besides. ``metrics.json`` holds its SHA-256, as of every file
of the record. Somebody may remove it to save room: the record holds without.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hml_core.errors import ConfigError, RunError
from hml_core.models import described as parts
from hml_core.models import trained
from hml_core.system import files

NAME = "weights.safetensors"
SELECTIONS = {
    "last": "last",
    "best": "best_validation",
}  # of each choice: the epoch, by its selection
HEADER = "hml"


def require_choice(keep_weights: str | None) -> str | None:
    """What may be asked for, with what it needs installed.

    Raises
    ------
    ConfigError
    """
    if keep_weights is None:
        return None
    if not isinstance(keep_weights, str) or keep_weights not in SELECTIONS:
        raise ConfigError(
            f"Expected `keep_weights` to be one of {', '.join(SELECTIONS)}, or None, got {keep_weights!r}."
        )
    if importlib.util.find_spec("safetensors") is None:
        raise ConfigError(
            "Keeping weights needs safetensors, which is not installed: pip install safetensors. Expected "
            "that, or `keep_weights` None."
        )
    return keep_weights


def to_bytes(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> bytes:
    """The content of the file: of the same run the same bytes."""
    from safetensors import torch as safetensors

    # One entry alone: safetensors writes several in any order.
    header = {HEADER: json.dumps(described, sort_keys=True)}
    return safetensors.save(dict(tensors), metadata=header)


def read(path: Path) -> trained.TrainedModel:
    """The network in a file of ours.

    Raises
    ------
    RunError, ConfigError
        For a file that is damaged or of another form; a model that is not registered here.
    """
    require_choice("last")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            described = json.loads((stored.metadata() or {})[HEADER])
            # Each in memory of its own: they are parts of one buffer as they come.
            tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
        parts.require(described, tensors)
        return trained.rebuilt(tensors, described)
    except ConfigError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{str(path)!r} does not hold the weights of a network as this version keeps them: {error}"
        ) from error


def describe(which: str, epoch: int) -> dict[str, Any]:
    """What ``metrics.json`` says of the weights."""
    return {"which": which, "epoch": epoch}


def are_there(folder: Path, metrics: Mapping[str, Any], which: str | None = None) -> bool:
    """Whether a record has weights, and where ``which`` is given, of that epoch."""
    told = metrics.get("kept_weights")
    if told is None or not (folder / NAME).is_file():
        return False
    if which is None or told["which"] == which:
        return True
    chosen = metrics["selections"][SELECTIONS[which]]
    return chosen is not None and chosen["epoch"] == told["epoch"]


def not_kept(run_id: str, folder: Path, metrics: Mapping[str, Any], which: str) -> RunError:
    """The error of a finished run that has not kept what is asked for: it says what to do."""
    return RunError(
        f"The run {run_id} is finished {_without(folder, metrics, which)}, and they can be had only by "
        "training it again: expected `retrain` (`--retrain`), which moves its record aside first; another "
        "`runs_root`; or no `keep_weights`."
    )


def _without(folder: Path, metrics: Mapping[str, Any], which: str) -> str:
    told = metrics.get("kept_weights")
    if told is not None and (folder / NAME).is_file():
        return f"with the weights of its epoch {told['epoch']} ({told['which']}), not of {which!r}"
    return "without weights" if told is None else "and its weights were removed"


def load(run_id: str, folder: Path, metrics: Mapping[str, Any]) -> trained.TrainedModel:
    """The network of a finished run.

    Raises
    ------
    RunError
        Where none was kept, or the file is not what was written.
    """
    if not are_there(folder, metrics):
        why = "kept no weights" if metrics.get("kept_weights") is None else "has lost its weights"
        raise RunError(
            f"The run {run_id} {why}: expected one that was trained with `keep_weights` (`hml train "
            "--keep-weights last`; with `--retrain` this one is trained again)."
        )
    path = folder / NAME
    if files.sha256(path, files.LARGEST_DATA) != metrics["files"][NAME]:
        raise RunError(f"The run {run_id} is damaged: {NAME} is not what was written.")
    return read(path)
