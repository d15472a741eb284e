"""The promises of the installation: three files that agree, a Makefile that explains itself."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch"}
# An environment of its own (conda, a cluster's modules) may hold other versions than the lock.
OWN_ENVIRONMENT = (ROOT / ".venv" / ".installed").exists()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[Requirement]:
    """What `make` and conda install: the extras of people who develop apart, everything."""
    extras = project()["optional-dependencies"]
    parts = [project()["dependencies"], *(extras[name] for name in ("cluster", "lab", "test"))]
    return [Requirement(text) for part in parts for text in part]


def lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def test_conda_and_pip_ask_for_the_same_packages_and_bounds():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda["channels"] == ["conda-forge"]
    listed = {
        Requirement(text).name: str(Requirement(text).specifier) for text in conda["dependencies"]
    }
    assert listed.pop("python") == "<3.14,>=3.11"
    listed.pop("pip")
    wanted = {CONDA_NAMES.get(r.name, r.name): str(r.specifier) for r in requirements()}
    assert listed == wanted


def test_python_versions_agree():
    assert project()["requires-python"] == ">=3.11"


def test_the_lock_pins_every_direct_dependency_within_its_bounds():
    pins = lock()
    for requirement in requirements():
        pin = pins[canonicalize_name(requirement.name)]
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert requirement.specifier.contains(exact.version)


def test_the_lock_holds_exact_versions_and_no_addresses():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|@|--", text)
    pins = lock()
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in pins.values())
    assert str(pins["torch"].specifier) != "==2.13.0"
    gpu = [name for name in pins if re.match("nvidia|cuda|triton", name)]
    assert gpu
    assert all(str(pins[name].marker) == 'sys_platform == "linux"' for name in gpu)


def test_the_lock_holds_whatever_a_locked_package_needs():
    """setuptools, too, which pip's own list leaves out: with hashes, pip installs nothing unnamed."""
    pins = lock()
    pending, known = requirements(), set()
    while pending:
        wanted = pending.pop()
        name, extras = canonicalize_name(wanted.name), ("", *sorted(wanted.extras))
        if (name, extras) in known:
            continue
        known.add((name, extras))
        assert name in pins, f"{wanted} is needed"
        try:
            if not pins[name].specifier.contains(version(name).split("+")[0]):
                continue  # an environment of other versions
        except PackageNotFoundError:  # the CUDA libraries of other wheels of torch
            continue
        pending += [
            need
            for need in map(Requirement, requires(name) or ())
            if need.marker is None or any(need.marker.evaluate({"extra": one}) for one in extras)
        ]
    assert not OWN_ENVIRONMENT or len(known) > 100


def test_the_hashes_are_those_of_the_lock():
    """One file for each version, for one kind of machine; `make hashes` writes them anew."""
    lines = (ROOT / "requirements.hashes").read_text().splitlines()
    pins = [line.rpartition(" --hash=sha256:") for line in lines if line and line[0] != "#"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for _, _, digest in pins)
    assert [Requirement(pin) for pin, _, _ in pins] == [*lock().values()]


def test_hashes_are_asked_for_where_they_are_wanted(tmp_path):
    plan = make("-n", "install", f"VENV={tmp_path}/v", "HASHES=1").stdout
    assert "--require-hashes -r requirements.hashes" in plan


