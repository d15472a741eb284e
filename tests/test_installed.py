"""What somebody gets who installs the package without its extras: losses, and runs that train."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TRAIN = """
from hml_core.config import RunConfig
from hml_core.losses import HardMiningLoss
from hml_core.trainer import fit
run = fit(RunConfig(dataset="digits", recipe="hml1", epochs=2), progress=False)
print(run.verify().run_id)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package as `pip wheel` builds it, from a copy of what is in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "hml_core", "data_prep", "hml_lab"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    build = [
        sys.executable,
        "-c",
        "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])",
    ]
    subprocess.run([*build, str(folder)], cwd=source, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and what it asks for without extras; the rest is not to be found.

    Nothing is downloaded: the installed copies of what the wheel requires are linked into it.
    """
    folder = tmp_path_factory.mktemp("environment")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    installed = [Path(place) for place in site.getsitepackages()]
    for name in _required():
        _link(name, installed, folder)
    return folder


def _required() -> set[str]:
    """Distributions that the wheel needs without extras, and what these need in turn."""
    from importlib.metadata import PackageNotFoundError, requires

    wanted, found = [Requirement(text) for text in PROJECT["dependencies"]], set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in found or not is_needed:
            continue
        try:
            wanted += [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # of another platform
        found.add(name)
    return found


def _link(name: str, installed: list[Path], target: Path) -> None:
    """Link the files of a distribution."""
    from importlib.metadata import files

    for top in {Path(str(file)).parts[0] for file in files(name) or ()} - {"..", "__pycache__"}:
        for place in installed:
            link = target / top
            if (place / top).exists() and not link.exists():
                link.symlink_to(place / top)


def run(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python that sees this environment alone, in an empty folder."""
    clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(environment), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.begun_first
def test_a_run_trains_without_extras_in_an_empty_folder(environment, tmp_path):
    for absent in ("matplotlib", "papermill", "distributed", "statsmodels", "jupyterlab"):
        assert run(environment, tmp_path, "-c", f"import {absent}").returncode != 0, absent
    done = run(environment, tmp_path, "-c", TRAIN)
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "results" / "runs").glob("*/metrics.json")
    assert record.parent.name == done.stdout.strip()


@pytest.mark.slow
def test_the_command_trains_and_says_what_is_missing_without_extras(environment, tmp_path):
    trained = run(
        environment,
        tmp_path,
        "-m",
        "hml_core",
        "train",
        "--dataset",
        "digits",
        "--epochs",
        "2",
        "--quiet",
    )
    assert trained.returncode == 0, trained.stderr
    assert "Balanced acc." in trained.stdout
    (tmp_path / "sweep.yaml").write_text("dataset: digits\nrecipe: ce\nepochs: 2\n")
    asked = run(environment, tmp_path, "-m", "hml_core", "sweep", "sweep.yaml", "-e", "dask")
    assert asked.returncode == 1
    assert "pip install 'hml-core[cluster]'" in asked.stderr
    noted = run(environment, tmp_path, "-m", "hml_core", "run", "any.ipynb")
    assert noted.returncode == 1
    assert "pip install 'hml-core[lab]'" in noted.stderr
