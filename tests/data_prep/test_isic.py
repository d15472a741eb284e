"""Preparation of ISIC: archives read or refused, lesions kept together, damage reported, work resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep import synthetic as made_up
from data_prep.isic import archive, images, splits, synthetic
from data_prep.isic.prepare import prepare
from hml_core.errors import ConfigError, DataError
from hml_lab.cli import main

IMAGES = 120
SMALL = images.Options(size=24, format="png")
LAYOUT = archive.ARCHIVES["isic2018"]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A synthetic archive that no test changes."""
    root = tmp_path_factory.mktemp("isic") / "archive"
    return synthetic.make("isic2018", root, IMAGES, side=48)


@pytest.fixture
def root(pristine, tmp_path):
    """A copy of the archive: links to its images, its own CSV files."""
    target = tmp_path / "archive"
    for path in pristine.rglob("*"):
        copied = target / path.relative_to(pristine)
        if path.is_dir():
            copied.mkdir(parents=True)
        elif path.suffix == ".jpg":
            copied.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copied)
        else:
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
    return target


def change(root, name, edit):
    """Rewrite one of an archive's CSV files."""
    (path,) = root.rglob(name)
    edit(pd.read_csv(path)).to_csv(path, index=False)


def refused(root, *texts):
    with pytest.raises(DataError) as caught:
        archive.read("isic2018", root)
    for text in texts:
        assert text in str(caught.value)


# Reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["isic2018", "isic2019"])
def test_reads_what_the_challenge_ships(name, tmp_path):
    found = archive.read(name, synthetic.make(name, tmp_path / "a", 160, side=24))
    assert list(found.records) == ["id", "class", "lesion_id", "path"]
    assert found.synthetic
    assert found.unlisted == 0
    assert found.records["id"].is_monotonic_increasing
    assert all(path.is_file() for path in found.records["path"])
    counts = found.records["class"].value_counts()
    assert counts.idxmax() == "NV"
    assert counts.max() >= 5 * counts.min()
    assert found.records["lesion_id"].duplicated().any()
    assert (found.records["lesion_id"] == "").any() == (name == "isic2019")
    assert "UNK" not in found.classes  # a class of no image is no class


def test_a_missing_archive_says_what_to_download(tmp_path):
    refused(
        tmp_path, "ISIC2018_Task3_Training_Input.zip", "challenge.isic-archive.com", str(tmp_path)
    )


@pytest.mark.parametrize("name", [LAYOUT.ground_truth, LAYOUT.lesions])
def test_a_missing_csv_is_named(root, name):
    next(root.rglob(name)).unlink()
    refused(root, name)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda f: f.drop(columns="DF"), "lacks the column(s) DF"),
        (lambda f: f.rename(columns={"image": "picture"}), "lacks the column(s) image"),
        (lambda f: f.assign(MEL=1.0, NV=1.0), "is not one-hot"),
        (lambda f: f.assign(NV=0.5), "is not one-hot"),
        (lambda f: f.assign(NV="yes"), "no numbers"),
        (lambda f: pd.concat([f, f.tail(2)]), "twice"),
        (lambda f: f.head(0), "lists no image"),
        (lambda f: f.assign(image=[None, *f["image"][1:]]), "without an image"),
        (lambda f: f.assign(image=["../../escape", *f["image"][1:]]), "no name"),
        (lambda f: pd.concat([f, f["MEL"]], axis=1), "several columns MEL. Keep one"),
    ],
    ids=[
        "column",
        "image",
        "two",
        "half",
        "text",
        "twice",
        "empty",
        "nameless",
        "traversal",
        "column twice",
    ],
)
def test_ground_truth_that_is_not_the_challenges_is_refused(root, edit, said):
    change(root, LAYOUT.ground_truth, edit)
    refused(root, LAYOUT.ground_truth, said)


def test_a_header_with_blanks_over_ids_that_are_numbers(root):
    (path,) = root.rglob(LAYOUT.lesions)
    truth, lesions = pd.read_csv(next(root.rglob(LAYOUT.ground_truth))), pd.read_csv(path)
    known = archive.read("isic2018", root).records
    numbers = {name: str(n) for n, name in enumerate(truth["image"])}
    for image in root.rglob("ISIC_*.jpg"):
        image.rename(image.with_stem(numbers[image.stem]))
    for file, table in ((path, lesions), (next(root.rglob(LAYOUT.ground_truth)), truth)):
        table["image"] = table["image"].map(numbers)
        table.rename(columns={"image": " image"}).to_csv(file, index=False)
    found = archive.read("isic2018", root).records
    expected = known.assign(id=known["id"].map(numbers)).sort_values("id", ignore_index=True)
    columns = ["id", "class", "lesion_id"]
    pd.testing.assert_frame_equal(found[columns], expected[columns])


