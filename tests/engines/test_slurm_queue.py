"""What Slurm says to jobs, by a stand-in: refused, waiting and why, gone; and which are cancelled."""

from __future__ import annotations

import os
import signal

import pytest
import yaml

from hml_core import engines
from hml_core.engines import slurm_queue
from hml_core.engines.slurm_queue import Job
from hml_core.errors import RunError
from hml_core.system import interruptions
from tests.engines import helpers
from tests.engines.helpers import configs
from tests.test_asked import up_once

GREETED = {
    "Welcome to Stampede3, 12 nodes are free\nSubmitted batch job 4711\n": ("4711", ""),
    "2026\nsbatch: Submitted batch job 4711 on cluster big\nBalance: 99\n3\n": ("4711", "big"),
    "--> 3 checks passed\n4711;big\n": ("4711", "big"),
    "Stampede3\n": None,
    "Submitted batch job\n": None,
}


@pytest.mark.parametrize("said", GREETED)
def test_the_job_is_the_one_that_was_taken_whatever_else_is_said(said):
    assert slurm_queue._taken(said) == GREETED[said]


@pytest.mark.parametrize("cluster", ["", "big"])
def test_no_other_job_is_cancelled(cluster, tmp_path, monkeypatch):
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    for name in ("LOOK_S", "GONE_S", "PAUSE_S"):
        monkeypatch.setattr(slurm_queue, name, 0.0)
    taken = f"Submitted batch job 17{cluster and f' on cluster {cluster}'}"
    asked = f'echo "$@" >> {tmp_path}/asked'
    said = {"sbatch": f"echo Stampede3; echo {taken}", "squeue": asked}
    for name, script in {**said, "scancel": f'echo "$@" >> {tmp_path}/cancelled'}.items():
        helpers.says(tmp_path / "bin" / name, script)
    with pytest.raises(RunError, match="job 17 ended before its worker was here"):
        engines.sweep(
            configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs", progress=False
        )
    where = {f"--clusters={cluster}"} if cluster else set()
    assert set((tmp_path / "cancelled").read_text().split()) == {"17"} | where
    assert where <= set((tmp_path / "asked").read_text().split())


def test_a_job_is_looked_for_and_cancelled_on_its_own_cluster_alone(tmp_path, monkeypatch):
    """On another one, its number is somebody else's."""
    helpers.pretend_slurm(tmp_path, monkeypatch)
    for name in ("scancel", "squeue"):
        helpers.says(tmp_path / "bin" / name, f'echo {name} "$@" >> {tmp_path}/asked')
    jobs = [Job("71", "big"), Job("72", "small"), Job("73", "big"), Job("74")]
    submissions = slurm_queue.Submissions()
    submissions.alive |= dict(enumerate(jobs))
    assert slurm_queue.in_queue(jobs) == {}
    submissions.cancel()
    said = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in said if line.startswith("scancel")] == [
        "scancel 74", "scancel --clusters=big 71 73", "scancel --clusters=small 72",
    ]  # fmt: skip
    assert [line.split("%R ")[1] for line in said if line.startswith("squeue")] == [
        "--jobs=74", "--jobs=71,73 --clusters=big", "--jobs=72 --clusters=small",
    ]  # fmt: skip


