"""iNaturalist 2018, from the official layout to a prepared copy: whole, resumable, nothing believed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep.inaturalist import archive, synthetic
from data_prep.inaturalist.images import Options, process
from data_prep.inaturalist.prepare import prepare
from hml_core.errors import ConfigError, DataError
from hml_lab.cli import main

SMALL = Options(size=48)


@pytest.fixture(scope="module")
def prepared(made, tmp_path_factory):
    return prepare(
        archive.read(made), tmp_path_factory.mktemp("prepared"), SMALL, workers=1, progress=False
    )


def edit(root, split, change):
    path = root / archive.ANNOTATIONS[split]
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# The archive --------------------------------------------------------------------------------------


def test_the_layout_is_the_one_that_torchvision_reads(made, tmp_path):
    """Its folder is called 2018; the targets that it finds are ours."""
    from torchvision.datasets import INaturalist

    shutil.copytree(made / "train_val2018", tmp_path / "2018")
    theirs = INaturalist(str(tmp_path), version="2018", target_type="full")
    found = {f"{theirs.all_categories[category]}/{name}" for category, name in theirs.index}
    assert found == set(archive.read(made).records["name"])


def test_torchvisions_name_of_the_folder_is_understood(root):
    before = archive.read(root).records["name"].tolist()
    (root / "train_val2018").rename(root / "2018")
    found = archive.read(root)
    assert found.records["name"].tolist() == before
    assert found.records["path"].map(lambda path: path.is_file()).all()


def test_the_miniature_is_long_tailed_like_the_real_one(made):
    found = archive.read(made)
    train = found.records[found.records["split"] == "train"]
    counts = train["category"].value_counts()
    assert counts.max() / counts.min() >= 20
    assert len(found.categories) == len(counts) == 24
    validation = found.records[found.records["split"] == "validation"]
    assert set(validation["category"].value_counts()) == {3}
    assert found.synthetic


def test_missing_files_are_named_with_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"train_val2018/\), train2018.json, val2018.json.*120 GB"):
        archive.read(tmp_path)
    synthetic.make(tmp_path / "a", images=300, side=16)
    (tmp_path / "a" / "val2018.json").unlink()
    with pytest.raises(DataError, match=r"Not found in .*: val2018.json\. Download"):
        archive.read(tmp_path / "a")


def repeated_image(content):
    content["images"].append(content["images"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][3].update(category_id=24), "category id 24 is out of range: .*23"),
        (lambda c: c["annotations"][3].update(category_id=-1), "category id -1 is out of range"),
        (lambda c: c["annotations"][3].update(category_id="4"), "`category_id` is '4'"),
        (lambda c: c["annotations"].pop(), "has no category"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "has several categories"),
        (repeated_image, "is there twice"),
        (lambda c: c["images"][0].update(file_name="train_val2018/../../x.jpg"), "is no path in"),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), "is no path in"),
        (lambda c: c["images"][0].pop("file_name"), "an image is not as expected"),
        (lambda c: c["categories"].pop(5), "expected category ids 0 … 22"),
        (lambda c: c["categories"][0].update(name="another"), "has other categories"),
        (lambda c: c.pop("images"), "is not an annotation file"),
        (lambda c: c.update(images=[], annotations=[]), "lists no image"),
    ],
)  # fmt: skip
def test_annotations_that_cannot_be_are_refused(change, message, root):
    edit(root, "validation", change)
    with pytest.raises(DataError, match=message):
        archive.read(root)


def test_a_half_downloaded_json_is_named(root):
    path = root / "train2018.json"
    path.write_text(path.read_text()[:1000])
    with pytest.raises(DataError, match=r"train2018.json' is not an annotation file"):
        archive.read(root)


def test_one_image_in_both_splits_is_refused(root):
    name = json.loads((root / "train2018.json").read_text())["images"][0]["file_name"]
    edit(root, "validation", lambda c: c["images"][0].update(file_name=name))
    with pytest.raises(DataError, match="is listed twice"):
        archive.read(root)


# Preparation --------------------------------------------------------------------------------------


def test_every_image_is_there_smaller_and_listed(prepared, made):
    records = archive.read(made).records
    assert prepared.manifest["id"].tolist() == records["id"].tolist()
    assert prepared.manifest["category"].tolist() == records["category"].tolist()
    for row in prepared.manifest.iloc[::40].itertuples():
        path = prepared.folder / row.file
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.output_sha256
        with Image.open(path) as image:
            assert image.size == (64, 48)  # of 85 × 64, the shorter side is now 48
    counts = prepared.categories
    assert counts["train_images"].sum() + counts["validation_images"].sum() == len(records)
    described = json.loads((prepared.folder / "prepared.json").read_text())
    assert described["synthetic"]
    assert (
        described["imbalance_ratio"] == counts["train_images"].max() / counts["train_images"].min()
    )
    assert described["bytes"] == sum(
        path.stat().st_size for path in (prepared.folder / "images").rglob("*.jpg")
    )


def test_a_small_image_stays_as_large_as_it_is(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    process(tmp_path / "a.jpg", tmp_path / "b.jpg", Options(size=48))
    assert Image.open(tmp_path / "b.jpg").size == (40, 30)


def test_size_0_copies_byte_by_byte(tmp_path):
    Image.fromarray(np.zeros((30, 40, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    process(tmp_path / "a.jpg", tmp_path / "b.jpg", Options(size=0))
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()


def test_a_large_jpeg_is_resized_as_if_decoded_whole(tmp_path):
    """The decoder's shortcut may cost a little sharpness, no more."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    large = coarse.resize((1600, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=95)
    process(tmp_path / "a.jpg", tmp_path / "b.jpg", Options(size=100, quality=95))
    whole = np.asarray(Image.open(tmp_path / "a.jpg").resize((133, 100), Image.Resampling.LANCZOS))
    ours = np.asarray(Image.open(tmp_path / "b.jpg"))
    assert np.abs(ours.astype(int) - whole).mean() < 3


