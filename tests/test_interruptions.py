"""A signal is an interruption: raised once, with a status of its own, never lost, and in no fork's way."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
import threading
import time

import pytest
from click.testing import CliRunner

import hml_lab
from hml_core import engines
from hml_core.config import RunConfig, grid
from hml_core.engines import jobs
from hml_core.system import interruptions, limits, processes, threads
from hml_core.trainer import fit, loop
from hml_lab import command
from hml_lab.cli import main
from tests.test_processes import LIMIT_S


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interruption_with_its_own_status(sent):
    before = signal.getsignal(sent)
    with pytest.raises(KeyboardInterrupt) as raised, interruptions.interruptible():
        signal.raise_signal(sent)
    assert processes.exit_status(raised.value) == 128 + sent
    assert str(raised.value) == f"stopped by {sent.name}"
    assert signal.getsignal(sent) is before


@pytest.mark.parametrize(
    ("sent", "done", "told"),
    [
        ([], ["to its end", "and further"], None),
        ([signal.SIGTERM], ["to its end"], signal.SIGTERM),
        ([signal.SIGTERM, signal.SIGINT], [], signal.SIGINT),  # who asks twice does not wait
    ],
)
def test_what_must_not_be_left_half_done_is_interrupted_in_the_end(sent, done, told):
    said = []

    def work() -> None:
        with interruptions.interruptible():
            with interruptions.delayed():
                for number in sent:
                    signal.raise_signal(number)
                said.append("to its end")
            said.append("and further")

    if told is None:
        work()
    else:
        with pytest.raises(interruptions.Interrupted) as raised:
            work()
        assert raised.value.signal == told
    assert said == done


@pytest.mark.parametrize("sent", [[], [signal.SIGINT], [signal.SIGINT, signal.SIGINT]])
def test_so_is_it_in_a_kernel_and_in_a_program_of_ones_own(sent):
    """Where no command of ours has set handlers: a library that is half loaded fails ever after."""
    said, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def work() -> None:
        with interruptions.delayed(), interruptions.delayed():
            for number in sent:
                signal.raise_signal(number)
            said.append("to its end")
        said.append("and further")

    try:
        if sent:
            with pytest.raises(KeyboardInterrupt):
                work()
        else:
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert said == {0: ["to its end", "and further"], 1: ["to its end"], 2: []}[len(sent)]


class _Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def swallowed() -> None:
    """Python prints what an object raises as it is collected, and goes on."""
    _Finalized()


def taken_for_an_error() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException as error:
        raise AttributeError("half a library") from error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lose", [swallowed, taken_for_an_error])
def test_an_interruption_that_gets_lost_is_heard_at_the_end(lose):
    with pytest.raises(interruptions.Interrupted, match="SIGTERM"), interruptions.interruptible():
        lose()
    interruptions.heed()  # and not once more


def test_what_gets_lost_between_two_blocks_is_heard_at_the_outer_ones_end():
    with (
        pytest.raises(interruptions.Interrupted, match="SIGTERM"),
        interruptions.interruptible(),
        contextlib.suppress(KeyboardInterrupt),
        interruptions.interruptible(),
    ):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("lose", [swallowed, taken_for_an_error])
def test_no_further_run_begins_after_an_interruption_that_got_lost(lose, tmp_path, monkeypatch):
    begun = []

    def training(config, **options):
        begun.append(config)
        lose()
        yield

    monkeypatch.setattr(jobs, "training", training)
    with pytest.raises(interruptions.Interrupted, match="SIGTERM"), interruptions.interruptible():
        engines.sweep(grid(recipe="ce", epochs=1, seed=[0, 1]), runs_root=tmp_path, progress=False)
    assert len(begun) == 1


def test_what_was_done_before_counts_where_a_sweep_is_interrupted_at_once(
    tmp_path, monkeypatch, capsys
):
    """Before it has looked at them."""
    configs = grid(recipe="ce", epochs=1, seed=[0, 1, 2])
    engines.sweep(configs[1:], runs_root=tmp_path, progress=False)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "attempt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        engines.sweep(configs, runs_root=tmp_path)
    said = capsys.readouterr()
    assert "Interrupted: 2 of 3 runs are done." in said.out + said.err


def test_no_further_epoch_begins_after_an_interruption_that_got_lost(tmp_path, monkeypatch):
    ended, end_epoch = [], loop.Trainer.end_epoch

    def swallow(trainer) -> None:
        end_epoch(trainer)
        ended.append(trainer.epoch)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Trainer, "end_epoch", swallow)
    with pytest.raises(interruptions.Interrupted, match="SIGINT"), interruptions.interruptible():
        fit(RunConfig(recipe="ce", epochs=3), runs_root=tmp_path, progress=False)
    assert ended == [1]


class OutOfTime(BaseException):
    """Of a test's own time limit, or of a task's."""


@pytest.mark.parametrize("engine", ["serial", "interleave:2"])
@pytest.mark.parametrize("error", [OutOfTime, TimeoutError])
def test_what_a_program_s_own_signal_handler_raises_is_raised_to_it(
    error, engine, tmp_path, monkeypatch
):
    """A time limit by `signal.alarm` is no fault of a run, after which the others would go on."""

    def late(number, frame):
        raise error("too late")

    plain = loop.Trainer.end_epoch

    def alarmed(self):
        signal.raise_signal(signal.SIGUSR1)
        plain(self)

    runs = grid(recipe="ce", seed=[0, 1], epochs=1)
    before = signal.signal(signal.SIGUSR1, late)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop.Trainer, "end_epoch", alarmed)
            with pytest.raises(error, match="too late"):
                engines.sweep(runs, engine=engine, runs_root=tmp_path, progress=False)
    finally:
        signal.signal(signal.SIGUSR1, before)
    frame = engines.sweep(runs, runs_root=tmp_path, progress=False)
    assert frame["status"].tolist() == ["done", "done"]


def test_an_interruption_waits_for_no_thread_that_decodes():
    """One may be within a call of C for minutes; what has not begun never does."""
    begun, over, done, waiting = threading.Event(), threading.Event(), [], []

    def decode(number: int) -> None:
        begun.set()
        over.wait(LIMIT_S)
        done.append(number)

    def work() -> None:
        with interruptions.interruptible(), threads.pool() as pool:
            waiting.extend(pool.submit(decode, n) for n in range(limits.usable_cores() + 5))
            begun.wait()
            signal.raise_signal(signal.SIGTERM)

    try:
        with pytest.raises(interruptions.Interrupted):
            work()
        assert not done
        assert sum(one.cancelled() for one in waiting) == 5
    finally:
        over.set()


def slowly_loaded(folder, sent: signal.Signals, monkeypatch) -> None:
    """A module of this name in the folder, in whose midst a signal arrives."""
    folder.mkdir(parents=True)
    (folder / "slowly_loaded.py").write_text(
        "import signal, time\n"
        f"signal.raise_signal({int(sent)})\n"
        f"time.sleep({10 * interruptions.AGAIN_S})\n"
    )
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("block", ["interruptible", "after_imports"])
@pytest.mark.parametrize(
    ("folder", "limit", "is_whole"),
    [
        ("lib/site-packages", LIMIT_S, True),
        ("lib/site-packages", 0.0, False),
        ("own", LIMIT_S, False),
    ],
)
def test_a_signal_waits_for_a_library_that_is_imported(
    folder, limit, is_whole, block, tmp_path, monkeypatch
):
    """Half of torch's C++ aborted the process; somebody's own file, which may train, is not waited for."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    slowly_loaded(tmp_path / folder, signal.SIGINT, monkeypatch)
    monkeypatch.setattr(interruptions, "LOADED_S", limit)

    def work() -> None:
        with getattr(interruptions, block)():
            importlib.import_module("slowly_loaded")
            time.sleep(LIMIT_S)

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (sys.modules.pop("slowly_loaded", None) is not None) == is_whole


