"""Differences with their intervals, and the choice of δ."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hml_core import recipes
from hml_core.runs import Run
from hml_lab.plots import spreads
from hml_lab.plots.looks import label, look
from hml_lab.plots.methods import caveats
from hml_lab.plots.style import (
    alt_text,
    drawing,
    figure,
    horizontal_values,
    legend,
    name_classes,
    page_width,
    row_height,
    wrapped,
)
from hml_lab.tables.cells import each_value
from hml_lab.tables.contrasts import collapsed, is_sharper
from hml_lab.wording import number

SHARPER = " †"  # of a label: significant by Holm, with 0 in Bonferroni's interval
MARK_PT = 7  # of a difference
LABEL_LETTERS = 52  # of a question beside the axis, before it takes a second line


@drawing
def forest(
    table: pd.DataFrame,
    *,
    xlabel: str,
    title: str = "",
    by: str | None = None,
    runs: Iterable[Run] = (),
) -> Figure:
    """Differences with their intervals, one line each; filled where the corrected p is below 0.05.

    An interval that would flatten the others leaves the axis with an arrow. A line of which a run
    collapsed has the difference of each seed in words in the place of a mark. n stands beside each line,
    and the family of the correction below.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns label, difference, low, high, p_holm (see :mod:`hml_lab.studies.audit`); n, each and
        collapsed where they are known. ``attrs["family"]`` or ``attrs["tests"]`` says which tests the
        correction is over; else it is over those of the table.
    xlabel, title : str
    by : str, optional
        Column whose values are drawn in different colours, named in a legend.
    runs : iterable of Run
        Those behind it: what has to be said of them stands in the title.
    """
    title = "\n".join(filter(None, [title, *caveats(runs)]))
    lost = table["collapsed"] > 0 if "collapsed" in table else pd.Series(False, index=table.index)
    rows = table[table["difference"].notna() | lost].iloc[::-1].reset_index(drop=True)
    if rows.empty or rows["difference"].isna().all():
        raise ValueError("Expected at least one difference to draw, got none.")
    sizes = [f" (n = {n:.0f})" for n in rows["n"]] if "n" in rows else [""] * len(rows)
    sharper = (
        is_sharper(rows) if {"low_simultaneous", "p_holm"} <= set(rows) else [False] * len(rows)
    )
    texts = wrapped(
        [f"{text}{n}{SHARPER if s else ''}" for text, n, s in zip(rows["label"], sizes, sharper)],
        LABEL_LETTERS if page_width() > 6 else LABEL_LETTERS // 2,
    )
    drawn, (ax,) = figure(9.5, row_height(texts, 0.32) * len(rows) + 1.5, by_rows=True)
    horizontal_values(ax)
    ax.axvline(0, color="#444444", linewidth=1)
    marks = spreads.Marks(ax, "x", spreads.DIFFERENCE, include=(0,))
    said = []
    for position, row in rows.iterrows():
        how = look(str(row[by]) if by else "ce")
        if np.isnan(row["difference"]):
            # white behind, as the line at 0 goes through it
            ax.annotate(
                f"collapsed runs, no mean: {row['each']}", (0.5, position), fontsize="small",
                xycoords=("axes fraction", "data"), ha="center", va="center", color=how.colour,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
            said.append(f"{row['label']}: collapsed runs, no mean, {row['each']}")
            continue
        sure = row["p_holm"] < 0.05
        measured = spreads.Spread(row["difference"], row["low"], row["high"], np.empty(0))
        marks.add(
            position, measured, how, size=MARK_PT, markerfacecolor=how.colour if sure else "white"
        )
        of = f"{label(str(row[by]))}, " if by else ""
        said.append(f"{of}{row['label']}: {row['difference']:+.1f}{' (p < 0.05)' if sure else ''}")
    marks.finish()
    ax.set_yticks(range(len(rows)), texts, fontsize="small")
    ax.set_ylim(-0.7, len(rows) - 0.3)
    bars = (
        "95 % interval of each alone" if rows["low"].notna().any() else "too few runs for intervals"
    )
    low, high = ax.get_xlim()
    per_point = (high - low) / (72 * drawn.get_figwidth() * ax.get_position().width)
    narrow = (rows["high"] - rows["low"] < MARK_PT * per_point).any()
    bars += ", or within the mark" if narrow else ""
    leaves = "; arrow: goes on" if any(line.get_gid() for line in ax.lines) else ""
    sharp = (
        f"\n{SHARPER.strip()} filled although the interval that holds for all at once includes 0:\n"
        "Holm's p is sharper than Bonferroni's intervals"
    )
    below = (
        f"{xlabel}\n{bars}{leaves}; filled: p < 0.05 after Holm\n{_family(table)}"
        f"{sharp if any(sharper) else ''}"
    )
    ax.set(xlabel=below, title=title)
    if by:
        names = [str(group) for group in table[by].unique()]
        legend(drawn, [spreads.key(look(name), size=MARK_PT) for name in names])
    alt_text(drawn, f"Differences, {xlabel}. {'; '.join(reversed(said))}. {title}")
    return drawn


def _family(table: pd.DataFrame) -> str:
    """Which tests the correction of a forest is over, in a line."""
    if "tests" in table.attrs:
        return f"family of {number(int(table.attrs['tests']), 'test')}"
    if family := table.attrs.get("family"):
        return str(family)
    return f"family of {number(int(table['p_holm'].notna().sum()), 'test')}"


@drawing
def delta_sweep(frame: pd.DataFrame, runs: Iterable[Run] = ()) -> Figure:
    """Balanced test accuracy of HML1 against δ, all else as in its recipe, no early drop; CE beside.

    A δ with a collapsed run has no mean, only its runs. What has to be said of the ``runs`` stands in the
    title.
    """
    done = frame[(frame["status"] == "done") & ~frame["early_drop"].astype(bool)].drop_duplicates(
        "run_id"
    )

    def score(members: pd.DataFrame) -> spreads.Spread:
        found = spreads.spread(100 * members["last_balanced_accuracy"].to_numpy(dtype=float))
        has_mean = len(members) == 1 or not collapsed(members).any()
        return found if has_mean else spreads.Spread(np.nan, np.nan, np.nan, found.values)

    swept = done[done["recipe"] == "hml1"]
    shared = {**recipes.options("hml1"), "second_stage_rate": 1.0}
    for name in shared.keys() & set(swept) - {"delta"}:
        swept = swept[swept[name] == shared[name]]
    if swept.empty:
        raise ValueError("Expected finished runs of HML1 to draw, got none.")
    ordered = sorted(swept["delta"].unique())
    drawn, (ax,) = figure(8, 3.8)
    scores = [score(swept[swept["delta"] == delta]) for delta in ordered]
    how = look("hml1")
    unweighted = done[done["recipe"] == "ce"]
    plain = score(unweighted) if len(unweighted) else None
    marks = spreads.Marks(ax, "y", include=() if plain is None else (plain.mean, *plain.dots))
    for position, values in enumerate(scores):
        marks.add(position, values, how)
    marks.finish(dots=0.06)
    ax.plot(
        range(len(scores)), [s.mean for s in scores], color=how.colour, linestyle="--", zorder=1
    )
    entries = [spreads.key(how, line=True)]
    entries[0].set(label="HML1, no early drop", linestyle="--")
    if plain is not None:
        base = look("ce")
        ax.axhline(plain.mean, color=base.colour)
        ends, what = (plain.low, plain.high), "95 % interval"
        if len(plain.dots):
            ends, what = (plain.dots.min(), plain.dots.max()), "lowest to highest run"
        band = ""
        if np.isfinite(ends).all():
            band = f" (band: {what})"
            ax.axhspan(*np.clip(ends, *ax.get_ylim()), color=base.colour, alpha=0.1, linewidth=0)
        line = spreads.key(base, line=True)
        line.set(label=f"CE{band}", marker="")
        entries.append(line)
    names = ["∞" if np.isinf(delta) else _power(delta) for delta in ordered]
    name_classes(ax, range(len(ordered)), names)
    sizes = [len(s.values) for s in (*scores, *([plain] if plain else []))]
    said = spreads.legend_of(sorted(set(sizes)))
    lost = [f"δ = {name}" for name, s in zip(names, scores, strict=True) if np.isnan(s.mean)]
    told = [f"{', '.join(lost)}: a run collapsed, no mean"] if lost else []
    title = "\n".join([f"The choice of δ ({said})", *caveats(runs), *told])
    ax.set(xlabel="δ", ylabel="balanced test accuracy (%)", title=title)
    legend(drawn, entries)
    listed = ", ".join(
        f"δ = {n}: {each_value(s.values) if np.isnan(s.mean) else f'{s.mean:.1f}'} %"
        for n, s in zip(names, scores, strict=True)
    )
    beside = f"; CE {plain.mean:.1f} %" if plain else ""
    alt_text(drawn, f"Balanced test accuracy of HML1 against δ. {listed}{beside}.")
    return drawn


def _power(value: float) -> str:
    """As figures write such numbers.

    >>> _power(1e4), _power(1e-7), _power(250.0)
    ('10⁴', '10⁻⁷', '250')
    """
    exponent = np.log10(value)
    if abs(exponent) < 2 or abs(exponent - round(exponent)) > 1e-9:
        return f"{value:g}"
    return "10" + f"{round(exponent)}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
