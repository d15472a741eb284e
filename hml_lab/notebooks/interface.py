"""The parameters of a notebook: what its ``parameters`` cell assigns, and what may replace it."""

from __future__ import annotations

import ast
import contextlib
import difflib
import enum
import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hml_core.errors import ConfigError, HmlError, RunError, interrupts, said
from hml_core.system import apart
from hml_core.system.fields import is_text
from hml_core.system.quantities import LONGEST_INT, told
from hml_lab.notebooks import outputs

# The cell that makes the experiment from the parameters and, until its frame is asked for, nothing else.
EXPERIMENT = "experiment"
OURS = ("hml_core.", "hml_lab.", "data_prep.")


class ParameterError(ConfigError):
    """A parameter that a notebook does not have, or of the wrong type."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of a ``parameters`` cell."""

    name: str
    default: Any
    comment: str


def parameters(notebook: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook with their defaults, in the order of its cell.

    Raises
    ------
    ParameterError
        For a file that is not a notebook or has no cell tagged ``parameters``.
    """
    path = Path(notebook)
    cells = _tagged(path, "parameters")
    if not cells:
        raise ParameterError(f"The notebook {str(notebook)!r} has no cell tagged 'parameters'.")
    source = cells[0]
    lines = source.splitlines()
    found = {}
    try:
        for node in ast.parse(source).body:
            plain = isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
            target = (
                (node.targets[0] if isinstance(node, ast.Assign) else node.target)
                if plain
                else None
            )
            if isinstance(target, ast.Name):
                own = lines[node.lineno - 1 : node.end_lineno]
                comment = " ".join(line.partition("#")[2].strip() for line in own).strip()
                found[target.id] = Parameter(target.id, ast.literal_eval(node.value), comment)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # (nested too deeply)
        reason = str(error) or "it is nested too deeply"
        raise ParameterError(
            f"The parameters cell of {path.name} is not plain `name = value` lines of literals: {reason}"
        ) from error
    return found


def _tagged(notebook: Path, tag: str) -> list[str]:
    """The sources of the code cells with this tag."""
    if not notebook.is_file():
        raise ParameterError(f"There is no notebook {str(notebook)!r}.")
    try:
        content = outputs.parsed(notebook)
    except (MemoryError, ImportError):  # of the machine, not of the notebook
        raise
    except Exception as error:  # nbformat raises its validators' and decoders' own errors
        reason = str(error) or type(error).__name__
        raise ParameterError(f"{str(notebook)!r} is not a Jupyter notebook: {reason}") from error
    for number, cell in enumerate(content.cells, 1):
        if not is_text(cell.source):
            raise ParameterError(f"Cell {number} of {str(notebook)!r} holds half of a character.")
    return [cell.source for cell in content.cells if tag in cell.metadata.get("tags", [])]


def from_here(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with relative paths made absolute: they mean the folder of who gives them.

    (The kernel sits in the folder of the notebook.) Paths are parameters named ``…_root``, ``source`` (of
    one's own images) and ``csv``, the file of ``slurm:FILE``, ``weights`` and those of ``imports`` where
    there is such a file. An empty path stays:
    it is a default.
    """
    return {name: _from_here(name, value) for name, value in given.items()}


def _from_here(name: str, value: Any) -> Any:
    if name == "imports" and isinstance(value, list):
        return [_file_from_here(item) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if name == "weights":
        return _file_from_here(value)
    if name.endswith("_root") or name in ("source", "csv"):
        return os.path.abspath(os.path.expanduser(value))
    if value.startswith("slurm:"):
        return f"slurm:{os.path.abspath(os.path.expanduser(value.removeprefix('slurm:')))}"
    return value


def _file_from_here(value: Any) -> Any:
    if isinstance(value, str) and value and os.path.isfile(os.path.expanduser(value)):
        return os.path.abspath(os.path.expanduser(value))
    return value


def check_parameters(
    notebook: str | Path, given: Mapping[str, Any], timeout: float | None = None
) -> None:
    """Refuse parameters that the notebook does not have, of another type, or of impossible values.

    An int may stand for a float, and a parameter whose default is None takes any value that JSON has.
    Values are checked by the cell tagged ``experiment``, where there is one: it is executed with these
    parameters, in a process of its own (Linux), and makes the configurations of all runs without training
    or writing anything. Nothing that it changes is changed here.

    Parameters
    ----------
    notebook : path
    given : mapping
    timeout : float, optional
        Seconds that the cell has (on Linux, where its process can be ended).

    Raises
    ------
    ParameterError
    RunError
        Where the time was up.
    """
    known = parameters(notebook)
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ParameterError(
                f"The notebook {Path(notebook).name} has no parameter {name!r}.{hint} "
                f"It has: {', '.join(known)}."
            )
        try:
            _check_type(name, value, known[name].default)
            _require_literal(name, value)
        except RecursionError as error:
            raise ParameterError(
                f"The parameter {name!r} holds itself, or is nested too deeply."
            ) from error
    values = {name: item.default for name, item in known.items()} | given
    if not (cells := _tagged(Path(notebook), EXPERIMENT)):
        return
    _load(cells)
    try:
        refused, is_interrupted = apart.call(
            _tried, Path(notebook).name, cells, values, seconds=timeout
        )
    except apart.NoAnswer:  # it ended its process: the executed notebook shows that, too
        return
    except TimeoutError as error:
        raise RunError(
            f"{Path(notebook).name} was stopped: its cell tagged {EXPERIMENT!r}, which checks the "
            f"parameters, was not done after {timeout:g} s."
        ) from error
    if is_interrupted:
        raise KeyboardInterrupt
    if refused is not None:
        raise ParameterError(refused)


def _load(cells: Sequence[str]) -> None:
    """Import here what of this project the cells import: each fork of this process has it then."""
    for source in cells:
        with contextlib.suppress(SyntaxError, ValueError, MemoryError, RecursionError):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OURS):
                    with contextlib.suppress(ModuleNotFoundError):
                        importlib.import_module(node.module)


def _tried(name: str, cells: Sequence[str], values: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Why cells of a notebook refuse its parameters, if they do; whether they were interrupted."""
    namespace = {"__name__": "__main__", **values}
    try:
        for source in cells:
            exec(compile(source, f"<{name}>", "exec"), namespace)
    except HmlError as error:
        return said(error), False
    except BaseException as error:
        # A fault of the cell rather than of a value: the executed notebook shows it with its traceback.
        return None, interrupts(error)
    return None, False


def _require_literal(name: str, value: Any) -> None:
    """ParameterError for what another value would stand for in the executed notebook, or none could."""
    if isinstance(value, tuple):
        raise ParameterError(
            f"The parameter {name!r} is a tuple, which papermill would pass on as text: expected a "
            f"list, e.g. {told([*value])}."
        )
    if isinstance(value, list):
        for item in value:
            _require_literal(f"{name}[…]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ParameterError(f"Expected text for the names in {name!r}, got {told(key)}.")
            _require_literal(name, key)
            _require_literal(f"{name}[{told(key)}]", item)
    elif isinstance(value, str) and not is_text(value):
        raise ParameterError(f"The parameter {name!r} holds half of a character: {told(value)}.")
    elif isinstance(value, int) and value.bit_length() > LONGEST_INT:
        raise ParameterError(
            f"Expected numbers of at most {LONGEST_INT} bits, got {told(value)} for {name!r}."
        )
    elif isinstance(value, enum.Enum) or not isinstance(value, str | int | float | None):
        raise ParameterError(
            f"Expected text, numbers, true, false, none, or lists and mappings of them, got {told(value)} "
            f"({type(value).__name__}) for {name!r}."
        )


def _check_type(name: str, value: Any, default: Any) -> None:
    if default is None or isinstance(value, tuple):  # (which no parameter may be)
        return
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return
    if type(value) is not type(default):
        hint = ""
        if isinstance(default, list):
            hint = f" Write it as a list, e.g. {default!r}."
        raise ParameterError(
            f"Expected the parameter {name!r} to be {type(default).__name__} like its default "
            f"{default!r}, got {told(value)} ({type(value).__name__}).{hint}"
        )
    if isinstance(default, list) and default:
        for item in value:
            _check_type(f"{name}[…]", item, default[0])
