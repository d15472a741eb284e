"""A part of ISIC 2019 without the rest: prepared, labelled wherever it shows, never taken for all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from data_prep.isic import archive, images, splits, synthetic
from data_prep.isic.prepare import prepare
from hml_core import datasets, runs
from hml_core.config import RunConfig, grids
from hml_core.datasets import isic
from hml_core.errors import DataError
from hml_core.trainer import fit
from hml_lab import plots, tables
from hml_lab.cli import main
from hml_lab.experiment import Experiment
from hml_lab.notes import data_note
from hml_lab.studies import dermoscopy
from tests.notebooks.helpers import asked_by

pytestmark = pytest.mark.usefixtures("in_this_process")
LAYOUT = archive.ARCHIVES["isic2019"]
PART = LAYOUT.parts["HAM10000"]
SMALL = images.Options(size=16, format="png", constancy="none")


def keep_part(root: Path, folder: str = PART.images[0]) -> Path:
    """Of a made-up archive of 2019, the images of about half of its lesions, as ISIC 2018 ships them."""
    path = root / LAYOUT.lesions
    table = pd.read_csv(path, dtype=str)
    number = table["lesion_id"].str.removeprefix("BCN_").astype(float)
    ours = number.mod(2) == 0
    table["lesion_id"] = table["lesion_id"].mask(ours, "HAM_" + table["lesion_id"].str[4:])
    table.to_csv(path, index=False)
    (root / LAYOUT.images).rename(root / folder)
    for image in table["image"][~ours]:
        (root / folder / f"{image}.jpg").unlink()
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The part, prepared; no test changes it."""
    folder = tmp_path_factory.mktemp("isic") / "archive"
    keep_part(synthetic.make("isic2019", folder, 160, side=16))
    found = archive.read("isic2019", folder)
    prepare(found, folder / "prepared", SMALL, workers=1, progress=False)
    return folder


def tiny(**fields) -> RunConfig:
    small = {"model": "resnet8", "weights": "none", "frozen": 0.0, "image_size": 16, "epochs": 2}
    return RunConfig(**{"dataset": "isic2019_ham", "batch_size": 32, **small, **fields})


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return fit(tiny(), data_root=root, runs_root=folder, progress=False)


def test_the_part_is_what_its_lesions_say(root):
    found = archive.read("isic2019", root)
    listed = pd.read_csv(root / LAYOUT.ground_truth)
    assert found.records["lesion_id"].str.startswith("HAM_").all()
    assert all(path.is_file() for path in found.records["path"])
    assert 0 < len(found.records) < len(listed)
    assert found.part["listed"]["NV"] == listed["NV"].sum()
    said = f"{PART.title}, {len(found.records):,} of {len(listed):,} images"
    assert found.notes[0].startswith(said)
    assert found.left_out == {}


@pytest.mark.parametrize("folder", PART.images)
def test_the_part_is_found_under_each_of_its_names(folder, tmp_path):
    whole = synthetic.make("isic2019", tmp_path / "a", 160, side=8)
    found = archive.read("isic2019", keep_part(whole, folder))
    assert found.part["name"] == "HAM10000"
    assert found.folders == (whole / folder,)


def test_images_of_2018_are_found_as_their_authors_ship_them(tmp_path):
    """HAM10000's own archives: half of the images in each of two folders."""
    layout = archive.ARCHIVES["isic2018"]
    whole = synthetic.make("isic2018", tmp_path / "a", 70, side=8)
    (whole / layout.images).rename(whole / layout.also[0])
    (whole / layout.also[1]).mkdir()
    for path in sorted((whole / layout.also[0]).iterdir())[::2]:
        path.rename(whole / layout.also[1] / path.name)
    found = archive.read("isic2018", whole)
    assert len(found.folders) == 2
    assert not found.part
    assert all(path.is_file() for path in found.records["path"])


def test_an_image_of_the_part_that_is_missing_is_named(root, tmp_path):
    own = shutil.copytree(root, tmp_path / "own", ignore=shutil.ignore_patterns("prepared"))
    gone = archive.read("isic2019", own).records["path"].iloc[0]
    gone.unlink()
    made = prepare(
        archive.read("isic2019", own), tmp_path / "out", SMALL, workers=1, progress=False
    )
    assert made.rejected["file"].tolist() == [gone.name]


def test_the_whole_archive_is_no_part(tmp_path):
    whole = synthetic.make("isic2019", tmp_path / "a", 160, side=8)
    (whole / PART.images[0]).mkdir()  # both are there
    assert archive.read("isic2019", whole).part == {}


def test_a_lesion_table_that_does_not_know_the_part_is_refused(tmp_path):
    whole = synthetic.make("isic2019", tmp_path / "a", 160, side=8)
    (whole / LAYOUT.images).rename(whole / PART.images[0])
    with pytest.raises(DataError, match="no lesion of it: expected ids that begin with 'HAM_'"):
        archive.read("isic2019", whole)


def test_the_message_says_that_a_part_will_do(tmp_path):
    with pytest.raises(DataError, match=f"{PART.images[0]} in the place of the images gives the"):
        archive.read("isic2019", tmp_path)


