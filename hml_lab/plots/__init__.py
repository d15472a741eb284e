"""Figures: each function takes runs or a frame and returns a matplotlib ``Figure``.

``results`` draws what runs measured, ``classes`` what happens class by class, ``tradeoffs`` what a gain
costs, ``effects`` differences, ``ranks`` many settings at once, ``dermoscopy`` what a clinician asks,
``groups`` classes that have something in common, ``photographs`` the images themselves, ``losses`` what
the formulas say. A method has the same colour, marker and line in every figure
(:mod:`hml_lab.plots.looks`). Up to four seeds are dots, or bands
from the lowest to the highest; from five on bars and bands are 95 % intervals of the mean over seeds,
unless the axis or the docstring says otherwise (:mod:`hml_lab.plots.spreads`).

Every function takes ``width`` in inches besides its own parameters, such as 3.5 for a paper's column, and
its figure says in ``alt`` what it shows (:mod:`hml_lab.plots.style`).
"""

from hml_lab.plots.classes import class_counts, confusion_matrix, per_class_accuracy
from hml_lab.plots.dermoscopy import confidence, features, preparation, roc_curves
from hml_lab.plots.effects import delta_sweep, forest
from hml_lab.plots.groups import accuracy_by_frequency, accuracy_by_group
from hml_lab.plots.losses import (
    delta_effect,
    gradient_curves,
    loss_curves,
    outlier_cuts,
    weighting_curves,
)
from hml_lab.plots.methods import by_recipe, caveat
from hml_lab.plots.photographs import samples, sides
from hml_lab.plots.ranks import critical_difference
from hml_lab.plots.results import balanced_accuracy, learning_curves, shot_group_accuracy
from hml_lab.plots.tradeoffs import accuracy_by_cost, gain_by_frequency, reliability
from hml_lab.plots.way import way

__all__ = [
    "accuracy_by_cost",
    "accuracy_by_frequency",
    "accuracy_by_group",
    "balanced_accuracy",
    "by_recipe",
    "caveat",
    "class_counts",
    "confidence",
    "confusion_matrix",
    "critical_difference",
    "delta_effect",
    "delta_sweep",
    "features",
    "forest",
    "gain_by_frequency",
    "gradient_curves",
    "learning_curves",
    "loss_curves",
    "outlier_cuts",
    "per_class_accuracy",
    "preparation",
    "reliability",
    "roc_curves",
    "samples",
    "shot_group_accuracy",
    "sides",
    "way",
    "weighting_curves",
]
