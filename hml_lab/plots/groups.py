"""Accuracy of groups of classes: along the tail, and by supercategory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hml_core.runs import Run
from hml_lab.plots.results import by_recipe, caveat, seeds
from hml_lab.plots.style import figure, look
from hml_lab.tables import class_groups

SPREAD = 0.7  # of the room of a group, for its recipes side by side


def accuracy_by_frequency(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Mean accuracy of the classes with so many training images, by recipe.

    Bars are 95 % intervals over the classes of a bin, which all recipes share: that bars overlap does not
    mean that recipes do not differ, see :mod:`hml_lab.tables.class_groups`.
    """
    runs = list(runs)
    groups = by_recipe(runs)
    measured = class_groups.by_frequency(runs, selection=selection)
    made, (ax,) = figure(9, 4.2)
    names = list(dict.fromkeys(measured["group"]))
    for recipe, places, rows in _beside(measured, names):
        ax.errorbar(
            places,
            100 * rows["mean"],
            yerr=_bars(rows),
            **_points(recipe),
        )
    sizes = measured.drop_duplicates("group").set_index("group")["classes"]
    ax.set_xticks(range(len(names)), [f"{name}\n({sizes[name]:,})" for name in names])
    ax.set(
        xlabel="training images of a class (number of such classes)",
        ylabel="test accuracy (%)",
        ylim=(min(0, *ax.get_ylim()), None),
    )
    for edge in np.arange(len(names) - 1) + 0.5:
        ax.axvline(edge, color="#dddddd", linewidth=0.7)
    _finish(ax, f"Accuracy along the tail, {seeds(groups)}{caveat(runs)}")
    return made


def accuracy_by_group(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Mean accuracy of the classes of each supercategory, by recipe.

    Groups from the one with the most training images down; bars are 95 % intervals over the classes of a
    group, as in :func:`accuracy_by_frequency`.
    """
    runs = list(runs)
    groups = by_recipe(runs)
    measured = class_groups.by_group(runs, selection=selection)
    names = list(dict.fromkeys(measured["group"]))
    made, (ax,) = figure(8, 1.6 + 0.08 * len(names) * (3 + len(groups)))
    for recipe, places, rows in _beside(measured, names):
        ax.errorbar(
            100 * rows["mean"],
            places,
            xerr=_bars(rows),
            **_points(recipe),
        )
    first = measured.drop_duplicates("group").set_index("group")
    texts = [
        f"{name}\n{first['classes'][name]:,} classes, {first['images'][name]:,} images"
        for name in names
    ]
    ax.set_yticks(range(len(names)), texts, fontsize=8)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#dddddd", linewidth=0.7)
    for edge in np.arange(len(names) - 1) + 0.5:
        ax.axhline(edge, color="#dddddd", linewidth=0.7)
    ax.set(xlabel="mean test accuracy of the classes (%)")
    _finish(ax, f"Accuracy by supercategory, {seeds(groups)}{caveat(runs)}")
    return made


def _beside(measured: pd.DataFrame, names: list[str]):
    """For each recipe: its name, its places beside the others' in each group, its rows."""
    chosen = list(dict.fromkeys(measured["recipe"]))
    for number, recipe in enumerate(chosen):
        rows = measured[measured["recipe"] == recipe]
        offset = SPREAD * ((number + 0.5) / len(chosen) - 0.5)
        yield recipe, np.array([names.index(group) for group in rows["group"]]) + offset, rows


def _points(recipe: str) -> dict[str, Any]:
    """How a recipe's means and intervals are drawn."""
    one = look(recipe)
    how = {"color": one.colour, "marker": one.marker, "label": one.label}
    return {**how, "linestyle": "none", "markersize": 5, "elinewidth": 1.2}


def _bars(rows: pd.DataFrame) -> np.ndarray:
    """Lengths of the error bars to both sides, in percent; none where there is no interval."""
    below, above = rows["mean"] - rows["low"], rows["high"] - rows["mean"]
    return 100 * np.nan_to_num(np.stack([below, above])).clip(min=0)


def _finish(ax: Axes, title: str) -> None:
    ax.set_title(title)
    ax.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=9)
