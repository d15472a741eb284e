"""Headless execution: what is recorded, what is tried again, what a time limit leaves behind."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hml_core.errors import ConfigError, RunBusyError, RunError
from hml_core.system import files, interruptions, processes
from hml_lab.notebooks import batch, execution, outputs
from hml_lab.notebooks import kernels as kernels_of_notebooks
from hml_lab.notebooks.execution import execute, is_done, record_of
from hml_lab.notebooks.interface import ParameterError, check_parameters
from tests import forks
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

    def kernel_manager(*given):
        class Manager(real(*given)):
            def format_kernel_cmd(self, *arguments, **options):
                started.append(self)
                if len(started) <= started.broken:
                    return [sys.executable, "-c", "raise SystemExit(3)"]
                return super().format_kernel_cmd(*arguments, **options)

        return Manager

    monkeypatch.setattr(kernels_of_notebooks, "manager", kernel_manager)
    return started


@pytest.mark.begun_first
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


def test_the_kernel_is_this_interpreter_whatever_is_called_python3(tmp_path, monkeypatch, kernels):
    spec = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    output = run(make(tmp_path, "n = 1  # a number", "print(n + 1)"))
    assert record_of(output)["status"] == "done"
    assert len(kernels) == 1
    assert kernels[0].kernel_spec.argv[0] == sys.executable


def test_by_default_no_notebook_replaces_the_result_of_another_of_its_name(
    tmp_path, instead, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "made.ipynb"
    monkeypatch.setattr(execution, "default_output", lambda notebook: output)
    for folder in "xy":
        (tmp_path / folder).mkdir()
    one, other = (make(tmp_path / x, "n = 1  # a number", f"print({x!r}, n)") for x in "xy")
    instead([new_code_cell("n", execution_count=1)])
    execute(one, show_progress=False)
    before = output.read_bytes()
    with pytest.raises(ParameterError, match="is the result of another notebook that is called"):
        execute(other, show_progress=False)
    assert output.read_bytes() == before
    jobs = {"output": ".", "jobs": [{"notebook": f"y/{other.name}"}]}
    Path("batch.yaml").write_text(json.dumps(jobs))
    with pytest.raises(ConfigError, match=r"Job 1 .* is the result of another notebook"):
        batch.read("batch.yaml")
    jobs["jobs"][0]["output"] = other.name  # who names it means it
    Path("batch.yaml").write_text(json.dumps(jobs))
    assert len(batch.read("batch.yaml")) == 1
    execute(one, {"n": 2}, show_progress=False)
    assert record_of(output)["parameters"] == {"n": 2}


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


@pytest.mark.parametrize("error", [MemoryError(), ImportError("failed to map segment")])
def test_too_little_memory_to_read_what_was_executed_throws_nothing_away(
    error, tmp_path, instead, monkeypatch
):
    path = make(tmp_path, "x = 1  # a number")
    instead([cell()])
    output = run(path)
    good = output.read_bytes()
    real = outputs.parsed

    def parsed(file):
        if file.name.endswith(".running"):
            raise error
        return real(file)

    monkeypatch.setattr(outputs, "parsed", parsed)
    with pytest.raises(type(error)):
        run(path, {"x": 2})
    assert output.read_bytes() == good
    assert nbformat.read(output.parent / ".done.ipynb.running", as_version=4).cells


@pytest.mark.parametrize("begun", [False, True])
def test_an_older_result_stays_where_nothing_was_executed(begun, tmp_path, instead):
    """And is replaced by what was executed before a failure, which says so."""
    path = make(tmp_path, "x = 1  # a number")
    instead([cell()])
    output = run(path)
    good = everything(output.parent)

    def fail():
        raise RunError("it failed")

    shown = cell(count=None)
    if begun:
        shown.metadata["papermill"] = {"start_time": "now"}
    instead([shown], fail)
    with pytest.raises(RunError, match="it failed"):
        run(path, {"x": 2})
    if begun:
        assert record_of(output)["status"] == "failed"
    else:
        assert everything(output.parent) == good
        assert is_done(path, {}, output)


def test_a_kernel_that_dies_in_a_cell_is_not_started_again(tmp_path, kernels):
    """What it had done would be done twice."""
    mark = tmp_path / "mark"
    dies = f"open({str(mark)!r}, 'a').write('x')\nimport os; os._exit(1)"
    path = make(tmp_path, "x = 1  # a number", dies)
    with pytest.raises(RunError, match="could not be executed: Kernel died"):
        run(path)
    assert mark.read_text() == "x"
    assert len(kernels) == 1


def test_a_time_limit_ends_all_that_was_started_and_keeps_what_ran(tmp_path, monkeypatch):
    """Processes in sessions of their own, too: torchrun gives each trainer one."""
    note = tmp_path / "pids"
    source = (
        "import os, subprocess, time\nprint('started')\n"
        "child = subprocess.Popen(['sleep', '3600'], start_new_session=True)\n"
        f"open('new', 'w').write(f'{{os.getpid()}} {{child.pid}}')\nos.rename('new', {str(note)!r})"
    )

    class Until:
        """The time is up when the notebook has come so far."""

        def __init__(self, seconds):
            assert seconds == 4

        def left(self):
            return float(not note.exists())

        def next_look(self):
            return 0.05

    path = make(tmp_path, "x = 1  # a number", source, "time.sleep(600)")
    monkeypatch.setattr(kernels_of_notebooks, "Patience", Until)
    with pytest.raises(
        RunError, match=r"was stopped: it was not done after 4 s\. The executed part"
    ):
        run(path, timeout=4)
    for process in note.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(process), 0)
    output = tmp_path / "out" / "done.ipynb"
    assert record_of(output)["status"] == "timed out"
    assert "started" in output.read_text()
    assert not is_done(path, {}, output)


def test_a_time_that_was_up_before_the_first_cell_says_so_and_leaves_the_older_result(
    tmp_path, monkeypatch
):
    def execute(*_):
        raise execution._TimedOut

    path = make(tmp_path, "x = 1  # a number", "assert x == 1")
    output = tmp_path / "older.ipynb"
    record = {"status": "done", "seconds": 1.0, "started": "today", "parameters": {}}
    nbformat.write(new_notebook(metadata={"hml_core": record}), output)
    older = output.read_text()
    monkeypatch.setattr(execution, "_execute", execute)
    told = r"it was not done after 4 s\. Not one of its cells was begun\."
    with pytest.raises(RunError, match=told):
        execution.execute(path, {}, output, timeout=4, show_progress=False)
    assert output.read_text() == older
    assert {one.name for one in tmp_path.glob("*older*")} == {"older.ipynb"}


def test_a_time_that_was_up_before_there_was_a_kernel_ends_that_one(tmp_path, kernels):
    path = make(tmp_path, "x = 1  # a number", "import time; time.sleep(600)")
    with pytest.raises(RunError, match=r"was stopped: it was not done after 1e-09 s"):
        run(path, timeout=1e-9)


def experiment(folder: Path, source: str) -> Path:
    """A notebook whose parameters are checked by this cell."""
    path = make(folder, "x = 1  # a number", source)
    content = json.loads(path.read_text())
    content["cells"][-1]["metadata"]["tags"] = ["experiment"]
    path.write_text(json.dumps(content))
    return path


def test_a_notebook_whose_name_is_a_dash_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-", "-p.ipynb"):
        path = make(tmp_path, "x = 1  # a number", name=name)
        assert execution._for_papermill(path) == os.path.join(".", name)


def test_the_cell_that_checks_parameters_has_the_time_of_the_notebook(tmp_path):
    path = experiment(tmp_path, "while True:\n    try: x += 1\n    except Exception: pass")
    told = r"its cell tagged 'experiment', which checks the parameters, was not done after 0\.5 s"
    with pytest.raises(RunError, match=told):
        check_parameters(path, {}, 0.5)
    with pytest.raises(RunError, match=told):
        run(path, timeout=0.5)
    within_c = experiment(
        tmp_path, "import signal\nsignal.signal(14, signal.SIG_IGN)\nsum(range(10**13))"
    )
    with pytest.raises(RunError, match=told):  # where Python hears no signal
        run(within_c, timeout=0.5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_whatever_the_cell_that_checks_parameters_does(number, tmp_path):
    path = experiment(
        tmp_path, f"open({str(tmp_path / 'begun')!r}, 'w').close()\nsum(range(10**13))"
    )
    command = ["-m", "hml_core", "run", path, "-o", tmp_path / "out.ipynb"]
    process = forks.Python(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    below = processes.descendants(process.pid)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 128 + number
    assert "Interrupted: stopped by" in said
    assert below
    assert not [one for one in below if Path(f"/proc/{one}").exists()]


def test_a_fault_of_the_cell_that_checks_parameters_is_the_notebook_s(tmp_path):
    for source in ("1 / 0", "import os; os._exit(0)", "import os; os.kill(os.getpid(), 9)"):
        check_parameters(experiment(tmp_path, source), {})


def test_the_cell_that_checks_parameters_changes_nothing_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for source in ("", "\nraise SystemExit(0)", "\nimport asyncio; raise asyncio.CancelledError"):
        check_parameters(experiment(tmp_path, f"import os; os.chdir('elsewhere'){source}"), {})
        assert Path.cwd() == tmp_path
    check_parameters(
        experiment(tmp_path, "import os; os.environ['HOME'] = ''; os.umask(0o777)"), {}
    )
    (tmp_path / "readable").touch()
    assert (tmp_path / "readable").stat().st_mode & 0o400
    assert os.environ["HOME"]
    with pytest.raises(KeyboardInterrupt):
        check_parameters(experiment(tmp_path, "raise KeyboardInterrupt"), {})


@pytest.mark.parametrize("held", ["a text of mine", json.dumps(new_notebook())])
def test_what_is_no_result_is_not_replaced(held, tmp_path, monkeypatch):
    output = tmp_path / "mine.ipynb"
    output.write_text(held)
    monkeypatch.setattr(execution, "default_output", lambda notebook: output)
    with pytest.raises(
        ParameterError, match=r"mine\.ipynb' is no result of made\.ipynb: give another output"
    ):
        execute(make(tmp_path, "n = 1  # a number"), show_progress=False)
    with pytest.raises(ParameterError, match=r"mine\.ipynb' is no result of made\.ipynb"):
        execute(make(tmp_path, "n = 1  # a number"), output=output)
    assert output.read_text() == held


def test_what_may_not_be_read_is_not_replaced(tmp_path, monkeypatch):
    """It may well be a result, somebody else's."""
    output = tmp_path / "theirs.ipynb"
    output.write_text("a text")
    opened = files.opened

    def refuse(path, *limit):
        if Path(path) == output:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *limit)

    monkeypatch.setattr(files, "opened", refuse)
    with pytest.raises(
        ParameterError, match=r"theirs\.ipynb' cannot be read \(Permission denied\)"
    ):
        execute(make(tmp_path, "n = 1  # a number"), output=output)
    assert output.read_text() == "a text"


