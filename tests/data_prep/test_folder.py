"""One's own images: found in every form, prepared, split, reported; what is wrong is a clear sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep import cli, parallel
from data_prep.folder import duplicates, example, images, report, source
from data_prep.folder.prepare import Prepared, prepare
from data_prep.isic import archive as isic
from data_prep.isic import splits as isic_splits
from data_prep.splits import by_group
from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.errors import ConfigError, DataError
from hml_core.system import files
from hml_core.system import images as opener
from hml_core.trainer import fit

pytestmark = pytest.mark.usefixtures("in_this_process")
SMALL = images.Options(size=24, square=True)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """150 drawn images of six classes, of unequal sizes and formats; never changed by a test."""
    return example.make(tmp_path_factory.mktemp("own") / "shapes", 150, ratio=12)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Noise of unequal sizes: eight images of ant, six of bee, four of cat."""
    root = tmp_path / "photos"
    for label, (name, number) in enumerate({"ant": 8, "bee": 6, "cat": 4}.items()):
        for index in range(number):
            picture(root / name / f"{index}.png", (30 + index, 26), seed=100 * label + index)
    return root


def picture(path: Path, size: tuple[int, int] = (30, 26), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def made(root: Path, output: Path | None = None, csv: Path | None = None, **options) -> Prepared:
    output = root.with_name("mine") if output is None else output
    options.setdefault("options", SMALL)
    return prepare(source.read(root, csv), output, progress=False, workers=1, **options)


@pytest.mark.parametrize("odd", [b"caf\xe9", b"caf\r"])
@pytest.mark.parametrize("split", ["", "train"])
def test_classes_that_are_printed_alike_are_not_made_one(split, odd, photos):
    """Whatever their images are named."""
    for number, name in enumerate((os.fsdecode(odd), source.shown(os.fsdecode(odd)))):
        try:
            picture(photos / name / f"x{number}.png", (30, 26))
        except OSError:
            pytest.skip("this file system has no such names")
    if split:
        photos.rename(photos.with_name(split))
        photos.mkdir()
        photos.with_name(split).rename(photos / split)
    with pytest.raises(DataError, match=r"Classes in .* have one name where it is printed: caf\\"):
        source.read(photos, None)


# What is made -----------------------------------------------------------------------------------


def test_a_folder_becomes_copies_of_one_size_in_three_splits(drawn, tmp_path):
    done = made(drawn, tmp_path / "mine")
    assert len(done.manifest) == len(source.read(drawn).records) == 150
    counts = pd.crosstab(done.manifest["class"], done.manifest["split"])
    assert counts.to_numpy().min() >= 1
    share = counts.sum() / counts.to_numpy().sum()
    assert share["train"] == pytest.approx(0.7, abs=0.04)
    for name in done.manifest["file"]:
        assert Image.open(done.folder / name).size == (24, 24)
    assert done.summary["formats"].keys() == {".jpg", ".png", ".webp", ".bmp"}
    assert done.summary["different_sizes"] > 100
    sizes = [min(opener.size(path)) for path in source.read(drawn).records["path"]]
    expected = [min(sizes), sorted(sizes)[len(sizes) // 2], max(sizes)]
    assert done.summary["shorter_sides"] == expected
    described = json.loads((done.folder / "prepared.json").read_text())
    assert described["classes"] == list(done.summary["images"])
    assert described["synthetic"] is True
    train = done.manifest["file"][done.manifest["split"] == "train"]
    pixels = np.concatenate(
        [np.asarray(Image.open(done.folder / name)).reshape(-1, 3) for name in train]
    )
    np.testing.assert_allclose(described["mean"], (pixels / 255).mean(axis=0), atol=0.005)


def test_sides_keep_their_ratio_unless_a_square_is_asked_for(photos):
    with pytest.raises(ConfigError, match="got both"):
        images.Options(square=True, crop=True)
    done = made(photos, options=images.Options(size=13))
    sizes = {Image.open(done.folder / name).size for name in done.manifest["file"]}
    assert {size[1] for size in sizes} == {13}
    assert sizes >= {(15, 13), (18, 13)}
    path = picture(photos / "ant" / "wide.png", (60, 30), seed=3)
    half = {}
    for way in ("crop", "square"):
        asked = images.Options(size=30, format="png", **{way: True})
        assert "error" not in images.process(path, photos.parent / f"{way}.png", asked)
        half[way] = np.asarray(Image.open(photos.parent / f"{way}.png"))
    pixels = np.asarray(Image.open(path))
    assert (half["crop"] == pixels[:, 15:45]).all()
    halved = pixels.reshape(30, 30, 2, 3).mean(axis=2)
    assert np.corrcoef(half["square"].ravel(), halved.ravel())[0, 1] > 0.9


def test_images_that_would_have_one_name_are_named(photos):
    """What a converter leaves beside two others."""
    for name in ("0.jpg", "0.png.jpg"):
        picture(photos / "ant" / name)
    with pytest.raises(
        DataError, match=r"these are ant/0\.png, ant/0\.png\.jpg: rename all but one"
    ):
        source.read(photos)


def test_splits_of_ones_own_are_kept_and_what_lacks_is_drawn_from_training(photos):
    root = photos.with_name("split")
    for split in ("Train", "test"):
        shutil.copytree(photos, root / split)
    done = made(root)
    told = done.manifest["id"].str.startswith("test/")
    assert ((done.manifest["split"] == "test") == told).all()
    counts = done.manifest["split"].value_counts()
    assert (counts["train"], counts["validation"], counts["test"]) == (15, 3, 18)
    assert any("no split validation: it was drawn" in note for note in done.summary["notes"])
    (root / "val").mkdir()
    for name in ("ant", "bee", "cat"):
        shutil.move(root / "Train" / name / "0.png", picture(root / "val" / name / "0.png"))
    counts = made(root, root.with_name("again")).manifest["split"].value_counts()
    assert (counts["train"], counts["validation"], counts["test"]) == (15, 3, 18)


@pytest.mark.parametrize("word", ["unknown", " - ", "N/A", ""])
def test_a_word_for_unknown_is_no_group(word, photos, tmp_path):
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    groups = [word if number < 6 else f"p{10 + number // 2}" for number in range(len(names))]
    pd.DataFrame({"path": names, "patient": groups}).to_csv(tmp_path / "g.csv", index=False)
    found = source.read(photos, tmp_path / "g.csv")
    assert sorted(found.records["group"])[:7] == ["", "", "", "", "", "", "p13"]
    assert f"The group of 6 of the {len(names)} images is not known" in " ".join(found.notes)


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_csv_tells_classes_and_groups_that_stay_together(separator, photos, tmp_path):
    rows = [f"Image{separator}label{separator}Patient"]
    for index, path in enumerate(sorted(photos.rglob("*.png"))):
        relative = str(path.relative_to(photos)).replace("/", "\\" if index % 2 else "/")
        rows.append(
            f"{relative}{separator}{'sick' if index % 3 else 'well'}{separator}p{index // 2}"
        )
    rows.append(separator.join(("ant/gone.png", "sick", "")))
    csv = tmp_path / "table.csv"
    csv.write_text("\n".join(rows), encoding="utf-8-sig")
    picture(photos / "not listed.png")
    done = made(photos, csv=csv)
    assert set(done.manifest["class"]) == {"sick", "well"}
    assert done.manifest.groupby("group")["split"].nunique().max() == 1
    assert done.manifest["group"].nunique() == 9
    assert done.rejected["file"].tolist() == ["ant/gone.png"]
    assert "No such file" in done.rejected["reason"][0]
    assert done.summary["left_out"] == ["1 images that the CSV does not list (not listed.png)"]


def test_a_csv_may_lead_out_of_the_folder_and_back(photos, tmp_path):
    """It was said of such an image that the CSV does not list it; and it was taken twice."""
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    lines = [f"../photos/{name},{name[:3]}" for name in names[:3]]
    lines += [f"./ant/../{name},{name[:3]}" for name in names[3:]]
    csv = tmp_path / "table.csv"
    csv.write_text("\n".join(["path,class", *lines]))
    found = source.read(photos, csv)
    assert found.left_out == ()
    assert not found.notes
    assert len(found.records) == len(names)
    csv.write_text("\n".join(["path,class", *lines, f"{names[0]},bee"]))
    with pytest.raises(DataError, match=r"lists 'ant/0\.png' twice"):
        source.read(photos, csv)


def test_a_manifest_with_other_splits_or_an_image_twice_is_not_trained_on(photos):
    """Though it is sealed: by another version, or by hand."""
    done = made(photos)
    table, description = (done.folder / name for name in ("manifest.csv", "prepared.json"))
    whole, config = table.read_text(), RunConfig(dataset="folder", image_size=8)
    described = files.unsealed(json.loads(description.read_text()))
    datasets.load(config, done.folder)
    for edited, told in (
        (
            whole.replace(",train,", ",fold-1,", 1),
            "splits to be train, validation, test, got 'fold-1'",
        ),
        (whole.replace(",train,", ",,", 1), "got ''"),
        (whole + whole.splitlines()[1] + "\n", "twice"),
    ):
        table.write_text(edited)
        sha256 = files.sha256(table)
        files.write_json(description, files.sealed({**described, "manifest_sha256": sha256}))
        with pytest.raises(DataError, match=told):
            datasets.load(config, done.folder)


def test_a_csv_without_classes_adds_groups_to_folders(photos, tmp_path):
    csv = tmp_path / "groups.csv"
    csv.write_text("file,group\nant/0,a\nant/1.png,a\nant/2,a\nbee/0,b\nzebra,z\n")
    done = made(photos, csv=csv)
    groups = done.manifest.set_index("id")["group"]
    assert groups[groups != ""].to_dict() == {
        "ant/0": "a",
        "ant/1": "a",
        "ant/2": "a",
        "bee/0": "b",
    }
    assert done.manifest[done.manifest["group"] == "a"]["split"].nunique() == 1
    assert any(
        "1 rows of groups.csv are about images that are not" in n for n in done.summary["notes"]
    )


def test_a_plain_folder_of_isic_with_its_lesions_is_what_prepare_isic_makes(tmp_path):
    from data_prep.isic import archive, synthetic
    from data_prep.isic.images import Options
    from data_prep.isic.prepare import prepare as prepare_isic

    root = synthetic.make("isic2018", tmp_path / "isic", 60)
    found = archive.read("isic2018", root)
    asked = {"constancy": "shades_of_gray", "crop": True, "size": 32}
    theirs = prepare_isic(found, tmp_path / "theirs", Options(**asked), workers=1, progress=False)
    table = found.records[["id", "class", "lesion_id"]].rename(columns={"id": "path"})
    table.to_csv(tmp_path / "table.csv", index=False)
    ours = prepare(
        source.read(found.folders[0], tmp_path / "table.csv"), tmp_path / "ours",
        images.Options(**asked), fractions=(0.8, 0.1, 0.1), workers=1, progress=False,
    )  # fmt: skip
    columns = ["id", "class", "split", "source_sha256", "output_sha256"]
    expected = theirs.manifest[theirs.manifest["split"].isin(["train", "validation", "test"])]
    pd.testing.assert_frame_equal(
        ours.manifest[columns].reset_index(drop=True), expected[columns].reset_index(drop=True)
    )
    one, other = (
        json.loads((done.folder / "prepared.json").read_text()) for done in (ours, theirs)
    )
    assert (one["mean"], one["std"]) == (other["mean"], other["std"])


# Going on ---------------------------------------------------------------------------------------


def test_a_second_call_does_what_is_missing_or_changed(photos):
    first = made(photos)
    again = made(photos)
    assert again.done_before == 18
    assert (first.folder / "manifest.csv").read_bytes() == (
        again.folder / "manifest.csv"
    ).read_bytes()
    (first.folder / first.manifest["file"][0]).unlink()
    picture(photos / "bee" / "3.png", (40, 40), seed=999)
    picture(photos / "cat" / "new.png", seed=5)
    third = made(photos)
    assert third.done_before == 16
    assert len(third.manifest) == 19
    with pytest.raises(DataError, match="prepared with other options"):
        made(photos, options=images.Options(size=16))


@pytest.mark.usefixtures("own_workers")
def test_the_command_says_what_was_found_and_what_comes_next(drawn, tmp_path):
    output = tmp_path / "mine"
    call = [
        "folder",
        str(drawn),
        "--data-root",
        str(output),
        "--size",
        "24",
        "--square",
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(cli.prepare, call)
    assert result.exit_code == 0, result.output
    assert "Images a class: disc " in result.output
    assert "SYNTHETIC" in result.output
    assert f"hml train --dataset small_folder --data-root {output}" in result.output


def test_classes_are_told_from_the_most_frequent_on(photos):
    summary = json.loads((made(photos).folder / "prepared.json").read_text())["summary"]
    summary["images"] = dict(sorted(summary["images"].items(), reverse=True))
    assert report.lines(summary)[0] == "Images a class: ant 8, bee 6, cat 4."
    assert "18 sizes" not in report.lines(summary)[1]
    assert "8 sizes, most often" in report.lines(summary)[1]


def test_images_smaller_than_asked_for_are_said(photos):
    done = made(photos, options=images.Options(size=64))
    assert any("shorter side of 26 pixels or fewer" in note for note in done.summary["notes"])
    assert not any(
        "enlarged" in note for note in made(photos, photos.with_name("x")).summary["notes"]
    )


def test_the_next_command_asks_for_images_that_were_prepared():
    told = report.how_to_train({"size": 64}, False, "mine")
    assert "--dataset folder --image-size 56 --data-root mine" in told
    assert "--image-size" not in report.how_to_train({"size": 256}, False, "mine")
    assert "--image-size" not in report.how_to_train({"size": 224}, True, "mine")


# Training ---------------------------------------------------------------------------------------


def test_small_squares_are_trained_on_in_memory(drawn, tmp_path):
    done = made(drawn, tmp_path / "mine")
    config = RunConfig(
        dataset="small_folder", model="resnet8", epochs=2, early_stopping=1, batch_size=32
    )
    run = fit(config, data_root=done.folder, runs_root=tmp_path / "runs", progress=False)
    counts = [images["train"] for images in done.summary["images"].values()]
    assert run.class_counts.tolist() == counts == sorted(counts, reverse=True)
    assert run.class_names == tuple(done.summary["images"])
    with pytest.warns(UserWarning, match="throws .* away"):
        cut = datasets.load(
            RunConfig(dataset="small_folder", imbalance_type="exp", imbalance_ratio=2), done.folder
        )
    assert cut.class_counts.sum() < sum(counts)
    assert cut.validation is not None
    assert cut.synthetic
    with pytest.raises(ConfigError, match="has a validation split"):
        RunConfig(dataset="small_folder", validation_fraction=0.1)


def test_images_of_any_shape_are_streamed(drawn, tmp_path):
    done = made(drawn, tmp_path / "mine", options=images.Options(size=32))
    config = RunConfig(
        dataset="folder", weights="none", image_size=28, epochs=1, early_stopping=0, batch_size=32
    )
    assert config.normalisation == "dataset"
    run = fit(config, data_root=done.folder, runs_root=tmp_path / "runs", progress=False)
    assert len(run.predictions[1]) == (done.manifest["split"] == "test").sum()
    with pytest.raises(
        DataError, match="shorter side of 32 pixels: expected `image_size` up to 28"
    ):
        datasets.load(RunConfig(dataset="folder", image_size=29), done.folder)
    with pytest.raises(DataError, match="no small squares: expected the data set 'folder'"):
        datasets.load(RunConfig(dataset="small_folder"), done.folder)


def test_a_copy_that_was_changed_is_not_trained_on(photos):
    done = made(photos)
    picture(done.folder / done.manifest["file"][3], (24, 24), seed=77)
    with pytest.raises(DataError, match="is not the file that was prepared"):
        datasets.load(RunConfig(dataset="small_folder"), done.folder)


@contextlib.contextmanager
def described_anew(folder: Path) -> Iterator[dict]:
    """The folder's description, to be changed; it is sealed again."""
    path = folder / "prepared.json"
    described = files.unsealed(json.loads(path.read_text()))
    yield described
    files.write_json(path, files.sealed(described))


@pytest.mark.parametrize("size", [0, 23, 25])
def test_a_size_that_is_not_that_of_the_images_is_named(size, photos):
    done = made(photos)
    with described_anew(done.folder) as described:
        described["options"]["size"] = size
    with pytest.raises(DataError, match=rf"`options.size` .* got {size}, where '.*' has 24 × 24"):
        datasets.load(RunConfig(dataset="small_folder"), done.folder)


def test_a_description_without_a_mean_is_named(photos):
    done = made(photos)
    with described_anew(done.folder) as described:
        del described["mean"], described["std"]
    with pytest.raises(DataError, match=r"prepared.json' is damaged: expected `mean`"):
        datasets.load(RunConfig(dataset="small_folder"), done.folder)


@pytest.mark.parametrize("name", ["small_folder", "folder"])
def test_a_manifest_with_a_byte_that_no_name_has_is_damaged(name, photos):
    done = made(photos)
    path = done.folder / "manifest.csv"
    path.write_bytes(path.read_bytes()[:-3] + b"\0\n")
    with described_anew(done.folder) as described:
        described["manifest_sha256"] = files.sha256(path)
    with pytest.raises(DataError, match=r"manifest.csv' is damaged: it holds a byte 0"):
        datasets.load(RunConfig(dataset=name), done.folder)


# Bad input --------------------------------------------------------------------------------------


def test_classes_of_one_name_but_for_case_are_refused(photos):
    picture(photos / "Bee" / "0.png")
    with pytest.raises(DataError, match=r"'Bee' and 'bee' .* differ in case"):
        source.read(photos)


def test_accents_written_in_two_ways_are_one_class(photos):
    picture(photos / "caf\u00e9" / "0.png")
    picture(photos / "cafe\u0301" / "0.png")
    with pytest.raises(DataError, match="how an accent is written"):
        source.read(photos)


def test_one_class_is_refused(photos):
    shutil.rmtree(photos / "bee")
    shutil.rmtree(photos / "cat")
    with pytest.raises(DataError, match=r"two classes or more .* found one, 'ant'"):
        source.read(photos)


def test_a_class_of_one_image_is_trained_on_and_said(photos):
    picture(photos / "dodo" / "only.png")
    done = made(photos)
    assert done.summary["images"]["dodo"] == {"train": 1, "validation": 0, "test": 0}
    assert any("dodo have one image: it is trained on" in note for note in done.summary["notes"])
    splits = datasets.load(RunConfig(dataset="small_folder"), done.folder)
    assert splits.class_counts.tolist() == [6, 4, 2, 1]
    assert 3 not in splits.test.targets


def test_a_class_in_test_that_training_lacks_is_named(photos):
    root = photos.with_name("split")
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos, root / "test")
    picture(root / "test" / "dodo" / "0.png")
    with pytest.raises(
        DataError, match=r"No training image of the class\(es\) dodo, which test has"
    ):
        source.read(root)


def test_splits_beside_classes_are_refused(photos):
    shutil.copytree(photos / "ant", photos / "train" / "ant")
    with pytest.raises(DataError, match="holds the splits train and, beside them, ant, bee, cat"):
        source.read(photos)


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("val", "test"),
        ("TrainImages", "ValImages"),
        ("train2017", "val2017"),
    ],
)
def test_splits_under_other_names_are_not_taken_for_classes(names, photos):
    root = photos.with_name("split")
    for name in names:
        shutil.copytree(photos, root / name)
    if names[0] == "seg_train":  # and images of no class, to be predicted
        picture(root / "seg_pred" / "0.png")
    with pytest.raises(DataError, match=f"{names[1]}.*named like splits, not like classes"):
        source.read(root)


def test_classes_may_be_named_like_splits(photos):
    """One that is, beside others; two, where no folder lies in them."""
    for name in ("valid", "test tube", "train ticket"):
        shutil.copytree(photos / "ant", photos / name)
        classes = set(source.read(photos).records["class"])
        assert name in classes
    assert len(classes) == 6


@pytest.mark.parametrize("where", ["photos", "photos/mine", "photos/ant"])
def test_an_output_among_the_images_is_refused(where, photos):
    with pytest.raises(DataError, match="lies in the folder of the images: give one beside it"):
        made(photos, photos.parent / where)
    assert sorted(path.name for path in photos.iterdir()) == ["ant", "bee", "cat"]


def test_images_that_lie_where_copies_would_go_are_never_written_over(photos):
    output = photos.with_name("mine")
    shutil.move(photos, output / "images")
    with pytest.raises(DataError, match="would write among the original images"):
        made(output / "images", output)
    assert len(list(output.rglob("*.png"))) == 18


def test_links_out_of_the_tree_are_read_and_said_and_circles_are_left(photos, tmp_path):
    outside = picture(tmp_path / "elsewhere" / "x.png", seed=31)
    (photos / "ant" / "link.png").symlink_to(outside)
    (photos / "ant" / "circle").symlink_to(photos)
    (photos / "ant" / "dangling.png").symlink_to("nowhere")
    done = made(photos)
    assert "ant/link" in set(done.manifest["id"])
    assert len(done.manifest) == 19
    assert done.rejected["file"].tolist() == ["ant/dangling.png"]
    assert any("1 images are links to files outside" in note for note in done.summary["notes"])


@pytest.mark.parametrize("place", ["top.png", "ant/circle.png", "loop"])
def test_a_link_to_itself_is_one_rejection_or_nothing(place, photos):
    (photos / place).symlink_to((photos / place).name)
    done = made(photos)
    assert len(done.manifest) == 18
    assert done.rejected["file"].tolist() == ([place] if "/" in place else [])


def test_a_class_keeps_the_name_of_the_folder_where_its_images_lie(photos):
    (photos / "aaa").symlink_to(photos / "ant")
    (photos / "bee" / "link").symlink_to(photos / "cat")
    found = source.read(photos)
    assert found.records["class"].value_counts().to_dict() == {"ant": 8, "bee": 6, "cat": 4}
    assert found.left_out == ("1 class folders without an image (aaa)",)


def test_images_that_a_csv_finds_outside_of_the_folder_are_said(photos, tmp_path):
    picture(tmp_path / "elsewhere" / "x.png", seed=31)
    csv = tmp_path / "table.csv"
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in photos.rglob("*.png")]
    csv.write_text("\n".join(["path,class", "../elsewhere/x.png,ant", *rows]))
    found = source.read(photos, csv)
    assert len(found.records) == 19
    assert [note[:58] for note in found.notes] == [
        "1 images that table.csv lists lie outside of '" + str(photos)[:12]
    ]


