"""Batches: one process and one output per job, a summary, and going on where it stopped."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from hml_core.errors import ConfigError, RunError
from hml_core.system import files, interruptions, streams
from hml_lab import places
from hml_lab.cli import main
from hml_lab.notebooks import batch, execution, outputs
from tests.notebooks.helpers import make
from tests.test_processes import LIMIT_S, is_gone, wait_for

SOURCES = (
    "value = 1  # an int\nname = ''  # a text",
    "import os, time\nprint('process', os.getpid())",
    "assert value > 0, 'value must be positive'",
    "time.sleep(600 if value > 100 else 0)",
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, *SOURCES)
    return tmp_path


def write(folder: Path, content) -> Path:
    path = folder / "batch.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def job(**fields) -> dict:
    return {"notebook": "made.ipynb", **fields}


def test_a_grid_makes_a_job_for_every_combination(folder):
    entry = job(grid={"value": [1, 2], "name": ["a", "b"]}, output="{name}/{value}.ipynb")
    jobs = batch.read(write(folder, {"output": "out", "timeout": 9, "jobs": [entry]}))
    assert [str(j.output) for j in jobs] == [f"out/{n}/{v}.ipynb" for n in "ab" for v in (1, 2)]
    assert jobs[1].parameters == {"value": 2, "name": "a"}
    assert {j.timeout for j in jobs} == {9}
    entry = job(grid={"value": [7]}, parameters={"name": "v{value}"})
    (other,) = batch.read(write(folder, {"jobs": [entry]}))
    assert other.output == places.checkout() / "my_results/notebooks/made_7.ipynb", "as its figures"
    assert other.parameters == {"value": 7, "name": "v7"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "to hold `name: value` lines"),
        ("- a", "name: value"),
        ({"jobs": []}, "to hold a list `jobs`"),
        ({"job": [job()]}, "unknown keys: job"),
        ({"jobs": [job(output="{value}.ipynb")]}, r"names what is not in the grid \(there is none\)"),
        ({"jobs": ["made.ipynb"]}, "Job 1 of 'batch.yaml': expected .* with a `notebook`"),
        ({"jobs": [job(params={})]}, "Job 1 .* unknown keys params: expected grid, notebook"),
        ({"jobs": [job(), {"notebook": "no.ipynb"}]}, "Job 2 .* There is no notebook 'no.ipynb'"),
        ({"jobs": [job(parameters={"valu": 3})]}, r"no parameter 'valu'\. Did you mean 'value'"),
        ({"jobs": [job(parameters={"value": "3"})]}, r"'value' to be int .* got '3'"),
        ({"jobs": [job(grid={"value": [1, 2.5]})]}, r"'value' to be int .* got 2\.5"),
        ({"jobs": [job(grid={"value": 3})]}, "'value' of `grid` to be a list, got 3"),
        ({"jobs": [job(grid={"value": []})]}, "'value' of `grid` to be a list"),
        ({"jobs": [job(grid={"value": [1]}, parameters={"value": 1})]}, "in `parameters` and in"),
        ({"jobs": [job(parameters=[1])]}, "expected `parameters` to hold"),
        ({"jobs": [job(timeout=0)]}, "`timeout` to be a number of seconds > 0"),
        ({"timeout": True, "jobs": [job()]}, "`timeout` to be a number of seconds > 0"),
        ({"jobs": [job(timeout=math.inf)]}, "`timeout` to be a number of seconds > 0"),
        ({"jobs": [job(timeout=1e300)]}, "`timeout` to be a number of seconds > 0"),
        ({"jobs": [job(output=" ")]}, "`output` to be a path, got ' ': it is blank"),
        ({"jobs": [job(output="a\0.ipynb")]}, "the character NUL"),
        ({"jobs": [job(output="a" * 300 + ".ipynb")]}, "it is too long"),
        ({"output": " ", "jobs": [job()]}, "`output` to be a path, got ' '"),
        ({"output": "/dev/null", "jobs": [job()]}, "Cannot write '/dev/null/made.ipynb'"),
        ({"output": "s3://results", "jobs": [job()]}, "`output` to be a path, got .*: it is an address"),
        ({"jobs": [{"notebook": "a/" * 3000}]}, "`notebook` to be a path, got .* too long"),
        ({"jobs": [job(grid={"value": [7]}, output="{value:>999999999}.ipynb")]}, "not in the grid"),
        ({"jobs": [job(grid={"value": [7]}, output="{value.__class__}.ipynb")]}, "not in the grid"),
        ({"jobs": [job(grid={"value": [7]}, output="{value[0]}.ipynb")]}, "not in the grid"),
        ({"jobs": [job(grid={n: [*range(99)] for n in "abcdef"})]}, "at most 10,000 points"),
        ({"jobs": [job(output="a.txt")]}, "`output` to end in .ipynb"),
        ({"output": ".", "jobs": [job(output="made.ipynb")]}, "would overwrite the notebook"),
        ({"jobs": [job(), job()]}, "Several jobs .* write made.ipynb: give each an `output`"),
        ({"jobs": [job(grid={"value": [1]}, output="{size}.ipynb")]}, "names what is not in the grid"),
        ({"output": 3, "jobs": [job()]}, "`output` to be a text"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_before_anything_starts(content, message, folder):
    write(folder, content)
    with pytest.raises((ConfigError, RunError), match=message):
        batch.read("batch.yaml")
    output = CliRunner().invoke(main, ["batch", "batch.yaml"])
    assert output.exit_code == 1
    assert output.output.startswith("Error: ")
    assert not list(folder.glob("results*"))


def test_no_job_writes_over_the_notebook_of_another(folder):
    shutil.copy("made.ipynb", "other.ipynb")
    jobs = [job(output="other.ipynb"), {"notebook": "other.ipynb", "output": "last.ipynb"}]
    write(folder, {"output": ".", "jobs": jobs})
    told = {"written by hand": "other.ipynb' is no result of made.ipynb"}
    told["a result"] = "would write over notebooks that it executes (other.ipynb)"
    for what, message in told.items():
        content = nbformat.read("other.ipynb", 4)
        if what == "a result":
            record = {"status": "done", "seconds": 1.0, "started": "today", "parameters": {}}
            content.metadata["hml_core"] = record
        nbformat.write(content, "other.ipynb")
        before = Path("other.ipynb").read_bytes()
        said = CliRunner().invoke(main, ["batch", "batch.yaml"])
        assert said.exit_code == 1
        assert message in said.output
        assert Path("other.ipynb").read_bytes() == before


def test_a_log_takes_the_place_of_a_log(folder):
    """What else has its name is somebody's."""
    mine = folder / "out" / "made.log"
    mine.parent.mkdir()
    mine.write_text("sowed 3 plates\n")
    with pytest.raises(ConfigError, match=r"log .* would take the place of 'out/made\.log'"):
        batch.run([batch.Job(Path("made.ipynb"), Path("out/made.ipynb"))], progress=False)
    assert mine.read_text() == "sowed 3 plates\n"
    record = {"status": "done", "seconds": 1.0, "started": "today", "parameters": {}}
    nbformat.write(nbformat.v4.new_notebook(metadata={"hml_core": record}), "out/made.ipynb")
    with pytest.raises(ConfigError, match="would take the place"):  # beside a result, too
        batch.run([batch.Job(Path("made.ipynb"), Path("out/made.ipynb"))], progress=False)
    outputs.running(Path("out/made.ipynb")).touch()  # nor beside one that was killed
    for text in ("Log of my life\n", f"{batch.EXECUTED}made.ipynb, at last\n"):
        mine.write_text(text)
        with pytest.raises(ConfigError, match="would take the place"):
            batch.run([batch.Job(Path("made.ipynb"), Path("out/made.ipynb"))], progress=False)
        assert mine.read_text() == text
    mine.write_text(f"{batch.OF_LOG}made.ipynb\n")
    failing = batch.Job(Path("made.ipynb"), Path("out/made.ipynb"), {"nothing": 1})
    for _ in range(2):  # one that failed before there was a result, and again
        frame = batch.run([failing], progress=False)
        assert "has no parameter 'nothing'" in frame["message"][0]
        assert mine.read_text().startswith(batch.OF_LOG)


