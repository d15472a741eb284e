"""What Slurm says to the jobs of a sweep: refused, waiting and why, begun without a word from the worker.

dask-jobqueue hands jobs over and then waits for their workers, for ever. A job that Slurm will never
begin, one that dies in its first line (``module load`` of what is not there) and one whose node cannot
reach this host look alike from there; ``squeue`` tells them apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hml_core.engines.slurm_certificates import Believed, for_shell
from hml_core.system import asked, files, interruptions, processes, streams
from hml_core.system.if_killed import IfKilled

# A submission is tried so often, at such distances, and given so long, before Slurm counts as refusing.
ATTEMPTS, PAUSE_S, SUBMIT_TIMEOUT_S = 3, 1.0, 60.0
LOOK_S = 15.0  # between two looks at the queue, while no worker is there
GONE_S = 60.0  # so long a job is missed in the queue, or held for good, before it counts as lost
ARRIVAL_S = 300.0  # so long a job may run until its worker is here: it imports torch over a network
LONGEST_WAIT_S = 7 * 86400.0  # in the queue, where the options name no other
SQUEUE_TIMEOUT_S, CANCEL_TIMEOUT_S = 30.0, 30.0
LOG_LINES, LOG_BYTES = 5, 2**12  # of a job that ended, told with the error
# What sbatch says of a job that it took, and what it does where a site has set `--parsable`.
TAKEN = (
    re.compile(r"\bSubmitted batch job ([0-9]{1,18})\b(?: on cluster ([\w.-]+))?"),
    re.compile(r"^([0-9]{1,18})(?:;([\w.-]+))?\s*$", re.MULTILINE),
)
# What scancel says of a job that is over by itself.
OVER = ("Invalid job id", "already completing or completed")
# Why a job waits that will wait for ever.
NEVER = (
    "AccountNotAllowed", "BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS",
    "PartitionNodeLimit", "PartitionTimeLimit", "QOSMaxWallDurationPerJobLimit", "QOSNotAllowed",
)  # fmt: skip

ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED",
    "TIMEOUT",
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """A job in the queue: "PENDING", "RUNNING", …, and why it waits, or on which node it runs."""

    name: str
    why: str


class Job(NamedTuple):
    """One that Slurm took: its number, and its cluster, where there are several ("": the usual one)."""

    id: str
    cluster: str = ""


def in_queue(jobs: Iterable[Job]) -> dict[Job, State] | None:
    """Those of the jobs that are in the queue; None where ``squeue`` does not tell."""
    found: dict[Job, State] = {}
    for cluster, ids in _by_cluster(jobs):
        command = ["squeue", "--noheader", "--format=%i|%T|%R", f"--jobs={','.join(ids)}"]
        try:
            done = asked.ask([*command, *_on(cluster)], SQUEUE_TIMEOUT_S)
        except (OSError, ValueError):
            return None
        if done.status:  # when the last of them has ended, it does not know any of them
            if "Invalid job id" in done.error:
                continue
            return None
        rows = [line.strip().split("|", 2) for line in done.out.splitlines()]
        told = {row[0]: State(row[1], row[2].strip("()")) for row in rows if len(row) == 3}
        found |= {Job(number, cluster): state for number, state in told.items()}
    return found


def _by_cluster(jobs: Iterable[Job]) -> list[tuple[str, list[str]]]:
    """Numbers of jobs by cluster: on another one, the same number is somebody else's job."""
    ordered = sorted({*jobs}, key=lambda job: (job.cluster, job.id))
    groups = itertools.groupby(ordered, key=lambda job: job.cluster)
    return [(cluster, [job.id for job in group]) for cluster, group in groups]


def _on(cluster: str) -> list[str]:
    """The option that names it to Slurm's commands; none for the one that these ask by themselves."""
    return [f"--clusters={cluster}"] if cluster else []


