"""One run after the other, each on several processes of this machine: ``torchrun`` as an engine.

By itself torchrun's store listens on every network, and so does what gloo and NCCL connect. Here the
processes meet in files of a folder that only its owner can open, and connect over the loopback interface:
nobody from outside the machine reaches them. (gloo knows its peers by the addresses in those files and by
nothing else, so that another user of the same machine can still try to connect.)
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from hml_core.config import RunConfig
from hml_core.engines.jobs import Outcome, Place, in_turn, is_finished
from hml_core.engines.travel import known_here, pack
from hml_core.errors import ConfigError, RunError
from hml_core.system import files, limits, processes, scratch, streams
from hml_core.trainer.epochs import micro_batches
from hml_core.trainer.world import MEETING, World

MAX_RESTARTS = 3  # after a process died
GRACE_S = 30.0  # torchrun may take so long to end its processes by itself
KEPT_LINES = 40  # of what a failed group said
BUSY = "Busy: "  # how a group says that another process works on the run


def torchrun(
    processes: int, configs: Sequence[RunConfig], place: Place
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train in the order given, with ``processes`` for each run.

    Raises
    ------
    ConfigError
        Before anything is trained: a batch that the processes cannot share.
    RunError
        Likewise: a machine that cannot connect to itself, a folder for temporary files of an odd name.
    """
    for config in configs:
        micro_batches(config, World(0, processes))
    limits.require_text(tempfile.gettempdir(), "TMPDIR", "the engine 'torchrun'")
    limits.require_loopback("the engine 'torchrun'")
    limits.require_threads(limits.THREADS_OF_A_WORKER * (1 + processes), "the engine 'torchrun'")
    yield from in_turn(configs, lambda config, wait: _train(processes, config, place))


def _train(processes: int, config: RunConfig, place: Place) -> Outcome:
    """A run that another group works on for a minute is "busy"."""
    record = place.runs_root / config.run_id / "failed.json"
    try:
        files.remove(record)  # of an earlier attempt
        points = known_here(place.points.get(config.run_id, ()))
        bundle = pack(config, [view for point in points for view in point.views])
    except (ConfigError, RunError) as error:
        return Outcome("failed", str(error), traceback.format_exc())
    with scratch.folder() as folder:
        file = folder / "config.json"
        file.write_text(config.to_json(), encoding="utf-8")
        shared = folder / "points.json"
        points = [point.to_dict() for point in place.points.get(config.run_id, ())]
        shared.write_text(json.dumps(points), encoding="utf-8")
        options = ["--points", str(shared)]
        if bundle.entries:
            sent = folder / "bundle"
            sent.write_bytes(pickle.dumps(bundle))
            options += ["--bundle", str(sent)]
        meeting = folder / "meeting"  # the folder is its owner's alone
        meeting.mkdir()
        said = _run([*command(processes, file, place, meeting), *options], place, meeting)
        is_there = meeting.is_dir()
    if is_finished(config, place):
        return Outcome("done")
    if busy := [line for line in said if line.startswith(BUSY)]:
        return Outcome("busy", busy[0].removeprefix(BUSY).strip())
    if not is_there:
        return Outcome(
            "failed",
            f"The folder {str(folder)!r}, where the run's processes meet, was removed while they worked. "
            "Expected it to stay (TMPDIR names another place); the same call goes on from there.",
            "".join(said),
        )
    try:
        failed = json.loads(files.read_text(record))
        return Outcome("failed", failed["error"], failed["traceback"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # before there was a record
        errors = [line for line in said if line.startswith("Error in process")]
        reason = errors[0].partition(": ")[2] if errors else "The processes of the run failed."
        return Outcome("failed", reason.strip(), "".join(said))


def command(processes: int, config: Path, place: Place, meeting: Path) -> list[str]:
    """The command that trains the run of a config's file; the processes meet in the folder ``meeting``."""
    options = {"runs-root": place.runs_root, "device": place.device}
    if place.data_root is not None:
        options["data-root"] = place.data_root
    if place.keep_weights is not None:
        options["keep-weights"] = place.keep_weights
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--rdzv-id", meeting.parent.name),
        *("--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"),
        *("--rdzv-endpoint", str(meeting / "torchrun"), "--local-addr", limits.LOOPBACK),
        # Else torchrun makes a folder of its own, which nobody removes.
        *("--log-dir", str(meeting.parent / "logs")),
        *("--nproc-per-node", str(processes), "--max-restarts", str(MAX_RESTARTS)),
        *_ignoring(),
        *("-m", "hml_core", "train", "--final-errors", "--config", str(config)),
        *(text for name, value in options.items() for text in (f"--{name}", str(value))),
        *(["--retrain"] if place.retrain else []),
    ]


def _ignoring() -> list[str]:
    """A signal that this process ignores (``nohup``, a background job), torchrun does not hear either."""
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")  # those that it hears by itself
    heard = [name for name in names if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    return [] if len(heard) == len(names) else ["--signals-to-handle", ",".join(heard)]


def private(meeting: Path) -> dict[str, str]:
    """What the environment tells torchrun, and the processes of the group, of where they meet."""
    names = [name for _, name in socket.if_nameindex()] if hasattr(socket, "if_nameindex") else []
    loopback = {
        variable: next(name for name in names if name in ("lo", "lo0"))
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        if {"lo", "lo0"} & {*names}
    }
    return {MEETING: str(meeting / "group"), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **loopback}


def _end_without(meeting: Path, process: subprocess.Popen, is_over: threading.Event) -> None:
    """End a group whose folder was removed (by what cleans /tmp): its processes wait for each other."""
    while not is_over.wait(processes.LOOK_S):
        if not meeting.is_dir():
            processes.terminate(process)
            return


def _run(arguments: list[str], place: Place, meeting: Path) -> list[str]:
    """Show what the processes say; the last lines of it."""
    # torchrun's own default, which it would explain to the reader of a notebook for every run.
    threads = os.environ.get("OMP_NUM_THREADS", "1") if place.threads is None else place.threads
    said: deque[str] = deque(maxlen=KEPT_LINES)
    with subprocess.Popen(
        processes.guarded(arguments, GRACE_S, is_supervisor=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={
            # Of PET_NNODES and the like, which Kubeflow's pods have, torchrun makes options of its own.
            **{name: value for name, value in os.environ.items() if not name.startswith("PET_")},
            **private(meeting),
            processes.SAFE_PATH: "1",
            "OMP_NUM_THREADS": str(threads),
            "HML_HEADLESS": "1",
        },
    ) as process:
        is_over = threading.Event()
        watch = threading.Thread(target=_end_without, args=(meeting, process, is_over), daemon=True)
        watch.start()
        try:
            for line in process.stdout:
                said.append(line)
                streams.tell(line.removesuffix("\n"))
        except BaseException:  # interrupted: the group must not go on alone
            processes.terminate(process)
            process.wait()  # (by itself it waits a quarter of a second after Ctrl-C)
            raise
        finally:
            is_over.set()
    return list(said)
