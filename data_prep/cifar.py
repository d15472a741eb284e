"""Download CIFAR-10 and CIFAR-100 with torchvision, which checks the published MD5 sums."""

from __future__ import annotations

from pathlib import Path

import torchvision

from hml_core.datasets.cifar import require_regular
from hml_core.system import downloads

ARCHIVES = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
}


class DownloadError(RuntimeError):
    """An archive that could not be fetched or is not what was published."""


def download(name: str, data_root: str | Path) -> Path:
    """Fetch, verify and unpack an archive; what is there and whole is not fetched again.

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
    DownloadError
        Where the server cannot be reached, or says nothing for half a minute; where the folder cannot be
        written to, the checksum is wrong, or something lies in a file's place that is none of its size.
    """
    if name not in ARCHIVES:
        raise ValueError(f"Expected `name` to be one of {', '.join(ARCHIVES)}, got {name!r}.")
    kind, root = ARCHIVES[name], Path(data_root)
    if root.exists() and not root.is_dir():
        raise DownloadError(
            f"Expected `data_root` to be a folder, got {str(root)!r}, which is none."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        require_regular(kind, root)
        with downloads.patience():
            kind(root=str(root), download=True)
    except (RuntimeError, ValueError, *downloads.UNREACHABLE) as error:
        there = "The archive can also be put there by hand"
        if (root / kind.filename).is_file() and not isinstance(error, RuntimeError):
            there = f"The {kind.filename} that lies there is not the published one, or cut off"
        raise DownloadError(
            f"{name} could not be prepared in {str(root)!r}: {error}. {there}: {kind.url}"
        ) from error
    return root / kind.base_folder
