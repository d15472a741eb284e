"""What happens class by class: training images, accuracies, confusions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hml_core.imbalance import shot_groups
from hml_core.metrics import confusion
from hml_core.runs import Run
from hml_lab.plots import spreads
from hml_lab.plots.looks import label, look
from hml_lab.plots.methods import (
    ITS_MEDIAN,
    by_recipe,
    caveat_of,
    numbers,
    one_for,
    said_caveat,
    unstable,
)
from hml_lab.plots.style import (
    above,
    alt_text,
    drawing,
    figure,
    legend,
    name_classes,
    shade_groups,
)
from hml_lab.wording import number

MOST_BARS = 200  # of more, a bar is narrower than its edge
MOST_MARKS = 20  # classes with a mark each; of more, curves
COLOURS = {"many": "#4a7a3a", "medium": "#c9a227", "few": "#b5473c"}
RULES = {"many": "> 100", "medium": "20–100", "few": "< 20"}
HATCHES = {"many": "", "medium": "//", "few": ".."}


@drawing
def class_counts(
    counts: Sequence[int],
    class_names: Sequence[str],
    *,
    title: str = "Training images of each class",
    synthetic: bool = False,
) -> Figure:
    """Bars of the training set's class counts on a logarithmic scale, by shot group."""
    title += "\nSYNTHETIC images" if synthetic else ""
    counts = np.asarray(counts)
    drawn, (ax,) = figure(8, 3.2)
    positions = np.arange(len(counts))
    groups = {name: members for name, members in shot_groups(counts).items() if len(members)}
    for name, members in groups.items():
        how = {"color": COLOURS[name], "hatch": HATCHES[name], "edgecolor": "white"}
        if len(counts) <= MOST_BARS:
            ax.bar(positions[members], counts[members], **how)
        else:
            ax.fill_between(positions[members], counts[members], **how)
    ax.set_yscale("log")
    ax.set_ylim(min(1, counts.min() / 2) or 0.5, 2 * counts.max())
    ax.margins(x=0.01)
    ax.set(xlabel="class", ylabel="training images", title=title)
    if len(counts) <= 30:
        _name_bars(ax)
        name_classes(ax, positions, class_names)
    else:
        ax.set_xlabel("class, in the order of the data set")
    entries = [
        Patch(facecolor=COLOURS[name], hatch=HATCHES[name], edgecolor="white",
              label=f"{name} ({RULES[name]}): {number(len(members), 'class', 'classes')}")
        for name, members in groups.items()
    ]  # fmt: skip
    legend(drawn, entries, "shot group (training images of a class)")
    shares = ", ".join(f"{len(members)} {name}" for name, members in groups.items())
    alt_text(
        drawn,
        f"Bar chart. {title}: {number(len(counts), 'class', 'classes')} with {counts.max():,} down to "
        f"{counts.min():,} images ({shares}), {counts.sum():,} in all.",
    )
    return drawn


def _name_bars(ax) -> None:
    """Each bar's count above it, smaller or turned where bars are narrow."""
    bars = sum(len(container) for container in ax.containers)
    room = ax.figure.get_figwidth() * 72 * 0.85 / bars  # points
    widest = max(len(f"{bar.get_height():.0f}") for c in ax.containers for bar in c)
    how = {"fontsize": "small" if room > widest * 5.5 else "x-small"}
    how["rotation"] = 0 if room > widest * 4.5 else 90
    for container in ax.containers:
        ax.bar_label(container, padding=1, **how)


