"""Folders of images: packed once, packed again when they change, damage named."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from data_prep.cli import prepare
from hml_core import datasets
from hml_core.config import RunConfig, grids
from hml_core.datasets import imagefolder, packs, trees
from hml_core.errors import ConfigError, DataError, RunError
from hml_core.system import files as storage
from hml_core.system import images as opener
from hml_core.system import yaml_files
from hml_core.trainer import fit

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PIXELS = 3 * 12 * 5 * 6  # of the training images of the tree


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
        "imbalance_ratio": None if fields.get("imbalance_type") == "natural" else 4.0,
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
    monkeypatch.setattr(packs, "write", lambda *a, **k: pytest.fail("packed again"))
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


def test_a_file_of_the_packs_name_is_left_alone(tree):
    tree.with_name("tree.packed").write_text("mine")
    with pytest.raises(DataError, match=r"tree\.packed' is in the way and no folder: move it"):
        imagefolder.pack(tree)
    assert tree.with_name("tree.packed").read_text() == "mine"


def test_a_split_without_an_image_that_is_read_says_what_there_is(tree):
    for path in (tree / "test").rglob("*.*"):
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"no .*images in '.*test'/<class>/, but 12 \.heic \(test/"):
        imagefolder.pack(tree)
    shutil.rmtree(tree / "test")
    (tree / "test").mkdir()
    with pytest.raises(DataError, match=r"images in '.*test'/<class>/\."):
        imagefolder.pack(tree)
    shutil.rmtree(tree / "test")
    shutil.rmtree(tree / "train")
    with pytest.raises(DataError, match=r"an image folder is <data_root>/\{train,test\}.*jpg\.$"):
        imagefolder.pack(tree)


def test_images_of_which_none_can_be_used_are_told_by_the_first(tree):
    for path in tree.rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"None of the 48 images .* the first: .*test/ant/00\.PNG does"
    ):
        imagefolder.pack(tree)


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


def picture(path: Path, size: tuple[int, int] = (6, 5), seed: int = 0) -> Path:
    """Noise in a file, drawn from the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, format="png")
    return path


def test_a_folder_is_kept_as_it_is_unless_a_ratio_is_asked_for(tree):
    for number in range(20, 40):
        picture(tree / "train" / "bee" / f"{number}.png", seed=number)
    kept = RunConfig(dataset="imagefolder")
    assert (kept.imbalance_type, kept.imbalance_ratio) == ("natural", 1.0)
    assert kept.run_id.startswith("imagefolder-natural-ce-s0-")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert datasets.load(kept, tree).class_counts.tolist() == [12, 32, 12]
    asked = config(imbalance_ratio=4.0)
    assert asked == config(imbalance_ratio=4.0, imbalance_type="exp")
    with pytest.warns(UserWarning, match="of 56 images it keeps 21 and throws 35 away") as said:
        assert datasets.load(asked, tree).class_counts.tolist() == [12, 6, 3]
    assert "have 12 to 32 training images" in str(said[0].message)


def test_a_link_to_a_class_is_no_class_beside_it(tree, tmp_path):
    """Whatever name comes first; what lies elsewhere is a class, once."""
    classes = sorted(path.name for path in (tree / "train").iterdir())
    elsewhere = tmp_path / "elsewhere"
    picture(elsewhere / "0.png", seed=7)
    for link, target in (("a_link", classes[-1]), ("out", elsewhere), ("out_again", elsewhere)):
        (tree / "train" / link).symlink_to(target)
    with pytest.warns(
        UserWarning, match=r"2 links to another class.*train/a_link.*train/out_again"
    ):
        splits = datasets.load(RunConfig(dataset="imagefolder"), tree)
    assert sorted(splits.class_names) == sorted([*classes, "out"])


def test_a_test_that_is_the_training_set_is_refused(tree):
    (tree / "test").rename(tree / "unused")
    (tree / "test").symlink_to("train")
    with pytest.raises(DataError, match="are one folder"):
        datasets.load(RunConfig(dataset="imagefolder"), tree)


@pytest.mark.parametrize("name", ["imagefolder", "small_folder"])
def test_a_ratio_is_heeded_or_refused(name):
    assert RunConfig(dataset=name).imbalance_type == "natural"
    assert RunConfig(dataset=name, imbalance_ratio=3.0).imbalance_type == "exp"
    with pytest.raises(ConfigError, match=r"keeps all images .* no `imbalance_ratio`, got 3"):
        RunConfig(dataset=name, imbalance_ratio=3.0, imbalance_type="natural")


@pytest.mark.parametrize("name", ["folder", "isic2018", "inat2018"])
def test_a_data_set_that_is_never_cut_takes_no_ratio(name):
    with pytest.raises(ConfigError, match=r"keeps all images .* no `imbalance_ratio`, got 50"):
        RunConfig(dataset=name, imbalance_ratio=50.0)


