"""Slurm: a sweep over jobs of a stand-in for it, who may speak to them, and what is left of them."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import dask
import pandas as pd
import pytest

from hml_core import engines
from hml_core.engines import slurm, slurm_options
from hml_core.engines.dask import SETTINGS
from hml_core.system import scratch
from tests import forks
from tests.engines import helpers
from tests.engines.helpers import configs
from tests.engines.test_dask import strangers_attempts
from tests.notebooks.helpers import make
from tests.quick import slow_but


def test_a_sweep_over_jobs_gives_the_serial_frame(tmp_path, monkeypatch):
    """sbatch and scancel are stand-ins that run the job script on this machine."""
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    frame = engines.sweep(
        configs(), engine=f"slurm:{path}", runs_root=tmp_path / "slurm", progress=False
    )
    serial = engines.sweep(configs(), runs_root=tmp_path / "serial", progress=False)
    pd.testing.assert_frame_equal(serial.drop(columns="seconds"), frame.drop(columns="seconds"))
    assert list((tmp_path / "bin").glob("job.*.log")), "no job ran"


STOPPED = ((signal.SIGTERM, "in the queue"), (signal.SIGINT, "at sbatch"))


@pytest.mark.parametrize(("sent", "when"), slow_but(STOPPED[:1], STOPPED))
def test_jobs_of_a_notebook_that_is_stopped_are_cancelled(sent, when, tmp_path, monkeypatch):
    """At once: its kernel has not long. Jupyter sends a kernel that is to end a second signal, too."""
    options = helpers.pretend_slurm(tmp_path, monkeypatch)
    note = f'echo "$@" >> {tmp_path}'
    said = {"sbatch": "echo Submitted batch job 17", "scancel": f"{note}/cancelled"}
    if when == "at sbatch":
        said["sbatch"] = f"echo --jobs=17 > {tmp_path}/asked; sleep 1; {said['sbatch']}"
    said["squeue"] = f"{note}/asked; echo '17|PENDING|(Priority)'"
    (tmp_path / "asked").touch()
    for name, script in said.items():
        helpers.says(tmp_path / "bin" / name, script)
    source = (
        "from hml_core import engines\nfrom hml_core.config import grid\n"
        f"where = {str(tmp_path / 'runs')!r}\n"
        f"engines.sweep(grid(recipe='ce', epochs=2), engine='slurm:{options}', runs_root=where)"
    )
    notebook = make(tmp_path, "x = 1  # a number", source)
    command = ["-m", "hml_core", "run", notebook, "-o", tmp_path / "out.ipynb"]
    process = forks.Python(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def waits() -> bool:
        assert process.poll() is None, "the notebook has failed"
        return "--jobs=17" in (tmp_path / "asked").read_text()

    helpers.wait_for(waits, f"a job {when}")
    process.send_signal(sent)
    said, _ = process.communicate()
    assert process.returncode == 128 + sent, said
    assert {*(tmp_path / "cancelled").read_text().split()} == {"17"}
    assert not list((tmp_path / "runs").glob(".slurm-*"))


SWEEP = """
import sys
from hml_core import engines
from hml_core.config import grid
engines.sweep(grid(recipe="ce", epochs=2), engine=sys.argv[1], runs_root=sys.argv[2])
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_of_a_process_that_is_ended_are_cancelled(sent, tmp_path, monkeypatch):
    """kill -9, the kernel of a notebook whose papermill was ended, and a program that SIGTERM ends."""
    options = helpers.pretend_slurm(tmp_path, monkeypatch)
    bin = tmp_path / "bin"
    helpers.says(bin / "sbatch", "echo Submitted batch job 17 on cluster big")
    helpers.says(bin / "scancel", f'echo "$@" >> {tmp_path}/cancelled')
    helpers.says(bin / "squeue", f"echo >> {tmp_path}/asked; echo '17|PENDING|(Priority)'")
    process = forks.Python(["-c", SWEEP, f"slurm:{options}", tmp_path / "runs"])
    helpers.wait_for((tmp_path / "asked").exists, "a job in the queue")
    process.send_signal(sent)
    assert process.wait() == -sent
    helpers.wait_for((tmp_path / "cancelled").exists, "the end of the job")
    assert (tmp_path / "cancelled").read_text().split() == ["--clusters=big", "17"]


def test_of_a_killed_sweep_no_key_is_left(tmp_path):
    """Of one whose process is gone: the next sweep removes what it left, and nothing else."""
    killed, mine = tmp_path / ".slurm-killed", tmp_path / ".slurm-mine"
    for folder in (killed, mine):
        folder.mkdir()
        (folder / "key.pem").write_text("a key")
    (killed / scratch.OWNER).write_bytes(socket.gethostname().encode())
    with scratch.folder(tmp_path, slurm.FOLDERS):
        assert not killed.exists()
        assert mine.exists()
    assert [one.name for one in tmp_path.iterdir()] == [mine.name]


def test_nobody_without_the_certificate_speaks_to_the_scheduler(tmp_path, monkeypatch):
    """It listens at one address, and its key is its owner's alone."""
    options = slurm_options.read(helpers.pretend_slurm(tmp_path, monkeypatch))
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o700)
    with dask.config.set(SETTINGS), slurm.make_cluster(options, shared) as made:
        assert made.scheduler.address.startswith("tls://127.0.0.1:")
        assert not [at for at in made.scheduler.listeners if "0.0.0.0" in at.listen_address]
        assert made.scheduler.http_server.address == "127.0.0.1"
        assert len(strangers_attempts(made.scheduler.address)) == 2
        files = list(shared.iterdir())
        assert len(files) == 3
        assert {path.stat().st_mode & 0o077 for path in files} == {0}
    without = {name: value for name, value in options.items() if name != "interface"}
    with slurm.make_cluster(without, tmp_path) as made:
        (listener,) = made.scheduler.listeners
        assert "0.0.0.0" not in listener.listen_address


def test_a_job_believes_its_script_not_a_folder_that_others_may_exchange(tmp_path, monkeypatch):
    """Who may write to `runs_root` may move the folder of the keys, and put another in its place."""
    options = slurm_options.read(helpers.pretend_slurm(tmp_path, monkeypatch))
    shared, node, given = tmp_path / "shared", tmp_path / "a node's", tmp_path / "given"
    shared.mkdir(mode=0o700)
    node.mkdir()
    worker = tmp_path / "worker"
    helpers.says(worker, f'while [ "$1" != --tls-ca-file ]; do shift; done; cat "$2" > {given}')
    with (
        dask.config.set(SETTINGS),
        slurm.make_cluster({**options, "python": str(worker)}, shared) as made,
    ):
        wanted = (shared / "ca.pem").read_text()
        (shared / "ca.pem").write_text("somebody else's")
        with made._dummy_job.job_file() as name:
            script = Path(name).read_text()
    environment = {"TMPDIR": str(node), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", script], env=environment, check=True)
    assert given.read_text() == wanted
    assert not list(node.iterdir()), "gone with the job"