def test_a_second_signal_waits_until_the_jobs_are_cancelled(tmp_path, monkeypatch):
    helpers.pretend_slurm(tmp_path, monkeypatch)
    script = f'kill -INT $PPID; sleep 0.3; echo "$@" >> {tmp_path}/cancelled'
    helpers.says(tmp_path / "bin" / "scancel", script)
    submissions = slurm_queue.Submissions()
    submissions.alive["a worker"] = Job("17")
    with (
        pytest.raises(interruptions.Interrupted, match="SIGINT"),
        interruptions.interruptible(),
        interruptions.first_on_interrupt(submissions.cancel),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert (tmp_path / "cancelled").read_text().split() == ["17"]


REFUSED = (
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination"
)


@pytest.mark.parametrize(
    ("sbatch", "reason"),
    [
        (None, r"no command 'sbatch' here; expected a login node"),
        (f"echo '{REFUSED}' >&2; exit 1", "Batch job submission failed: Invalid account"),
        (
            "echo Welcome to Stampede3",
            "'sbatch' does not say which job it took, if any; it said: Welcome to Stampede3",
        ),
        ("echo 'no room' >&2", "no room"),
        ("sleep 600", r"'sbatch' did not answer within 1 seconds"),
        ("yes Submitted", "'sbatch' says more than 1,048,576 bytes"),
        ("kill -9 $$", "'sbatch' ended with status 137"),
        (r"printf '\377'", "does not say which job it took, if any"),
    ],
)
def test_slurm_that_takes_no_job_is_told_with_its_reason(sbatch, reason, tmp_path, monkeypatch):
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    monkeypatch.setattr(slurm_queue, "PAUSE_S", 0.0)
    if sbatch is not None and "sleep" in sbatch:
        monkeypatch.setattr(slurm_queue, "SUBMIT_TIMEOUT_S", 1.0)
        monkeypatch.setattr(slurm_queue, "ATTEMPTS", 1)
    command = tmp_path / "bin" / "sbatch"
    command.unlink()
    if sbatch is not None:
        helpers.says(command, sbatch)
    with pytest.raises(RunError, match=f"Slurm takes no job: .*{reason}"):
        engines.sweep(
            configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs", progress=False
        )
    assert not list((tmp_path / "runs").glob(".slurm-*")), "the key is gone with the sweep"


MUCH = "head -c 2000000 /dev/zero"


@pytest.mark.parametrize(
    "then",
    [
        "exec sleep 600", "exit 1", "echo 'no mail' >&2; exit 1", "kill -9 $$", f"{MUCH} >&2", MUCH,
        f"{MUCH} >&2; sleep 600",
    ],
)  # fmt: skip
def test_a_job_that_sbatch_told_before_it_hung_or_failed_is_ours(then, tmp_path, monkeypatch):
    """It is in the queue, is submitted once, and is cancelled in the end."""
    import asyncio

    helpers.pretend_slurm(tmp_path, monkeypatch)
    if "sleep" in then:
        up_once(tmp_path / "told", monkeypatch)
    said = f"echo Submitted batch job 17; touch {tmp_path}/told; {then}"
    helpers.says(tmp_path / "bin" / "sbatch", said)
    said = asyncio.run(slurm_queue.Submissions().job()._call(["sbatch", "job.sh"]))
    assert slurm_queue._taken(said) == Job("17")


@pytest.mark.parametrize(
    "script", [MUCH, "yes", "printf 'Submitted batch job 1'; touch told; sleep 600"]
)
def test_a_job_that_may_have_been_taken_is_not_submitted_again(script, tmp_path, monkeypatch):
    """And none is cancelled: of a number that is cut off, the rest would be somebody else's job."""
    import asyncio

    helpers.pretend_slurm(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    if "told" in script:
        up_once(tmp_path / "told", monkeypatch)
    helpers.says(tmp_path / "bin" / "sbatch", script)
    with pytest.raises(slurm_queue._Unclear, match=r"says more than|did not answer"):
        asyncio.run(slurm_queue.Submissions().job()._call(["sbatch", "job.sh"]))


def test_a_refusal_counts_only_while_no_job_is_left():
    submissions = slurm_queue.Submissions()
    assert submissions.hopeless() is None, "nothing has been submitted yet"
    submissions.refusal = "the limit of jobs is reached."
    assert "the limit of jobs is reached" in submissions.hopeless()
    submissions.alive[1] = Job("17")
    assert submissions.hopeless() is None, "another one may still train everything"


QUEUE = {  # what squeue says, and what the sweep ends with
    "never begins": ("echo '17|PENDING|(PartitionTimeLimit)'", r"job 17 will never begin \(Part"),
    "ended": (
        "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
        "job 17 ended before",
    ),
    "failed": ("echo '17|FAILED|(NonZeroExitCode)'", r"job 17 ended \(FAILED NonZeroExitCode\)"),
    "does not reach us": (
        "echo '17|RUNNING|node3'",
        "runs on node3, but no worker .* tls://.*`interface`",
    ),
    "waits too long": (
        "echo '17|PENDING|(Priority)'",
        r"waits since .* \(Priority\), the longest wait",
    ),
}


@pytest.mark.parametrize("what", QUEUE)
def test_jobs_whose_workers_never_arrive_are_given_up_with_the_reason(
    what, tmp_path, monkeypatch, capsys
):
    said, reason = QUEUE[what]
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    for name in ("LOOK_S", "GONE_S", "ARRIVAL_S"):
        monkeypatch.setattr(slurm_queue, name, 0.0)
    if what == "waits too long":
        options = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**options, "longest_wait": "00:00:00"}))
    for name, script in {"sbatch": "echo 'Submitted batch job 17'", "squeue": said}.items():
        helpers.says(tmp_path / "bin" / name, script)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm-17.out").write_text("line\nmodule: command not found\n")
    with pytest.raises(RunError, match=reason) as caught:
        engines.sweep(
            configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs", progress=False
        )
    if what in ("ended", "failed", "does not reach us"):
        assert "line / module: command not found" in str(caught.value)
    told = capsys.readouterr().out
    assert told.count("Slurm: job 17 waits (") == ("PENDING" in said)


