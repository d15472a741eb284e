"""Slurm: the job script to the letter, wrong files, and a sweep over jobs of a stand-in for Slurm."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import dask
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from hml_core import engines
from hml_core.config import grid
from hml_core.engines import slurm, slurm_queue
from hml_core.engines.dask import SETTINGS
from hml_core.engines.slurm_queue import Job
from hml_core.errors import ConfigError, RunError
from hml_core.system import processes, scratch, yaml_files
from hml_lab import notebooks
from hml_lab.cli import main
from tests import forks
from tests.engines import helpers
from tests.engines.helpers import REPOSITORY, configs
from tests.engines.test_dask import strangers_attempts
from tests.notebooks.helpers import make

EXAMPLE = REPOSITORY / "notebooks" / "batches" / "slurm.yaml"
TABLE = REPOSITORY / "notebooks" / "02_cifar_lt.ipynb"

GOLDEN = """\
#!/usr/bin/env bash

#SBATCH -J hml
#SBATCH -p gpu
#SBATCH -A my-project
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=30G
#SBATCH -t 04:00:00
#SBATCH --gres=gpu:1
export PYTHONSAFEPATH=1
PYTHON -m distributed.cli.dask_worker tls://SCHEDULER --name dummy-name --nthreads 1 \
--memory-limit 29.80GiB --nanny --death-timeout 60 --no-dashboard --dashboard-address 127.0.0.1:0 \
--resources GPU=1 --protocol tls:// --tls-ca-file FILE --tls-cert FILE --tls-key FILE
"""


def normalised(script: str) -> str:
    script = script.replace(sys.executable, "PYTHON")
    script = re.sub(r"(--tls-[a-z-]+) /\S+", r"\1 FILE", script)
    return re.sub(r"tls://[\d.]+:\d+", "tls://SCHEDULER", script).strip() + "\n"


def test_the_job_script_is_the_one_we_expect():
    assert normalised(slurm.job_script(slurm.read(EXAMPLE))) == GOLDEN


def test_a_dry_run_prints_runs_and_script_and_submits_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # neither sbatch nor anything else
    grid = tmp_path / "grid.yaml"
    grid.write_text("recipe: [ce, hml1]\nseed: [0, 1]\nepochs: 2\n")
    arguments = ["sweep", grid, "--engine", f"slurm:{EXAMPLE}", "--runs-root", tmp_path / "runs"]
    result = CliRunner().invoke(main, [str(a) for a in [*arguments, "--dry-run"]])
    assert result.exit_code == 0, result.output
    runs, _, script = result.output.partition("\n\n")
    *planned, cost = runs.splitlines()
    assert [line.split()[:2] for line in planned] == 4 * [["to", "do"]]
    assert cost.startswith("To train: 6 epochs for 4 runs"), cost  # HML1 takes its first from CE
    assert "(8 if each run were trained alone)" in cost
    assert normalised(script) == GOLDEN
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"walltime": None}, "lacks walltime"),
        ({"cores": None, "memory": None}, "lacks cores, memory"),
        ({"partition": "gpu"}, r"do not exist or are not its to set: partition. .*queue"),
        ({"processes": 4}, "not its to set: processes"),
        ({"security": True, "protocol": "tcp://"}, "not its to set: protocol, security"),
        ({"jobs": 0}, "`jobs` in .* to be a whole number ≥ 1, got 0"),
        ({"jobs": "many"}, "`jobs` in .* got 'many'"),
        ({"gpus": 2}, "`gpus` in .* to be 0 or 1, got 2"),
        ({"memory": 4096}, "`memory` in .* to be an amount with its unit, such as 32GB, got 4096"),
        ({"memory": "4096"}, "`memory` in .* with its unit"),
        ({"walltime": 36000}, "`walltime` in .* to be a time such as 04:00:00 .* got 36000"),
        ({"longest_wait": 3600}, "`longest_wait` in .* to be a time such as 04:00:00"),
        ({"queue": ["gpu"]}, "`queue` in .* to be the name of a partition"),
        (
            {"job_script_prologue": "module load x"},
            "`job_script_prologue` in .* to be a list of lines",
        ),
        ({"memory": "0GB"}, "`memory` in .* with its unit"),
        ({"walltime": "99:99:99"}, "`walltime` in .* to be a time"),
        ({"account": "-x"}, "`account` in .* to be the name of an account"),
        ({"shebang": "bash"}, "`shebang` in .* to be a line such as"),
        ({"death_timeout": "soon"}, "`death_timeout` in .* to be a whole number"),
        ({"cores": 10**30}, "`cores` in .* to be a whole number"),
        ({"env_extra": ["x"]}, "not its to set: env_extra"),
        ({"config_name": "x"}, "not its to set: config_name"),
        ({"scheduler_options": "x"}, "`scheduler_options` in .* to hold host, interface, port"),
        ({"scheduler_options": {"protocol": "tcp://"}}, "`scheduler_options` in .* to hold host"),
        ({"scheduler_options": {"port": "x"}}, "`port` of `scheduler_options` in .* to be int"),
        ({"scheduler_options": {"port": -1}}, "`port` of `scheduler_options` in .* to be int"),
        ({"scheduler_options": {"port": 70000}}, "`port` of `scheduler_options` in .* to be int"),
        ({"memory": f"{'9' * 400}GB"}, "`memory` in .* with its unit"),
        ({"memory": f"{'1' * 200_000}X"}, "`memory` in .* with its unit"),
        ({"memory": "1KB"}, "`memory` in .* with its unit"),
        ({"walltime": f"{'1' * 200_000}:00:0"}, "`walltime` in .* to be a time"),
        ({"worker_extra_args": ["--protocol", "tcp"]}, "hold '--protocol': how a worker speaks"),
        ({"worker_extra_args": ["--dashboard-address=0.0.0.0:1"]}, "that it shows no pages"),
        ({"job_extra_directives": [1]}, "`job_extra_directives` in .* to be a list of lines"),
        (
            {"job_extra_directives": ["-C x\nrm -r ."]},
            "`job_extra_directives` in .* to be one line",
        ),
        ({"worker_extra_args": ["--lifetime 5m --protocol tcp"]}, "hold '--protocol'"),
        ({"job_directives_skip": [""]}, "got a blank, which is in all of them"),
        ({"worker_extra_args": ["; rm -r ."]}, "without quotes and other signs of the shell"),
        ({"local_directory": "/a/$(id)"}, "`local_directory` in .* without quotes and commands"),
        ({"local_directory": 'a"; id; "'}, "`local_directory` in .* without quotes and commands"),
        ({"log_directory": "my logs"}, "`log_directory` in .* to be a folder without blanks"),
        ({"log_directory": "logs/%u"}, "`log_directory` in .* to be a folder without blanks"),
        ({"job_name": "a/b"}, "`job_name` in .* to be a word"),
        ({"queue": "gpu;id"}, "`queue` in .* to be the name of a partition"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(change, message, tmp_path):
    options = {**yaml.safe_load(EXAMPLE.read_text()), **change}
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in options.items() if v is not None}))
    with pytest.raises(ConfigError, match=message):
        engines.sweep(configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_every_option_has_a_type_that_is_checked():
    """What dask-jobqueue takes in a later version is looked at before it may stand in a file."""
    checked = {*slurm.TEXTS, *slurm.LISTS, "cores", "death_timeout", "scheduler_options"}
    assert slurm._known_options() - {*slurm.RESERVED} == checked - {"longest_wait"}


def test_ctrl_c_stays_ours():
    """Importing dask-jobqueue makes it an end with status 0."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    handler = signal.getsignal(signal.SIGINT)
    try:
        for name in [name for name in sys.modules if name.startswith("dask_jobqueue.runner")]:
            del sys.modules[name]
        sys.modules.pop("dask_jobqueue", None)
        slurm._require_jobqueue()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_network_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), "interface": "nope"}))
    with pytest.raises(ConfigError, match="'nope' is not a valid network interface"):
        slurm.job_script(slurm.read(path))


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no file 'slurm.yaml': .*docs/clusters.md"):
        engines.sweep(configs(), engine="slurm")


