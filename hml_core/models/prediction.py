"""What a trained network says of image files: a row for each, with those that cannot be read named.

>>> read_paths(["no such folder"]).files  # a file that is not there gets a row, too
(PosixPath('no such folder'),)
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch

from hml_core.errors import ConfigError, RunError
from hml_core.models.preprocessing import MODES
from hml_core.models.trained import TrainedModel
from hml_core.system import devices, files, threads
from hml_core.system import images as opener
from hml_core.system.progress import Progress
from hml_core.system.tables import Rows

TOP = 5  # classes that are named, by default
AT_A_TIME = 256  # images in memory
NO_NUMBER = "the network computes no number for it"  # weights or pixels that overflow
SYSTEM = ("__MACOSX", "@eaDir")  # folders that nobody made himself, beside hidden ones


@dataclass(frozen=True)
class Paths:
    """Images to look at.

    Parameters
    ----------
    files : tuple of Path
        In the order given; those of a folder by name. Each once.
    left_out : tuple of str
        What lies in the folders and is no image by its name: "3 .txt".
    """

    files: tuple[Path, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one file: the probability of every class, float32 (C,), or why there is none."""

    file: Path
    probabilities: np.ndarray | None
    error: str = ""


@dataclass(frozen=True)
class Summary:
    """How many files there were, and which of them could not be read, with the reason of each."""

    files: int
    unread: tuple[str, ...]


def read_paths(given: Iterable[str | Path]) -> Paths:
    """Files as they are named, whatever their suffix, and the images in folders and below.

    Links to folders are not followed, hidden files and folders and those of other systems
    (:data:`SYSTEM`) passed over.

    Raises
    ------
    ConfigError
        Where there is nothing to look at.
    """
    given = [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]
    found: dict[Path, None] = {}
    kinds: Counter[str] = Counter()
    for path in given:
        if not path.is_dir():
            found[path] = None
            continue
        for folder, folders, names in files.walk(path):
            folders[:] = sorted(name for name in folders if not _is_passed_over(name))
            for name in sorted(name for name in names if not _is_passed_over(name)):
                if name.lower().endswith(opener.SUFFIXES):
                    found[Path(folder, name)] = None
                else:
                    kinds[Path(name).suffix.lower() or "without a suffix"] += 1
    left_out = tuple(
        f"{number} {kind}" + (f" ({opener.NOT_READ[kind]})" if kind in opener.NOT_READ else "")
        for kind, number in sorted(kinds.items())
    )
    if not found:
        but = f", but {', '.join(left_out)}" if left_out else ""
        raise ConfigError(
            f"Expected files or folders with {', '.join(opener.FORMATS)} images, found none in "
            f"{', '.join(map(repr, map(str, given))) or 'nothing'}{but}."
        )
    return Paths(tuple(found), left_out)


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM


