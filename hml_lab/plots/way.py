"""The way from one method to another, a step at a time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hml_core.runs import Run
from hml_lab.plots.methods import caveats
from hml_lab.plots.style import alt_text, drawing, figure

GAIN, LOSS, WHOLE, POINT = "#0072b2", "#d55e00", "#4d4d4d", "#999999"


@drawing
def way(
    steps: pd.DataFrame, beside: pd.DataFrame, *, title: str = "", runs: Iterable[Run] = ()
) -> Figure:
    """Balanced test accuracy after each step, an arrow for what the step changed, with its interval.

    The thick line is the 95 % interval of the step alone, paired by seed, around the mean that it leads
    to; the thin one holds for all steps at once. Small dots are the seeds.

    Parameters
    ----------
    steps : pandas.DataFrame
        See :func:`hml_lab.studies.audit.way`: the starting point, the steps, and the whole.
    beside : pandas.DataFrame
        label, mean, values of other methods, drawn below without an arrow.
    runs : iterable of Run
        Those behind it: what has to be said of them stands in the title.
    """
    rows = len(steps) + len(beside)
    said_of_runs = caveats(runs)
    made, (ax,) = figure(9.5, 0.9 + 0.62 * rows + 0.2 * len(said_of_runs), by_rows=True)
    alt_text(
        made,
        f"{title or 'Steps from one method to another'}: from {steps['mean'].iloc[0]:.1f} %; "
        + "; ".join(
            f"{row.label} {row.difference:+.2f} points" for row in steps.iloc[1:].itertuples()
        )
        + ". "
        + " ".join(f"{line}." for line in said_of_runs),
    )
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#dddddd", linewidth=0.7)
    text_at = 1.015
    before = start = steps["mean"].iloc[0]
    for y, row in enumerate(steps.itertuples()):
        is_whole = y == len(steps) - 1
        origin = start if is_whole else before
        _seeds(ax, row.values, y)
        if y == 0:
            ax.plot(row.mean, y, "o", color=WHOLE, markersize=9)
            said = f"{row.mean:.1f} %"
        else:
            colour = WHOLE if is_whole else (GAIN if row.difference >= 0 else LOSS)
            ax.annotate(
                "", (row.mean, y), (origin, y),
                arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 3, "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
            shift = row.mean - row.difference  # interval of the step, around where it leads
            thin = [shift + row.low_simultaneous, shift + row.high_simultaneous]
            ax.plot(thin, [y + 0.18] * 2, color=colour, lw=1, solid_capstyle="butt")
            ax.plot([shift + row.low, shift + row.high], [y + 0.18] * 2, color=colour, lw=3.5)
            ax.plot([before, before], [y - 1, y], color="#bbbbbb", lw=1, ls=":", zorder=0)
            said = f"{row.difference:+.2f} [{row.low:+.2f}, {row.high:+.2f}]".replace("-", "−")
        weight = "bold" if is_whole else "normal"
        ax.text(
            text_at, y, said, transform=ax.get_yaxis_transform(), va="center", fontweight=weight
        )
        if not is_whole:
            before = row.mean
    ax.axhline(len(steps) - 1.5, color="#888888", lw=0.8)
    ax.axhline(len(steps) - 0.5, color="#888888", lw=0.8)
    for y, row in enumerate(beside.itertuples(), start=len(steps)):
        _seeds(ax, row.values, y)
        ax.plot(row.mean, y, "D", color=WHOLE, markersize=7)
        ax.text(text_at, y, f"{row.mean:.1f} %", transform=ax.get_yaxis_transform(), va="center")
    names = [*steps["label"].iloc[:1], *(f"+ {t}" for t in steps["label"].iloc[1:-1])]
    names += [steps["label"].iloc[-1], *(f"beside it: {label}" for label in beside["label"])]
    ax.set_yticks(np.arange(rows), names)
    ax.set_ylim(rows - 0.4, -0.6)
    every = np.concatenate([np.asarray(v) for v in [*steps["values"], *beside["values"]]])
    bars = steps[["low", "high"]].astype(float).sub(steps["difference"].astype(float), axis=0)
    bars = bars.add(steps["mean"], axis=0)
    low, high = (
        np.nanmin([every.min(), bars["low"].min()]),
        np.nanmax([every.max(), bars["high"].max()]),
    )
    ax.set_xlim(low - 0.5, high + 0.5)
    n = len(steps["values"].iloc[0])
    ax.set_xlabel(
        f"balanced test accuracy (%), mean and each of {n} seeds\n"
        "thick: 95 % interval of the change, paired by seed; thin: of all changes at once"
    )
    ax.set_title("\n".join(filter(None, [title, *said_of_runs])), loc="left", fontsize=11)
    return made


def _seeds(ax, values: tuple[float, ...], y: float) -> None:
    ax.plot(values, [y - 0.22] * len(values), "o", color=POINT, markersize=4, mew=0)