def test_a_pipe_that_is_no_table_is_not_waited_for(photos, tmp_path):
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match=r"Cannot read .*table.csv': it is no regular file"):
        source.read(photos, tmp_path / "table.csv")


def test_a_folder_above_the_classes_is_named(photos):
    moved = photos.parent / "above" / "pictures"
    shutil.copytree(photos, moved)
    with pytest.raises(
        DataError, match=r"one, 'pictures', with images in ant, bee, cat: .* give '.*"
    ):
        source.read(moved.parent)
    split = photos.parent / "split"
    for name in ("train", "test"):
        shutil.copytree(photos / "ant", split / name / "ant" / "deep")
    with pytest.raises(DataError, match=r"a folder for each, found one, 'ant'\."):
        source.read(split)


def test_any_name_of_an_output_can_be_shown_and_given_to_a_shell(photos):
    output = photos.with_name(os.fsdecode(b"my caf\xe9"))
    call = ["folder", str(photos), "--data-root", str(output), "--size", "24", "--workers", "1"]
    result = CliRunner().invoke(cli.prepare, call)
    assert result.exit_code == 0, result.output
    assert f"--data-root $'{photos.parent}/my caf\\xe9' --keep" in result.output
    assert (output / "prepared.json").is_file()


def test_classes_of_any_name_are_trained_on(photos):
    names = ["NA", "nan", "True", "01", "1", "=cmd()", 'a,b"c', "x" * 200, "-z", "con"]
    for number, name in enumerate(names):
        for index in range(4):
            picture(photos / name / f"{index}.png", seed=1000 + 10 * number + index)
    splits = datasets.load(RunConfig(dataset="small_folder"), made(photos).folder)
    assert set(splits.class_names) == {"ant", "bee", "cat", *names}


