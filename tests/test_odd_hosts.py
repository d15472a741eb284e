"""Hosts that lack something: refused before work starts, or the same result as anywhere."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import multiprocessing.synchronize
import os
import socket
import stat
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest
import torch
from click.testing import CliRunner
from tqdm import tqdm

from data_prep import parallel, worker
from hml_core import engines
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles
from hml_core.errors import RunError
from hml_core.system import asked, files, limits, locks, progress, provenance, streams, threads
from hml_core.trainer import beginnings, feeds, fit
from hml_lab import notebooks
from hml_lab.cli import main
from hml_lab.notebooks import batch
from tests.engines.helpers import pretend_slurm
from tests.test_processes import LIMIT_S

# Open files ---------------------------------------------------------------------------------------

resource = pytest.importorskip("resource")


@pytest.fixture
def allowed(monkeypatch):
    """Let the system allow so many open files; what is then set is listed."""
    given: list[tuple[int, int]] = []
    others = resource.getrlimit  # which libraries ask for when they are imported meanwhile

    def allow(soft: int, hard: int) -> list[tuple[int, int]]:
        def limit(kind: int) -> tuple[int, int]:
            return (soft, hard) if kind == resource.RLIMIT_NOFILE else others(kind)

        monkeypatch.setattr(resource, "getrlimit", limit)
        monkeypatch.setattr(resource, "setrlimit", lambda _, pair: given.append(pair))
        return given

    return allow


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        (1024, 4096, []),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
        (64, 4096, [(256, 4096)]),
        (64, resource.RLIM_INFINITY, [(256, resource.RLIM_INFINITY)]),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_needed(soft, hard, then, allowed):
    given = allowed(soft, hard)
    limits.require_files(limits.SEVERAL_PROCESSES, "this")
    assert given == then


def test_a_system_without_such_limits_sets_none(monkeypatch):
    """Windows; on macOS cores cannot be kept from a process."""
    monkeypatch.setitem(sys.modules, "resource", None)
    limits.require_files(10**9, "this")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert limits.usable_cores() == 6
    monkeypatch.setattr("os.cpu_count", lambda: None)  # it cannot tell
    assert limits.usable_cores() == 1


def test_too_few_open_files_are_told_before_anything_starts(allowed, tmp_path, repository):
    allowed(64, 64)
    told = r"may open 64 files at a time \(`ulimit -n`\), .* needs 256"
    with pytest.raises(RunError, match=told):
        notebooks.execute(
            repository / "notebooks/01_hard_mining_loss.ipynb", {}, tmp_path / "out.ipynb"
        )
    assert not (tmp_path / "out.ipynb").exists()
    with pytest.raises(RunError, match=told):
        engines.sweep([RunConfig(epochs=1)], engine="dask", runs_root=tmp_path, progress=False)


@pytest.fixture
def few_threads(monkeypatch):
    """Let the system allow five threads more, as `ulimit -u` does; nothing else of ours starts any."""
    start, living = threading.Thread.start, []

    def refuse(self):
        if sum(thread.is_alive() for thread in living) >= 5:
            raise RuntimeError("can't start new thread")
        living.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return living


def test_too_few_processes_are_told_before_anything_starts(few_threads, tmp_path, repository):
    limits.require_threads(5, "this")
    assert not any(thread.is_alive() for thread in few_threads)
    told = r"may start 5 more processes and threads \(`ulimit -u`"
    with pytest.raises(RunError, match=told):
        notebooks.execute(
            repository / "notebooks/01_hard_mining_loss.ipynb", {}, tmp_path / "out.ipynb"
        )
    assert not (tmp_path / "out.ipynb").exists()
    config = RunConfig(epochs=1, batch_size=32, micro_batch_size=16)
    for engine in ("dask", "torchrun:2"):
        with pytest.raises(RunError, match=told):
            engines.sweep([config], engine=engine, runs_root=tmp_path, progress=False)
    with pytest.raises(RunError, match=told):
        next(parallel.in_parallel(print, iter(()), tmp_path, None, 1))
    jobs = [batch.Job(tmp_path / "in.ipynb", {}, tmp_path / f"{n}.ipynb") for n in range(2)]
    with pytest.raises(RunError, match=f"{told}.* a batch of 2 at a time needs 6"):
        batch.run(jobs, parallel=8, progress=False)


def test_images_are_decoded_by_as_many_threads_as_the_system_allows(few_threads, monkeypatch):
    monkeypatch.setattr(limits, "usable_cores", lambda: 6)
    told = r"may start 5 more .*, decoding images needs 6"
    with pytest.raises(RunError, match=told), threads.pool() as pool:
        pool.submit(print)
    monkeypatch.setattr(limits, "usable_cores", lambda: 5)
    with threads.pool() as pool:
        assert list(pool.map(abs, range(-9, 0))) == [*range(9, 0, -1)]


def test_a_command_is_asked_where_no_thread_can_be_started(few_threads, monkeypatch):
    """With room for git alone (`ulimit -u`): a run says of which commit it is, or of none."""
    few_threads.extend([SimpleNamespace(is_alive=lambda: True)] * 5)
    assert asked.ask(["echo", "yes"], LIMIT_S) == (0, "yes\n", "")
    provenance.git_commit.__wrapped__()


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("", True),
        ("raise ImportError('failed to map segment')", False),
        ("import os; os.kill(os.getpid(), 9)", False),  # as of std::bad_alloc
        ("while True: pass", False),  # as OpenBLAS
    ],
)
def test_libraries_that_get_too_few_addresses_are_told_before_work(
    text, loads, tmp_path, monkeypatch
):
    """Natively they abort or go in circles: in a fork, which is given up after a while."""
    (tmp_path / "library_for_tests.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(limits, "LOADED", ("library_for_tests",))
    monkeypatch.setattr(limits, "LOADED_S", 0.5 if text.startswith("while") else 600.0)
    monkeypatch.setattr(limits, "require_address_space", lambda *_: None)
    monkeypatch.setattr(limits, "_address_space", lambda: limits.AMPLE - 1)
    result = CliRunner().invoke(main, ["runs", "list", "--runs-root", str(tmp_path)])
    assert (result.exit_code == 0) == loads
    told = "torch and scipy do not load within the 8,192 MiB of addresses"
    assert (told in result.output) != loads
    monkeypatch.setattr(limits, "_address_space", lambda: limits.AMPLE)  # nobody looks
    assert CliRunner().invoke(main, ["runs", "list", "--runs-root", str(tmp_path)]).exit_code == 0
    assert "library_for_tests" not in sys.modules


def test_addresses_are_counted_before_training_and_predicting(tmp_path, monkeypatch):
    taken = limits._told(limits.STATUS, "VmSize:", unit=1024)
    if taken is None:
        pytest.skip("this system does not tell")
    monkeypatch.setattr(limits, "_address_space", lambda: int(taken) + limits.TO_TRAIN // 2)
    with pytest.raises(RunError, match=r"MiB of addresses .* training needs 768 more"):
        fit(RunConfig(epochs=1), runs_root=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="any command needs 1,024 more"):
        limits.require_address_space(limits.LIBRARIES, "any command")
    monkeypatch.undo()
    limits.require_address_space(limits.TO_TRAIN, "training")  # nothing limits this process
    monkeypatch.setitem(sys.modules, "resource", None)
    assert limits._address_space() is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("std::bad_alloc"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_one_message(error, monkeypatch):
    monkeypatch.setattr("hml_lab.doctor.examine", lambda *_: (_ for _ in ()).throw(error))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: There is too little memory for this command")


def test_a_worker_without_a_watch_over_its_parent_ends(monkeypatch):
    """It would live on after a parent that is killed; the parent is told that a worker has died."""
    monkeypatch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
    monkeypatch.setattr(
        threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread"))
    )
    with pytest.raises(SystemExit, match="1"):
        worker.begin()


# Streams and folders ------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_are_opened_on_nothing(closed):
    """Of a daemon: otherwise the next file has the number of one, and what a child prints goes there."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            for number in closed:
                os.close(number)
                setattr(sys, ("stdin", "stdout", "stderr")[number], None)
            sys.modules.pop("ipykernel", None)  # in a notebook progress is shown without a stream
            streams.open_closed()
            print("nothing", file=sys.stdout, flush=True)
            print("nothing", file=sys.stderr, flush=True)
            same = [os.path.sameopenfile(number, os.open(os.devnull, 0)) for number in closed]
            handed_on = [os.get_inheritable(number) for number in closed]
            os.write(tell, b"y" if all(same + handed_on) and progress.is_headless() else b"n")
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told, "rb") as stream:
        assert stream.read() == b"y"