def test_where_only_its_owner_may_replace_a_file_nothing_is_executed_for_it(tmp_path, monkeypatch):
    """As in /tmp: the notebook would be executed to its end, and its result not put there."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    output = folder / "theirs.ipynb"
    output.write_text("a text")
    outputs.require_place(output, "the output")
    monkeypatch.setattr(outputs.os, "geteuid", lambda: 54321)
    with pytest.raises(
        RunError, match="it is another user's, in a folder where each keeps his own"
    ):
        outputs.require_place(output, "the output")
    outputs.require_place(folder / "another.ipynb", "the output")


@pytest.mark.parametrize("whose", ["his group's", "his own"])
def test_another_s_file_is_replaced_where_the_system_lets_one(whose, tmp_path, monkeypatch):
    """Whoever may write to an ordinary folder; the folder's owner in one like /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o775 if whose == "his group's" else 0o1777)
    (folder / "theirs.ipynb").write_text("a text")
    stat = Path.stat

    def of(path, **options):
        found = stat(path, **options)
        is_his = path == folder and whose == "his own"
        return os.stat_result([*found[:4], 54321, *found[5:]]) if is_his else found

    monkeypatch.setattr(Path, "stat", of)
    monkeypatch.setattr(outputs.os, "geteuid", lambda: 54321)
    outputs.require_place(folder / "theirs.ipynb", "the output")