def test_a_file_that_changes_while_it_is_read_is_rejected_and_done_by_the_next_call(
    photos, monkeypatch
):
    target = photos / "bee" / "2.png"
    fstat, seen = os.fstat, []

    def growing(handle):
        status = fstat(handle)
        if (
            os.path.samestat(status, target.stat()) and not seen.append(handle) and len(seen) == 3
        ):  # open, before, after
            with target.open("ab") as stream:
                stream.write(b"more")
            status = fstat(handle)
        return status

    monkeypatch.setattr(opener.os, "fstat", growing)
    done = made(photos)
    monkeypatch.undo()
    assert done.rejected["file"].tolist() == ["bee/2.png"]
    assert "changed while it was read" in done.rejected["reason"][0]


def test_a_file_that_is_replaced_after_it_was_read_is_done_by_the_next_call(photos, monkeypatch):
    process = images.process

    def replaced(path, target, options):
        result = process(path, target, options)
        if path.name == "5.png":
            picture(path, (50, 50), seed=1)
        return result

    def one_by_one(process, work, folder, options, workers):
        return ((row, replaced(path, folder / row.file, options)) for row, path in work)

    monkeypatch.setattr(parallel, "in_parallel", one_by_one)
    made(photos)
    again = made(photos)
    assert again.done_before == 16  # ant/5 and bee/5 were done again