def _cancelling(jobs: Iterable[Job]) -> list[list[str]]:
    """The commands that cancel jobs: one for each cluster."""
    return [["scancel", *_on(cluster), *ids] for cluster, ids in _by_cluster(jobs)]


def _why_not(command: list[str]) -> str | None:
    """Why jobs were not cancelled, if so; a controller that is busy is asked again."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            done = asked.ask(command, CANCEL_TIMEOUT_S)
        except (OSError, ValueError) as error:
            return files.reason(error)
        lines = [line for line in map(str.strip, done.error.splitlines()) if line]
        others = [line for line in lines if not any(over in line for over in OVER)]
        if done.status == 0 or (lines and not others):
            return None
    return others[-1] if others else f"status {done.status}"


class Submissions:
    """What Slurm has said to the jobs of a sweep.

    Parameters
    ----------
    longest_wait : float
        Seconds that jobs may wait in the queue while no worker is there.
    log_directory : str, optional
        Where Slurm writes what jobs say.
    """

    def __init__(
        self, longest_wait: float = LONGEST_WAIT_S, log_directory: str | None = None
    ) -> None:
        self.alive: dict[Any, Job] = {}  # each that waits or runs, by its name
        self._cancelled: set[Job] = set()
        self._submitting: set[str] = set()  # names of jobs that are handed to Slurm at this moment
        self._is_over = False
        self.if_killed: IfKilled | None = None  # who cancels the jobs then
        self.refusal: str | None = None  # of the last job, where it was refused
        self.workers: Callable[[], int] = lambda: 0  # how many are here
        self.address = "this host"
        self._longest_wait, self._logs = longest_wait, Path(log_directory or ".")
        self._next_look = 0.0
        self._since: dict[Job, tuple[str, float]] = {}  # how a job is, and since when
        self._lonely_since: float | None = None  # no worker was here, though jobs were taken
        self._told: dict[Job, str] = {}

    def cancel(self, jobs: Iterable[Job] | None = None) -> None:
        """Cancel jobs, with one call on each cluster: all of them, also those that Slurm is about to take,
        where none are named.

        At once: who was asked to end may not have long. A signal that comes meanwhile waits.
        """
        with interruptions.delayed():
            self._scancel(self.alive.values() if jobs is None else jobs)
            if jobs is None:
                self._is_over = True
                end = time.monotonic() + SUBMIT_TIMEOUT_S
                while self._submitting and time.monotonic() < end:
                    time.sleep(asked.LOOK_S)
                self._scancel(self.alive.values())

    def remember(self) -> None:
        """Have those of the jobs that go on cancelled, should this process be killed."""
        if self.if_killed is not None:
            self.if_killed.tell(_cancelling({*self.alive.values()} - self._cancelled))

    def _scancel(self, jobs: Iterable[Job]) -> None:
        wanted = {*jobs} - self._cancelled
        for command in _cancelling(wanted):
            if (reason := _why_not(command)) is not None:
                said = (
                    f"Slurm: `{' '.join(command)}` failed ({reason}). Jobs that are not over go on:"
                )
                streams.tell(streams.printable(f"{said} cancel them."))
        self._cancelled |= wanted  # afterwards: a signal may have cut the calls short
        self.remember()

    def hopeless(self) -> str | None:
        """Why no job will ever train anything, if so."""
        reason = self.refusal if not self.alive else self._never_arrives()
        if reason is None:
            return None
        return (
            f"Slurm takes no job: {reason} What was finished is on disk, and the same call goes on "
            "from there."
        )

    def _never_arrives(self) -> str | None:
        """Why none of the jobs that were taken will send a worker, once that is certain."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_S
        if self.workers():
            self._since.clear()
            self._lonely_since = None
            return None
        if self._lonely_since is None:
            self._lonely_since = now
        jobs = list(self.alive.values())
        queue = in_queue(jobs)
        reasons = [] if queue is None else [self._lost(job, queue.get(job), now) for job in jobs]
        if reasons and None not in reasons:
            return reasons[0]
        alone = now - self._lonely_since
        if not jobs or alone < self._longest_wait:
            return None
        states = {} if queue is None else {job: queue[job] for job in jobs if job in queue}
        if any(state.name == "RUNNING" for state in states.values()):
            return None  # its worker may be on its way
        job, state = next(iter(states.items()), (jobs[0], None))
        if state is None:
            how = "squeue does not tell how it is" if queue is None else "it is not in the queue"
        else:
            how = state.why if state.name == "PENDING" else f"{state.name} {state.why}".strip()
        minutes = round(alone / 60)
        waited = f"{minutes} minute{'s' * (minutes != 1)}"
        if alone >= 3600:
            waited = f"{alone / 3600:.1f} hours"
        return f"job {job.id} waits since {waited} ({how}), the longest wait."

    def _lost(self, job: Job, state: State | None, now: float) -> str | None:
        """Why this job will send no worker, if so."""
        how = "gone" if state is None else f"{state.name} {state.why}"
        if state is not None and state.name == "PENDING" and self._told.get(job) != state.why:
            self._told[job] = state.why
            streams.tell(
                streams.printable(f"Slurm: job {job.id} waits ({state.why or 'no reason given'}).")
            )
        # A job that is preempted runs anew, and a queue that missed it once may know it again.
        before, since = self._since.get(job, (how, now))
        since = since if before == how else now
        self._since[job] = how, since
        for_so_long = now - since
        if state is None and for_so_long >= GONE_S:
            return f"job {job.id} ended before its worker was here.{self._said_by(job.id)}"
        if state is None:
            return None
        if state.name in ENDED and for_so_long >= GONE_S:  # it is shown for a while
            return f"job {job.id} ended ({how.strip()}) before its worker was here.{self._said_by(job.id)}"
        if state.name == "PENDING" and for_so_long >= GONE_S and state.why in NEVER:
            return f"job {job.id} will never begin ({state.why})."
        if state.name == "RUNNING" and for_so_long >= ARRIVAL_S:
            return (
                f"job {job.id} runs on {state.why}, but no worker of it has reached {self.address} in "
                f"{for_so_long / 60:.0f} minutes: expected `interface` to be a network that both share."
                f"{self._said_by(job.id)}"
            )
        return None

    def _said_by(self, job: str) -> str:
        """The last lines of a job's log: of its errors, where it has a log for these alone."""
        for log in (log for end in ("err", "out") for log in self._logs.glob(f"*-{job}.{end}")):
            with contextlib.suppress(OSError):
                # Its end: a job may have said gigabytes.
                lines = files.read_end(log, LOG_BYTES).strip().splitlines()[-LOG_LINES:]
                if lines:
                    return f" {str(log)!r} ends: {' / '.join(line.strip() for line in lines)}."
        return f" What it said should be in {str(self._logs / f'slurm-{job}.out')!r}."

    def job(self, believed: Believed | None = None) -> type:
        """The kind of job that reports here, and does not raise where nobody would listen.

        ``believed``: what its script says of the scheduler's certificate, rather than a file.
        """
        from dask_jobqueue.slurm import SLURMJob
        from distributed.deploy.spec import ProcessInterface

        submissions = self

        class OurJob(SLURMJob):
            cluster = ""

            def __init__(self, *arguments: Any, security: Any = None, **options: Any) -> None:
                in_script = None if security is None else for_shell(security)
                super().__init__(*arguments, security=in_script, **options)
                self._named = None if security is None else in_script.tls_ca_file

            @contextlib.contextmanager
            def job_file(self) -> Iterator[str]:
                with super().job_file() as name:
                    if believed is not None and self._named is not None:
                        script = believed.put_into(
                            self.job_script(), self._command_template, self._named
                        )
                        Path(name).write_text(script)
                    yield name

            def _job_id_from_submit_output(self, out: str) -> str:
                """That of the job which was taken: a site may greet, with whatever numbers, before it."""
                if (taken := _taken(out)) is None:
                    said = " / ".join(out.strip().splitlines()[-LOG_LINES:]) or "nothing"
                    raise _Unclear(
                        f"{self.submit_command!r} does not say which job it took, if any; it said: {said}"
                    )
                self.cluster = taken.cluster
                return taken.id

            @staticmethod
            async def _call(command: list[str], **options: Any) -> str:
                """Submit a job: dask-jobqueue's own waits for ever, for whatever is said."""
                try:
                    said = await _in_thread(asked.ask, command, SUBMIT_TIMEOUT_S)
                except (asked.Unanswered, asked.Excessive) as error:
                    whole = error.out[: error.out.rfind("\n") + 1]  # of a number, all digits
                    if _taken(whole) is not None:
                        return whole  # the job was taken, whatever it waits for, or says beside
                    if isinstance(error, asked.Excessive) or _taken(error.out) is not None:
                        raise _Unclear(str(error)) from error
                    raise
                if _taken(said.out) is not None:
                    return said.out  # and whatever failed after that
                if said.status:
                    raise RuntimeError(
                        said.error.strip()
                        or f"{command[0]!r} ended with status {processes.exit_status(said.status)}"
                    )
                if said.error.strip():
                    raise RuntimeError(said.error.strip())
                return said.out

            async def start(self) -> None:
                for attempt in range(ATTEMPTS):
                    await asyncio.sleep(PAUSE_S * (attempt > 0))
                    submissions._submitting.add(self.name)
                    try:
                        if submissions._is_over:
                            refusal = "the sweep is over."
                            break
                        await super().start()
                    except _Unclear as error:  # it may have been taken: not another time
                        refusal = _reason(error, self.submit_command)
                        break
                    except Exception as error:  # whatever sbatch said, or that it is not there
                        refusal = _reason(error, self.submit_command)
                    else:
                        submissions.alive[self.name] = Job(str(self.job_id), self.cluster)
                        submissions.remember()
                        submissions.refusal = None
                        return
                    finally:
                        submissions._submitting.discard(self.name)
                submissions.refusal = refusal
                if submissions.alive:
                    warnings.warn(f"Slurm refused a job: {refusal} The others go on.", stacklevel=2)
                await ProcessInterface.start(self)  # as far as Dask is concerned it never arrives

            async def close(self) -> None:
                if self.name in submissions.alive:
                    del submissions.alive[self.name]
                    submissions.refusal = None  # the one in its place has not been tried yet
                if self.job_id:
                    await _in_thread(submissions.cancel, [Job(str(self.job_id), self.cluster)])
                await ProcessInterface.close(self)  # which dask-jobqueue forgets

        return OurJob


