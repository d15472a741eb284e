"""Classes of images: what every split's must be."""

from __future__ import annotations

import numpy as np

from hml_core.errors import DataError


def check_targets(what: str, targets: np.ndarray, num_classes: int) -> None:
    """Classes as int64 (N,) from 0 to C − 1, at least one.

    Raises
    ------
    DataError
        Naming what is wrong and what to do.
    """
    if not isinstance(targets, np.ndarray) or targets.dtype != np.int64 or targets.ndim != 1:
        shape = getattr(targets, "shape", None)
        kind = f"{getattr(targets, 'dtype', type(targets).__name__)} of shape {shape}"
        raise DataError(
            f"Expected the targets of {what} to be int64 of shape (N,), got {kind}: convert them with "
            "`np.asarray(targets, dtype=np.int64)`."
        )
    if not len(targets):
        raise DataError(f"Expected at least one image in {what}, got none.")
    least, most = int(targets.min()), int(targets.max())
    if least >= 0 and most < num_classes:
        return
    hint = "expected one class name for each class"
    if least < 0:
        hint = f"leave out the {int((targets < 0).sum()):,} image(s) without a class"
    elif least >= 1 and most == num_classes:
        hint = "they seem to count from 1: subtract 1"
    raise DataError(
        f"Expected the targets of {what} to lie in 0 … {num_classes - 1} for its {num_classes} classes, "
        f"got {least} … {most}: {hint}."
    )
