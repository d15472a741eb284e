"""What values and code are, as text that is the same in every process: :func:`of_value`, :func:`of_code`.

``repr`` is none: that of a function holds an address, that of a long array leaves its middle out.

>>> of_value({"gamma": 2.0, "by_class": (1, True, None)})
'{"by_class":[1,true,null],"gamma":2.0}'
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system import sources
from hml_core.system.code import Code
from hml_core.system.values import Values, text


def of_value(value: Any, where: str = "The value", *, given: Iterable[Any] = ()) -> str:
    """Canonical text of an option: plain values, arrays and tensors by their bytes, code by its source.

    ``given``: what code among it is given when it runs, beside the value (see :func:`of_code`).

    Raises
    ------
    ConfigError
        Starting with ``where``, for a value that is not the same in the next process: a lambda, an open
        file, an object of a library.
    """
    with _ends(where):
        return text(_Options([value, *given]).plain(value, where))


def of_code(
    thing: Any,
    where: str = "The object",
    *,
    follows_imports: bool = True,
    given: Iterable[Any] = (),
) -> Code:
    """What a class or function (or a partial of one) does; see :class:`Code`.

    ``given``: values that it is given when it runs, and in which names for a registry may stand.
    """
    code = Code(where, follows_imports)
    code.thing = thing
    with _ends(where):
        for one in given:
            code.texts |= _texts_of(one)
        code.root = code.plain(thing, where)
        code.complete()
    return code


@contextlib.contextmanager
def _ends(where: str) -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise ConfigError(
            f"{where} holds itself, or something that holds it, and has no identity that the next process "
            "could compare: expected values without a circle."
        ) from error


@contextlib.contextmanager
def unchanged(thing: Any, where: str) -> Iterator[None]:
    """Code that is tried inside the block is the same after it.

    Raises
    ------
    ConfigError
        For code that changes a value which it reads as well, such as a counter of its module.
    """
    # (What is imported within a function may only then be found: it is not compared here.)
    sources.try_again()
    before = of_code(thing, where, follows_imports=False).parts
    yield
    after = of_code(thing, where, follows_imports=False).parts
    if changed := [name for name in after if before.get(name) != after[name]]:
        raise ConfigError(
            f"{where} changes, while it works, a value of its module or class that `{changed[0]}` reads: "
            "it would be another run after each step. Expected a result of its arguments alone "
            "(`functools.cache` keeps what is computed once)."
        )


def _texts_of(value: Any) -> set[str]:
    """The strings that stand in a value, and in code that is among it."""
    code = Code("", follows_imports=False)
    code.is_lenient = True
    code.plain(value, "")
    return code.texts


class _Options(Values):
    """Of a recipe's stage: their mappings count without order, and their code by its digest."""

    def __init__(self, given: list[Any]) -> None:
        super().__init__()
        self.given = given

    def of_code(self, thing: Any, where: str) -> Any:
        if getattr(thing, "__name__", "") == "<lambda>":
            return self._refused(thing, where)
        found = of_code(thing, where, given=self.given)
        return [*found.root, found.digest]
