"""The engine with several processes for each run: the serial result, and errors that are told once."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch.distributed.run import get_args_parser

from hml_core import engines, losses
from hml_core.config import grid
from hml_core.engines import travel
from hml_core.engines.jobs import Place
from hml_core.engines.torchrun import command
from hml_core.errors import ConfigError
from hml_core.runs import Run
from hml_core.system import processes
from tests import forks
from tests.engines import helpers


def configs(**fields):
    shared = {"dataset": "digits", "recipe": "hml1", "epochs": 4, "micro_batch_size": 16}
    return grid(**shared | fields)


@contextlib.contextmanager
def listeners() -> Iterator[set[str]]:
    """The addresses, as Linux writes them, at which a process below this one listens, in the end."""
    found: set[str] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(0.2):
            sockets = set()
            for process in processes.descendants(os.getpid()):
                with contextlib.suppress(OSError):  # gone by now
                    for handle in os.scandir(f"/proc/{process}/fd"):
                        with contextlib.suppress(OSError):
                            sockets.add(os.readlink(handle.path))
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                        found.add(fields[1].partition(":")[0])

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


class Halved(losses.FocalLoss):
    """Half of it."""

    def per_sample(self, logits, target):
        return 0.5 * super().per_sample(logits, target)


@pytest.mark.begun_first
def test_two_processes_give_the_result_of_one(tmp_path, monkeypatch):
    """Nobody from another machine can speak to them, and what only this process knows goes along:
    what takes a built-in one's place is not trained as the original."""
    monkeypatch.setitem(losses.LOSSES, "focal", Halved)
    chosen = configs(recipe="deferred_focal", seed=[0])  # a switch, and a loss of ours after it
    with listeners() as addresses:
        frame = engines.sweep(chosen, engine="torchrun:2", runs_root=tmp_path / "two", device="cpu")
    assert addresses == ({"0100007F"} if sys.platform == "linux" else set()), "127.0.0.1 alone"
    assert frame["status"].tolist() == ["done"]
    engines.sweep(chosen, runs_root=tmp_path / "one", device="cpu", progress=False)
    two, one = (Run(tmp_path / name / chosen[0].run_id).verify() for name in ("two", "one"))
    np.testing.assert_allclose(two.history["train_loss"], one.history["train_loss"], rtol=1e-4)
    assert two.selection("last")["top1"] == pytest.approx(one.selection("last")["top1"], abs=0.02)


@contextlib.contextmanager
def forked(command: list[str], *, errors: str, **options) -> Iterator[forks.Python]:
    """In the place of Popen: torchrun and what it starts are forked, without the guard above them."""
    where = len(command) - command[::-1].index(sys.executable)
    module, name, *arguments = command[where:]
    assert (module, name) == ("-m", "torch.distributed.run"), command
    program = "from tests import forks\nforks.torchrun()"
    process = forks.Python(["-c", program, *arguments], cwd=helpers.REPOSITORY, **options)
    yield process
    process.wait(600)


