"""Predictions of image files: the table, what cannot be read, the command, and the exported program."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from data_prep import output as of_archives
from data_prep.folder import prepare as of_folder
from data_prep.inaturalist import prepare as of_inaturalist
from hml_core import datasets, models
from hml_core.config import RunConfig
from hml_core.datasets import prepared
from hml_core.errors import ConfigError, DeviceError, RunError
from hml_core.models import prediction
from hml_core.runs import Run
from hml_core.trainer import fit
from hml_lab import places
from hml_lab.cli import main

COLOURS = {"blue": (40, 40, 250), "green": (40, 250, 40), "red": (250, 40, 40)}


def square(colour: str, size: tuple[int, int] = (16, 16), seed: int = 0) -> Image.Image:
    """Noise with a square of a colour in its middle, of any size."""
    pixels = np.random.default_rng(seed).integers(0, 99, (16, 16, 3), np.uint8)
    pixels[4:12, 4:12] = COLOURS[colour]
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A network that tells three colours apart, by its average of the weights."""
    root = tmp_path_factory.mktemp("colours")
    for split, number in (("train", 12), ("test", 4)):
        for name in COLOURS:
            (root / "tree" / split / name).mkdir(parents=True)
            for index in range(number):
                image = square(name, seed=100 * len(split) + index)
                image.save(root / "tree" / split / name / f"{index}.png")
    config = RunConfig(
        dataset="imagefolder", recipe="balanced_softmax", model="resnet8", epochs=8, batch_size=12,
        imbalance_ratio=1.0, learning_rate=0.05, ema_decay=0.5, precision="float32",
    )  # fmt: skip
    return fit(
        config,
        data_root=root / "tree",
        runs_root=root / "runs",
        progress=False,
        keep_weights="last",
    )


@pytest.fixture
def photographs(tmp_path):
    """Of other sizes and formats than those that the network was trained on, and what lies about."""
    folder = tmp_path / "photographs"
    (folder / "more" / ".thumbnails").mkdir(parents=True)
    (folder / "@eaDir").mkdir()
    square("red", (300, 200)).save(folder / "a.jpg", quality=95)
    square("green", (64, 64)).convert("RGBA").save(folder / "b.PNG")
    square("blue", (20, 90)).save(folder / "more" / "c.webp", lossless=True)
    for hidden in (folder / "more" / ".thumbnails", folder / "@eaDir"):
        square("red").save(hidden / "x.png")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:900])
    (folder / "notes.txt").write_text("mine")
    (folder / "archive").write_bytes(b"")
    return folder


