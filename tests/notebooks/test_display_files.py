"""What a notebook publishes, tables and figures, is the old file or the new one: whole."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from matplotlib.figure import Figure

from hml_core.errors import RunError
from hml_core.system import files
from hml_lab import tables
from hml_lab.notebooks import display


def drawn() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1])
    return figure


FRAME = pd.DataFrame({"a": [1.0]})
WRITERS = {
    "a figure": lambda folder: display.save(drawn(), "it", folder, figure_format="pdf"),
    "a text": lambda folder: display.save_text("new", "it.md", folder),
    "a frame": lambda folder: display.save_frame(FRAME, "it", folder),
    "a table": lambda folder: tables.write([FRAME], "it", folder),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_is_killed_while_it_writes_leaves_the_old_file(what, tmp_path, monkeypatch):
    WRITERS[what](tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names
    for name in names:
        (tmp_path / name).write_text("old")

    def die(handle):
        raise KeyboardInterrupt  # once all is written beside, before it is renamed

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", die)
        with pytest.raises(KeyboardInterrupt):
            WRITERS[what](tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "old"
    )

    def no_room(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_and_rename", no_room)
        with pytest.raises(RunError, match=r"Cannot write .*it.*: No space left"):
            WRITERS[what](tmp_path)
    WRITERS[what](tmp_path)
    assert "old" not in {path.read_bytes().decode(errors="replace") for path in tmp_path.iterdir()}


def test_what_is_written_lies_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """All of it: a machine that loses its power then has the old file or the new one, too."""
    order, replace = [], os.replace

    def named(*arguments):
        order.append("named")
        replace(*arguments)

    monkeypatch.setattr(files.os, "fsync", lambda handle: order.append(os.fstat(handle).st_size))
    monkeypatch.setattr(files.os, "replace", named)
    files.write_atomically(tmp_path / "it", "four")
    assert order == [4, "named"]
    assert (tmp_path / "it").read_text() == "four"
