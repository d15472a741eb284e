r"""Tables for LaTeX: packages booktabs alone, everything escaped, and no wider than a page of text.

Widths are reckoned with (:data:`FONT_PT`, letters of Computer Modern at ``\footnotesize``): long cells and
heads are broken into lines, and columns that do not fit beside the others stand in a panel below,
behind the names of the rows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import pandas as pd

from hml_lab.tables.cells import BEST, is_numeric, rows

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "|": r"\textbar{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "—": "---", "−": "$-$", "≥": r"$\geq$",
    "≤": r"$\leq$", "→": r"$\to$", "←": r"$\gets$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "∞": r"$\infty$", "√": r"$\surd$", "∝": r"$\propto$", "≈": r"$\approx$", "≠": r"$\neq$", "∈": r"$\in$",
    "…": r"\ldots{}", "·": r"$\cdot$", "“": "``", "”": "''", "‘": "`", "’": "'", "„": ",,", '"': "''",
    "\u00a0": "~", "★": r"$\star$", "✓": r"$\surd$", "′": "$'$", "°": r"$^{\circ}$", "‐": "-", "‑": "-",
    "\u200b": "", "ς": r"$\varsigma$", "ο": "o",
}  # fmt: skip
POWERS, INDICES = "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉"
# Greek capitals that LaTeX has no name for, as they look like Latin ones.
LIKE_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX"))

# The text of the narrowest one-column pages (NeurIPS, ICLR): 5.5 inches.
PAGE_PT = 397.0
SEPARATION_PT = 3.0  # on each side of a column
FONT_PT = 4.25  # a digit of \footnotesize
# Where a cell of numbers and one of words are broken: as late as the number of panels allows.
BREAKS_PT = ((140.0, 220.0), (140.0, 150.0), (100.0, 150.0), (66.0, 110.0))
MOST_LINES = 48  # of a table's panels on one page, beside its caption
PAGE_LINES = 62  # of \footnotesize on a page, the caption's among them
HEAD_PT = 40.0  # a head is broken where its cells end, but not before


def to_latex(table: pd.DataFrame, label: str = "", note: str = "") -> str:
    r"""A ``table`` environment for the package booktabs, with the best of a column in bold, a note below.

    >>> import pandas as pd
    >>> print(to_latex(pd.DataFrame({"Top-1": ["75.0 ± 1.1 *"]}, index=["CE & co"])).splitlines()[7])
    CE \& co & \textbf{75.0 $\pm$ 1.1} \\
    """
    header, body = rows(table)
    begin = [r"\begin{table}", r"\centering"]
    small = rf"\smallskip\footnotesize\setlength{{\tabcolsep}}{{{SEPARATION_PT:g}pt}}"
    lines, room = [*begin], float(PAGE_LINES)
    if caption := table.attrs.get("caption", ""):
        lines.append(
            rf"\caption{{\footnotesize {escape(caption.replace('* best', 'Bold: best'))}}}"
        )
        room -= width(caption) / PAGE_PT + 2
    if label:
        lines.append(rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:-]+', '-', label)}}}")
    lines.append(small)
    named = 1 + (len({*(row[0] for row in body)}) < len({*(tuple(row[:2]) for row in body)}))
    columns, places = _arranged([list(column) for column in zip(header, *body)], named)
    high = sum(_lines([columns[place] for place in panel]) for panel in places)
    for number, panel in enumerate(places):
        own = [columns[place] for place in panel]
        for part, some in enumerate(_parts(own, PAGE_LINES if number else room)):
            if part or (number and high > MOST_LINES):
                lines += [
                    r"\end{table}",
                    "",
                    *begin,
                    small,
                    r"\emph{(continued)}",
                    r"",
                    r"\smallskip",
                ]
            elif number:
                lines += [r"", r"\medskip"]
            lines += _tabular(own, some)
    lines += [r"", r"\smallskip", rf"\parbox{{\linewidth}}{{{escape(note)}}}"] if note else []
    return "\n".join([*lines, r"\end{table}"]) + "\n"


class _Column:
    """A column's cells, its head first, broken into lines, and its width."""

    def __init__(self, cells: Sequence[str], numbers: float, words: float) -> None:
        head, *others = cells
        self.is_numeric = is_numeric(others)
        limit = numbers if self.is_numeric else words
        broken = [broken_into(cell, limit) for cell in others]
        widest = max((width(line) for lines in broken for line in lines), default=0.0)
        least = HEAD_PT if self.is_numeric else 2 * HEAD_PT
        self.cells = [broken_into(head, max(widest, least)), *broken]
        self.width = max(width(line) for lines in self.cells for line in lines)


def _arranged(
    columns: Sequence[Sequence[str]], named: int
) -> tuple[list[_Column], list[list[int]]]:
    """The columns and their panels: as few of these as can be, then as few broken cells."""
    tried = []
    for numbers, words in BREAKS_PT:
        made = [_Column(column, numbers, words) for column in columns]
        tried.append((made, panels([column.width for column in made], named)))
    return min(tried, key=lambda one: len(one[1]))


def panels(widths: Sequence[float], named: int = 1) -> list[list[int]]:
    """The places of the columns of each panel; the first ``named`` say in each of them what a row is.

    As few panels as fit on the page, about equally wide.

    >>> panels([100, 150, 150, 150])
    [[0, 1], [0, 2], [0, 3]]
    >>> panels([30, 20, 100, 100, 100, 40], 2)
    [[0, 1, 2, 3], [0, 1, 4, 5]]
    """
    best = _filled(widths, named, PAGE_PT)
    limit = PAGE_PT
    while limit > 0 and len(made := _filled(widths, named, limit)) == len(best):
        best, limit = made, limit - 10.0
    return best