class _Unclear(Exception):
    """sbatch named no job, and may have been given one all the same."""


def _taken(out: str) -> Job | None:
    """The job that sbatch took, by what it said last of it, and the cluster, where it names one.

    >>> _taken("Stampede3: 12 of 60 nodes\\nSubmitted batch job 71 on cluster big\\n"), _taken("72\\n")
    (Job(id='71', cluster='big'), Job(id='72', cluster=''))
    """
    for pattern in TAKEN:
        if found := pattern.findall(out):
            return Job(*found[-1])
    return None


async def _in_thread(function: Callable, *arguments: Any) -> Any:
    """Wait for a call in a thread that does not keep the process from ending, as asyncio's own do."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def work() -> None:
        try:
            tell, outcome = ended.set_result, function(*arguments)
        except Exception as error:
            tell, outcome = ended.set_exception, error
        with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
            loop.call_soon_threadsafe(lambda: None if ended.done() else tell(outcome))

    threading.Thread(target=work, daemon=True).start()
    return await ended


def _reason(error: Exception, command: str) -> str:
    """What went wrong, in a sentence or as Slurm said it."""
    if isinstance(error, FileNotFoundError):
        return f"there is no command {error.filename or command!r} here; expected a login node."
    return f"{error or type(error).__name__}".rstrip(".") + "."