def test_what_systems_leave_is_no_class_and_unread_files_are_named(photos):
    for name in (".ipynb_checkpoints", ".Trash-0", "@eaDir", "__MACOSX"):
        picture(photos / name / "0.png")
        picture(photos / "ant" / name / "0.png")
    (photos / "cat" / "x.heic").write_bytes(b"x")
    (photos / "empty").mkdir()
    picture(photos / "loose.png")
    found = source.read(photos)
    assert set(found.records["class"]) == {"ant", "bee", "cat"}
    assert len(found.records) == 18
    assert found.left_out == (
        f"1 .heic (cat/x.heic; {opener.NOT_READ['.heic']})",
        "1 class folders without an image (empty)",
        "1 images in no class's folder (loose.png)",
    )


def test_a_folder_of_what_is_not_read_says_what_to_do(photos):
    for path in photos.rglob("*.png"):
        path.rename(path.with_suffix(".CR2"))
    with pytest.raises(
        DataError, match=r"There is no image in .*18 \.cr2 .*; save them as JPEG or"
    ):
        source.read(photos)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp", ".bmp"])
def test_images_of_every_format_are_prepared_as_if_they_were_png(suffix, photos):
    other = photos.with_name("other")
    for path in photos.rglob("*.png"):
        grey = Image.open(path).convert("L")  # what a GIF holds without loss, too
        grey.convert("RGB").save(path)
        target = (other / path.relative_to(photos)).with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        grey.save(target, **({"lossless": True} if suffix == ".webp" else {}))
    expected = made(photos, options=images.Options(size=24, format="png"))
    done = made(other, other.with_name("theirs"), options=images.Options(size=24, format="png"))
    assert done.manifest["output_sha256"].tolist() == expected.manifest["output_sha256"].tolist()