def _filled(widths: Sequence[float], named: int, page: float) -> list[list[int]]:
    names = list(range(min(named, len(widths))))
    made = [[*names]]
    for place in range(len(names), len(widths)):
        there = [*made[-1], place]
        taken = sum(widths[column] for column in there) + 2 * SEPARATION_PT * len(there)
        if len(there) > len(names) + 1 and taken > page:
            made.append([*names, place])
        else:
            made[-1].append(place)
    return made


def width(text: str) -> float:
    """Points that a text takes at ``\\footnotesize``, rather too many than too few."""
    sizes = (_letter(letter) for letter in text.removesuffix(BEST))
    return sum(sizes) * (1.15 if text.endswith(BEST) else 1.0)


def _letter(letter: str) -> float:
    if letter in "ijlI.,;:'|!()[]ft/- ":
        return 0.78 * FONT_PT
    if letter in "±+−×=<>≥≤→←≈∞∝Δ%mwMW…—":
        return 1.7 * FONT_PT
    return 1.5 * FONT_PT if letter.isupper() else 1.06 * FONT_PT


def broken_into(text: str, limit: float) -> list[str]:
    """Lines of whole words, each narrower than the limit where its words are; what is in brackets stays
    together where it fits.

    >>> broken_into("+5.2 [−1.1, +11.5]", 60)
    ['+5.2', '[−1.1, +11.5]']
    """
    best = BEST if text.endswith(BEST) else ""
    words = re.findall(r"\[[^][]*\](?!\w)|\S+", text.removesuffix(BEST))
    words = [part for word in words for part in ([word] if width(word) <= limit else word.split())]
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > limit:
            lines.append(word)
        else:
            lines[-1] = longer
    return [line + best for line in lines]


def _lines(columns: Sequence[_Column]) -> float:
    """How many lines high the columns are beside each other, with the room between rows."""
    rows = zip(*(column.cells for column in columns), strict=True)
    heights = [max(map(len, row)) for row in rows]
    return sum(heights) + 0.5 * sum(height > 1 for height in heights) + 3


def _parts(columns: Sequence[_Column], room: float) -> list[slice]:
    """The rows below the head in parts that fit on a page each, the first into ``room`` lines."""
    head, *heights = (
        max(map(len, row)) for row in zip(*(column.cells for column in columns), strict=True)
    )
    parts, first, used = [], 0, head + 3.0
    for number, height in enumerate(heights):
        own = height + 0.5 * (max(heights[max(number - 1, 0) : number + 1]) > 1)
        if used + own > room and number > first:
            parts.append(slice(first, number))
            first, used, room = number, head + 3.0, float(PAGE_LINES)
        used += own
    return [*parts, slice(first, len(heights))]


def _tabular(columns: Sequence[_Column], some: slice) -> list[str]:
    """The rows ``some`` below the head."""
    kinds = "l" + "".join("r" if column.is_numeric else "l" for column in columns[1:])
    header, *body = zip(*(column.cells for column in columns), strict=True)
    body = body[some]
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    lines += [_line(header, kinds, "b"), r"\midrule"]
    for number, row in enumerate(body):
        several = any(
            len(cell) > 1 for around in body[max(number - 1, 0) : number + 1] for cell in around
        )
        lines += [r"\addlinespace"] if number and several else []
        lines.append(_line(row, kinds, "t"))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _line(row: Sequence[Sequence[str]], kinds: str, side: str) -> str:
    return " & ".join(_cell(cell, kind, side) for cell, kind in zip(row, kinds)) + r" \\"


def _cell(lines: Sequence[str], kind: str, side: str) -> str:
    if len(lines) == 1:
        return _text(lines[0])
    inner = r" \\ ".join(map(_text, lines))
    return rf"\begin{{tabular}}[{side}]{{@{{}}{kind}@{{}}}}{inner}\end{{tabular}}"


def _text(line: str) -> str:
    if line.endswith(BEST):
        return rf"\textbf{{{escape(line.removesuffix(BEST))}}}"
    # A bracket at the beginning of a line is no option of the line end before it.
    return f"{{}}{escape(line)}" if line.startswith("[") else escape(line)


def escape(text: str) -> str:
    r"""Text as LaTeX prints it. Letters that pdfLaTeX does not have (of other scripts) stay as they are.

    >>> escape("50 % of_it: δ = 10⁴, -1.5")
    '50 \\% of\\_it: $\\delta$ = 10$^{4}$, $-$1.5'
    """
    text = re.sub(r"(?<![\w.])-(?=\d)", "−", text)
    return "".join(_escaped(letter) for letter in text.replace("\n", " "))


def _escaped(letter: str) -> str:
    if letter in LATEX:
        return LATEX[letter]
    if letter in POWERS or letter == "⁻":
        return f"$^{{{'-' if letter == '⁻' else POWERS.index(letter)}}}$"
    if letter in INDICES:
        return f"$_{{{INDICES.index(letter)}}}$"
    if letter in LIKE_LATIN:
        return LIKE_LATIN[letter]
    name = unicodedata.name(letter, "")
    if found := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name):
        word = found[2].lower().replace("lamda", "lambda")
        return f"$\\{word if found[1] == 'SMALL' else word.capitalize()}$"
    if not letter.isascii() and not unicodedata.category(letter).startswith(("L", "M", "N", "P")):
        return f"[{name.lower()}]" if name else ""  # emoji, signs of all kinds: no font has these
    return letter
