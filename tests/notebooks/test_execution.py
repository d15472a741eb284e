"""Headless execution: what is recorded, what is tried again, what a time limit leaves behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
import pytest

from hml_core.errors import ConfigError, RunError
from hml_lab.notebooks import kernels as kernels_of_notebooks
from hml_lab.notebooks.execution import execute, is_done, record_of
from tests.notebooks.helpers import make


def run(path: Path, given: dict | None = None, **options) -> Path:
    return execute(path, given, path.parent / "out" / "done.ipynb", show_progress=False, **options)


@pytest.fixture
def kernels(monkeypatch):
    """The kernels that are started; the first ``kernels.broken`` of them die at once."""
    real = kernels_of_notebooks.manager

    class Kernels(list):
        broken = 0

    started = Kernels()

    def kernel_manager(sockets, managers):
        class Manager(real(sockets, managers)):
            def format_kernel_cmd(self, *arguments, **options):
                started.append(self)
                if len(started) <= started.broken:
                    return [sys.executable, "-c", "raise SystemExit(3)"]
                return super().format_kernel_cmd(*arguments, **options)

        return Manager

    monkeypatch.setattr(kernels_of_notebooks, "manager", kernel_manager)
    return started


def test_a_record_says_what_was_executed(tmp_path):
    path = make(tmp_path, "epochs = 3  # a number", "print(epochs)")
    output = run(path, {"epochs": 4})
    record = record_of(output)
    assert record["status"] == "done"
    assert record["parameters"] == {"epochs": 4}
    assert set(record["versions"]) >= {"python", "torch", "hml-core"}
    assert 0 < record["seconds"] < 60
    assert {"started", "sha256", "git_commit"} <= set(record)
    assert is_done(path, {"epochs": 4}, output)
    assert not is_done(path, {"epochs": 5}, output)
    make(tmp_path, "epochs = 3  # a number", "print(epochs + 1)")
    assert not is_done(path, {"epochs": 4}, output), "the notebook is another one now"


def test_no_path_of_the_machine_is_left_in_an_executed_notebook(tmp_path):
    """Neither of the parameters nor of the environment, in outputs and in tracebacks."""
    source = "import os, sys, warnings\nprint(os.getcwd(), sys.prefix, os.path.expanduser('~/x'))"
    path = make(tmp_path, "root = ''  # a folder", source, "warnings.warn('careful')", "1 / 0")
    with pytest.raises(RunError, match="ZeroDivisionError"):
        run(path, {"root": str(tmp_path / "data")})
    text = (tmp_path / "out" / "done.ipynb").read_text()
    assert "careful" in text
    for private in (str(Path.cwd()), sys.prefix, str(Path.home()), str(tmp_path / "data")):
        assert private not in text
    assert '"root": "data"' in text


def test_a_failing_cell_is_reported_and_what_ran_is_kept(tmp_path):
    path = make(tmp_path, "x = 1  # a number", "print('before')", "raise ValueError('on purpose')")
    with pytest.raises(RunError, match=r"Cell 3 of made\.ipynb failed with ValueError: on purpose"):
        run(path)
    output = tmp_path / "out" / "done.ipynb"
    assert "before" in output.read_text()
    assert record_of(output)["status"] == "failed"


def test_a_kernel_that_does_not_start_is_started_once_more(tmp_path, kernels):
    path = make(tmp_path, "x = 1  # a number", "print('it', 'ran')")
    kernels.broken = 1
    with pytest.warns(UserWarning, match=r"The kernel did not start .* trying once more"):
        output = run(path)
    assert "it ran" in output.read_text()
    assert len(kernels) == 2


@pytest.mark.filterwarnings("ignore:The kernel did not start")
def test_a_kernel_that_never_starts_is_given_up(tmp_path, kernels):
    path = make(tmp_path, "x = 1  # a number")
    kernels.broken = 9
    with pytest.raises(RunError, match=r"made.ipynb was not executed: its kernel did not start"):
        run(path)
    assert len(kernels) == 2


def test_a_kernel_that_dies_in_a_cell_is_not_started_again(tmp_path, kernels):
    """What it had done would be done twice."""
    mark = tmp_path / "mark"
    dies = f"open({str(mark)!r}, 'a').write('x')\nimport os; os._exit(1)"
    path = make(tmp_path, "x = 1  # a number", dies)
    with pytest.raises(RunError, match="could not be executed: Kernel died"):
        run(path)
    assert mark.read_text() == "x"
    assert len(kernels) == 1


def test_a_time_limit_stops_the_kernel_and_keeps_what_ran(tmp_path):
    note = tmp_path / "pid"
    source = f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\nprint('started')"
    path = make(tmp_path, "x = 1  # a number", source, "time.sleep(600)")
    began = time.monotonic()
    with pytest.raises(
        RunError, match=r"was stopped: it was not done after 4 s\. The executed part"
    ):
        run(path, timeout=4)
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    output = tmp_path / "out" / "done.ipynb"
    assert record_of(output)["status"] == "timed out"
    assert "started" in output.read_text()
    assert not is_done(path, {}, output)


def test_an_older_result_is_not_taken_for_a_failed_one_s(tmp_path):
    path = make(tmp_path, "x = 1  # a number", "assert x == 1")
    output = run(path)
    with pytest.raises(RunError):
        run(path, {"x": 2})
    assert record_of(output)["status"] == "failed"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(timeout, tmp_path):
    with pytest.raises(ConfigError, match="`timeout` to be a number of seconds > 0"):
        run(make(tmp_path, "x = 1  # a number"), timeout=timeout)


def test_a_notebook_does_not_overwrite_itself(tmp_path):
    path = make(tmp_path, "x = 1  # a number")
    with pytest.raises(ConfigError, match="would overwrite"):
        execute(path, {}, path)
    with pytest.raises(ConfigError, match="a folder"):
        execute(path, {}, tmp_path)
    assert nbformat.read(path, 4).cells[0].source == "x = 1  # a number"


@pytest.mark.parametrize("content", ["", "{}", '{"cells": []}', "no json"])
def test_what_is_no_executed_notebook_has_no_record(content, tmp_path):
    (tmp_path / "a.ipynb").write_text(content)
    assert record_of(tmp_path / "a.ipynb") is None
    assert record_of(tmp_path / "missing.ipynb") is None
