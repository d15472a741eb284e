"""Folders of image files as people have them: what is no class, how a name is shown, what clashes."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from hml_core.errors import DataError
from hml_core.system import images as opener

# Made by systems, network storage and editors beside what people put there; compared in small letters.
SYSTEM_NAMES = frozenset(
    {
        "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot",
        "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini",
    }
)  # fmt: skip
NAMED = 3  # examples in a message


def is_system(name: str) -> bool:
    """Whether a file or folder of that name is hidden or a system's own, and never a class or an image.

    >>> [is_system(name) for name in (".Trash-0", "@eaDir", "__MACOSX", "trash")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_image(name: str) -> bool:
    """Whether a file of that name is read as an image: by its suffix, in whatever case."""
    return not is_system(name) and os.path.splitext(name)[1].lower() in opener.SUFFIXES


def shown(name: str | Path) -> str:
    r"""A name that any output can show: bytes that are not UTF-8, and breaks of lines, are escaped.

    >>> shown(os.fsdecode(b"caf\xe9"))
    'caf\\xe9'
    """
    text = os.fsencode(os.fspath(name)).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def some(names: Iterable[str | Path], number: int = NAMED) -> str:
    """The first of some names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    names = list(names)
    rest = f" and {len(names) - number:,} more" if len(names) > number else ""
    return ", ".join(map(shown, names[:number])) + rest


def entries(folder: Path | str) -> list[os.DirEntry]:
    """What lies in a folder, by name, without what is a system's own.

    Raises
    ------
    DataError
        Where it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(
                (one for one in found if not is_system(one.name)), key=lambda one: one.name
            )
    except OSError as error:
        raise DataError(
            f"The folder '{shown(folder)}' cannot be read: {error.strerror or error}."
        ) from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether a folder lies there, or a link to one; a link that goes in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def described(kinds: Mapping[str, list[str]]) -> list[str]:
    """What was met and is not read: "3 .log (a.log, b.log, c.log)", a text for each kind.

    >>> described({".jp2": ["train/ant/1.jp2"]})
    ['1 .jp2 (train/ant/1.jp2; save them as PNG or JPEG)']
    """
    return [
        f"{len(names):,} {kind} ({some(names)}{advice(kind)})"
        for kind, names in sorted(kinds.items())
    ]


def advice(kind: str) -> str:
    """What to do with files of a suffix that is not read, to go behind their names; "" for others."""
    return f"; {opener.NOT_READ[kind]}" if kind in opener.NOT_READ else ""


def require_printed_apart(names: Iterable[str], where: Path | str) -> None:
    """Classes that have names of their own where these are printed, as all that is made of them has.

    Raises
    ------
    DataError
        Naming those that have not.
    """
    times = Counter(shown(name) for name in sorted(set(names)))
    if twice := [name for name, number in times.items() if number > 1]:
        raise DataError(
            f"Classes in '{shown(where)}' have one name where it is printed: {some(twice)}. Rename all "
            "but one of their folders."
        )


def require_classes(names: Iterable[str], where: Path | str) -> None:
    """At least two classes, no two of which are printed alike or are one for a system that ignores case.

    Raises
    ------
    DataError
        Naming them.
    """
    names = sorted(set(names))
    require_printed_apart(names, where)
    alike = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    for same in alike.values():
        if len(same) > 1:
            raise DataError(
                f"The classes {' and '.join(repr(shown(name)) for name in same)} in '{shown(where)}' "
                "differ in case or in how an accent is written alone: rename one, or put their images "
                "together."
            )
    if len(alike) < 2:
        only = f"one, {shown(next(iter(alike.values()))[0])!r}" if alike else "none"
        raise DataError(
            f"Expected two classes or more in '{shown(where)}', a folder for each, found {only}."
        )