def predictions(
    model: TrainedModel,
    paths: Iterable[Path],
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Iterator[Prediction]:
    """What the network says of every file, in their order; the model is moved to the device.

    Raises
    ------
    DeviceError, ConfigError
        For a device that is not there; a network that takes neither grey nor colour images.
    """
    where = devices.resolve(device)
    prepared = model.preprocessing
    if prepared.channels not in MODES:
        raise ConfigError(
            f"The network takes {prepared.channels} channels, which no image file has: expected arrays "
            "(`Run.model().probabilities(images)`)."
        )
    return _predictions(model.to(where), tuple(paths), progress)


def _predictions(
    model: TrainedModel, paths: tuple[Path, ...], progress: bool
) -> Iterator[Prediction]:
    def look(path: Path) -> torch.Tensor | str:
        try:
            return model.preprocessing.image(opener.read(path))
        except opener.ImageError as error:
            return str(error)

    size = min(model.described["evaluated_at_a_time"], AT_A_TIME)
    bar = Progress(len(paths), "predicting", enabled=progress, unit="images")
    with bar, threads.pool() as pool:
        for start in range(0, len(paths), size):
            part = paths[start : start + size]
            seen = list(pool.map(look, part))
            images = [image for image in seen if not isinstance(image, str)]
            rows = iter(model.probabilities(torch.stack(images)) if images else ())
            for path, image in zip(part, seen, strict=True):
                bar.update()
                if isinstance(image, str):
                    yield Prediction(path, None, image)
                    continue
                row = next(rows)
                if np.isfinite(row).all():
                    yield Prediction(path, row)
                else:
                    yield Prediction(path, None, NO_NUMBER)


class Columns:
    """The columns of a table of predictions, and the cells of a row.

    ``file``; ``class`` and ``probability`` of the likeliest class, ``class_2`` and ``probability_2`` of
    the next and so on; ``p(NAME)`` for every class; ``error``, empty where the image was read.

    Parameters
    ----------
    class_names : tuple of str
    top : int
        Classes that are named.
    every_class : bool
        Whether there is a column for each class.

    Raises
    ------
    ConfigError
        For a ``top`` below 1.
    """

    def __init__(
        self, class_names: tuple[str, ...], top: int = TOP, every_class: bool = True
    ) -> None:
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ConfigError(f"Expected `top` to be a whole number ≥ 1, got {top!r}.")
        self.class_names, self.top = class_names, min(top, len(class_names))
        self.every_class = every_class
        ranks = ["", *(f"_{rank}" for rank in range(2, self.top + 1))]
        self.named = [f"{what}{rank}" for rank in ranks for what in ("class", "probability")]
        each = [f"p({name})" for name in class_names] if every_class else []
        self.names = ["file", *self.named, *each, "error"]

    def row(self, found: Prediction) -> list[Any]:
        """The cells of one file; None where there is nothing to say."""
        file = str(found.file)
        if found.probabilities is None:
            return [file, *[None] * (len(self.names) - 2), found.error]
        order = np.argsort(-found.probabilities, kind="stable")[: self.top]
        values = [float(value) for value in found.probabilities]
        named = [cell for place in order for cell in (self.class_names[place], values[place])]
        return [file, *named, *(values if self.every_class else []), None]


def predict(
    model: TrainedModel,
    paths: Iterable[str | Path],
    *,
    top: int = TOP,
    every_class: bool = True,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """A table with a row for every image file, see :class:`Columns`.

    Parameters
    ----------
    model : TrainedModel
        See :meth:`hml_core.runs.Run.model`.
    paths : iterable of path
        Files, and folders of which every image is taken (:func:`read_paths`). A file that cannot be read
        has a row with its ``error``.
    top, every_class
        As for :class:`Columns`.
    device : str
        "auto", "cpu", "cuda" or "cuda:<number>".
    progress : bool

    Raises
    ------
    ConfigError, DeviceError
        Where there is nothing to look at, or nothing to look with.
    """
    columns = Columns(model.class_names, top, every_class)
    found = predictions(model, read_paths(paths).files, device=device, progress=progress)
    rows = [columns.row(one) for one in found]
    return pd.DataFrame(rows, columns=columns.names).fillna({"error": ""})


def write(found: Iterable[Prediction], columns: Columns, stream: BinaryIO) -> Summary:
    """Write the table as CSV, row by row: memory does not grow with the number of files.

    The names of files are written as the system has them, whether that is UTF-8 or not.
    """
    number, unread = 0, []
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    lines = csv.writer(Rows(text), lineterminator=Rows.END)
    lines.writerow(columns.names)
    for one in found:
        number += 1
        cells = columns.row(one)
        lines.writerow([f"{c:.6g}" if isinstance(c, float) else c for c in cells])
        if one.probabilities is None:
            unread.append(f"{one.file} {one.error}")
    text.flush()
    text.detach()  # the stream is not ours to close
    return Summary(number, tuple(unread))


def require_output(output: Path, paths: Iterable[Path]) -> Path:
    """A place where a table can be written, and where none of the files lies that are read.

    Raises
    ------
    RunError
    """
    if output.is_symlink():  # it would be replaced instead of what it names
        raise RunError(
            f"Expected the output to be a file, {str(output)!r} is a link to {str(output.readlink())!r}: "
            "name that file itself."
        )
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise RunError(f"Expected the output to be a file, {str(output)!r} is something else.")
    if not output.parent.is_dir():
        raise RunError(f"Cannot write {str(output)!r}: there is no folder {str(output.parent)!r}.")
    if output.exists() and any(_is_same(output, path) for path in paths):
        raise RunError(
            f"The output {str(output)!r} is one of the files that are read: expected another name."
        )
    return output


def _is_same(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def write_file(found: Iterable[Prediction], columns: Columns, output: Path) -> Summary:
    """:func:`write` into a file that is whole or not there.

    Raises
    ------
    RunError
        Where it cannot be written, with the system's reason.
    """
    try:
        files.remove_half_written(output.parent, [output.name])
        with files.written_beside(output) as stream:
            return write(found, columns, stream)
    except OSError as error:
        raise RunError(f"Cannot write {str(output)!r}: {error.strerror or error}.") from error