def status_with(out: int, error: int, *arguments: str) -> int:
    """The exit status of the command with these standard streams."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(out, 1)
            os.dup2(error, 2)
            for number, name in ((1, "stdout"), (2, "stderr")):
                stream = os.fdopen(number, "w", buffering=1, closefd=False)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)
            main([*arguments])
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            os._exit(99)
        os._exit(98)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def streams_that_take_nothing():
    """A full disk, and a pipe whose reader has gone."""
    if not os.path.exists("/dev/full"):
        pytest.skip("needs a device that is always full")
    reading, pipe = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    yield full, pipe
    os.close(full)
    os.close(pipe)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]], ids=str)
def test_a_help_text_that_cannot_be_written_is_one_message(
    arguments, streams_that_take_nothing, tmp_path
):
    full, _ = streams_that_take_nothing
    with (tmp_path / "said").open("w") as said:
        assert status_with(full, said.fileno(), *arguments) == 1
    assert (tmp_path / "said").read_text() == "Error: The system: No space left on device.\n"


@pytest.mark.parametrize("which", [0, 1], ids=["a full disk", "a pipe nobody reads"])
def test_work_is_done_whatever_standard_error_takes(
    which, streams_that_take_nothing, tmp_path, monkeypatch
):
    """Progress and notes go nowhere; the exit status is the work's."""
    done = tmp_path / "done"

    def work(*_):
        warnings.warn("a note to the user", UserWarning, stacklevel=1)
        for _ in tqdm(range(3), file=sys.stderr):
            print("progress" * 10_000, file=sys.stderr, flush=True)
        done.touch()
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", work)
    bad = streams_that_take_nothing[which]
    with (tmp_path / "said").open("w") as said:
        assert status_with(said.fileno(), bad, "doctor") == 0
        assert done.exists()
        assert status_with(said.fileno(), bad, "doctor", "--no-such-option") == 2
        assert status_with(said.fileno(), bad, "runs", "show", str(tmp_path / "no")) == 1


