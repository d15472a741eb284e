"""What a job of Slurm asks for: the options in a YAML file, and of a site, checked before any is sent."""

from __future__ import annotations

import inspect
import os
import re
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hml_core.engines.dask import shipped
from hml_core.errors import ConfigError
from hml_core.system import yaml_files
from hml_core.system.quantities import told

DEFAULT_FILE = "slurm.yaml"
REQUIRED = ("cores", "memory", "walltime")
# Ours to set: one run at a time on each worker, in this environment, and among ourselves.
RESERVED = (
    "job_cpu", "n_workers", "processes", "nanny", "job_cls", "asynchronous", "loop", "security",
    "protocol", "shared_temp_directory", "config_name", "name", "scheduler_cls", "silence_logs",
    "worker_command",
    "dashboard_address", "host",  # dask-jobqueue wants them in scheduler_options
    "env_extra", "extra", "header_skip", "job_extra", "project",  # former names of others
)  # fmt: skip
AMOUNT = "(?=[0-9]*[1-9])[0-9]{1,12}"
TIME = (r"([0-9]{1,6}-)?[0-9]{1,9}(:[0-5][0-9]){1,2}", "a time such as 04:00:00 or 2-00:00:00")
# Text that Slurm or Dask would take for something else: 4096 is bytes to the one and MB to the other.
# A folder as the shell of a job's script reads it between double quotes, and as #SBATCH lines take it.
FOLDER = (
    r"(?!\s)(?!.*\$\()[^\"`\\\x00-\x1f\x7f]+",
    "a folder, which may name variables of the job ($TMPDIR), without quotes and commands",
)
LOGS = (
    r"[^\s\"'`\\%$~#-][^\s\"'`\\%$]*",
    "a folder without blanks, quotes, $ and %, as #SBATCH takes it",
)
WORD = r"[\w./@:+,=][\w./@:+,=-]*"
TEXTS = {
    "memory": (rf"{AMOUNT}(\.[0-9]{{1,9}})? ?[MGT]i?B", "an amount with its unit, such as 32GB"),
    "job_mem": (rf"{AMOUNT}[KMGT]", "an amount as Slurm writes it, such as 32G"),
    "walltime": TIME,
    "longest_wait": TIME,
    "queue": (WORD, "the name of a partition"),
    "account": (WORD, "the name of an account"),
    "interface": (WORD, "the name of a network interface"),
    "job_name": (r"\w[\w.+-]*", "a word"),
    "python": (r"\S.*", "an interpreter, or the command that starts one"),
    "shebang": (r"#!\S.*", "a line such as #!/bin/bash"),
    "local_directory": FOLDER,
    "log_directory": LOGS,
}
# Of `scheduler_options`: that it speaks TLS is not to be undone.
OF_SCHEDULER = {"host": str, "interface": str, "port": int}
OURS = ("--protocol", "--tls", "--dashboard", "--listen", "--contact", "--host", "--scheduler")
ALONE = ("--local-directory", "--nworkers", "--nprocs", "--nthreads")
WORDS = r"[^\"'`\\;&|<>()#*?!\x00-\x1f\x7f]+"  # of the worker's command, which a shell reads
MOST = 10**6  # jobs, cores, seconds
LISTS = ("job_script_prologue", "job_extra_directives", "job_directives_skip", "worker_extra_args")


def read(path: str | Path) -> dict[str, Any]:
    """The options of the jobs in a YAML file, and of Dask's configuration where it says nothing, checked.

    Raises
    ------
    ConfigError
        For a file that is missing or unreadable, lacks an option or has one that does not exist.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(
            f"There is no file {str(path)!r}: the engine 'slurm' reads from it what a job asks for "
            "(see docs/clusters.md)."
        )
    options = yaml_files.read(path)
    missing = [name for name in REQUIRED if not options.get(name)]
    if missing:
        raise ConfigError(f"The file {str(path)!r} lacks {', '.join(missing)}.")
    known = {"jobs", "gpus", "longest_wait", *known_options()} - set(RESERVED)
    unknown = sorted(str(name) for name in set(options) - known)
    if unknown:
        raise ConfigError(
            f"The file {str(path)!r} has options that do not exist or are not its to set: "
            f"{', '.join(unknown)}. Those that exist: {', '.join(sorted(known))}."
        )
    _require_sound(options, repr(str(path)))
    of_site = _of_site(known - {*options})
    _require_sound(of_site, "Dask's configuration (`jobqueue.slurm`)")
    return {**of_site, **options}


def _of_site(names: set[str]) -> dict[str, Any]:
    """What Dask's configuration, a user's or a site's, says of options that the file leaves open."""
    import dask

    given = dask.config.get("jobqueue.slurm", {})
    if not isinstance(given, dict):
        raise ConfigError(
            f"Expected `jobqueue.slurm` of Dask's configuration to be a mapping, got {told(given)}."
        )
    usual = shipped_with_jobqueue()
    said = {
        str(name).replace("-", "_"): value
        for name, value in given.items()
        if value != usual.get(name)
    }
    if left := sorted({*said} & {*RESERVED} - {"name", "processes"}):
        warnings.warn(
            f"Dask's configuration (`jobqueue.slurm`) says {', '.join(left)}, which jobs of a sweep "
            "do not take: say in the file of their options what they need.",
            stacklevel=2,
        )
    if isinstance(scheduler := said.get("scheduler_options"), dict):  # of other clusters, too
        said["scheduler_options"] = {
            name: value for name, value in scheduler.items() if name in OF_SCHEDULER
        }
    return {name: value for name, value in said.items() if name in names and value is not None}


