"""Dask: the same frame from processes of this machine and from the workers of a running cluster."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from dask import config as settings
from distributed import Client, LocalCluster, Security
from distributed.comm import CommClosedError
from distributed.core import connect

from hml_core import engines, recipes, trainer
from hml_core.config import RunConfig, grid
from hml_core.engines import dask, dask_cluster
from hml_core.engines.jobs import Place
from hml_core.engines.travel import Bundle
from hml_core.errors import ConfigError, DeviceError, RunError
from hml_core.runs import CLOCK, Run
from hml_core.system import files, limits
from hml_core.trainer.branches import epochs_to_train
from tests.engines import helpers
from tests.engines.helpers import configs, wait_for
from tests.test_branches import outcome

pytestmark = pytest.mark.usefixtures("forked_workers")


@pytest.fixture(scope="module")
def running(forked_workers):
    """A cluster of two workers, as somebody else would have started it."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0",
        silence_logs="CRITICAL",
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def serial(tmp_path) -> pd.DataFrame:
    return engines.sweep(configs(), runs_root=tmp_path / "serial", progress=False)


def same(one: pd.DataFrame, other: pd.DataFrame, **options) -> None:
    pd.testing.assert_frame_equal(
        *(f.drop(columns=[*CLOCK], errors="ignore") for f in (one, other)), **options
    )


def strangers_attempts(address: str) -> list[str]:
    """How each way fails by which somebody without our certificate may try to speak to that address."""
    port = address.rpartition(":")[2]
    failures = []
    for given, security in (
        (f"tcp://127.0.0.1:{port}", Security()),
        (address, Security.temporary()),  # a certificate of his own
    ):
        options = security.get_connection_args("client")
        with pytest.raises((OSError, TimeoutError)) as failure:
            asyncio.run(connect(given, timeout=1, **options))
        failures.append(type(failure.value).__name__)
    return failures


class Swept(NamedTuple):
    """A sweep over processes of this machine, and what a stranger reached meanwhile."""

    frame: pd.DataFrame
    root: Path
    seen: dict[str, list[str]]
    pages: list[str]
    ways: list[tuple[str, int]]


def ways_of(before: list[str], temporary: Path) -> list[tuple[str, int]]:
    """Where this process looks for modules beside what it did before, and who may write there."""
    new = [entry for entry in sys.path if entry not in before]
    own = [temporary / Path(entry).relative_to(temporary).parts[0] for entry in new]
    return [(str(folder), folder.stat().st_mode & 0o777) for folder in own]


