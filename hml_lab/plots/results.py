"""What runs measured: class counts, accuracies, learning curves, confusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hml_core import datasets
from hml_core.imbalance import shot_groups
from hml_core.metrics import confusion
from hml_core.runs import Run
from hml_lab import stats
from hml_lab.plots.style import figure, look, shade_groups, wrapped


def by_recipe(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by recipe, in order of first appearance; at least one, all on one training set."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.config.recipe, []).append(run)
    if not groups:
        raise ValueError("Expected at least one finished run to draw, got none.")
    sizes = {len(run.class_counts) for members in groups.values() for run in members}
    if len(sizes) > 1:
        raise ValueError(f"Expected runs of one data set, got runs with {sorted(sizes)} classes.")
    return groups


def seeds(groups: dict[str, list[Run]]) -> str:
    numbers = sorted({len(members) for members in groups.values()})
    return f"n = {' to '.join(map(str, numbers))} seeds"


def caveat(runs: Iterable[Run]) -> str:
    """What a title must not keep to itself: made-up images, or less training than was published."""
    first = next(iter(runs))
    if first.synthetic:
        return "\nSYNTHETIC images"
    fields = {**vars(first.config), "initialised_from": first.initialised_from}
    departures = datasets.departures(first.config.dataset, fields)
    return f"\nSHORTENED protocol: {departures}" if departures else ""


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of its 95 % interval; no width for a single run, NaN where nothing is known."""
    if np.isnan(values).any():  # the recall of a class without test images
        return np.nan, np.nan
    found = stats.mean_interval(np.asarray(values, dtype=float))
    return found.mean, 0.0 if np.isnan(found.high) else found.high - found.mean


MOST_BARS = 200  # of more, a bar is narrower than its edge


def class_counts(
    counts: Sequence[int],
    class_names: Sequence[str],
    *,
    title: str = "Training images of each class",
    synthetic: bool = False,
) -> Figure:
    """Bars of the training set's class counts on a logarithmic scale, shot groups shaded."""
    title += "\nSYNTHETIC images" if synthetic else ""
    counts = np.asarray(counts)
    made, (ax,) = figure(8, 3.2)
    positions = np.arange(len(counts))
    groups = shot_groups(counts)
    for name, members in groups.items():
        if len(members):
            colour = {"many": "#4a7a3a", "medium": "#c9a227", "few": "#b5473c"}[name]
            rule = {"many": "> 100", "medium": "20–100", "few": "< 20"}[name]
            hatch = {"many": "", "medium": "//", "few": ".."}[name]
            drawn = {"color": colour, "label": f"{name} ({rule})", "edgecolor": "white"}
            if len(counts) <= MOST_BARS:
                ax.bar(positions[members], counts[members], hatch=hatch, **drawn)
            else:
                ax.fill_between(positions[members], counts[members], hatch=hatch, **drawn)
    if len(counts) <= 30:
        ax.bar_label(ax.containers[0], fontsize=8)
        for container in ax.containers[1:]:
            ax.bar_label(container, fontsize=8)
        ax.set_xticks(positions, wrapped(class_names))
    ax.set_yscale("log")
    ax.set(xlabel="class", ylabel="training images", title=title)
    ax.legend(title="shot group", frameon=False)
    return made


