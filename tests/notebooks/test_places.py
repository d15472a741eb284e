"""Trying is not publishing: what a user runs goes to a folder of his own, wherever he starts it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from hml_lab import notebooks, places
from hml_lab.cli import main
from hml_lab.notebooks import execution
from hml_lab.notebooks.interface import from_here
from tests import forks

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
# Those whose experiment is one cell of values; 09 makes its own of classes that it defines before.
TRAINED = sorted(
    path
    for path in FOLDER.glob("*.ipynb")
    if {"epochs", "name"} & set(notebooks.parameters(path))
    and not path.stem.startswith(("01", "09"))
)
TINY = {"recipes": ["ce", "hml1"], "seeds": [0, 1], "epochs": 2}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, repository) -> Path:
    """A copy of what git sees of a checkout, as far as a notebook could overwrite it."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "hml_lab").mkdir()
    for file in (".gitignore", "hml_lab/__init__.py"):
        shutil.copy(repository / file, root / file)
    for folder in ("notebooks", "results/tables", "results/figures", "results/notebooks"):
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "*.log", "*_summary.csv")
        shutil.copytree(repository / folder, root / folder, ignore=ignored)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "all")
    return root


def by_papermill(checkout: Path, folder: Path, monkeypatch) -> None:
    """As `papermill NOTEBOOK OUT -p …` does, whose kernel sits where the shell is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import papermill

        monkeypatch.chdir(folder)
        papermill.execute_notebook(
            str(checkout / "notebooks" / "00_quickstart.ipynb"),
            str(checkout / "my_results" / "out.ipynb"),
            parameters=TINY,
            kernel_name="python3",
            language="python",
            progress_bar=False,
        )


def by_hml(checkout: Path, folder: Path, monkeypatch) -> None:
    from click.testing import CliRunner

    monkeypatch.chdir(folder)
    given = [part for name, value in TINY.items() for part in ("-p", name, str(value))]
    notebook = str(checkout / "notebooks" / "00_quickstart.ipynb")
    result = CliRunner().invoke(main, ["run", notebook, *given])
    assert result.exit_code == 0, result.output
    assert (checkout / "my_results" / "notebooks" / "00_quickstart.ipynb").is_file()


@pytest.mark.begun_first
@pytest.mark.parametrize(
    ("start", "below"),
    [
        pytest.param(by_papermill, ".", id="papermill, root", marks=pytest.mark.slow),
        pytest.param(by_papermill, "notebooks", id="papermill or JupyterLab, notebooks"),
        pytest.param(by_hml, "..", id="hml, elsewhere", marks=pytest.mark.slow),
    ],
)
def test_what_is_tried_leaves_what_is_published_alone(start, below, checkout, monkeypatch):
    """The runs are trained by the first of these; the others find them, for all mean one folder."""
    mine = checkout / "my_results"
    shutil.rmtree(mine / "tables", ignore_errors=True)
    mine.mkdir(exist_ok=True)
    beside = set(checkout.parent.iterdir())
    with contextlib.nullcontext() if below == "." else forks.kernels():  # one kernel is started
        start(checkout, checkout / below, monkeypatch)
    assert git(checkout, "status", "--porcelain") == ""
    assert "HML1" in (mine / "tables" / "quickstart.md").read_text()
    assert (mine / "figures" / "quickstart_per_class.png").is_file()
    assert len(list((checkout / "results" / "runs").glob("digits-*"))) == 4  # where commands look
    assert set(checkout.parent.iterdir()) == beside
    assert set(checkout.iterdir()) == {mine} | {
        checkout / name for name in (".git", ".gitignore", "hml_lab", "notebooks", "results")
    }


def test_folders_are_those_of_the_checkout_wherever_one_stands(checkout, tmp_path, monkeypatch):
    for folder in (checkout, checkout / "notebooks", checkout / "results" / "tables"):
        monkeypatch.chdir(folder)
        assert places.place("") == places.place(None) == checkout / "my_results"
        assert places.place("", places.RUNS) == checkout / "results" / "runs"
        assert places.place("data", places.DATA) == folder / "data"
    monkeypatch.chdir(tmp_path)  # outside: that of the package
    assert places.checkout() == FOLDER.parent


def test_paths_given_to_a_command_mean_the_folder_of_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b3.pth").touch()
    given = {
        "data_root": "data", "runs_root": "../runs", "results_root": "", "weights": "b3.pth",
        "engine": "slurm:my.yaml", "dataset": "data", "recipes": ["ce"], "source": "photos",
        "csv": "",
    }  # fmt: skip
    assert from_here(given) == {
        **given,
        "data_root": str(tmp_path / "data"),
        "runs_root": str(tmp_path.parent / "runs"),
        "source": str(tmp_path / "photos"),
        "weights": str(tmp_path / "b3.pth"),
        "engine": f"slurm:{tmp_path / 'my.yaml'}",
    }
    assert from_here({"weights": "imagenet", "data_root": "/data"}) == {
        "weights": "imagenet", "data_root": "/data",
    }  # fmt: skip


@pytest.fixture
def no_kernel(monkeypatch):
    def start(*arguments) -> None:
        raise AssertionError("a kernel was started")

    monkeypatch.setattr(execution, "_execute_once", start)


@pytest.mark.parametrize("path", TRAINED, ids=[path.stem for path in TRAINED])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "Expected `epochs`"),
        ({"model": "resnet9"}, "Expected `model` to be one of"),
        ({"recipes": ["hml9"]}, "Expected `recipe` to be one of .*, got 'hml9'"),
        ({"delta": -1}, "Expected `delta` > 0, got -1"),
        ({"engine": "fast"}, "Expected `engine` to be one of serial, .*, got 'fast'"),
        ({"name": "a/b"}, "the beginning of a file's name, got 'a/b'"),
        ({"seeds": []}, "."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_values_are_refused_before_a_kernel_starts(
    given, message, path, no_kernel, tmp_path
):
    """Of every notebook that trains: its experiment is made here first, from the same cell."""
    if not set(given) <= set(notebooks.parameters(path)):
        pytest.skip("not a parameter of this notebook")
    before = {file: file.stat().st_mtime_ns for file in FOLDER.parent.glob("my_results/*/*")}
    with pytest.raises(notebooks.ParameterError, match=message):
        notebooks.execute(path, given, tmp_path / "out.ipynb")
    assert list(tmp_path.iterdir()) == []
    assert before == {
        file: file.stat().st_mtime_ns for file in FOLDER.parent.glob("my_results/*/*")
    }


def test_published_results_are_asked_for_by_name(repository):
    """No default writes below results/ (for batches and commands, see tests/test_trying.py)."""
    for path in FOLDER.glob("*.ipynb"):
        assert notebooks.parameters(path)["results_root"].default == ""
        assert execution.default_output(path).is_relative_to(repository / "my_results")
