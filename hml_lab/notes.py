"""What has to be said of the images that runs were trained on wherever these runs are quoted.

A run knows its configuration, and its record what the data set says of itself ("HAM10000 part of ISIC
2019, …"); that somebody compressed the images again before it read them it cannot know. A file
``data_note.txt`` beside the folders of run records holds such a sentence ("RECOMPRESSED images (…)").
Captions of tables and titles of figures made of the runs bear both.
"""

from __future__ import annotations

import json
from pathlib import Path

from hml_core.runs.exporting import DATA_NOTE
from hml_core.system import files


def data_note(run_folder: str | Path | None) -> str:
    """The notes on the images of the run in this folder; empty where there are none."""
    if run_folder is None or run_folder != run_folder:  # a frame's NaN
        return ""
    folder = Path(run_folder)
    notes = [_of_record(folder / "metrics.json"), _text(folder.parent / DATA_NOTE)]
    return "; ".join(note.strip().rstrip(".") for note in notes if note)


def _of_record(path: Path) -> str:
    try:
        found = json.loads(_text(path) or "{}")
    except (ValueError, RecursionError):
        return ""
    return str(found.get("images_note", "")) if isinstance(found, dict) else ""


def _text(path: Path) -> str:
    try:
        return " ".join(files.read_text(path).split())
    except (OSError, ValueError):
        return ""
