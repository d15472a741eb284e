"""What a record says of the code that made it."""

from __future__ import annotations

import os
import subprocess

import pytest

from hml_core.system import provenance


@pytest.fixture
def commit():
    """Ask anew: within a process the answer is kept."""
    return provenance.git_commit.__wrapped__


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of the package's form, in which the package takes itself to be; its commit."""
    for name in provenance.CODE:
        (tmp_path / name / "system").mkdir(parents=True)
        (tmp_path / name / "system" / "provenance.py").write_text("1\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.md").write_text("1\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*arguments: str) -> str:
        named = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
        done = subprocess.run(
            ["git", *named, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    place = tmp_path / "hml_core" / "system" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(place))
    return git("rev-parse", "HEAD")


def test_changed_code_is_told_and_changed_results_are_not(commit, checkout, tmp_path):
    (tmp_path / "results" / "table.md").write_text("2\n")
    assert commit() == checkout
    (tmp_path / "data_prep" / "system" / "provenance.py").write_text("2\n")
    assert commit() == f"{checkout}-dirty"


def test_another_repository_is_not_this_one_s(commit, checkout, tmp_path, monkeypatch):
    """One that the environment names, as in a hook; one in which this package is only installed."""
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", other], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert commit() == checkout
    installed = tmp_path / "lib" / "hml_core" / "system" / "provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("1\n")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert commit() is None


def test_outside_a_checkout_and_without_git_there_is_no_commit(commit, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "hml_core" / "system" / "p.py"))
    assert commit() is None
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_package_that_is_not_installed_is_said_to_be_so():
    assert provenance._version.__wrapped__("no-such-package-of-ours") == "not installed"
    assert set(provenance.versions()) == {"python", "hml-core", *provenance.PACKAGES}