def test_images_that_do_not_decode_are_named_and_a_class_of_none_is_no_class(photos):
    (photos / "dodo").mkdir()
    for index in range(3):
        (photos / "dodo" / f"{index}.jpg").write_bytes(b"no image")
    done = made(photos)
    assert done.rejected["file"].tolist() == [f"dodo/{index}.jpg" for index in range(3)]
    assert any("No image of the class(es) dodo can be used" in n for n in done.summary["notes"])
    assert list(pd.read_csv(done.folder / "rejected.csv")["id"]) == ["dodo/0", "dodo/1", "dodo/2"]
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="two classes or more with images that can be used, got 0"):
        made(photos)


def test_names_that_are_not_utf_8_are_prepared_and_shown(photos):
    odd = os.fsdecode(b"caf\xe9")
    for index in range(4):
        picture(photos / odd / f"{index}\n.png", seed=500 + index)
    done = made(photos)
    assert "caf\\xe9" in done.summary["images"]
    assert done.manifest["id"].str.startswith("caf\\xe9/0\\n").sum() == 1
    assert all(name.isascii() and " " not in name for name in done.manifest["file"])
    assert datasets.load(RunConfig(dataset="small_folder"), done.folder).num_classes == 4


def test_files_that_differ_in_their_suffix_or_case_alone_are_two_images(photos):
    picture(photos / "ant" / "0.bmp", seed=41)
    picture(photos / "ant" / "A.png", seed=42)
    picture(photos / "ant" / "a.png", seed=43)
    done = made(photos)
    assert {"ant/0.png", "ant/0.bmp", "ant/A.png", "ant/a.png"} <= set(done.manifest["id"])
    assert done.manifest["file"].str.lower().is_unique


