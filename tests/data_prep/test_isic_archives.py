"""Archives of ISIC as people have them: found, or refused with what was tried; joins say what fits."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep.isic import archive, images, report, splits, synthetic, tree
from data_prep.isic.prepare import prepare
from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import isic
from hml_core.errors import DataError
from hml_lab.cli import main

pytestmark = pytest.mark.usefixtures("in_this_process")
LAYOUT = archive.ARCHIVES["isic2018"]
SMALL = images.Options(size=16, format="png", constancy="none")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """An archive with an official test set that no test changes."""
    root = tmp_path_factory.mktemp("isic") / "archive"
    return synthetic.make("isic2018", root, 90, side=16, official=28)


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "archive")


def change(root, name, edit):
    (path,) = root.rglob(name)
    edit(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def made_of(root, output, **options):
    return prepare(
        archive.read("isic2018", root), output, SMALL, workers=1, progress=False, **options
    )


# Places -----------------------------------------------------------------------------------------


def nested(root):
    folder = root / LAYOUT.images
    folder.rename(root / "x")
    folder.mkdir()
    (root / "x").rename(folder / LAYOUT.images)


def among_mac_files(root):
    mac = root / "__MACOSX" / LAYOUT.images
    mac.mkdir(parents=True)
    for path in (root / LAYOUT.images).iterdir():
        (mac / path.name).write_bytes(b"x")
    (root / "__MACOSX" / LAYOUT.ground_truth).write_text("x")
    (root / LAYOUT.images / "._ISIC_1.jpg").write_bytes(b"x")


def capitals(root):
    for path in (root / LAYOUT.images).iterdir():
        path.rename(path.with_suffix(".JPG"))


def png(root):
    for path in (root / LAYOUT.images).iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()


def too_deep(root):
    (root / "a").mkdir()
    for path in [p for p in root.iterdir() if p.name not in ("a", "SYNTHETIC")]:
        path.rename(root / "a" / path.name)


def in_parts(root):
    (root / LAYOUT.images / "part_2").mkdir()
    for path in sorted((root / LAYOUT.images).glob("*.jpg"))[::2]:
        path.rename(root / LAYOUT.images / "part_2" / path.name)


def table_twice(root):
    (path,) = root.rglob(LAYOUT.ground_truth)
    (root / "again").mkdir()
    shutil.copy(path, root / "again")


def linked(root):
    """To a folder that is met first, under a name of its own."""
    (root / LAYOUT.images).rename(root / "A_images")
    (root / LAYOUT.images).symlink_to(root / "A_images")


def linked_in_circles(root):
    (root / LAYOUT.images / "up").symlink_to(root)
    (root / "again").symlink_to(root)
    (root / "copy").symlink_to(root / LAYOUT.images)


def suffix_twice(root):
    for path in sorted((root / LAYOUT.images).glob("*.jpg"))[::2]:
        path.rename(path.with_suffix(".JPG.jpg"))


def below_a_folder_of_that_name(root):
    """The archive's own folder is called as the images are, and holds the official ones, too."""
    (root / "x").mkdir()
    for path in [p for p in root.iterdir() if p.name not in ("x", "SYNTHETIC")]:
        path.rename(root / "x" / path.name)
    (root / "x").rename(root / LAYOUT.images)


@pytest.mark.parametrize(
    "unpacked",
    [
        nested, among_mac_files, capitals, png, too_deep, in_parts, table_twice, linked,
        linked_in_circles, suffix_twice, below_a_folder_of_that_name,
    ],
)  # fmt: skip
def test_however_it_was_unpacked_every_image_is_found(unpacked, root, pristine):
    expected = archive.read("isic2018", pristine).records
    unpacked(root)
    found = archive.read("isic2018", root)
    assert all(path.is_file() and path.stat().st_size > 1 for path in found.records["path"])
    assert found.records.drop(columns="path").equals(expected.drop(columns="path"))
    assert found.left_out == {}


def test_a_folder_of_other_images_is_refused_with_what_it_holds(root):
    for number, path in enumerate(sorted((root / LAYOUT.images).iterdir())):
        path.rename(path.with_name(f"photo{number:03d}.jpg"))
    said = rf"None of the \d+ images .* is in '.*{LAYOUT.images}', which holds \d+ other .* photo"
    with pytest.raises(DataError, match=said):
        archive.read("isic2018", root)


