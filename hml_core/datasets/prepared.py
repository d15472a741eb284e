"""What ``hml prepare`` leaves of an archive: ``prepared.json``, ``manifest.csv`` and image files."""

from __future__ import annotations

import csv
import json
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hml_core.errors import ConfigError, DataError
from hml_core.system import files
from hml_core.system.fields import is_number, is_text

MOST = 1e6  # of a channel's mean and standard deviation, of images scaled to [0, 1]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


DESCRIPTION = "prepared.json"


def describe(folder: Path, fields: dict[str, Any]) -> None:
    """Write the description of a prepared folder, sealed; what is last there says that all is.

    Raises
    ------
    RunError
        Where it cannot be written.
    """
    files.write_json(folder / DESCRIPTION, files.sealed(fields))


def find(
    root: Path, archive: str | None, *, lists: Sequence[str] = ()
) -> tuple[Path, dict[str, Any]]:
    """The prepared folder, ``root`` or the one whose ``prepared/`` it is, and what it says of itself.

    ``archive`` None takes any. The description is sealed with a checksum over itself; one without, of a
    version that knew none or written by hand, is refused: the same ``hml prepare`` writes it anew within
    seconds, as the images that were prepared are kept.

    What it says holds ``synthetic`` (bool), ``options`` with ``size`` (pixels, int ≥ 0), ``mean`` and
    ``std`` (of red, green and blue, both or neither) and those that ``lists`` names: texts, as many
    each and none twice.

    Raises
    ------
    DataError
        Where there is none, or one of another archive, or one whose description is damaged.
    """
    for folder in (root, root / "prepared"):
        path = folder / DESCRIPTION
        if path.is_file():
            described = _read(path)
            _require(path, described, "archive", "a text", lambda value: isinstance(value, str))
            if archive is not None and described["archive"] != archive:
                raise DataError(
                    f"{str(folder)!r} holds {described['archive'][:40]}: expected {archive}."
                )
            _validate(path, described, lists)
            return folder, _vouched(path, described)
    wanted = archive or "archive"
    raise DataError(
        f"There is no prepared {wanted} in {str(root)!r}: run `hml prepare {archive or ''} --data-root …` "
        "first (an interrupted one goes on), which says what to download."
    )


def _vouched(path: Path, described: dict[str, Any]) -> dict[str, Any]:
    if (fields := files.unsealed(described)) is not None:
        return fields
    what = (
        "was changed after it was written"
        if files.SEAL in described
        else "has no checksum, as older versions wrote it"
    )
    raise DataError(
        f"{str(path)!r} {what}: nothing vouches for its classes and numbers. Run the same `hml prepare` "
        "again, which keeps the images and takes seconds."
    )


def damaged(path: Path, what: str) -> DataError:
    """The error of a file that ``hml prepare`` wrote, or another program in its name."""
    return DataError(f"{str(path)!r} is damaged: {what}. Prepare it again.")


def _read(path: Path) -> dict[str, Any]:
    # The errors of the decoders hold the whole file: only what they are about is said.
    try:
        described = json.loads(files.read_text(path))
    except OSError as error:
        raise damaged(path, error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise damaged(path, f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise damaged(path, f"line {error.lineno} is not JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise damaged(path, "expected JSON of a few levels and numbers of a few digits") from None
    if not isinstance(described, dict):
        raise damaged(path, f"expected fields and values, got {reprlib.repr(described)}")
    return described


def _require(
    path: Path, fields: Any, name: str, expected: str, is_right: Callable[[Any], bool]
) -> None:
    """``name`` in ``fields``; one in ``options`` is written ``options.<name>``."""
    *outer, last = name.split(".")
    for part in outer:
        fields = fields[part]
    if last not in fields:
        raise damaged(path, f"expected `{name}` to be {expected}, found none")
    if not is_right(fields[last]):
        raise damaged(path, f"expected `{name}` to be {expected}, got {reprlib.repr(fields[last])}")


def _validate(path: Path, described: dict[str, Any], lists: Sequence[str]) -> None:
    def is_pixels(value: Any) -> bool:
        return type(value) is int and value >= 0

    def is_colour(value: Any) -> bool:
        parts = value if isinstance(value, list) else []
        return len(parts) == 3 and all(is_number(one, MOST) for one in parts)

    def is_texts(value: Any) -> bool:
        return isinstance(value, list) and all(map(is_text, value))

    _require(path, described, "synthetic", "true or false", lambda value: isinstance(value, bool))
    _require(path, described, "options", "fields and values", lambda value: isinstance(value, dict))
    _require(path, described, "options.size", "a whole number ≥ 0", is_pixels)
    if "mean" in described or "std" in described:
        _require(path, described, "mean", "three numbers", is_colour)
        _require(
            path,
            described,
            "std",
            "three numbers > 0",
            lambda value: is_colour(value) and min(value) > 0,
        )
    for name in lists:
        _require(path, described, name, "a list of texts", is_texts)
        if twice := [one for one, number in Counter(described[name]).items() if number > 1]:
            raise damaged(path, f"expected each of `{name}` once, got several {twice[0]!r}")
    if len({len(described[name]) for name in lists}) > 1:
        raise damaged(path, f"expected as many {' as '.join(f'`{name}`' for name in lists)}")


def read_table(
    folder: Path, name: str, described: dict[str, Any], columns: Sequence[str]
) -> pd.DataFrame:
    """``<name>.csv`` of a prepared folder, as text, if it is what was written and has ``columns``.

    Raises
    ------
    DataError
        Where it is not, or is no table of such columns.
    """
    path = folder / f"{name}.csv"
    if not files.holds(path, described.get(f"{name}_sha256")):
        raise DataError(f"{str(path)!r} is not what was prepared: prepare it again.")
    _require_rectangle(path)
    try:
        found = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise damaged(path, str(error).strip()[:200]) from None
    if missing := [column for column in columns if column not in found]:
        raise damaged(path, f"expected the column {missing[0]!r}, found none")
    return found


def _require_rectangle(path: Path) -> None:
    with path.open("rb") as stream:  # no file has such a name, and csv takes it
        if any(b"\0" in part for part in iter(lambda: stream.read(2**20), b"")):
            raise damaged(path, "it holds a byte 0")
    # pandas makes an index of what is too much from the first row on, and empty texts of what is missing.
    with path.open(encoding="utf-8", newline="") as stream:
        lines = csv.reader(stream)
        try:
            width = len(next(lines, []))
            for row in lines:
                if row and len(row) != width:
                    what = f"expected {width} values in line {lines.line_num}, got {len(row)}"
                    raise damaged(path, what)
        except UnicodeDecodeError:
            raise damaged(path, "it is not UTF-8") from None
        except csv.Error as error:
            raise damaged(path, f"line {lines.line_num}: {error}") from None


def normalisation(
    name: str, described: dict[str, Any], authors: tuple | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel: of the training images, ImageNet's or the authors'.

    Raises
    ------
    ConfigError
        For constants that nobody published or measured.
    """
    if name == "imagenet":
        return IMAGENET
    if name == "authors":
        if authors is None:
            raise ConfigError("The authors published no `normalisation` for these images.")
        return authors
    if "mean" not in described:
        raise ConfigError(
            "The mean of these images was not taken when they were prepared: expected `normalisation` "
            f"'imagenet', got {name!r}."
        )
    return tuple(described["mean"]), tuple(described["std"])
