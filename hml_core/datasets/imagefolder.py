"""Any tree ``<root>/{train,test}/<class>/*`` of small PNG, JPEG, BMP or WebP images of one size.

The images are decoded once into uint8 arrays in ``<root>.packed`` beside the tree; the pack is made
again when a file is added, removed or changed, or when its sealed ``index.json`` does not hold. What lies
in the tree and is not read, such as files of other suffixes or in deeper folders, is counted and said.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hml_core.datasets.base import LabelledImages, Splits, make_long_tailed
from hml_core.datasets.registry import DatasetInfo, register
from hml_core.errors import DataError
from hml_core.system import files as storage
from hml_core.system import images as opener
from hml_core.system.devices import usable_cores
from hml_core.system.files import sha256
from hml_core.system.progress import Progress

SPLITS = ("train", "test")
ARRAYS = tuple(f"{split}_{what}.npy" for split in SPLITS for what in ("images", "targets"))
INDEX = "index.json"
CHUNK = 500


def load(config, data_root) -> Splits:
    """The tree at ``data_root`` for a run, packed first where that has not been done."""
    root = Path(data_root)
    folder = pack(root)
    names = tuple(index_of(folder)["class_names"])
    train, test = (_read(folder, split) for split in SPLITS)
    return make_long_tailed(
        "imagefolder",
        train,
        test,
        class_names=names,
        imbalance_type=config.imbalance_type,
        imbalance_ratio=config.imbalance_ratio,
        subset_seed=config.subset_seed,
        validation_fraction=config.validation_fraction,
    )


def _read(folder: Path, split: str) -> LabelledImages:
    # Mapped, not read: a long-tailed subset needs a fraction of the pixels.
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
    return LabelledImages(images, np.load(folder / f"{split}_targets.npy", allow_pickle=False))


def index_of(folder: Path) -> dict[str, Any]:
    """What a pack says of itself: ``class_names``, ``left_out`` (texts), ``fingerprint``, ``files``.

    Raises
    ------
    DataError
        Where its checksum does not hold.
    """
    try:
        index = storage.unsealed(json.loads(storage.read_text(folder / "index.json")))
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        index = None
    if index is None:
        raise DataError(f"{str(folder / 'index.json')!r} is damaged: remove {str(folder)!r}.")
    return index


def pack(root: str | Path, *, progress: bool = True) -> Path:
    """Decode the tree into ``<root>.packed`` unless that holds it already; returns that folder.

    Only a folder that was made here, and holds nothing else, is ever replaced.

    Raises
    ------
    DataError
        Where something else is in the way; for a tree that is not of this form, images of different size
        or images that do not decode; the message names them.
    """
    root = Path(root).resolve()
    files = _list(root)
    folder = root.with_name(root.name + ".packed")
    _require_ours(folder)
    fingerprint = _fingerprint(root, files)
    if _is_current(folder, fingerprint):
        return folder
    if folder.is_symlink():
        raise DataError(f"{str(folder)!r} is a link to a pack of other images: remove the link.")
    names = sorted({path.parent.name for path in files["train"]})
    try:
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DataError(f"Cannot write {str(folder)!r} beside the images: {error}") from error
    try:
        shape = None
        for split in SPLITS:
            images, shape = _decode(files[split], split, shape, progress)
            targets = np.array([names.index(path.parent.name) for path in files[split]])
            np.save(building / f"{split}_images.npy", images)
            np.save(building / f"{split}_targets.npy", targets.astype(np.int64))
            del images
        sums = {path.name: sha256(path) for path in sorted(building.glob("*.npy"))}
        left_out = _left_out(root, files)
        index = {
            "fingerprint": fingerprint,
            "class_names": names,
            "files": sums,
            "left_out": left_out,
        }
        storage.write_json(building / "index.json", storage.sealed(index))
        if left_out:
            warnings.warn(f"Not read in {str(root)!r}: {', '.join(left_out)}.", stacklevel=2)
        building.chmod(root.stat().st_mode & 0o777)  # whoever may read the tree may read its pack
        _replace(folder, building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _require_ours(folder: Path) -> None:
    """Whatever has the pack's name is a pack, sound or damaged, with nothing of somebody else in it."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is in the way and no folder: move it.")
    names = {path.name for path in folder.iterdir()}
    if foreign := sorted(names - {INDEX, *ARRAYS}):
        raise DataError(
            f"{str(folder)!r} is in the way and was not made by packing alone: it holds {foreign[0]!r}. "
            "Move it."
        )
    if INDEX not in names or not names & {*ARRAYS}:
        raise DataError(f"{str(folder)!r} is in the way and was not made by packing: move it.")