def test_damaged_and_missing_images_are_named_and_the_rest_goes_on(root, tmp_path):
    records = archive.read(root).records
    counts = records[records["split"] == "train"]["category"].value_counts()
    frequent = records[(records["category"] == counts.index[0]) & (records["split"] == "train")]
    truncated, gone = frequent["path"].iloc[:2]
    truncated.write_bytes(truncated.read_bytes()[:300])
    gone.unlink()
    made = prepare(archive.read(root), tmp_path / "out", SMALL, workers=1, progress=False)
    assert made.rejected["id"].tolist() == frequent["id"].iloc[:2].tolist()
    assert made.rejected["reason"].tolist()[0].startswith("does not decode")
    assert made.rejected["reason"].tolist()[1].startswith("cannot be read: No such file")
    assert len(made.manifest) == len(records) - 2
    listed = pd.read_csv(tmp_path / "out" / "rejected.csv")
    pd.testing.assert_frame_equal(listed, made.rejected)


def test_a_second_call_does_only_what_is_missing(root, tmp_path, monkeypatch):
    first = prepare(archive.read(root), tmp_path / "out", SMALL, workers=1, progress=False)
    kept = [tmp_path / "out" / name for name in first.manifest["file"]]
    kept[0].unlink()
    stamps = {path: path.stat().st_mtime_ns for path in kept[1:]}
    again = prepare(archive.read(root), tmp_path / "out", SMALL, workers=1, progress=False)
    assert again.done_before == len(kept) - 1
    assert kept[0].is_file()
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    pd.testing.assert_frame_equal(first.manifest, again.manifest)


def test_a_category_without_training_images_is_refused(root, tmp_path):
    records = archive.read(root).records
    train = records[records["split"] == "train"]
    rarest = train["category"].value_counts().index[-1]
    for path in train[train["category"] == rarest]["path"]:
        path.unlink()
    with pytest.raises(DataError, match="No training image is left of the category 'Synthetica"):
        prepare(archive.read(root), tmp_path / "out", SMALL, workers=1, progress=False)
    assert not (tmp_path / "out" / "prepared.json").exists()
    assert (tmp_path / "out" / "rejected.csv").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": -1}, "`size`"),
        ({"size": 10**6}, "`size`"),
        ({"quality": 0}, "`quality`"),
        ({"quality": 101}, "`quality`"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Options(**options)


def test_other_options_need_another_folder(prepared, made):
    with pytest.raises(DataError, match=r"prepared with other options .*size: 48, not 32"):
        prepare(archive.read(made), prepared.folder, Options(size=32), workers=1, progress=False)


def test_too_little_room_is_said_before_anything_is_written(made, tmp_path, monkeypatch):
    from data_prep.inaturalist import prepare as module

    monkeypatch.setattr(module, "BYTES_AT_256", 10**15)
    with pytest.raises(DataError, match=r"images of 48 pixels may take .* GB, and .* left"):
        prepare(archive.read(made), tmp_path / "out", SMALL, workers=1, progress=False)
    assert not (tmp_path / "out" / "images").exists()


def test_made_up_images_do_not_go_among_other_files(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(DataError, match="holds other files"):
        synthetic.make(tmp_path, images=300)
    with pytest.raises(ConfigError, match="Expected more images for 24 categories, got 20"):
        synthetic.make(tmp_path / "new", images=20)


def test_the_command_says_what_it_did(tmp_path):
    command = ["prepare", "inat2018", "--data-root", str(tmp_path / "a"), "--size", "32"]
    result = CliRunner().invoke(main, [*command, "--synthetic", "300", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "training and 72 validation images, 24 classes" in result.output
    assert "SYNTHETIC" in result.output
    result = CliRunner().invoke(main, ["prepare", "inat2018", "--data-root", str(tmp_path)])
    assert result.exit_code == 1
    assert "Download train_val2018.tar.gz" in result.output


def test_a_worker_imports_neither_torch_nor_pandas():
    modules = "data_prep.worker, data_prep.inaturalist.images"
    code = f"import sys, {modules}; print({{'torch', 'pandas'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