def test_what_came_to_the_output_s_place_meanwhile_is_not_replaced(tmp_path):
    output = tmp_path / "out" / "done.ipynb"
    path = make(tmp_path, "n = 1  # a number", f"open({str(output)!r}, 'w').write('mine')")
    with pytest.raises(ParameterError, match="is no result of"):
        run(path)
    assert output.read_text() == "mine"
    assert outputs.read(outputs.running(output)).cells[-1].outputs, "what was executed is kept"


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


# What is written, and when -------------------------------------------------------------------------


def cell(source: str = "x", count: int | None = 1, *, raised: str = "", tags: tuple = ()):
    """A cell as it is after an execution."""
    made = new_code_cell(source, execution_count=count, metadata={"tags": list(tags)})
    if raised:
        made.outputs = [new_output("error", ename=raised, evalue="", traceback=[])]
    return made


@pytest.fixture
def instead(monkeypatch):
    """Executes nothing: ``instead(cells, then)`` leaves these cells, then does something."""

    def change(cells, then=lambda: None):
        def execute_once(notebook, given, partial, *_):
            nbformat.write(new_notebook(cells=cells), partial)
            then()

        monkeypatch.setattr(execution, "_execute_once", execute_once)

    return change


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_notebook_left_by_system_exit_is_not_done(tmp_path):
    """papermill calls it a success where the status is 0."""
    path = make(tmp_path, "x = 1  # a number", "raise SystemExit", "print('never')")
    with pytest.raises(RunError, match=r"Cell 2 of made\.ipynb was not executed to its end"):
        run(path)
    assert record_of(tmp_path / "out" / "done.ipynb")["status"] == "failed"
    assert not is_done(path, {}, tmp_path / "out" / "done.ipynb")