def _hole(path):
    with path.open("wb") as stream:
        stream.truncate(2**40)
        stream.seek(2**40)
        stream.write(b"\nmodule: command not found\n")


def test_the_log_of_another_job_is_not_told(tmp_path):
    (tmp_path / "hml-11234.out").write_text("somebody else's\n")
    submissions = slurm_queue.Submissions(log_directory=str(tmp_path))
    assert "somebody" not in submissions._said_by("1234")
    (tmp_path / "hml-1234.out").write_text("a line\n")
    assert "a line" in submissions._said_by("1234")
    (tmp_path / "hml-1234.err").write_text("an error\n")
    assert "an error" in submissions._said_by("1234")


LOGS = {  # what lies where a job's log is expected, and what of it is told
    "a terabyte": (_hole, "ends: module: command not found"),
    "a pipe": (os.mkfifo, "What it said should be in"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\0\n"), "slurm-17.out"),
}


@pytest.mark.parametrize("what", LOGS)
def test_of_a_job_s_log_the_end_is_told_whatever_it_is(what, tmp_path):
    make, told = LOGS[what]
    make(tmp_path / "slurm-17.out")
    assert told in slurm_queue.Submissions(log_directory=str(tmp_path))._said_by("17")


def test_a_queue_that_does_not_tell_and_workers_that_are_here_are_no_reason(monkeypatch):
    monkeypatch.setattr(slurm_queue, "LOOK_S", 0.0)
    monkeypatch.setattr(slurm_queue, "GONE_S", 0.0)
    submissions = slurm_queue.Submissions()
    submissions.alive[1] = Job("17")
    monkeypatch.setattr(slurm_queue, "in_queue", lambda *_: None)
    assert submissions.hopeless() is None
    monkeypatch.setattr(slurm_queue, "in_queue", lambda *_: {})
    submissions.workers = lambda: 1
    assert submissions.hopeless() is None
    submissions.workers = lambda: 0
    assert "job 17 ended" in submissions.hopeless()
    submissions.alive[2] = Job("18")
    there = {Job("18"): slurm_queue.State("PENDING", "Resources")}
    monkeypatch.setattr(slurm_queue, "in_queue", lambda *_: there)
    assert submissions.hopeless() is None, "the other one may still begin"


@pytest.fixture
def queue(monkeypatch):
    """Submissions with the job 17, and what squeue says of it and when: nothing waits here."""
    submissions, clock = slurm_queue.Submissions(longest_wait=3600), [0.0]
    submissions.alive[1] = Job("17")
    monkeypatch.setattr(slurm_queue.time, "monotonic", lambda: clock[0])

    def at(now: float, state: tuple[str, str] | str | None):
        clock[0] = now
        queue = state if not isinstance(state, tuple) else {Job("17"): slurm_queue.State(*state)}
        monkeypatch.setattr(slurm_queue, "in_queue", lambda *_: queue)
        return submissions.hopeless()

    at.submissions = submissions
    return at


RUNNING, WAITING = ("RUNNING", "node3"), ("PENDING", "Priority")


def test_a_job_that_is_preempted_has_its_time_anew(queue):
    assert queue(0, RUNNING) is None
    assert queue(200, WAITING) is None
    assert queue(2000, RUNNING) is None, "it runs since now, not for half an hour"
    assert "no worker of it has reached" in queue(2400, RUNNING)


def test_a_queue_that_missed_a_job_once_is_forgiven(queue):
    assert queue(0, {}) is None
    assert queue(20, WAITING) is None
    assert queue(900, {}) is None
    assert "job 17 ended before its worker was here" in queue(1000, {})


def test_a_short_wait_is_told_in_minutes(queue, monkeypatch):
    monkeypatch.setattr(queue.submissions, "_longest_wait", 1200.0)
    assert queue(0, WAITING) is None
    assert "waits since 20 minutes (Priority), the longest wait" in queue(1205, WAITING)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "squeue does not tell how it is"),
        (("CONFIGURING", "node3"), "CONFIGURING node3"),
        (("SUSPENDED", "node3"), "SUSPENDED node3"),
        (WAITING, "Priority"),
    ],
)
def test_nothing_is_waited_for_longer_than_the_longest_wait(queue, state, told):
    assert queue(0, state) is None
    assert queue(3500, state) is None
    assert f"waits since 1.0 hours ({told}), the longest wait" in queue(3700, state)


