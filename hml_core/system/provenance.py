"""What made a result: the versions of packages and the git commit, told without importing any of them."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hml_core import __version__
from hml_core.system import asked

PATIENCE_S = 10.0  # with git
REPOSITORY = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_REPLACE_REF_BASE",
    "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_IMPLICIT_WORK_TREE",
)  # fmt: skip
CODE = ("hml_core", "data_prep")
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scikit-learn", "scipy", "statsmodels")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the packages that results depend on."""
    found = {package: _version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "hml-core": __version__, **found}


@cache
def _version(package: str) -> str:
    """Read once: a package's description is a long text, and each run asks for seven."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def git_commit() -> str | None:
    """Commit of this package's checkout, with "-dirty" where its code differs from it; else None.

    Results are tracked, too, and change while they are made: they do not count.
    """
    # An environment within somebody's checkout is no part of it.
    if _git("ls-files", "--error-unmatch", "--", str(Path(__file__).resolve())) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str | None:
    """Output of git in this package's folder, or None where it fails.

    Whatever other repository the environment names, as it does in git's hooks.
    """
    root = Path(__file__).resolve().parents[2]
    told = {name: value for name, value in os.environ.items() if name not in REPOSITORY}
    try:
        said = asked.ask(["git", "-C", str(root), *arguments], PATIENCE_S, environment=told)
    except (OSError, ValueError):
        return None
    return None if said.status else said.out.strip()