@pytest.mark.parametrize(
    ("renamed", "to"),
    [
        (LAYOUT.images, f"{LAYOUT.images} (1)"),
        (LAYOUT.images, f"{LAYOUT.images}-20240101T000000Z-001"),
        (LAYOUT.ground_truth, f"{LAYOUT.ground_truth[:-4]} (1).csv"),
        (LAYOUT.lesions, f"{LAYOUT.lesions}.gz"),
    ],
)
def test_what_is_nearly_there_is_named(renamed, to, root):
    path = next(path for path in root.rglob(renamed) if path.is_file() or renamed == LAYOUT.images)
    path.rename(path.with_name(to))
    with pytest.raises(DataError, match=re.escape(f"What is there, {to}, is to be unpacked or")):
        archive.read("isic2018", root)


def test_a_folder_that_cannot_be_listed_is_named(root, monkeypatch):
    """Its images would be left out without a word. (The super-user of a test may list every folder.)"""
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == LAYOUT.images:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"'.*{LAYOUT.images}' cannot be read: Permission denied"):
        archive.read("isic2018", root)


def test_odd_names_and_many_kinds_are_said_in_a_sentence_that_any_output_can_show(root):
    folder = root / LAYOUT.images
    for number in range(40):
        (folder / f"x.s{number}").touch()
    (folder / "x.a\nb").touch()
    open(os.fsencode(folder) + b"/x.jp\xe9", "wb").close()
    left_out = archive.read("isic2018", root).left_out
    assert sum(left_out.values()) == 42
    said = archive.listed_kinds(left_out)
    assert said.isprintable()
    said.encode("utf-8")
    assert said.endswith(", 37 of 37 other kinds")


def test_two_tables_that_differ_are_refused(root):
    table_twice(root)
    change(root / "again", LAYOUT.ground_truth, lambda f: f.head(20))
    with pytest.raises(DataError, match=r"two files .* that differ: .*again"):
        archive.read("isic2018", root)


def test_two_files_of_an_image_that_differ_in_case_and_content_are_refused(root):
    path = next(root.rglob("*.jpg"))
    other = path.with_suffix(".JPG")
    shutil.copy(path, other)
    archive.read("isic2018", root)  # a copy
    other.write_bytes(b"another")
    with pytest.raises(
        DataError, match=rf"two files '{other.name}' and '{path.name}' .* that differ"
    ):
        archive.read("isic2018", root)


@pytest.mark.parametrize("what", ["a FIFO", "a folder"])
def test_a_table_that_is_no_file_is_named(what, root):
    (path,) = root.rglob(LAYOUT.ground_truth)
    path.unlink()
    (os.mkfifo if what == "a FIFO" else os.mkdir)(path)
    with pytest.raises(DataError, match=rf"{LAYOUT.ground_truth}' is no regular file"):
        archive.read("isic2018", root)


def test_what_is_there_and_not_used_is_counted_and_said(root, tmp_path):
    first, second, *_ = sorted((root / LAYOUT.images).iterdir())
    first.with_suffix(".jp2").write_bytes(b"x")
    shutil.copy(second, second.with_suffix(".png"))
    change(root, LAYOUT.ground_truth, lambda f: f[f["image"] != first.stem])
    found = archive.read("isic2018", root)
    assert found.unlisted == 1
    (note,) = made_of(root, tmp_path / "out").notes
    for said in (
        "images that the ground truth does not list",
        ".jp2 files",
        "further copies of an image",
    ):
        assert f"1 {said}" in note


# Joins ------------------------------------------------------------------------------------------


def spelt_otherwise(frame):
    odd = np.arange(len(frame)) % 2 == 1
    return frame.assign(
        image=frame["image"].where(odd, " " + frame["image"].str.lower() + " "),
        lesion_id=frame["lesion_id"].where(odd, frame["lesion_id"].str.lower() + "  "),
    )