def test_what_came_to_a_log_s_place_while_other_jobs_were_at_work_stays(folder, monkeypatch):
    jobs = [batch.Job(Path("made.ipynb"), Path(f"out/{name}.ipynb")) for name in "ab"]

    def execute(number, job, *_):
        (folder / "out" / "b.log").write_text("Somebody's")
        return {"status": "done"}

    monkeypatch.setattr(batch, "_executed", execute)
    (folder / "out").mkdir()
    frame = batch.run(jobs, progress=False)
    assert frame["status"].tolist() == ["done", "failed"]
    assert "would take the place of" in frame["message"][1]
    assert (folder / "out" / "b.log").read_text() == "Somebody's"


def printed(path: Path) -> str:
    cells = nbformat.read(path, 4).cells
    return "".join(out.get("text", "") for c in cells for out in c.get("outputs", []))


def test_a_summary_keeps_what_it_said_of_other_notebooks_that_are_there(folder):
    """Of a batch of the same name, or of all jobs where `--only` runs one."""
    frame = pd.DataFrame([{"output": "new.ipynb", "status": "done", "seconds": 1.0, "message": ""}])
    summary = folder / "batch_summary.csv"
    assert batch.with_others(summary, frame).equals(frame), "no summary yet"
    before = pd.DataFrame(
        [
            {"output": name, "status": "failed", "seconds": 2.0, "message": "NA"}
            for name in ("new.ipynb", str(folder / "other.ipynb"), str(folder / "gone.ipynb"))
        ]
    )
    (folder / "other.ipynb").write_text("{}")
    before.to_csv(summary, index=False)
    found = batch.with_others(summary, frame)
    assert found["output"].tolist() == ["new.ipynb", str(folder / "other.ipynb")]
    assert found["message"].tolist() == ["", "NA"]
    batch.require_summary(summary)
    batch.require_summary(folder / "none.csv")
    for foreign in ("", "a,b\n1,2\n", "\0", 'output,status,seconds,message\n"x'):
        summary.write_text(foreign)
        assert batch.with_others(summary, frame).equals(frame)


