"""Notebooks made for a test."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook


def make(folder: Path, *sources: str, name: str = "made.ipynb") -> Path:
    """A notebook whose first cell holds the parameters."""
    cells = [new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    path = folder / name
    nbformat.write(new_notebook(cells=cells), path)
    return path
