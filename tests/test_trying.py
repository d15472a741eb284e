"""Trying is not publishing: no command of the Makefile, the pages, the batches or by default writes what
git knows. (What notebooks write is held by tests/notebooks/test_places.py.)"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pandas as pd
import pytest

from benchmarks import report
from hml_lab import places
from hml_lab.cli import main
from hml_lab.notebooks import batch
from hml_lab.notebooks.execution import is_done, record_of
from hml_lab.studies.verdict import stored

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BATCHES = sorted(
    path
    for path in (ROOT / "notebooks" / "batches").glob("*.yaml")
    if "\njobs:\n" in path.read_text()
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M)
# What their names say that they do: the lock's hashes are written for everybody.
PUBLISHING = {"hashes"}
# Where a command that a page shows may write without being asked to publish.
OUTPUT = re.compile(
    r"(?:-o|--output|--runs-root|--pack-root|--data-root|export|results_root|>)[ =]+(\S+)"
)


@pytest.fixture(scope="module")
def ignored(tmp_path_factory):
    """Whether git would see what is written at a path of the checkout."""
    folder = tmp_path_factory.mktemp("ignored")
    subprocess.run(["git", "init", "-q", folder], check=True)
    shutil.copy(ROOT / ".gitignore", folder)

    def is_ignored(path: str) -> bool:
        if path.startswith(("/", "~", "$")) or "://" in path:
            return True  # outside of the checkout
        command = ["git", "-C", folder, "check-ignore", "-q", "--no-index"]
        tried = (subprocess.run([*command, name], check=False) for name in (path, f"{path}/x"))
        return any(done.returncode == 0 for done in tried)

    assert is_ignored("my_results/tables/x.md")
    assert is_ignored("results/runs/x/config.json")
    assert not is_ignored("results/tables/x.md")
    assert not is_ignored("notebooks/00_quickstart.ipynb")
    return is_ignored


def make(*arguments: str, folder: Path = ROOT) -> str:
    command = ["make", "--no-print-directory", *arguments]
    environment = {**os.environ, "MAKEFLAGS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("target", sorted(set(TARGETS) - PUBLISHING))
def test_no_target_names_a_place_that_git_knows_as_its_output(target, tmp_path, ignored):
    plan = make("-n", target, "VENV=.venv", "CHROMIUM=chromium")
    assert "--publish" not in plan
    assert "results_root" not in plan
    for place in OUTPUT.findall(plan):
        place = place.strip("'\"&;")
        assert not place or re.match("2|5'|5$|/dev/", place) or ignored(place), f"{target}: {place}"
    assert not re.search(r"(?<![\w/])results/(?!runs\b)", plan)
    for made in (".coverage", ".venv-lowest/x", "build/coverage/index.html", "site/index.html"):
        assert ignored(made)


def checkout(folder: Path, **stubs: str) -> None:
    """The Makefile, with programs in the place of an environment (`VENV=.`)."""
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "bin").mkdir()
    for name, text in stubs.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "notebooks").mkdir()
    for name in ("a", "b"):
        (folder / "notebooks" / f"{name}.ipynb").write_text("ours")
    for name in ("requirements.lock", "pyproject.toml", ".installed"):  # in this order
        (folder / name).touch()


@pytest.mark.parametrize(
    "target", ["quickstart", "test", "test-slow", "chaos", "bench", "tables", "lab"]
)
def test_a_signal_that_make_passes_on_reaches_the_command(target, tmp_path):
    """No shell is between the two: it would end alone."""
    stub = "echo $PPID > parent; exit 7"
    checkout(tmp_path, hml=stub, python=stub, jupyter=stub)
    command = ["make", "--no-print-directory", target, "VENV=."]
    made = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    made.communicate()
    assert made.returncode == 2
    assert int((tmp_path / "parent").read_text()) == made.pid


def test_a_copy_for_the_lab_is_whole_or_none(tmp_path):
    """On a full disk, say: a later `make lab` would take half a copy for its owner's."""
    checkout(tmp_path, jupyter="echo opened")
    (tmp_path / "fake").mkdir()
    half = tmp_path / "fake" / "cp"
    half.write_text('#!/bin/sh\nprintf "ha" > "$2"; echo "No space left" >&2; exit 1\n')
    half.chmod(0o755)
    path = f"{tmp_path / 'fake'}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "--no-print-directory", "lab", "VENV=."]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "opened" not in done.stdout
    assert not list((tmp_path / "my_notebooks").iterdir())
    assert make("lab", "VENV=.", folder=tmp_path) == "opened\n"
    assert len(list((tmp_path / "my_notebooks").iterdir())) == 2


def test_the_lab_opens_copies_that_git_ignores_and_that_stay_their_owners(tmp_path, ignored):
    checkout(tmp_path, jupyter='printf "saved" > my_notebooks/a.ipynb; echo "$@"')
    told = make("lab", "VENV=.", folder=tmp_path)
    assert told.split() == ["lab", "--notebook-dir=.", "my_notebooks"]
    assert ignored("my_notebooks/a.ipynb")
    os.utime(tmp_path / "notebooks" / "b.ipynb", (2e9, 2e9))  # of a later version
    told = make("lab", "VENV=.", folder=tmp_path)
    assert "notebooks/b.ipynb is newer than your my_notebooks/b.ipynb" in told
    texts = {path.name: path.read_text() for path in (tmp_path / "my_notebooks").iterdir()}
    assert texts == {"a.ipynb": "saved", "b.ipynb": "ours"}
    assert (tmp_path / "notebooks" / "a.ipynb").read_text() == "ours"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_example_of_a_page_writes_what_git_knows(page, ignored):
    for block in re.findall(r"```(?:sh|python)\n(.*?)```", page.read_text(), re.S):
        assert "results_root results" not in block
        assert "--publish" not in block
        for line in block.splitlines():
            code = line.partition("  #")[0]
            reads = re.search(r"hml (?:runs (?:list|show|verify)|predict)", code)
            for place in OUTPUT.findall(code):
                place = place.strip("'\"`),")
                if not reads and place and "<" not in place:
                    assert ignored(place), f"{page.name}: {line}"


