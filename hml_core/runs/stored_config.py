"""The config of a record, also where what it names is somebody's own and not registered here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hml_core.config import RunConfig, identity
from hml_core.errors import ConfigError, UnknownMethodError
from hml_core.system import files


@dataclass(frozen=True)
class StoredConfig:
    """The config of a run whose method is not registered here: its fields, as they were written."""

    fields: Mapping[str, Any]
    hash: str
    run_id: str

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.fields:
            raise AttributeError(f"The stored config has no field {name!r}.")
        return self.fields[name]

    def to_dict(self) -> dict[str, Any]:
        """Every field, in plain JSON types."""
        return dict(self.fields)

    def to_json(self) -> str:
        """Canonical JSON, as it was written."""
        return json.dumps(self.fields, sort_keys=True)


def read_config(
    content: str, metrics: Mapping[str, Any]
) -> tuple[RunConfig | StoredConfig, tuple[str, ...]]:
    """The config, and what of somebody's own in it is not registered here as it was then.

    Parameters
    ----------
    content : str
        What the record's ``config.json`` holds.
    metrics : mapping
        Those of the record, whose seal was found to hold.

    Raises
    ------
    UnknownMethodError
        Where nothing tells what the code of somebody's own method was.
    ConfigError, ValueError, KeyError
        Where the config is not what was written, or no config.
    """
    if metrics["files"]["config.json"] != files.sha256_of(content.encode()):
        raise ValueError("config.json is not what was written")
    fields = json.loads(content)
    own = tuple(metrics.get("own") or ())
    try:
        config = RunConfig.from_json(content)
        if config.hash == metrics["config_hash"]:
            return config, ()
    except ConfigError:
        if not own and not (own := _unregistered(fields)):
            raise
        if "own" not in metrics:
            raise UnknownMethodError(
                f"was made with the {', '.join(own)}, not registered here (`--import` brings it)."
            ) from None
    if not own:
        if not identity.is_built_in("recipe", config.recipe):
            raise UnknownMethodError(
                f"was made with the recipe {config.recipe!r} of somebody's own by an earlier version, "
                "which did not keep what its code was."
            )
        return config, ()
    fields = {name: math.inf if value == "inf" else value for name, value in fields.items()}
    return StoredConfig(fields, metrics["config_hash"], metrics["run_id"]), own


def _unregistered(fields: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = {"recipe": "recipe", "dataset": "dataset", "model": "model", "sampler": "sampler"}
    return tuple(
        f"{kind} {fields[name]!r}"
        for name, kind in kinds.items()
        if isinstance(fields.get(name), str) and fields[name] not in identity.REGISTRIES[kind]
    )
