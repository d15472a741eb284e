"""What is given: paths that no file has, numbers that are none. Refused by name; nothing is written."""

from __future__ import annotations

import errno
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import data_prep.cli
from hml_core import engines, runs
from hml_core.config import RunConfig, grid
from hml_core.engines import slurm_options
from hml_core.errors import ConfigError, DataError
from hml_core.runs import Run
from hml_core.system import files, paths, quantities, yaml_files
from hml_core.trainer import fit
from hml_lab.cli import main
from hml_lab.notebooks import batch, execute, outputs

NO_PATHS = [
    "",
    " ",
    "\t\n",
    "a\0b",
    "a\ud800",
    "x" * 300,
    "x/" * 3000,
    "x/" * 300,
    "s3://bucket/runs",
    Path("gs://bucket/runs"),
    3,
    True,
    [],
    b"bytes",
    None,
]
USES = {
    "fit": lambda path: fit(RunConfig(epochs=1), runs_root=path, progress=False),
    "fit, images": lambda path: fit(RunConfig(epochs=1), data_root=path, progress=False),
    "sweep": lambda path: engines.sweep([RunConfig(epochs=1)], runs_root=path, progress=False),
    "sweep, images": lambda path: engines.sweep([RunConfig(epochs=1)], data_root=path),
    "what is stored": lambda path: engines.sweep([RunConfig()], runs_root=path, train=False),
    "load": runs.load,
    "failures": runs.failures,
    "export": lambda path: runs.export(path, "exported"),
    "export to": lambda path: runs.export("runs", path),
    "a run": Run,
    "a notebook": execute,
    "an output": lambda path: execute("ours.ipynb", output=path),
}


