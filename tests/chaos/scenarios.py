"""The scenarios: each yields one :class:`Outcome` per case.

"Survived" means that the right thing happened in the end: the run is there and the same to the bit as if
nothing had happened, or a message of ours said why not. "Lost" counts records, checkpoints or other files
that were there before and are gone.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, seed, settings

from hml_core import engines
from hml_core.errors import RunError
from hml_core.runs import Run
from hml_core.system import files
from hml_lab import cli
from tests.chaos import fuzz, tools
from tests.engines import helpers


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    survived: bool
    lost: int = 0
    note: str = ""


Scenario = Callable[[Path, Random, int], Iterator[Outcome]]


@dataclass(frozen=True)
class Entry:
    """A scenario with its title and its number of cases, in full and within the tests."""

    run: Scenario
    title: str
    cases: int
    few: int


SCENARIOS: dict[str, Entry] = {}


def scenario(title: str, cases: int, few: int) -> Callable[[Scenario], Scenario]:
    """Add a scenario to :data:`SCENARIOS`."""

    def add(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = Entry(function, title, cases, few)
        return function

    return add


@scenario("trainer killed (kill -9) at a random moment", cases=20, few=2)
def killed_trainer(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """The next process goes on from the checkpoint, to the same bits, and leaves nothing half-written."""
    config = tools.config()
    took = _duration(folder / "whole", config)
    whole = Run(folder / "whole" / config.run_id)
    for case in range(cases):
        root = folder / f"killed-{case}"
        while not tools.kill(
            tools.start(tools.train, root, config), random.uniform(0.02, took)
        ):  # it was done by then: it takes less than it did
            took /= 2
            shutil.rmtree(root)
        epochs = _epochs(root / config.run_id)
        tools.start(tools.train, root, config).join(random.uniform(0.02, took))
        lost = int(_epochs(root / config.run_id) < epochs)
        run = tools.train(root, config)  # waits for the process above, or finds it done
        leftovers = [p.name for p in run.path.iterdir() if p.name not in tools.damageable(run)]
        yield Outcome(tools.same(run, whole) and not leftovers, lost, note=str(leftovers))


def _duration(root: Path, config) -> float:
    """Seconds that a process needs for the whole run."""
    started = time.monotonic()
    tools.start(tools.train, root, config).join()
    return time.monotonic() - started


def _epochs(folder: Path) -> int:
    """Epochs in the stored history: what a checkpoint would go on from, at the least."""
    try:
        return max((folder / "history.csv").read_text().count("\n") - 1, 0)
    except FileNotFoundError:
        return 0


@scenario("disk full", cases=10, few=2)
def full_disk(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """A clear error, earlier runs untouched; with room again the run goes on where it was."""
    first, second = tools.config(0, epochs=2), tools.config(1, epochs=8)
    whole = tools.train(folder / "whole", second)
    for case in range(cases):
        root = folder / f"disk-{case}"
        with tools.mounted(root, "size=8M") as real:
            tools.train(root, first)
            before = tools.contents(root / first.run_id)
            room = random.randrange(2_000_000)  # a checkpoint has 0.7 MB, and needs it twice
            filler, change = root / "filler", None
            if real:
                filler.write_bytes(bytes(shutil.disk_usage(root).free - room))
            else:
                change = tools.FullDisk(room)
            message = _refusal(root, second, change)
            lost = int(tools.contents(root / first.run_id) != before)
            filler.unlink(missing_ok=True)
            run = tools.train(root, second)
            right = message is None or "No space left on device" in message
            yield Outcome(right and tools.same(run, whole), lost, note=str(message))


def _refusal(root: Path, config, change=None) -> str | None:
    """The message of our error, if training stopped with one."""
    real = files._write_and_rename
    try:
        tools.train(root, config, change)
    except RunError as error:
        return str(error)
    finally:
        files._write_and_rename = real
    return None


@scenario("one byte of a record changed (each of its files)", cases=300, few=6)
def damaged_record(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Detected, set aside with everything in it, trained again; the neighbour is untouched."""
    config, neighbour = tools.config(0, epochs=2), tools.config(1, epochs=2)
    for made in (config, neighbour):
        tools.train(folder / "good", made)
    good = Run(folder / "good" / config.run_id)
    untouched = tools.contents(folder / "good" / neighbour.run_id)
    for _, name in zip(range(cases), itertools.cycle(tools.damageable(good))):
        root = folder / "damaged"
        shutil.copytree(folder / "good", root)
        tools.flip(root / config.run_id / name, random)
        damaged = tools.contents(root / config.run_id)
        run = tools.train(root, config)
        shelf = root / ".damaged" / f"{config.run_id}.0"
        lost = int(tools.contents(root / neighbour.run_id) != untouched)
        lost += int(not shelf.exists() or tools.contents(shelf) != damaged)
        yield Outcome(tools.same(run, good), lost, note=name)
        shutil.rmtree(root)