@pytest.mark.parametrize("held", ["", "a,b\n1,2\n", "my notes"])
def test_no_summary_takes_the_place_of_something_else(held, folder):
    write(folder, {"output": ".", "jobs": [job(output="out.ipynb")]})
    (folder / "batch_summary.csv").write_text(held)
    result = CliRunner().invoke(main, ["batch", "batch.yaml"])
    assert result.exit_code == 1
    assert "batch_summary.csv', which is none" in result.output
    assert (folder / "batch_summary.csv").read_text() == held
    assert not list(folder.glob("*.log")), "before work starts"


def test_the_summary_is_written_whoever_reads_what_is_printed(folder, monkeypatch):
    write(folder, {"output": "out", "jobs": [job(output="one.ipynb")]})
    Path("out").mkdir()
    row = {"output": "out/one.ipynb", "status": "done", "seconds": 1.0, "message": ""}
    monkeypatch.setattr(batch, "run", lambda *_, **__: pd.DataFrame([row]))

    def nobody(text, **_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(streams, "say", nobody)
    CliRunner().invoke(main, ["batch", "batch.yaml"])
    assert pd.read_csv("out/batch_summary.csv")["status"].tolist() == ["done"]


@pytest.mark.begun_first
def test_a_batch_ends_with_a_summary_whatever_fails_and_goes_on_with_resume(folder):
    """Two at a time; the exit status says that one failed; what is done is not done again."""
    entries = [
        job(grid={"value": [1, 2]}),
        job(parameters={"value": 0}, output="bad.ipynb"),
        job(parameters={"value": 101}, output="slow.ipynb", timeout=2),
    ]
    write(folder, {"output": "out", "jobs": entries})
    result = CliRunner().invoke(main, ["batch", "batch.yaml", "-j", "2"])
    assert result.exit_code == 1, result.output
    summary = pd.read_csv("out/batch_summary.csv").fillna("")
    assert summary["status"].tolist() == ["done", "done", "failed", "timed out"]
    assert "AssertionError: value must be positive" in summary["message"][2]
    assert "not done after 2 s" in summary["message"][3]
    assert "value must be positive" in result.output
    assert "Traceback" in Path("out/bad.log").read_text() or Path("out/bad.log").stat().st_size
    processes = [printed(Path(f"out/made_{value}.ipynb")) for value in (1, 2)]
    assert processes[0].startswith("process ")
    assert processes[0] != processes[1]

    entries[1]["parameters"]["value"] = entries[2]["parameters"]["value"] = 3
    entries[2]["timeout"] = 600
    write(folder, {"output": "out", "jobs": entries})
    frame = batch.run(batch.read("batch.yaml"), parallel=2, resume=True, progress=False)
    assert frame["status"].tolist() == ["done before", "done before", "done", "done"]
    assert processes == [printed(Path(f"out/made_{value}.ipynb")) for value in (1, 2)]


@pytest.mark.parametrize(
    ("log", "is_left", "status"),
    [
        (None, False, "done before"),
        ("", False, "done before"),
        ("Executed notebook: out/made.ipynb\nsome library's last words", False, "done before"),
        ("Executing: 50%\nInterrupted: stopped by SIGTERM.\n", False, "done"),
        ("Executing: 50%", False, "done"),
        (None, True, "done"),
        ("Executed notebook: out/made.ipynb", True, "done"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parallel", [1, 3])
def test_what_was_cut_off_while_an_older_result_lay_there_is_done_again(
    log, is_left, status, parallel, folder, monkeypatch
):
    """Some of its tables and figures are of the newer execution, its notebook is of the older one."""
    (folder / "out").mkdir()
    entries = [job(parameters={"value": value}, output=f"{value}.ipynb") for value in (1, 2, 3)]
    jobs = batch.read(write(folder, {"output": "out", "jobs": entries}))
    monkeypatch.setattr(batch, "is_done", lambda *_: True)
    executed = []

    def execute(number, job, *_):
        executed.append(job.output.name)
        return {"status": "done"}

    monkeypatch.setattr(batch, "_executed", execute)
    if log is not None:
        jobs[1].log.write_text(log and f"{batch.OF_LOG}2.ipynb\n{log}")
    if is_left:
        outputs.running(jobs[1].output).touch()
    frame = batch.run(jobs, resume=True, parallel=parallel, progress=False)
    assert frame["status"].tolist() == ["done before", status, "done before"]
    assert executed == (["2.ipynb"] if status == "done" else [])


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_whichever_thread_the_system_gives_it_to(sent, folder, monkeypatch):
    """As after SIGSTOP: the main thread, which waits, was not woken before the end of all jobs."""
    write(folder, {"output": "out", "jobs": [job()]})
    stopped = threading.Event()

    class Process:
        terminate = staticmethod(stopped.set)
        send_signal = staticmethod(lambda number: None)

    def one(number, task, resume, cores, working):
        working[number] = Process()
        signal.pthread_kill(threading.get_ident(), sent)
        assert stopped.wait(LIMIT_S), "the jobs were not told"

    monkeypatch.setattr(batch, "_one", one)
    with pytest.raises(interruptions.Interrupted) as heard, interruptions.interruptible():
        batch.run(batch.read("batch.yaml"), progress=False)
    assert heard.value.signal == sent
    assert stopped.is_set()


def test_a_job_that_is_being_begun_when_a_batch_is_stopped_ends_at_once(folder, monkeypatch):
    """Its process was not there yet to be asked; the notebook would be executed to its end."""
    make(folder, SOURCES[0], "import time; time.sleep(30)")
    write(folder, {"output": "out", "jobs": [job()]})
    begun, told = threading.Event(), threading.Event()
    guarded = batch.processes.guarded

    def late(command, grace):
        begun.set()
        assert told.wait(LIMIT_S)
        return guarded(command, grace)

    def interrupt(_):
        assert begun.wait(LIMIT_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch.processes, "guarded", late)
    monkeypatch.setattr(batch.interruptions, "ended", interrupt)
    monkeypatch.setattr(batch.Progress, "message", lambda *_: told.set())
    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.read("batch.yaml"), progress=False)
    assert not os.path.lexists("out/made.ipynb")


def test_jobs_that_wait_when_a_batch_is_stopped_are_not_begun(folder, monkeypatch):
    """Nor are their logs emptied, which say how they ended before."""
    jobs = [batch.Job(Path("made.ipynb"), Path(f"out/{name}.ipynb")) for name in "abc"]
    begun, told, executed = threading.Event(), threading.Event(), []
    (folder / "out").mkdir()
    for one in jobs:
        one.log.write_text(f"{batch.OF_LOG}{one.output.name}\nError: no room\n")

    def execute(number, job, *_):
        executed.append(job.output.name)
        begun.set()
        assert told.wait(LIMIT_S)
        return {"status": "stopped"}

    def interrupt(_):
        assert begun.wait(LIMIT_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "_executed", execute)
    monkeypatch.setattr(batch.interruptions, "ended", interrupt)
    monkeypatch.setattr(batch.Progress, "message", lambda *_: told.set())
    with pytest.raises(KeyboardInterrupt):
        batch.run(jobs, progress=False)
    assert executed == ["a.ipynb"]
    assert [one.log.read_text().endswith("no room\n") for one in jobs] == [False, True, True]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_batch_leaves_no_process_and_says_what_was_stopped(sent, folder):
    """Ctrl-C and kill -9: all ends that was started, and --resume does not take it for done."""
    note = folder / "pids"
    source = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '3600'], start_new_session=True)\n"
        "open('new', 'w').write(f'{os.getpid()} {os.getppid()} {child.pid}')\n"
        f"os.rename('new', {str(note)!r})"
    )
    make(folder, SOURCES[0], source, "time.sleep(3600)")
    write(folder, {"output": "out", "jobs": [job(grid={"value": [2]})]})
    command = [sys.executable, "-m", "hml_core", "batch", "batch.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(note.exists, "second cell")
    process.send_signal(sent)
    output, _ = process.communicate(timeout=LIMIT_S)
    if sent == signal.SIGINT:
        assert process.returncode == 128 + sent
        assert "--resume goes on from there" in output
    for number in note.read_text().split():
        wait_for(lambda number=number: is_gone(int(number)), f"end of process {number}")
    # The notebook's own process says how it ended before it does.
    wait_for(lambda: execution.record_of("out/made_2.ipynb"), "record")
    assert execution.record_of("out/made_2.ipynb")["status"] == "stopped"
    (task,) = batch.read("batch.yaml")
    assert not execution.is_done(task.notebook, task.parameters, task.output)


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (0, "done", "done"),
        (1, "failed", "failed"),
        (1, "timed out", "timed out"),
        (143, "stopped", "stopped"),
        (137, "done", "failed"),  # killed after it had written, or the record is another's
        (0, "failed", "failed"),
    ],
)
def test_a_job_s_status_is_what_its_process_and_its_record_agree_on(code, status, told, folder):
    (task,) = batch.read(write(folder, {"output": "out", "jobs": [job()]}))
    task.output.parent.mkdir()
    record = {"status": status, "seconds": 1.0, "started": "", "parameters": {}}
    record["sha256"] = files.sha256(task.notebook)
    content = nbformat.v4.new_notebook(metadata={"hml_core": record})
    nbformat.write(content, task.output)
    assert batch._status(task, code, None) == told
    older = batch._version(task.output)
    if code:
        assert batch._status(task, code, older) == "failed", "what lay there before tells nothing"