@pytest.mark.parametrize("use", USES)
def test_a_path_that_is_none_is_refused_by_name(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.ipynb").write_text(NOTEBOOK)
    optional = ("fit, images", "sweep, images", "an output")
    for path in NO_PATHS:
        if path is not None or use not in optional:
            with pytest.raises(ConfigError, match=r"Expected .* to be a path, got"):
                USES[use](path)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.ipynb"]


def test_a_tilde_is_the_home_of_who_gives_it(tmp_path, monkeypatch):
    """As for a shell, which does not see it within quotes and behind a colon."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    taken = data_prep.cli.File().convert("~/out.ipynb", None, None)
    assert taken == tmp_path / "home" / "out.ipynb"
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "home" / "s.yaml"))):
        slurm_options.of_engine("slurm:~/s.yaml")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ours.ipynb").write_text(NOTEBOOK.replace("value = 1", "value = 'a'"))
    (tmp_path / "batch.yaml").write_text(
        "output: ~/out\njobs: [{notebook: ~/ours.ipynb}, {notebook: ~/ours.ipynb, output: ~/b.ipynb}]"
    )
    jobs = batch.read(tmp_path / "batch.yaml")
    assert {job.notebook for job in jobs} == {tmp_path / "home" / "ours.ipynb"}
    home = tmp_path / "home"
    assert [job.output for job in jobs] == [home / "out" / "ours.ipynb", home / "b.ipynb"]
    (tmp_path / "batch.yaml").write_text(
        'jobs: [{notebook: ~/ours.ipynb, grid: {value: ["~"]}, output: "{value}/x.ipynb"}]'
    )
    assert [job.output for job in batch.read(tmp_path / "batch.yaml")] == [home / "x.ipynb"]


NOTEBOOK = """{"cells": [{"cell_type": "code", "execution_count": null, "metadata":
{"tags": ["parameters"]}, "outputs": [], "source": ["value = 1"]}], "metadata": {}, "nbformat": 4,
"nbformat_minor": 4}"""


def test_a_name_that_no_notebook_can_hold_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "ours.ipynb").write_text(NOTEBOOK)
    strange = tmp_path / os.fsdecode(b"\xff.ipynb")
    with pytest.raises(ConfigError, match="its name is not UTF-8"):
        execute(tmp_path / "ours.ipynb", output=strange)
    with pytest.raises(ConfigError, match="its name is not UTF-8"):
        execute(strange)
    assert paths.named(strange, "it") == strange, "a folder of runs may have any name"
    assert [path.name for path in tmp_path.iterdir()] == ["ours.ipynb"]


def test_a_name_to_which_nothing_can_be_added_is_refused_before_anything_starts(tmp_path):
    """While a notebook is executed, and while it is written, its file has a longer name."""
    (tmp_path / "ours.ipynb").write_text(NOTEBOOK)
    longest = tmp_path / f"{'n' * 235}.ipynb"
    outputs.require_plain(longest, "it")
    with outputs.claimed(longest), files.written_beside(longest):
        pass
    longer = tmp_path / f"{'n' * 236}.ipynb"
    with pytest.raises(ConfigError, match=r"too long .a name has at most 241 bytes, a path 4081"):
        execute(tmp_path / "ours.ipynb", output=longer)
    deep = tmp_path
    while len(os.fsencode(deep)) < 4082:
        deep /= "d" * min(200, 4081 - len(os.fsencode(deep)))
    with pytest.raises(ConfigError, match="too long"):
        execute(tmp_path / "ours.ipynb", output=deep)
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(
        yaml_files.text(
            {"jobs": [{"notebook": str(tmp_path / "ours.ipynb"), "output": str(longer)}]}
        )
    )
    with pytest.raises(ConfigError, match="too long"):
        batch.read(jobs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("s3://bucket/runs", "got 's3://bucket/runs': it is an address"),
        ("file:///tmp/x", "it is an address"),
        ("d/" * 300 + "x", "too deep .at most 255 folders"),
    ],
)
def test_a_folder_that_would_be_another_than_is_meant_is_refused(
    given, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    commands = [
        ["train", "--dataset", "digits", "--epochs", "1", "--runs-root", given],
        ["runs", "list", "--runs-root", given],
        ["runs", "export", given],
        ["report", "-o", given],
        ["doctor", "--runs-root", given],
        ["prepare", "cifar10", "--data-root", given],
        ["predict", given, "x.png"],
    ]
    for command in commands:
        result = CliRunner().invoke(main, [str(one) for one in command])
        assert result.exit_code in (1, 2), (command, result.output)
        assert re.search(said, " ".join(result.output.split())), result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_colon_is_one(tmp_path):
    assert paths.named("c:/x", "it") == Path("c:/x")
    assert paths.named(tmp_path / "2024:/x", "it")


@pytest.mark.parametrize("name", ["metrics.json", "weights.safetensors", "compact.json"])
def test_no_output_takes_the_place_of_a_record_s_file(name, tmp_path):
    (tmp_path / "ours.ipynb").write_text(NOTEBOOK)
    place = tmp_path / "run" / name
    place.parent.mkdir()
    outputs.require_plain(place, "it")  # of no record
    for inside in ("config.json", name):
        (place.parent / inside).write_text("{}")
    with pytest.raises(ConfigError, match="that is a file of the run record 'run'"):
        execute(tmp_path / "ours.ipynb", output=place)
    assert place.read_text() == "{}"


def test_what_a_killed_process_wrote_half_goes_with_the_next_one(tmp_path):
    output = tmp_path / "a.ipynb"
    left, others = tmp_path / ".a.ipynb.abcd1234.new", tmp_path / ".b.ipynb.abcd1234.new"
    left.touch()
    others.touch()
    with outputs.claimed(output):
        assert not left.exists()
    assert others.exists()


def test_a_name_in_other_letters_is_a_path(tmp_path):
    for name in ("ergebnisse für Röntgen", "结果", "-", "~x", "x" * 255):
        assert paths.named(tmp_path / name, "it") == tmp_path / name


@pytest.mark.parametrize("path", ["", " ", "\n", "x" * 300, "-"])
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--runs-root"],
        ["train", "--data-root"],
        ["sweep", "s.yaml", "--runs-root"],
        ["run", "n.ipynb", "-o"],
        ["run"],
        ["batch"],
        ["doctor", "--data-root"],
        ["doctor", "--runs-root"],
        ["runs", "list", "--runs-root"],
        ["prepare", "cifar10", "--data-root"],
        ["report", "--output"],
    ],
)
def test_a_path_that_is_none_is_an_option_s_error(command, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*command, path])
    assert result.exit_code == 2, result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_s_name_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", "n.ipynb", "-o", "out/"])
    assert result.exit_code == 2
    assert "expected a file, got 'out/'" in result.output


NO_COUNTS = [
    0,
    -1,
    1.0,
    1.5,
    math.nan,
    math.inf,
    True,
    "2",
    10**9,
    16**5000,
    None,
    [1],
    np.float64(1),
]


@pytest.mark.parametrize("value", NO_COUNTS, ids=lambda value: quantities.told(value))
def test_what_is_no_count(value):
    with pytest.raises(ConfigError, match="`it` to be a whole number"):
        quantities.whole(value, "`it`")


@pytest.mark.parametrize(
    "value",
    [0, -1, math.nan, math.inf, True, "2", 1e300, 10**400, None],
    ids=lambda value: quantities.told(value),
)
def test_what_is_no_time(value):
    with pytest.raises(ConfigError, match="`it` to be a number of seconds > 0"):
        quantities.seconds(value, "`it`")


def test_numpy_s_numbers_are_numbers():
    assert quantities.whole(np.int64(2), "it") == 2
    assert quantities.seconds(np.float32(0.5), "it") == 0.5
    assert quantities.seconds(0, "it", may_be_zero=True) == 0
    config = RunConfig(recipe=np.str_("hml1"), delta=np.float64(0.5))
    assert config.run_id == RunConfig(recipe="hml1", delta=0.5).run_id
    assert type(config.recipe) is str
    assert type(config.delta) is float


@pytest.mark.parametrize(
    "given", [{"wait": math.nan}, {"wait": -1}, {"checkpoint_steps": math.nan}]
)
def test_training_takes_no_other(given, tmp_path):
    with pytest.raises(ConfigError, match="Expected `"):
        fit(RunConfig(epochs=1), runs_root=tmp_path / "runs", progress=False, **given)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("threads", [math.nan, math.inf, 10**9, True, "1"])
def test_a_sweep_takes_no_other_threads(threads, tmp_path):
    with pytest.raises(ConfigError, match="`threads` to be a whole number"):
        engines.sweep([RunConfig(epochs=1)], runs_root=tmp_path / "runs", threads=threads)
    assert not (tmp_path / "runs").exists()


def test_a_number_that_cannot_be_printed_is_told_by_its_size():
    for name in ("epochs", "seed", "learning_rate", "options"):
        value = {"gamma": 16**5000} if name == "options" else 16**5000
        with pytest.raises(ConfigError):
            RunConfig(recipe="focal", **{name: value})


def test_a_grid_that_nobody_goes_through_is_refused_before_it_is_made():
    many = list(range(999))
    with pytest.raises(ConfigError, match="at most 10,000 points, got 997002999"):
        grid(recipe="ce", seed=many, epochs=many, batch_size=many)


MEMORY = "Error: There is too little memory for this command, or a limit on it (`ulimit -v`)."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "data"), "Error: 'data': Permission denied."),
        (OSError(errno.ENOSPC, "No space left"), "Error: The system: No space left."),
        (OSError(errno.EMFILE, "Too many open files"), "Error: The system: Too many open files."),
        (MemoryError(), MEMORY),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            f"{MEMORY} (libtorch_cpu.so: failed to map segment from shared object)",
        ),
        (
            OSError("libgomp.so.1: failed to map segment from shared object"),
            f"{MEMORY} (libgomp.so.1: failed to map segment from shared object)",
        ),
        (
            DataError("The image 'a\x1b]0;mine\x07.png'\nis none."),
            "Error: The image 'a\\x1b]0;mine\\x07.png'\nis none.",
        ),
    ],
    ids=["a file", "a full disk", "open files", "memory", "a library", "its own", "what a terminal obeys"],
)  # fmt: skip
def test_an_error_of_the_system_is_one_message(error, told, monkeypatch):
    def examine(*_):
        raise error

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert result.output == f"{told}\n"


@pytest.mark.parametrize("error", [OSError("of a library"), ImportError("cannot import name 'x'")])
def test_an_error_of_ours_in_the_code_keeps_its_place(error, monkeypatch):
    monkeypatch.setattr("hml_lab.doctor.examine", lambda *_: (_ for _ in ()).throw(error))
    assert CliRunner().invoke(main, ["doctor"]).exception is error


def test_a_value_that_cannot_be_written_out_is_told_by_its_kind():
    """Python writes no number of so many digits; a stranger's object may write nothing at all."""

    class Mute:
        def __repr__(self):
            return 1 / 0

    assert quantities.told([10**5000]) == "a list"
    assert quantities.told(Mute()) == "a Mute"
    assert quantities.told("x" * 200) == f"'{'x' * 79}…"