@pytest.mark.parametrize(
    ("cells", "number"),
    [
        ([cell(), cell()], None),
        ([cell(), cell(count=None)], 2),
        ([cell(raised="SystemExit"), cell()], 1),
        ([cell(), cell(raised="SystemExit")], 2),
        ([cell(raised="ValueError", tags=("raises-exception",)), cell()], None),
        ([cell(), cell(count=None, tags=("skip-execution",)), cell(" \n", count=None)], None),
        ([new_markdown_cell("text"), cell(count=None)], 2),
    ],
)
def test_a_notebook_is_done_if_every_cell_was_executed_to_its_end(cells, number):
    content = new_notebook(cells=cells)
    assert outputs.stopped_at(content) == number
    assert (outputs.status(content) == "done") == (number is None)
    told = {"status": "done", "seconds": 1.0, "started": "", "parameters": {}}
    content.metadata["hml_core"] = told
    assert (outputs.status(content) == "done") == (number is None), "a record is not believed"


def test_a_cell_that_makes_the_experiment_may_leave_but_not_the_command(tmp_path):
    """The check of the parameters executes it here: its SystemExit is the notebook's, not ours."""
    path = make(tmp_path, "x = 1  # a number", "raise SystemExit(0)")
    content = nbformat.read(path, 4)
    content.cells[1].metadata["tags"] = ["experiment"]
    nbformat.write(content, path)
    check_parameters(path, {})


@pytest.mark.parametrize("record", [3, {}, {"status": "done"}, {"status": 1, "seconds": "x"}])
def test_a_crafted_record_is_none(record, tmp_path):
    nbformat.write(new_notebook(cells=[], metadata={"hml_core": record}), tmp_path / "a.ipynb")
    assert record_of(tmp_path / "a.ipynb") is None
    assert not is_done(make(tmp_path, "x = 1  # a number"), {}, tmp_path / "a.ipynb")


def strictly(path: Path) -> dict:
    """JSON as the standard has it, which browsers and GitHub read."""

    def refuse(name):
        raise AssertionError(f"{path.name} holds {name}")

    return json.loads(path.read_bytes(), parse_constant=refuse)


ODD = [
    math.inf,
    -math.inf,
    math.nan,
    np.float64("nan"),
    1e400,
    {"a": [1.5, {"b": math.nan}]},
]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_an_executed_notebook_is_json_whatever_it_was_given_and_has_shown(value, tmp_path, instead):
    path = make(tmp_path, "x = None  # anything")
    shown = cell()
    shown.metadata["told"] = value
    shown.outputs = [
        new_output("display_data", {"application/json": {"x": [value, 1.5, None, True]}}),
        new_output("stream", text=str(value)),
    ]
    instead([shown])
    output = run(path, {"x": value})
    content = strictly(output)
    kept = content["metadata"]["hml_core"]["parameters"]["x"]
    assert content["cells"][0]["metadata"]["told"] == kept
    assert content["cells"][0]["outputs"][0]["data"]["application/json"]["x"] == [
        kept,
        1.5,
        None,
        True,
    ]
    if isinstance(value, float):
        assert kept == str(float(value))
    assert is_done(path, {"x": value}, output)
    assert not is_done(path, {"x": 2.0}, output)
    assert record_of(output)["parameters"] == {"x": kept}


