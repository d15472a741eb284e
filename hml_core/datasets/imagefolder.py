"""Any tree ``<root>/{train,test}/<class>/*`` of small images of one size and any format that is read.

The training set is kept as it is (``imbalance_type`` "natural"); who gives an ``imbalance_ratio`` asks for
a long-tailed subset, and is told what that throws away where the classes are not of one size.

The images are decoded once into ``<root>.packed`` beside the tree (:mod:`hml_core.datasets.packs`); a pack
may be made elsewhere and given in the tree's place, where that is read-only. What lies in the tree and is
not read, such as files of other suffixes or in deeper folders, is named.

What is noticed: every load, and every :func:`pack`, compares the names, sizes and times of change of all
files with those that were packed, and packs again where one was added, removed or changed. Loads after
the first one of a process, such as those of a sweep's runs, ask the system for the state of each folder
and file and list, read or hash nothing. A file that was changed and given its old size and time is not
noticed, and neither is any change of the tree where its pack was given in its place. The pack is compared
with its SHA-256 once in each process, and again when its own size or times change
(:func:`hml_core.datasets.packs.is_sound`). A record's manifest is always about the images that were
trained on.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hml_core.datasets import packs, trees
from hml_core.datasets.base import Splits, make_long_tailed
from hml_core.datasets.packs import SPLITS, index_of
from hml_core.datasets.registry import KEPT_UNLESS_ASKED, DatasetInfo, register
from hml_core.datasets.trees import shown
from hml_core.errors import DataError
from hml_core.system import files, threads
from hml_core.system import images as opener
from hml_core.system import paths as locations

__all__ = ["SPLITS", "index_of", "load", "pack"]


def load(config, data_root) -> Splits:
    """The tree, or the pack, at ``data_root`` for a run; a tree is packed where that has not been done.

    Raises
    ------
    DataError
        See :func:`pack`.
    """
    root = Path(data_root).resolve()
    folder = _known(root) or pack(root)
    index = index_of(folder)
    mean, std = packs.statistics(folder, index)
    train, test = (packs.read(folder, split) for split in SPLITS)
    return make_long_tailed(
        "imagefolder",
        train,
        test,
        class_names=tuple(index["class_names"]),
        imbalance_type=config.imbalance_type,
        imbalance_ratio=config.imbalance_ratio,
        subset_seed=config.subset_seed,
        validation_fraction=config.validation_fraction,
        mean=mean,
        std=std,
    )


def pack(root: str | Path, *, pack_root: str | Path | None = None, progress: bool = True) -> Path:
    """Decode the tree into ``<root>.packed`` unless that holds it already; returns that folder.

    Only a folder that was made here, and holds nothing else, is ever replaced.

    Parameters
    ----------
    root : path
        A tree; or a pack, which is checked.
    pack_root : path, optional
        The folder that the pack goes to; default: that of the tree.
    progress : bool

    Raises
    ------
    DataError
        Where something else is in the way; for a tree that is not of this form, with one class, or two
        whose names differ in case alone or are printed alike; for images that do not decode or are not of
        the size that most have, told by their headers before any memory is taken; for more of them than
        fit. The message names them.
    """
    root = Path(root).resolve()
    if packs.is_pack(root):
        if not packs.is_sound(root):
            raise DataError(f"The pack '{shown(root)}' is damaged: make it again from its images.")
        return root
    before = _state(_folders(root))
    found = _list(root)
    place = root.parent if pack_root is None else Path(pack_root)
    if locations.lies_in(place, root):
        raise DataError(
            f"The pack's folder '{shown(place)}' lies in the folder of the images: give one beside it."
        )
    folder = place / f"{root.name}.packed"
    packs.require_ours(folder)
    fingerprint = _fingerprint(found)
    if packs.is_sound(folder, fingerprint):
        _looked_at[root] = _Look(before, _states(root, found), folder, fingerprint)
        return folder
    if folder.is_symlink():
        raise DataError(f"{str(folder)!r} is a link to a pack of other images: remove the link.")
    names = sorted({image.class_name for image in found["train"]})
    place = {name: label for label, name in enumerate(names)}
    paths = {split: [root / image.name for image in images] for split, images in found.items()}
    shape = _shape_of_most([path for split in SPLITS for path in paths[split]])
    packs.require_room(sum(map(len, paths.values())), shape, folder)
    left_out = _left_out(root, found)
    if left_out:
        warnings.warn(f"Not read in '{shown(root)}': {', '.join(left_out)}.", stacklevel=2)
    packs.write(
        folder,
        paths,
        {
            split: np.array([place[image.class_name] for image in images], dtype=np.int64)
            for split, images in found.items()
        },
        shape,
        {
            "fingerprint": fingerprint,
            "class_names": [shown(name) for name in names],
            "left_out": left_out,
        },
        mode=root.stat().st_mode & 0o777 | 0o700,  # whoever may read the tree may read its pack
        progress=progress,
    )
    if _fingerprint(_list(root)) != fingerprint:
        raise DataError(
            f"The images in '{shown(root)}' changed while they were packed: try again once they are "
            "written."
        )
    _looked_at[root] = _Look(before, _states(root, found), folder, fingerprint)
    return folder


@dataclass(frozen=True)
class _Look:
    """What a process saw of a tree: its folders before their files were listed, each file's path, size and
    time of change, and the pack of these."""

    folders: dict[str, tuple[int, ...]]
    files: list[tuple[str, int, int]]
    pack: Path
    fingerprint: str


_looked_at: dict[Path, _Look] = {}


def _known(root: Path) -> Path | None:
    """The pack of a tree that this process has compared with it, where nothing has changed since."""
    if root not in _looked_at:
        return None
    look = _looked_at[root]
    unchanged = _state(look.folders) == look.folders and _are_unchanged(look.files)
    if unchanged and packs.is_sound(look.pack, look.fingerprint):
        return look.pack
    del _looked_at[root]
    return None


def _are_unchanged(files: list[tuple[str, int, int]]) -> bool:
    try:
        return all(
            (status := os.stat(path)).st_mtime_ns == time and status.st_size == size
            for path, size, time in files
        )
    except OSError:
        return False


def _states(root: Path, found: dict[str, list[_Image]]) -> list[tuple[str, int, int]]:
    return [
        (f"{root}/{image.name}", image.size, image.time)
        for images in found.values()
        for image in images
    ]


def _folders(root: Path) -> list[str]:
    """The tree's folder, its splits' and their classes'."""
    splits = [str(root / split) for split in SPLITS if (root / split).is_dir()]
    below = [
        entry.path for split in splits for entry in trees.entries(split) if trees.is_folder(entry)
    ]
    return [str(root), *splits, *below]