def call(*arguments, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


# The table ------------------------------------------------------------------------------------------


def test_photographs_of_any_size_are_told_apart_and_the_unreadable_named(run, photographs):
    table = prediction.predict(run.model(), [photographs], top=2, progress=False)
    assert table.columns.tolist() == [
        "file", "class", "probability", "class_2", "probability_2",
        "p(blue)", "p(green)", "p(red)", "error",
    ]  # fmt: skip
    names = [os.path.relpath(file, photographs) for file in table["file"]]
    assert names == ["a.jpg", "b.PNG", "broken.jpg", os.path.join("more", "c.webp")]
    good = table[table["error"] == ""]
    assert good["class"].tolist() == ["red", "green", "blue"]
    each = good[["p(blue)", "p(green)", "p(red)"]].to_numpy(dtype=float)
    np.testing.assert_allclose(each.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.sort(each, axis=1)[:, ::-1][:, 0], good["probability"])
    np.testing.assert_allclose(np.sort(each, axis=1)[:, ::-1][:, 1], good["probability_2"])
    (broken,) = table.loc[table["error"] != ""].to_dict("records")
    assert broken["error"].startswith("does not decode")
    assert pd.isna(broken["class"])
    assert pd.isna(broken["p(red)"])


def test_test_images_get_the_probabilities_of_the_record(run):
    test = run.path.parents[1] / "tree" / "test"
    table = prediction.predict(run.model(), [test], progress=False)
    wanted = torch.from_numpy(run.test_logits()).softmax(1).numpy()
    assert (table[[f"p({name})" for name in COLOURS]].to_numpy() == wanted).all()
    assert table["class"].tolist() == [run.class_names[one] for one in run.test_classes()]


def test_files_come_in_the_order_given_and_once(run, photographs):
    given = [photographs / "b.PNG", photographs / "a.jpg", photographs, photographs / "b.PNG"]
    found = prediction.read_paths(given)
    assert [path.name for path in found.files] == ["b.PNG", "a.jpg", "broken.jpg", "c.webp"]
    assert found.left_out == ("1 .txt", "1 without a suffix")


def test_links_to_folders_lead_nowhere(photographs, tmp_path):
    (photographs / "loop").symlink_to(photographs)
    assert len(prediction.read_paths([photographs]).files) == 4


def test_more_files_than_are_held_in_memory_at_a_time(run, photographs, monkeypatch):
    monkeypatch.setattr(prediction, "AT_A_TIME", 2)
    parts = prediction.predict(run.model(), [photographs], progress=False)
    monkeypatch.undo()
    whole = prediction.predict(run.model(), [photographs], progress=False)
    pd.testing.assert_frame_equal(parts, whole, rtol=1e-5)


def test_grey_and_colour_come_to_the_channels_of_the_network(tiny, tmp_path):
    """Digits are grey, 8 × 8: a coloured photograph is made that."""
    config = tiny(epochs=2)
    model = fit(config, runs_root=tmp_path, progress=False, keep_weights="last").model()
    image = datasets.load(config).test.images[0, ..., 0]
    Image.fromarray(image).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([image] * 3, axis=-1)).save(tmp_path / "colour.png")
    table = prediction.predict(
        model, [tmp_path / "grey.png", tmp_path / "colour.png"], progress=False
    )
    first, second = table[[f"p({digit})" for digit in range(10)]].to_numpy()
    np.testing.assert_allclose(first, second, rtol=1e-5)
    expected = model.probabilities(image[None, None])
    np.testing.assert_allclose(first, expected[0], rtol=1e-5)


# Bad input --------------------------------------------------------------------------------------------


def test_what_cannot_be_looked_at_is_refused(run, photographs, tmp_path):
    model = run.model()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.jp2").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"found none in .*empty'?, but 1 \.jp2"):
        prediction.predict(model, [tmp_path / "empty"], progress=False)
    with pytest.raises(ConfigError, match="found none in nothing"):
        prediction.predict(model, [], progress=False)
    for top in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="`top` to be a whole number ≥ 1"):
            prediction.predict(model, [photographs], top=top, progress=False)
    with pytest.raises(DeviceError, match="is not there"):
        prediction.predict(model, [photographs], device="cuda:99", progress=False)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 16, 16, 3), np.uint8),
        np.zeros((2, 3, 16, 16), np.float32),
        np.zeros((3, 16, 16), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
    ],
)
def test_arrays_of_another_form_are_refused(images, run):
    with pytest.raises(ConfigError, match=r"Expected images uint8 of shape \(N, 3, 16, 16\)"):
        run.model().probabilities(images)


def test_no_array_gives_no_row(run):
    assert run.model().probabilities(np.zeros((0, 3, 16, 16), np.uint8)).shape == (0, 3)


def test_files_of_all_kinds_of_damage_end_nothing(run, photographs, tmp_path):
    os.mkfifo(photographs / "pipe.jpg")  # without a writer: who waits for one waits for ever
    (photographs / "none.jpg").symlink_to(tmp_path / "gone.jpg")
    (photographs / "postscript.png").write_bytes(b"%!PS-Adobe-3.0\n")
    (photographs / "empty.png").write_bytes(b"")
    Image.fromarray(np.zeros((1, 9, 3), np.uint8)).save(photographs / "line.png")
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(photographs / "deep.png")
    table = prediction.predict(run.model(), [photographs, tmp_path / "no.png"], progress=False)
    told = {os.path.basename(row.file): row.error for row in table.itertuples() if row.error}
    expected = {
        "pipe.jpg": "no regular file", "none.jpg": "No such file", "postscript.png": "no JPEG",
        "empty.png": "it is empty", "line.png": "sides of at least 2", "deep.png": "8 bits",
        "broken.jpg": "does not decode", "no.png": "No such file",
    }  # fmt: skip
    assert told.keys() == expected.keys()
    assert all(text in told[name] for name, text in expected.items()), told
    assert table.loc[table["error"] == "", "class"].tolist() == ["red", "green", "blue"]


# The command ------------------------------------------------------------------------------------------


