"""The command line: what a user types, and what a typing error gets."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import warnings

import pytest
from click.testing import CliRunner
from PIL import Image

from hml_core.system import interruptions
from hml_lab.cli import main

TRAIN = [
    "train",
    "--dataset",
    "digits",
    "--recipe",
    "hml1",
    "--delta",
    "10000",
    "--weighting",
    "CS",
]


def call(*arguments, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_without_the_installed_command_its_module_says_how_to_install_it(monkeypatch):
    """``python -m hml_core`` in a checkout; where the command is installed, it is that."""
    from hml_core import __main__ as module

    monkeypatch.setattr(sys, "argv", ["hml", "--version"])
    with pytest.raises(SystemExit) as done:
        module.main()
    assert done.value.code == 0
    monkeypatch.setattr(module, "entry_points", lambda **_: ())
    with pytest.raises(SystemExit, match="hml is not installed: pip install -e"):
        module.main()


def test_train_prints_labelled_selections_and_the_record(tmp_path):
    output = call(*TRAIN, "--epochs", 2, "--runs-root", tmp_path, "--quiet")
    assert "last epoch" in output
    assert "best epoch on validation" in output
    assert "optimistic: selected on the test set" in output
    (record,) = tmp_path.glob("digits-*")
    assert str(record) in output


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--runs-root", ""], ["train", "--data-root", ""], ["doctor", "--runs-root", ""],
        ["runs", "list", "--runs-root", ""], ["runs", "export", ""], ["report", "-o", ""],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_empty_path_is_not_the_current_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "expected a folder, got ''" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--imbalance-ratio", 0.05], "did you mean 20?"),
        (["--delta", -1], "`delta` > 0"),
        (["--weighting", "inner"], "is `weight_placement`"),
        (["--stage-ends", 99], "rise strictly"),
        (["--recipe", "hml9"], "`recipe` to be one of"),
        (["--dataset", "nope"], "`dataset` to be one of"),
        (["--device", "cuda:99"], "is not there"),
    ],
)
def test_train_refuses_in_one_line_and_writes_nothing(extra, message, tmp_path):
    output = call(*TRAIN, *extra, "--runs-root", tmp_path / "runs", code=1)
    assert output.startswith("Error: ")
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "runs").exists()


def test_the_command_of_the_authors_has_its_equivalent(tmp_path):
    """As docs/datasets.md writes it, on the CPU: it gets as far as the images, which are not here."""
    output = call(
        "train", "--dataset", "cifar100", "--data-root", tmp_path, "--imbalance-type", "exp",
        "--imbalance-ratio", 50, "--recipe", "hml1", "--delta", 10000, "--weighting", "CS",
        "--device", "cpu", "--protocol", "official", "--weight-placement", "inner",
        "--loss-scale", 10, "--runs-root", tmp_path / "runs", code=1,
    )  # fmt: skip
    assert f"run `hml prepare cifar100 --data-root {tmp_path}`" in output


def test_an_unknown_option_is_an_error():
    assert "No such option" in call(*TRAIN, "--learning-rat", 1, code=2)


def test_every_field_of_a_config_is_an_option():
    import dataclasses

    from hml_core.config import RunConfig

    text = call("train", "--help")
    for field in dataclasses.fields(RunConfig):
        assert f"--{field.name.replace('_', '-')}" in text


def test_run_refuses_unknown_parameters(tmp_path):
    notebook = "notebooks/01_hard_mining_loss.ipynb"
    output = call("run", notebook, "-p", "detla", "3.0", "-o", tmp_path / "x.ipynb", code=1)
    assert "has no parameter 'detla'. Did you mean 'delta'?" in output
    assert not (tmp_path / "x.ipynb").exists()


def test_run_reads_values_as_yaml(tmp_path, monkeypatch):
    from hml_lab import notebooks

    seen = {}

    def execute(notebook, given, output, timeout):
        seen.update(given)
        return output

    monkeypatch.setattr(notebooks, "execute", execute)
    (tmp_path / "p.yaml").write_text("epochs: 3\nseeds: [0, 1]\ndelta: 1e7\n")
    call(
        "run",
        "n.ipynb",
        "-f",
        tmp_path / "p.yaml",
        "-p",
        "epochs",
        5,
        "-p",
        "deltas",
        "[1e1, 1e4]",
        "-p",
        "flag",
        "true",
    )
    assert seen == {"epochs": 5, "seeds": [0, 1], "delta": 1e7, "deltas": [10.0, 1e4], "flag": True}
    (tmp_path / "bad.yaml").write_text("just text")
    assert "`name: value` lines" in call("run", "n.ipynb", "-f", tmp_path / "bad.yaml", code=1)


def test_doctor_says_what_works(tmp_path):
    output = call("doctor", "--runs-root", tmp_path)
    assert "torch " in output
    assert "Jupyter kernel python3" in output
    (tmp_path / "file").write_text("")
    output = call("doctor", "--runs-root", tmp_path / "file", code=1)
    assert "MISSING" in output
    assert "→" in output


def commands(command=main, name: tuple[str, ...] = ()):
    yield name, command
    for inner, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*name, inner))


def test_no_help_but_that_of_train_waits_for_torch():
    """Importing it takes seconds. `train` lists the registries, which hold what needs it."""
    asked = [name for name, _ in commands() if name != ("train",)]
    assert len(asked) > 15
    code = (
        "import sys; from click.testing import CliRunner; from hml_lab.cli import main\n"
        f"for name in {asked!r}:\n"
        "    assert CliRunner().invoke(main, [*name, '--help']).exit_code == 0, name\n"
        "    heavy = {'torch', 'pandas', 'scipy', 'sklearn', 'matplotlib'} & {*sys.modules}\n"
        "    assert not heavy, (name, heavy)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize(
    ("name", "command"),
    [*commands()],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_every_help_says_what_each_option_means(name, command):
    import click

    context = click.Context(command)
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{name}: {parameter.opts[0]}"
            assert parameter.help.rstrip()[-1] in ".]", f"{name}: {parameter.help!r}"
    assert command.help
    assert len(command.help.split()) > 3


def test_the_shell_completes_commands_and_options():
    from click.shell_completion import get_completion_class

    shell = get_completion_class("bash")(main, {}, "hml", "_HML_COMPLETE")
    assert "complete -o nosort -F _hml_completion hml" in shell.source()
    assert "doctor" in [item.value for item in shell.get_completions([], "doc")]
    assert "--engine" in [item.value for item in shell.get_completions(["sweep"], "--e")]
    assert "--recipe" in [item.value for item in shell.get_completions(["train"], "--rec")]
    values = [item.value for item in shell.get_completions(["train", "--recipe"], "balanced_s")]
    assert values == ["balanced_softmax"]


def test_help_names_what_may_be_chosen():
    text = " ".join(call("train", "--help").split())
    for names in ("One of digits, cifar10,", "One of ce, focal,", "One of linear, cosine."):
        assert names in text
    assert "hml_core.recipes.names()" not in text


def test_a_warning_is_a_line_in_our_voice(monkeypatch, tmp_path):
    import warnings

    import pandas as pd

    from hml_core import runs

    def load(root):
        warnings.warn("The run x is not known here.", stacklevel=2)
        return pd.DataFrame([{"run_id": "x", "last_balanced_accuracy": 0.5, "last_epoch": 3}])

    monkeypatch.setattr(runs, "load", load)
    result = CliRunner().invoke(main, ["runs", "list", "--runs-root", str(tmp_path)])
    assert result.stderr == "Note: The run x is not known here.\n"
    assert "1 finished run in " in result.stdout


@pytest.mark.parametrize("by", ["the shell", "a caller"])
def test_an_interrupted_command_ends_the_process_at_once(by, monkeypatch, capsys):
    """Not that of whoever calls it in Python, though."""

    def interrupt(*_):
        raise interruptions.Interrupted(signal.SIGTERM)

    def leave(status):
        raise RuntimeError(f"left with {status}")

    monkeypatch.setattr("hml_lab.doctor.examine", interrupt)
    monkeypatch.setattr("hml_core.system.ending.leave", leave)
    monkeypatch.setattr("sys.argv", ["hml", "doctor"])
    if by == "the shell":
        with pytest.raises(RuntimeError, match="left with 143"):
            main(prog_name="hml")
    else:
        with pytest.raises(SystemExit) as end:
            main(["doctor"])
        assert end.value.code == 143
    assert "Interrupted: stopped by SIGTERM." in capsys.readouterr().err


@pytest.mark.parametrize(("number", "told"), [(1, "odd 0."), (300, "odd 0 (300 such notes).")])
def test_what_pillow_finds_odd_is_told_once(number, told, monkeypatch):
    """A single TIFF may have thousands of tags that are none."""

    def examine(*_):
        for one in range(number):
            warnings.warn_explicit(f"odd {one}", UserWarning, "/lib/PIL/TiffImagePlugin.py", 900)
        warnings.warn("ours", stacklevel=1)
        return []

    monkeypatch.setattr("hml_lab.doctor.examine", examine)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(main, ["doctor"])
    assert result.output.splitlines() == [
        "Note: ours",
        f"Note: Pillow found something odd in image files: {told}",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["-p", "x", "1", "-p", "x", "2"], "The parameter 'x' was given twice"),
        (["-p", "imports", "3", "--import", "y.py"], "'imports' to be a list, got 3"),
        (["-p", "imports", "null", "--import", "y.py"], "'imports' to be a list, got None"),
    ],
)
def test_a_parameter_of_a_notebook_is_given_once_and_imports_are_a_list(given, told, tmp_path):
    (tmp_path / "any.ipynb").write_text("{}")
    result = CliRunner().invoke(main, ["run", str(tmp_path / "any.ipynb"), *given])
    assert result.exit_code == 1
    assert told in result.output


@pytest.mark.parametrize("name", ["isic2018", "isic2019", "inat2018"])
def test_no_archive_of_a_million_million_images_is_made_up(name, tmp_path):
    command = ["prepare", name, "--data-root", str(tmp_path), "--synthetic", "1000000000000"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "is not in the range 1<=x<=1000000" in result.output
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_none_is_named():
    result = CliRunner().invoke(main, ["prepare", "cifar10", "--data-root", "/dev/null"])
    assert result.exit_code == 1
    assert "Expected `data_root` to be a folder, got '/dev/null', which is none." in result.output


@pytest.mark.parametrize("name", ["isic2018", "inat2018"])
def test_made_up_images_that_have_no_room_name_their_folder(name, tmp_path, monkeypatch):
    """The system names no file where a disk is full."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    root = tmp_path / "images"
    told = CliRunner().invoke(
        main, ["prepare", name, "--data-root", str(root), "--synthetic", "160"]
    )
    assert told.exit_code == 1
    assert told.output == (
        f"Error: Cannot write the made-up images, '{root}': {os.strerror(errno.ENOSPC)}.\n"
    )