@pytest.mark.parametrize("block", ["interruptible", "after_imports", "delayed"])
def test_who_hears_signals_by_a_pipe_hears_each_once(block, tmp_path, monkeypatch):
    """asyncio's ``add_signal_handler``; whether or not a library is imported at that moment."""
    slowly_loaded(tmp_path / "site-packages", signal.SIGTERM, monkeypatch)
    heard = []

    async def work() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: heard.append("it"))
        with contextlib.suppress(KeyboardInterrupt), getattr(interruptions, block)():
            importlib.import_module("slowly_loaded")
            if (
                block == "interruptible"
            ):  # a command's own interruption, by a signal that is sent again
                time.sleep(LIMIT_S)
        await asyncio.sleep(0.1)

    asyncio.run(work())
    sys.modules.pop("slowly_loaded", None)
    assert len(heard) == 1 + (block == "interruptible")


def test_what_is_ignored_stays_ignored():
    """nohup, and a background job of a plain shell."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptions.interruptible():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_forked_process_keeps_the_default():
    """A pool ends its workers by SIGTERM: they are to die of it, without a traceback."""
    with interruptions.interruptible():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LIMIT_S)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_forked_process_keeps_a_handler_that_was_there_before():
    """Such as a trainer's own, which says why it stops."""

    def leave(number, frame):
        os._exit(7)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with interruptions.interruptible():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(LIMIT_S)
            _, status = os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.waitstatus_to_exitcode(status) == 7


