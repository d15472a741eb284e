"""Notebooks as programs: strict parameters, headless execution, figures on disk.

A notebook's ``parameters`` cell is its interface: plain assignments of literals, each with a comment.
papermill would only warn about a parameter that the cell does not assign, and it passes a tuple on as
text; here both are errors.
"""

from __future__ import annotations

import ast
import difflib
import io
import os
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from IPython.display import Image
from matplotlib.figure import Figure

from hml_core import environment, progress
from hml_core.errors import ConfigError, RunError


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
    if not path.is_file():
        raise ParameterError(f"There is no notebook {str(notebook)!r}.")
    try:
        content = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its validators' and decoders' own errors
        raise ParameterError(f"{str(notebook)!r} is not a Jupyter notebook: {error}") from error
    cells = [c for c in content.cells if "parameters" in c.metadata.get("tags", [])]
    if not cells:
        raise ParameterError(f"The notebook {str(notebook)!r} has no cell tagged 'parameters'.")
    source = cells[0].source
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
    except (SyntaxError, ValueError) as error:
        raise ParameterError(
            f"The parameters cell of {path.name} is not plain `name = value` lines of literals: {error}"
        ) from error
    return found


def check_parameters(notebook: str | Path, given: Mapping[str, Any]) -> None:
    """Refuse parameters that the notebook does not have or whose type differs from the default's.

    An int may stand for a float, and a parameter whose default is None takes any value.

    Raises
    ------
    ParameterError
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
        _check_type(name, value, known[name].default)


def _check_type(name: str, value: Any, default: Any) -> None:
    if isinstance(value, tuple):
        raise ParameterError(
            f"The parameter {name!r} is a tuple, which papermill would pass on as text: expected a "
            f"list, e.g. {list(value)!r}."
        )
    if default is None or (value is None and default is None):
        return
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return
    if type(value) is not type(default):
        hint = ""
        if isinstance(default, list):
            hint = f" Write it as a list, e.g. {default!r}."
        raise ParameterError(
            f"Expected the parameter {name!r} to be {type(default).__name__} like its default "
            f"{default!r}, got {value!r} ({type(value).__name__}).{hint}"
        )
    if isinstance(default, list) and default:
        for item in value:
            _check_type(f"{name}[…]", item, default[0])


def execute(
    notebook: str | Path,
    given: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    *,
    show_progress: bool = True,
) -> Path:
    """Execute a notebook headlessly, in its own folder, into ``output``.

    Parameters
    ----------
    notebook : path
    given : mapping
        Parameters; checked before anything is started.
    output : path
        Default ``results/notebooks/<name>.ipynb``. After a failure it holds what was executed.
    show_progress : bool
        Count the cells.

    Returns
    -------
    pathlib.Path
        ``output``.

    Raises
    ------
    ParameterError
        Before the kernel starts.
    RunError
        With the failed cell's message.
    """
    given = dict(given or {})
    check_parameters(notebook, given)
    output = Path(output or Path("results/notebooks") / Path(notebook).name)
    if output.resolve() == Path(notebook).resolve():
        raise ParameterError(f"The output would overwrite the notebook {str(notebook)!r} itself.")
    if output.is_dir():
        raise ParameterError(f"The output {str(output)!r} is a folder: expected a file name.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write {str(output)!r}: {error.strerror or error}.") from error
    with warnings.catch_warnings():
        # papermill still imports names that its own dependencies have deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill
        from papermill.exceptions import PapermillExecutionError

        with _headless():
            try:
                # Relative paths: papermill records them in the executed notebook.
                papermill.execute_notebook(
                    os.path.relpath(notebook),
                    os.path.relpath(output),
                    parameters=given,
                    cwd=str(Path(notebook).parent),
                    progress_bar=show_progress,
                    log_output=False,
                    kernel_name="python3",  # that of the running environment
                    kernel_manager_class=_kernel_manager(),
                )
            except PapermillExecutionError as error:
                raise RunError(
                    f"Cell {error.exec_count} of {Path(notebook).name} failed with {error.ename}: "
                    f"{error.evalue}\nThe executed part lies in {output}."
                ) from error
            except (OSError, ValueError, TypeError, RuntimeError) as error:
                # A kernel that dies or does not start, a language that papermill does not know.
                raise RunError(f"{Path(notebook).name} could not be executed: {error}") from error
    return output


def _kernel_manager():
    """A kernel manager that talks over sockets in a private folder instead of TCP ports.

    Two batches can then not race for a port, and nothing listens on the network.
    """
    from jupyter_client import AsyncKernelManager

    class SocketFileKernelManager(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(**{"transport": "ipc", **options})

    return SocketFileKernelManager


@contextmanager
def _headless():
    """Tell the kernels started inside that nobody watches them (see hml_core.progress)."""
    before = os.environ.get("HML_HEADLESS")
    os.environ["HML_HEADLESS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HML_HEADLESS"]
        else:
            os.environ["HML_HEADLESS"] = before


# Inside a notebook ------------------------------------------------------------------------------


def versions() -> pd.DataFrame:
    """What the results below depend on, as a table of one row."""
    return pd.DataFrame([environment.versions()], index=["version"])


def show(figure: Figure) -> Image:
    """The figure as a cell's output: a PNG, whatever plotting backend the kernel has."""
    return Image(data=_png(figure, 110), format="png", width=int(96 * figure.get_figwidth()))


def save(figure: Figure, name: str, folder: str | Path) -> Image:
    """Write a figure as ``<folder>/<name>.png`` and return it as the cell's output."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(_png(figure, 130))
    return show(figure)


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_text(text: str, name: str, folder: str | Path) -> None:
    """Write a table's text as ``<folder>/<name>``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def save_frame(frame: pd.DataFrame, name: str, folder: str | Path) -> None:
    """Write a frame as ``<folder>/<name>.csv``."""
    save_text(frame.to_csv(index=False), f"{name}.csv", folder)


def delta_slider(delta: float):
    """The hard-mining loss with a slider for δ; the figure alone where nobody could move it.

    Returns
    -------
    ipywidgets.VBox or IPython.display.Image
    """
    from hml_core.plots import loss_curves

    if progress.is_headless():
        return show(loss_curves(delta))
    import ipywidgets

    slider = ipywidgets.FloatLogSlider(
        value=delta, min=1, max=8, step=0.1, base=10, description="δ", readout_format=".1e"
    )
    image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="900px"))

    def draw(change=None) -> None:
        image.value = _png(loss_curves(slider.value), 100)

    slider.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([slider, image])
