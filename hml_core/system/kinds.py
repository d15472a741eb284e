"""Of which kind the options of somebody's own function are: number, text, true or false, list, mapping."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system.quantities import told

_KINDS: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", list: "a list",
    dict: "a mapping", type(None): "nothing",
}  # fmt: skip
# Of a default; one of 1 may mean 0.5, too.
_LIKE = {bool: {bool}, int: {float}, float: {float}, str: {str}}


def require(value: Any, function: Callable[..., Any], option: str, what: str) -> None:
    """A value of the kind that an option is annotated with or, without that, its default has.

    Text where a number is meant would be told deep within, or by nobody. What an annotation says in
    another way, and a default of another kind, allow anything.

    >>> def margins(*, margin=1.0, scale: float | str = 1.0): ...
    >>> require(2, margins, "margin", "`margin`")
    >>> require("auto", margins, "scale", "`scale`")

    Raises
    ------
    ConfigError
    """
    default = inspect.signature(function).parameters[option].default
    allowed = _annotated(function, option)
    if allowed is None:
        if value is None or type(default) not in _LIKE:
            return
        allowed = _LIKE[type(default)]
    if not any(_is_of(value, kind) for kind in allowed):
        expected = " or ".join(_KINDS[kind] for kind in _KINDS if kind in allowed)
        raise ConfigError(
            f"Expected {what} to be {expected} (its default is {told(default)}), got {told(value)}."
        )


def _annotated(function: Callable[..., Any], option: str) -> set[Any] | None:
    """The kinds that an option is annotated with; None where it is not."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that are not there, whatever else somebody writes
        return None
    if option not in hints:
        return None
    hint = hints[option]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = typing.get_args(hint) if is_union else (hint,)
    kinds = {typing.get_origin(part) or part for part in parts}
    kinds = {list if kind is tuple else kind for kind in kinds}
    return kinds if kinds <= {*_KINDS} else {object}


def _is_of(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and type(value) is not bool
    return isinstance(value, list | tuple if kind is list else kind)
