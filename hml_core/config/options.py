"""Options of recipes of one's own, as a value that can stand in a description."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from hml_core.errors import ConfigError

PLAIN = (bool, int, float, str, type(None))


class Options(dict):
    """``name: value`` pairs that do not change: plain values, and lists and mappings of them.

    >>> Options(epsilon=2, layers=(8, 16))
    {'epsilon': 2, 'layers': [8, 16]}

    Raises
    ------
    ConfigError
        For a name that is none, or a value that JSON cannot hold and that would have no identity.
    """

    TOLD = "`name: value` pairs"  # what it is to somebody who writes one

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple] = (), /, **more: Any) -> None:
        pairs = {**dict(values), **more}
        for name in pairs:
            if not isinstance(name, str) or not name.isidentifier():
                raise ConfigError(f"Expected the name of an option in `options`, got {name!r}.")
        super().__init__({name: _plain(pairs[name], name) for name in sorted(pairs)})

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))

    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise TypeError("The options of a run do not change: make another configuration.")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple:
        return Options, (dict(self),)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, PLAIN) and type(value) in PLAIN:
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"Expected the option `{name}` to be finite, got {value}.")
        return value + 0.0 if isinstance(value, float) else value
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(value[key], name) for key in sorted(value)}
    raise ConfigError(
        f"Expected the option `{name}` to be a plain value (None, bool, int, float, str, or a list or "
        "mapping of them), which is the same in every process, "
        f"got {value!r} ({type(value).__name__})."
    )
