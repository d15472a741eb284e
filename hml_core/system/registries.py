"""The registries by kind, for whoever looks at code that asks one of them for something by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

_Thing = TypeVar("_Thing", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Registry:
    """Losses, models, … by name.

    Parameters
    ----------
    entries : mapping
        What is there now: the object that is registered in, changed in place.
    built_in : mapping
        What this package brings, under the same names.
    asked : frozenset of str
        Names by which code gets at an entry, such as ``LOSSES``: nobody else's. (What is known by a name
        that others use as well, such as ``load``, says so itself: :func:`asks`.)
    code : callable
        What stands behind a name of one's own: a class or a function.
    """

    entries: dict[str, Any]
    built_in: Mapping[str, Any]
    asked: frozenset[str]
    code: Callable[[str], Any]

    def is_own(self, name: str) -> bool:
        """Whether a user registered it, or put it in the place of what this package brings."""
        return name in self.entries and self.entries[name] is not self.built_in.get(name)


known: dict[str, Registry] = {}
_asking: dict[
    int, tuple[Any, str]
] = {}  # by its id: what asks, which is kept for it, and for what kind


def add(
    kind: str,
    entries: dict[str, Any],
    built_in: Mapping[str, Any],
    asked: Iterable[str],
    code: Callable[[str], Any] | None = None,
) -> None:
    """Make a registry known, under the word for one of its entries (``loss``)."""
    known[kind] = Registry(entries, built_in, frozenset(asked), code or entries.__getitem__)


def asks(kind: str) -> Callable[[_Thing], _Thing]:
    """Decorator: the function or class looks up a name that it is given in the registry of that kind."""

    def note(thing: _Thing) -> _Thing:
        _asking[id(thing)] = thing, kind
        return thing

    return note


def asked_by(thing: Any) -> str | None:
    """Which registry code asks that uses the thing, if it is one that :func:`asks` or a registry."""
    if isinstance(thing, dict):
        found = name_of(thing)
        return found and found[0]
    return _asking[id(thing)][1] if id(thing) in _asking else None


def name_of(value: Any) -> tuple[str, str] | None:
    """Which registry the value is, and which part of it (``entries`` or ``built_in``); None for others."""
    for kind, registry in known.items():
        for part in ("entries", "built_in"):
            if value is getattr(registry, part):
                return kind, part
    return None
