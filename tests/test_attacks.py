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


def test_parameters_of_several_files_are_all_taken(tmp_path, monkeypatch):
    """The last file counted, and the others were dropped without a word."""
    from hml_lab import notebooks

    given = []
    monkeypatch.setattr(notebooks, "execute", lambda _, values, *a, **b: given.append(values))
    for name, text in {"a": "x: 5\ny: 6", "b": "z: 7", "c": "y: 8"}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "any.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    files = {"ab": ["-f", "a.yaml", "-f", "b.yaml"], "ac": ["-f", "a.yaml", "-f", "c.yaml"]}
    done = CliRunner().invoke(main, ["run", "any.ipynb", *files["ab"], "-p", "y", "9"])
    assert done.exit_code == 0, done.output
    assert given == [{"x": 5, "y": 9, "z": 7}]
    done = CliRunner().invoke(main, ["run", "any.ipynb", *files["ac"]])
    assert done.exit_code == 1
    assert "The parameter 'y' stands in two files" in done.output


def test_a_folder_that_is_no_finished_run_is_said_to_be_that(tiny, begin, tmp_path):
    """One that was killed was called damaged, as was any folder."""
    config = tiny(epochs=4)
    begin(config, runs_root=tmp_path)
    for named, told in (
        (tmp_path / config.run_id, "is not finished: the command that began it goes on with it"),
        (tmp_path, r"is damaged, or no run record at all: metrics\.json is not there"),
        (Path("/"), "The run / is damaged, or no run record at all"),
    ):
        with pytest.raises(RunError, match=told):
            Run(named)
    run = fit(tiny(epochs=1), runs_root=tmp_path, progress=False)
    (run.path / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"is damaged: metrics\.json is not there"):
        Run(run.path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--threads", "-1"], "Expected `threads` to be a whole number"),
        (
            ["-e", "dask:http://x:1"],
            "No Dask scheduler answers at 'http://x:1': expected tcp://HOST:PORT",
        ),
        (["-e", "dask:tcp://"], "No Dask scheduler answers at"),
        (["-e", "dask:tcp://x:99999"], "No Dask scheduler answers at"),
        (["-e", "dask:tcp://x:nan"], "No Dask scheduler answers at"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_dry_run_refuses_what_the_sweep_does(given, told, dry, tmp_path):
    (tmp_path / "sweep.yaml").write_text("epochs: 1\n")
    call = ["sweep", str(tmp_path / "sweep.yaml"), "--runs-root", str(tmp_path / "runs"), *given]
    done = CliRunner().invoke(main, [*call, "--dry-run"] if dry else call)
    assert done.exit_code == 1
    assert told in done.output
    assert not (tmp_path / "runs").exists()


def test_a_sweep_without_a_recipe_has_that_of_a_config(tmp_path):
    (tmp_path / "sweep.yaml").write_text("epochs: [1, 2]\n")
    call = ["sweep", str(tmp_path / "sweep.yaml"), "--runs-root", str(tmp_path), "--dry-run"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 0, done.output
    assert done.output.count("-ce-s0-") == 2


def test_a_title_that_is_no_text_is_one_message(tmp_path):
    done = CliRunner().invoke(main, ["report", "--title", "M\udcfcnchen", "-o", str(tmp_path)])
    assert done.exit_code == 1
    assert "Expected the title to be text in UTF-8" in done.output


@pytest.mark.parametrize("where", ["train/a", "."])
def test_a_pack_does_not_lie_among_the_images(where, tree):
    with pytest.raises(DataError, match="lies in the folder of the images"):
        imagefolder.pack(tree, pack_root=tree / where, progress=False)
    assert not list(tree.rglob("*.packed"))


@pytest.mark.parametrize("content", [b"imagenet\n", b"\0" * 100, b"\x80\x04\x8c\x05hello\x94."])
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_no_checkpoint_is_one_message_without_torch_s_advice(content, tmp_path):
    from hml_core.system import states

    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(RunError) as error:
        states.weights(tmp_path / "weights.pth")
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)


def test_an_export_to_a_place_with_other_things_in_it_leaves_nothing_half_done(tiny, tmp_path):
    from hml_core.runs import exporting

    fit(tiny(epochs=1), runs_root=tmp_path / "runs", progress=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifests").write_text("somebody's")
    with pytest.raises(
        RunError, match=r"'.*manifests' is no folder, .* expected another destination"
    ):
        exporting.export(tmp_path / "runs", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifests"]


def test_a_number_of_many_digits_is_one_message_in_our_words():
    with pytest.raises(ConfigError, match="expected numbers of at most") as error:
        yaml_files.value("1" * 5000, "the parameter")
    assert "sys." not in str(error.value)
