"""Accuracy of groups of classes: along the tail, and by supercategory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hml_core.runs import Run
from hml_lab.plots import spreads
from hml_lab.plots.looks import look
from hml_lab.plots.methods import LEFT_OUT, by_recipe, caveat_of, seeds, unstable
from hml_lab.plots.style import (
    GRID,
    alt_text,
    drawing,
    figure,
    horizontal_values,
    legend,
    name_classes,
)
from hml_lab.tables import class_groups
from hml_lab.wording import number

SPREAD = 0.7  # of the room of a group, for its recipes side by side


@drawing
def accuracy_by_frequency(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Mean accuracy of the classes with so many training images, by recipe.

    Bars are 95 % intervals over the classes of a bin, which all recipes share: that bars overlap does not
    mean that recipes do not differ, see :mod:`hml_lab.tables.class_groups`.
    """
    every, groups, runs = _stable(runs)
    measured = class_groups.by_frequency(runs, selection=selection)
    drawn, (ax,) = figure(9, 4.0)
    names = list(dict.fromkeys(measured["group"]))
    marks = spreads.Marks(ax, "y", spreads.SHARE, include=(0,))
    _add(marks, measured, names)
    marks.finish()
    sizes = measured.drop_duplicates("group").set_index("group")["classes"]
    name_classes(ax, range(len(names)), [f"{name} ({sizes[name]:,})" for name in names])
    ax.set(xlabel="training images of a class (number of such classes)", ylabel="test accuracy (%)")
    ax.set_xlim(-0.5, len(names) - 0.5)
    for edge in np.arange(len(names) - 1) + 0.5:
        ax.axvline(edge, color=GRID, linewidth=0.7)
    title = f"Accuracy along the tail (bars: 95 % interval over classes), {seeds(groups)}"
    ax.set_title(title + caveat_of(every, LEFT_OUT))
    legend(drawn, [spreads.key(look(name)) for name in dict.fromkeys(measured["recipe"])])
    alt_text(drawn, f"Accuracy by training images of a class. {_said(measured)}")
    return drawn


@drawing
def accuracy_by_group(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Mean accuracy of the classes of each supercategory, by recipe.

    Groups from the one with the most training images down; bars are 95 % intervals over the classes of a
    group, as in :func:`accuracy_by_frequency`.
    """
    every, groups, runs = _stable(runs)
    measured = class_groups.by_group(runs, selection=selection)
    names = list(dict.fromkeys(measured["group"]))
    drawn, (ax,) = figure(8, 1.3 + 0.08 * len(names) * (3 + len(groups)), by_rows=True)
    horizontal_values(ax)
    marks = spreads.Marks(ax, "x", spreads.SHARE)
    _add(marks, measured, names)
    marks.finish()
    first = measured.drop_duplicates("group").set_index("group")
    texts = [
        f"{name}\n{number(first['classes'][name], 'class', 'classes')}, "
        f"{number(first['images'][name], 'image')}"
        for name in names
    ]
    ax.set_yticks(range(len(names)), texts, fontsize="small")
    ax.set_ylim(len(names) - 0.5, -0.5)
    for edge in np.arange(len(names) - 1) + 0.5:
        ax.axhline(edge, color=GRID, linewidth=0.7)
    ax.set(xlabel="mean test accuracy of the classes (%); bars: 95 % interval over classes")
    ax.set_title(f"Accuracy by supercategory, {seeds(groups)}{caveat_of(every, LEFT_OUT)}")
    legend(drawn, [spreads.key(look(name)) for name in dict.fromkeys(measured["recipe"])])
    alt_text(drawn, f"Accuracy by supercategory. {_said(measured)}")
    return drawn


def _stable(
    runs: Iterable[Run],
) -> tuple[dict[str, list[Run]], dict[str, list[Run]], list[Run]]:
    """All methods, those of which no run collapsed (all, where every one had that), and their runs."""
    every = by_recipe(runs)
    kept = {m: members for m, members in every.items() if not unstable(members)} or every
    return every, kept, [run for members in kept.values() for run in members]


def _add(marks: spreads.Marks, measured: pd.DataFrame, names: list[str]) -> None:
    """Every recipe's means, beside the others' in each group."""
    chosen = list(dict.fromkeys(measured["recipe"]))
    for row in measured.itertuples():
        offset = SPREAD * ((chosen.index(row.recipe) + 0.5) / len(chosen) - 0.5)
        values = spreads.Spread(100 * row.mean, 100 * row.low, 100 * row.high, np.empty(0))
        marks.add(names.index(row.group) + offset, values, look(row.recipe), size=5)


def _said(measured: pd.DataFrame) -> str:
    parts = []
    for group, rows in measured.groupby("group", sort=False):
        listed = ", ".join(
            f"{look(r.recipe).label} {100 * r.mean:.0f} %" for r in rows.itertuples()
        )
        parts.append(f"{group}: {listed}")
    return f"{'; '.join(parts)}."
