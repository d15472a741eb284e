"""Grids of runs: what a table or a sweep's file describes, as configurations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from hml_core import recipes
from hml_core.config.run_config import RunConfig
from hml_core.config.settings import SETTINGS
from hml_core.errors import ConfigError
from hml_core.system.quantities import require_size

FOLLOWS_SEED = "seed"  # in place of a subset's seed
HARD_MINING_OPTIONS = (
    "delta",
    "weighting",
    "weight_placement",
    "loss_scale",
    "mean_over",
    "switch_patience",
)


def grid(
    *,
    recipe: Sequence[str] | str,
    hard_mining: Mapping[str, Any] | None = None,
    **fields: Any,
) -> list[RunConfig]:
    """The configurations of a table: the product of every field that is given as a list.

    ``hard_mining`` holds options (and ``switch_patience``) that reach the recipes of the hard-mining loss
    alone, each where the recipe leaves it open (``dhml2`` has no δ, that of ``hml2`` is fixed under the
    protocol "official"), so that one call describes them beside their baselines.
    A list among ``options`` is a dimension, too, and so is a list of whole ``options``.
    ``subset_seed="seed"`` draws another subset for each seed (0 has the standard one). Duplicates are
    dropped.

    >>> configs = grid(recipe=["ce", "hml1"], seed=[0, 1], hard_mining={"delta": 1e3})
    >>> [config.run_id.rsplit("-", 1)[0] for config in configs]
    ['digits-exp20-ce-s0', 'digits-exp20-ce-s1', 'digits-exp20-hml1-s0', 'digits-exp20-hml1-s1']

    Raises
    ------
    ConfigError
        For an unknown field, or a value that cannot be trained with.
    """
    if not isinstance(hard_mining, Mapping | None):
        raise ConfigError(f"Expected `hard_mining` to be `name: value` pairs, got {hard_mining!r}.")
    for name in (*fields, *(hard_mining or {})):
        if name not in SETTINGS:
            raise ConfigError(
                f"RunConfig has no field {name!r}: an option of a recipe of one's own stands in "
                f"`options`, as `options: {{{name}: …}}` in a file."
            )
    if not isinstance(recipe, str | list | tuple) or not all(isinstance(r, str) for r in recipe):
        raise ConfigError(f"Expected `recipe` to be a name or a list of names, got {recipe!r}.")
    if wrong := [name for name in hard_mining or {} if name not in HARD_MINING_OPTIONS]:
        raise ConfigError(
            f"Expected `hard_mining` to hold {', '.join(HARD_MINING_OPTIONS)}, got {wrong}."
        )
    configs = {}
    for one in [recipe] if isinstance(recipe, str) else recipe:
        own = dict(fields)
        if recipes.is_hard_mining(one):
            has = {*recipes.options(one)}
            has |= {"switch_patience"} if len(recipes.get(one).stages) > 1 else set()
            own |= {name: value for name, value in (hard_mining or {}).items() if name in has}
        axes = [_axis(name, value) for name, value in own.items()]
        require_size(axes, "a grid")
        for point in itertools.product(*axes):
            values = dict(zip(own, point, strict=True))
            if values.get("protocol") == "official":
                fixed = {*recipes.official_options(one)} & {*(hard_mining or {})}
                values = {name: value for name, value in values.items() if name not in fixed}
            if values.get("subset_seed") == FOLLOWS_SEED:
                values["subset_seed"] = values.get("seed", 0)
            config = RunConfig(recipe=one, **values)
            configs[config.run_id] = config
    return list(configs.values())


def _axis(name: str, value: Any) -> list[Any]:
    """The values of a field in a grid."""
    if name == "options" and isinstance(value, Mapping):
        axes = [_axis(option, given) for option, given in value.items()]
        require_size(axes, "`options`")
        return [dict(zip(value, point, strict=True)) for point in itertools.product(*axes)]
    return value if isinstance(value, list) else [value]


def grids(values: Mapping[str, Any]) -> list[RunConfig]:
    """Several grids that share fields, as a sweep's file describes them.

    ``values`` are the arguments of :func:`grid`; without a recipe they have a config's. Under ``grids``
    may stand a list of such mappings, each of which adds to the shared fields or replaces them. All runs
    of a seed come before those of the next, so that a sweep which is cut short has whole seeds.

    >>> shared = {"seed": [0, 1], "grids": [{"recipe": "ce"}, {"recipe": "focal", "gamma": [1.0, 2.0]}]}
    >>> [(config.seed, config.recipe, config.gamma) for config in grids(shared)][:3]
    [(0, 'ce', None), (0, 'focal', 1.0), (0, 'focal', 2.0)]

    Raises
    ------
    ConfigError
        As :func:`grid`, or where ``grids`` is no list of mappings.
    """
    parts = values.get("grids", [{}])
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise ConfigError(f"Expected `grids` to be a list of `name: value` pairs, got {parts!r}.")
    shared = {name: value for name, value in values.items() if name != "grids"}
    configs = {}
    for part in parts:
        for config in grid(**{"recipe": RunConfig.recipe, **shared, **part}):
            configs[config.run_id] = config
    return sorted(configs.values(), key=lambda config: config.seed)