def test_a_config_that_was_stored_with_a_ratio_without_effect_is_read():
    fields = json.loads(RunConfig(dataset="folder").to_json()) | {"imbalance_ratio": 50.0}
    stored = RunConfig.from_json(json.dumps(fields))
    assert stored.run_id.startswith("folder-natural50-")
    with pytest.raises(ConfigError, match="keeps all images"):
        RunConfig(**fields)


def test_the_batches_of_stored_folder_runs_still_describe_them(repository):
    made = set()
    for path in sorted((repository / "notebooks" / "batches").glob("cifar100_lt_full*.yaml")):
        values = yaml_files.read(path)
        if values.get("dataset") == "imagefolder":
            made |= {one.run_id for one in grids(values)}
    stored = {path.name for path in (repository / "results/records/cifar100_lt_full").iterdir()}
    assert len(stored & made) > 20


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", ".Trash-0", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found"]
)
def test_folders_of_systems_are_no_classes_and_no_part_of_one(name, tree):
    before = imagefolder.index_of(imagefolder.pack(tree))
    picture(tree / "train" / name / "0.png")
    picture(tree / name / "train" / "ant" / "0.png")
    picture(tree / "train" / "ant" / name / "0.png")
    picture(tree / "test" / name / "0.png")
    assert imagefolder.index_of(imagefolder.pack(tree)) == before


def test_what_is_in_a_class_folder_and_not_read_is_named(tree):
    (tree / "train" / "dog").mkdir()
    (tree / "train" / "dog" / "notes.heic").write_bytes(b"x")
    picture(tree / "train" / "ant" / "deeper" / "0.png")
    with pytest.warns(UserWarning, match="Not read in"):
        folder = imagefolder.pack(tree)
    assert imagefolder.index_of(folder)["left_out"] == [
        f"1 .heic (train/dog/notes.heic; {opener.NOT_READ['.heic']})",
        "1 class folders without an image (train/dog)",
        "1 images in no or deeper folders (train/ant/deeper/0.png)",
    ]


def test_a_folder_without_splits_is_told_what_makes_them(tree):
    with pytest.raises(DataError, match=r"without a split \(ant, bee, cat\): `hml prepare folder"):
        imagefolder.pack(tree / "train")


def test_classes_that_differ_in_case_alone_or_are_one_are_refused(tree):
    (tree / "train" / "Bee").mkdir()
    picture(tree / "train" / "Bee" / "0.png")
    with pytest.raises(DataError, match=r"classes 'Bee' and 'bee' .* differ in case"):
        imagefolder.pack(tree)
    for split in ("train", "test"):
        for name in ("Bee", "bee", "cat"):
            shutil.rmtree(tree / split / name, ignore_errors=True)
    with pytest.raises(DataError, match=r"two classes or more .* found one, 'ant'"):
        imagefolder.pack(tree)


@pytest.mark.parametrize("odd", [b"caf\xe9", b"caf\r"])
def test_classes_that_are_printed_alike_are_told_before_they_are_packed(odd, tree):
    """No run could tell them apart, and nothing that it is made of says which is which."""
    for name in (os.fsdecode(odd), trees.shown(os.fsdecode(odd))):
        for split in ("train", "test"):
            try:
                (tree / split / name).mkdir()
            except OSError:
                pytest.skip("this file system has no such names")
            picture(tree / split / name / "0.png")
    with pytest.raises(DataError, match=r"Classes in .* have one name where it is printed: caf\\"):
        imagefolder.pack(tree)
    assert not tree.with_name(f"{tree.name}.packed").exists()