def test_an_error_is_told_once_with_its_reason(tmp_path, capfd, monkeypatch):
    torchrun = importlib.import_module("hml_core.engines.torchrun")  # the function has its name
    stand_in = types.SimpleNamespace(Popen=forked, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(torchrun, "subprocess", stand_in)
    chosen = configs(learning_rate=1e30, warmup_epochs=0)
    frame = engines.sweep(chosen, engine="torchrun:2", runs_root=tmp_path, device="cpu")
    assert frame["status"].tolist() == ["failed"]
    assert "loss became nan" in frame["error"][0]
    assert "NonFiniteLossError" in frame["traceback"][0]
    assert capfd.readouterr().out.count("Error in process 0 of 2") == 1, "tried more than once"


def test_what_the_processes_cannot_share_is_refused_before_they_start(tmp_path):
    with pytest.raises(ConfigError, match="4 processes cannot share a batch of 32"):
        engines.sweep(configs(), engine="torchrun:4", runs_root=tmp_path)
    for name in ("torchrun", "torchrun:0", "torchrun:two"):
        with pytest.raises(ConfigError, match="`engine` to be one of serial"):
            engines.sweep(configs(), engine=name, runs_root=tmp_path)
    assert not list(tmp_path.glob("digits*"))


def test_a_run_that_cannot_travel_fails_alone(tmp_path, monkeypatch):
    torchrun = importlib.import_module("hml_core.engines.torchrun")  # the function has its name
    bad, good = configs(seed=[0, 1])

    def pack(config, parting=()):
        if config == bad:
            raise ConfigError("The loss 'mine' cannot be sent to another process")
        return travel.pack(config, parting)

    monkeypatch.setattr(torchrun, "pack", pack)
    monkeypatch.setattr(torchrun, "_run", lambda *_: ["Error in process 0 of 2: it was begun\n"])
    place = Place(tmp_path, data_root=tmp_path / "images", device="cpu")
    ended = dict(torchrun.torchrun(2, [bad, good], place))
    assert ended[bad].error == "The loss 'mine' cannot be sent to another process"
    assert "ConfigError" in ended[bad].traceback
    assert ended[good].error == "it was begun"


def test_the_processes_look_for_images_where_the_sweep_does(tmp_path):
    torchrun = importlib.import_module("hml_core.engines.torchrun")
    place = Place(tmp_path / "runs", tmp_path / "images", "cpu", keep_weights="last")
    told = torchrun.command(2, tmp_path / "config.json", place, tmp_path)
    given = dict(itertools.pairwise(told))
    assert given["--data-root"] == str(tmp_path / "images")
    assert given["--runs-root"] == str(tmp_path / "runs")
    assert given["--keep-weights"] == "last"
    assert "--data-root" not in torchrun.command(2, tmp_path, Place(tmp_path), tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no guards")
def test_the_group_ends_with_a_sweep_that_is_interrupted(tmp_path, monkeypatch):
    torchrun = importlib.import_module("hml_core.engines.torchrun")

    def interrupted(line, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupted)
    command = ["sh", "-c", f"echo $$ > {tmp_path}/group; echo begun; exec sleep 3600"]
    with pytest.raises(KeyboardInterrupt):
        torchrun._run(command, Place(tmp_path), tmp_path)
    with pytest.raises(ProcessLookupError):  # its guard, which has ended, took note of that
        os.kill(int((tmp_path / "group").read_text()), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no guards")
def test_a_group_whose_folder_is_removed_ends(tmp_path, monkeypatch):
    """By what cleans /tmp, or ``rm -rf /tmp/*``: its processes would wait for each other for ever."""
    torchrun = importlib.import_module("hml_core.engines.torchrun")

    def clean(processes, config, place, meeting):
        return ["sh", "-c", f"rm -r {meeting.parent}; exec sleep 3600"]

    monkeypatch.setattr(torchrun, "command", clean)
    frame = engines.sweep(configs()[:1], engine="torchrun:2", runs_root=tmp_path, device="cpu")
    assert frame["status"].tolist() == ["failed"]
    assert "where the run's processes meet, was removed while they worked" in frame["error"][0]


def test_what_a_pod_says_to_torchrun_is_not_said_to_this_one(tmp_path, monkeypatch, capfd):
    """With Kubeflow's PET_NNODES=2 it would wait for another machine."""
    torchrun = importlib.import_module("hml_core.engines.torchrun")
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("HML_PET_NAME", "of somebody else")
    monkeypatch.setattr(torchrun, "KEPT_LINES", None)  # all of them
    said = torchrun._run(["env"], Place(tmp_path), tmp_path)
    assert "HML_PET_NAME=of somebody else\n" in said
    assert not [line for line in said if line.startswith("PET_")]


def test_a_busy_run_comes_again_and_an_old_failure_is_not_this_one(tmp_path, monkeypatch):
    torchrun = importlib.import_module("hml_core.engines.torchrun")  # the function has its name
    monkeypatch.setattr(torchrun, "is_finished", lambda config, place: False)
    chosen = configs()[:1]
    record = tmp_path / chosen[0].run_id / "failed.json"
    record.parent.mkdir()
    record.write_text('{"error": "of last week", "traceback": ""}')
    answers = [["Busy: Process 7 works on it\n"], ["Error in process 1 of 2: There is no data\n"]]
    monkeypatch.setattr(torchrun, "_run", lambda *arguments: answers.pop(0))
    frame = engines.sweep(chosen, engine="torchrun:2", runs_root=tmp_path, device="cpu")
    assert not answers, "it was tried again"
    assert frame["error"].tolist() == ["There is no data"]


@pytest.mark.parametrize(
    ("ignored", "heard"),
    [
        ((), None),
        (("SIGHUP",), "SIGTERM,SIGINT,SIGQUIT"),
        (("SIGINT", "SIGQUIT"), "SIGTERM,SIGHUP"),
    ],
)
def test_a_signal_that_is_ignored_here_is_not_heard_by_torchrun(ignored, heard, tmp_path):
    """nohup, and a background job of a plain shell."""
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    before = {
        name: signal.signal(
            getattr(signal, name), signal.SIG_IGN if name in ignored else signal.SIG_DFL
        )
        for name in names
    }
    try:
        words = command(1, tmp_path / "config.json", Place(tmp_path), tmp_path / "meeting")
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
    given = get_args_parser().parse_args(words[3:])  # torchrun's own
    assert given.signals_to_handle == (heard or "SIGTERM,SIGINT,SIGHUP,SIGQUIT")