def test_two_classes_of_the_part_are_trained_on_and_split_by_lesion(root):
    found = datasets.load(tiny(), root)
    assert found.class_names == ("melanocytic nevus", "melanoma")
    manifest = pd.read_csv(root / "prepared" / "manifest.csv")
    rows = manifest[manifest["class"].isin(["MEL", "NV"])]
    assert sum(map(len, (found.train, found.validation, found.test))) == len(rows)
    listed = pd.read_csv(root / LAYOUT.ground_truth)[["MEL", "NV"]].to_numpy().sum()
    assert found.images_note.startswith(f"{PART.title}, {len(rows)} of ")
    assert f"({int(listed)} of these classes)" in found.images_note
    assert manifest.groupby("lesion_id")["split"].nunique().max() == 1
    assert set(found.test_clusters) < {f"lesion {name}" for name in rows["lesion_id"]}


def test_a_part_is_never_taken_for_the_whole_nor_the_whole_for_a_part(root, tmp_path):
    for name in ("isic2019", "isic2019_all"):
        with pytest.raises(DataError, match=r"holds the HAM10000 part .* data set 'isic2019_ham'"):
            datasets.load(tiny(dataset=name), root)
    whole = synthetic.make("isic2019", tmp_path / "a", 80, side=8)
    found = archive.read("isic2019", whole)
    prepare(found, whole / "prepared", images.Options(size=16), workers=1, progress=False)
    assert "part" not in json.loads((whole / "prepared" / "prepared.json").read_text())
    assert datasets.load(tiny(dataset="isic2019"), whole).images_note == ""
    with pytest.raises(DataError, match="holds all of isic2019: expected its HAM10000 part"):
        datasets.load(tiny(), whole)


def test_a_description_of_the_part_that_is_damaged_is_refused(root, tmp_path):
    from hml_core.datasets import prepared

    own = shutil.copytree(root / "prepared", tmp_path / "prepared")
    _, described = prepared.find(own, "isic2019")
    prepared.describe(own, {**described, "part": {"name": "HAM10000"}})
    with pytest.raises(DataError, match="is damaged: expected `part` to say its name, title"):
        datasets.load(tiny(), own)


def test_a_run_says_it_in_record_caption_title_and_figure(trained, root, tmp_path):
    note = datasets.load(tiny(), root).images_note
    assert trained.images_note == note
    assert data_note(trained.path) == note
    runs.export(trained.path.parent, tmp_path / "records")
    (tmp_path / "records" / "data_note.txt").write_text("RECOMPRESSED images\n")
    record = runs.Run(tmp_path / "records" / trained.run_id)
    assert data_note(record.path) == f"{note}; RECOMPRESSED images"
    frame = runs.load(tmp_path / "records")
    table = tables.captioned(tables.summary(frame), frame, runs_root=tmp_path / "records")
    assert f"{note}; RECOMPRESSED images." in table.attrs["caption"]
    drawn = plots.per_class_accuracy([record], selection="last")
    titles = " ".join(ax.get_title().replace("\n", " ") for ax in drawn.axes)
    assert PART.title in titles


def test_the_figures_and_the_line_below_a_table_say_it(trained, root, tmp_path):
    experiment = Experiment(
        "part", [tiny()], data_root=root, runs_root=trained.path.parent, results_root=tmp_path,
        train=False, selection="last",
    )  # fmt: skip
    said = dermoscopy.caption(experiment, "recompressed images")
    assert said.startswith(f"{trained.images_note}; recompressed images; SHORTENED")
    pairs = [("melanoma", np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))]
    drawn = plots.preparation(pairs, title=PART.title)
    assert drawn.get_suptitle() == PART.title
    assert set(dermoscopy.CREDITS) == set(isic.CHALLENGES)


def test_the_command_says_it(tmp_path):
    whole = keep_part(synthetic.make("isic2019", tmp_path / "a", 160, side=16))
    call = ["prepare", "isic2019", "--data-root", str(whole), "--size", "16", "--workers", "1"]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert f"{PART.title}, " in result.output
    assert "as the data set 'isic2019_ham'" in result.output


# The stored protocol ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ["results", "isic2019_ham_small_here"])
def test_the_shortened_protocol_is_what_the_notebook_asks_for(batch, repository, tmp_path):
    batches = repository / "notebooks" / "batches"
    trained = grids(yaml.safe_load((batches / "isic2019_ham_small.yaml").read_text()))
    assert [config.seed for config in trained] == [0] * 6 + [1] * 6 + [2] * 6
    output = "05_isic2019_ham_small.ipynb"
    asked, _ = asked_by(batches / f"{batch}.yaml", output, repository, tmp_path)
    assert {config.run_id for config in asked.configs} == {config.run_id for config in trained}
    assert (asked.baseline, asked.hard_mining) == ("ce", ["hml1", "hml2"])
    control = next(config for config in trained if config.recipe == "ce_drw")
    hml1 = next(config for config in trained if config.recipe == "hml1")
    assert control.stage_ends == hml1.stage_ends
    assert (control.weighting, control.mean_over) == ("CS", "images")


@pytest.mark.shared_data
def test_the_part_by_the_real_tables_of_2019(tmp_path, tables_of_2019):
    """10,015 images of 7,470 lesions, 1,113 melanomas and 6,705 nevi; one image is enough to read it."""
    (tmp_path / PART.images[0]).mkdir()
    (tmp_path / PART.images[0] / "ISIC_0024306.jpg").write_bytes(b"x")
    found = archive.read("isic2019", tmp_path)
    counts = found.records["class"].value_counts().to_dict()
    assert (len(found.records), counts["MEL"], counts["NV"]) == (10_015, 1113, 6705)
    assert found.records["lesion_id"].nunique() == 7470
    assert sum(found.part["listed"].values()) == 25_331
    split = splits.by_lesion(found.records, 0)
    assert splits.straddling(found.records, split)["straddling"] == 0