@drawing
def per_class_accuracy(runs: Iterable[Run], *, selection: str = "last") -> Figure:
    """Test accuracy of each class by recipe over the class counts, with what surrounds the means.

    With more than 20 classes, curves: a running mean over neighbouring classes, shot groups shaded.
    """
    groups = by_recipe(runs)
    first = next(iter(groups.values()))[0]
    if len(first.class_counts) > MOST_MARKS:
        return _per_class_curves(groups, selection)
    order = _head_to_tail(first)
    counts, names = first.class_counts[order], [first.class_names[label] for label in order]
    drawn, (ax, below) = figure(10, 4.6, rows=2, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    positions = np.arange(len(counts))
    room = 0.8 / len(groups)
    marks = spreads.Marks(ax, "y", spreads.SHARE, include=(0, 100))
    for place, (method, members) in enumerate(groups.items()):
        accuracy = 100 * np.array([run.per_class_accuracy(selection)[order] for run in members])
        offset = (place - (len(groups) - 1) / 2) * room
        for position, column in zip(positions, accuracy.T, strict=True):
            values = spreads.spread(column, each=unstable(members))
            marks.add(position + offset, values, look(method), size=5)
    marks.finish()
    for position in positions[:-1]:
        ax.axvline(position + 0.5, color="#e5e5e5", linewidth=0.8, zorder=0)
    ax.set(ylabel="test accuracy of the class (%)", xlim=(-0.6, len(counts) - 0.4))
    ax.set_title(
        f"Accuracy of each class ({spreads.legend_of(numbers(groups))}){caveat_of(groups)}", pad=10
    )
    below.bar(positions, counts, color="#999999", width=0.8)
    below.set_yscale("log")
    below.set_ylim(min(1, counts.min() / 2) or 0.5, counts.max() * 12)
    _name_bars(below)
    below.set(ylabel="training\nimages", xlabel="class")
    name_classes(below, positions, names)
    legend(drawn, [spreads.key(look(method)) for method in groups])
    alt_text(drawn, f"Accuracy of each class by method. {_head_and_tail(groups, selection)}")
    return drawn


def _head_to_tail(run: Run) -> np.ndarray:
    """The classes from the most frequent to the rarest; those of a folder come in order of their names."""
    return np.argsort(-run.class_counts, kind="stable")


def _head_and_tail(groups: Mapping[str, list[Run]], selection: str) -> str:
    first = next(iter(groups.values()))[0]
    order = _head_to_tail(first)
    part = max(1, len(order) // 3)
    said = []
    for method, members in groups.items():
        middle = np.median if unstable(members) else np.mean
        mean = 100 * middle([run.per_class_accuracy(selection) for run in members], axis=0)
        head, tail = np.nanmean(mean[order[:part]]), np.nanmean(mean[order[-part:]])
        which = " (medians of its runs)" if unstable(members) else ""
        said.append(f"{label(method)} {head:.0f} % and {tail:.0f} %{which}")
    which = "class" if part == 1 else f"{part} classes"
    return f"Mean of the most frequent and of the rarest {which}: {'; '.join(said)}.{said_caveat(groups)}"


def _per_class_curves(groups: Mapping[str, list[Run]], selection: str) -> Figure:
    first = next(iter(groups.values()))[0]
    order = _head_to_tail(first)
    counts = first.class_counts[order]
    width = max(3, len(counts) // 10)
    drawn, (ax,) = figure(10, 4.4)
    shade_groups(ax, counts)
    kernel = np.ones(width)
    positions = np.arange(len(counts))
    for method, members in groups.items():
        accuracy = 100 * np.array([run.per_class_accuracy(selection)[order] for run in members])
        known = np.isfinite(accuracy)  # a class without test images has no accuracy
        total = np.array([np.convolve(np.nan_to_num(row), kernel, "same") for row in accuracy])
        weight = np.array([np.convolve(row.astype(float), kernel, "same") for row in known])
        smooth = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
        spreads.band(ax, positions, smooth.T, look(method), each=unstable(members))
    ax.set(
        xlabel=f"class, head to tail ({counts.max():,} to {counts.min():,} training images)",
        ylabel=f"test accuracy (%),\nrunning mean of {width} classes",
        xlim=(-0.5, len(counts) - 0.5),
    )
    low, high = ax.get_ylim()
    ax.set_ylim(max(0, low), min(100, high + 0.06 * (high - low)))
    said = spreads.legend_of(numbers(groups), band=True)
    ax.set_title(f"Accuracy along the tail ({said}){caveat_of(groups)}")
    legend(drawn, [spreads.key(look(method), line=True, size=5) for method in groups])
    alt_text(
        drawn,
        f"Lines of accuracy by class from head to tail. {_head_and_tail(groups, selection)}",
    )
    return drawn


@drawing
def confusion_matrix(
    runs: Iterable[Run], recipes: Sequence[str], *, selection: str = "last"
) -> Figure:
    """Mean row-normalised test confusion, one panel for each recipe, from head to tail.

    Of a method of which a run collapsed that of the run with the median balanced accuracy.
    """
    groups = by_recipe(runs)
    missing = [recipe for recipe in recipes if not _of(groups, recipe)]
    if missing:
        raise ValueError(f"Expected runs of {', '.join(missing)} to draw, got none.")
    chosen = [method for recipe in recipes for method in _of(groups, recipe)]
    drawn, axes = figure(5.2 * len(chosen), 4.8, columns=len(chosen))
    said = []
    for ax, method in zip(axes, chosen, strict=True):
        members = groups[method]
        which = f"median of {len(members)} seeds" if unstable(members) else _mean_of(len(members))
        members = one_for(members, selection)
        order = _head_to_tail(members[0])
        names = [members[0].class_names[label] for label in order]
        shares = []
        for run in members:
            matrix = confusion(run.test_classes(selection), run.test_targets, len(names))
            matrix = matrix[np.ix_(order, order)]
            shares.append(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
        mean = 100 * np.mean(shares, axis=0)
        few = len(names) <= 15
        image = ax.imshow(
            mean, cmap="cividis", vmin=0, vmax=100, interpolation="nearest", aspect="auto"
        )
        if few:
            for (row, column), share in np.ndenumerate(mean):
                colour = "white" if share < 55 else "black"
                ax.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour,
                        fontsize="small" if len(names) <= 10 else "x-small")  # fmt: skip
        if ax is axes[-1]:
            drawn.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8)
        ax.grid(visible=False)
        places = np.arange(len(names))
        name_classes(ax, places, names)
        name_classes(ax, places, names, "y")
        ax.set(xlabel="predicted class", ylabel="true class (head at the top)")
        ax.set_title(f"{label(method)}, {which}")
        np.fill_diagonal(off := mean.copy(), -1)
        true, predicted = np.unravel_index(off.argmax(), off.shape)
        said.append(
            f"{label(method)}: {np.trace(mean) / len(mean):.0f} % on the diagonal on average; most often "
            f"confused: {names[true]} taken for {names[predicted]} ({off.max():.0f} %)"
        )
    shown = {method: groups[method] for method in chosen}
    above(drawn, caveat_of(shown, ITS_MEDIAN))
    alt_text(drawn, f"Confusion matrices. {'. '.join(said)}.{said_caveat(shown, ITS_MEDIAN)}")
    return drawn


def _of(groups: Mapping[str, list[Run]], recipe: str) -> list[str]:
    """The methods of that name or of that recipe."""
    if recipe in groups:
        return [recipe]
    return [m for m, members in groups.items() if members[0].config.recipe == recipe]


def _mean_of(count: int) -> str:
    return "1 seed" if count == 1 else f"mean of {count} seeds"