def test_a_second_batch_leaves_the_log_of_the_first_alone(folder):
    """It would be emptied while the first one's processes write to it, or while they are still ending."""
    job = batch.Job(Path("made.ipynb"), Path("out.ipynb"))
    with outputs.held(job.log, "") as log:
        os.write(log, said := b"Log of out.ipynb\nthe first")
        (row,) = batch.run([job], progress=False).to_dict("records")
        assert row["status"] == "failed"
        assert row["message"] == (
            "Another batch executes a notebook into 'out.ipynb'; its log is left alone."
        )
        assert job.log.read_bytes() == said
    assert not job.output.exists()


@pytest.mark.parametrize(
    ("goes", "told"),
    [
        ("folder", "its process ended with status 1, and its log: No such file or directory"),
        ("process", "'python': Cannot allocate memory"),
    ],
)
def test_a_job_whose_folder_or_process_is_gone_stops_no_other(goes, told, folder, monkeypatch):
    """Nor does the summary go: what the others did is said."""
    gone, kept = (batch.Job(Path("made.ipynb"), Path(name, "out.ipynb")) for name in "ab")

    def started(command, **_):
        if str(gone.output) in command and goes == "process":
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "python")
        if str(gone.output) in command:
            shutil.rmtree("a")
        return SimpleNamespace(wait=lambda *_: None, returncode=1)

    monkeypatch.setattr(batch.subprocess, "Popen", started)
    rows = batch.run([gone, kept], progress=False)
    assert rows["status"].tolist() == ["failed", "failed"]
    assert rows["message"].tolist() == [told, "its process ended with status 1"]


