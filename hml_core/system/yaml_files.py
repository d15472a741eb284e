"""YAML as people mean it: 1e4 is a number, a date is text, a file holds `name: value` lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hml_core.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """The safe loader, except that 1e4 is a number and a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def value(text: str, what: str) -> Any:
    """The value that ``text`` is in YAML; ``what`` names it in the error.

    >>> value("1e4", "delta")
    10000.0

    Raises
    ------
    ConfigError
        For text that is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # ValueError: an impossible number
        raise ConfigError(f"Cannot read {what} as YAML: {error}") from error


def read(path: str | Path) -> dict[str, Any]:
    """The `name: value` lines of a YAML file.

    Raises
    ------
    ConfigError
        For a file that is missing, not UTF-8, not YAML or anything but a mapping of names.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {str(path)!r}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error
    content = value(text, f"the file {str(path)!r}")
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"Expected {str(path)!r} to hold `name: value` lines.")
    return content
