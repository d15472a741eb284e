"""One's own methods reach every notebook that trains: the parameter `imports`, `hml run --import`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hml_core import recipes
from hml_core.errors import ConfigError
from hml_lab import notebooks
from hml_lab.notebooks import interface

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
TRAINING = sorted(
    path for path in FOLDER.glob("*.ipynb") if "engine" in notebooks.parameters(path)
)  # fmt: skip
WITH_RECIPES = [path for path in TRAINING if "recipes" in notebooks.parameters(path)]
MINE = """
from hml_core.recipes import Stage, register

@register(title="Mine", source="a file")
def mine_of_a_file():
    return (Stage("cross_entropy"),)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", recipes.RECIPES.copy())
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_methods_of_a_test.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    yield "own_methods_of_a_test.py"
    sys.modules.pop("own_methods_of_a_test", None)


@pytest.mark.parametrize("notebook", TRAINING, ids=lambda path: path.stem)
def test_every_notebook_that_trains_takes_imports(notebook):
    assert notebooks.parameters(notebook)["imports"].default == []


@pytest.mark.parametrize("notebook", WITH_RECIPES[:2], ids=lambda path: path.stem)
def test_a_recipe_of_ones_own_is_known_before_a_kernel_starts(notebook, mine):
    wanted = {"recipes": ["ce", "mine_of_a_file"]}
    with pytest.raises(ConfigError, match="got 'mine_of_a_file'"):
        notebooks.check_parameters(notebook, wanted)
    notebooks.check_parameters(notebook, {**wanted, "imports": [mine]})


def test_files_to_import_mean_the_folder_of_who_names_them(mine, tmp_path):
    given = interface.from_here({"imports": [mine, "a.module", "not_there.py"]})
    assert given["imports"] == [str(tmp_path / mine), "a.module", "not_there.py"]