def test_the_header_of_a_csv_may_have_blanks_around_and_in_it(photos, tmp_path):
    csv = tmp_path / "table.csv"
    csv.write_text('\n Path ,"Class"\nant/0.png,a\nbee/0.png,b\n')
    assert set(source.read(photos, csv).records["class"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,kind\na,b\n", "to have a column path and one of class and group"),
        ("path,class\nant/0.png,\n", "has no class in line 2"),
        ("path,class\nant/0.png,a\n,\n\nbee/0.png,\n", "has no class in line 4"),
        ("path,class\nant/0.png,bee/0.png,b\nant/1.png,bee/1.png,a\n", "in line 2, saw 3"),
        ("path,class\nant/0.png,a\nant/0.png,b\n", "lists images twice: ant/0.png"),
        ("path,class\nant/0.png,a\nant/0,b\n", "lists 'ant/0.png' twice"),
        ("path,class\n0.png,a\n1.png,b\n", "'0.png' in .* may be .*: expected its path"),
        ("path,class\nx.png,a\ny.png,b\n", "None of the 2 images .* lists, such as 'x.png'"),
        ("path,class,label\nant/0.png,a,b\n", "several columns for the class: class, label"),
        ("path,class,Class\nant/0.png,a,b\n", "several columns for the class: class, class"),
        ("path,class,class\nant/0.png,a,b\n", "several columns for the class: class, class"),
        ("Path;path;class\nant/0.png;a;b\n", "several columns for the path: path, path"),
        ("path,class,split\nant/0.png,a,tests\n", "to be train, validation or test, got tests"),
        ("path,group\nx,1\n", "None of the images in .* is there: x"),
        ("", "Cannot read"),
    ],
)
def test_a_csv_of_another_form_is_explained(text, message, photos, tmp_path):
    csv = tmp_path / "table.csv"
    csv.write_text(text)
    with pytest.raises(DataError, match=message):
        source.read(photos, csv)
    csv.write_bytes(b"path,class\n\xff,a\n")
    with pytest.raises(DataError, match="is not UTF-8"):
        source.read(photos, csv)


