"""Folders of images: packed once, packed again when they change, damage named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hml_core import datasets
from hml_core.config import RunConfig
from hml_core.datasets import imagefolder
from hml_core.errors import DataError, RunError
from hml_core.trainer import fit

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def tree(tmp_path) -> Path:
    """Three synthetic classes of 6×5 noise in different hues: 12 training and 4 test images each."""
    random = np.random.default_rng(0)
    root = tmp_path / "tree"
    for split, number in (("train", 12), ("test", 4)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 80, (5, 6, 3), dtype=np.uint8)
                pixels[..., label] += 150
                suffix = "png" if label else "PNG"
                Image.fromarray(pixels).save(folder / f"{index:02d}.{suffix}", format="png")
    return root


def config(**fields) -> RunConfig:
    base = {
        "dataset": "imagefolder",
        "imbalance_ratio": 4.0,
        "model": "resnet8",
        "epochs": 2,
        "batch_size": 8,
        "precision": "float32",
    }
    return RunConfig(**{**base, **fields})


def test_a_tree_becomes_a_long_tailed_data_set(tree):
    splits = datasets.load(config(), tree)
    assert splits.class_names == ("ant", "bee", "cat")
    assert splits.class_counts.tolist() == [12, 6, 3]
    assert splits.train.images.shape == (21, 5, 6, 3)
    assert np.bincount(splits.test.targets).tolist() == [4, 4, 4]
    assert splits.test.images[splits.test.targets == 2][..., 2].min() >= 150
    first = np.asarray(Image.open(tree / "test" / "bee" / "00.png"))
    assert (splits.test.images[4] == first).all()


def test_it_is_packed_once_and_again_when_it_changes(tree, monkeypatch):
    imagefolder.pack(tree)
    monkeypatch.setattr(imagefolder, "_decode", lambda *a: pytest.fail("packed again"))
    imagefolder.pack(tree)
    monkeypatch.undo()
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tree / "train" / "cat" / "99.png")
    imagefolder.pack(tree)
    whole = datasets.load(config(imbalance_type="natural"), tree)
    assert whole.class_counts.tolist() == [12, 12, 13]
    path = tree / "train" / "cat" / "99.png"
    Image.fromarray(np.full((5, 6, 3), 7, np.uint8)).save(path)
    os.utime(path, ns=(1, 1))
    again = datasets.load(config(imbalance_type="natural"), tree)
    assert (again.train.images[-1] == 7).all()


@pytest.mark.parametrize(
    "content",
    [
        {"index.json": "{}"},
        {"index.json": "{}", "app.js": "mine"},
        {"index.json": "{}", "train_images.npy": "", "my notes.txt": "mine"},
        {"train_images.npy": "mine"},
        {"index.json/mine": "mine"},
    ],
)
def test_a_folder_that_is_not_all_ours_is_never_replaced(content, tree):
    folder = tree.with_name("tree.packed")
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with pytest.raises(DataError, match="is in the way and was not made by packing"):
        imagefolder.pack(tree)
    for name, text in content.items():
        assert (folder / name).read_text() == text


def test_a_pack_into_which_somebody_put_a_file_is_left_alone(tree):
    folder = imagefolder.pack(tree)
    (folder / "notes.txt").write_text("mine")
    (tree / "train" / "cat" / "00.png").unlink()
    with pytest.raises(DataError, match=r"it holds 'notes.txt'. Move it"):
        imagefolder.pack(tree)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    imagefolder.pack(tree)
    assert sorted(path.name for path in tree.parent.iterdir()) == ["tree", "tree.packed"]


def test_a_damaged_pack_is_made_again_and_a_linked_one_is_not_touched(tree):
    folder = imagefolder.pack(tree)
    whole = (folder / "index.json").read_bytes()
    (folder / "index.json").write_text("{")
    (folder / "test_images.npy").unlink()
    assert (imagefolder.pack(tree) / "index.json").read_bytes() == whole
    moved = folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(moved)
    imagefolder.pack(tree)  # it is the right one
    (tree / "train" / "cat" / "00.png").unlink()
    with pytest.raises(DataError, match="is a link to a pack of other images"):
        imagefolder.pack(tree)
    assert (moved / "index.json").read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n cut"])
def test_a_damaged_image_is_named_and_nothing_half_packed(content, tree):
    (tree / "train" / "bee" / "03.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bee/03\.png does not decode"):
        imagefolder.pack(tree)
    assert sorted(path.name for path in tree.parent.iterdir()) == ["tree"]


def test_a_truncated_image_is_named(tree):
    path = tree / "test" / "ant" / "00.PNG"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"ant/00\.PNG does not decode"):
        imagefolder.pack(tree)


def test_an_image_of_another_size_is_named(tree):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tree / "train" / "bee" / "05.png")
    with pytest.raises(DataError, match=r"bee/05.png has 8×8 pixels, others have 6×5"):
        imagefolder.pack(tree)


def test_trees_of_another_form_are_explained(tree, tmp_path):
    with pytest.raises(DataError, match=r"an image folder is <data_root>/\{train,test\}/<class>"):
        imagefolder.pack(tmp_path / "nowhere")
    with pytest.raises(DataError, match="needs `data_root`"):
        datasets.load(config())
    (tree / "test" / "dog").mkdir()
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(tree / "test" / "dog" / "0.png")
    with pytest.raises(DataError, match="No training images of the test classes dog"):
        imagefolder.pack(tree)


def test_a_record_made_from_other_images_is_refused(tree, tmp_path):
    run = fit(config(), data_root=tree, runs_root=tmp_path / "runs", progress=False)
    assert run.manifest["class_counts"] == [12, 6, 3]
    again = fit(config(), data_root=tree, runs_root=tmp_path / "runs", progress=False)
    assert again.run_id == run.run_id
    for path in sorted((tree / "train" / "ant").iterdir()):
        Image.fromarray(np.full((5, 6, 3), 9, np.uint8)).save(path, format="png")
    with pytest.raises(RunError, match="was made from other images"):
        fit(config(), data_root=tree, runs_root=tmp_path / "runs", progress=False)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the developers' folder of images is not here")
def test_real_cifar_images_pack_and_train(tmp_path):
    """A slice of the real CIFAR-10 JPEGs: the first images of each class as they come in the archive."""
    import tarfile

    taken: dict[tuple[str, str], int] = {}
    with tarfile.open(SHARED / "cifar10_jpg.tar.xz") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) != 4:
                continue
            key = (parts[1], parts[2])
            if taken.get(key, 0) < 8:
                taken[key] = taken.get(key, 0) + 1
                archive.extract(member, tmp_path, filter="data")
    root = tmp_path / "cifar10_jpg"
    assert set(taken.values()) == {8}
    real = config(imbalance_ratio=8.0, epochs=1)
    run = fit(real, data_root=root, runs_root=tmp_path / "runs", progress=False)
    assert run.class_counts.tolist() == [8, 6, 5, 4, 3, 2, 2, 1, 1, 1]
    assert len(run.predictions[1]) == 80
