"""Figures: each function takes runs or a frame and returns a matplotlib ``Figure``.

``results`` draws what runs measured, ``dermoscopy`` what a clinician asks beside it, ``groups`` classes
that have something in common, ``losses`` what the formulas say. A method has the same colour, marker and
line in every figure (:mod:`hml_lab.plots.style`); bands and bars are 95 % intervals of the mean over
seeds unless the axis or the docstring says otherwise.
"""

from hml_lab.plots.dermoscopy import confidence, features, preparation, roc_curves
from hml_lab.plots.groups import accuracy_by_frequency, accuracy_by_group
from hml_lab.plots.losses import (
    delta_effect,
    gradient_curves,
    loss_curves,
    outlier_cuts,
    weighting_curves,
)
from hml_lab.plots.results import (
    balanced_accuracy,
    class_counts,
    confusion_matrix,
    delta_sweep,
    forest,
    learning_curves,
    per_class_accuracy,
)
from hml_lab.plots.way import way

__all__ = [
    "accuracy_by_frequency",
    "accuracy_by_group",
    "balanced_accuracy",
    "class_counts",
    "confidence",
    "confusion_matrix",
    "delta_effect",
    "delta_sweep",
    "features",
    "forest",
    "gradient_curves",
    "learning_curves",
    "loss_curves",
    "outlier_cuts",
    "per_class_accuracy",
    "preparation",
    "roc_curves",
    "way",
    "weighting_curves",
]