NO_TABLES = {
    "a byte 0": (b"path,class\nant/0.png,a\nant/1\0.png,a\n", "line 3 holds a byte 0"),
    "a byte 0 in front": (b"\0path,class\nant/0.png,a\n", "line 1 holds a byte 0"),
    "columns": (b"path,class" + b"," * 2000 + b"\nant/0.png,a\n", "more than 1,000 columns"),
    "columns in a row": (b"path,class\nant/0.png,a" + b"," * 2000, "more than 1,000 columns"),
    "a line": (b"path,class\n" + b"a" * 10**6 + b",a\n", "line 2 has more than 65,536 bytes"),
    "no lines": (b"a" * 10**6, "line 1 has more than 65,536 bytes"),
    "a cell": (b"path,class\n" + b"a" * 5000 + b",a\n", "a path of more than 4,096 characters"),
    "a class": (b"path,class\nant/0.png," + b"a" * 5000, "a class of more than 4,096"),
    "lines in a cell": (b'path,class\n"' + b"a\n" * 5000 + b'",a\n', "a path of more than 4,096"),
}


def test_a_table_of_empty_lines_without_end_is_told(photos, tmp_path, monkeypatch):
    """300 MB of them kept a reader busy for minutes, which said nothing."""
    monkeypatch.setattr("hml_core.system.tables.MOST_LINES", 1000)
    csv = tmp_path / "table.csv"
    csv.write_bytes(b"path,class\n" + b"\n" * 1000)
    with pytest.raises(DataError, match=r"table\.csv.*it has more than 1,000 lines"):
        source.read(photos, csv)


@pytest.mark.parametrize("name", NO_TABLES)
def test_what_no_table_holds_is_told_before_it_takes_memory(name, photos, tmp_path, monkeypatch):
    """pandas takes hundreds of bytes for each empty cell; a message is no longer than a screen."""
    content, said = NO_TABLES[name]
    csv = tmp_path / "table.csv"
    csv.write_bytes(content)
    with pytest.raises(DataError, match=f"table.csv.*{said}") as told:
        source.read(photos, csv)
    assert len(str(told.value)) < 1000
    if said.startswith(("line", "more")):
        monkeypatch.setattr("pandas.read_csv", lambda *_, **__: pytest.fail("pandas was asked"))
        for read in (lambda: isic._read_csv(csv, set()), lambda: isic_splits.from_csv(None, csv)):
            with pytest.raises(DataError, match=f"table.csv.*{said}"):
                read()