@scenario("one byte of a checkpoint changed", cases=50, few=2)
def damaged_checkpoint(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Set aside and trained from the start, or unharmed; never a run that is subtly another one."""
    config = tools.config(epochs=3)
    whole = tools.train(folder / "whole", config)
    root = folder / "begun"
    process = tools.start(_train_and_stop, root, config, 2)
    process.join()
    begun = tools.contents(root)
    for _ in range(cases):
        for name, data in begun.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        tools.flip(root / config.run_id / "checkpoint.pt", random)
        yield Outcome(tools.same(tools.train(root, config), whole))
        shutil.rmtree(root)


def _train_and_stop(root: Path, config, epochs: int) -> None:
    """Train for some epochs and die."""
    from hml_core.runs import RunFolder

    real, written = RunFolder.write_history, []

    def write_history(self, history):
        real(self, history)
        written.append(len(history))
        if len(written) == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.write_history = write_history
    tools.train(root, config)


@scenario("two sweeps over one results folder, one of them killed", cases=3, few=1)
def two_sweeps(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """The other one does the rest; no epoch of a finished run is trained twice."""
    for case in range(cases):
        root, log = folder / f"sweeps-{case}", folder / f"log-{case}"
        processes = [helpers.start(helpers.LOGGED, root, log, 20) for _ in range(2)]
        helpers.start_together(*processes)
        helpers.wait_for(log.exists, "the first epoch")
        time.sleep(random.uniform(0, 2))
        processes[0].kill()
        for process in processes:
            process.communicate(timeout=600)
        lines = [line.split() for line in log.read_text().splitlines()]
        survivor = [tuple(line[1:]) for line in lines if line[0] == str(processes[1].pid)]
        runs = [Run(root / c.run_id).verify() for c in helpers.configs(epochs=20)]
        yield Outcome(
            processes[1].returncode == 0 and len(runs) == 4 and len(set(survivor)) == len(survivor)
        )


@scenario("a Dask worker killed in mid-run", cases=3, few=0)
def killed_worker(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Another worker goes on from the checkpoint, to the same bits."""
    from distributed import LocalCluster

    config = tools.config(epochs=60)
    whole = tools.train(folder / "whole", config)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        for case in range(cases):
            root = folder / f"worker-{case}"
            place = {"engine": f"dask:{cluster.scheduler_address}", "runs_root": root}
            thread = threading.Thread(
                target=engines.sweep, args=([config],), kwargs={"progress": False, **place}
            )
            thread.start()
            checkpoint = root / config.run_id / "checkpoint.pt"
            helpers.wait_for(checkpoint.exists, "the first checkpoint")
            time.sleep(random.uniform(0, 1))
            note = root / ".locks" / f"{config.run_id}.json"
            os.kill(json.loads(note.read_text())["process"], signal.SIGKILL)
            thread.join(600)
            yield Outcome(tools.same(Run(root / config.run_id), whole))


@scenario("wall clock jumping by months", cases=5, few=1)
def jumping_clock(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Nothing depends on it: not the result, not the locks, not the recorded duration."""
    config = tools.config(epochs=5)
    whole = tools.train(folder / "whole", config)
    for case in range(cases):
        root = folder / f"clock-{case}"
        clock = tools.JumpingClock(random.randrange(10**6))
        tools.start(tools.train, root, config, clock).join()
        run = Run(root / config.run_id)
        yield Outcome(tools.same(run, whole) and 0 < run.metrics["seconds"] < 600)


@scenario("read-only results folder", cases=2, few=2)
def read_only(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """Refused before training with the system's reason; what lies there is read all the same."""
    config = tools.config(epochs=2)
    for case in range(cases):
        root = folder / f"readonly-{case}"
        with tools.mounted(root, "size=8M") as real:
            tools.train(root, config)
            before = tools.contents(root)
            if real:
                command = ["mount", "-o", "remount,ro", str(root)]
                subprocess.run(command, check=True, capture_output=True)
            else:
                root.chmod(0o555)
            if not real and os.access(root, os.W_OK):  # root may write anywhere
                root.chmod(0o755)
                yield Outcome(True, note="this user cannot be kept from writing")
                continue
            message = _refusal(root, tools.config(1, epochs=2))
            frame = engines.sweep([config], runs_root=root, train=False)
            root.chmod(0o755) if not real else None
            lost = int(tools.contents(root) != before)
            right = message is not None and "cannot be written to" in message
            yield Outcome(right and frame["status"].tolist() == ["done"], lost, note=str(message))


@scenario("parameters at random (hypothesis)", cases=200, few=20)
def fuzzed_parameters(folder: Path, random: Random, cases: int) -> Iterator[Outcome]:
    """`hml sweep FILE --dry-run`: a plan, or an error of ours; never another traceback."""
    outcomes: list[Outcome] = []
    path = folder / "grid.yaml"

    @seed(random.randrange(10**6))
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(fuzz.files())
    def one(text: str) -> None:
        path.write_text(text, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = ["sweep", str(path), "--dry-run", "--runs-root", str(folder / "runs")]
            result = CliRunner().invoke(cli.main, arguments)
        planned = result.exit_code == 0 and "to do" in result.output
        refused = result.exit_code == 1 and result.output.startswith("Error: ")
        clean = isinstance(result.exception, SystemExit | None)
        outcomes.append(Outcome((planned or refused) and clean, note=f"{text!r}: {result.output}"))

    one()
    yield from outcomes