def per_class_accuracy(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Test accuracy of each class by recipe, with error bars, over the class counts.

    With more than 20 classes, curves: a running mean over neighbouring classes, shot groups shaded.
    """
    groups = by_recipe(runs)
    if len(next(iter(groups.values()))[0].class_counts) > 20:
        return _per_class_curves(groups, selection)
    first = next(iter(groups.values()))[0]
    order = _head_to_tail(first)
    counts, names = first.class_counts[order], [first.class_names[label] for label in order]
    made, (ax, below) = figure(10, 5.2, rows=2, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    positions = np.arange(len(counts))
    width = 0.8 / len(groups)
    for number, (recipe, members) in enumerate(groups.items()):
        drawn = look(recipe)
        accuracy = 100 * np.array([run.per_class_accuracy(selection)[order] for run in members])
        points = np.array([_interval(column) for column in accuracy.T])  # accuracy: (n, C)
        ax.errorbar(
            positions + (number - (len(groups) - 1) / 2) * width,
            points[:, 0],
            points[:, 1],
            color=drawn.colour,
            marker=drawn.marker,
            markersize=4.5,
            linestyle="none",
            elinewidth=1,
            capsize=1.5,
            label=drawn.label,
        )
    for position in positions[:-1]:
        ax.axvline(position + 0.5, color="#eeeeee", linewidth=0.8, zorder=0)
    ax.set(ylabel="test accuracy of the class (%)", ylim=(max(-2, ax.get_ylim()[0]), 102))
    ax.set_title(f"Accuracy of each class, head to tail{caveat([first])}")
    ax.legend(ncols=min(4, len(groups)), frameon=False, fontsize=9, loc="lower left")
    below.bar(positions, counts, color="#999999", width=0.8)
    below.bar_label(below.containers[0], fontsize=8)
    below.set_yscale("log")
    below.set_ylim(1, counts.max() * 4)
    below.set(ylabel="training\nimages")
    below.set_xticks(positions, wrapped(names))
    below.set_xlabel(f"class   (bars: 95 % interval of the mean, {seeds(groups)})")
    return made


def _head_to_tail(run: Run) -> np.ndarray:
    """The classes from the most frequent to the rarest; those of a folder come in order of their names."""
    return np.argsort(-run.class_counts, kind="stable")


def _per_class_curves(groups: dict[str, list[Run]], selection: str) -> Figure:
    first = next(iter(groups.values()))[0]
    order = _head_to_tail(first)
    counts = first.class_counts[order]
    window = max(3, len(counts) // 10)
    made, (ax,) = figure(10, 4.6)
    shade_groups(ax, counts)
    kernel = np.ones(window) / window
    positions = np.arange(len(counts))
    weight = np.convolve(np.ones(len(counts)), kernel, mode="same")
    for recipe, members in groups.items():
        drawn = look(recipe)
        accuracy = 100 * np.array([run.per_class_accuracy(selection)[order] for run in members])
        smooth = np.array([np.convolve(row, kernel, mode="same") / weight for row in accuracy])
        mean, half = np.array([_interval(column) for column in smooth.T]).T
        ax.plot(positions, mean, color=drawn.colour, linestyle=drawn.line, label=drawn.label)
        ax.fill_between(
            positions, mean - half, mean + half, color=drawn.colour, alpha=0.12, linewidth=0
        )
    ax.set(
        xlabel=f"class, head to tail ({counts.max()} to {counts.min()} training images)",
        ylabel=f"test accuracy (%),\nrunning mean of {window} classes",
        title=f"Accuracy along the tail (bands: 95 % interval, {seeds(groups)}){caveat([first])}",
    )
    ax.legend(frameon=False, ncols=min(4, len(groups)), fontsize=9)
    return made


def balanced_accuracy(
    runs: Iterable[Run],
    *,
    selection: str = "last",
    metric: str = "balanced_accuracy",
    label: str = "Balanced accuracy",
) -> Figure:
    """A test metric by recipe: every seed as a dot, the mean with its 95 % interval."""
    groups = by_recipe(runs)
    made, (ax,) = figure(8, 0.5 * len(groups) + 1.5)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#dddddd", linewidth=0.7)
    names = list(groups)[::-1]
    for position, recipe in enumerate(names):
        drawn = look(recipe)
        values = [100 * run.selection(selection)[metric] for run in groups[recipe]]
        spread = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0.0]
        ax.scatter(
            values,
            position + np.asarray(spread),
            s=14,
            color=drawn.colour,
            alpha=0.45,
            linewidths=0,
        )
        mean, half = _interval(values)
        ax.errorbar(
            mean,
            position,
            xerr=half,
            color=drawn.colour,
            marker=drawn.marker,
            markersize=8,
            capsize=4,
            linewidth=2,
            markeredgecolor="white",
        )
        ax.annotate(
            f"{mean:.1f}",
            (mean, position),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set_yticks(range(len(names)), [look(name).label for name in names])
    ax.set_ylim(-0.6, len(names) - 0.3)
    ax.set(xlabel=f"{label.lower()}, test (%)   dots: seeds; bars: 95 % interval, {seeds(groups)}")
    ax.set_title(f"{label} by recipe{caveat(groups[names[0]])}")
    return made


def learning_curves(runs: Iterable[Run], *, smooth: int = 1) -> Figure:
    """Training loss and balanced accuracy by epoch (mean over seeds, 95 % band), switches marked.

    ``smooth`` epochs are averaged. The loss is a geometric mean, as its axis is logarithmic; losses of
    different recipes are different functions: compare their shapes, not their heights. The accuracy is
    that of the validation split where there is one, else of the test set.
    """
    groups = by_recipe(runs)
    made, (left, right) = figure(11, 4.4, columns=2)
    measured = "validation"
    if next(iter(groups.values()))[0].metrics["selections"]["best_validation"] is None:
        measured = "test"
    for recipe, members in groups.items():
        losses = _stack(members, "train_loss")
        _band(left, recipe, losses.index, np.log(losses.to_numpy()), smooth, np.exp)
        accuracy = 100 * _stack(members, f"{measured}_balanced_accuracy")
        _band(right, recipe, accuracy.index, accuracy.to_numpy(), smooth)
    switches: dict[int, list[str]] = {}
    for recipe, members in groups.items():
        history = members[0].history
        for end in history.loc[history["stage"].diff() > 0, "epoch"] - 1:
            switches.setdefault(int(end), []).append(look(recipe).label)
    for end, names in switches.items():
        for ax in (left, right):
            ax.axvline(end + 0.5, color="#555555", linestyle=(0, (1, 2)), linewidth=1)
        left.annotate(
            f"switch: {', '.join(names)}",
            (end + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="left",
            fontsize=7,
            color="#555555",
        )
    left.set(xlabel="epoch", ylabel="training loss of the recipe", yscale="log")
    left.set_title(f"Training loss (bands: 95 % interval, {seeds(groups)})")
    right.set(xlabel="epoch", ylabel=f"balanced {measured} accuracy (%)")
    right.set_title(f"Balanced {measured} accuracy{caveat(members)}")
    low, high = right.get_ylim()
    right.set_ylim(max(-1, low), min(101, high))  # an interval may leave what a share can be
    right.legend(edgecolor="none", framealpha=0.9, fontsize=8, loc="lower right")
    return made


def _stack(runs: Sequence[Run], column: str) -> pd.DataFrame:
    """A column of the runs' histories: evaluated epochs × runs."""
    histories = [run.history.set_index("epoch")[column].dropna() for run in runs]
    return pd.concat(histories, axis=1).dropna()


def _band(ax: Axes, recipe: str, epochs, values: np.ndarray, smooth: int, back=lambda x: x) -> None:
    """Mean and interval over the columns of ``values`` (epochs, runs), mapped ``back`` for drawing."""
    epochs = np.asarray(epochs)
    if smooth > 1 and len(epochs) > smooth:
        kernel = np.ones(smooth) / smooth
        values = np.array([np.convolve(column, kernel, mode="valid") for column in values.T]).T
        epochs = epochs[smooth - 1 :]
    mean, half = np.array([_interval(row) for row in values]).T
    drawn = look(recipe)
    ax.plot(
        epochs,
        back(mean),
        color=drawn.colour,
        linestyle=drawn.line,
        marker=drawn.marker,
        markevery=max(1, len(epochs) // 8),
        markersize=5,
        linewidth=1.4,
        label=drawn.label,
    )
    ax.fill_between(
        epochs, back(mean - half), back(mean + half), color=drawn.colour, alpha=0.1, linewidth=0
    )


def confusion_matrix(
    runs: Iterable[Run], recipes: Sequence[str], *, selection: str = "last"
) -> Figure:
    """Mean row-normalised test confusion, one panel for each recipe."""
    groups = by_recipe(runs)
    missing = [recipe for recipe in recipes if recipe not in groups]
    if missing:
        raise ValueError(f"Expected runs of {', '.join(missing)} to draw, got none.")
    made, axes = figure(5.2 * len(recipes), 4.8, columns=len(recipes))
    for ax, recipe in zip(axes, recipes, strict=True):
        members = groups[recipe]
        order = _head_to_tail(members[0])
        names = [members[0].class_names[label] for label in order]
        shares = []
        for run in members:
            matrix = confusion(run.test_classes(selection), run.test_targets, len(names))
            matrix = matrix[np.ix_(order, order)]
            shares.append(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
        few = len(names) <= 15
        seaborn.heatmap(
            100 * np.mean(shares, axis=0),
            ax=ax,
            cmap="cividis",
            vmin=0,
            vmax=100,
            square=True,
            annot=few,
            fmt=".0f",
            annot_kws={"fontsize": 7},
            cbar=ax is axes[-1],
            xticklabels=wrapped(names) if few else "auto",
            yticklabels=wrapped(names) if few else "auto",
            cbar_kws={"label": "share of the true class (%)"},
        )
        if few and max(map(len, names)) > 4:
            ax.tick_params(axis="x", rotation=45)
            ax.tick_params(axis="both", labelsize=8)
        ax.set(xlabel="predicted class", ylabel="true class (head at the top)")
        ax.set_title(f"{look(recipe).label}, mean of {len(members)} seeds{caveat(members)}")
    return made


def forest(table: pd.DataFrame, *, xlabel: str, title: str = "", by: str | None = None) -> Figure:
    """Differences with their intervals, one line each; filled where the corrected p is below 0.05.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns label, difference, low, high, p_holm (see :mod:`hml_lab.studies.audit`).
    xlabel, title : str
    by : str, optional
        Column whose values are drawn in different colours, named in a legend.
    """
    rows = table.dropna(subset=["difference"]).iloc[::-1].reset_index(drop=True)
    if rows.empty:
        raise ValueError("Expected at least one difference to draw, got none.")
    made, (ax,) = figure(9.5, 0.34 * len(rows) + 1.6)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color="#dddddd", linewidth=0.7)
    ax.axvline(0, color="#444444", linewidth=1)
    groups = rows[by].unique()[::-1] if by else [None]
    for group in groups:
        drawn = look(group or "ce")
        part = rows[rows[by] == group] if by else rows
        for position, row in part.iterrows():
            sure = row["p_holm"] < 0.05
            half = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            ax.errorbar(
                row["difference"],
                position,
                xerr=None if np.isnan(row["low"]) else half,
                color=drawn.colour,
                marker=drawn.marker,
                markersize=7,
                capsize=3,
                markerfacecolor=drawn.colour if sure else "white",
            )
        if by:
            ax.plot([], [], color=drawn.colour, marker=drawn.marker, label=drawn.label)
    ax.set_yticks(range(len(rows)), rows["label"], fontsize=9)
    ax.set(xlabel=f"{xlabel}\n95 % interval; filled: p < 0.05 after Holm", title=title)
    if by:
        ax.legend(frameon=False, fontsize=9)
    return made


def delta_sweep(frame: pd.DataFrame) -> Figure:
    """Balanced test accuracy of HML1 against δ, outer weights and no early drop, with CE beside it."""
    done = frame[(frame["status"] == "done") & ~frame["early_drop"].astype(bool)].drop_duplicates(
        "run_id"
    )

    def score(runs: pd.DataFrame) -> tuple[float, float]:
        return _interval(100 * runs["last_balanced_accuracy"].to_numpy(dtype=float))

    swept = done[(done["recipe"] == "hml1") & (done["weight_placement"] == "outer")]
    if swept.empty:
        raise ValueError("Expected finished runs of HML1 to draw, got none.")
    ordered = sorted(swept["delta"].unique())
    made, (ax,) = figure(8, 4)
    points = [(i, *score(swept[swept["delta"] == delta])) for i, delta in enumerate(ordered)]
    position, mean, half = np.array(points).T
    drawn = look("hml1")
    ax.errorbar(
        position,
        mean,
        half,
        color=drawn.colour,
        marker=drawn.marker,
        linestyle="--",
        capsize=4,
        label="HML1, no early drop",
    )
    if len(unweighted := done[done["recipe"] == "ce"]):
        plain, baseline = score(unweighted), look("ce")
        ax.axhline(plain[0], color=baseline.colour, label="CE")
        ax.axhspan(plain[0] - plain[1], plain[0] + plain[1], color=baseline.colour, alpha=0.1)
    names = ["∞" if np.isinf(delta) else f"{delta:.0e}" for delta in ordered]
    ax.set_xticks(range(len(ordered)), names)
    ax.set(
        xlabel="δ",
        ylabel="balanced test accuracy (%)",
        title="The choice of δ (bars and band: 95 % interval over seeds)",
    )
    ax.legend(frameon=False)
    return made
