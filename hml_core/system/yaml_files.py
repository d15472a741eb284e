"""YAML as people mean it: version 1.2, in which 010 is ten, 10:00:00 and yes are text, 1e4 is a number.

A date is text, too. A key stands once, names are text, and nothing stands for something else: aliases,
which can grow without end or hold themselves, are refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from hml_core.errors import ConfigError
from hml_core.system import files

LARGEST = 2**20  # characters; a file of parameters has some hundred
DEEPEST = 50


class _Constructor(SafeConstructor):
    """The safe one, for which a date is text."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


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
        For text that is not YAML, is too long or too deep, or holds an alias or a key twice.
    """
    if len(text) > LARGEST:
        raise ConfigError(
            f"Cannot read {what} as YAML: expected at most {LARGEST:,} characters, got {len(text):,}."
        )
    try:
        _refuse_aliases(text, what)
        return _yaml().load(text)
    except MarkedYAMLError as error:
        raise ConfigError(f"Cannot read {what} as YAML: {_in_one_line(error)}.") from error
    except (
        YAMLError,
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # an impossible number, a list as key
        raise ConfigError(f"Cannot read {what} as YAML: {error}") from error


def _refuse_aliases(text: str, what: str) -> None:
    depth = 0
    for event in _yaml().parse(text):
        if isinstance(event, AliasEvent):
            raise ConfigError(
                f"Cannot read {what} as YAML: line {event.start_mark.line + 1} holds the alias "
                f"'*{event.anchor}'. Expected the values themselves."
            )
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > DEEPEST:
            raise ConfigError(f"Cannot read {what} as YAML: it is more than {DEEPEST} levels deep.")


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
    for name in content:
        if not isinstance(name, str):
            raise ConfigError(
                f"Expected {str(path)!r} to hold `name: value` lines, got {name!r} "
                f"({type(name).__name__}) for a name."
            )
    return content


def text(values: Mapping[str, Any]) -> str:
    """``values`` as YAML that :func:`value` reads back.

    >>> value(text({"a": "010", "b": "yes", "c": 1e4}), "them")
    {'a': '010', 'b': 'yes', 'c': 10000.0}
    """
    stream = io.StringIO()
    _yaml().dump(dict(values), stream)
    return stream.getvalue()
