"""Paragraphs of the pages that are made of stored records, so that no number in them is typed by hand.

A page holds such a paragraph between two comments, ``<!-- NAME: … -->`` and ``<!-- end of NAME -->``. When
records were added, ``python -m hml_lab.studies.quoted`` writes the paragraphs anew; a test compares them
with the records (``tests/test_verdict.py``).
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hml_core.runs import Run
from hml_core.system import files
from hml_lab.places import checkout
from hml_lab.studies import dermoscopy, verdict

WIDTH = 115


def stored(name: str) -> list[Run]:
    """The records of a folder of ``results/records``, in the order of their recipes' names and seeds."""
    folder = checkout() / "results" / "records" / name
    return [Run(path.parent) for path in sorted(folder.glob("*/config.json"))]


def isic2018_small() -> str:
    """P3's claim on the shortened protocol."""
    return dermoscopy.answer(stored("isic2018_small"))


def isic2018_b3() -> str:
    """P3's claim with its network, of the methods that have all seeds."""
    runs = stored("isic2018_b3")
    seeds = Counter(run.config.recipe for run in runs)
    whole = [run for run in runs if seeds[run.config.recipe] == max(seeds.values())]
    return dermoscopy.answer(whole, selection="best_validation")


def isic2019_ham_small() -> str:
    """P2's claim on the shortened protocol, in the HAM10000 part of ISIC 2019."""
    return dermoscopy.answer(stored("isic2019_ham_small"))


# page → name of the paragraph → what makes it
PARAGRAPHS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/results.md": {
        "isic2018_small": isic2018_small,
        "isic2018_b3": isic2018_b3,
        "isic2019_ham_small": isic2019_ham_small,
    },
    "docs/verdict.md": verdict.PARAGRAPHS,
    "README.md": verdict.OF_README,
}


def written(text: str, name: str, paragraph: str) -> str:
    """The page ``text`` with this paragraph in its place; parts of one line are filled, tables not.

    Raises
    ------
    ValueError
        Where the page has no such place, or two.
    """
    pattern = re.compile(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"Expected one place for the paragraph {name!r}, got another number.")
    parts = [_filled(part) for part in paragraph.split("\n\n")]
    filled = parts[0]
    for before, part in itertools.pairwise(parts):
        is_list = before.startswith("- ") and part.startswith("- ")  # which has no gaps
        filled += ("\n" if is_list else "\n\n") + part
    return pattern.sub(lambda found: f"{found[1]}{filled}\n{found[2]}", text)


def _filled(part: str) -> str:
    if "\n" in part or part.startswith("!["):
        return part
    indent = "  " if part.startswith("- ") else ""
    return textwrap.fill(
        part, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def main() -> None:
    """Write every paragraph into its page."""
    for page, paragraphs in PARAGRAPHS.items():
        path: Path = checkout() / page
        text = path.read_text(encoding="utf-8")
        for name, make in paragraphs.items():
            text = written(text, name, make())
        files.write_atomically(path, text)


if __name__ == "__main__":
    main()