def _state(folders: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What changes in a folder when a file in it is added, removed, renamed or replaced."""
    found = {}
    for folder in folders:
        try:
            status = os.stat(folder)
        except OSError:
            continue
        found[folder] = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return found


@dataclass(frozen=True)
class _Image:
    """An image file of a tree: its name relative to it, its class, its size and time of change."""

    name: str
    class_name: str
    size: int
    time: int


def _list(root: Path) -> dict[str, list[_Image]]:
    """Image files of each split, by class and name."""
    found: dict[str, list[_Image]] = {}
    for split in SPLITS:
        if not (root / split).is_dir():
            raise DataError(_no_split(root, split))
        found[split] = [
            _image(entry, f"{split}/{folder.name}", folder.name)
            for folder in _classes(root / split)
            for entry in trees.entries(folder.path)
            if trees.is_image(entry.name) and not trees.is_folder(entry)
        ]
        if not found[split]:
            left_out = _left_out(root, found)
            but = f", but {', '.join(left_out)}" if left_out else ""
            raise DataError(
                f"There are no {', '.join(opener.FORMATS)} images in '{shown(root / split)}'/<class>/"
                f"{but}."
            )
    if os.path.realpath(root / "train") == os.path.realpath(root / "test"):
        raise DataError(f"'{shown(root / 'train')}' and '{shown(root / 'test')}' are one folder.")
    classes = {split: {image.class_name for image in images} for split, images in found.items()}
    trees.require_classes(classes["train"], root / "train")
    if extra := classes["test"] - classes["train"]:
        names = ", ".join(map(shown, sorted(extra)))
        raise DataError(
            f"No training images of the test classes {names}: put some there, or take these classes out "
            f"of '{shown(root / 'test')}'."
        )
    return found


def _classes(split: Path) -> list[os.DirEntry]:
    """The folders of a split. A link to one of them is no class beside it; of two links, the first."""
    folders = [entry for entry in trees.entries(split) if trees.is_folder(entry)]
    seen = {os.path.realpath(folder.path) for folder in folders if not folder.is_symlink()}
    classes = []
    for folder in folders:
        if folder.is_symlink():
            if (real := os.path.realpath(folder.path)) in seen:
                continue
            seen.add(real)
        classes.append(folder)
    return classes


def _image(entry: os.DirEntry, folder: str, class_name: str) -> _Image:
    try:
        status = entry.stat()
    except OSError as error:
        raise DataError(
            f"The image {shown(entry.path)} cannot be read: {error.strerror or error}"
        ) from error
    return _Image(f"{folder}/{entry.name}", class_name, status.st_size, status.st_mtime_ns)


def _no_split(root: Path, split: str) -> str:
    start = f"Expected the folder '{shown(root / split)}': an image folder is "
    form = "<data_root>/{train,test}/<class>/*.png or *.jpg."
    if not root.is_dir():
        return f"{start}{form}"
    folders = [entry for entry in trees.entries(root) if trees.is_folder(entry)]
    if deeper := [entry.path for entry in folders if Path(entry.path, split).is_dir()]:
        return f"{start}{form} There is one in '{shown(deeper[0])}': give that."
    classes = [
        entry.name
        for entry in folders
        if any(trees.is_image(file.name) for file in trees.entries(entry.path))
    ]
    if not classes:
        return f"{start}{form}"
    return (
        f"{start}{form} There are folders of images without a split ({trees.some(classes)}): `hml prepare "
        f"folder '{shown(root)}' --data-root …` splits them."
    )


def _left_out(root: Path, found: dict[str, list[_Image]]) -> list[str]:
    """What lies in the tree and is not read: "3 .log (…)", "2 images in no or deeper folders (…)"."""
    read = {image.name for images in found.values() for image in images}
    with_images = {name.rpartition("/")[0] for name in read}
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for split in SPLITS:
        for entry in trees.entries(root / split) if (root / split).is_dir() else ():
            is_link = entry.is_symlink() and trees.is_folder(entry)
            if is_link and (name := f"{split}/{entry.name}") not in with_images:
                kinds["links to another class, or to no images"].append(name)
    for path, folders, names in files.walk(root):
        folders[:] = sorted(name for name in folders if not trees.is_system(name))
        here = os.path.relpath(path, root).replace(os.sep, "/")
        depth = 0 if here == "." else here.count("/") + 1
        if depth == 2 and here.split("/")[0] in SPLITS and here not in with_images:
            kinds["class folders without an image"].append(here)
        for name in sorted(names):
            relative = name if here == "." else f"{here}/{name}"
            if relative in read or trees.is_system(name):
                continue
            if not trees.is_image(name):
                kinds[os.path.splitext(name)[1].lower() or "files without a suffix"].append(
                    relative
                )
            elif here.split("/")[0] not in SPLITS:
                kinds[f"images beside {' and '.join(SPLITS)}"].append(relative)
            else:
                kinds["images in no or deeper folders"].append(relative)
    return trees.described(kinds)


def _fingerprint(found: dict[str, list[_Image]]) -> str:
    """Of the names, sizes and times of all files."""
    lines = [
        os.fsencode(f"{image.name}|{image.size}|{image.time}\n")
        for split in SPLITS
        for image in found[split]
    ]
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _shape_of_most(paths: list[Path]) -> tuple[int, int, int]:
    """(H, W, 3) of most of the images; DataError, by name, for those of another."""
    problems: list[str] = []

    def size(path: Path) -> tuple[int, int] | None:
        try:
            return opener.size(path)
        except opener.ImageError as error:
            problems.append(f"{shown(path)} {error}")
            return None

    with threads.pool() as pool:
        sizes = list(pool.map(size, paths, chunksize=packs.CHUNK))
    counts = Counter(one for one in sizes if one is not None)
    if problems and len(problems) == len(paths):
        raise DataError(
            f"None of the {len(paths):,} images can be used; the first: {min(problems)}."
        )
    width, height = counts.most_common(1)[0][0]
    shape = (height, width, 3)
    problems += [
        packs.odd_size(path, (one[1], one[0]), shape)
        for path, one in zip(paths, sizes, strict=True)
        if one is not None and one != (width, height)
    ]
    if problems:
        raise packs.unusable(problems)
    return shape


register(
    "imagefolder",
    # Small images, as those of the long-tailed CIFAR subsets.
    DatasetInfo(
        load,
        defaults=KEPT_UNLESS_ASKED,
        published={"model": "resnet32", "epochs": 200},
        needs_data_root=True,
    ),
)