def test_no_folder_no_image_and_odd_fractions_are_explained(photos, tmp_path):
    with pytest.raises(DataError, match="Expected a folder of images, or a CSV"):
        source.read(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="There is no image in"):
        source.read(tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"each > 0, with the sum 1, got 0\.5, 0\.5, 0"):
        made(photos, fractions=(0.5, 0.5, 0.0))
    for place in range(3):
        odd = [0.5, 0.25, 0.25]
        odd[place] = float("nan")
        with pytest.raises(ConfigError, match=r"with the sum 1, got .*nan"):
            made(photos, fractions=odd)


def test_too_few_images_for_three_splits_are_explained(tmp_path):
    for name in ("ant", "bee"):
        picture(tmp_path / "photos" / name / "0.png")
    with pytest.raises(DataError, match="No image is left for validation"):
        made(tmp_path / "photos")


# Pictures that are there twice ------------------------------------------------------------------


def smooth(path: Path, seed: int) -> Path:
    """A picture with large parts, as photographs have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


def test_the_same_picture_is_found_whatever_was_done_to_it(tmp_path):
    root = tmp_path / "photos"
    for number in range(40):
        smooth(root / ("ant" if number < 25 else "bee") / f"{number}.png", number)
    shutil.copy(root / "ant" / "3.png", root / "bee" / "copy.png")
    smaller = Image.open(root / "ant" / "7.png")
    smaller.resize((120, 90)).save(root / "ant" / "smaller.jpg", quality=80)
    done = made(root, options=images.Options(size=64))
    found = done.duplicates[["id", "other", "kind"]].to_numpy().tolist()
    assert found == [
        ["ant/smaller", "ant/7", "nearly the same"],
        ["bee/copy", "ant/3", "same file"],
    ]
    assert pd.read_csv(done.folder / "duplicates.csv")["id"].tolist() == ["ant/smaller", "bee/copy"]
    note = done.summary["notes"][-1]
    assert "1 same file as another" in note
    assert "1 in another class" in note


def test_looks_are_compared_bit_by_bit_in_blocks_and_plain_surfaces_are_left_out(monkeypatch):
    random = np.random.default_rng(0)
    looks = random.integers(0, 256, (60, 16), dtype=np.uint8)
    looks[40] = looks[3] ^ np.array([15, *[0] * 15], dtype=np.uint8)  # four bits of another
    looks[50] = looks[7] ^ np.array([31, *[0] * 15], dtype=np.uint8)  # five
    looks[[11, 12]] = 0
    frame = pd.DataFrame(
        {
            "id": [str(number) for number in range(60)], "class": "a", "split": "train",
            "source_sha256": [f"{number}" for number in range(60)],
            "look": [look.tobytes().hex() for look in looks],
        }
    )  # fmt: skip
    for block in (7, 500):
        monkeypatch.setattr(duplicates, "BLOCK", block)
        found = duplicates.find(frame)
        assert found[["id", "other"]].to_numpy().tolist() == [["40", "3"]]
    monkeypatch.setattr(duplicates, "MOST", 10)
    assert not len(duplicates.find(frame))
    frame.loc[40, "look"] = frame.loc[3, "look"]
    assert duplicates.find(frame)[["id", "other"]].to_numpy().tolist() == [["40", "3"]]


def test_a_split_of_no_share_gets_nothing_and_groups_are_whole():
    random = np.random.default_rng(1)
    classes = pd.Series(random.choice(["a", "b", "c"], 300, p=[0.7, 0.2, 0.1]))
    groups = pd.Series(random.integers(0, 90, 300).astype(str))
    for fractions in ((0.8, 0.2, 0.0), (0.7, 0.0, 0.3), (0.7, 0.15, 0.15)):
        split = by_group(classes, groups, 0, fractions)
        share = [(split == name).mean() for name in ("train", "validation", "test")]
        np.testing.assert_allclose(share, fractions, atol=0.06)
        assert pd.DataFrame({"g": groups, "s": split}).groupby("g")["s"].nunique().max() == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_class_that_lies_in_one_group_is_trained_on_whatever_else_the_group_holds(seed):
    """The group counts for its most frequent class, of which it is one of the smallest."""
    classes = pd.Series(["a"] * 12 + ["b"] * 12 + ["a", "rare"])
    groups = pd.Series([str(number // 3) for number in range(24)] + ["both", "both"])
    split = by_group(classes, groups, seed, (0.6, 0.2, 0.2))
    assert split[classes == "rare"].tolist() == ["train"]
    for name in ("a", "b"):
        assert set(split[classes == name]) == {"train", "validation", "test"}
