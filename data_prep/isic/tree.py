"""Where the files of a challenge lie below a folder, however the archives were unpacked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hml_core.datasets.prepared import DESCRIPTION
from hml_core.datasets.trees import is_system, shown
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
    known : iterable of str
        Names of the folders that images are looked for in. What lies below several of them belongs to
        the innermost.
    links_within : bool
        Whether a link to another folder below ``root`` may be found before that folder. Else that folder
        is found under the name where it lies, whatever link to it comes first.

    Raises
    ------
    DataError
        Where a folder cannot be listed.
    """

    root: Path
    known: Iterable[str] = ()
    links_within: bool = True
    folders: dict[Path, list[str]] = field(default_factory=dict, init=False)
    places: dict[Path, str] = field(default_factory=dict, init=False)  # where each really lies

    def __post_init__(self) -> None:
        self.known = {name.lower() for name in self.known}
        links: list[tuple[Path, str]] = []
        first = {}
        if not self.links_within:
            first = {real: folder for folder, real, _ in self._walk(False, {}, [])}
        for folder, real, names in self._walk(True, first, links):
            self._add(Path(folder), real, names)
        for link, real in links:
            self._add_linked(link, real)

    def _walk(
        self, follow: bool, first: Mapping[str, str], links: list[tuple[Path, str]]
    ) -> Iterator[tuple[str, str, list[str]]]:
        """Each folder once, where it really lies, and its files; ``links`` takes its other names.

        Folders in ``first`` have the name that they have there.
        """
        seen = set()
        places: dict[str, str] = {}
        walked = files.walk(self.root, onerror=self._refuse, followlinks=follow)
        for folder, below, names in walked:
            real = places[folder] = _place(folder, places)
            is_other_name = real in seen or first.get(real, folder) != folder
            if is_other_name or (set(OURS) & set(names)):
                links += [(Path(folder), real)] if is_other_name else []
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not is_system(name))
            yield folder, real, names

    def _refuse(self, error: OSError) -> None:
        if error.filename != os.fspath(self.root):  # that there is nothing is said elsewhere
            raise DataError(
                f"The folder '{shown(error.filename)}' cannot be read: {error.strerror or error}."
            ) from error

    def _add(self, folder: Path, real: str, names: Iterable[str]) -> None:
        self.folders[folder] = sorted(name for name in names if not is_system(name))
        self.places[folder] = real

    def _add_linked(self, link: Path, real: str) -> None:
        """A link to what was met under another name has a name of its own, if that is one of ``known``;
        one to its own parents has none."""
        if not self._of_known(link):
            return
        if Path(real) in (here := Path(os.path.realpath(link.parent)), *here.parents):
            return
        for folder, place in list(self.places.items()):
            if Path(real) in (Path(place), *Path(place).parents):
                self._add(link / os.path.relpath(place, real), place, self.folders[folder])

    def table(self, name: str) -> Path | None:
        """The file called ``name``, in whatever case; None where there is none.

        Raises
        ------
        DataError
            Where there are several that differ, or what is called so is no file.
        """
        wanted = name.lower()
        called = [
            folder / file
            for folder, names in self.folders.items()
            for file in names
            if file.lower() == wanted
        ]
        found = [path for path in called if path.is_file()]
        called += [folder for folder in self.folders if folder.name.lower() == wanted]
        if called and not found:
            raise DataError(f"{str(called[0])!r} is no regular file. Expected {name!r} to be one.")
        found.sort(key=lambda path: (len(path.parts), path))
        for other in found[1:]:
            if files.sha256(other) != files.sha256(found[0]):
                raise DataError(
                    f"There are two files {name!r} that differ: {str(found[0])!r} and {str(other)!r}. "
                    "Remove the one that is not the challenge's."
                )
        return found[0] if found else None

    def has_images(self, names: Iterable[str]) -> bool:
        """Whether there is a folder called as one of ``names``."""
        return any(self._is_below(folder, names) for folder in self.folders)

    def alike(self, name: str) -> list[str]:
        """Files and folders that are called nearly as ``name``, such as "…_Input (1)" or "….csv.gz"."""
        begin = Path(name).stem.lower()
        names = {folder.name for folder in self.folders if folder.name.lower() != begin}
        names |= {file for files_of in self.folders.values() for file in files_of}
        return sorted(one for one in names if one.lower().startswith(begin))

    def _is_below(self, folder: Path, names: Iterable[str]) -> bool:
        return not {name.lower() for name in names}.isdisjoint(self._of_known(folder)[-1:])

    def _of_known(self, folder: Path) -> list[str]:
        """The names of ``known`` that a folder has or lies below, the innermost last."""
        parts = [part.lower() for part in folder.relative_to(self.root.parent).parts]
        return [part for part in parts if part in self.known]

    def images(self, names: Sequence[str], listed: Iterable[str]) -> Places:
        """Where the images that a table lists lie.

        That is in folders called as one of ``names`` and those below them, the one with most listed
        images first.

        Raises
        ------
        DataError
            Where not one of them is there: with the folder that was tried and what it holds.
        """
        listed = list(listed)
        keys = {image.lower() for image in listed}
        ranked = []
        for folder, file_names in self.folders.items():
            if self._is_below(folder, names) and (images := _by_id(file_names)):
                ranked.append((-len(keys & images.keys()), len(folder.parts), folder, images))
        ranked.sort(key=lambda candidate: candidate[:3])
        once = {self.places[candidate[2]]: candidate for candidate in reversed(ranked)}
        ranked = [candidate for candidate in ranked if once[self.places[candidate[2]]] is candidate]
        paths: dict[str, Path] = {}
        others: Counter[str] = Counter()
        for *_, folder, images in ranked:
            for key, file_names in images.items():
                _require_one(folder, file_names if key in keys else ())
                others["further copies of an image"] += len(file_names) - 1 + (key in paths)
                if key not in keys:
                    others[UNLISTED] += 1
                elif key not in paths:
                    paths[key] = folder / file_names[0]
            for file in self.folders[folder]:
                suffix = Path(file).suffix.lower()
                if suffix not in (*SUFFIXES, *EXPECTED):
                    others[f"{shown(suffix) or 'suffix-less'} files"] += 1
        if not paths:
            tried = [candidate[2] for candidate in ranked] or self._named(names)
            raise DataError(self._none_there(names[0], listed, tried))
        first = ranked[0][2]
        return Places(
            [paths.get(image.lower(), first / f"{image}.jpg") for image in listed],
            tuple(sorted({path.parent for path in paths.values()})),
            len(listed) - len(paths),
            {kind: number for kind, number in others.items() if number},
        )

    def _named(self, names: Iterable[str]) -> list[Path]:
        wanted = {name.lower() for name in names}
        return [folder for folder in self.folders if folder.name.lower() in wanted]

    def _none_there(self, name: str, listed: list[str], tried: list[Path]) -> str:
        what = f"None of the {len(listed)} images that the ground truth lists, such as {listed[0]}.jpg, "
        if not tried:
            return what + f"is below {str(self.root)!r}: there is no folder {name!r}."
        held = sorted(file for folder in tried for file in self.folders[folder])
        some = f"{len(held)} other files, such as {shown(held[0])}" if held else "no files"
        return what + f"is in {str(tried[0])!r}, which holds {some}."