def test_names_that_are_not_utf_8_are_read_and_shown(tree, tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    for split in ("train", "test"):
        (tree / split / "ant").rename(tree / split / odd)
    picture(tree / "train" / odd / os.fsdecode(b"\xff.png"))
    splits = datasets.load(config(imbalance_type="natural"), tree)
    assert splits.class_names == ("bee", "caf\\xe9", "cat")
    assert splits.class_counts.tolist() == [12, 13, 12]
    run = fit(
        config(imbalance_type="natural"),
        data_root=tree,
        runs_root=tmp_path / "runs",
        progress=False,
    )
    assert run.class_names[1] == "caf\\xe9"
    (tree / "train" / odd / os.fsdecode(b"\xfe.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"caf\\xe9/\\xfe\.png does not decode") as refused:
        imagefolder.pack(tree)
    str(refused.value).encode()  # can be printed anywhere


def test_most_images_decide_the_size_and_the_headers_tell(tree, monkeypatch):
    huge = Image.new("RGB", (30_000, 4_000))  # 360 MB of pixels, sorted first
    huge.save(tree / "train" / "ant" / "!.png", format="png", compress_level=1)
    monkeypatch.setattr(opener, "load", lambda path: pytest.fail("decoded"))
    monkeypatch.setattr(np.lib.format, "open_memmap", lambda *a, **k: pytest.fail("took memory"))
    with pytest.raises(
        DataError, match=r"ant/!\.png has 30000×4000 pixels, others have 6×5"
    ) as said:
        imagefolder.pack(tree)
    assert "hml prepare folder" in str(said.value)


def test_images_that_change_while_they_are_packed_are_said(tree, monkeypatch):
    load = opener.load

    def meanwhile(path):
        if path.name == "03.png":
            os.utime(path, ns=(1, 1))
        return load(path)

    monkeypatch.setattr(opener, "load", meanwhile)
    with pytest.raises(DataError, match="changed while they were packed: try again"):
        imagefolder.pack(tree)
    imagefolder.pack(tree)


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_more_images_than_fit_are_refused_before_any_is_decoded(place, tree, monkeypatch):
    if place == "disk":
        free = shutil.disk_usage(tree)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    else:
        monkeypatch.setattr(packs, "_memory", lambda: 1000)
    monkeypatch.setattr(opener, "load", lambda path: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"48 images of 6×5 pixels take .* GB") as said:
        imagefolder.pack(tree)
    assert "dataset folder" in str(said.value)
    assert sorted(path.name for path in tree.parent.iterdir()) == ["tree"]


def test_the_pack_of_a_read_only_tree_goes_elsewhere_and_is_trained_on_alone(tree, tmp_path):
    expected = datasets.load(config(), tree).manifest()
    shutil.rmtree(tree.with_name("tree.packed"))
    result = CliRunner().invoke(
        prepare, ["imagefolder", "--data-root", str(tree), "--pack-root", str(tmp_path / "own")]
    )
    folder = tmp_path / "own" / "tree.packed"
    assert f"--dataset imagefolder --data-root {folder}" in result.output
    assert sorted(path.name for path in tree.parent.iterdir()) == ["own", "tree"]
    shutil.rmtree(tree)
    assert datasets.load(config(), folder).manifest() == expected
    (folder / "test_targets.npy").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged: make it again"):
        datasets.load(config(), folder)


def test_a_pack_that_cannot_be_written_says_how_it_can(tree, monkeypatch):
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(DataError, match=r"Permission denied.*--pack-root FOLDER"):
        imagefolder.pack(tree)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_what_a_killed_packing_left_goes_with_the_next_one(tree, monkeypatch):
    """It is as large as all images together. What somebody put beside it stays."""
    foreign = tree.with_name(".tree.packed.mine")
    foreign.mkdir()
    before = datasets.load(config(), tree).manifest()
    shutil.copyfile(tree / "train" / "ant" / "00.PNG", tree / "train" / "ant" / "new.png")
    for moment in ("_decode", "_replace"):  # while it is made, and when it has the old one's place
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(packs, moment, lambda *_: os._exit(9))
            imagefolder.pack(tree)
        os.waitpid(child, 0)
        assert len(list(tree.parent.iterdir())) == 4
    imagefolder.pack(tree)
    names = {path.name for path in tree.parent.iterdir()}
    assert names == {"tree", "tree.packed", foreign.name}
    assert datasets.load(config(), tree).manifest() != before


def test_an_older_pack_is_back_where_the_new_one_cannot_take_its_place(tree, monkeypatch):
    before = (imagefolder.pack(tree) / "index.json").read_bytes()
    shutil.copyfile(tree / "train" / "ant" / "00.PNG", tree / "train" / "ant" / "new.png")
    rename = os.rename

    def refuse(source, target):
        if Path(source).name == "new":
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(DataError, match=r"Cannot replace .*cross-device"):
        imagefolder.pack(tree)
    assert (tree.with_name("tree.packed") / "index.json").read_bytes() == before
    assert {path.name for path in tree.parent.iterdir()} == {"tree", "tree.packed"}


def test_a_process_lists_hashes_and_counts_once_and_notices_every_change(tree, monkeypatch):
    imagefolder.pack(tree)
    first = datasets.load(config(), tree)
    with monkeypatch.context() as patch:
        for owner, name in (
            (imagefolder, "_list"),
            (packs.storage, "sha256"),
            (packs, "histogram"),
        ):
            patch.setattr(owner, name, lambda *a, name=name: pytest.fail(f"{name} again"))
        again = datasets.load(config(), tree)
    assert again.manifest() == first.manifest()
    assert (again.mean, again.std) == (first.mean, first.std)
    picture(tree / "train" / "cat" / "new.png", seed=5).replace(tree / "train" / "cat" / "00.png")
    replaced = datasets.load(config(imbalance_type="natural"), tree)
    assert (replaced.train.images[24] == np.asarray(Image.open(tree / "train/cat/00.png"))).all()
    picture(tree / "train" / "cat" / "01.png", seed=6)  # in its place: its folder does not change
    written = datasets.load(config(imbalance_type="natural"), tree)
    assert (written.train.images[25] == np.asarray(Image.open(tree / "train/cat/01.png"))).all()
    damaged = tree.with_name("tree.packed") / "train_images.npy"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    datasets.load(config(), tree)
    assert damaged.read_bytes() == whole


def test_a_pack_without_counted_levels_is_read_with_the_same_bits(tree):
    splits = datasets.load(config(), tree)
    index = tree.with_name("tree.packed") / "index.json"
    fields = imagefolder.index_of(index.parent)
    del fields[packs.LEVELS]
    storage.write_json(index, storage.sealed(fields))
    before = index.read_bytes()
    old = datasets.load(config(), tree)
    assert index.read_bytes() == before  # as an older version wrote it
    assert (old.mean, old.std) == (splits.mean, splits.std)
    assert old.manifest()["sha256"] == splits.manifest()["sha256"]
    # As the versions before counted them: in floating point, the share of each level.
    images = packs.read(index.parent, "train").images
    counts = np.zeros((3, 256))
    for channel in range(3):
        counts[channel] += np.bincount(images[..., channel].ravel(), minlength=256)
    share, level = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    average = share @ level
    assert splits.mean == tuple(average.tolist())
    std = np.sqrt(np.maximum(share @ level**2 - average**2, 0))
    assert splits.std == tuple(np.maximum(std, 1 / 255).tolist())


@pytest.mark.parametrize(
    "fields",
    [
        {packs.LEVELS: None},
        {packs.LEVELS: "x"},
        {packs.LEVELS: [[1] * 10] * 3},
        {packs.LEVELS: [[1] * 256] * 3},
        {packs.LEVELS: [[-1] + [1] * 255] * 3},
        {packs.LEVELS: [[1], [1, 2], []]},
        {packs.LEVELS: [[10**30] * 256] * 3},
        # Of which 64-bit numbers are the right sum, and what is cut to whole numbers:
        {packs.LEVELS: [[2**63 - 1, 2**63 - 1, 2 + PIXELS, *[0] * 253]] * 3},
        {packs.LEVELS: [[PIXELS + 0.5, *[0] * 255]] * 3},
        {packs.LEVELS: [[str(PIXELS), *["0"] * 255]] * 3},
        {"class_names": None},
        {"class_names": [1, 2]},
    ],
)
def test_a_sealed_index_that_no_pack_has_is_damage(fields, tree):
    datasets.load(config(), tree)
    pack = tree.with_name("tree.packed")
    storage.write_json(
        pack / "index.json", storage.sealed({**imagefolder.index_of(pack), **fields})
    )
    with pytest.raises(DataError, match="is damaged: "):
        datasets.load(config(), pack)


def of_many(stream) -> None:
    many = {"descr": "<i8", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(stream, many)


@pytest.mark.parametrize("array", packs.ARRAYS)
@pytest.mark.parametrize(
    "write",
    [
        lambda stream: None,
        of_many,
        lambda stream: np.save(stream, np.array([{}], dtype=object)),
        lambda stream: np.savez(stream, np.zeros(3)),
        lambda stream: stream.write(b"PK\x03\x04 and so on"),
        lambda stream: stream.write(
            b"\x93NUMPY\x01\x00\x40\x00{'descr': '|u1', 'shape': (99".ljust(74)
        ),
    ],
)
def test_a_file_that_is_no_array_of_a_pack_is_named(write, array, tree):
    datasets.load(config(), tree)
    pack = tree.with_name("tree.packed")
    with (pack / array).open("wb") as stream:
        write(stream)
    index = imagefolder.index_of(pack)
    index["files"][array] = storage.sha256(pack / array)
    storage.write_json(pack / "index.json", storage.sealed(index))
    with pytest.raises(DataError, match=f"{array}' is no array of a pack"):
        datasets.load(config(), pack)


def test_the_validation_split_of_a_natural_set_is_drawn_and_spares_a_single_image(tree):
    for path in sorted((tree / "train" / "cat").iterdir())[1:]:
        path.unlink()
    natural = config(imbalance_type="natural", validation_fraction=0.25)
    with pytest.warns(UserWarning, match=r"class\(es\) cat have one image: it is trained on"):
        splits = datasets.load(natural, tree)
    assert splits.class_counts.tolist() == [9, 9, 1]
    assert np.bincount(splits.validation.targets, minlength=3).tolist() == [3, 3, 0]
    held = sorted(set(range(12)) - set(splits.train_indices.tolist()))
    assert held != [9, 10, 11]  # the last by name, as files of one sequence often are


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
