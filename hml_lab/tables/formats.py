"""One table as Markdown, HTML, CSV and LaTeX, each with its caption (CSV: with the ids of its runs)."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from hml_core.errors import ConfigError
from hml_core.system import files
from hml_core.system.tables import csv_of
from hml_lab.tables.cells import is_numeric, rows
from hml_lab.tables.latex import to_latex

UNBROKEN = 14  # letters of a cell that stays in one line


def to_markdown(table: pd.DataFrame) -> str:
    """GitHub-flavoured Markdown with columns aligned for a terminal, the caption above."""
    header, body = rows(table)
    header, body = (
        [cell.replace("|", "\\|").replace("\n", " ") for cell in header],
        [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in body],
    )
    widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    text = "\n".join([line(header), rule, *map(line, body)]) + "\n"
    caption = table.attrs.get("caption", "")
    return f"{_markdown(caption)}\n\n{text}" if caption else text


def _markdown(text: str) -> str:
    """Text that no Markdown reader takes for emphasis or HTML."""
    return re.sub(r"([*_<\[\]`|])", r"\\\1", text)


def to_html(table: pd.DataFrame) -> str:
    """An HTML table with ``<caption>``, row and column headers; everything escaped.

    Numbers stand on the right, words on the left; short cells ("37.9 ± 1.1") are not broken.
    """
    header, body = rows(table)
    sides = ["" if is_numeric(column) else ' style="text-align: left"' for column in zip(*body)]
    sides = sides or [""] * len(header)
    lines = ['<table class="dataframe">']
    if caption := table.attrs.get("caption", ""):
        lines.append(f'<caption style="text-align: left">{html.escape(caption)}</caption>')
    cells = "".join(
        f'<th scope="col"{side}>{html.escape(cell)}</th>' for cell, side in zip(header, sides)
    )
    lines.append(f"<thead><tr>{cells}</tr></thead>\n<tbody>")
    for first, *others in body:
        cells = "".join(f"<td{side}>{_html(cell)}</td>" for cell, side in zip(others, sides[1:]))
        lines.append(f'<tr><th scope="row">{_html(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>\n</table>"]) + "\n"


def _html(cell: str) -> str:
    text = html.escape(cell)
    return text.replace(" ", "&nbsp;") if len(cell) <= UNBROKEN else text


def to_csv(table: pd.DataFrame) -> str:
    """CSV of the cells as they are printed, with the ids of the runs behind each row as last column."""
    header, body = rows(table)
    frame = pd.DataFrame(body, columns=[header[0] or "row", *header[1:]])
    if table.attrs.get("run_ids"):
        frame["run ids"] = list(table.attrs["run_ids"])
    return csv_of(frame)


FORMATS: dict[str, Callable[[pd.DataFrame], str]] = {
    "md": to_markdown,
    "html": to_html,
    "csv": to_csv,
    "tex": to_latex,
}


def write(
    tables: pd.DataFrame | Sequence[pd.DataFrame],
    name: str,
    folder: str | Path,
    formats: Sequence[str] = tuple(FORMATS),
    *,
    note: str = "",
) -> list[Path]:
    """Write tables, one below the other, as ``<folder>/<name>.<format>`` in each of the formats.

    A CSV file holds one table: those after the first are ``<name>_2.csv`` and so on. A ``note`` stands
    below the tables in the other formats.

    Raises
    ------
    ConfigError
        For an unknown format.
    """
    parts = [tables] if isinstance(tables, pd.DataFrame) else list(tables)
    if unknown := [form for form in formats if form not in FORMATS]:
        raise ConfigError(f"Expected formats among {', '.join(FORMATS)}, got {unknown[0]!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for form in formats:
        if form == "csv":
            texts = {f"{name}{f'_{i}' if i > 1 else ''}": to_csv(p) for i, p in enumerate(parts, 1)}
        elif form == "tex":
            labels = [name if i == 1 else f"{name}-{i}" for i in range(1, len(parts) + 1)]
            notes = ["" for _ in parts[1:]] + [note]
            whole = "\n".join(map(to_latex, parts, labels, notes))
            texts = {name: f"% \\input this file; it needs \\usepackage{{booktabs}}\n{whole}"}
        else:
            whole = "\n".join(FORMATS[form](part) for part in parts)
            if note:
                whole += f"\n{note}\n" if form == "md" else f"<p>{html.escape(note)}</p>\n"
            texts = {name: whole}
        for file, text in texts.items():
            path = folder / f"{file}.{form}"
            files.write_atomically(path, text)
            written.append(path)
    return written
