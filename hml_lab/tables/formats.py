"""One table as Markdown, HTML, CSV and LaTeX, each with its caption (CSV: with the ids of its runs)."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from hml_core.errors import ConfigError
from hml_core.system import files
from hml_lab.tables.cells import BEST, text_cell

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "—": "---", "−": "$-$", "≥": r"$\geq$",
    "≤": r"$\leq$", "→": r"$\to$", "∞": r"$\infty$", "√": r"$\surd$", "∝": r"$\propto$", "≈": r"$\approx$",
    "…": r"\ldots{}", "·": r"$\cdot$", "“": "``", "”": "''", '"': "''", "\u00a0": "~", "★": r"$\star$",
}  # fmt: skip
POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹"


def _rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of text, the index first."""
    header = [text_cell(table.index.name or "", absent=""), *map(str, table.columns)]
    body = [
        [str(index), *map(text_cell, row)]
        for index, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return header, body


def to_markdown(table: pd.DataFrame) -> str:
    """GitHub-flavoured Markdown with columns aligned for a terminal, the caption above."""
    header, body = _rows(table)
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
    """An HTML table with ``<caption>``, row and column headers; everything escaped."""
    header, body = _rows(table)
    lines = ['<table class="dataframe">']
    if caption := table.attrs.get("caption", ""):
        lines.append(f'<caption style="text-align: left">{html.escape(caption)}</caption>')
    cells = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    lines.append(f"<thead><tr>{cells}</tr></thead>\n<tbody>")
    for first, *others in body:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>\n</table>"]) + "\n"


def to_csv(table: pd.DataFrame) -> str:
    """CSV of the cells as they are printed, with the ids of the runs behind each row as last column."""
    header, body = _rows(table)
    frame = pd.DataFrame(body, columns=[header[0] or "row", *header[1:]])
    if "run_ids" in table.attrs:
        frame["run ids"] = list(table.attrs["run_ids"])
    return frame.to_csv(index=False)


def to_latex(table: pd.DataFrame, label: str = "") -> str:
    r"""A ``table`` environment for the package booktabs: everything escaped, the best of a column in bold.

    >>> import pandas as pd
    >>> print(to_latex(pd.DataFrame({"Top-1": ["75.0 ± 1.1 *"]}, index=["CE & co"])).splitlines()[6])
    CE \& co & \textbf{75.0 $\pm$ 1.1} \\
    """
    header, body = _rows(table)
    lines = [r"\begin{table}", r"\centering"]
    if caption := table.attrs.get("caption", ""):
        lines.append(rf"\caption{{{escape(caption.replace('* best', 'Bold: best'))}}}")
    if label:
        lines.append(rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:-]+', '-', label)}}}")
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines.append(" & ".join(map(escape, header)) + r" \\")
    lines.append(r"\midrule")
    lines += [" & ".join(map(_latex_cell, row)) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_cell(cell: str) -> str:
    if cell.endswith(BEST):
        return rf"\textbf{{{escape(cell.removesuffix(BEST))}}}"
    return escape(cell)


def escape(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> escape("50 % of_it: δ = 10⁴, -1.5")
    '50 \\% of\\_it: $\\delta$ = 10$^{4}$, $-$1.5'
    """
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    return "".join(_escaped(letter) for letter in " ".join(text.split(" ")).replace("\n", " "))


def _escaped(letter: str) -> str:
    if letter in LATEX:
        return LATEX[letter]
    if letter in POWERS or letter == "⁻":
        return f"$^{{{'-' if letter == '⁻' else POWERS.index(letter)}}}$"
    name = unicodedata.name(letter, "")
    if found := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name):
        word = found[2].lower().replace("lamda", "lambda")
        return f"$\\{word if found[1] == 'SMALL' else word.capitalize()}$"
    return letter


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
            whole = "\n".join(map(to_latex, parts, labels))
            whole += f"\n{escape(note)}\n" if note else ""
            texts = {name: f"% needs \\usepackage{{booktabs}}\n{whole}"}
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