class Tee:
    """What people put in a stream's place, to keep a log."""

    def write(self, text: str) -> None:
        pass

    flush = write


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [lambda: None, _closed, Tee], ids=["none", "closed", "tee"])
def test_progress_is_told_without_a_stream(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert progress.is_headless()


@pytest.mark.parametrize("command", [["doctor"], ["sweep", "grid.yaml"], ["run", "n.ipynb"]])
def test_a_current_folder_that_is_gone_is_told_first(command, monkeypatch):
    def fail():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", fail)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "Error: The current folder cannot be told (No such file" in result.output


# Between processes --------------------------------------------------------------------------------


def test_pools_and_clusters_need_semaphores(tmp_path, monkeypatch):
    """/dev/shm of 4 kB, or one that is read-only."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    limits.require_semaphores("it")
    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", fail)
    told = r"no room for semaphores in /dev/shm \(No space left on device\)"
    with pytest.raises(RunError, match=told):
        engines.sweep([RunConfig(epochs=1)], engine="dask", runs_root=tmp_path, progress=False)
    with pytest.raises(RunError, match=told):
        next(parallel.in_parallel(print, iter(()), tmp_path, None, 1))


@pytest.mark.parametrize("engine", ["dask", "torchrun:2", "slurm"])
def test_a_folder_that_cannot_be_sent_as_text_is_named(engine, tmp_path, monkeypatch):
    """A name in Latin-1, or any but ASCII under the locale C."""
    odd = tmp_path / "caf\udce9"
    odd.mkdir()
    said, runs_root = r"`runs_root` is '.*caf\\udce9', the engine 'slurm'", odd
    if engine == "slurm":
        engine = f"slurm:{pretend_slurm(tmp_path, monkeypatch)}"
    else:
        monkeypatch.setattr("tempfile.tempdir", str(odd))
        said, runs_root = r"TMPDIR is '.*caf\\udce9'", tmp_path / "runs"
    config = RunConfig(epochs=1, batch_size=32, micro_batch_size=16)
    with pytest.raises(RunError, match=said):
        engines.sweep([config], engine=engine, runs_root=runs_root, progress=False)
    assert not list(odd.glob("[!.]*"))


@pytest.mark.parametrize("engine", ["dask", "torchrun:2"])
def test_engines_of_several_processes_need_the_loopback_interface(engine, tmp_path, monkeypatch):
    """Without it both wait for ever."""

    def fail(*_, **__):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    limits.require_loopback("it")
    monkeypatch.setattr(socket, "create_connection", fail)
    config = RunConfig(epochs=1, batch_size=32, micro_batch_size=16)
    with pytest.raises(RunError, match=r"cannot connect to itself at 127.0.0.1 \(Network is unr"):
        engines.sweep([config], engine=engine, runs_root=tmp_path, progress=False)


def test_a_cluster_that_does_not_start_is_told_with_the_first_reason():
    def start():
        try:
            raise PermissionError(errno.EACCES, "Permission denied")
        except OSError as error:
            raise RuntimeError("Nanny failed to start.") from error

    with pytest.raises(RunError, match=r"engine 'dask' do not start: .*Permission denied"):
        importlib.import_module("hml_core.engines.dask")._started(start)


# Letters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_a_terminal_without_our_letters_is_told_all_the_same(charset, repository, monkeypatch):
    monkeypatch.chdir(repository)
    result = CliRunner(charset=charset).invoke(
        main, ["batch", "notebooks/batches/tables.yaml", "--dry-run"]
    )
    assert result.exit_code == 0, result.exception
    # Where the system names no encoding, or ASCII, click writes UTF-8 all the same.
    arrow = r"\u2190" if charset == "latin-1" else ""
    assert f"{arrow}  notebooks/02_cifar_lt.ipynb" in result.output


# Locks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")],
    ids=["refused", "unknown"],
)
def test_a_folder_without_locks_is_refused_before_training(error, tiny, tmp_path, monkeypatch):
    def fail(self, *_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(RunError, match=r"Cannot lock a file .*on a file system with locks"):
        fit(tiny(epochs=1), runs_root=tmp_path, progress=False)


def test_a_lock_of_somebody_else_s_is_named(tiny, tmp_path, monkeypatch):
    def fail(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", self.lock_file)

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.raises(
        RunError, match=r"Cannot open '.*\.lock' \(Permission denied\), another user's"
    ):
        fit(tiny(epochs=1), runs_root=tmp_path, progress=False)


def test_a_mark_is_not_taken_for_a_lock(tmp_path, monkeypatch):
    """What filelock does by itself where the kernel has no locks: it would outlive its process."""
    monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    with (
        pytest.raises(RunError, match="outlives its process is no lock"),
        locks.held(tmp_path, "it", "works"),
    ):
        pass


@pytest.mark.parametrize(
    ("root", "folder", "lock"),
    [(0o777, 0o777, 0o666), (0o1777, 0o777, 0o666), (0o700, 0o700, 0o600)],
)
def test_locks_are_open_to_whom_the_runs_are_open_to(root, folder, lock, tmp_path):
    before = os.umask(0o022)
    try:
        tmp_path.chmod(root)
        with locks.held(tmp_path, "it", "works"):
            modes = [
                stat.S_IMODE(path.stat().st_mode)
                for path in (tmp_path / locks.FOLDER, tmp_path / locks.FOLDER / "it.lock")
            ]
    finally:
        os.umask(before)
    assert modes == [folder, lock]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root to act for two users")
def test_folders_of_ours_belong_to_whom_the_runs_belong(tmp_path):
    """One command as root, or of another member of the group, must not lock the others out."""
    runs = tmp_path / "runs"
    runs.mkdir()
    os.chown(runs, 65534, 65533)
    runs.chmod(0o775)
    with locks.held(runs, "it", "works"), beginnings.kept(runs):
        made = [*runs.rglob("*")]
        owners = {
            str(path.relative_to(runs)): (path.lstat().st_uid, path.lstat().st_gid)
            for path in made
            if path.suffix != ".json"  # notes, which are replaced and not opened
        }
    assert {".locks", ".locks/it.lock", ".beginnings", ".beginnings/.locks"} <= set(owners)
    assert set(owners.values()) == {(65534, 65533)}


def test_what_may_not_be_given_away_stays_as_it_is(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", refused)
    (tmp_path / "made").touch()
    files.give_to(Path("/"), tmp_path / "made")
    assert (tmp_path / "made").exists()


def test_a_link_in_a_locks_place_is_not_written_through(tmp_path):
    (tmp_path / locks.FOLDER).mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / locks.FOLDER / "it.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(RunError, match="Cannot lock"), locks.held(tmp_path, "it", "works"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


# Shared memory ------------------------------------------------------------------------------------


def test_images_come_through_a_pipe_where_there_is_no_shared_memory(miniature, monkeypatch):
    from hml_core import datasets

    config = RunConfig(dataset="inat2018", image_size=32, model="resnet8", epochs=1)
    splits = datasets.load(config, miniature)
    assert isinstance(splits.train, LabelledFiles)
    monkeypatch.setenv("HML_LOADER_WORKERS", "1")
    order, batches = torch.arange(20), []
    for has_room in (True, False):
        monkeypatch.setattr(limits, "has_shared_memory", lambda size, has=has_room: has)
        feed = feeds.FileFeed(splits.train, splits, 32, "resized_crop", torch.device("cpu"))
        assert (feed.loader.collate_fn is feeds._through_a_pipe) != has_room
        stream = torch.Generator().manual_seed(0)
        batches.append(torch.cat(list(feed.batches(order, 8, stream))))
    assert torch.equal(*batches)


def test_shared_memory_is_measured(monkeypatch):
    told = os.statvfs_result((4096, 4096, 1, 1, 1, 0, 0, 0, 0, 255))  # 4 kB
    monkeypatch.setattr(os, "statvfs", lambda path: told)
    assert limits.has_shared_memory(4096)
    assert not limits.has_shared_memory(4097)

    def fail(path):
        raise FileNotFoundError

    monkeypatch.setattr(os, "statvfs", fail)
    assert limits.has_shared_memory(2**40), "where there is no such folder, there is no such limit"


# Memory -------------------------------------------------------------------------------------------

HOST = "MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n"


@pytest.mark.parametrize(
    ("limit", "used", "statistics", "expected"),
    [
        ("max", "5000", "inactive_file 7\n", 1_024_000),  # of the host
        ("600000", "500000", "anon 1\ninactive_file 50000\n", 150_000),
        ("600000", "500000", "", 100_000),
        ("600000", "700000", "inactive_file 1\n", 0),
        (None, None, None, 1_024_000),  # no container
    ],
)
def test_memory_that_files_only_borrow_is_available(
    tmp_path, monkeypatch, limit, used, statistics, expected
):
    """A system that has been up for a while has hardly any free memory, and images still fit into it."""
    host = tmp_path / "meminfo"
    host.write_text(HOST)
    texts = {"memory.max": limit, "memory.current": used, "memory.stat": statistics}
    for name, text in texts.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    container = (str(tmp_path / "memory.max"), *limits.CONTAINERS[0][1:])
    monkeypatch.setattr(limits, "MEMORY", str(host))
    monkeypatch.setattr(limits, "CONTAINERS", (container,))
    assert limits.available_memory() == expected
    monkeypatch.delenv("HML_IMAGE_CACHE_GB", raising=False)
    assert feeds.cache_bytes() == feeds.CACHE_SHARE * expected


def test_a_system_without_those_files_tells_its_free_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", str(tmp_path / "none"))
    monkeypatch.setattr(limits, "CONTAINERS", ())
    assert limits.available_memory() > 0
