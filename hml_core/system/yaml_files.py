"""YAML as people mean it: version 1.2, in which 010 is ten, 10:00:00 and yes are text, 1e4 is a number.

A date is text, too. A key stands once, names are text, and nothing stands for something else: aliases,
which can grow without end or hold themselves, are refused, and so are merges (``<<``), tags (``!!set``)
and the directives of another version.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, ScalarEvent

from hml_core.errors import ConfigError
from hml_core.system import files
from hml_core.system.quantities import LONGEST_INT, told

LARGEST = 2**20  # characters; a file of parameters has some hundred
MOST = 20_000  # values, lists and pairs: seconds of parsing
DEEPEST = 50


class _Constructor(SafeConstructor):
    """The safe one; a date is text, and the two halves of a character that JSON writes are one."""

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and not value.isascii():
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return value

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        if math.isinf(value) and "inf" not in node.value.lower():
            raise ValueError(
                f"line {node.start_mark.line + 1} holds {told(node.value)}, more than a number holds. "
                "Expected a smaller one, or .inf."
            )
        return value


_Constructor.add_constructor("tag:yaml.org,2002:float", _Constructor.construct_yaml_float)
for kind in ("timestamp", "value"):  # "=" is text, too
    _Constructor.add_constructor(f"tag:yaml.org,2002:{kind}", SafeConstructor.construct_yaml_str)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    yaml.default_flow_style = False
    return yaml


def value(text: str, what: str) -> Any:
    """The value that ``text`` is in YAML; ``what`` names it in the error.

    >>> value("1e4", "delta"), value("010", "epochs"), value("10:00:00", "walltime")
    (10000.0, 10, '10:00:00')

    Raises
    ------
    ConfigError
        For text that is not YAML, is too long or too deep, or holds an alias, a tag, a key twice or a key
        that is no text.
    """
    if len(text) > LARGEST:
        raise ConfigError(
            f"Cannot read {what} as YAML: expected at most {LARGEST:,} characters, got {len(text):,}."
        )
    try:
        _refuse(text)
        values = _yaml().load(text)
        _require_json(values)
    except MarkedYAMLError as error:
        raise ConfigError(f"Cannot read {what} as YAML: {_in_one_line(error)}.") from error
    except (
        YAMLError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:
        said = " ".join(str(error).split()) or type(error).__name__  # such as an impossible number
        if "set_int_max_str_digits" in said:  # Python's advice to whom writes programs
            said = f"expected numbers of at most {LONGEST_INT} bits."
        raise ConfigError(f"Cannot read {what} as YAML: {said}") from error
    return values


def _refuse(text: str) -> None:
    """ValueError for what stands for something else, and for more than anybody writes."""
    depth, merge = 0, None
    for number, event in enumerate(_yaml().parse(text), 1):
        line = f"line {event.start_mark.line + 1} holds"
        if isinstance(event, AliasEvent):
            raise ValueError(f"{line} the alias '*{event.anchor}'. Expected the values themselves.")
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            raise ValueError(f"{line} a directive (%). Expected YAML 1.2, which needs none.")
        tag = getattr(event, "tag", None)
        if tag == "!" or (tag and tag in _Constructor.yaml_constructors):
            raise ValueError(f"{line} the tag {tag!r}. Expected the value itself.")
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
            merge = merge or f"{line} a merge (<<). Expected the values themselves."
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > DEEPEST:
            raise ValueError(f"it is more than {DEEPEST} levels deep.")
        if number > MOST:
            raise ValueError(f"it holds more than {MOST:,} values.")
    if merge is not None:
        raise ValueError(merge)


def _require_json(value: Any) -> None:
    """ValueError for a key that is no text, and for a number that no field takes and no message prints."""
    if isinstance(value, dict):
        for name, held in value.items():
            if not isinstance(name, str):
                kind = type(name).__name__
                raise ValueError(
                    f"expected `name: value` lines, got {told(name)} ({kind}) for a name."
                )
            _require_json(held)
    elif isinstance(value, list):
        for held in value:
            _require_json(held)
    elif isinstance(value, int) and value.bit_length() > LONGEST_INT:
        raise ValueError(f"expected numbers of at most {LONGEST_INT} bits, got {told(value)}.")


def _in_one_line(error: MarkedYAMLError) -> str:
    said = ", ".join(part.strip() for part in (error.context, error.problem) if part)
    mark = error.problem_mark
    return said if mark is None else f"{said} (line {mark.line + 1}, column {mark.column + 1})"


def read(path: str | Path) -> dict[str, Any]:
    """The `name: value` lines of a YAML file.

    Raises
    ------
    ConfigError
        For a file that is missing, no plain file, not UTF-8, not YAML or anything but a mapping of names.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"Expected a file, {str(path)!r} is none.")
        text = files.read_text(path, 4 * LARGEST, "utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {str(path)!r}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    content = value(text, f"the file {str(path)!r}")
    if not isinstance(content, dict):
        raise ConfigError(f"Expected {str(path)!r} to hold `name: value` lines.")
    return content


def text(values: Mapping[str, Any]) -> str:
    """``values`` as YAML that :func:`value` reads back.

    >>> value(text({"a": "010", "b": "yes", "c": 1e4}), "them")
    {'a': '010', 'b': 'yes', 'c': 10000.0}
    """
    yaml, stream = _yaml(), io.StringIO()
    yaml.allow_unicode = False  # some of what is no ASCII ends a line (U+0085)
    yaml.representer.ignore_aliases = lambda _: True  # a list that stands twice is written twice
    yaml.width = math.inf  # where a line is broken, a blank may come in
    yaml.dump(dict(values), stream)
    return stream.getvalue()
