"""Hosts that lack something: refused before work starts, or the same result as anywhere."""

from __future__ import annotations

import contextlib
import errno
import importlib
import multiprocessing.synchronize
import os
import socket
import stat
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tqdm import tqdm

from data_prep import parallel, worker
from hml_core import engines
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles
from hml_core.errors import ConfigError, RunError
from hml_core.losses import LOSSES, HardMiningLoss
from hml_core.recipes import Stage
from hml_core.runs import Run
from hml_core.system import devices, files, limits, locks, progress, seeds, streams
from hml_core.trainer import beginnings, feeds, fit, phase
from hml_lab import notebooks
from hml_lab.cli import main
from tests.test_kept_weights import images_of

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


def test_progress_is_told_without_a_stream(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
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


@pytest.mark.parametrize(("root", "folder", "lock"), [(0o777, 0o777, 0o666), (0o700, 0o700, 0o600)])
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


# Numbers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("plain")
    return fit(_small(), runs_root=root, progress=False, keep_weights="last")


def _small(**fields) -> RunConfig:
    return RunConfig(**{"recipe": "hml1", "model": "resnet8", "epochs": 2, **fields})


@contextlib.contextmanager
def changed(get, change, value):
    before = get()
    change(value)
    try:
        yield
        assert get() == value, "as it was before"
    finally:
        change(before)


OF_A_PROGRAM = {
    "default type": lambda: changed(
        torch.get_default_dtype, torch.set_default_dtype, torch.float64
    ),
    "fewer bits": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "fewer bits of one library": lambda: changed(
        lambda: torch.backends.mkldnn.conv.fp32_precision,
        lambda value: setattr(torch.backends.mkldnn.conv, "fp32_precision", value),
        "bf16",
    ),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "no gradients": torch.inference_mode,
}


@pytest.mark.parametrize("setting", OF_A_PROGRAM)
def test_what_a_program_has_set_in_torch_is_not_part_of_a_result(setting, plain, tmp_path):
    """The record would say nothing of it, under the same id."""
    images = images_of(plain.config)
    with OF_A_PROGRAM[setting]():
        other = fit(_small(), runs_root=tmp_path, progress=False)
        predicted = plain.model().logits(images)
    assert np.array_equal(plain.predictions[0], other.predictions[0])
    assert np.array_equal(plain.predictions[0], predicted.numpy())


def test_runs_of_several_threads_are_those_of_one(tmp_path):
    """They take turns at torch's global generators and settings, step by step."""
    configs = [_small(recipe="ce", epochs=1, seed=seed) for seed in range(6)]

    def trained(root: str, threads: int) -> list[np.ndarray]:
        def train(config):
            return fit(config, runs_root=tmp_path / root, progress=False).predictions[0]

        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(train, configs))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        together = trained("together", 3)
    finally:
        sys.setswitchinterval(before)
    assert all(map(np.array_equal, together, trained("alone", 1)))


def test_chance_is_one_thread_s_at_a_time():
    """torch's layers draw from a generator that all threads share."""

    def draw(stream: str, *, beside: threading.Thread | None = None) -> list[float]:
        with seeds.seeded(0, stream):
            if beside is not None:
                beside.start()
                beside.join(0.2)  # were it not to wait, it would be over by then
                assert beside.is_alive()
            return torch.rand(3).tolist()

    other = threading.Thread(target=draw, args=("other",))
    assert draw("one", beside=other) == draw("one")
    other.join()


def test_one_run_in_two_threads_is_trained_once(tmp_path):
    """Who waits for the other's run holds nothing that it needs to go on."""
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(fit, _small(epochs=3), runs_root=tmp_path, progress=False) for _ in range(2)
        ]
        assert done[0].result().run_id == done[1].result().run_id


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_waits_for_no_thread_that_is_not_there():
    """A pool of multiprocessing's, after something was trained: torch's threads are the parent's."""

    def look() -> None:
        devices.resolve("cpu")
        threads = torch.get_num_threads()
        taken = seeds.turn.acquire(blocking=False)
        os._exit(0 if threads == 1 and taken else 1)

    is_held, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with seeds.turn:
            is_held.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    if (child := os.fork()) == 0:
        look()
    is_over.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_losses_move_to_a_device_without_float64(name):
    """Apple's MPS; here a stand-in that refuses as it does."""
    from hml_core.losses import registry

    needed = (
        {"class_counts": [9, 3, 1]} if "class_counts" in registry.parameters(LOSSES[name]) else {}
    )
    if "weight" in registry.parameters(LOSSES[name]):
        needed["weight"] = [0.5, 1.0, 1.5]
    loss = LOSSES[name](**needed)
    before = {key: value.clone() for key, value in loss.named_buffers()}

    def move(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    loss._apply(move)
    for key, value in loss.named_buffers():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), before[key].double())


def test_another_error_of_a_move_is_not_hidden():
    def fail(tensor):
        raise TypeError("no such thing")

    with pytest.raises(TypeError, match="no such thing"):
        HardMiningLoss(weight=[1.0, 2.0])._apply(fail)


def test_smoothing_beyond_what_the_classes_allow_is_refused_where_only_images_tell(monkeypatch):
    config = RunConfig(label_aware_smoothing=0.6)
    with pytest.raises(ConfigError, match=r"`label_aware_smoothing`: .*below 0\.5"):
        phase.stage_loss(config, Stage("cross_entropy"), np.array([9, 3]))


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
