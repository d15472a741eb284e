"""The house: three storeys, no arrow back up, no circle, and a loss without the rest of it."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STOREYS = ("hml_core", "data_prep", "hml_lab")  # from the ground up
ABOVE = {"tests", "benchmarks"}


def modules() -> dict[str, Path]:
    """Every module of the three storeys with its file."""
    found = {}
    for storey in STOREYS:
        for path in sorted((ROOT / storey).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """What a file imports anywhere in it: modules of ours by their own names, others by their first."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in named}
    return {name if name in known else name.partition(".")[0] for name in found}


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, known) for name, path in known.items()}


def test_imports_point_one_way():
    for name, imported in graph().items():
        height = STOREYS.index(name.partition(".")[0])
        for other in imported:
            top = other.partition(".")[0]
            assert top not in ABOVE, f"{name} imports {other}"
            assert top not in STOREYS[height + 1 :], f"{name} imports {other}, a storey above it"


def test_imports_have_no_circle():
    """Not even inside functions and for type checkers."""
    known = modules()
    edges = {name: imported & set(known) for name, imported in graph().items()}
    graphlib.TopologicalSorter(edges).prepare()  # raises CycleError, which names the modules


def test_rooms_of_the_ground_floor_have_no_circle_either():
    """A room is a folder or a file of it: what a room needs stands below it."""
    edges: dict[str, set[str]] = {}
    for name, imported in graph().items():
        room = ".".join(name.split(".")[:2])
        others = {
            ".".join(other.split(".")[:2]) for other in imported if other.startswith("hml_core.")
        }
        if name.startswith("hml_core."):
            edges.setdefault(room, set()).update(others - {room})
    graphlib.TopologicalSorter(edges).prepare()


def test_the_ground_floor_is_seen_at_a_glance():
    entries = [path for path in (ROOT / "hml_core").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 18, sorted(path.name for path in entries)


@pytest.mark.parametrize(
    "steps",
    [
        {
            "import hml_lab.cli": ("torch", "pandas", "papermill"),
            "import hml_lab.notebooks.execution, hml_lab.notebooks.batch": (
                "torch",
                "matplotlib",
                "lark",
            ),
        },
        {  # each brings more than the one before
            "from hml_core.losses import HardMiningLoss": (
                "torchvision",
                "pandas",
                "scipy",
                "click",
            ),
            "import hml_core.trainer, hml_core.engines": ("matplotlib", "distributed", "papermill"),
            "import hml_lab.train, hml_lab.tables": ("matplotlib", "statsmodels", "IPython"),
            "import hml_lab.experiment": ("nbformat", "sklearn", "distributed"),  # in every kernel
        },
    ],
    ids=["command line", "library"],
)
def test_what_is_wanted_brings_nothing_else(steps):
    listed = "import sys\n" + "".join(
        f"{statement}\nprint([name for name in {without} if name in sys.modules])\n"
        for statement, without in steps.items()
    )
    done = subprocess.run(
        [sys.executable, "-c", listed], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert dict(zip(steps, done.stdout.splitlines(), strict=True)) == dict.fromkeys(steps, "[]")
