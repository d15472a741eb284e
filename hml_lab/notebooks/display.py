"""What the cells of a notebook call: figures and tables, shown inline and written below results/."""

from __future__ import annotations

import io
import numbers
from pathlib import Path

import matplotlib
import pandas as pd
from IPython.display import Image, display
from matplotlib.figure import Figure

from hml_core.errors import ConfigError
from hml_core.system import files, progress, provenance
from hml_core.system.tables import csv_of
from hml_lab.plots.style import WIDTHS

FIGURE_FORMATS = ("png", "pdf", "svg")


def versions() -> None:
    """Show what the results below depend on, as a table of one row."""
    table = pd.DataFrame([provenance.versions()], index=["version"])
    show_table(table, caption="Versions with which this notebook was executed.")


def show(figure: Figure) -> Image:
    """The figure as a cell's output: a PNG, whatever plotting backend the kernel has."""
    return Image(
        data=_png(figure, 110),
        format="png",
        width=int(96 * figure.get_figwidth()),
        alt=getattr(figure, "alt", "") or None,
    )


def save(
    figure: Figure,
    name: str,
    folder: str | Path,
    *,
    figure_format: str = "png",
    figure_width: float = 0.0,
) -> Image:
    """Write a figure as ``<folder>/<name>.png`` and return it as the cell's output.

    Parameters
    ----------
    figure_format : str
        Besides PNG: "pdf", "svg", or both with a comma between them. Text stays text in a PDF.
    figure_width : float
        Inches, such as 3.5 for a paper's column, at which it is drawn anew; 0 for the figure's own.

    Raises
    ------
    ConfigError
        For another format, or a width that no page has.
    """
    formats = check_figure(figure_format, figure_width)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if figure_width and hasattr(figure, "at_width"):
        figure = figure.at_width(figure_width)
    dpi = 300 if figure_width else 130  # a printer's, or a screen's
    files.write_atomically(folder / f"{name}.png", _png(figure, dpi))
    for form in formats:
        if form != "png":
            files.write_atomically(folder / f"{name}.{form}", _vector(figure, form, name))
    return show(figure)


def check_figure(figure_format: str, figure_width: float) -> list[str]:
    """The formats named; refuses what no figure can be written as.

    Raises
    ------
    ConfigError
    """
    formats = [part.strip() for part in str(figure_format).split(",")]
    if unknown := [form for form in formats if form not in FIGURE_FORMATS]:
        raise ConfigError(
            f"Expected `figure_format` to be of {', '.join(FIGURE_FORMATS)}, got {unknown[0]!r}."
        )
    is_number = isinstance(figure_width, numbers.Real)
    if not is_number or (figure_width and not WIDTHS[0] <= figure_width <= WIDTHS[1]):
        raise ConfigError(
            f"Expected `figure_width` to be 0 or {WIDTHS[0]} to {WIDTHS[1]} inches, got {figure_width!r}."
        )
    return formats


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _vector(figure: Figure, form: str, name: str) -> bytes:
    """The same bytes whenever it is drawn: without a date, with ids that follow from the name."""
    buffer = io.BytesIO()
    alt = getattr(figure, "alt", "")
    metadata = {
        "pdf": {"CreationDate": None, "Subject": alt},
        "svg": {"Date": None, "Description": alt},
    }
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": name}):
        figure.savefig(buffer, format=form, metadata=metadata[form])
    return buffer.getvalue()


def show_table(table: pd.DataFrame, best: str | None = None, *, caption: str = "") -> None:
    """Show a table with its caption; its row with the highest ``best`` stands for it in the index.

    Parameters
    ----------
    table : DataFrame
        Cells may be text that begins with a number, such as "95.7 ± 1.0 *".
    best : str, optional
        A column. It comes right after the row's name in the index.
    caption : str
        By default what the table has of itself (:func:`hml_lab.tables.captioned`). Rows that are only
        numbered are shown without their numbers.

    Raises
    ------
    ConfigError
        For a column that the table does not have.
    """
    if caption:
        table = table.copy()
        table.attrs["caption"] = caption
    if best is None:
        return _display(table, {})
    if best not in table.columns:
        raise ConfigError(f"The table has no column {best!r}: it has {', '.join(table.columns)}.")
    numbers = pd.to_numeric(
        table[best].astype(str).str.extract(r"^\s*([-+]?[\d.]+)")[0], errors="coerce"
    )
    key_row = {}
    if numbers.notna().any():
        position = numbers.reset_index(drop=True).idxmax()
        row = table.iloc[position]
        texts = [name for name in table.columns if name != best]
        named = (
            {}
            if isinstance(table.index, pd.RangeIndex)
            else {table.index.name: table.index[position]}
        )
        key_row = {**named, **{name: row[name] for name in [best, *texts]}}
    # Pairs, for a notebook's file sorts the keys of a mapping.
    cells = [[str(name or ""), str(value)] for name, value in key_row.items()]
    return _display(table, {"hml_core": {"key_row": cells}})


def _display(table: pd.DataFrame, metadata: dict) -> None:
    from hml_lab import tables

    if isinstance(table.index, pd.RangeIndex) and len(table.columns):
        attrs = dict(table.attrs)
        table = table.set_index(table.columns[0])
        table.attrs = attrs
    bare = table.copy()
    bare.attrs = {}
    plain = f"{table.attrs.get('caption', '')}\n\n{tables.to_markdown(bare)}".lstrip()
    shown = {"text/plain": plain, "text/html": tables.to_html(table)}
    display(shown, raw=True, metadata=metadata)


def save_text(text: str, name: str, folder: str | Path) -> None:
    """Write a table's text as ``<folder>/<name>``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(folder / name, text)


def save_frame(frame: pd.DataFrame, name: str, folder: str | Path) -> None:
    """Write a frame as ``<folder>/<name>.csv``."""
    save_text(csv_of(frame), f"{name}.csv", folder)


def delta_slider(delta: float):
    """The hard-mining loss with a slider for δ; the figure alone where nobody could move it.

    Returns
    -------
    ipywidgets.VBox or IPython.display.Image
    """
    from hml_lab.plots import loss_curves

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