def test_the_command_writes_the_table_and_names_what_it_could_not_read(run, photographs, tmp_path):
    output = tmp_path / "predictions.csv"
    output.write_text("of last week")
    said = call("predict", run.path, photographs, "-o", output, "--top", 1, "--quiet").output
    assert "Predicted: 3 of 4 images, 1 could not be read" in said
    assert f"{photographs / 'broken.jpg'} does not decode" in said
    assert "Not looked at in the folders: 1 .txt, 1 without a suffix." in said
    written = pd.read_csv(output, keep_default_na=False)
    table = prediction.predict(run.model(), [photographs], top=1, progress=False)
    assert written.columns.tolist() == table.columns.tolist()
    for name in ("file", "error"):
        assert written[name].tolist() == table[name].tolist()
    for name in ("probability", "p(red)"):
        found = pd.to_numeric(written[name])
        np.testing.assert_allclose(found, table[name].astype(float), rtol=1e-5)
    assert [path.name for path in tmp_path.iterdir()].count("predictions.csv") == 1
    assert not list(tmp_path.glob(".predictions*"))


def test_the_command_takes_an_id_and_writes_to_standard_output(run, photographs):
    where = ("--runs-root", run.path.parent)
    result = call("predict", run.run_id[-8:], photographs, "--no-every-class", *where)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["class"] for row in rows] == ["red", "green", "", "blue"]
    assert "p(red)" not in rows[0]
    assert "Predicted: 3 of 4" in result.stderr


def test_a_folder_may_be_named_as_shells_complete_it(run, photographs):
    assert "Predicted: 3 of 4" in call("predict", run.path, f"{photographs}/").stderr


def test_a_link_is_not_replaced_by_the_table(run, photographs, tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("real.csv")
    result = call("predict", run.path, photographs, "-o", tmp_path / "link.csv", code=1)
    assert "is a link to 'real.csv': name that file itself" in result.stderr
    assert (tmp_path / "link.csv").read_text() == "old"
    kept = run.path / "metrics.json"
    before = kept.read_bytes()
    result = call("predict", run.path, photographs, "-o", kept, code=1)
    assert f"that is a file of the run record '{run.run_id}'" in result.stderr
    assert kept.read_bytes() == before


def test_names_that_are_not_utf_8_are_written_as_they_are(run, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        square("green").save(os.fsdecode(name), format="PNG")
    except OSError:
        pytest.skip("this file system has no such names")
    output = tmp_path / "predictions.csv"
    call("predict", run.path, os.fsdecode(name), "-o", output, "--quiet")
    assert name in output.read_bytes()


@pytest.mark.parametrize("name", ["x\ry.png", "x\ny.png", 'x"y.png'])
def test_each_image_has_one_row_whatever_its_name(name, run, tmp_path):
    try:
        square("green").save(tmp_path / name)
    except OSError:
        pytest.skip("this file system has no such names")
    output = tmp_path / "predictions.csv"
    call("predict", run.path, tmp_path / name, "-o", output, "--quiet")
    with output.open(newline="") as lines:
        assert [row[0] for row in csv.reader(lines)] == ["file", str(tmp_path / name)]
    assert pd.read_csv(output)["file"].tolist() == [str(tmp_path / name)]


def test_names_of_files_do_nothing_to_a_terminal(run, tmp_path):
    odd = tmp_path / "\x1b[2Jx\nError: y\x9b.png"
    odd.write_bytes(b"no image")
    said = call("predict", run.path, odd, "--quiet", code=1).stderr
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert "\nError: y" not in said
    assert r"\x1b[2Jx\nError: y\x9b.png" in said


def test_an_error_leaves_the_table_of_before(run, photographs, tmp_path, monkeypatch):
    output = tmp_path / "predictions.csv"
    output.write_text("of last week")
    (tmp_path / ".predictions.csv.ab_d3f9h.new").touch()  # of one that was killed

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hml_core.models.prediction.csv.writer", full)
    said = call("predict", run.path, photographs, "-o", output, "--quiet", code=1).output
    assert "No space left on device" in said
    assert output.read_text() == "of last week"
    assert not list(tmp_path.glob(".predictions*"))


def test_what_the_network_computes_no_number_for_has_no_class(run, photographs):
    model = run.model()
    for tensor in model.network.parameters():
        tensor.data *= 1e30
    (first, *_) = prediction.predictions(model, [photographs / "a.jpg"], progress=False)
    assert first.probabilities is None
    assert first.error == "the network computes no number for it"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that fails as it is read")
def test_weights_that_cannot_be_read_now_are_named(run, photographs, tmp_path):
    copied = shutil.copytree(run.path, tmp_path / run.run_id)
    (copied / "weights.safetensors").unlink()
    (copied / "weights.safetensors").symlink_to("/proc/self/mem")
    said = call("predict", copied, photographs, code=1).output
    assert f"'{copied}/weights.safetensors': Input/output error." in said


def test_no_readable_file_is_an_error_with_its_table(run, tmp_path):
    output = tmp_path / "predictions.csv"
    said = call("predict", run.path, tmp_path / "no.jpg", "-o", output, "--quiet", code=1).output
    assert "None of the files could be read" in said
    assert "No such file" in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "photographs", "-o", "."], "to be a file"),
        (["", "photographs"], "Expected `RUN` to be a path, got ''"),
        (["RUN", "photographs", "-o", "none/x.csv"], "there is no folder 'none'"),
        (
            ["RUN", "photographs/a.jpg", "-o", "photographs/a.jpg"],
            "is one of the files that are read",
        ),
        (["RUN", "photographs", "--top", "0"], "`top` to be a whole number"),
        (["RUN", "photographs/archive", "--device", "cuda:99"], "is not there"),
        (
            ["nobody", "photographs", "--runs-root", "."],
            "No finished run in '.' is called 'nobody'",
        ),
        (["photographs", "photographs"], "photographs is damaged"),
        (["RUN", "photographs/more/.thumbnails/none"], "None of the files"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments, message, run, photographs, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    before = (photographs / "a.jpg").read_bytes()
    given = [str(run.path) if one == "RUN" else one for one in arguments]
    result = call("predict", *given, code=1)
    assert message in result.output
    assert "Traceback" not in result.output
    assert (photographs / "a.jpg").read_bytes() == before


def test_a_folder_that_nobody_may_look_into_is_named(run, photographs, monkeypatch):
    """And no file there that the user never spoke of."""
    output = photographs.parent / "closed" / "x.csv"
    output.parent.mkdir()

    def closed(path, *_, **__):
        if Path(path).parent == output.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *_, **__)

    stat = os.stat
    monkeypatch.setattr(os, "stat", closed)
    result = call("predict", str(run.path), str(photographs), "-o", str(output), code=1)
    assert "prepared.json" not in result.output
    assert str(output) in result.output


