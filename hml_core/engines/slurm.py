"""Slurm: jobs of a cluster as Dask workers, through dask-jobqueue.

The process that calls the sweep stays where it is, e.g. on the login node, and only hands out work; each
job trains one run at a time until nothing is left. A YAML file says what a job asks for::

    jobs: 8                     # jobs to keep in the queue
    gpus: 1                     # of each job, 0 or 1
    cores: 8
    memory: 32GB
    walltime: "04:00:00"        # a run that is cut off goes on in another job, from its checkpoint
    queue: gpu                  # the partition
    account: my-project
    longest_wait: 2-00:00:00    # for the first job to begin; then the sweep ends and says why it waits

Most other keywords of ``dask_jobqueue.SLURMCluster`` may stand there, too, such as ``interface`` (the
network between the nodes; default: that of this host's address), ``job_script_prologue`` (a list of lines,
e.g. ``module load``), ``job_extra_directives`` (a list of further #SBATCH options) or ``log_directory``.

Scheduler and workers speak TLS. Its key is made for the sweep and lies below ``runs_root`` while that goes
on, in a folder that only its owner can open: who can read it can run code on the jobs. Whom a job
believes stands in its script: where others may write to ``runs_root``, they may put a key of theirs in the
place of ours, but no job takes their word.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hml_core.config import RunConfig
from hml_core.engines import slurm_certificates
from hml_core.engines.dask import NO_DASHBOARD, SETTINGS, own_folder, submit
from hml_core.engines.dask_cluster import GPU, client_of
from hml_core.engines.jobs import Outcome, Place
from hml_core.engines.slurm_options import require_jobqueue, seconds, shipped_with_jobqueue
from hml_core.engines.slurm_queue import LONGEST_WAIT_S, Submissions
from hml_core.errors import ConfigError
from hml_core.system import interruptions, limits, processes, scratch
from hml_core.system.if_killed import IfKilled

OWN_DEFAULTS = "hml"  # a section of Dask's configuration: jobs as dask-jobqueue ships them
FOLDERS = ".slurm-"  # of certificates, below runs_root
WORK = "HML_WORK"  # in a job's script: a folder of its own, which its worker imports from first


def _require_address(scheduler: Mapping[str, Any]) -> None:
    """Refuse an address that the scheduler cannot listen at: Dask tells another error, which names none.

    Raises
    ------
    ConfigError
    """
    host, port = str(scheduler.get("host") or "").rpartition("://")[2], scheduler.get("port") or 0
    try:
        for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Dask does
                tried.bind(address)
    except (OSError, UnicodeError) as error:  # such as a name with an empty part
        where = f"{host}:{port}" if port else host
        raise ConfigError(
            f"This host cannot listen at {where} ({getattr(error, 'strerror', None) or error}): expected "
            "`scheduler_options` to name an address of its own, and a port that is free."
        ) from error


def make_cluster(
    options: Mapping[str, Any], shared: Path, submissions: Submissions | None = None
) -> Any:
    """The cluster without any job yet; nothing is handed to Slurm.

    Parameters
    ----------
    options : mapping
    shared : Path
        A folder of ours alone, empty, that the jobs see: the certificates lie there.
    submissions : Submissions, optional
        Where the jobs report.
    """
    require_jobqueue()
    import dask
    from dask_jobqueue import SLURMCluster
    from distributed.utils import get_ip

    options = dict(options)
    scheduler = dict(options.pop("scheduler_options", None) or {})
    if not options.get("interface") and not {"host", "interface"} & {*scheduler}:
        scheduler["host"] = get_ip()  # that address alone, not every network
    if scheduler.get("host"):
        _require_address(scheduler)
    for name in ("jobs", "longest_wait"):
        options.pop(name, None)
    arguments = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    arguments += options.pop("worker_extra_args", [])
    directives = list(options.pop("job_extra_directives", []))
    prologue = options.pop("job_script_prologue", None) or []
    if options.pop("gpus", 0):
        directives.append("--gres=gpu:1")
        arguments += ["--resources", "GPU=1"]
    cores = options.pop("cores")
    # A shell reads them in the job's script.
    python = options.pop("python", None) or sys.executable
    options["python"] = shlex.quote(python) if os.path.exists(python) else python
    folder = os.path.expanduser(options.pop("local_directory", None) or "${TMPDIR:-/tmp}")
    options["local_directory"] = f'"${WORK}"'
    # What Dask's configuration says of jobs is among the options by now, as far as it was taken.
    dask.config.set({f"jobqueue.{OWN_DEFAULTS}": shipped_with_jobqueue()})
    security, certificate = slurm_certificates.make(shared)
    believed = slurm_certificates.Believed(certificate, f'"${WORK}/ca.pem"')
    try:
        return SLURMCluster(
            **{"job_name": "hml", **options},
            config_name=OWN_DEFAULTS,
            scheduler_options={**NO_DASHBOARD, **scheduler},
            security=security,
            job_cls=(submissions or Submissions()).job(believed),
            job_cpu=cores,
            cores=1,  # one run at a time on each worker, whatever the cores of its job
            processes=1,
            job_script_prologue=[
                f"export {processes.SAFE_PATH}=1",
                f"{WORK}=",
                f"trap 'rm -rf \"${WORK}\"' EXIT",
                *prologue,
                f'mkdir -p "{folder}" && {WORK}=$(mktemp -d "{folder}/hml-XXXXXXXX") || exit 1',
            ],
            job_extra_directives=directives,
            worker_extra_args=arguments,
        )
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError) as error:
        # No such interface, a port in use, a folder for logs that cannot be made.
        raise ConfigError(f"The jobs cannot be described to Slurm: {error}") from error


def job_script(options: Mapping[str, Any]) -> str:
    """The script that each job would be submitted with, but for its certificates."""
    with own_folder(), scratch.folder() as shared, make_cluster(options, shared) as made:
        return made.job_script()


def run(
    options: Mapping[str, Any], configs: Sequence[RunConfig], place: Place
) -> Iterator[tuple[RunConfig, Outcome]]:
    """Train on the jobs that ``options`` describe; jobs that end too early are submitted again.

    Raises
    ------
    RunError
        With Slurm's reason, where it takes none of the jobs, or where none of them sends a worker
        (:mod:`hml_core.engines.slurm_queue`).
    """
    import dask

    limits.require_files(limits.SEVERAL_PROCESSES, "the engine 'slurm'")
    limits.require_threads(limits.THREADS, "the engine 'slurm'")
    limits.require_text(place.runs_root, "`runs_root`", "the engine 'slurm'")
    jobs = min(options.get("jobs", 1), len(configs))
    wait = options.get("longest_wait")
    submissions = Submissions(
        LONGEST_WAIT_S if wait is None else seconds(wait), options.get("log_directory")
    )
    with (
        interruptions.interruptible(),  # a notebook's kernel would end at once, and leave the jobs
        dask.config.set(SETTINGS),
        own_folder(),
        scratch.folder(place.runs_root, FOLDERS) as shared,
        make_cluster(options, shared, submissions) as made,
        client_of(made) as client,
        IfKilled() as submissions.if_killed,
    ):
        submissions.workers = lambda: len(made.scheduler.workers)
        submissions.address = made.scheduler.address
        made.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
        resources = GPU if options.get("gpus") else None
        try:
            with interruptions.first_on_interrupt(submissions.cancel):
                yield from submit(client, configs, place, resources, submissions.hopeless)
        finally:
            submissions.cancel()
