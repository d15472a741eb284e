"""What a job of Slurm asks for: its script to the letter, wrong files, and what a site says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import pytest
import yaml
from click.testing import CliRunner

from hml_core import engines
from hml_core.config import grid
from hml_core.engines import slurm, slurm_options
from hml_core.errors import ConfigError
from hml_core.system import yaml_files
from hml_lab import notebooks
from hml_lab.cli import main
from tests.engines.helpers import REPOSITORY, configs

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
HML_WORK=
trap 'rm -rf "$HML_WORK"' EXIT
mkdir -p "${TMPDIR:-/tmp}" && HML_WORK=$(mktemp -d "${TMPDIR:-/tmp}/hml-XXXXXXXX") || exit 1
PYTHON -m distributed.cli.dask_worker tls://SCHEDULER --name dummy-name --nthreads 1 \
--memory-limit 29.80GiB --nanny --death-timeout 60 --local-directory "$HML_WORK" --no-dashboard \
--dashboard-address 127.0.0.1:0 --resources GPU=1 --protocol tls:// --tls-ca-file FILE \
--tls-cert FILE --tls-key FILE
"""


def normalised(script: str) -> str:
    script = script.replace(sys.executable, "PYTHON")
    script = re.sub(r"(--tls-[a-z-]+) /\S+", r"\1 FILE", script)
    return re.sub(r"tls://[\d.]+:\d+", "tls://SCHEDULER", script).strip() + "\n"


def test_the_job_script_is_the_one_we_expect():
    assert normalised(slurm.job_script(slurm_options.read(EXAMPLE))) == GOLDEN


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
        ({"worker_extra_args": ["--nworkers=2"]}, "hold '--nworkers=2': a job has one worker"),
        ({"worker_extra_args": ["--local-directory", "/tmp"]}, "in a folder of its own"),
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
    checked = {
        *slurm_options.TEXTS,
        *slurm_options.LISTS,
        "cores",
        "death_timeout",
        "scheduler_options",
    }
    assert slurm_options.known_options() - {*slurm_options.RESERVED} == checked - {"longest_wait"}


def test_ctrl_c_stays_ours():
    """Importing dask-jobqueue makes it an end with status 0."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    handler = signal.getsignal(signal.SIGINT)
    try:
        for name in [name for name in sys.modules if name.startswith("dask_jobqueue.runner")]:
            del sys.modules[name]
        sys.modules.pop("dask_jobqueue", None)
        slurm_options.require_jobqueue()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_a_thread_it_is_said_where_to_load_it(monkeypatch):
    """dask-jobqueue sets a handler of a signal as it is imported; Python lets no thread do that."""
    for name in [name for name in sys.modules if name.split(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    with (
        ThreadPoolExecutor(1) as apart,
        pytest.raises(ConfigError, match="main thread: `import dask_jobqueue` there first"),
    ):
        apart.submit(slurm_options.require_jobqueue).result()


def test_a_network_that_is_not_there_is_told(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(EXAMPLE.read_text()), "interface": "nope"}))
    with pytest.raises(ConfigError, match="'nope' is not a valid network interface"):
        slurm.job_script(slurm_options.read(path))


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no file 'slurm.yaml': .*docs/clusters.md"):
        engines.sweep(configs(), engine="slurm")


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
    assert f'$(mktemp -d "{Path.home()}/scratch/hml-XXXXXXXX")' in slurm.job_script(at_home)
    environment = {**os.environ, "SCRATCH": f"{tmp_path}/fast disk"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    said = (tmp_path / "said").read_text()
    for name in ("ca", "cert", "key"):
        assert f"\n<{shared}/{name}.pem>\n" in said
    own = re.search("\n<--local-directory>\n<(.*)>\n", said)[1]
    assert os.path.dirname(own) == f"{tmp_path}/fast disk/one & two"
    assert not os.path.exists(own), "the job removes it in the end"
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("host", ["8.8.8.8", "no.such.host.invalid", "a..b", "x" * 300])
def test_an_address_that_is_not_this_host_s_is_named(host, tmp_path):
    options = {"cores": 1, "memory": "1GB", "walltime": "00:10:00"}
    with pytest.raises(ConfigError, match=rf"cannot listen at {host} .*`scheduler_options`"):
        slurm.make_cluster({**options, "scheduler_options": {"host": host}}, tmp_path)


def of_site(**options):
    """As a site has it in /etc/dask/jobqueue.yaml."""
    return dask.config.set({f"jobqueue.slurm.{name}": value for name, value in options.items()})


def test_what_a_site_says_of_its_jobs_holds_where_the_file_says_nothing(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("cores: 2\nmemory: 4GB\nwalltime: 00:10:00\nqueue: mine\n")
    site = {"queue": "theirs", "account": "all", "scheduler-options": {"dashboard_address": ":1"}}
    with of_site(**site):
        script = slurm.job_script(slurm_options.read(path))
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
        slurm_options.read(path)
    with dask.config.set({"jobqueue.slurm": [1]}), pytest.raises(ConfigError, match="a mapping"):
        slurm_options.read(path)


def test_what_is_not_a_site_s_to_say_is_told_and_left(tmp_path):
    path = tmp_path / "slurm.yaml"
    path.write_text("cores: 2\nmemory: 4GB\nwalltime: 00:10:00\n")
    with of_site(**{"worker-command": "id; dask worker", "job-extra": ["--exclusive"]}):
        with pytest.warns(UserWarning, match="says job_extra, worker_command, which jobs"):
            options = slurm_options.read(path)
        script = slurm.job_script(options)
    assert "id;" not in script
    assert "exclusive" not in script


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