def test_blanks_and_case_do_not_part_the_images_of_a_lesion(root, pristine):
    change(root, LAYOUT.lesions, spelt_otherwise)
    found = archive.read("isic2018", root).records
    expected = archive.read("isic2018", pristine).records
    groups = [f["lesion_id"].str.lower().factorize()[0].tolist() for f in (found, expected)]
    assert groups[0] == groups[1]
    assert splits.straddling(expected, splits.by_lesion(found, 0))["straddling"] == 0


@pytest.mark.parametrize("word", ["unknown", "-", " ", "N/A", "None", "?"])
def test_a_word_for_unknown_is_no_lesion(word, root, tmp_path):
    change(root, LAYOUT.lesions, lambda f: f.assign(lesion_id=[*[word] * 10, *f["lesion_id"][10:]]))
    found = archive.read("isic2018", root)
    assert (found.records["lesion_id"] == "").sum() == 10
    assert any(note.startswith("The lesion of 10 of") for note in found.notes)
    made = made_of(root, tmp_path / "out")
    assert made.leak["this split"]["images"] - made.leak["this split"]["images_with_lesion"] == 10


@pytest.mark.parametrize("name", [LAYOUT.ground_truth, LAYOUT.lesions])
@pytest.mark.parametrize(
    "written",
    [
        lambda f, path: f.to_csv(path, index=False, encoding="utf-8-sig"),
        lambda f, path: f.to_csv(path, index=False, lineterminator="\r\n"),
        lambda f, path: f.to_csv(path, index=False, quoting=1),
        lambda f, path: f.to_csv(path),
        lambda f, path: f.assign(image=f["image"] + ".jpg").to_csv(path, index=False),
        lambda f, path: path.write_text(f.to_csv(index=False) + "," * (f.shape[1] - 1) + "\n\n"),
        lambda f, path: f.replace({"1.0": "1,0", "0.0": "0,0"}).to_csv(path, index=False, sep=";"),
        lambda f, path: f.to_csv(path, index=False, sep="\t"),
        lambda f, path: f.rename(columns={"image": "image_id"}).to_csv(path, index=False),
    ],
    ids=[
        "BOM", "CRLF", "quotes", "numbered", "file names", "commas", "semicolons", "tabs", "image_id"
    ],
)  # fmt: skip
def test_a_table_may_be_written_as_spreadsheets_do(written, name, root, pristine):
    expected = archive.read("isic2018", pristine)
    (path,) = (path for path in root.rglob(name) if path.is_file())
    written(pd.read_csv(path, dtype=str), path)
    found = archive.read("isic2018", root)
    assert found.records.drop(columns="path").equals(expected.records.drop(columns="path"))
    assert found.notes == expected.notes


@pytest.mark.parametrize("name", LAYOUT.metadata)
@pytest.mark.parametrize("kept", [(), (LAYOUT.ground_truth,), (LAYOUT.lesions,)])
def test_the_one_table_that_its_authors_ship_will_do(name, kept, root, pristine):
    """HAM10000_metadata: diagnoses in small letters beside lesions, in the place of what is not there."""
    truth, lesions = (
        next(path for path in root.rglob(file) if path.is_file())
        for file in (LAYOUT.ground_truth, LAYOUT.lesions)
    )
    classes = pd.read_csv(truth).set_index("image").idxmax(axis=1).str.lower()
    table = pd.read_csv(lesions)[["lesion_id", "image"]].rename(columns={"image": "image_id"})
    table = table.assign(dx=table["image_id"].map(classes), age=50.0)
    table.to_csv(root / name, index=False, sep="\t" if name.endswith(".tab") else ",")
    for path in (truth, lesions):
        if path.name not in kept:
            path.unlink()
    expected = archive.read("isic2018", pristine)
    found = archive.read("isic2018", root)
    assert found.records.drop(columns="path").equals(expected.records.drop(columns="path"))
    table.assign(dx="wart").to_csv(root / name, index=False)
    if LAYOUT.ground_truth not in kept:
        with pytest.raises(DataError, match=r"diagnoses that are none of MEL, NV, .*: WART"):
            archive.read("isic2018", root)


def test_a_table_without_a_lesion_of_two_images_is_said(root):
    change(root, LAYOUT.lesions, lambda f: f.assign(lesion_id=f["image"]))
    (note,) = archive.read("isic2018", root).notes
    assert note.startswith("No two images show one lesion, by the lesion table")


