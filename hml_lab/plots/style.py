"""One look for every figure, and one colour, marker and line for every method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hml_core import recipes
from hml_core.imbalance import shot_groups

GROUP_SHADES = {"many": "#e8f0e4", "medium": "#f6f1dc", "few": "#f6e3e0"}

# Okabe and Ito's palette (readable with every common colour vision) plus darker relatives.
_LOOKS = {  # colour, marker, line: the methods of one table differ in all three
    "ce": ("#4d4d4d", "o", "-"),
    "focal": ("#56b4e9", "s", "--"),
    "cs_ce": ("#0072b2", "v", ":"),
    "cb_ce": ("#004c77", "^", ":"),
    "cb_focal": ("#7a9fc2", "<", "--"),
    "ldam": ("#8fd3bd", "P", ":"),
    "ldam_drw": ("#009e73", "X", "-."),
    "ce_drw": ("#a6761d", "p", "-."),
    "ce_drs": ("#d9b26f", "h", "-."),
    "balanced_softmax": ("#cc79a7", "^", "-."),
    "logit_adjustment": ("#8e4585", ">", "--"),
    "ib": ("#b8b000", "8", "-"),
    "ib_focal": ("#e0d94c", "8", "--"),
    "hml1": ("#d55e00", "D", "-"),
    "hml2": ("#e69f00", "*", "--"),
    "dhml1": ("#a63603", "d", "-"),
    "dhml2": ("#fd8d3c", "H", "--"),
    "chml2": ("#7f0000", "d", ":"),
    "balanced_hml": ("#f0027f", "v", "-."),
    "deferred_focal": ("#386cb0", "D", ":"),
    "crt": ("#6a51a3", "<", "-"),
    "lws": ("#9e9ac8", ">", "-."),
    "tau_norm": ("#3f007d", "P", "--"),
    "ncm": ("#bcbddc", "X", ":"),
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: str
    line: str
    label: str


def look(recipe: str) -> Look:
    """The look of a method; an unknown one gets a look that depends on its name alone."""
    if recipe in _LOOKS:
        return Look(*_LOOKS[recipe], recipes.title(recipe))
    known = list(_LOOKS.values())
    return Look(*known[sum(map(ord, recipe)) % len(known)], recipes.title(recipe))


def figure(
    width: float = 8.0, height: float = 4.0, columns: int = 1, rows: int = 1, **options
) -> tuple[Figure, list[Axes]]:
    """A figure in inches with its axes in reading order, without touching pyplot's state."""
    made = Figure(figsize=(width, height), layout="constrained", dpi=110)
    grid = made.subplots(rows, columns, squeeze=False, **options)
    axes = list(grid.flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#dddddd", linewidth=0.7)
        ax.set_axisbelow(True)
    return made, axes


def wrapped(names: Sequence[str], width: int = 12) -> list[str]:
    """Names broken into lines, so that they stand beside each other."""
    return [textwrap.fill(str(name), width, break_long_words=False) for name in names]


def shade_groups(ax: Axes, counts: np.ndarray) -> None:
    """Shade the class axis by shot group and name the groups at the top."""
    for name, members in shot_groups(counts).items():
        if len(members):
            left, right = members.min() - 0.5, members.max() + 0.5
            ax.axvspan(left, right, color=GROUP_SHADES[name], zorder=0)
            ax.annotate(
                name,
                ((left + right) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
                color="#666666",
            )