def test_a_notebook_that_was_changed_meanwhile_says_so(folder):
    assert batch._message(folder / "a.log", 0).startswith("its notebook or its output was changed")


def test_of_a_log_without_end_the_error_is_told(folder):
    log = folder / "out.log"
    with log.open("wb") as stream:
        stream.truncate(2**40)
        stream.seek(2**40)
        stream.write(b"\nError: it failed\nLater.\n")
    assert batch._message(log, 1) == "it failed"


def test_a_job_whose_process_does_not_end_in_time_is_timed_out(folder, monkeypatch):
    """On a busy machine it may not even have begun."""
    monkeypatch.setattr(batch, "GRACE_S", 0.0)
    job = batch.Job(Path("made.ipynb"), Path("out/made.ipynb"), timeout=0.1)
    (row,) = batch.run([job], progress=False).to_dict("records")
    assert row["status"] == "timed out"
    assert row["message"] == "its process was not done after 0.1 s"


def test_a_job_that_was_killed_says_so(folder):
    log = folder / "a.log"
    log.write_text("Executing: 1/3\n")
    assert batch._message(log, 137) == "its process was ended by SIGKILL"
    log.write_text("Error: no room\nAborted\n")
    assert batch._message(log, 137) == "no room"


@pytest.mark.parametrize("name", ["made.ipynb", "made.log", "batch_summary.csv"])
def test_a_batch_writes_to_plain_files_only(name, folder):
    """A pipe would be waited for, for ever; a link replaced, or what it names overwritten."""
    (folder / "out").mkdir()
    os.mkfifo(folder / "out" / name)
    write(folder, {"output": "out", "jobs": [job()]})
    result = CliRunner().invoke(main, ["batch", "batch.yaml"])
    assert result.exit_code == 1
    assert "to be a plain file, got" in result.output
    assert [path.name for path in (folder / "out").iterdir()] == [name]


