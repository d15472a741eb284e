"""Where the files of a challenge lie below a folder, however the archives were unpacked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hml_core.datasets.prepared import DESCRIPTION
from hml_core.datasets.trees import is_system
from hml_core.errors import DataError
from hml_core.system import files
from hml_core.system.images import SUFFIXES

OURS = (DESCRIPTION, "journal.jsonl")  # a folder with one of these holds prepared images
EXPECTED = (".txt", ".csv", ".zip")  # what the challenges ship beside images
UNLISTED = "images that the ground truth does not list"


@dataclass
class Tree:
    """All files below a folder, without those of systems and what ``hml prepare`` made.

    Parameters
    ----------
    root : Path
    links_within : bool
        Whether a link to another folder below ``root`` is another name of it. Else that folder is found
        under the name where it lies, whatever link to it comes first.
    """

    root: Path
    links_within: bool = True
    folders: dict[Path, list[str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        places = {}
        if not self.links_within:
            places = {os.path.realpath(folder): folder for folder, _ in self._walk(False, {})}
        for folder, names in self._walk(True, places):
            self.folders[Path(folder)] = sorted(name for name in names if not is_system(name))

    def _walk(self, links: bool, places: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
        """Each folder once, with its files; those in ``places`` under the name that they have there."""
        seen = set()
        for folder, below, names in os.walk(self.root, followlinks=links):
            real = os.path.realpath(folder)
            is_ours = set(OURS) & set(names)
            if real in seen or places.get(real, folder) != folder or is_ours:
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not is_system(name))
            yield folder, names

    def table(self, name: str) -> Path | None:
        """The file called ``name``, in whatever case; None where there is none.

        Raises
        ------
        DataError
            Where there are several that differ.
        """
        wanted = name.lower()
        found = [
            path
            for folder, names in self.folders.items()
            for file in names
            if file.lower() == wanted and (path := folder / file).is_file()
        ]
        found.sort(key=lambda path: (len(path.parts), path))
        for other in found[1:]:
            if files.sha256(other) != files.sha256(found[0]):
                raise DataError(
                    f"There are two files {name!r} that differ: {str(found[0])!r} and {str(other)!r}. "
                    "Remove the one that is not the challenge's."
                )
        return found[0] if found else None

    def has_images(self, name: str) -> bool:
        """Whether there is a folder called ``name``."""
        return any(self._is_below(folder, name) for folder in self.folders)

    def _is_below(self, folder: Path, name: str) -> bool:
        parts = folder.relative_to(self.root.parent).parts
        return name.lower() in (part.lower() for part in parts)

    def images(self, name: str, listed: Iterable[str]) -> Places:
        """Where the images that a table lists lie.

        That is in folders called ``name`` and those below them, the one with most listed images first.

        Raises
        ------
        DataError
            Where not one of them is there: with the folder that was tried and what it holds.
        """
        listed = list(listed)
        keys = {image.lower() for image in listed}
        ranked = []
        for folder, names in self.folders.items():
            if self._is_below(folder, name) and (images := _by_id(names)):
                ranked.append((-len(keys & images.keys()), len(folder.parts), folder, images))
        ranked.sort(key=lambda candidate: candidate[:3])
        paths: dict[str, Path] = {}
        others: Counter[str] = Counter()
        for *_, folder, images in ranked:
            for key, file_names in images.items():
                others["further copies of an image"] += len(file_names) - 1 + (key in paths)
                if key not in keys:
                    others[UNLISTED] += 1
                elif key not in paths:
                    paths[key] = folder / file_names[0]
            for file in self.folders[folder]:
                suffix = Path(file).suffix.lower()
                if suffix not in (*SUFFIXES, *EXPECTED):
                    others[f"{suffix or 'suffix-less'} files"] += 1
        if not paths:
            tried = [candidate[2] for candidate in ranked] or self._named(name)
            raise DataError(self._none_there(name, listed, tried))
        first = ranked[0][2]
        return Places(
            [paths.get(image.lower(), first / f"{image}.jpg") for image in listed],
            tuple(sorted({path.parent for path in paths.values()})),
            len(listed) - len(paths),
            {kind: number for kind, number in others.items() if number},
        )

    def _named(self, name: str) -> list[Path]:
        return [folder for folder in self.folders if folder.name.lower() == name.lower()]

    def _none_there(self, name: str, listed: list[str], tried: list[Path]) -> str:
        what = f"None of the {len(listed)} images that the ground truth lists, such as {listed[0]}.jpg, "
        if not tried:
            return what + f"is below {str(self.root)!r}: there is no folder {name!r}."
        held = sorted(file for folder in tried for file in self.folders[folder])
        some = f"{len(held)} other files, such as {held[0]}" if held else "no files"
        return what + f"is in {str(tried[0])!r}, which holds {some}."


@dataclass(frozen=True)
class Places:
    """Where images lie: a path for each of a list (there or not), and what else was met on the way."""

    paths: list[Path]
    folders: tuple[Path, ...]
    missing: int
    others: dict[str, int]


def _by_id(names: Iterable[str]) -> dict[str, list[str]]:
    """Image files by their id in small letters; JPEG before PNG where both are there."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (_rank(name), name)):
        if _rank(name) < len(SUFFIXES):
            found.setdefault(Path(name).stem.lower(), []).append(name)
    return found


def _rank(name: str) -> int:
    suffix = Path(name).suffix.lower()
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)