def test_a_worker_that_may_be_on_its_way_is_waited_for(queue):
    assert queue(0, WAITING) is None
    assert queue(3590, RUNNING) is None
    assert queue(3700, RUNNING) is None
    assert "has reached" in queue(3900, RUNNING)


@pytest.mark.parametrize("script", ["sleep 3600", "exit 1", "printf '\\377' >&2; exit 1", "yes"])
def test_a_sweep_ends_whatever_scancel_does(script, tmp_path, monkeypatch):
    import asyncio

    monkeypatch.setattr(slurm_queue, "CANCEL_TIMEOUT_S", 0.2)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    helpers.says(tmp_path / "scancel", script)
    options = {"cores": 1, "memory": "1GB", "walltime": "00:10:00"}
    job = slurm_queue.Submissions().job()("tcp://127.0.0.1:1", name=0, **options)
    job.job_id = "17"
    asyncio.run(asyncio.wait_for(job.close(), 60))


@pytest.mark.parametrize(
    ("script", "said", "times"),
    [
        ("exit 0", "", 1),
        (
            "echo 'scancel: error: Kill job error on job id 17: Invalid job id specified' >&2; exit 1",
            "",
            1,
        ),
        ("echo 'scancel: error: Job/step already completing or completed' >&2; exit 1", "", 1),
        (
            "test $(wc -l < {log}) = 2 && exit 0; echo 'scancel: error: Socket timed out' >&2; exit 1",
            "",
            2,
        ),
        (
            "echo 'scancel: error: Socket timed out' >&2; exit 1",
            "failed (scancel: error: Socket",
            3,
        ),
        ("exit 3", "`scancel 17` failed (status 3). Jobs that are not over go on: cancel them.", 3),
    ],
)
def test_jobs_that_could_not_be_cancelled_are_told(
    script, said, times, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(slurm_queue, "PAUSE_S", 0.0)
    helpers.pretend_slurm(tmp_path, monkeypatch)
    log = tmp_path / "asked"
    helpers.says(tmp_path / "bin" / "scancel", f'echo "$@" >> {log}; {script.format(log=log)}')
    submissions = slurm_queue.Submissions()
    submissions.alive["a worker"] = Job("17")
    submissions.cancel()
    submissions.cancel()  # and once is enough
    assert log.read_text().splitlines() == ["17"] * times
    told = capsys.readouterr().out
    assert said in told if said else not told


def test_squeue_is_read_as_it_writes(tmp_path, monkeypatch):
    command = tmp_path / "squeue"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for script, expected in {
        "echo '17|PENDING|(Priority)'; echo '18|RUNNING|node[3-4]'": {
            Job("17"): slurm_queue.State("PENDING", "Priority"),
            Job("18"): slurm_queue.State("RUNNING", "node[3-4]"),
        },
        "echo 'Invalid job id specified' >&2; exit 1": {},
        "echo 'Unable to contact slurm controller' >&2; exit 1": None,
        "yes '17|PENDING|(Priority)'": None,
        r"printf '17|PENDING|(\377)\n'": {
            Job("17"): slurm_queue.State("PENDING", "\N{REPLACEMENT CHARACTER}")
        },
    }.items():
        helpers.says(command, script)
        assert slurm_queue.in_queue([Job("17"), Job("18")]) == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert slurm_queue.in_queue([Job("17")]) is None