@pytest.mark.parametrize(
    ("sent", "handled"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, 7), (signal.SIGINT, 130)],
)
def test_in_a_program_of_ones_own_a_signal_ends_as_without_us(sent, handled):
    """By the signal, or by the program's own handler, once what is begun was cleaned up."""

    @interruptions.handed_on()
    def work(pipe: int) -> None:
        with interruptions.interruptible():
            try:
                signal.raise_signal(sent)
            finally:
                os.write(pipe, b"cleaned up")

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, lambda number, frame: os._exit(7))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work(writing)
        except KeyboardInterrupt as error:
            os._exit(1 if isinstance(error, interruptions.Interrupted) else 130)
        finally:
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"cleaned up"
    assert os.waitstatus_to_exitcode(status) == handled


def test_in_a_command_an_interruption_is_told_once():
    told = []
    with (
        pytest.raises(interruptions.Interrupted, match="SIGTERM"),
        interruptions.interruptible(),
        interruptions.first_on_interrupt(lambda: told.append(1)),
        interruptions.handed_on(),
        interruptions.interruptible(),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert told == [1]


def test_a_handler_that_only_notes_the_signal_leaves_the_interruption():
    """A program's own that sets a flag: what was begun is ended, and says so."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with (
            pytest.raises(interruptions.Interrupted, match="SIGTERM"),
            interruptions.handed_on(),
            interruptions.interruptible(),
        ):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_threads_cannot_and_do_not_change_anything():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with interruptions.interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_interruption_while_the_command_is_loaded_is_one_message(monkeypatch, capsys):
    """Nothing has begun by then, and nobody listens yet."""

    class Interrupting:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "hml_lab.cli":
                raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.delitem(sys.modules, "hml_lab.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting, *sys.meta_path])
    monkeypatch.delattr(hml_lab, "cli", raising=False)
    try:
        with pytest.raises(SystemExit) as end:
            command.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130
    assert capsys.readouterr().err == "Interrupted: before the command had begun.\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_ends_with_128_and_the_signal(sent, monkeypatch):
    def examine(*_):
        signal.raise_signal(sent)

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 128 + sent
    assert f"stopped by {sent.name}" in result.output
