"""Download CIFAR-10 and CIFAR-100 with torchvision, which checks the published MD5 sums."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from torchvision.datasets import utils

from data_prep import output as outputs
from hml_core.datasets.cifar import LARGEST_FILE, require_regular
from hml_core.errors import RunBusyError
from hml_core.system import downloads, files, scratch

ARCHIVES = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
}


class DownloadError(RuntimeError):
    """An archive that could not be fetched or is not what was published."""


def download(name: str, data_root: str | Path) -> Path:
    """Fetch, verify and unpack an archive; what is there and whole is not fetched again.

    What lies there is replaced once its successor is whole.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
    data_root : path
        Made if it does not exist.

    Returns
    -------
    pathlib.Path
        The folder with the images.

    Raises
    ------
    ValueError
        For another name.
    RunBusyError
        Where another process prepares it there.
    DownloadError
        Where the server cannot be reached, or says nothing for half a minute; where the folder cannot be
        written to, the checksum is wrong, or something lies in a file's place that is none of its size, or
        a link.
    """
    if name not in ARCHIVES:
        raise ValueError(f"Expected `name` to be one of {', '.join(ARCHIVES)}, got {name!r}.")
    kind, root = ARCHIVES[name], Path(data_root)
    if root.exists() and not root.is_dir():
        raise DownloadError(
            f"Expected `data_root` to be a folder, got {str(root)!r}, which is none."
        )
    there = "The archive can also be put there by hand"
    try:
        root.mkdir(parents=True, exist_ok=True)
        names = require_regular(kind, root)
        if not _is_whole(kind, root):
            archive = root / kind.filename
            has_archive = utils.check_integrity(archive, kind.tgz_md5)
            if archive.exists() and not has_archive:
                there = f"The {archive.name} that lies there is not the published one, or cut off"
            _require_no_links(root, names[1:] if has_archive else names)
            files.require_writable(root, "`data_root`", kind="folder")
            with outputs.alone(root, f"prepare-{name}"), scratch.folder(root) as own:
                if not has_archive:
                    _fetch(kind, own, archive)
                utils.extract_archive(str(archive), str(own))
                (root / kind.base_folder).mkdir(exist_ok=True)
                for file in names[1:]:
                    os.replace(own / file, root / file)
            kind(root=str(root), download=False)
    except RunBusyError:
        raise
    except (RuntimeError, ValueError, *downloads.UNREACHABLE) as error:
        why = f"{name} could not be prepared in {str(root)!r}: {downloads.reason(error)}."
        raise DownloadError(f"{why} {there}: {kind.url}") from error
    return root / kind.base_folder


def _fetch(kind: Any, own: Path, archive: Path) -> None:
    """Into a folder of its own, and from there, whole, to its place."""
    try:
        with downloads.patience(limit=LARGEST_FILE):
            utils.download_url(kind.url, own, kind.filename, kind.tgz_md5)
    except downloads.UNREACHABLE as error:
        raise RuntimeError(str(downloads.first(error, utils.download_url))) from error
    os.replace(own / kind.filename, archive)


def _is_whole(kind: Any, root: Path) -> bool:
    try:
        kind(root=str(root), download=False)
    except RuntimeError:  # whatever is not there, or has another sum
        return False
    return True


def _require_no_links(root: Path, names: Sequence[str]) -> None:
    """Refuse to write through a link.

    Raises
    ------
    OSError
    """
    for path in dict.fromkeys(one for name in names for one in ((root / name).parent, root / name)):
        if path != root and path.is_symlink():
            raise OSError(
                f"{str(path)!r} is a link to {os.readlink(path)!r}, where not all of the published files "
                "are, and nothing is written through one"
            )