@pytest.mark.parametrize("name", ["mine.py", "M/manifest.csv", "M/prepared.json", "M/a/b/x.png"])
def test_the_table_takes_the_place_of_nothing_that_was_made(
    name, run, photographs, tmp_path, monkeypatch
):
    """One's own code, a prepared data set; beside them it may lie."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "M" / "a" / "b").mkdir(parents=True)
    for one in ("mine.py", f"M/{prepared.DESCRIPTION}", "M/manifest.csv", "M/a/b/x.png"):
        (tmp_path / one).write_text("")
    given = [run.path, photographs, "--quiet", "--import", tmp_path / "mine.py"]
    assert places.PREPARED == prepared.DESCRIPTION
    tables = {*of_folder.TABLES, *of_inaturalist.TABLES}
    assert {*places.TABLES} == {prepared.DESCRIPTION, of_archives.JOURNAL, *tables}
    call("predict", *given, "-o", tmp_path / name, code=1)
    assert (tmp_path / name).read_text() == ""
    for _ in range(2):  # a second time it is our own
        call("predict", *given, "-o", tmp_path / "M" / "table.csv")
    sys.modules.pop("mine", None)


def test_a_run_without_weights_says_how_to_get_them(run, photographs, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / run.run_id)
    (folder / "weights.safetensors").unlink()
    said = call("predict", folder, photographs, code=1).output
    assert "has lost its weights" in said
    assert "--keep-weights last" in said


def test_three_commands_from_training_to_a_table(photographs, run, tmp_path):
    """As a stranger types them."""
    tree, root = run.path.parents[1] / "tree", tmp_path / "runs"
    train = ["train", "--dataset", "imagefolder", "--data-root", tree, "--model", "resnet8"]
    train += ["--epochs", 1, "--batch-size", 12, "--imbalance-ratio", 1, "--runs-root", root]
    call(*train, "--quiet")
    said = call(*train, "--quiet", "--keep-weights", "last", code=1).output
    assert "`retrain` (`--retrain`)" in said
    assert "set aside" in call(*train, "--quiet", "--keep-weights", "last", "--retrain").output
    (made,) = [path for path in root.iterdir() if not path.name.startswith(".")]
    call("predict", made, photographs, "-o", tmp_path / "out.csv", "--quiet")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 4
    call("runs", "verify", "--runs-root", root)


def test_a_sweep_says_what_lacks_weights_before_it_trains(tmp_path):
    plan, root = tmp_path / "plan.yaml", tmp_path / "runs"
    plan.write_text("recipe: ce\ndataset: digits\nepochs: 1\nbatch_size: 64\nseed: [0, 1]\n")
    where = ("--runs-root", root, "--keep-weights", "best")
    fit(
        RunConfig(dataset="digits", epochs=1, batch_size=64, seed=0), runs_root=root, progress=False
    )
    lines = call("sweep", plan, *where, "--dry-run").output.splitlines()
    assert lines[0].startswith("no weights (--retrain)")
    assert lines[1].startswith("to do")
    assert "1 epochs for 1 runs" in lines[2]
    assert "2 epochs for 2 runs" in call("sweep", plan, *where, "--dry-run", "--retrain").output
    assert "1 lack the weights" in call("sweep", plan, *where, code=1).output
    said = call("sweep", plan, *where, "--retrain").output
    assert "set aside" in said
    assert "2 done" in said
    assert lines != call("sweep", plan, *where, "--dry-run").output.splitlines()


# The exported program -----------------------------------------------------------------------------------

EXPORTED = {
    "cosine, τ": {"head": "cosine", "post_hoc_tau": 1.0},
    "lws, average": {"recipe": "lws", "ema_decay": 0.9, "epochs": 10},
    "ncm": {"recipe": "ncm"},
    "tau_norm": {"recipe": "tau_norm"},
}


@pytest.mark.begun_first
@pytest.mark.parametrize("fields", EXPORTED.values(), ids=EXPORTED)
def test_the_exported_program_computes_the_same(fields, tiny, tmp_path):
    config = tiny(**{"epochs": 2, **fields})
    model = fit(config, runs_root=tmp_path, progress=False, keep_weights="last").model()
    model.export(tmp_path / "model.pt2")
    names = {"class_names.txt": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=names).module()
    images = torch.from_numpy(datasets.load(config).test.images.transpose(0, 3, 1, 2).copy())
    for number in (1, 3, 100):
        with torch.inference_mode():
            found, wanted = program(images[:number]), model(images[:number])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    recorded = model.logits(images[:100])
    torch.testing.assert_close(found, recorded, rtol=1e-3, atol=1e-3)
    assert names["class_names.txt"].split("\n") == [str(digit) for digit in range(10)]


@pytest.mark.slow
def test_an_imagenet_network_is_exported_too(tmp_path):
    """Of files, with dropout, and the preprocessing of files."""
    from hml_core.models import trained

    network = models.build("efficientnet_b0", 3).eval()
    described = {
        "model": "efficientnet_b0", "class_names": ["a", "b", "c"], "logit_scale": 1.0,
        "precision": "float32", "evaluated_at_a_time": 2,
        "preprocessing": {
            "size": [32, 32], "channels": 3, "resizing": "middle", "shorter": 37,
            "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "in_memory": False,
        },
    }  # fmt: skip
    tensors, described = trained.kept(network, network.classifier, None, described)
    model = trained.rebuilt(tensors, described)
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    program = model.export(tmp_path / "model.pt2").module()
    with torch.inference_mode():
        torch.testing.assert_close(program(images), model(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.logits(images), model(images), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported_or_written_is_said(run, tmp_path, monkeypatch):
    model = run.model()
    with pytest.raises(RunError, match="Cannot write"):
        model.export(tmp_path / "none" / "model.pt2")

    def peculiar(x):
        return torch.zeros(int(x.sum()), 3)  # a shape that depends on pixels

    monkeypatch.setattr(model.network, "features", peculiar)
    with pytest.raises(RunError, match=r"torch\.export does not follow the network 'resnet8'"):
        model.export()