def test_half_characters_are_escaped():
    assert outputs.storable({"\ud800": ["a\udcff", "ä"]}) == {"\\ud800": ["a\\udcff", "ä"]}


def test_the_processes_of_a_batch_that_was_killed_have_some_time_to_end(tmp_path):
    """Whoever resumes it at once does not find its notebooks held by another."""
    with contextlib.ExitStack() as held:
        held.enter_context(outputs.claimed(tmp_path / "done.ipynb"))
        threading.Timer(0.3, held.close).start()
        with outputs.claimed(tmp_path / "done.ipynb") as partial:
            assert partial.is_file()


def test_an_older_result_stays_until_there_is_another(tmp_path, instead, monkeypatch):
    """Whatever is refused, stopped or has no room; and nothing else is left beside it."""
    monkeypatch.setattr(outputs, "ENDING_S", 0.0)
    path = make(tmp_path, "x = 1  # a number")
    instead([cell()])
    output = run(path)
    good = everything(output.parent)
    with pytest.raises(ConfigError):
        run(path, {"y": 3})
    with outputs.claimed(output), pytest.raises(RunBusyError, match="is executing a notebook into"):
        run(path)
    (output.parent / ".done.ipynb.running").unlink()

    def stop():
        raise interruptions.Interrupted(signal.SIGTERM)

    instead([cell(), cell(count=None)], stop)
    with pytest.raises(KeyboardInterrupt):
        run(path, {"x": 2})
    assert everything(output.parent) == good
    assert is_done(path, {}, output)


def test_what_was_executed_before_a_signal_is_kept_where_nothing_better_lies(tmp_path, instead):
    def stop():
        raise interruptions.Interrupted(signal.SIGTERM)

    instead([cell(), cell(count=None)], stop)
    path = make(tmp_path, "x = 1  # a number")
    with pytest.raises(KeyboardInterrupt):
        run(path)
    assert record_of(tmp_path / "out" / "done.ipynb")["status"] == "stopped"
    instead([cell()])
    assert record_of(run(path))["status"] == "done", "and replaced by what is done"


def test_a_full_disk_leaves_the_older_result(tmp_path, instead, monkeypatch):
    path = make(tmp_path, "x = 1  # a number")
    instead([cell()])
    output = run(path)
    good = output.read_bytes()

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_and_rename", no_room)
        with pytest.raises(RunError, match="No space left on device"):
            run(path, {"x": 2})
    assert output.read_bytes() == good
    partial = output.parent / ".done.ipynb.running"
    assert outputs.stopped_at(nbformat.read(partial, 4)) is None, (
        "hours of work are not thrown away"
    )
    # The disk fills up while papermill writes: half a file.
    instead([cell()], lambda: os.truncate(partial, 20))
    with pytest.raises(RunError, match=r"Cannot write .*could not be stored"):
        run(path, {"x": 2})
    assert everything(output.parent) == {"done.ipynb": good}


def test_papermill_without_room_is_an_error_of_ours(tmp_path, monkeypatch):
    from papermill.iorw import LocalHandler

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalHandler, "write", no_room)
    with pytest.raises(RunError, match=r"Cannot write '.*done\.ipynb': No space left on device"):
        run(make(tmp_path, "x = 1  # a number"))
    assert not everything(tmp_path / "out")


