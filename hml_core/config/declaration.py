"""How a setting is declared: type, range, choices and meaning in one place.

Everything that needs one of these facts derives it from the declaration: the checks, JSON, what counts as
"off" for a run's identity, the help of the command line and the API reference.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system.quantities import LONGEST_INT, told

_NOTHING = object()
_WIDTH = 100


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, each of which may belong to it or not; None is no bound.

    >>> Range(0, 1, has_high=False).told("momentum")
    '0 ≤ `momentum` < 1'
    >>> Range(0, has_low=False).told("learning_rate")
    '`learning_rate` > 0'
    """

    low: float | None = None
    high: float | None = None
    has_low: bool = True
    has_high: bool = True

    def __contains__(self, value: float) -> bool:
        above = self.low is None or value > self.low or (self.has_low and value == self.low)
        below = self.high is None or value < self.high or (self.has_high and value == self.high)
        return above and below

    def broken(self, value: float) -> Range:
        """What to say of a value outside: of two bounds that belong to it, the one in question."""
        if None in (self.low, self.high) or not (self.has_low and self.has_high):
            return self
        return Range(low=self.low) if not value > self.high else Range(high=self.high)

    def told(self, name: str) -> str:
        """The condition on ``name`` in a sentence's words."""
        low = "" if self.low is None else f"{self.low:,}"
        high = "" if self.high is None else f"{self.high:,}"
        if not high:
            return f"`{name}` {'≥' if self.has_low else '>'} {low}"
        high = f"{'≤' if self.has_high else '<'} {high}"
        return (
            f"{low} {'≤' if self.has_low else '<'} `{name}` {high}" if low else f"`{name}` {high}"
        )


POSITIVE = Range(0, has_low=False)
NOT_NEGATIVE = Range(0)
FRACTION = Range(0, 1, has_high=False)
COUNT = Range(1, 10**7)
SEED = Range(0, 2**32, has_high=False)


@dataclass(frozen=True)
class Setting:
    """What is known of one field of a description.

    Attributes
    ----------
    name : str
    kinds : tuple of type
        Types of its values; NoneType among them where it may be left open.
    meaning : str
        What it sets, for the command line's help and the reference.
    default : Any
        Its value where none is given; None: see ``fallback``.
    range : Range, optional
        Of a number; a float is finite besides, unless ``may_be_infinite``.
    choices : iterable of str, optional
        The names that it takes; a registry is asked anew each time.
    fallback : Any
        What None becomes where neither the data set nor the recipe says otherwise.
    off : Any
        The value at which it does not enter a run's identity, so that a setting may be added without
        orphaning the runs made before it.
    is_option : bool
        Whether it is an option of recipes, which some of them have.
    may_be_infinite : bool
    """

    name: str
    kinds: tuple[type, ...]
    meaning: str
    default: Any
    range: Range | None = None
    choices: Iterable[str] | None = None
    fallback: Any = None
    off: Any = _NOTHING
    is_option: bool = False
    may_be_infinite: bool = False

    @property
    def kind(self) -> type:
        """The type of its values, None apart."""
        return next(kind for kind in self.kinds if kind is not types.NoneType)

    def is_off(self, value: Any) -> bool:
        """Whether a value does not enter a run's identity."""
        return value is None or (self.off is not _NOTHING and value == self.off)

    def settled(self, value: Any) -> Any:
        """The value in its type: an int becomes a float, a list a tuple; ConfigError for another type."""
        is_bool = isinstance(value, bool)
        if isinstance(value, int) and value.bit_length() > LONGEST_INT:
            raise ConfigError(f"Expected `{self.name}` to be smaller, got {told(value)}.")
        if float in self.kinds and isinstance(value, int) and not is_bool:
            too_large = math.inf if value > 0 else -math.inf
            value = float(value) if abs(value) < 2**53 else too_large
        if isinstance(value, float):
            value = float(value) + 0.0  # −0.0 equals 0.0 and must not be another run
        if isinstance(value, str):
            value = str(value)  # numpy has its own, as it has its own floats
        if tuple in self.kinds and isinstance(value, list):
            value = tuple(value)
        wrong = not isinstance(value, self.kinds) or (is_bool and bool not in self.kinds)
        if tuple in self.kinds and isinstance(value, tuple):
            wrong = not all(type(end) is int for end in value)
        if wrong:
            names = [_told(kind) for kind in self.kinds]
            is_of_list = tuple in self.kinds and type(value) is int
            in_file = (
                " A sweep's file tries each value of a list: [[160, 180]] is one."
                if is_of_list
                else ""
            )
            raise ConfigError(
                f"Expected `{self.name}` to be {' or '.join(names)}, got {told(value)} "
                f"({type(value).__name__}).{in_file}"
            )
        return value

    def check_range(self, value: Any) -> None:
        """ConfigError for a number outside of its range."""
        if value is None:
            return
        if self.range is not None and value not in self.range:
            broken = self.range.broken(value)
            raise ConfigError(f"Expected {broken.told(self.name)}, got {told(value)}.")
        if isinstance(value, float) and math.isinf(value) and not self.may_be_infinite:
            raise ConfigError(f"Expected `{self.name}` to be finite, got {value}.")

    def check_choice(self, value: Any, hint: str = "") -> None:
        """ConfigError for a name that is none of the choices."""
        if value is None or self.choices is None or value in self.choices:
            return
        raise ConfigError(
            f"Expected `{self.name}` to be one of {', '.join(self.choices)}, got {told(value)}{hint}."
        )

    @property
    def help(self) -> str:
        """Meaning, choices or range, and default, in one paragraph."""
        said = [" ".join(self.meaning.split())]
        if self.choices is not None:
            said.append(f"One of {', '.join(self.choices)}.")
        elif self.range is not None:
            said.append(f"{self.range.told('value').replace('`', '').capitalize()}.")
        if self.default is not None and self.default not in ((), {}):
            said.append(f"[default: {self.default}]")
        elif self.fallback is not None:
            said.append(f"[default: {self.fallback}, where the data set has none of its own]")
        return " ".join(said)


def _told(kind: type) -> str:
    if kind is types.NoneType:
        return "None"
    return getattr(kind, "TOLD", kind.__name__)


def setting(default: Any, meaning: str, **facts: Any) -> Any:
    """A dataclass field that declares a setting; ``facts`` are further attributes of :class:`Setting`."""
    made = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return dataclasses.field(**made, metadata={"meaning": meaning, **facts})


def settings(cls: type) -> Mapping[str, Setting]:
    """The settings that a dataclass declares, in order."""
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        has_factory = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if has_factory else field.default
        found[field.name] = Setting(
            field.name, _kinds(hints[field.name]), default=default, **field.metadata
        )
    return found


def _kinds(hint: Any) -> tuple[type, ...]:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(member) or member for member in members)


def documented(cls: type) -> type:
    """Class decorator: the settings' meanings take the place of ``{settings}`` in the docstring."""
    lines = []
    for name, known in settings(cls).items():
        kinds = " or ".join(k.__name__ for k in known.kinds if k is not types.NoneType)
        lines.append(f"{name} : {kinds}{', optional' if types.NoneType in known.kinds else ''}")
        lines += textwrap.wrap(known.help, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    cls.__doc__ = cls.__doc__.replace(
        "{settings}", textwrap.indent("\n".join(lines), "    ").strip()
    )
    return cls
