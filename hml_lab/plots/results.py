"""What runs measured as a whole: a metric by method, by shot group, by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hml_core.runs import Run
from hml_lab.plots import spreads
from hml_lab.plots.looks import label as name_of
from hml_lab.plots.looks import look
from hml_lab.plots.methods import by_recipe, caveat_of, numbers, said_caveat, unstable
from hml_lab.plots.style import (
    above,
    alt_text,
    drawing,
    figure,
    horizontal_values,
    legend,
    page_width,
    row_height,
    wrapped,
)
from hml_lab.tables.contrasts import run_is_lost
from hml_lab.wording import number

LOWEST_LOSS = 1e-6  # drawn: those of a collapsed run go down to what float32 cannot hold
GROUPS = {"many": "many (> 100)", "medium": "medium (20–100)", "few": "few (< 20)"}
SHARES = ("nll",)  # metrics that are no shares have no upper bound


@drawing
def balanced_accuracy(
    runs: Iterable[Run],
    *,
    selection: str = "last",
    metric: str = "balanced_accuracy",
    label: str = "Balanced accuracy",
) -> Figure:
    """A test metric by recipe: the mean, and its seeds as dots or from five on its 95 % interval.

    A method of which a run collapsed has its runs alone; those that collapsed are named at the edge where
    the axis, which is that of the others, does not reach them.
    """
    groups = by_recipe(runs)
    names = list(groups)[::-1]
    texts = wrapped([name_of(name) for name in names], 34 if page_width() > 6 else 22)
    height = row_height(texts, 0.42) * len(groups) + 1.3
    drawn, (ax,) = figure(8, height, by_rows=True)
    horizontal_values(ax)
    marks = spreads.Marks(ax, "x", (0.0, np.inf) if metric in SHARES else spreads.SHARE)
    means = {}
    for position, method in enumerate(names):
        scores = np.array([100 * run.selection(selection)[metric] for run in groups[method]])
        each = unstable(groups[method])
        lost = np.array([each and run_is_lost(run) for run in groups[method]])
        marks.add_far(position, scores[lost], look(method))
        values = spreads.spread(scores[~lost], each=each)
        means[method] = values.mean
        marks.add(position, values, look(method), size=8)
        if np.isfinite(values.mean):
            ax.annotate(
                f"{values.mean:.1f}",
                (values.mean, position),
                xytext=(0, 9),  # above the dots
                textcoords="offset points",
                ha="center",
                fontsize="small",
            )
    marks.finish(dots=0.16)
    ax.set_yticks(range(len(names)), texts, fontsize="small" if "\n" in "".join(texts) else None)
    ax.set_ylim(-0.6, len(names) - 0.2)
    ax.set_xlabel(
        f"{label[:1].lower() + label[1:]}, test (%)   {spreads.legend_of(numbers(groups))}"
    )
    ax.set_title(f"{label} by method{caveat_of(groups)}")
    finite = {method: mean for method, mean in means.items() if np.isfinite(mean)}
    ranked = sorted(finite, key=finite.get, reverse=True)
    said = ", ".join(f"{name_of(method)} {finite[method]:.1f} %" for method in ranked)
    alt_text(
        drawn,
        f"{label} on the test set, from the highest mean: {said} "
        f"({spreads.legend_of(numbers(groups))}).{said_caveat(groups)}",
    )
    return drawn


@drawing
def shot_group_accuracy(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Mean test accuracy of the classes with many, a medium number of and few training images, by recipe.

    Bars from zero; groups without classes are left out.
    """
    groups = by_recipe(runs)
    first = next(iter(groups.values()))[0]
    means = {
        method: {
            group: spreads.spread(
                (100 * _number(run.selection(selection)[group]) for run in members),
                each=unstable(members),
            )
            for group in GROUPS
        }
        for method, members in groups.items()
    }
    present = [g for g in GROUPS if any(len(m[g].values) for m in means.values())]
    drawn, (ax,) = figure(8, 3.6)
    room = 0.84 / len(groups)
    marks = spreads.Marks(ax, "y", spreads.SHARE, include=(0,))
    for place, method in enumerate(groups):
        drawn_as = look(method)
        offset = (place - (len(groups) - 1) / 2) * room
        for position, group in enumerate(present):
            values = means[method][group]
            ax.bar(position + offset, values.mean, 0.9 * room, color=drawn_as.colour, alpha=0.35)
            marks.add(position + offset, values, drawn_as, size=5)
    marks.finish(dots=0.2 * room)
    ax.set_ylim(0, min(100, ax.get_ylim()[1]))
    counts = first.class_counts
    size = {"many": (counts > 100).sum(), "few": (counts < 20).sum()}
    size["medium"] = len(counts) - size["many"] - size["few"]
    texts = [f"{GROUPS[g]}\n{number(int(size[g]), 'class', 'classes')}" for g in present]
    ax.set_xticks(range(len(present)), texts)
    ax.set(xlabel="shot group (training images of a class)", ylabel="mean test accuracy (%)")
    ax.set_title(
        f"Accuracy by shot group ({spreads.legend_of(numbers(groups))}){caveat_of(groups)}"
    )
    legend(drawn, [spreads.key(look(method)) for method in groups])
    said = "; ".join(
        f"{name_of(method)} " + ", ".join(f"{g} {means[method][g].mean:.1f} %" for g in present)
        for method in groups
        if not unstable(groups[method])
    )
    alt_text(drawn, f"Bars of the mean accuracy by shot group. {said}.{said_caveat(groups)}")
    return drawn


