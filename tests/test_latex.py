"""Tables in LaTeX: no wider than a page of text, nothing lost; compiled where a LaTeX is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from hml_lab.tables import latex, to_latex

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted((ROOT / "results" / "tables").glob("*.tex"))
WORDS = (
    "no: warmup epochs 0; model resnet8; images not the official files; theirs: best epoch on test"
)
PAGE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\usepackage[textwidth=397pt,textheight=650pt]{geometry}
\begin{document}
%s
\end{document}
"""


def wide(columns: int = 14) -> pd.DataFrame:
    """As comparisons are, with a run that collapsed, every sign that tables use, and names of classes."""
    names = [
        "CE",
        "LDAM-DRW, cosine, δ = 10⁴, own_method & co",
        "Ünlü & Čapek #1 ~ \\n [x]",
        "→ ↑ ✓ 🦋",
    ]
    table = pd.DataFrame(
        index=pd.Index(names, name="Recipe, 95 % interval over the classes of a group")
    )
    table["Δ Balanced acc. to CE [95 %, simultaneous]"] = [
        "–", "+5.2 [−1.1, +11.5]", "−23.5 [−150.6, +103.7]", "< 0.001",
    ]  # fmt: skip
    for number in range(columns):
        table[f"Class {number}"] = [
            "37.9 ± 1.1 *", "43.1 ± 0.8", "median 41.2 of 64.1 / 41.2 / 0.5", None,
        ]  # fmt: skip
    table["[Remark]"] = [
        WORDS,
        "",
        "[in brackets]",
        'a_b^c {d} <e> 5 % | "f" … √2 ≈ 1.4 × 10⁻¹, x₁ ≥ Ω',
    ]
    table.attrs["caption"] = "SHORTENED: 5_epochs & more. * best of its column. – not there."
    return table


TABLES = {
    "wide": wide(),
    "narrow": wide(0),
    "one column": pd.DataFrame({"n": [1]}, index=["x"]),
    "no column": pd.DataFrame(index=["x", "y"]),
    "no row": pd.DataFrame({"n": [], "p": []}),
    "two names": pd.DataFrame(
        {"Recipe": ["CE", "HML1"], **{f"c{i}": [WORDS, "1.0"] for i in range(6)}},
        index=["exp", "exp"],
    ),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_no_panel_is_wider_than_the_page_and_no_cell_is_lost(table):
    header, body = latex.rows(table)
    named = 2 if table is TABLES["two names"] else 1
    columns, places = latex._arranged([list(c) for c in zip(header, *body)], named)
    for panel in places:
        assert panel[:named] == list(range(min(named, len(header))))
        taken = sum(columns[place].width + 2 * latex.SEPARATION_PT for place in panel)
        assert taken <= latex.PAGE_PT
    assert sorted({place for panel in places for place in panel}) == list(range(len(header)))
    text = to_latex(table)
    for said in (cell for row in [header, *body] for cell in row):
        for word in map(latex.escape, said.removesuffix(" *").split()):
            assert word in text
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count(r"\toprule") == len(places)


def test_what_fits_is_not_broken():
    short = pd.DataFrame(
        {"Top-1": ["75.0 ± 1.1 *"], "Δ [95 %]": ["+5.2 [−1.1, +11.5]"]}, index=["CE"]
    )
    text = to_latex(short)
    assert text.count(r"\begin{tabular}") == 1
    assert r"CE & \textbf{75.0 $\pm$ 1.1} & +5.2 [$-$1.1, +11.5] \\" in text


def test_both_lines_of_a_broken_best_cell_are_bold():
    assert latex.broken_into("median 41.2 of 64.1 *", 50) == ["median 41.2 *", "of 64.1 *"]


def test_letters_without_a_font_are_named_and_those_of_other_scripts_stay():
    assert latex.escape("🦋 Ο Σ é 中 ₂") == r"[butterfly] O $\Sigma$ é 中 $_{2}$"


def compiled(folder: Path, body: str) -> tuple[str, int]:
    """What pdfLaTeX says of a page, and how many pages it makes."""
    (folder / "page.tex").write_text(PAGE % body)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout, int(re.search(r"\((\d+) pages?", done.stdout.replace("\n", ""))[1])


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="pdflatex is not installed: apt install texlive-latex-base texlive-latex-recommended",
)


@needs_latex
def test_a_page_with_every_published_table_compiles(tmp_path):
    said, pages = compiled(tmp_path, "".join(rf"\input{{{path}}}\clearpage " for path in PUBLISHED))
    assert pages >= len(PUBLISHED) > 5
    assert not re.search("Overfull|Undefined|too large", said)


@needs_latex
def test_a_table_of_many_rows_goes_on_on_the_next_pages(tmp_path):
    names = [
        f"cell {number} with a name of two lines, as the audit has them" for number in range(70)
    ]
    table = pd.DataFrame({"Top-1": "37.9 ± 1.1", "ECE": "4.0 ± 0.1"}, index=names)
    table.attrs["caption"] = "What is said of it, at length. " * 60
    text = to_latex(table)
    parts = text.split(r"\emph{(continued)}")
    assert len(parts) > 2
    assert all(r"Top-1 & ECE \\" in part for part in parts), "each has the head"
    assert [int(n) for n in re.findall(r"cell (\d+) with", text)] == [*range(70)]
    said, pages = compiled(tmp_path, text)
    assert pages == len(parts)
    assert not re.search("Overfull|Undefined|too large", said)


@needs_latex
def test_odd_tables_compile_within_the_page(tmp_path):
    said, _ = compiled(tmp_path, "\n".join(map(to_latex, TABLES.values())))
    assert not re.search(r"Overfull \\hbox|Undefined", said)