def test_a_sweep_over_jobs_gives_the_serial_frame(tmp_path, monkeypatch):
    """sbatch and scancel are stand-ins that run the job script on this machine."""
    path = helpers.pretend_slurm(tmp_path, monkeypatch)
    frame = engines.sweep(
        configs(), engine=f"slurm:{path}", runs_root=tmp_path / "slurm", progress=False
    )
    serial = engines.sweep(configs(), runs_root=tmp_path / "serial", progress=False)
    pd.testing.assert_frame_equal(serial.drop(columns="seconds"), frame.drop(columns="seconds"))
    assert list((tmp_path / "bin").glob("job.*.log")), "no job ran"


def test_paths_reach_a_job_as_they_are(tmp_path):
    """A shell reads the script: folders have blanks, and what it would take for commands."""
    bin = tmp_path / "my programs"
    bin.mkdir()
    python = bin / "python;touch pwned"
    python.write_text(f'#!/bin/sh\nfor one in "$@"; do echo "<$one>"; done > "{tmp_path}/said"\n')
    python.chmod(0o755)
    shared = tmp_path / "r $HOME;touch pwned;'`"
    shared.mkdir()
    options = {**yaml.safe_load(EXAMPLE.read_text()), "python": str(python), "interface": "lo"}
    options |= {"local_directory": "$SCRATCH/one & two", "job_script_prologue": []}
    with slurm.make_cluster(options, shared) as made:
        script = made.job_script()
    at_home = {**options, "local_directory": "~/scratch"}
    assert f'--local-directory "{Path.home()}/scratch"' in slurm.job_script(at_home)
    environment = {**os.environ, "SCRATCH": "/fast disk"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    said = (tmp_path / "said").read_text()
    for name in ("ca", "cert", "key"):
        assert f"\n<{shared}/{name}.pem>\n" in said
    assert "\n<--local-directory>\n</fast disk/one & two>\n" in said
    assert not list(tmp_path.rglob("pwned"))


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
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    with pytest.raises(RunError, match="job 17 ended before its worker was here"):
        engines.sweep(
            configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs", progress=False
        )
    where = {f"--clusters={cluster}"} if cluster else set()
    assert set((tmp_path / "cancelled").read_text().split()) == {"17"} | where
    assert where <= set((tmp_path / "asked").read_text().split())


@pytest.mark.parametrize(
    ("sent", "when"), [(signal.SIGTERM, "in the queue"), (signal.SIGINT, "at sbatch")]
)
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
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
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


def test_a_job_is_looked_for_and_cancelled_on_its_own_cluster_alone(tmp_path, monkeypatch):
    """On another one, its number is somebody else's."""
    helpers.pretend_slurm(tmp_path, monkeypatch)
    for name in ("scancel", "squeue"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/asked\n')
        (tmp_path / "bin" / name).chmod(0o755)
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
    script = f'#!/bin/sh\nkill -INT $PPID; sleep 0.3; echo "$@" >> {tmp_path}/cancelled\n'
    (tmp_path / "bin" / "scancel").write_text(script)
    submissions = slurm_queue.Submissions()
    submissions.alive["a worker"] = Job("17")
    with (
        pytest.raises(processes.Interrupted, match="SIGINT"),
        processes.interruptible(),
        processes.first_on_interrupt(submissions.cancel),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert (tmp_path / "cancelled").read_text().split() == ["17"]


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


def of_site(**options):
    """As a site has it in /etc/dask/jobqueue.yaml."""
    return dask.config.set({f"jobqueue.slurm.{name}": value for name, value in options.items()})


def test_what_a_site_says_of_its_jobs_holds_where_the_file_says_nothing(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("cores: 2\nmemory: 4GB\nwalltime: 00:10:00\nqueue: mine\n")
    site = {"queue": "theirs", "account": "all", "scheduler-options": {"dashboard_address": ":1"}}
    with of_site(**site):
        script = slurm.job_script(slurm.read(path))
    assert "#SBATCH -p mine" in script
    assert "#SBATCH -A all" in script


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("local-directory", '/scratch"; id', "`local_directory` in Dask's configuration"),
        ("job-directives-skip", [""], "`job_directives_skip` in Dask's configuration"),
        ("worker-extra-args", ["--dashboard"], "`worker_extra_args` in Dask's configuration"),
        ("shebang", "id", "`shebang` in Dask's configuration"),
    ],
)
def test_what_a_site_says_of_its_jobs_is_checked(name, value, said, tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("cores: 2\nmemory: 4GB\nwalltime: 00:10:00\n")
    with of_site(**{name: value}), pytest.raises(ConfigError, match=re.escape(said)):
        slurm.read(path)
    with dask.config.set({"jobqueue.slurm": [1]}), pytest.raises(ConfigError, match="a mapping"):
        slurm.read(path)


def test_what_is_not_a_site_s_to_say_is_told_and_left(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("cores: 2\nmemory: 4GB\nwalltime: 00:10:00\n")
    with of_site(**{"worker-command": "id; dask worker", "job-extra": ["--exclusive"]}):
        with pytest.warns(UserWarning, match="says job_extra, worker_command, which jobs"):
            options = slurm.read(path)
        script = slurm.job_script(options)
    assert "id;" not in script
    assert "exclusive" not in script


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
        command.write_text(f"#!/bin/sh\n{sbatch}\n")
        command.chmod(0o755)
    with pytest.raises(RunError, match=f"Slurm takes no job: .*{reason}"):
        engines.sweep(
            configs(), engine=f"slurm:{path}", runs_root=tmp_path / "runs", progress=False
        )
    assert not list((tmp_path / "runs").glob(".slurm-*")), "the key is gone with the sweep"


def test_a_refusal_counts_only_while_no_job_is_left():
    submissions = slurm.Submissions()
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
        command = tmp_path / "bin" / name
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
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
    submissions = slurm.Submissions(log_directory=str(tmp_path))
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
    assert told in slurm.Submissions(log_directory=str(tmp_path))._said_by("17")


def test_a_queue_that_does_not_tell_and_workers_that_are_here_are_no_reason(monkeypatch):
    monkeypatch.setattr(slurm_queue, "LOOK_S", 0.0)
    monkeypatch.setattr(slurm_queue, "GONE_S", 0.0)
    submissions = slurm.Submissions()
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
    submissions, clock = slurm.Submissions(longest_wait=3600), [0.0]
    submissions.alive[1] = Job("17")
    monkeypatch.setattr(slurm_queue.time, "monotonic", lambda: clock[0])

    def at(now: float, state: tuple[str, str] | str | None):
        clock[0] = now
        queue = state if not isinstance(state, tuple) else {Job("17"): slurm_queue.State(*state)}
        monkeypatch.setattr(slurm_queue, "in_queue", lambda *_: queue)
        return submissions.hopeless()

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
    command = tmp_path / "scancel"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    options = {"cores": 1, "memory": "1GB", "walltime": "00:10:00"}
    job = slurm.Submissions().job()("tcp://127.0.0.1:1", name=0, **options)
    job.job_id = "17"
    asyncio.run(asyncio.wait_for(job.close(), 60))


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
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        assert slurm_queue.in_queue([Job("17"), Job("18")]) == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert slurm_queue.in_queue([Job("17")]) is None


def test_nobody_without_the_certificate_speaks_to_the_scheduler(tmp_path, monkeypatch):
    """It listens at one address, and its key is its owner's alone."""
    options = slurm.read(helpers.pretend_slurm(tmp_path, monkeypatch))
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


def test_the_sweep_file_of_the_readme_holds_the_runs_of_the_notebook():
    """Its dry run must tell what `hml run notebooks/02_cifar_lt.ipynb` would train."""
    given = {p.name: p.default for p in notebooks.parameters(TABLE).values()}
    names = ("delta", "weighting", "weight_placement")
    made = grid(
        recipe=given["recipes"], seed=given["seeds"], imbalance_type=given["imbalance_types"],
        imbalance_ratio=given["imbalance_ratios"],
        hard_mining={name: given[name] for name in names},
        **{name: given[name] for name in ("dataset", "epochs", "model", "evaluate_every", "protocol")},
    )  # fmt: skip
    swept = grid(**yaml_files.read(REPOSITORY / "notebooks" / "batches" / "cifar100_lt.yaml"))
    assert {config.run_id for config in swept} == {config.run_id for config in made}