def test_the_lowest_versions_are_the_bounds(tmp_path):
    command = [sys.executable, ".ci/requirements.py", "lowest"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    constraints = {Requirement(line).name: Requirement(line) for line in told.splitlines()}
    for requirement in requirements():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert str(constraints[requirement.name].specifier) == f"=={bound.version}"
    assert not any(constraint.extras for constraint in constraints.values()), "pip refuses them"
    assert "-c" in make("-n", "lowest", f"VENV={tmp_path}/v").stdout


@pytest.fixture(scope="module")
def covered():
    return runpy.run_path(str(ROOT / ".ci" / "covered.py"))["too_little"]


def test_a_file_of_the_core_that_tests_reach_too_little_of_is_named(tmp_path, covered):
    report = tmp_path / "coverage.json"
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hml_core").rglob("*.py")}

    def told(**other: float) -> list[str]:
        percents = {**dict.fromkeys(files, 90.0), "hml_lab/cli.py": 10.0, **other}
        summaries = {
            name: {"summary": {"percent_covered": percent}}
            for name, percent in percents.items()
            if percent is not None
        }
        report.write_text(json.dumps({"files": summaries}))
        return covered(str(report))

    assert told() == [], "of what else there is nothing is asked"
    name, gone = "hml_core/sampling.py", "hml_core/metrics.py"
    assert told(**{name: 89.96, gone: None}) == [
        f"{name}: 89.96 % covered, expected at least 90 %",
        f"{gone}: not measured",
    ]
    plan = make("-n", "coverage", f"VENV={tmp_path}/v").stdout
    assert plan.index("json:build/coverage.json") < plan.index("covered.py build/coverage.json")


@pytest.mark.skipif(not OWN_ENVIRONMENT, reason="only in the environment that the Makefile made")
def test_what_is_installed_is_what_is_locked():
    for name in ("torch", "torchvision", "numpy", "pandas", "papermill", "scikit-learn"):
        (exact,) = lock()[name].specifier
        assert version(name).split("+")[0] == exact.version


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_make_alone_lists_the_targets_of_the_readme():
    listed = make().stdout
    readme = (ROOT / "README.md").read_text()
    for target in set(re.findall(r"make (quickstart|test|lab|install|doctor)\b", readme)):
        assert f"make {target}" in listed


def test_other_torch_wheels_come_from_the_index_given(tmp_path):
    plan = make("-n", "quickstart", f"VENV={tmp_path}/v", "TORCH_INDEX=https://example.invalid/cpu")
    assert "--no-deps --index-url https://example.invalid/cpu" in plan.stdout
    assert "nvidia" in plan.stdout.split("grep -vE")[1]
    plain = make("-n", "test", f"VENV={tmp_path}/v")
    assert "-r requirements.lock" in plain.stdout
    assert "index-url" not in plain.stdout


def test_an_old_python_is_refused_with_advice(tmp_path):
    fake = tmp_path / "python-old"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    fake.chmod(0o755)
    done = make("install", f"PYTHON={fake}", f"VENV={tmp_path}/v")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "Python 3.9.1" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "v").exists()


def test_ci_runs_the_test_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make test-slow"]
    assert "make test" in (ROOT / "README.md").read_text()


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_one_breath_with_one_picture():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert len(re.findall(r"!\[[^\]]+\]\([^)]+\)", readme)) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_leads_to_is_there(page):
    """Files, folders and pages; a page that the site makes has no file here."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for address in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"https?:|(executed|reference)/", address):
            assert (page.parent / address).exists(), f"{page.name} leads to {address}"


def test_every_page_is_listed_in_the_readme_and_on_the_site():
    readme = (ROOT / "README.md").read_text()
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {page.name for page in PAGES[1:]} - {"index.md"}
    assert pages <= set(re.findall(r"\(docs/(\w+\.md)\)", readme))
    assert pages <= {f"{name}.md" for name in re.findall(r"^.+<(\w+)>$", index, re.M)}


def test_commands_of_the_pages_exist():
    """Every `hml …` and `make …` in a block of a page is a command or a target."""
    from hml_lab.cli import main

    targets = set(re.findall(r"^make ([\w-]+)", make().stdout, re.M))
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
            for command in re.findall(r"^\.venv/bin/hml (\w+)", block, re.M):
                assert command in main.commands, f"{page.name}: hml {command}"
            for target in re.findall(r"^make ([a-z-]+)", block, re.M):
                assert target in targets, f"{page.name}: make {target}"