def test_a_csv_of_binary_rubbish_is_refused(root):
    next(root.rglob(LAYOUT.lesions)).write_bytes(b"\xff\xfe\x00\x01" * 50)
    refused(root, LAYOUT.lesions)


def test_images_that_no_row_names_are_counted(root):
    Image.new("RGB", (8, 8)).save(root / LAYOUT.images / "ISIC_9999999.jpg")
    assert archive.read("isic2018", root).unlisted == 1


def test_an_unknown_challenge_is_refused(root):
    with pytest.raises(DataError, match="isic2018, isic2019"):
        archive.read("isic2017", root)


def test_made_up_images_do_not_go_among_real_ones(root):
    (root / made_up.MARK).unlink()
    with pytest.raises(DataError, match="other files"):
        synthetic.make("isic2018", root, IMAGES)


# Splits -----------------------------------------------------------------------------------------


def records(lesions: int = 400, seed: int = 0) -> pd.DataFrame:
    """Images of lesions with one to six images each, a fifth of them without an id."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(lesions):
        kind = random.choice(["NV", "MEL", "DF"], p=[0.7, 0.25, 0.05])
        known = random.random() < 0.8
        for _ in range(random.integers(1, 7) if known else 1):
            rows.append((f"i{len(rows):05d}", kind, f"l{number}" if known else ""))
    return pd.DataFrame(rows, columns=["id", "class", "lesion_id"])


@pytest.mark.parametrize("seed", range(5))
def test_no_lesion_straddles_and_every_class_is_shared_out(seed):
    frame = records(seed=seed)
    split = splits.by_lesion(frame, seed)
    assert splits.straddling(frame, split)["straddling"] == 0
    assert splits.straddling(frame, split)["leaked_images"] == 0
    shares = pd.crosstab(frame["class"], split, normalize="index")
    assert shares.loc["NV", list(splits.SPLITS)].to_numpy() == pytest.approx(
        splits.FRACTIONS, abs=0.02
    )
    assert (shares > 0).all().all()


def test_a_class_of_three_lesions_is_in_every_split():
    frame = records()
    rare = pd.DataFrame({"id": ["r1", "r2", "r3"], "class": "VASC", "lesion_id": ["a", "b", "c"]})
    frame = pd.concat([frame, rare], ignore_index=True)
    assert set(splits.by_lesion(frame, 0)[frame["class"] == "VASC"]) == set(splits.SPLITS)


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    frame = records()
    split = splits.by_lesion(frame, 3)
    shuffled = frame.sample(frac=1, random_state=1)
    assert splits.by_lesion(shuffled, 3).sort_index().equals(split)
    assert not splits.by_lesion(frame, 4).equals(split)


def test_the_leak_of_a_split_by_image_is_counted():
    frame = pd.DataFrame(
        {"id": list("abcdef"), "class": "NV", "lesion_id": ["x", "x", "y", "y", "", ""]}
    )
    split = pd.Series(["train", "test", "train", "train", "train", "test"])
    assert splits.straddling(frame, split) == {
        "images": 6,
        "images_with_lesion": 4,
        "lesions": 2,
        "several_images": 2,
        "straddling": 1,
        "leaked_images": 1,
    }
    assert splits.straddling(records(), splits.by_image(records(), 0))["straddling"] > 50


def test_a_given_split_is_used(root, tmp_path):
    found = archive.read("isic2018", root)
    ids = found.records["id"]
    names = np.array(["train", "val", "test"])[np.arange(len(ids)) % 3]
    given = pd.DataFrame({"id": ids, "split": names}).iloc[:60]
    given.to_csv(tmp_path / "split.csv", index=False)
    made = prepare(found, tmp_path / "out", SMALL, split_csv=tmp_path / "split.csv", progress=False)
    assert len(made.manifest) == 60
    used = made.manifest.set_index("id")["split"].replace({"validation": "val"})
    assert used.to_dict() == given.set_index("id")["split"].to_dict()
    assert made.leak["this split"]["straddling"] > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,part\nISIC_0024306,train\n", "split"),
        ("id,split\nISIC_0024306,training\n", "training"),
        ("id,split\nISIC_1,train\n", "ISIC_1"),
        ("id,split\nISIC_0024306,train\nISIC_0024306,test\n", "twice"),
        ("id,split,split\nISIC_0024306,train,test\n", "several columns split"),
        ("id,split\n0,ISIC_0024306,train\n", "line 2"),
        ("", "Cannot read"),
    ],
)
def test_a_wrong_split_is_refused_before_any_image_is_touched(root, tmp_path, text, said):
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        prepare(archive.read("isic2018", root), tmp_path / "out", split_csv=tmp_path / "split.csv")
    assert not (tmp_path / "out").exists()


# One image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 2, 4])
@pytest.mark.parametrize("constancy", ["gray_world", "shades_of_gray", "none"])
def test_a_channel_that_is_black_gives_an_image_and_not_nan(tmp_path, constancy, segments):
    pixels = np.full((40, 60, 3), (90, 0, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    options = images.Options(constancy=constancy, segments=segments, size=20, format="png")
    found = images.process(tmp_path / "in.png", tmp_path / "out.png", options)
    made = np.asarray(Image.open(tmp_path / "out.png"))
    assert made.shape == (20, 20, 3)
    assert (made[..., 1] == 0).all()
    assert (made[..., 0] > 0).all()
    assert found["sum"][0] == pytest.approx(made[..., 0].sum() / 255)


def test_size_is_that_of_the_shorter_side():
    pixels = np.zeros((30, 60, 3), dtype=np.uint8)
    assert images.transform(pixels, images.Options(size=10, crop=False)).size == (20, 10)
    assert images.transform(pixels, images.Options(size=45)).size == (45, 45)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("constancy", "grey"), ("p", 0.5), ("p", float("inf")), ("p", float("nan")), ("segments", 3),
        ("crop", "yes"), ("size", 0), ("size", 2.5), ("size", 10**6), ("format", "gif"),
        ("quality", 0), ("quality", 101), ("size", "300"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(field, value):
    with pytest.raises(ConfigError, match=f"`{field}`"):
        images.Options(**{field: value})


# All images -------------------------------------------------------------------------------------


def test_manifest_and_normalisation_describe_the_files(root, tmp_path):
    made = prepare(archive.read("isic2018", root), tmp_path / "out", SMALL, progress=False)
    described = json.loads((made.folder / "prepared.json").read_text())
    assert described["synthetic"] is True
    train = made.manifest[made.manifest["split"] == "train"]
    pixels = np.stack([np.asarray(Image.open(made.folder / file)) for file in train["file"]]) / 255
    assert described["mean"] == pytest.approx(pixels.mean(axis=(0, 1, 2)).tolist())
    assert described["std"] == pytest.approx(pixels.std(axis=(0, 1, 2)).tolist())
    assert described["leak"]["this split"]["straddling"] == 0
    assert described["leak"]["image by image"]["straddling"] > 0
    assert pd.read_csv(made.folder / "manifest.csv")["id"].tolist() == sorted(made.manifest["id"])


def test_damaged_and_missing_images_are_named_and_the_rest_goes_on(root, tmp_path):
    folder = root / LAYOUT.images
    names = sorted(path.name for path in folder.glob("*.jpg"))
    (folder / names[0]).unlink()
    for number, content in ((1, b""), (2, b"\xff\xd8 no image"), (3, None)):
        data = (folder / names[number]).read_bytes()
        (folder / names[number]).unlink()  # the link, not the pristine file
        (folder / names[number]).write_bytes(data[: len(data) // 2] if content is None else content)
    found = archive.read("isic2018", root)
    made = prepare(found, tmp_path / "out", SMALL, progress=False)
    rejected = pd.read_csv(made.folder / "rejected.csv")
    assert rejected["file"].tolist() == names[:4]
    assert rejected["reason"].str.contains("cannot be read|does not decode").all()
    assert len(made.manifest) == len(names) - 4
    mended = next(path for path in folder.glob("*.jpg") if path.name not in names[:4])
    (folder / names[3]).write_bytes(mended.read_bytes())
    again = prepare(found, tmp_path / "out", SMALL, progress=False)
    assert len(again.rejected) == 3
    assert again.done_before == len(names) - 4


def test_other_options_do_not_go_into_the_same_folder(root, tmp_path):
    found = archive.read("isic2018", root)
    prepare(found, tmp_path / "out", SMALL, progress=False)
    before = (tmp_path / "out" / "prepared.json").read_bytes()
    with pytest.raises(DataError, match="size: 24, not 32"):
        prepare(found, tmp_path / "out", images.Options(size=32, format="png"), progress=False)
    assert (tmp_path / "out" / "prepared.json").read_bytes() == before


def test_changed_and_deleted_files_are_done_again(root, tmp_path):
    found = archive.read("isic2018", root)
    made = prepare(found, tmp_path / "out", SMALL, progress=False)
    first, second = made.manifest["file"][:2]
    (made.folder / first).unlink()
    (made.folder / second).write_bytes(b"damaged")
    again = prepare(found, tmp_path / "out", SMALL, progress=False)
    assert again.done_before == len(made.manifest) - 2
    assert again.manifest.equals(made.manifest)


@pytest.mark.slow
@pytest.mark.begun_first
def test_killed_and_started_again_it_ends_the_same(tmp_path):
    root = synthetic.make("isic2018", tmp_path / "archive", 250, side=96)
    whole = prepare(archive.read("isic2018", root), tmp_path / "whole", SMALL, progress=False)
    command = ["-m", "hml_core", "prepare", "isic2018", "--data-root", str(root)]
    command += ["--output", str(tmp_path / "killed"), "--size", "24", "--format", "png"]
    started = subprocess.Popen([sys.executable, *command, "--workers", "1"], start_new_session=True)
    journal = tmp_path / "killed" / "journal.jsonl"
    for _ in range(3000):
        if journal.exists() and journal.read_bytes().count(b"\n") > 20:
            break
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "killed" / "prepared.json").exists()
    with journal.open("ab") as stream:
        stream.write(b'{"id": "ISIC_00')  # what a crash may leave
    again = prepare(archive.read("isic2018", root), tmp_path / "killed", SMALL, progress=False)
    assert 20 <= again.done_before < len(whole.manifest)
    assert again.manifest.equals(whole.manifest)
    for name in ("manifest.csv", "prepared.json", "rejected.csv"):
        ended = (tmp_path / "killed" / name).read_bytes()
        assert ended == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("workers", [0, -1, True])
def test_workers_below_one_are_refused(root, tmp_path, workers):
    with pytest.raises(ConfigError, match="workers"):
        prepare(archive.read("isic2018", root), tmp_path / "out", workers=workers)


def test_nothing_left_of_a_split_is_an_error(root, tmp_path):
    for number, path in enumerate(sorted((root / LAYOUT.images).glob("*.jpg"))):
        path.unlink()
        if number:
            path.write_bytes(b"%!PS")
    said = r"No image is left .* of \d+ were rejected \(\d+ does not decode: .*; 1 cannot be read: No such"
    with pytest.raises(DataError, match=said):
        prepare(archive.read("isic2018", root), tmp_path / "out", SMALL, progress=False)


def test_workers_do_not_import_the_whole_package():
    """Memory below 300 MiB a worker: torch alone would take it."""
    code = "import sys, data_prep.isic.images; print({'torch', 'pandas'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.strip() == "set()"


# The command ------------------------------------------------------------------------------------


def test_the_command_prepares_and_says_what_leaks(tmp_path):
    command = ["prepare", "isic2019", "--data-root", str(tmp_path / "a"), "--synthetic", "160"]
    result = CliRunner().invoke(main, [*command, "--size", "24", "--segments", "2"])
    assert result.exit_code == 0, result.output
    assert "8 classes" in result.output
    assert "SYNTHETIC" in result.output
    assert "0 straddle this split" in result.output
    described = json.loads((tmp_path / "a" / "prepared" / "prepared.json").read_text())
    assert described["options"]["segments"] == 2
    assert described["options"]["size"] == 24


def test_the_command_refuses_with_one_line(tmp_path):
    result = CliRunner().invoke(main, ["prepare", "isic2018", "--data-root", str(tmp_path / "no")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: There is no folder")
    bad = [*["prepare", "isic2018", "--data-root", str(tmp_path)], "--p", "0"]
    result = CliRunner().invoke(main, bad)
    assert result.exit_code == 1
    assert "`p`" in result.output
