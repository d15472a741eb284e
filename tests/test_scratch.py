"""Folders for temporary files: gone with their process, however that ends, and nobody else's."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from hml_core.system import scratch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs locks and forks")


def killed(place) -> str:
    """The name of a folder whose process was killed."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with scratch.folder(place) as own:
            (own / "held").write_text("x")
            os.write(tell, own.name.encode())
            signal.pause()
    name = os.read(told, 100).decode()
    with scratch.folder(place):
        assert (place / name / "held").exists(), "its process lives"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    assert (place / name / "held").exists()
    return name


def test_a_folder_is_private_and_gone_afterwards(tmp_path):
    with scratch.folder(tmp_path) as own:
        assert own.parent == tmp_path
        assert own.stat().st_mode & 0o777 == 0o700
        (own / "more").mkdir()
    with pytest.raises(ZeroDivisionError), scratch.folder(tmp_path):
        _ = 1 / 0
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_process_left_goes_when_the_next_one_begins(tmp_path):
    names = [killed(tmp_path)]
    with scratch.folder(tmp_path) as own:
        assert {path.name for path in tmp_path.iterdir()} == {own.name}, names


def test_what_is_not_provably_ours_stays(tmp_path, monkeypatch):
    plain, foreign, linked, piped = (
        tmp_path / f"hml-{n}" for n in ("plain", "host", "link", "pipe")
    )
    for folder in (plain, foreign, piped, tmp_path / "other"):
        folder.mkdir()
    (foreign / scratch.OWNER).write_text("another-host")
    (tmp_path / "other" / scratch.OWNER).write_bytes(scratch._host())
    linked.symlink_to(tmp_path / "other")
    os.mkfifo(piped / scratch.OWNER)
    (tmp_path / "hml-file").write_text("x")
    before = {path.name for path in tmp_path.iterdir()}
    with scratch.folder(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "other" / scratch.OWNER).exists()
    left = killed(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # somebody else
    with scratch.folder(tmp_path):
        assert (tmp_path / left).exists()


def test_without_locks_nothing_is_taken_for_left(tmp_path, monkeypatch):
    import fcntl

    def fail(*_):
        raise OSError("no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", fail)
        with scratch.folder(tmp_path) as own:
            assert not [*own.iterdir()]
            patch.undo()
            with scratch.folder(tmp_path):
                assert own.exists(), "it may be anybody's"
