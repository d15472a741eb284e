"""A tree of small images, decoded once: arrays and a sealed index in a folder of their own.

``train_images.npy`` uint8 (N, H, W, 3), ``train_targets.npy`` int64 (N,), the same for ``test``, and
``index.json``: class names, what was left out, the SHA-256 of each array, the fingerprint of the files
that they were made of, and how often each channel of the training images has each grey level. Packs of
versions that did not count the levels are read, too.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hml_core.datasets.base import LabelledImages, channel_statistics, histogram
from hml_core.datasets.trees import shown
from hml_core.errors import DataError, said
from hml_core.system import files as storage
from hml_core.system import images as opener
from hml_core.system import scratch, threads
from hml_core.system.fields import is_whole
from hml_core.system.progress import Progress

SPLITS = ("train", "test")
ARRAYS = tuple(f"{split}_{what}.npy" for split in SPLITS for what in ("images", "targets"))
INDEX = "index.json"
LEVELS = "train_levels"  # of the index: the histogram of the training images
CHUNK = 500  # images that a thread decodes at a time
MEMORY_SHARE = 0.8  # of the machine's memory: a training set of small images lies in it

# What this process has compared with its SHA-256: (array, sum) → the file's state then.
_compared: dict[tuple[str, str], tuple[int, ...]] = {}
_levels: dict[str, np.ndarray] = {}  # of training images by their SHA-256, where the index has none


def read(folder: Path, split: str) -> LabelledImages:
    """The images and targets of a split; mapped, as a long-tailed subset needs a fraction of them.

    Raises
    ------
    DataError
        For a file that holds no array, or fewer values than it says.
    """
    images, targets = (_mapped(folder / f"{split}_{what}.npy") for what in ("images", "targets"))
    return LabelledImages(images, np.array(targets))


def _mapped(path: Path) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("it is an archive of arrays")
        return found
    except Exception as error:  # whatever the parser of a damaged header raises, too
        raise DataError(
            f"{str(path)!r} is no array of a pack ({said(error)}): remove {str(path.parent)!r}."
        ) from error


def statistics(folder: Path, index: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of the training images; no pixel is looked at twice.

    Raises
    ------
    DataError
        For levels that are not those of so many pixels.
    """
    if LEVELS in index:
        pixels = math.prod(_mapped(folder / "train_images.npy").shape[:-1])
        if not _are_levels(index[LEVELS], pixels):
            raise _damaged(folder)
        return channel_statistics(np.array(index[LEVELS], dtype=np.int64))
    known = index["files"]["train_images.npy"]
    if known not in _levels:
        _levels[known] = histogram(read(folder, "train").images)
    return channel_statistics(_levels[known])


def _are_levels(channels: Any, pixels: int) -> bool:
    """Whether so many pixels can have these levels: three channels, how many of each of 256."""
    return (
        isinstance(channels, list)
        and len(channels) == 3
        and all(isinstance(levels, list) and len(levels) == 256 for levels in channels)
        and all(is_whole(number, 0, pixels) for levels in channels for number in levels)
        and all(sum(levels) == pixels for levels in channels)
    )


def index_of(folder: Path) -> dict[str, Any]:
    """What a pack says of itself: ``class_names``, ``left_out`` (texts), ``fingerprint``, ``files``.

    Raises
    ------
    DataError
        Where its checksum does not hold, or it names no classes.
    """
    try:
        index = storage.unsealed(json.loads(storage.read_text(folder / INDEX)))
        names = (index or {}).get("class_names")
    except (OSError, ValueError, RecursionError, AttributeError, TypeError):
        index = names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(folder)
    return index


