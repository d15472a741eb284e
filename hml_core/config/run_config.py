"""The complete description of one run: filled in, checked, frozen, hashable to a ``run_id``."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hml_core import datasets, recipes
from hml_core.config import identity, meanings, rules
from hml_core.config.declaration import documented
from hml_core.config.options import Options
from hml_core.config.settings import OPTIONS, SETTINGS, Settings, require_fields
from hml_core.errors import ConfigError
from hml_core.recipes import boundary
from hml_core.schedule import WARM_UP
from hml_core.system.quantities import told

MOST_LOOKED_AT = 10_000  # epochs
# Whether a config is read that was accepted once.
_is_stored: ContextVar[bool] = ContextVar("is_stored", default=False)
_WEIGHTING_ALIASES = {"cost_sensitive": "CS", "class_balanced": "CB"}


@documented
@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """One training run, as data. Where it runs (device, folders) is not part of it.

    A setting left at None takes the default of the data set, of the recipe (its options and
    ``stage_ends``) or of the protocol (``early_drop``); afterwards none is None but ``image_size`` and the
    options that the recipe does not have. :mod:`hml_core.config.settings` declares them.

    Parameters
    ----------
    {settings}

    Raises
    ------
    ConfigError
        For any value that cannot be trained with, naming it and what was expected.

    Examples
    --------
    >>> config = RunConfig(dataset="digits", recipe="hml1", epochs=20, seed=3)
    >>> config.delta, config.stage_ends, config.model
    (10000.0, (10,), 'resnet8')
    >>> RunConfig.from_json(config.to_json()) == config
    True
    """

    def __post_init__(self) -> None:
        self._settle_types()
        info = datasets.info(self.dataset)
        known_options = recipes.options(self.recipe)
        self._fill_official()
        fallbacks = {name: known.fallback for name, known in SETTINGS.items()}
        if unknown := [name for name in info.defaults if name not in SETTINGS]:
            raise ConfigError(
                f"The data set {self.dataset!r} has a default for {unknown[0]!r}, which is no setting of "
                f"a run: expected some of {', '.join(SETTINGS)}."
            )
        for name, value in {**fallbacks, **info.defaults}.items():
            if isinstance(value, Mapping):
                value = value.get(self.protocol)
            if callable(value):
                value = value(self)
            if name not in OPTIONS or name in known_options:
                self._fill(name, value)
        for name, known in SETTINGS.items():
            known.check_range(getattr(self, name))
        rules.numbers(self)
        self._fill_recipe()
        self._fill("early_drop", self._drops_early())
        steps = self.lr_schedule == "steps"
        self._fill("warmup_epochs", boundary(WARM_UP, self.epochs) if steps else 0)
        for name, known in SETTINGS.items():
            value = getattr(self, name)
            known.check_choice(value, rules.hint(name, value))
        rules.combination(self, is_stored=_is_stored.get())

    # Filling in ---------------------------------------------------------------------------------

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _fill(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            known = SETTINGS[name]
            self._set(
                name, known.settled(value)
            )  # an int would be another run once it is read again
            known.check_range(getattr(self, name))

    def _settle_types(self) -> None:
        """Refuse a value of the wrong type; an int is accepted (and made a float) for a float."""
        if isinstance(self.options, Mapping):
            self._set("options", Options(self.options))
        for name, known in SETTINGS.items():
            self._set(name, known.settled(getattr(self, name)))

    def _fill_official(self) -> None:
        """What the authors' code sets by itself, in a run that is to do what it does."""
        if self.protocol != "official":
            return
        for name, value in recipes.official_options(self.recipe).items():
            self._fill(name, value)
            if getattr(self, name) != value:
                raise ConfigError(
                    f"The authors' code runs {self.recipe!r} with `{name}` {value:g}, whatever it is "
                    "asked for: expected that, none, or the protocol 'controlled', "
                    f"got {getattr(self, name)!r}."
                )

    def _fill_recipe(self) -> None:
        if self.weighting is not None:
            self._set("weighting", _WEIGHTING_ALIASES.get(self.weighting, self.weighting))
        given = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        for name in self.options:
            if name in SETTINGS:
                raise ConfigError(
                    f"`{name}` is a setting of its own: expected it beside `options`, not in it."
                )
        defaults = recipes.options(self.recipe)
        if shadows := [name for name in defaults if name in SETTINGS and name not in OPTIONS]:
            raise ConfigError(
                f"`{shadows[0]}` is a setting of every run, and no option of the recipe {self.recipe!r} "
                "may be called so: expected another name."
            )
        own = dict(self.options)
        for name, value in own.items():
            if type(value) is int and type(defaults.get(name)) is float:
                own[name] = float(value)  # 2 and 2.0 are one run
        recipe = recipes.get(self.recipe, **given, **own)
        others = {}
        for name, value in recipe.options.items():
            if name in OPTIONS:
                self._fill(name, value)
            else:
                others[name] = value
        self._set("options", Options(others))
        self._fill("head", recipe.head)
        if recipe.head == "cosine" and self.head != "cosine":
            raise ConfigError(
                f"The recipe {self.recipe!r} puts margins on cosines: expected `head` 'cosine', "
                f"got {self.head!r}."
            )
        fractions = [stage.until for stage in recipe.stages[:-1]]
        if self.stage_ends is None:
            _require_epochs(self.recipe, fractions, self.epochs)
        self._fill("stage_ends", tuple(boundary(until, self.epochs) for until in fractions))
        if len(self.stage_ends) != len(fractions):
            raise ConfigError(
                f"Expected `stage_ends` with {len(fractions)} epoch(s), one less than the "
                f"{len(recipe.stages)} stage(s) of {self.recipe!r}, got {self.stage_ends}."
            )
        bounds = (0, *self.stage_ends, self.epochs)
        if any(end <= start for start, end in itertools.pairwise(bounds)):
            raise ConfigError(
                "Expected `stage_ends` to rise strictly between 0 and the "
                f"{self.epochs} epochs of the run, got {self.stage_ends}."
            )

    def _drops_early(self) -> bool:
        scales = {stage.learning_rate_scale for stage in self.stages}
        return self.protocol == "official" and self.lr_schedule == "steps" and scales != {1.0}

    # Reading ------------------------------------------------------------------------------------

    @property
    def scales_itself(self) -> bool:
        """Whether a loss of the recipe scales the cosines of a cosine head."""
        return self.method.scales_itself

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable first, then a hash of every field that matters."""
        ratio = f"{self.imbalance_ratio:g}".replace(".", "p").replace("+", "")
        if self.imbalance_type == "natural" and self.imbalance_ratio == 1:
            ratio = ""  # it has no meaning there
        slug = f"{self.dataset}-{self.imbalance_type}{ratio}-{self.recipe}-s{self.seed}"
        return f"{re.sub(r'[^A-Za-z0-9_-]', '', slug)}-{self.hash[:10]}"

    @property
    def hash(self) -> str:
        """SHA-256 over the canonical JSON of the fields; tricks that are off do not enter it.

        A field for a new trick can therefore be added without orphaning the runs made before it, and so
        can an option of a recipe (``added`` of :func:`hml_core.recipes.register`).
        """
        added = recipes.added_options(self.recipe)
        matters = {}
        for name, known in SETTINGS.items():
            value = getattr(self, name)
            if not (value == added[name] if name in added else known.is_off(value)):
                matters[name] = value
        if own := identity.own_part(self):
            matters["own"] = own
        if changed := meanings.changes(self):
            matters["changes"] = changed
        return hashlib.sha256(_dump(matters).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Every field, in plain JSON types."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON (sorted keys; an infinite δ is the string "inf")."""
        return _dump(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_dict`; an unknown field is an error."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"Expected the fields of a RunConfig as a mapping, got {values!r}.")
        require_fields(values)
        values = dict(values)
        if values.get("delta") == "inf":
            values["delta"] = math.inf
        before = _is_stored.set(True)
        try:
            return cls(**values)
        finally:
            _is_stored.reset(before)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """The inverse of :meth:`to_json`.

        Raises
        ------
        ConfigError
            For what is no JSON, for a name that stands twice, and as :meth:`from_dict` does.
        """
        try:
            values = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:  # (nested too deeply)
            raise ConfigError(f"Expected the JSON of a RunConfig: {error}") from error
        return cls.from_dict(values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of JSON, which would hold the last of what stands there under one name."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the name {told(name)} stands twice")
        values[name] = value
    return values


def _dump(values: Mapping[str, Any]) -> str:
    plain = {key: "inf" if value == math.inf else value for key, value in values.items()}
    return json.dumps(plain, sort_keys=True, allow_nan=False)


def _require_epochs(recipe: str, fractions: list[float], epochs: int) -> None:
    """ConfigError for so few epochs that one of the stages, which end by themselves, would have none."""

    def has_room(epochs: int) -> bool:
        ends = (0, *(boundary(until, epochs) for until in fractions), epochs)
        return all(start < end for start, end in itertools.pairwise(ends))

    if not has_room(epochs):
        least = next(
            (number for number in range(epochs + 1, MOST_LOOKED_AT) if has_room(number)), None
        )
        parts = ", ".join(f"{until:g}" for until in fractions)
        raise ConfigError(
            f"Expected `epochs` ≥ {least} for the recipe {recipe!r}, whose stages end at {parts} of the "
            f"run, got {epochs}: one of them would have no epoch. (`stage_ends` sets the ends by hand.)"
        )
