"""What of one's own a run uses: the list that its identity, and every engine that sends it away, goes by.

One's own is a loss, recipe, model, data set or sampler that a user has registered, or put in the place of
one of this package. It enters a run's identity by its code (:mod:`hml_core.system.fingerprints`), so that
an edit gives another run. What this package brings never does: its ids stay from release to release.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hml_core import datasets, losses, models, recipes, sampling  # noqa: F401  (they are registries)
from hml_core.config.settings import Settings
from hml_core.system import fingerprints, registries
from hml_core.system.fingerprints import Code

REGISTRIES: dict[str, dict[str, Any]] = {
    kind: one.entries for kind, one in registries.known.items()
}


@dataclass(frozen=True)
class Own:
    """Something of one's own that a run uses: which registry has it, under which name."""

    kind: str
    name: str

    @property
    def entry(self) -> Any:
        """What the registry holds."""
        return REGISTRIES[self.kind][self.name]

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


def is_built_in(kind: str, name: str) -> bool:
    """Whether the name stands for what this package brings under it."""
    registry = registries.known[kind]
    return name in registry.entries and not registry.is_own(name)


def used(config: Settings) -> tuple[Own, ...]:
    """What of one's own a run uses, in a fixed order."""
    names = [("recipe", config.recipe), ("dataset", config.dataset), ("model", config.model)]
    samplers = {config.sampler, *(stage.sampler for stage in config.stages)}
    names += [("loss", name) for name in sorted({stage.loss for stage in config.stages})]
    names += [("sampler", name) for name in sorted(samplers)]
    return tuple(Own(kind, name) for kind, name in names if not is_built_in(kind, name))


def own_part(config: Settings) -> dict[str, Any]:
    """What a run's identity holds beside its fields, in JSON types; empty where nothing is one's own.

    Raises
    ------
    ConfigError
        For an option or code without an identity, naming the recipe, the stage and the option.
    """
    return {str(own): _describe(own, config) for own in used(config)}


def digest(kind: str, name: str, given: Iterable[Any] = ()) -> str:
    """What of one's own stands behind a name, as text; empty for what this package brings, or where
    nothing has that name. ``given``: the options that it is given.

    Raises
    ------
    ConfigError
        For code without an identity.
    """
    if name not in REGISTRIES[kind] or is_built_in(kind, name):
        return ""
    return _code(Own(kind, name), given).digest


def code_of(config: Settings) -> Iterator[tuple[Own, Code]]:
    """Each thing of one's own with the code behind it, for whoever sends it to another process.

    Also what that code asks the registries for, by name.
    """
    given = _given(config)
    for own in used(config):
        code = _code(own, given)
        yield own, code
        for kind, name in sorted(code.registered):
            yield (read := Own(kind, name)), _code(read, given)


def _describe(own: Own, config: Settings) -> Any:
    if own.kind == "recipe":  # what it does is its stages, however they are written
        return [recipes.text_of_stages(own.name, config.stages), config.method.post_hoc]
    said = _code(own, _given(config)).digest
    if own.kind == "dataset":  # the settings that it fills in are fields of the config
        info = own.entry
        return [said, info.has_validation, info.streamed, info.positive_class]
    return said


def _given(config: Settings) -> list[Any]:
    """The options that its code is given: of the recipe, and of each stage's loss."""
    return [config.options, *(stage.loss_options for stage in config.stages)]


def _code(own: Own, given: Iterable[Any] = ()) -> Code:
    thing = registries.known[own.kind].code(own.name)
    return fingerprints.of_code(thing, f"The {own}", given=given)