def _damaged(folder: Path) -> DataError:
    return DataError(f"{str(folder / INDEX)!r} is damaged: remove {str(folder)!r}.")


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a pack, sound or damaged, rather than images."""
    return (folder / INDEX).is_file() and any((folder / name).is_file() for name in ARRAYS)


def is_sound(folder: Path, fingerprint: str | None = None) -> bool:
    """Whether a pack is undamaged and, if asked, made of the files of that fingerprint.

    A process computes the SHA-256 of an array once, and again when its size, time of change or place on
    the disk is another: a change that leaves these as they were is noticed by the next process.
    """
    try:
        index = index_of(folder)
        if set(index["files"]) != {*ARRAYS} or fingerprint not in (None, index["fingerprint"]):
            return False
        return all(_holds(folder / name, known) for name, known in index["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # DataError is a ValueError
        return False


def _holds(path: Path, known: str) -> bool:
    status = path.stat()
    state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    key = (os.path.realpath(path), known)
    if _compared.get(key) == state:
        return True
    if storage.sha256(path) != known:
        return False
    _compared[key] = state
    return True


def require_ours(folder: Path) -> None:
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


def write(
    folder: Path,
    paths: dict[str, list[Path]],
    targets: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    fields: dict[str, Any],
    *,
    mode: int,
    progress: bool,
) -> None:
    """Decode files into a pack of ``shape`` (H, W, 3), which is whole or not there.

    Raises
    ------
    DataError
        Where an image does not decode, or it cannot be written; a pack that was there is kept then.
    """
    with contextlib.ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # What a killed process left there goes now: each is as large as all images together.
            beside = held.enter_context(scratch.folder(folder.parent, f".{folder.name}."))
        except OSError as error:
            raise DataError(
                f"Cannot write the pack '{shown(folder)}' ({error.strerror or error}): run `hml prepare "
                "imagefolder --data-root … --pack-root FOLDER` with a folder of your own, and train with "
                "what it names as `data_root`."
            ) from error
        try:
            building = beside / "new"
            building.mkdir()
            for split in SPLITS:
                _decode(paths[split], building / f"{split}_images.npy", shape, split, progress)
                np.save(building / f"{split}_targets.npy", targets[split])
            levels = histogram(read(building, "train").images)
            sums = {path.name: storage.sha256(path) for path in sorted(building.glob("*.npy"))}
            index = {**fields, "files": sums, LEVELS: levels.tolist()}
            storage.write_json(building / INDEX, storage.sealed(index))
            building.chmod(mode)
            _replace(folder, building)
        except OSError as error:
            raise DataError(
                f"Cannot write the pack '{shown(folder)}': {error.strerror or error}."
            ) from error


def _replace(folder: Path, building: Path) -> None:
    """Put the new pack in the place of an old one, of which no more is removed than packing made."""
    try:
        if not folder.exists():
            os.rename(building, folder)
            return
        # Aside first: there is no moment at which half a pack has the name.
        old = building.with_name("old")
        os.rename(folder, old)
        try:
            os.rename(building, folder)
        except BaseException:
            os.rename(old, folder)
            raise
        for name in (INDEX, *ARRAYS):
            (old / name).unlink(missing_ok=True)
        if any(old.iterdir()):  # somebody has put something there since the look
            os.rename(old, tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    except OSError as error:
        raise DataError(f"Cannot replace {str(folder)!r}: {error}") from error


def require_room(number: int, shape: tuple[int, int, int], folder: Path) -> None:
    """Refuse what would not fit, before any of it is taken.

    Raises
    ------
    DataError
        Where the pack is more than the disk has left, or than can lie in memory for training.
    """
    needed = number * shape[0] * shape[1] * shape[2]
    there = folder
    while not there.exists():
        there = there.parent
    places = {
        f"'{shown(there)}' has {{:.3g}} GB left": shutil.disk_usage(there).free,
        "this machine has {:.3g} GB of memory for it": MEMORY_SHARE * _memory(),
    }
    for text, room in places.items():
        if needed > room:
            raise DataError(
                f"{number:,} images of {shape[1]}×{shape[0]} pixels take {needed / 1e9:.3g} GB when "
                f"they are decoded, and {text.format(room / 1e9)}: `hml prepare folder` makes smaller "
                "copies that are read while training (`--dataset folder`)."
            )


def _memory() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _decode(
    paths: list[Path], target: Path, shape: tuple[int, int, int], split: str, progress: bool
) -> None:
    """uint8 (N, H, W, 3) of all ``paths``, into a file: memory stays flat.

    Threads, as Pillow decodes outside the interpreter lock.
    """
    images = np.lib.format.open_memmap(
        target, mode="w+", dtype=np.uint8, shape=(len(paths), *shape)
    )
    problems: list[str] = []

    def work(start: int) -> None:
        for position in range(start, min(start + CHUNK, len(paths))):
            try:
                pixels = np.asarray(opener.load(paths[position]))
            except opener.ImageError as error:
                problems.append(f"{shown(paths[position])} {error}")
                continue
            if pixels.shape != shape:
                problems.append(odd_size(paths[position], pixels.shape, shape))
                continue
            images[position] = pixels

    starts = range(0, len(paths), CHUNK)
    bar = Progress(len(starts), f"packing {split}", enabled=progress, unit=f"×{CHUNK} images")
    with bar, threads.pool() as pool:
        for _ in pool.map(work, starts):
            bar.update()
    if problems:
        raise unusable(problems)
    images.flush()


def odd_size(path: Path, found: Sequence[int], expected: Sequence[int]) -> str:
    """What to say of an image of another shape (H, W, …)."""
    return (
        f"{shown(path)} has {found[1]}×{found[0]} pixels, others have {expected[1]}×{expected[0]}"
    )


def unusable(problems: list[str]) -> DataError:
    """Images that keep a tree from being packed, the first three by name."""
    more = f" and {len(problems) - 3:,} more" if len(problems) > 3 else ""
    return DataError(
        f"Unusable images: {'; '.join(sorted(problems)[:3])}{more}. Replace or remove them, or let `hml "
        "prepare folder` make copies of one size, which leaves out what does not decode."
    )
