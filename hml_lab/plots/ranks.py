"""Many settings at once: mean ranks, and which of them lie within the critical difference."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from hml_lab.plots.looks import label, look
from hml_lab.plots.style import alt_text, drawing, figure
from hml_lab.tables import ranks as measured
from hml_lab.wording import number, p_value


@drawing
def critical_difference(
    frame: pd.DataFrame,
    *,
    by: str = "recipe",
    setting: Sequence[str] = measured.SETTING,
    metric: str = "balanced_accuracy",
    selection: str = "last",
) -> Figure:
    """Mean rank of each method over the settings; bars join methods closer than the critical difference.

    See :func:`hml_lab.tables.ranks.mean_ranks`. Left is better.
    """
    found = measured.mean_ranks(frame, by=by, setting=setting, metric=metric, selection=selection)
    ranks = found.ranks.sort_values(kind="stable")
    methods = list(ranks.index)
    count = len(methods)
    cliques = found.cliques()
    rows = (count + 1) // 2
    drawn, (ax,) = figure(8, 1.5 + 0.26 * rows + 0.16 * len(cliques), by_rows=True)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set(yticks=[], xticks=[])
    low, high = 1.0, float(count)
    span = high - low
    ax.plot([low, high], [0, 0], color="black", linewidth=1)
    for rank in range(1, count + 1):
        ax.plot([rank, rank], [0, 0.22], color="black", linewidth=1)
        if count <= 12 or rank in (1, count) or rank % 5 == 0:
            ax.annotate(f"{rank}", (rank, 0.3), ha="center", va="bottom", fontsize="small")
    top = 1.5
    ax.plot([low, min(high, low + found.critical)], [top, top], color="black", linewidth=1.2,
            marker="|", clip_on=False)  # fmt: skip
    beyond = " (more than the axis)" if found.critical > span else ""
    ax.annotate(f"critical difference {found.critical:.2f}{beyond}", (low, top + 0.2), va="bottom",
                fontsize="small")  # fmt: skip
    depth = 0.42 * len(cliques) + 0.5
    for place, (first, last) in enumerate(cliques):
        height = -0.35 - 0.42 * place
        ends = [ranks.iloc[first] - 0.01 * span, ranks.iloc[last] + 0.01 * span]
        ax.plot(ends, [height, height], color="#333333", linewidth=3.2, solid_capstyle="butt")
    for place, method in enumerate(methods):
        left = place < rows
        level = place if left else count - 1 - place
        height = -depth - 0.75 * level
        side = low - 0.04 * span if left else high + 0.04 * span
        how = look(str(method))
        ax.plot(
            [ranks[method], ranks[method], side], [0, height, height], color=how.colour, linewidth=1
        )
        ax.plot(
            [ranks[method]], [0], color=how.colour, marker=how.marker, markersize=6, clip_on=False
        )
        ax.annotate(
            f"{how.label}  {ranks[method]:.2f}" if left else f"{ranks[method]:.2f}  {how.label}",
            (side, height),
            xytext=(-3 if left else 3, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize="small",
        )
    ax.set_ylim(-depth - 0.75 * (rows - 0.3), top + 0.9)
    ax.set_xlim(low - 0.05 * span, high + 0.05 * span)
    p = p_value(found.p_value, 3, "p")
    settings = number(found.settings, "setting")
    ax.set_title(f"Mean rank in {settings} (Friedman: {p}; bars: not apart, Nemenyi at 5 %)")
    listed = ", ".join(f"{label(str(m))} {ranks[m]:.2f}" for m in methods)
    joined = "; ".join(f"{label(str(methods[a]))} to {label(str(methods[b]))}" for a, b in cliques)
    alt_text(
        drawn,
        f"Critical-difference diagram over {settings}, best mean rank first: {listed}. Critical "
        f"difference {found.critical:.2f}. Not apart: {joined or 'none'}.",
    )
    return drawn