@pytest.mark.parametrize("kind", ["link", "broken link", "pipe", "device", "bucket"])
def test_an_output_that_is_no_plain_file_is_refused_and_left_alone(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target, output = tmp_path / "target", Path("here.ipynb")
    if kind == "link":
        target.write_text("precious")
    if "link" in kind:
        output.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(output)
    elif kind == "device":
        output = Path(os.devnull)
    else:
        output = Path("s3://bucket/here.ipynb")
    before = sorted(path.name for path in tmp_path.iterdir())
    path = make(tmp_path, "x = 1  # a number")
    with pytest.raises(
        ConfigError,
        match=r"Expected the output to be a (plain file|path, got .*: it is an address)",
    ):
        execute(path, {}, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "made.ipynb"])
    assert kind != "link" or target.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot write .*: (Not a directory|File exists)"):
        execute(make(tmp_path, "x = 1  # a number"), {}, tmp_path / "file" / "x.ipynb")


def test_what_a_killed_process_left_is_begun_anew(tmp_path, instead):
    partial = tmp_path / "out" / ".done.ipynb.running"
    partial.parent.mkdir()
    partial.write_text("half a note")
    instead([cell()])
    assert everything(run(make(tmp_path, "x = 1  # a number")).parent).keys() == {"done.ipynb"}


# Odd hosts -----------------------------------------------------------------------------------------


def test_no_home_no_user_and_a_long_folder_for_temporary_files(tmp_path, monkeypatch):
    """A container with a number for a user, a batch system with a TMPDIR of its own."""
    import pwd

    def nobody(_):
        raise KeyError("no such user")

    long = tmp_path / ("t" * 120)
    long.mkdir()
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = make(tmp_path, "root = ''  # a folder", "import os\nprint(os.path.expanduser('~'))")
    output = run(path, {"root": "~/data"})
    assert record_of(output)["status"] == "done"
    assert "HOME" not in os.environ


def test_pages_are_made_without_a_home(tmp_path):
    """nbconvert asks for one when it is imported: in a process of its own."""
    path = make(tmp_path, "x = 1  # a number")
    code = (
        "import pwd, sys\n"
        "def nobody(_):\n    raise KeyError('no such user')\n"
        "pwd.getpwuid = nobody\n"
        "from hml_lab.cli import main\n"
        f"main(['report', {str(path)!r}, '-o', {str(tmp_path / 'pages')!r}])\n"
    )
    others = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=others, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pages" / "index.html").is_file()


def test_sockets_lie_where_their_names_can_be_sent(tmp_path, monkeypatch):
    """ZeroMQ takes names of UTF-8 alone."""
    odd, fine = tmp_path / "caf\udce9", tmp_path / "fine"
    for folder in (odd, fine):
        folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(fine))
    monkeypatch.setattr(kernels_of_notebooks, "LONGEST_FOLDER", 300)
    with kernels_of_notebooks.socket_folder() as found:
        assert Path(found).parent == fine


def test_sockets_find_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * 120)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(kernels_of_notebooks.os, "access", lambda *_: False)
    with pytest.raises(
        ConfigError, match="TMPDIR to name a writable folder with a path of at most"
    ):
        kernels_of_notebooks.socket_folder().__enter__()


@pytest.mark.parametrize("content", ["", "{}", '{"cells": []}', "no json"])
def test_what_is_no_executed_notebook_has_no_record(content, tmp_path):
    (tmp_path / "a.ipynb").write_text(content)
    assert record_of(tmp_path / "a.ipynb") is None
    assert record_of(tmp_path / "missing.ipynb") is None


def test_the_shell_is_told_how_far_the_runs_of_a_cell_are(tmp_path, capsys):
    """Lines of progress alone; everything that was printed is in the notebook."""
    line = "runs: 0/6 runs after 12 s. digits-ce-s0: 4/30 epochs, loss 0.512, about 80 s left"
    path = make(tmp_path, "epochs = 3  # a number", f"print('secret: 1/2')\nprint({line!r})")
    written = execute(path, {}, tmp_path / "out.ipynb")
    told = capsys.readouterr().err
    assert f"  {line}\n" in told
    assert "secret" not in told
    assert "secret: 1/2" in written.read_text()


def test_the_connection_file_of_a_kernel_lies_in_its_private_folder(tmp_path):
    """A killed process would leave it anywhere else."""
    managers: list = []
    kind = kernels_of_notebooks.manager(str(tmp_path), managers)
    for made in (kind(), kind()):
        made.write_connection_file()
    assert {Path(each.connection_file).parent for each in managers} == {tmp_path}
    assert len({each.connection_file for each in managers}) == 2