def _number(value: float | None) -> float:
    return np.nan if value is None else value


@drawing
def learning_curves(runs: Iterable[Run], *, smooth: int = 1) -> Figure:
    """Training loss and balanced accuracy by epoch (mean over seeds with its band), switches marked.

    ``smooth`` epochs are averaged. The loss is a geometric mean, as its axis is logarithmic; losses of
    different recipes are different functions: compare their shapes, not their heights. The accuracy is
    that of the validation split where there is one, else of the test set. Up to four seeds the band goes
    from the lowest to the highest. A method of which a run collapsed has a thin line for each run.
    """
    groups = by_recipe(runs)
    drawn, (left, right) = figure(11, 4.2, columns=2)
    measured = "validation"
    if next(iter(groups.values()))[0].metrics["selections"]["best_validation"] is None:
        measured = "test"
    ends, is_cut = {}, False
    for method, members in groups.items():
        losses = _stack(members, "train_loss")
        each = unstable(members)
        is_cut |= bool((losses < LOWEST_LOSS).any(axis=None))
        logs = np.log(losses.clip(lower=LOWEST_LOSS).to_numpy())
        _curve(left, method, losses.index, logs, smooth, np.exp, each=each)
        accuracy = 100 * _stack(members, f"{measured}_balanced_accuracy")
        end = _curve(right, method, accuracy.index, accuracy.to_numpy(), smooth, each=each)
        ends[method] = (end, " (median)" if each else "")
    _mark_switches(left, right, groups)
    floor = f" ({LOWEST_LOSS:.0e} or less at the bottom)" if is_cut else ""
    left.set(xlabel="epoch", ylabel=f"training loss of the recipe{floor}", yscale="log")
    left.set_title(f"Training loss ({spreads.legend_of(numbers(groups), band=True)})")
    right.set(xlabel="epoch", ylabel=f"balanced {measured} accuracy (%)")
    right.set_title(f"Balanced {measured} accuracy")
    above(drawn, caveat_of(groups))
    low, high = right.get_ylim()
    right.set_ylim(max(0, low), min(100, high))
    for ax in (left, right):
        ax.xaxis.get_major_locator().set_params(integer=True)
        if max(len(run.history) for members in groups.values() for run in members) == 1:
            ax.set_xticks([1])
    legend(drawn, [spreads.key(look(method), line=True, size=5) for method in groups])
    said = ", ".join(f"{name_of(m)} {end:.1f} %{which}" for m, (end, which) in ends.items())
    alt_text(
        drawn,
        f"Two panels by epoch. Left: training loss, falling from the start; right: balanced {measured} "
        f"accuracy, which ends at {said}.{said_caveat(groups)}"
        if _falls(groups)
        else f"Two panels by epoch. Left: training loss; right: balanced {measured} accuracy, which ends "
        f"at {said}.{said_caveat(groups)}",
    )
    return drawn


def _falls(groups: dict[str, list[Run]]) -> bool:
    histories = [run.history["train_loss"] for members in groups.values() for run in members]
    return all(len(loss) > 1 and loss.iloc[-1] < loss.iloc[0] for loss in histories)


def _mark_switches(left: Axes, right: Axes, groups: dict[str, list[Run]]) -> None:
    """Dotted lines where the loss switches, named once on the left."""
    switches: dict[int, list[str]] = {}
    for method, members in groups.items():
        history = members[0].history
        for end in history.loc[history["stage"].diff() > 0, "epoch"] - 1:
            switches.setdefault(int(end), []).append(name_of(method))
    for end, names in switches.items():
        for ax in (left, right):
            ax.axvline(end + 0.5, color="#555555", linestyle=(0, (1, 2)), linewidth=1)
        shown = names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]
        left.annotate(
            f"switch: {', '.join(shown)}",
            (end + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize="x-small",
            color="#555555",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
        )


def _stack(runs: Sequence[Run], column: str) -> pd.DataFrame:
    """A column of the runs' histories: evaluated epochs × runs."""
    histories = [run.history.set_index("epoch")[column].dropna() for run in runs]
    return pd.concat(histories, axis=1).dropna()


def _curve(
    ax: Axes, method: str, epochs, values: np.ndarray, smooth: int, back=lambda x: x, each=False
) -> float:
    """The band of ``values`` (epochs, runs), of which ``smooth`` epochs are averaged; where it ends."""
    epochs = np.asarray(epochs)
    if not len(epochs):
        return np.nan
    if smooth > 1 and len(epochs) > smooth:
        kernel = np.ones(smooth) / smooth
        values = np.array([np.convolve(column, kernel, mode="valid") for column in values.T]).T
        epochs = epochs[smooth - 1 :]
    possible = spreads.SHARE if back is not np.exp else (0.0, np.inf)
    how = {"possible": possible, "back": back, "each": each}
    return float(spreads.band(ax, epochs, values, look(method), **how)[-1])