@pytest.mark.parametrize("path", BATCHES, ids=lambda path: path.stem)
def test_a_batch_publishes_only_when_it_is_told_to(path, monkeypatch, ignored):
    monkeypatch.chdir(ROOT)
    for job in batch.read(path):
        assert ignored(str(job.output))
        assert ignored(str(job.parameters.get("results_root", "my_results/")) + "/tables")
    for job in batch.read(path, publish=True):
        assert job.parameters["results_root"] == "results"
        assert job.output.parent == Path("results/notebooks")


@pytest.fixture(scope="module")
def publishing() -> dict[str, batch.Job]:
    """The jobs that write results/notebooks, by the names of their outputs."""
    with contextlib.chdir(ROOT):
        jobs = batch.read("notebooks/batches/results.yaml", publish=True)
    return {job.output.name: job for job in jobs}


def test_what_is_published_has_its_job(publishing):
    """One file writes all of results/notebooks again, by the command that docs/notebooks.md names."""
    published = {path.name for path in (ROOT / "results" / "notebooks").glob("*.ipynb")}
    assert publishing.keys() == published


@pytest.mark.parametrize(
    "name", [path.name for path in sorted((ROOT / "results" / "notebooks").glob("*.ipynb"))]
)
def test_what_is_published_was_made_of_the_notebook_beside_it(name, publishing, monkeypatch):
    """With these cells and parameters, by code that was committed: its record says so."""
    monkeypatch.chdir(ROOT)
    job = publishing[name]
    assert is_done(job.notebook, job.parameters, job.output)
    assert re.fullmatch("[0-9a-f]{40}", record_of(job.output)["git_commit"])


def test_each_number_of_the_readmes_table_is_in_the_table_that_it_leads_to():
    """And so are the ids of its runs, which are stored."""
    names, numbers = (
        {
            "CE": "CE",
            "deferred CS-CE over images + drop (control)": stored.CONTROL,
            "HML1 + drop": "HML1 + early drop",
            "HML1, no drop": "HML1",
            "HML1, authors' code": "HML1 as in the authors' code (official, inner, ×10)",
            "CE-DRW": "CE-DRW",
            "Balanced Softmax": "Balanced softmax",
            "LDAM-DRW": "LDAM-DRW",
        },
        {},
    )
    lines = (ROOT / "README.md").read_text().splitlines()
    (row,) = [number for number, line in enumerate(lines) if line.startswith("| [CIFAR-100-LT]")]
    head, cells = ([cell.strip() for cell in lines[n].split("|")[2:-1]] for n in (row - 2, row))
    numbers = dict(zip(head, cells, strict=True))
    seeds = [cell.strip() for cell in lines[row + 1].split("|")[1:-1]]
    assert seeds[0] == "seeds"
    sizes = dict(zip(head, map(int, seeds[1:]), strict=True))
    assert set(numbers) == set(names)
    address = re.search(r"\((.+?)\)", lines[row])[1]
    table = pd.read_csv(ROOT / address, index_col=0)
    for name, said in numbers.items():
        found = table.loc[names[name]]
        assert said == found["balanced_accuracy"].removesuffix(" *"), name
        ids = found["run ids"].split()
        assert len(ids) == sizes[name] == int(found["n"])
        assert all(
            (ROOT / "results/records/cifar100_lt_full" / one / "metrics.json").is_file()
            for one in ids
        )


def options(command: click.Command, name: str = "hml"):
    yield from ((name, parameter) for parameter in command.params)
    for inner, below in getattr(command, "commands", {}).items():
        yield from options(below, f"{name} {inner}")


def test_no_default_of_a_command_is_a_place_that_git_knows(ignored):
    checked = 0
    for name, parameter in options(main):
        told = re.search(
            r"\[default: ([a-z_]+(?:/[a-z]+)*)(?:[],]|/[A-Z])",
            getattr(parameter, "help", None) or "",
        )
        given = parameter.default if isinstance(parameter.default, Path) else None
        for place in filter(None, (given, told and told[1])):
            if isinstance(parameter.type, click.Path):
                checked += 1
                assert ignored(str(place)), f"{name} {parameter.name}: {place}"
    assert checked > 5
    for place in (places.DATA, places.RUNS, places.RESULTS, report.FOLDER):
        assert ignored(str(place))


def test_no_default_of_a_function_is_a_place_that_git_knows(ignored):
    checked = 0
    for path in (
        p
        for room in ("hml_core", "data_prep", "hml_lab", "benchmarks")
        for p in (ROOT / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            positional = [*node.args.posonlyargs, *node.args.args]
            given = [
                *zip(reversed(positional), reversed(node.args.defaults)),
                *zip(node.args.kwonlyargs, node.args.kw_defaults),
            ]
            for argument, default in given:
                named = re.search("root|output|folder|destination", argument.arg)
                if named and isinstance(default, ast.Constant) and default.value:
                    checked += 1
                    assert ignored(default.value), f"{path}: {node.name}"
    assert checked >= 4


def test_a_benchmark_writes_where_it_is_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark", "--output", str(tmp_path)])
    monkeypatch.setattr(report, "FOLDER", report.FOLDER)
    assert report.arguments("").output == tmp_path
    assert report.write("table", [{"what": "a"}]).parent == tmp_path