@pytest.fixture(scope="module")
def swept(forked_workers, tmp_path_factory) -> Swept:
    plain, seen, pages, ways, before = dask.submit, {}, [], [], [*sys.path]
    root = tmp_path_factory.mktemp("swept")
    temporary = tmp_path_factory.mktemp("temporary")
    (temporary / "dask-scratch-space").mkdir()
    (temporary / "dask-scratch-space").chmod(0o777)  # of another user of the machine

    def attacked(client, configs, place, resources, *rest):
        ways.extend(ways_of(before, temporary))
        for of_worker in client.run(ways_of, before, temporary).values():
            ways.extend(of_worker)
        ours = client.run(os.getpid)  # who has the certificate can
        addresses = [client.scheduler.address, *ours]
        addresses += [w["nanny"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
        for address in addresses:
            assert address.startswith("tls://127.0.0.1:")
            seen[address] = strangers_attempts(address)
        # On our own loop: a stranger would have his, but a thread more may start too late here.
        stranger = {"timeout": 1, "loop": client.loop}
        for security in (None, Security.temporary()):
            with pytest.raises((OSError, TypeError, TimeoutError)):
                dask_cluster.client_of(client.scheduler.address, security=security, **stranger)
        port = client.scheduler_info()["services"].get("dashboard")
        for path in ("", "status", "info/main/workers.html", "json/counts.json", "metrics"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60)
            pages.append(path)
        yield from plain(client, configs, place, resources, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dask, "submit", attacked)
        patch.setattr("tempfile.tempdir", str(temporary))
        # Of somebody's configuration, for other clusters: workers would go, and the sweep wait for ever.
        with settings.set({"distributed.worker.lifetime.duration": "1 ms"}):
            frame = engines.sweep(
                configs(), engine="dask", runs_root=root, progress=False, threads=1
            )
    assert sys.path == before
    return Swept(frame, root, seen, pages, ways)


def test_processes_of_this_machine_give_the_serial_frame_to_the_bit(swept, serial, tmp_path):
    frame = swept.frame
    same(serial, frame)
    for run_id in frame["run_id"]:
        ours, theirs = (
            Run(root / run_id).predictions[0] for root in (tmp_path / "serial", swept.root)
        )
        assert np.array_equal(ours, theirs)


def test_a_stranger_without_our_certificate_runs_no_code_while_a_sweep_runs(swept):
    assert (swept.frame["status"] == "done").all()
    assert len(swept.seen) >= 3, "scheduler, worker and its nanny"
    assert all(len(failures) == 2 for failures in swept.seen.values())
    assert len(swept.pages) == 5


def test_nothing_is_imported_from_a_folder_that_anybody_may_have_made(swept):
    """Dask's processes look for modules first where they keep their files."""
    assert len(swept.ways) >= 3, "scheduler, nannies and a worker"
    assert {mode for _, mode in swept.ways} == {0o700}, swept.ways


def test_a_package_that_is_missing_is_named_before_anything_starts(tmp_path, monkeypatch):
    real = engines.importlib.util.find_spec
    monkeypatch.setattr(
        engines.importlib.util,
        "find_spec",
        lambda name: None if name == "cryptography" else real(name),
    )
    for name in ("dask", "slurm"):
        with pytest.raises(ConfigError, match=r"needs cryptography, .* 'hml-core\[cluster\]'"):
            engines.sweep(configs(), engine=name, runs_root=tmp_path)
    engines.check("dask:tcp://127.0.0.1:9")  # makes no certificates


def test_what_is_finished_starts_no_cluster(tmp_path, serial, monkeypatch):
    monkeypatch.setattr(dask, "submit", lambda *a: pytest.fail("a cluster was started"))
    again = engines.sweep(configs(), engine="dask", runs_root=tmp_path / "serial", progress=False)
    pd.testing.assert_frame_equal(serial, again)


def test_a_running_cluster_trains_ours_and_reports_what_fails(
    tmp_path, serial, running, monkeypatch
):
    """With a recipe that the workers have never heard of, and one run that cannot go well."""
    monkeypatch.setitem(
        recipes.RECIPES,
        "two_halves",
        recipes._Entry(helpers.two_halves, "Two halves", "a test", None),
    )
    bad = grid(recipe="ce", epochs=2, learning_rate=1e30, warmup_epochs=0)
    own = grid(recipe="two_halves", epochs=2)
    frame = engines.sweep(
        bad + own + configs(), engine=f"dask:{running.scheduler_address}",
        runs_root=tmp_path / "runs", progress=False,
    )  # fmt: skip
    assert frame["status"].tolist() == ["failed"] + 5 * ["done"]
    assert "loss became nan" in frame["error"][0]
    assert "Traceback" in frame["traceback"][0]
    assert "NonFiniteLossError" in frame["traceback"][0]
    columns = ["run_id", *(name for name in serial if name.startswith("last_"))]
    same(serial[columns], frame[columns][2:].reset_index(drop=True), check_dtype=False)


@pytest.mark.slow
def test_every_recipe_that_switches_shares_its_beginning_to_the_bit(tmp_path, running):
    """What one worker has trained, another goes on from."""
    switching = [name for name in recipes.names() if len(recipes.get(name).stages) > 1]
    late = {"ldam_drw", "ce_drw", "ce_drs", "crt", "lws"}
    shared = {"epochs": 3, "batch_size": 64, "evaluate_every": 3}
    parting = [
        RunConfig(recipe=name, stage_ends=(2 if name in late else 1,), **shared)
        for name in switching
    ]
    every = [RunConfig(recipe="ce", **shared), *parting]
    frame = engines.sweep(
        every, engine=f"dask:{running.scheduler_address}", runs_root=tmp_path / "dask",
        progress=False,
    )  # fmt: skip
    assert (frame["status"] == "done").all(), frame["error"].tolist()
    trained = 0
    for config in every:
        together = Run(tmp_path / "dask" / config.run_id).verify()
        alone = trainer.fit(config, runs_root=tmp_path / "alone", progress=False)
        assert outcome(together) == outcome(alone), config.recipe
        trained += together.trained_epochs
    assert trained == epochs_to_train(every) < 0.8 * 3 * len(every)
    assert not (tmp_path / "dask" / ".beginnings").exists()
    assert not list((tmp_path / "dask").rglob("*.pt"))


@pytest.mark.slow
@pytest.mark.begun_first
def test_a_run_survives_the_death_of_its_worker(tmp_path, running):
    """kill -9 in mid-run: another worker goes on from the checkpoint, to the same bits."""
    (config,) = grid(recipe="hml1", epochs=40, seed=7)
    whole = trainer.fit(config, runs_root=tmp_path / "whole", progress=False)
    place = {"engine": f"dask:{running.scheduler_address}", "runs_root": tmp_path / "runs"}
    frames = []
    thread = threading.Thread(
        target=lambda: frames.append(engines.sweep([config], progress=False, **place))
    )
    thread.start()
    note = tmp_path / "runs" / ".locks" / f"{config.run_id}.json"
    checkpoint = tmp_path / "runs" / config.run_id / "checkpoint.pt"
    wait_for(checkpoint.exists, "the first checkpoint")
    worker = pd.read_json(note, typ="series")["process"]
    assert worker != os.getpid()
    os.kill(worker, signal.SIGKILL)
    thread.join(600)
    assert frames[0]["status"].tolist() == ["done"]
    resumed = Run(tmp_path / "runs" / config.run_id)
    assert np.array_equal(resumed.predictions[0], whole.predictions[0])
    same(resumed.history, whole.history)


@contextlib.contextmanager
def listening(answer: bytes) -> Iterator[int]:
    """A port of this machine where something else than a scheduler answers so; and then says nothing."""
    held = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                held.append(connection)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()


def clients() -> set[int]:
    return {id(one) for one in gc.get_objects() if issubclass(type(one), Client)}


def test_clusters_that_cannot_do_the_work_are_refused_before_it_begins(
    tmp_path, running, monkeypatch
):
    address = running.scheduler_address
    monkeypatch.setattr(dask_cluster, "CONNECT_TIMEOUT_S", 1)
    with pytest.raises(RunError, match=r"No Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        engines.sweep(configs(), engine="dask:tcp://127.0.0.1:9", runs_root=tmp_path)
    before = clients()
    for nonsense in ("nonsense://x", "tcp://127.0.0.1:port"):
        with pytest.raises(RunError, match=rf"No Dask scheduler answers at '{nonsense}'"):
            engines.sweep(configs(), engine=f"dask:{nonsense}", runs_root=tmp_path)
    said = {
        b"": "nothing was said within 1 s",
        b"HTTP/1.1 400 Bad Request\r\n\r\n": "",
        b"\xff" * 64: "",
    }
    for answer, told in said.items():
        with listening(answer) as port:
            where = f"tcp://127.0.0.1:{port}"
            with pytest.raises(
                RunError, match=rf"No Dask scheduler answers at '{where}': .*{told}"
            ):
                engines.sweep(configs(), engine=f"dask:{where}", runs_root=tmp_path)
    for other in ("tls://127.0.0.1:9", "ucx://x:1", "inproc://x"):
        with pytest.raises(RunError, match=rf"No Dask scheduler answers at '{other}'"):
            engines.sweep(configs(), engine=f"dask:{other}", runs_root=tmp_path)
    assert clients() <= before, "none is half made, whose end may be collected while another starts"
    with pytest.raises(ConfigError, match="`engine` to be one of"):
        engines.sweep(configs(), engine="dask:8786", runs_root=tmp_path)
    with pytest.raises(DeviceError, match=r"no worker offers a GPU.*--resources GPU=1"):
        engines.sweep(configs(), engine=f"dask:{address}", device="cuda", runs_root=tmp_path)
    monkeypatch.setattr(dask_cluster, "introduce", _blind)
    with pytest.raises(RunError, match=r"does not see the results folder .* that all hosts share"):
        engines.sweep(configs(), engine=f"dask:{address}", runs_root=tmp_path)
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty,
        pytest.raises(RunError, match=r"has no worker: start some with `dask worker tcp"),
    ):
        engines.sweep(configs(), engine=f"dask:{empty.scheduler_address}", runs_root=tmp_path)
    assert not list(tmp_path.glob("digits*"))
    assert not list(tmp_path.glob(".seen*"))


def test_a_worker_of_a_pool_is_told_that_it_may_start_none(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    with pytest.raises(
        RunError, match=r"and this one .* may not have any: expected the engine 'serial'"
    ):
        engines.sweep(configs(), engine="dask", runs_root=tmp_path)


def test_a_client_that_is_left_half_made_is_closed_by_nobody(monkeypatch):
    """Its garbage may be collected while another one starts, whose lock it would wait for."""
    closed = []

    def start(self, **options):
        self._Client__loop = "begun"
        raise OSError("nobody answers")

    monkeypatch.setattr(Client, "start", start)
    monkeypatch.setattr(Client, "close", lambda *_, **__: closed.append(1))
    before = clients()
    with pytest.raises(OSError, match="nobody answers"):
        dask_cluster.client_of("tcp://127.0.0.1:9")
    gc.collect()
    assert clients() <= before
    assert not closed


class Strangers:
    """A cluster whose workers answer so."""

    def __init__(self, *answers, gpus: int = 0) -> None:
        self.answers = {f"tcp://10.0.0.{number}:1": answer for number, answer in enumerate(answers)}
        self.gpus = gpus
        self.scheduler = SimpleNamespace(address="tcp://10.0.0.9:1")

    def scheduler_info(self, n_workers: int) -> dict:
        return {"workers": {name: {"resources": {"GPU": self.gpus}} for name in self.answers}}

    def run(self, function, token, on_error: str) -> dict:
        assert token.exists()
        return self.answers


def test_workers_with_another_installation_are_named(tmp_path):
    good = dask_cluster.introduce(tmp_path)
    other = {**good, "versions": {**good["versions"], "hml-core": "0.0.1"}}
    ours = good["versions"]["hml-core"]
    for answer, said in (
        (
            ModuleNotFoundError("No module named 'hml_core'"),
            "cannot run this package: Module.*hml_core",
        ),
        (other, f"has hml-core 0.0.1, this process {ours}: expected the same"),
    ):
        with pytest.raises(RunError, match=f"The worker tcp://10.0.0.1:1 {said}"):
            dask_cluster.examine(Strangers(good, answer), Place(tmp_path))
    lost = CommClosedError("in <TCP (closed)>")
    assert dask_cluster.examine(Strangers(lost, good), Place(tmp_path)) is None
    with pytest.raises(RunError, match=r"All workers of tcp://10\.0\.0\.9:1 ended while"):
        dask_cluster.examine(Strangers(lost, lost), Place(tmp_path))
    assert dask_cluster.examine(Strangers(good), Place(tmp_path)) is None
    assert dask_cluster.examine(Strangers(good, gpus=1), Place(tmp_path)) == dask_cluster.GPU
    assert dask_cluster.examine(Strangers(good, gpus=1), Place(tmp_path, device="cpu")) is None
    assert not list(tmp_path.iterdir())


def test_it_is_told_once_that_no_worker_is_left(monkeypatch, capsys):
    """And waited on: whoever started the cluster may start others."""
    there = iter([{"tcp://10.0.0.1:1": 1}, {}, {}, {"tcp://10.0.0.2:1": 1}, {}])
    cluster = SimpleNamespace(
        nthreads=lambda: next(there), scheduler=SimpleNamespace(address="tcp://10.0.0.9:8786")
    )
    monkeypatch.setattr(dask_cluster, "LOOK_S", 0.0)
    look, told = dask_cluster.told_of_workers(cluster), []
    for _ in range(5):
        assert look() is None
        told.append(
            capsys.readouterr().out.count("Dask: no worker is left at tcp://10.0.0.9:8786.")
        )
    assert told == [0, 1, 0, 0, 1]
    monkeypatch.setattr(dask_cluster, "LOOK_S", 3600.0)
    look = dask_cluster.told_of_workers(SimpleNamespace(nthreads=lambda: told.append(0) or {1: 1}))
    look(), look()
    assert len(told) == 6, "not asked at every turn"


@pytest.mark.parametrize(("asked", "workers"), [("cuda", 3), ("cuda:1", 1), ("auto", 3)])
def test_a_machine_with_gpus_gets_a_worker_for_each(asked, workers, tmp_path, monkeypatch):
    """Or one, where a GPU is named; the cluster is a stand-in, nothing is computed."""
    begun = {}

    class Cluster(contextlib.nullcontext):
        def __init__(self, **options):
            super().__init__()
            begun.update(options, lost=settings.get("distributed.deploy.lost-worker-timeout"))

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("distributed.LocalCluster", Cluster)
    monkeypatch.setattr(dask, "client_of", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(dask, "submit", lambda client, configs, place, resources: [resources])
    assert list(dask.local(configs(), Place(tmp_path, device=asked))) == [dask_cluster.GPU]
    assert begun["n_workers"] == workers
    assert begun["resources"] == dask_cluster.GPU
    assert begun["lost"] == "1 day", "a worker that died is followed by another, however busy"


def test_a_scheduler_that_is_gone_is_told_with_what_to_do(tmp_path):
    with (
        LocalCluster(
            n_workers=0, dashboard_address="127.0.0.1:0", silence_logs="CRITICAL"
        ) as cluster,
        cluster.get_client() as client,
    ):
        place = Place(tmp_path, device="cpu")
        ended = dask.submit(client, configs(), place, None, hopeless=lambda: client.close())
        with pytest.raises(
            RunError, match=r"scheduler is gone .* the same call goes on from there"
        ):
            next(ended)


def test_a_run_that_a_worker_cannot_take_fails_and_the_worker_goes_on(tmp_path):
    """Whatever a worker raises outside of the run, and a run that is another one there."""

    class Future:
        def result(self):
            raise ModuleNotFoundError("No module named 'mine'")

    outcome = dask._outcome_of(Future())
    assert outcome.status == "failed"
    assert outcome.error.startswith("The worker could not take the run: ModuleNotFoundError")
    config = configs()[0]
    outcome = dask.work(config, Place(tmp_path, device="cpu"), Bundle("digits-of-another"), 0.0)
    assert outcome.status == "failed"
    assert "expected the same code of own methods" in outcome.error
    assert "RunError" in outcome.traceback


def _blind(token):
    return {"sees": False, "versions": {}}


def test_the_cores_are_shared_out_not_oversubscribed(monkeypatch):
    monkeypatch.setattr(limits, "usable_cores", lambda: 8)
    assert [dask.room(threads) for threads in (1, 3, 8, 16)] == [8, 2, 1, 1]
    with pytest.raises(ConfigError, match="`threads` to be a whole number ≥ 1"):
        engines.sweep(configs(), threads=0)


@pytest.mark.parametrize(
    ("asked", "name", "found", "expected"),
    [
        ("auto", 3, 4, "cuda:3"),
        ("cuda", 5, 4, "cuda:1"),
        ("cuda:2", 0, 4, "cuda:2"),
        ("auto", 1, 0, "auto"),
        ("cuda", "SLURMCluster-1", 4, "cuda"),
        ("cpu", 1, 4, "cpu"),
    ],
)
def test_every_local_worker_has_a_gpu_of_its_own(asked, name, found, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: found)
    monkeypatch.setattr("distributed.get_worker", lambda: type("Worker", (), {"name": name}))
    assert dask._device_here(asked) == expected


def test_runs_that_wait_on_workers_that_die_are_not_given_up(tmp_path, forked_workers, monkeypatch):
    """Those that ask for a GPU are all handed out at once, and Dask counts these deaths for each."""
    monkeypatch.setattr(dask, "work", _deadly)
    place = Place(tmp_path, None, "cpu", 1)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, memory_limit=0, dashboard_address=None, resources={"GPU": 1},
        silence_logs="CRITICAL",
    ) as made, made.get_client() as client:  # fmt: skip
        runs = grid(recipe="ce", seed=[0, 1, 2, 3], epochs=1)
        ended = dict(dask.submit(client, runs, place, {"GPU": 1}))
    assert [ended[one].status for one in runs] == ["failed", "done", "done", "done"]


def test_workers_that_die_before_they_can_begin_are_not_awaited(tmp_path, running, monkeypatch):
    """As where a worker cannot even import torch: it tells of no run that it begins."""
    monkeypatch.setattr(dask, "_in_turn", _dead)
    with running.get_client() as client:
        ended = dict(dask.submit(client, configs()[:1], Place(tmp_path, None, "cpu", 1), None))
    (outcome,) = ended.values()
    assert outcome.status == "failed"
    assert "workers died with this run" in outcome.error


def _dead(*arguments):
    os._exit(1)


def test_a_cluster_of_ours_whose_workers_are_gone_for_long_is_given_up(monkeypatch):
    clock, there = SimpleNamespace(now=0.0), {"tcp://127.0.0.1:1": 1}
    monkeypatch.setattr(dask_cluster.time, "monotonic", lambda: clock.now)
    look = dask_cluster.without_workers(SimpleNamespace(nthreads=lambda: there))
    for clock.now in (0.0, 1000.0):
        assert look() is None
    there = {}
    for clock.now in (1010.0, 1299.0):
        assert look() is None, "another one may be about to come"
    clock.now = 1306.0
    assert "has had no worker for 300 s" in look()


def test_a_sweep_that_was_stopped_for_long_does_not_give_its_workers_up(monkeypatch):
    """After Ctrl-Z these are as new as the sweep is: none may have had the time to come up."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(dask_cluster.time, "monotonic", lambda: clock.now)
    look = dask_cluster.without_workers(SimpleNamespace(nthreads=dict))
    for clock.now in (10.0, 5000.0, 5290.0):
        assert look() is None
    clock.now = 5301.0
    assert "has had no worker for 300 s" in look()


def test_a_run_that_kills_its_workers_is_given_up(tmp_path, running, monkeypatch):
    """It becomes a failed row; the others are done."""
    monkeypatch.setattr(dask, "work", _deadly)
    place = Place(tmp_path, None, "cpu", 1)
    with running.get_client() as client:
        ended = dict(dask.submit(client, configs()[:2], place, None))
    outcomes = {config.seed: outcome for config, outcome in ended.items()}
    assert outcomes[0].status == "failed"
    assert "4 workers died with this run" in outcomes[0].error
    assert "no further checkpoint" in outcomes[0].error
    assert outcomes[1].status == "done"


def test_a_run_that_each_worker_brings_forward_is_not_given_up(tmp_path, running, monkeypatch):
    """Jobs of a cluster that are shorter than the run, or are taken away, one after the other."""
    monkeypatch.setattr(dask, "work", _forward)
    place = Place(tmp_path, None, "cpu", 1)
    (tmp_path / configs()[0].run_id).mkdir()
    with running.get_client() as client:
        ((_, outcome),) = dask.submit(client, configs()[:1], place, None)
    assert outcome.status == "done"
    assert (tmp_path / configs()[0].run_id / "checkpoint.pt").read_text() == "12345"


def _forward(config, place, additions, wait):
    path = place.runs_root / config.run_id / "checkpoint.pt"
    said = path.read_text() if path.exists() else ""
    if len(said) < 5:
        files.write_atomically(path, said + str(len(said) + 1))
        os._exit(1)
    return engines.Outcome("done")


def test_workers_that_do_not_answer_are_told(tmp_path, monkeypatch, capsys):
    class Slow(Strangers):
        def run(self, *given, **named):
            wait_for(lambda: "2 workers at" in capsys.readouterr().out, "word")
            return super().run(*given, **named)

    monkeypatch.setattr(dask_cluster, "SILENT_S", 0.0)
    good = dask_cluster.introduce(tmp_path)
    assert dask_cluster.examine(Slow(good, good), Place(tmp_path)) is None


def test_a_scheduler_that_ends_while_the_workers_are_asked_is_told(tmp_path, running, monkeypatch):
    def gone(*_, **__):
        raise CommClosedError("in <TCP (closed)>")

    monkeypatch.setattr(Client, "run", gone)
    place = Place(tmp_path)
    with pytest.raises(RunError, match="The Dask scheduler is gone"):
        next(dask.remote(running.scheduler_address, configs(), place))


def _deadly(config, place, additions, wait):
    if config.seed == 0:
        os._exit(1)
    return engines.Outcome("done")


@pytest.mark.slow
def test_a_configuration_of_dask_that_is_none_is_told(tmp_path):
    (tmp_path / "dask.yaml").write_text("a: [1\n")
    wrong = {
        "DASK_CONFIG": str(tmp_path),
        "DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION": "9",
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "x",
    }
    program = (  # read once in a process: in a fork for each
        "import os\nfrom hml_core import engines, errors\n"
        f"for name, value in {wrong!r}.items():\n"
        "    if os.fork() == 0:\n"
        "        os.environ[name] = value\n"
        "        try: engines.check('dask')\n"
        "        except errors.ConfigError as error: print(error)\n"
        "        break\n"
        "    os.wait()"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout.split("Dask's configuration (`DASK_CONFIG`")
    assert len(said) == 1 + 3, done.stdout + done.stderr
    reasons = ("dask.yaml", "min-version=9 is not supported", "Invalid format 'x'")
    assert all(reason in line for line, reason in zip(said[1:], reasons, strict=True))