def test_the_batches_that_come_along_are_valid(repository, monkeypatch):
    monkeypatch.chdir(repository)
    assert batch.read("notebooks/batches/tables.yaml")


LOUD = """import os, sys
for _ in range(3000):
    os.write(2, b"y" * 100 + b"\\n")
value"""


def test_a_log_that_cannot_be_written_stops_no_notebook(tmp_path):
    """As beyond `ulimit -f`, or on a full disk: a kernel that cannot write would wait for ever."""
    resource, limit = pytest.importorskip("resource"), 2**14
    loud = make(tmp_path, "value = 1", LOUD, name="loud.ipynb")
    job = batch.Job(loud, tmp_path / "out.ipynb")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        (row,) = batch.run([job], progress=False).to_dict("records")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert row["message"].endswith("its log is cut off (File too large)")
    assert job.log.stat().st_size == limit
    assert row["status"] == "done"


@pytest.mark.parametrize("taken", ["", batch.OF_LOG[:3]])
def test_a_log_of_which_a_full_disk_took_little_is_ours_the_next_time(taken, folder):
    (planned,) = batch.read(write(folder, {"output": "out", "jobs": [job()]}))
    planned.log.parent.mkdir()
    planned.log.write_text("Somebody's")
    with pytest.raises(ConfigError, match="would take the place of"):
        batch._require_log(planned)
    planned.log.write_text(taken)
    batch._require_log(planned)


def test_what_is_said_behind_a_progress_bar_is_found(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("\rExecuting:   0%| | 0/2 [00:00<?, ?cell/s]Error: no room")
    assert batch._message(log, 1) == "no room"
    copy = streams.Copy(os.open(os.devnull, os.O_WRONLY), 100)
    copy.end, copy.error = b"]Error: no disk", OSError(28, "No space left on device")
    assert batch._message(log, 1, copy) == "no disk"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_who_writes_notices_nothing_of_what_cannot_be_written():
    full = os.open("/dev/full", os.O_WRONLY)
    with streams.copied(full, 10) as copy:
        for _ in range(100):
            os.write(copy.source, b"0123456789abcdef" * 4096)
    assert copy.end == b"6789abcdef"
    assert copy.error.errno == errno.ENOSPC
    os.close(full)
    reading, writing = os.pipe()
    with streams.copied(writing) as copy:
        os.write(copy.source, b"all")
    assert os.read(reading, 10) == b"all"
    assert copy.error is None
    os.close(reading)
    with streams.copied(writing) as copy:  # nobody reads
        os.write(copy.source, b"all")
    assert copy.error.errno == errno.EPIPE
    os.close(writing)
