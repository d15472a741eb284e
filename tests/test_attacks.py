"""What an attacker of the input handling found: each case once broke something."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hml_core import engines, recipes, runs
from hml_core.config import RunConfig, grid
from hml_core.datasets import imagefolder
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.recipes import Stage
from hml_core.runs import Run, RunFolder
from hml_core.system import yaml_files
from hml_core.trainer import NonFiniteLossError, fit
from hml_lab.cli import main


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two synthetic classes of 4×4 noise: 8 training and 3 test images each."""
    random = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 3)):
        for name in "ab":
            folder = tmp_path / "tree" / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "tree"


def folder_config(**fields) -> RunConfig:
    return RunConfig(
        dataset="imagefolder", imbalance_ratio=2.0, model="resnet8", batch_size=8,
        precision="float32", **{"epochs": 2, **fields},
    )  # fmt: skip


def test_packing_never_deletes_a_folder_it_did_not_make(tree):
    other = tree.with_name("tree.packed")
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="was not made by packing"):
        imagefolder.pack(tree)
    assert (other / "precious.txt").read_text() == "mine"


def test_a_tree_can_be_named_by_a_dot(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert imagefolder.pack(".") == tree.with_name("tree.packed")


@pytest.mark.parametrize("change", ["test image", "unused training image", "class name"])
def test_any_change_of_the_data_is_noticed(change, tree, tmp_path):
    fit(folder_config(), data_root=tree, runs_root=tmp_path / "runs", progress=False)
    if change == "class name":
        for split in ("train", "test"):
            (tree / split / "a").rename(tree / split / "aa")
    else:
        parts = ("test", "a") if change == "test image" else ("train", "b")
        for path in (tree.joinpath(*parts)).iterdir():
            Image.fromarray(np.full((4, 4, 3), 3, np.uint8)).save(path)
    with pytest.raises(RunError, match="made from other images"):
        fit(folder_config(), data_root=tree, runs_root=tmp_path / "runs", progress=False)


def test_a_run_does_not_resume_on_other_images(tree, tmp_path, begin):
    config = folder_config(epochs=3)
    begin(config, data_root=tree, runs_root=tmp_path / "runs")
    for path in (tree / "train").glob("*/*"):
        Image.fromarray(np.full((4, 4, 3), 90, np.uint8)).save(path)
    with pytest.warns(UserWarning, match="begun with other images"):
        run = fit(config, data_root=tree, runs_root=tmp_path / "runs", progress=False)
    assert len(run.history) == 3


def test_a_recipe_that_changed_under_its_name_is_another_run():
    def first():
        return (Stage("cross_entropy"),)

    def second():
        return (Stage("focal", {}, "CS"),)

    ids = []
    try:
        for build in (first, second):
            build.__name__ = "attacked"
            recipes.register(title="t", source="s")(build)
            ids.append(RunConfig(recipe="attacked").run_id)
    finally:
        del recipes.RECIPES["attacked"]
    assert ids[0] != ids[1]


def test_a_diverging_last_step_fails_the_run_and_not_the_sweep(tmp_path):
    bad = RunConfig(epochs=1, batch_size=10**6, learning_rate=1e37, warmup_epochs=0)
    with pytest.raises(NonFiniteLossError, match=r"logits .* non-finite"):
        fit(bad, runs_root=tmp_path, progress=False)
    frame = engines.sweep([bad, RunConfig(epochs=1)], runs_root=tmp_path, progress=False)
    assert frame["status"].tolist() == ["failed", "done"]


@pytest.mark.parametrize("content", [None, "", "epoch,validation_balanced_accuracy\n1,0.99\n"])
def test_a_damaged_history_is_never_believed(content, tiny, tmp_path):
    run = fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    fit(tiny(epochs=1, seed=1), runs_root=tmp_path, progress=False)
    (run.path / "history.csv").unlink()
    if content is not None:
        (run.path / "history.csv").write_text(content)
    with pytest.warns(UserWarning, match="left out"):
        assert len(runs.load(tmp_path)) == 1
    rows = engines.sweep([run.config], runs_root=tmp_path, train=False)
    assert rows["status"].tolist() == ["missing"]


def test_a_copied_run_does_not_count_twice(tiny, tmp_path):
    run = fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    shutil.copytree(run.path, tmp_path / "copy-of-it")
    with pytest.warns(UserWarning, match="copy-of-it is damaged"):
        assert len(runs.load(tmp_path)) == 1
    with pytest.raises(RunError):
        Run(tmp_path / "copy-of-it")


def test_an_unusable_checkpoint_is_set_aside(tiny, tmp_path):
    config = tiny(epochs=1)
    fit(config, runs_root=tmp_path, progress=False)
    folder = RunFolder(tmp_path, config)
    manifest = (folder.path / "manifest.json").read_bytes()
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    (folder.path / "manifest.json").write_bytes(manifest)
    folder.checkpoint({"epoch": 1, "weights": torch.zeros(3)})
    with pytest.warns(UserWarning, match="unusable"):
        assert fit(config, runs_root=tmp_path, progress=False).verify()


@pytest.mark.parametrize("content", ["[]", "null", '{"error": "e", "config": [1]}'])
def test_odd_failure_records_are_skipped(content, tmp_path):
    (tmp_path / "some-run").mkdir()
    (tmp_path / "some-run" / "failed.json").write_text(content)
    assert runs.failures(tmp_path).empty


def test_sixteen_bit_images_are_refused(tree):
    ramp = (np.arange(16, dtype=np.uint16) * 4000).reshape(4, 4)
    Image.fromarray(ramp).save(tree / "train" / "a" / "3.png")
    with pytest.raises(DataError, match=r"a/3\.png .*more than 8 bits"):
        imagefolder.pack(tree)


def test_unreadable_first_images_and_dangling_links_are_named(tree):
    (tree / "train" / "a" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/0\.png does not decode"):
        imagefolder.pack(tree)
    (tree / "train" / "a" / "0.png").unlink()
    (tree / "train" / "a" / "0.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"a/0\.png cannot be read"):
        imagefolder.pack(tree)


@pytest.mark.parametrize("damage", ["missing", "cut", "zeros"])
def test_a_damaged_pack_is_made_again(damage, tree):
    folder = imagefolder.pack(tree)
    path = folder / "train_images.npy"
    before = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            before[:100] if damage == "cut" else before[:128] + bytes(len(before) - 128)
        )
    imagefolder.pack(tree)
    assert path.read_bytes() == before


def test_the_output_never_overwrites_the_notebook(tmp_path):
    notebook = tmp_path / "n.ipynb"
    shutil.copy("notebooks/01_hard_mining_loss.ipynb", notebook)
    before = notebook.read_bytes()
    for output, message in ((notebook, "would overwrite"), (tmp_path, "is a folder")):
        result = CliRunner().invoke(main, ["run", str(notebook), "-o", str(output)])
        assert result.exit_code == 1
        assert message in result.output
    assert notebook.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e4", 1e4), ("'1e4'", "1e4"), ("'2018'", "2018"), ("2020-01-01", "2020-01-01"),
     ("[1e1, 3]", [10.0, 3]), ("true", True), ("-2.5E-3", -2.5e-3), ("1e", "1e")],
)  # fmt: skip
def test_yaml_numbers_are_numbers_and_quoted_text_is_text(text, value):
    found = yaml_files.value(text, "it")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RunConfig(learning_rate=10**400), "`learning_rate` to be smaller"),
        (lambda: RunConfig(epochs=10**30), "`epochs` ≤"),
        (lambda: RunConfig.from_json("[]"), "as a mapping"),
        (lambda: RunConfig.from_json("{"), "JSON of a RunConfig"),
        (lambda: RunConfig.from_dict(None), "as a mapping"),
        (lambda: grid(recipe="ce", hard_mining={"epochs": 7}), "`hard_mining` to hold delta"),
    ],
)
def test_odd_configs_are_errors_of_ours(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_minus_zero_is_zero():
    assert RunConfig(weight_decay=-0.0).run_id == RunConfig(weight_decay=0.0).run_id
