"""What has to be said of the images that runs were trained on wherever these runs are quoted.

A run knows its configuration; that somebody compressed the images again before it read them it cannot
know. A file ``data_note.txt`` beside the folders of run records holds such a sentence ("RECOMPRESSED
images (…)"), and captions of tables and titles of figures made of them bear it.
"""

from __future__ import annotations

from pathlib import Path

from hml_core.runs.exporting import DATA_NOTE


def data_note(run_folder: str | Path | None) -> str:
    """The note on the images of the run in this folder; empty where there is none."""
    if run_folder is None or run_folder != run_folder:  # a frame's NaN
        return ""
    path = Path(run_folder).parent / DATA_NOTE
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except OSError:
        return ""