def _place(folder: str, places: Mapping[str, str]) -> str:
    """Where a folder really lies: below its parent in ``places``, unless it is a link.

    (os.path.realpath looks at every part of a path again: of folders of depth 1,500 for minutes.)
    """
    parent, name = os.path.split(folder)
    if parent in places and not os.path.islink(folder):
        return os.path.join(places[parent], name)
    return os.path.realpath(folder)


@dataclass(frozen=True)
class Places:
    """Where images lie: a path for each of a list (there or not), and what else was met on the way."""

    paths: list[Path]
    folders: tuple[Path, ...]
    missing: int
    others: dict[str, int]


def _require_one(folder: Path, names: Iterable[str]) -> None:
    """DataError for files whose names differ in upper and lower case alone, and what they hold as well."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(name.lower(), name)
        if other != name and files.sha256(folder / other) != files.sha256(folder / name):
            raise DataError(
                f"There are two files {other!r} and {name!r} in {str(folder)!r} that differ. Remove the "
                "one that is not the challenge's."
            )


def _by_id(names: Iterable[str]) -> dict[str, list[str]]:
    """Image files by their id in small letters; JPEG before PNG where both are there."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: (_rank(name), len(name), name)):
        if _rank(name) < len(SUFFIXES):
            found.setdefault(without_suffix(name).lower(), []).append(name)
    return found


def without_suffix(name: str) -> str:
    """A name without the suffixes of images, however many somebody has added.

    >>> [without_suffix(name) for name in ("ISIC_1", "ISIC_1.JPG", "ISIC_1.jpg.jpg", "ISIC_1.a.jpg")]
    ['ISIC_1', 'ISIC_1', 'ISIC_1', 'ISIC_1.a']
    """
    while (suffix := os.path.splitext(name)[1]).lower() in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _rank(name: str) -> int:
    suffix = Path(name).suffix.lower()
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)
