"""Executed notebooks without the paths of the machine that executed them."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from hml_lab import places
from hml_lab.notebooks import kernels

# A path is one where it begins as one: not within a word, a media type or another path, nor behind what
# ends (a comment, a bracket, a number's unit). A colour of a terminal ends in a letter, as do the end of
# a line in a string that is quoted and a compiler's option. Behind `<`, escaped or not, it has two parts:
# `</code>` is an element's end.
_MARKUP = r"<|&lt;|&#60;|&#x3c;"
_BEFORE = (
    r"(\x1b\[[\d;]*m|file://|\\[nrt]|(?<![^\s'\"])-[A-Z]|(?<![\w./~\\*)\]}%-])"
    + "".join(f"(?<!{one})" for one in _MARKUP.split("|"))
    + rf"|(?:{_MARKUP})(?=/[^\s<>&/]+/[\w.]))"
)
_BEHIND = r"(?![\w.-])"
_CELL = re.compile(_BEFORE + r"/[\w./-]*/ipykernel_\d+/\d+\.py")
# Sources that are papermill's; the others are the notebook's own.
_WRITTEN = {"injected-parameters", "papermill-error-cell-tag"}
_TEXT = re.compile(r"text/|image/svg|application/(?!pdf|octet-stream)")


def without(
    content: nbformat.NotebookNode, given: Mapping[str, Any], folder: Path
) -> nbformat.NotebookNode:
    """A copy of an executed notebook without the paths of this machine.

    Changed are the values of what was printed, shown, raised and recorded, and the parameters; neither
    the sources of the notebook nor names (of media types, of fields).

    Parameters
    ----------
    content : NotebookNode
    given : mapping
        Its parameters.
    folder : path
        That of the notebook, which is where its kernel runs: parameters become relative to it.
    """
    hidden = hider(given, folder)
    content = copy.deepcopy(content)
    content.metadata = _each(content.metadata, hidden)
    for cell in content.cells:
        if _WRITTEN & {*cell.metadata.get("tags", [])}:
            cell.source = hidden(cell.source)
        cell.metadata = _each(cell.metadata, hidden)
        if "outputs" in cell:
            cell.outputs = [_output(output, hidden) for output in cell.outputs]
    return content


def hidden_values(value: Any, given: Mapping[str, Any], folder: Path) -> Any:
    """What :func:`without` makes of a value that is recorded."""
    return _each(value, hider(given, folder))


def hider(given: Mapping[str, Any], folder: Path) -> Callable[[str], str]:
    """What takes the paths of this machine out of a text."""
    names = {
        str(Path.cwd()): ".",
        str(Path(__file__).resolve().parents[2]): ".",
        str(places.checkout(folder)): ".",
        sys.prefix: "<environment>",
        sys.base_prefix: "<python>",
    }
    if (home := kernels.home()) is not None:
        names[str(home)] = "~"
    for value in given.values():
        if isinstance(value, str) and os.path.isabs(value):
            names[value.rstrip("/")] = os.path.relpath(value, folder)
    told = {path.rstrip("/"): name for path, name in names.items() if path.rstrip("/")}
    alternatives = "|".join(map(re.escape, sorted(told, key=len, reverse=True)))
    pattern = re.compile(f"{_BEFORE}({alternatives}){_BEHIND}")

    def hidden(text: str) -> str:
        text = _CELL.sub(r"\1<cell>", text)
        return pattern.sub(lambda match: match[1] + told[match[2]], text)

    return hidden


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text in it changed, but no key."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return type(value)({key: _each(held, change) for key, held in value.items()})
    if isinstance(value, (list, tuple)):
        return [_each(held, change) for held in value]
    return value


def _output(output: nbformat.NotebookNode, hidden: Callable[[str], str]) -> nbformat.NotebookNode:
    """An output; the bytes of pictures stay as they are."""
    data = output.get("data", {})
    told = _each({name: held for name, held in output.items() if name != "data"}, hidden)
    changed = nbformat.from_dict(told)
    if "data" in output:
        changed.data = nbformat.from_dict(
            {
                kind: _each(held, hidden) if _TEXT.match(kind) else held
                for kind, held in data.items()
            }
        )
    return changed