def test_a_split_of_ones_own_says_what_it_leaves_out(root, tmp_path):
    records = archive.read("isic2018", root).records
    split = splits.by_lesion(records, 0)
    named = records.assign(split=split).iloc[:-20][["id", "split"]]
    named.to_csv(tmp_path / "split.csv", index=False)
    notes = made_of(root, tmp_path / "out", split_csv=tmp_path / "split.csv").notes
    assert f"20 of the {len(records)} images are left out: split.csv does not name them." in notes


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda f: f.head(0), "has 0 rows, of which 0 are about"),
        (lambda f: f.assign(image="X" + f["image"]), "of which 0 are about"),
        (lambda f: f.head(20), "of which 20 are about"),
        (lambda f: f.assign(lesion_id="unknown"), "tells the lesion of 0 of"),
        (lambda f: pd.concat([f] + [f.assign(image=f["image"] + c) for c in "ab"]).assign(lesion_id="x"),
         r"images the lesion 'x': expected the id of one lesion"),
    ],
)  # fmt: skip
def test_a_lesion_table_that_does_not_fit_is_refused(edit, said, root):
    change(root, LAYOUT.lesions, edit)
    with pytest.raises(DataError, match=said):
        archive.read("isic2018", root)


def test_missing_rows_are_said(root):
    change(root, LAYOUT.lesions, lambda f: f.iloc[7:])
    assert archive.read("isic2018", root).notes[0].startswith("The lesion of 7 of the ")


# What is left -------------------------------------------------------------------------------------


def test_both_halves_of_the_leak_count_the_same_images(root, tmp_path):
    """Rejected images are in neither."""
    found = archive.read("isic2018", root)
    several = found.records["lesion_id"].duplicated(keep=False)
    for path in found.records["path"][several]:
        path.write_bytes(b"x")
    leak = made_of(root, tmp_path / "out").leak
    numbers = [
        {k: part[k] for k in ("images", "lesions", "several_images")} for part in leak.values()
    ]
    assert numbers[0] == numbers[1]
    assert numbers[0]["several_images"] == 0
    assert leak["image by image"]["straddling"] == 0


def test_a_class_without_images_is_named_and_no_class_any_more(root, tmp_path):
    records = archive.read("isic2018", root).records
    lost = records["path"][records["class"] == "VASC"]
    for path in lost:
        path.write_bytes(b"%!PS")
    Image.new("RGB", (3, 3)).save(records["path"][records["class"] == "NV"].iloc[0])
    made = made_of(root, root / "prepared")
    (note,) = (note for note in made.notes if note.startswith("No image is left of the class VASC"))
    assert f"({len(lost)} does not decode: " in note
    assert "3 × 3" not in note, "the reason of another class"
    described = report.read(root)[1]
    assert "VASC" not in described["classes"]
    assert len(report.before_and_after(root)) == 6
    assert datasets.load(config(), root).num_classes == 6


def test_a_tiny_image_is_one_rejection(root, tmp_path):
    records = archive.read("isic2018", root).records
    Image.new("RGB", (3, 3)).save(records["path"].iloc[0])
    Image.new("RGB", (1, 1)).save(records["path"].iloc[1])
    options = images.Options(size=16, segments=4)
    made = prepare(
        archive.read("isic2018", root), tmp_path / "out", options, workers=1, progress=False
    )
    assert (
        made.rejected["reason"].str.startswith(("is 3 × 3 pixels", "is 1 × 1 pixels")).tolist()
        == [True] * 2
    )


def test_a_class_that_a_split_lacks_is_said_with_what_follows(root, tmp_path):
    records = archive.read("isic2018", root).records
    split = splits.by_lesion(records, 0)
    split[(records["class"] == "DF") & (split == "validation")] = "train"
    split[(records["class"] == "VASC") & (split == "train")] = "test"
    records.assign(split=split)[["id", "split"]].to_csv(tmp_path / "split.csv", index=False)
    notes = made_of(root, tmp_path / "out", split_csv=tmp_path / "split.csv").notes
    assert any(
        n.startswith("The class DF has no validation image: its recall there") for n in notes
    )
    assert any("VASC has no train image: this split cannot be trained on" in n for n in notes)


# The official sets ----------------------------------------------------------------------------------


