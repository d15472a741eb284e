"""A set of images that a run was judged on: the test split, or a set beside it such as an official one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hml_core.metrics import Predictions
from hml_core.runs import compact_predictions

TEST = "test"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a record says of one set of images.

    Parameters
    ----------
    name : str
        "test", or that of a further set (:class:`hml_core.datasets.Splits`).
    arrays : mapping
        Those of the record.
    measured : mapping
        The metrics of each selection, as the record holds them.
    run_id : str
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    measured: Mapping[str, Any]
    run_id: str

    @property
    def targets(self) -> np.ndarray:
        """Classes of the images, int64 (N,)."""
        return self.arrays["targets" if self.name == TEST else f"{self.name}_targets"]

    @property
    def clusters(self) -> np.ndarray:
        """int64 (N,): images with the same number are not independent (of one lesion, one patient).

        Each image has a number of its own where the record does not know.
        """
        name = "clusters" if self.name == TEST else f"{self.name}_clusters"
        return self.arrays[name] if name in self.arrays else np.arange(len(self.targets))

    @property
    def knows_clusters(self) -> bool:
        """Whether the record says which images are not independent."""
        return ("clusters" if self.name == TEST else f"{self.name}_clusters") in self.arrays

    def logits(self, selection: str = "last") -> np.ndarray | None:
        """float32 (N, C), rounded in a compact record; None where that keeps predictions only.

        Raises
        ------
        ValueError
            Where it holds nothing of that epoch.
        """
        prefix = compact_predictions.prefix_of(selection, self.name)
        if (found := self.arrays.get(f"{prefix}logits")) is not None:
            return found.astype(np.float32, copy=False)
        self.predictions(selection)
        return None

    def predictions(self, selection: str = "last") -> Predictions:
        """Predicted class, its probability and the true class's log-probability of each image.

        Raises
        ------
        ValueError
            Where the record holds nothing of that epoch.
        """
        found = None
        if selection in compact_predictions.PREFIXES:
            found = compact_predictions.of_arrays(self.arrays, selection, self.name)
        if found is None:
            raise ValueError(
                f"The run {self.run_id} holds no predictions of the set {self.name!r} of {selection!r}."
            )
        return found

    def metrics(self, selection: str = "last") -> dict[str, Any]:
        """As in ``Run.selection``: fractions, NaN where a metric is not defined.

        Raises
        ------
        ValueError
            Where the record holds nothing of that epoch.
        """
        if not (found := self.measured.get(selection)):
            raise ValueError(
                f"The run {self.run_id} holds no metrics of the set {self.name!r} of {selection!r}."
            )
        return {name: float("nan") if value is None else value for name, value in found.items()}

    def per_class_accuracy(self, selection: str = "last") -> np.ndarray:
        """Recall of each class, (C,); NaN for one without images."""
        return np.asarray(self.metrics(selection)["per_class_accuracy"], dtype=float)