def _replace(folder: Path, building: Path) -> None:
    """Put the new pack in the place of an old one, of which no more is removed than packing made."""
    try:
        if not folder.exists():
            os.rename(building, folder)
            return
        # Aside first: there is no moment at which half a pack has the name.
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.rename(folder, old)
        os.rename(building, folder)
        for name in (INDEX, *ARRAYS):
            (old / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has put something there since the look
            old.rmdir()
    except OSError as error:
        raise DataError(f"Cannot replace {str(folder)!r}: {error}") from error


def _list(root: Path) -> dict[str, list[Path]]:
    """Image files of each split, by class and name."""
    found = {}
    for split in SPLITS:
        if not (root / split).is_dir():
            deeper = sorted(path.parent for path in root.glob(f"*/{split}") if path.is_dir())
            hint = f" There is one in {str(deeper[0])!r}: give that." if deeper else ""
            raise DataError(
                f"Expected the folder {str(root / split)!r}: an image folder is "
                f"<data_root>/{{train,test}}/<class>/*.png or *.jpg.{hint}"
            )
        found[split] = [
            path
            for path in sorted((root / split).glob("*/*"))
            if _is_image(path) and not path.parent.name.startswith((".", "__MACOSX"))
        ]
        if not found[split]:
            raise DataError(
                f"There are no {', '.join(opener.FORMATS)} images in {str(root / split)!r}/<class>/"
                f"{_but(_left_out(root, found))}."
            )
    classes = {split: {path.parent.name for path in files} for split, files in found.items()}
    if extra := classes["test"] - classes["train"]:
        raise DataError(f"No training images of the test classes {', '.join(sorted(extra))}.")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in opener.SUFFIXES and not path.name.startswith(".")


def _left_out(root: Path, files: dict[str, list[Path]]) -> list[str]:
    """What lies in the tree and is not read: "3 .tif", "2 images in deeper folders"."""
    read = {path for paths in files.values() for path in paths}
    kinds: Counter[str] = Counter()
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path in read or path.is_dir() or any(p.startswith((".", "__MACOSX")) for p in parts):
            continue
        if not _is_image(path):
            kinds[path.suffix.lower() or "files without a suffix"] += 1
        elif parts[0] not in SPLITS:
            kinds[f"images beside {' and '.join(SPLITS)}"] += 1
        else:
            kinds["images in no or deeper folders"] += 1
    return [f"{number} {kind}" for kind, number in sorted(kinds.items())]


def _but(left_out: list[str]) -> str:
    return f", but {', '.join(left_out)}" if left_out else ""


def _fingerprint(root: Path, files: dict[str, list[Path]]) -> str:
    """Of the names, sizes and times of all files."""
    digest = hashlib.sha256()
    for path in (*files["train"], *files["test"]):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"The image {path} cannot be read: {error}") from error
        digest.update(f"{path.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _is_current(folder: Path, fingerprint: str) -> bool:
    """Made of these files, and not damaged since."""
    try:
        index = index_of(folder)
        if index["fingerprint"] != fingerprint or set(index["files"]) != {*ARRAYS}:
            return False
        return all(sha256(folder / name) == known for name, known in index["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # DataError is a ValueError
        return False


def _decode(
    paths: list[Path], split: str, shape: tuple | None, progress: bool
) -> tuple[np.ndarray, tuple]:
    """uint8 (N, H, W, 3) of all ``paths``; threads, as Pillow decodes outside the interpreter lock."""
    shape = shape or _shape_of_most(paths)
    images = np.empty((len(paths), *shape), dtype=np.uint8)
    problems: list[str] = []

    def work(start: int) -> None:
        for position in range(start, min(start + CHUNK, len(paths))):
            try:
                pixels = _pixels(paths[position])
            except opener.ImageError as error:
                problems.append(f"{paths[position]} {error}")
                continue
            if pixels.shape != shape:
                problems.append(
                    f"{paths[position]} has {pixels.shape[1]}×{pixels.shape[0]} pixels, "
                    f"others have {shape[1]}×{shape[0]}"
                )
                continue
            images[position] = pixels

    starts = range(0, len(paths), CHUNK)
    bar = Progress(len(starts), f"packing {split}", enabled=progress, unit=f"×{CHUNK} images")
    with bar, ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(work, starts):
            bar.update()
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(
            f"Unusable images: {'; '.join(sorted(problems)[:3])}{more}. Replace or remove them."
        )
    return images, shape


def _shape_of_most(paths: list[Path]) -> tuple[int, int, int]:
    """Shape of the first image that decodes; the others are measured against it."""
    for path in paths:
        try:
            return _pixels(path).shape
        except opener.ImageError:
            continue
    raise DataError(f"None of the {len(paths)} images decodes; the first is {paths[0]}.")


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(opener.load(path))


register(
    "imagefolder",
    # Small images, as those of the long-tailed CIFAR subsets.
    DatasetInfo(load, published={"model": "resnet32", "epochs": 200}, needs_data_root=True),
)