def config() -> RunConfig:
    return RunConfig(dataset="isic2018", model="resnet8", weights="none", frozen=0.0, image_size=16)


def test_the_official_test_set_is_prepared_and_loaded_beside_the_split(root, pristine, tmp_path):
    made = made_of(root, tmp_path / "with")
    assert made.official == {
        "official_test": {"images": 28, "images_with_lesion": 28, "lesions": 14}
    }
    shutil.rmtree(root / "ISIC2018_Task3_Test_Input")
    without = made_of(root, tmp_path / "without")
    assert without.official == {}
    assert without.notes[-1].startswith("ISIC2018_Task3_Test_GroundTruth.csv is left out")
    both = [datasets.load(config(), folder.folder) for folder in (made, without)]
    assert both[0].manifest() == both[1].manifest()
    found = isic.evaluation_set(config(), made.folder)
    assert len(found.images) == len(found.clusters) == 28
    assert len(set(found.clusters)) == 14
    truth = pd.read_csv(pristine / "ISIC2018_Task3_Test_GroundTruth.csv").set_index("image")
    for name, target in zip(found.images.names, found.images.targets, strict=True):
        column = truth.columns[truth.loc[Path(name).stem].argmax()]
        assert both[0].class_names[target] == LAYOUT.classes[column]
    own = isic.evaluation_set(config(), made.folder, "test")
    assert own.images.names == both[0].test.names
    assert (own.images.targets == both[0].test.targets).all()
    with pytest.raises(DataError, match=r"has no official_test set \(it has train, "):
        isic.evaluation_set(config(), without.folder)


def test_an_image_in_two_sets_is_refused(root):
    first = pd.read_csv(next(root.rglob(LAYOUT.ground_truth)))["image"][0]
    change(
        root,
        "ISIC2018_Task3_Test_GroundTruth.csv",
        lambda f: f.assign(image=[first, *f["image"][1:]]),
    )
    with pytest.raises(DataError, match=rf"in two sets of the challenge: {first}"):
        archive.read("isic2018", root)


def test_the_command_says_it_all(tmp_path):
    call = [
        "prepare",
        "isic2018",
        "--data-root",
        str(tmp_path / "a"),
        "--synthetic",
        "84",
        "--size",
        "48",
    ]
    result = CliRunner().invoke(main, [*call, "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "Official test set: 14 images, 7 lesions." in result.output
    assert "images have a known one" in result.output


# The real tables ------------------------------------------------------------------------------------


@pytest.mark.shared_data
def test_the_real_tables_of_2019_are_read_and_split(tmp_path, tables_of_2019):
    """25,331 rows, CRLF, three columns more than the challenge's; the images need not be there but one."""
    layout = archive.ARCHIVES["isic2019"]
    (tmp_path / layout.images).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / layout.images / "ISIC_0000000.jpg")
    found = archive.read("isic2019", tmp_path)
    counts = found.records["class"].value_counts().to_dict()
    assert len(found.records) == 25_331
    assert (counts["MEL"], counts["NV"], counts["DF"]) == (4522, 12875, 239)
    assert "UNK" not in found.classes
    assert (found.records["lesion_id"] == "").sum() == 2084
    assert found.notes[0].startswith("25330 of the 25331 listed images")
    split = splits.by_lesion(found.records, 0)
    assert splits.straddling(found.records, split)["straddling"] == 0


def test_where_folders_really_lie_is_not_asked_for_each_part_of_a_path_again(tmp_path, monkeypatch):
    """Of folders within each other 1,500 deep that took minutes."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "d").symlink_to("a")
    (tmp_path / "a" / "b" / "up").symlink_to("../..")
    real = {str(one): os.path.realpath(one) for one in (tmp_path, *tmp_path.rglob("*"))}
    asked = []
    monkeypatch.setattr(
        tree.os.path, "realpath", lambda path, *_: asked.append(path) or real[str(path)]
    )
    found = tree.Tree(tmp_path)
    a = tmp_path / "a"
    assert list(found.folders) == [tmp_path, a, a / "b", a / "b" / "c"]
    assert all(place == real[str(folder)] for folder, place in found.places.items())
    assert {os.path.basename(path) for path in asked} == {tmp_path.name, "d", "up"}
