"""Notebooks: a common check over all of them, strict parameters, headless execution."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from data_prep.isic import archive, images, synthetic
from data_prep.isic.prepare import prepare
from hml_lab import notebooks
from hml_lab.notebooks import ParameterError
from tests.notebooks.helpers import make

pytestmark = pytest.mark.usefixtures("forked_kernels")
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
_HOLDS_ITSELF: list = []
_HOLDS_ITSELF.append(_HOLDS_ITSELF)
ALL = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])

TINY_NETWORK = {
    "model": "resnet8",
    "weights": "none",
    "frozen": 0.0,
    "image_size": 32,
    "batch_size": 32,
    "seeds": [0, 1],
    "epochs": 4,
    "early_stopping": 2,
}
# Small values of the parameters: the notebooks themselves hold the real ones.
SMALL = {
    "00_quickstart": {"recipes": ["ce", "hml1", "ldam_drw"], "seeds": [0, 1], "epochs": 6},
    "01_hard_mining_loss": {"deltas": [10.0, 1e4]},
    "02_cifar_lt": {
        "dataset": "digits",
        "recipes": ["ce", "hml1"],
        "seeds": [0, 1],
        "imbalance_ratios": [20.0, 10.0],
        "epochs": 4,
        "model": "resnet8",
        "evaluate_every": 2,
    },
    "03_bag_of_tricks": {
        "recipes": ["ce", "hml2"],
        "tricks": ["mixup", "label smoothing 0.1"],
        "seeds": [0, 1],
        "epochs": 4,
    },
    "04_inaturalist2018": {
        "recipes": ["ce", "hml1"],
        "seeds": [0, 1],
        "epochs": 2,
        "model": "resnet8",
        "image_size": 32,
        "batch_size": 32,
        "micro_batch_size": 16,
    },
    "05_isic2019": {"recipes": ["ce", "hml1"], **TINY_NETWORK},
    "06_isic2018": {"recipes": ["ce", "dhml1"], "switch_patience": 1, **TINY_NETWORK},
    "08_own_images": {
        "recipes": ["ce", "hml1"],
        "seeds": [0, 1],
        "epochs": 2,
        "size": 16,
        "drawn": 120,
    },
    "09_own_methods": {"seeds": [0], "epochs": 2},
    "07_audit": {
        "dataset": "digits",
        "imbalance_ratio": 20.0,
        "seeds": [0, 1],
        "deltas": [1e2],
        "epochs": 4,
        "model": "resnet8",
    },
}


def test_there_are_notebooks():
    assert {path.stem for path in ALL} >= {"00_quickstart", "01_hard_mining_loss"}
    assert set(SMALL) == {path.stem for path in ALL}


@every_notebook
def test_a_notebook_is_thin_clean_and_parameterised(path):
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert content.cells[0].cell_type == "markdown"
    assert content.cells[0].source.startswith("# ")
    assert "**Makes:**" in content.cells[0].source
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "stored output"
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for cell in code:
        if cell is not tagged[0]:
            assert len(cell.source.splitlines()) <= 15, cell.source
        assert not re.search(r"if\s+TEST", cell.source)


@every_notebook
def test_every_parameter_is_a_literal_with_an_explanation(path):
    found = notebooks.parameters(path)
    assert found
    assert all(parameter.comment for parameter in found.values())


@pytest.fixture
def prepared(request, tmp_path):
    """Synthetic images, prepared; only where the notebook reads such."""
    name = request.getfixturevalue("path").stem[3:]
    if name == "inaturalist2018":
        return {"data_root": str(request.getfixturevalue("miniature"))}
    if name not in ("isic2018", "isic2019"):
        return {}
    root = synthetic.make(name, tmp_path / "archive", 120, side=64, official=28)
    found = archive.read(name, root)
    prepare(found, root / "prepared", images.Options(size=32), workers=1, progress=False)
    return {"data_root": str(root)}


FIRST = (
    "00_quickstart",
    "08_own_images",
)  # the others have their cells, with other methods and images


@pytest.mark.begun_first
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem not in FIRST))
        for path in ALL
    ],
)
def test_a_notebook_executes_headlessly(path, prepared, tmp_path):
    """With small values of its parameters; its output names no absolute path and shows figures."""
    output = tmp_path / "out" / path.name
    given = {**SMALL[path.stem], **prepared, "results_root": str(tmp_path / "results")}
    draws_itself = path.stem == "08_own_images"
    if draws_itself:
        given["data_root"] = str(tmp_path / "drawn")
    if "runs_root" in notebooks.parameters(path):
        given["runs_root"] = str(tmp_path / "results" / "runs")
    notebooks.execute(path, given, output, show_progress=False)
    content = nbformat.read(output, as_version=4)
    outputs = [o for cell in content.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    shown = [str(o.get("data", {}).get("text/html", "")) for o in outputs]
    assert [html for html in shown if html.count("<table") > html.count("<caption")] == []
    saved = list((tmp_path / "results" / "figures").glob("*.png"))
    assert len(pictures) >= len(saved) >= 1
    shown = output.read_text().replace(str(tmp_path), "")
    assert ("SYNTHETIC" in shown) == (bool(prepared) or draws_itself)
    assert str(FOLDER.parent) not in shown
    assert str(Path.home()) not in shown
    assert "Warning" not in shown


def test_a_figure_notebook_draws_stored_results_and_lists_what_is_missing(tmp_path):
    """train=False: nothing is trained, published records are enough, the missing runs are named."""
    from hml_core import engines, runs
    from hml_core.config import grid

    small = SMALL["02_cifar_lt"]
    configs = grid(
        recipe=["ce", "hml1"], seed=[0, 1], dataset="digits", imbalance_ratio=20.0, epochs=4,
        model="resnet8", evaluate_every=2,
    )  # fmt: skip
    engines.sweep(configs[:-1], runs_root=tmp_path / "runs", progress=False)
    runs.export(tmp_path / "runs", tmp_path / "records")
    given = {
        **small, "imbalance_ratios": [20.0], "train": False, "runs_root": str(tmp_path / "records"),
        "results_root": str(tmp_path / "results"),
    }  # fmt: skip
    output = tmp_path / "out.ipynb"
    notebooks.execute(FOLDER / "02_cifar_lt.ipynb", given, output, show_progress=False)
    text = output.read_text()
    assert "1 of 4 runs is not there" in text
    assert configs[-1].run_id in text
    assert len(list((tmp_path / "records").glob("*/metrics.json"))) == 3


PARAMETERS = """
rate = 0.1  # a float
epochs = 3  # an int
names = ["a"]  # a list of text
flag = False  # a switch
anything = None  # whatever
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"epoch": 3},
            r"no parameter 'epoch'. Did you mean 'epochs'\? It has: rate, epochs, names",
        ),
        ({"epochs": 2.5}, "'epochs' to be int like its default 3, got 2.5 \\(float\\)"),
        ({"epochs": "3"}, "got '3' \\(str\\)"),
        ({"epochs": True}, "got True \\(bool\\)"),
        ({"flag": 1}, "'flag' to be bool"),
        ({"names": ("a", "b")}, "is a tuple, which papermill would pass on as text"),
        ({"names": "(a, b)"}, "'names' to be list .* Write it as a list"),
        ({"names": [1]}, "'names\\[…\\]' to be str"),
        ({"anything": (1, 2)}, "is a tuple"),
        # What would be another value in the executed notebook, or none:
        ({"anything": {"a": [(1, 2)]}}, "'a'.*is a tuple"),
        ({"anything": [{1: 2}]}, "text for the names in 'anything.*, got 1"),
        ({"anything": {"a": {1, 2}}}, r"got \{1, 2\} \(set\) for .*'a'"),
        ({"anything": b"a"}, r"got b'a' \(bytes\)"),
        ({"anything": Path("a")}, "Path"),
        ({"anything": np.arange(2)}, r"\(ndarray\)"),
        ({"anything": 10**5000}, "at most 1024 bits, got a number of 16,610 bits"),
        ({"anything": 2**1024}, "at most 1024 bits, got a number of 1,025 bits"),
        ({"names": 10**5000}, "got a number of 16,610 bits"),
        ({"names": [10**5000]}, "got a number of 16,610 bits"),
        ({"anything": HTTPStatus.OK}, r"\(HTTPStatus\)"),
        ({"anything": "\ud83d"}, "half of a character"),
        ({"names": ["\ud83d"]}, "half of a character"),
        ({"anything": {"\ud83d": 1}}, "half of a character"),
        ({"anything": _HOLDS_ITSELF}, "holds itself"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(given, message, tmp_path):
    path = make(tmp_path, PARAMETERS)
    with pytest.raises(ParameterError, match=message):
        notebooks.execute(path, given, tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()


def test_right_parameters_are_accepted(tmp_path):
    path = make(tmp_path, PARAMETERS)
    notebooks.check_parameters(
        path, {"rate": 1, "epochs": 5, "names": ["x", "y"], "flag": True, "anything": [1]}
    )
    held, longest = {"a": [None, {"b": 1}]}, 2**1024 - 1
    for value in (None, True, np.float64(2), float("nan"), "😀", [[], {}], held, longest, -longest):
        notebooks.check_parameters(path, {"anything": value})


def test_files_that_are_no_notebooks_are_named(tmp_path):
    with pytest.raises(ParameterError, match="There is no notebook"):
        notebooks.parameters(tmp_path / "missing.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    with pytest.raises(ParameterError, match="is not a Jupyter notebook"):
        notebooks.parameters(tmp_path / "text.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1")]), tmp_path / "plain.ipynb")
    with pytest.raises(ParameterError, match="no cell tagged 'parameters'"):
        notebooks.parameters(tmp_path / "plain.ipynb")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(metadata={"papermill": 7}), "metadata papermill is 7"),
        (
            lambda content: content["cells"][1].update(metadata={"papermill": [7]}),
            "cell 2: its metadata: papermill is [7]",
        ),
        (
            lambda content: content["cells"][1].update(metadata={"tags": 7}),
            "cell 2: its metadata: tags is 7",
        ),
        (lambda content: content["cells"][1].update(source=7), "cell 2: its source is 7"),
        (lambda content: content["cells"][1].update(outputs=7), "is not a Jupyter notebook: "),
        (
            lambda content: content["cells"][1].update(source="print('\ud83d')"),
            "Cell 2 of .* holds half of a character",
        ),
        (
            lambda content: content["cells"][0].update(source=f"x = {'-' * 20_000}1"),
            "lines of literals: it is nested too deeply",
        ),
    ],
)
def test_a_notebook_with_a_part_of_another_kind_is_refused(change, said, tmp_path):
    path = make(tmp_path, "x = 1  # a number", "print(x)")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    pattern = said if "*" in said else re.escape(said)
    with pytest.raises(ParameterError, match=pattern):
        notebooks.execute(path, output=tmp_path / "out.ipynb", show_progress=False)


def test_what_a_notebook_lacks_and_nobody_reads_is_not_asked_for(tmp_path):
    """As other programs and people write them: names of kernels without a title, outputs without more."""
    path = make(tmp_path, "x = 1  # a number", "print(x)")
    content = json.loads(path.read_text())
    content["metadata"] = {"kernelspec": {"name": "python3"}, "colab": {"provenance": []}}
    content["cells"][1]["outputs"] = [{"output_type": "display_data", "data": {"text/plain": "1"}}]
    path.write_text(json.dumps(content))
    done = notebooks.execute(path, output=tmp_path / "out.ipynb", show_progress=False)
    assert nbformat.read(done, 4).metadata["hml_core"]["status"] == "done"


def test_the_slider_moves_the_curve(monkeypatch):
    """In JupyterLab the δ slider redraws; headlessly there is a figure instead."""
    from IPython.display import Image

    monkeypatch.setenv("HML_HEADLESS", "1")
    assert isinstance(notebooks.delta_slider(1e4), Image)
    monkeypatch.setattr("hml_core.system.progress.is_headless", lambda: False)
    slider, image = notebooks.delta_slider(1e4).children
    before = image.value
    slider.value = 1e2
    assert image.value != before
    slider.value = 1e4
    assert image.value == before