def shipped_with_jobqueue() -> dict[str, Any]:
    """What dask-jobqueue says of jobs where nobody else says anything."""
    return shipped("dask_jobqueue", "jobqueue.yaml")["jobqueue"]["slurm"]


def _require_sound(options: Mapping[str, Any], where: str) -> None:
    """ConfigError for a value that no option can have."""
    _require_whole(where, options, "jobs", 1, None)
    _require_whole(where, options, "gpus", 0, 1)
    _require_whole(where, options, "cores", 1, None)
    _require_whole(where, options, "death_timeout", 1, None)
    for name, (pattern, meant) in TEXTS.items():
        value = options.get(name)
        if value is not None and not (isinstance(value, str) and re.fullmatch(pattern, value)):
            raise ConfigError(f"Expected `{name}` in {where} to be {meant}, got {told(value)}.")
    for name in LISTS:
        value = options.get(name, [])
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise ConfigError(
                f"Expected `{name}` in {where} to be a list of lines, [...], got {value!r}."
            )
    scheduler = options.get("scheduler_options")
    if not isinstance(scheduler, dict | None) or not {*(scheduler or {})} <= {*OF_SCHEDULER}:
        raise ConfigError(
            f"Expected `scheduler_options` in {where} to hold {', '.join(OF_SCHEDULER)}, got "
            f"{scheduler!r}."
        )
    for name, value in (scheduler or {}).items():
        is_none = type(value) is not OF_SCHEDULER[name] or not value
        if is_none or (name == "port" and not 0 < value < 2**16):
            raise ConfigError(
                f"Expected `{name}` of `scheduler_options` in {where} to be "
                f"{OF_SCHEDULER[name].__name__}, got {told(value)}."
            )
    for line in options.get("job_extra_directives", []):
        if not line.isprintable():
            raise ConfigError(
                f"Expected each of `job_extra_directives` in {where} to be one line, got {line!r}."
            )
    if not all(word.strip() for word in options.get("job_directives_skip", [])):
        raise ConfigError(
            f"Expected each of `job_directives_skip` in {where} to be words of a line that is left "
            "out, got a blank, which is in all of them."
        )
    for words in options.get("worker_extra_args", []):
        if not re.fullmatch(WORDS, words):
            raise ConfigError(
                f"Expected each of `worker_extra_args` in {where} to be words and variables of the "
                f"job ($NAME), without quotes and other signs of the shell, got {words!r}."
            )
        for word in (word for word in words.split() if word.startswith(OURS)):
            raise ConfigError(
                f"`worker_extra_args` in {where} hold {word!r}: how a worker speaks, and that it "
                "shows no pages, is not theirs to set."
            )
        for word in (word for word in words.split() if word.startswith(ALONE)):
            raise ConfigError(
                f"`worker_extra_args` in {where} hold {word!r}: a job has one worker, in a folder of its "
                "own, that trains one run at a time (`local_directory` says below which folder)."
            )


def of_engine(engine: str) -> dict[str, Any]:
    """The options behind an engine's name: "slurm" or "slurm:FILE"."""
    return read(os.path.expanduser(engine.partition(":")[2]) or DEFAULT_FILE)


def _require_whole(
    where: str, options: Mapping[str, Any], name: str, low: int, high: int | None
) -> None:
    value = options.get(name, low)
    if type(value) is not int or not low <= value <= (MOST if high is None else high):
        expected = f"a whole number ≥ {low}" if high is None else f"{low} or {high}"
        raise ConfigError(f"Expected `{name}` in {where} to be {expected}, got {told(value)}.")


def known_options() -> set[str]:
    """Keywords of SLURMCluster, which hands most of them to its jobs."""
    require_jobqueue()
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.slurm import SLURMJob

    found = set()
    for kind in (SLURMJob, Job, JobQueueCluster):
        found |= set(inspect.signature(kind.__init__).parameters)
    return found - {"self", "scheduler", "base_class_kwargs", "job_kwargs"}


def require_jobqueue() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "The engine 'slurm' needs dask-jobqueue: install it with `pip install dask-jobqueue`."
        ) from error
    except ValueError as error:  # it sets a handler as it is imported, which threads may not
        raise ConfigError(
            "The engine 'slurm' is to be loaded in the main thread: `import dask_jobqueue` there first."
        ) from error
    if signal.getsignal(signal.SIGINT) != before:  # it takes Ctrl-C for its own, with status 0
        signal.signal(signal.SIGINT, before)


def seconds(time: str) -> float:
    """Of a time as Slurm writes it.

    >>> seconds("2-00:00:00"), seconds("04:30:00"), seconds("05:00")
    (172800.0, 16200.0, 300.0)
    """
    days, _, clock = time.rpartition("-")
    parts = [float(part) for part in clock.split(":")]
    if len(parts) == 2:  # days-hours:minutes, or minutes:seconds
        parts = [*parts, 0.0] if days else [0.0, *parts]
    return float(days or 0) * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2]
