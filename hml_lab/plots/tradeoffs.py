"""What a gain costs: rare classes against frequent ones, accuracy against time, confidence and truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hml_core.runs import Run
from hml_lab import stats, timed
from hml_lab.plots import spreads
from hml_lab.plots.looks import Look, label, look
from hml_lab.plots.methods import by_recipe, caveat_of, numbers, said_caveat, seeds, unstable
from hml_lab.plots.style import alt_text, drawing, figure, legend, marker_size, shade
from hml_lab.tables.contrasts import run_is_lost
from hml_lab.wording import span

MOST_MARKS = 20  # different class counts with a mark each; of more, curves
BINS = 15  # of the confidence, as for the calibration error
FEWEST_IMAGES = 20  # of all runs in a bin, below which its accuracy says nothing


@drawing
def gain_by_frequency(
    runs: Iterable[Run], *, baseline: str | None = None, selection: str = "last"
) -> Figure:
    """Accuracy of each class above the baseline's, against the number of its training images.

    Paired by class and by seed: each class's accuracy less that of the baseline (the first method) with
    the same seed, mean over the seeds that both have. Of many classes, a running mean over neighbouring
    ones, its band the 95 % interval (Student's t) of the mean over these classes with the networks held
    fixed. Where each count belongs to one class, the marks are these classes, with their seeds as dots
    or, from five on, the interval over seeds. A method of which a run collapsed has a thin curve, or dots,
    for each run; curves of the collapsed runs may leave the axis, which is that of the others.

    Raises
    ------
    ValueError
        Where there is no other method, no run of the baseline, or no seed in common.
    """
    groups = by_recipe(runs)
    baseline = next(iter(groups)) if baseline is None else baseline
    if baseline not in groups:
        raise ValueError(f"Expected `baseline` to be one of {', '.join(groups)}, got {baseline!r}.")
    first = groups[baseline][0]
    order = np.argsort(-first.class_counts, kind="stable")
    counts = first.class_counts[order]
    gains, drawn_runs, far = {}, {baseline: groups[baseline]}, {}
    reference = {run.config.seed: run for run in groups[baseline]}
    for method, members in groups.items():
        own = [run for run in members if run.config.seed in reference]
        if method != baseline and own:
            twins = [reference[run.config.seed] for run in own]
            gains[method] = 100 * _differences(own, twins, selection)[:, order]  # (n, C)
            drawn_runs[method] = own
            far[method] = [
                run_is_lost(a) or run_is_lost(b) for a, b in zip(own, twins, strict=True)
            ]
    if not gains:
        raise ValueError(
            f"Expected runs of other methods with a seed of {label(baseline)}, got none."
        )
    drawn, (ax,) = figure(9, 4.4)
    ax.set_xscale("log")
    distinct = np.unique(counts)[::-1]
    lost = {method for method, members in groups.items() if unstable(members)}
    lost = {*gains} if baseline in lost else lost
    if len(distinct) <= MOST_MARKS:
        over = _marks(ax, gains, counts, distinct, lost)
    else:
        over = _curves(ax, gains, counts, lost, far)
    ax.axhline(0, color=look(baseline).colour, linewidth=1)
    edge = 10 ** (0.04 * max(0.3, np.log10(counts.max() / max(1, counts.min()))))
    left, right = max(0.5, counts.min() / edge), counts.max() * edge
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda images, _: f"{images:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(right, left)  # head to tail, as in every figure
    for name, low, high in (("many", 100, np.inf), ("medium", 20, 100), ("few", 0, 20)):
        ends = (max(low, left), min(high, right))
        if ends[0] < ends[1]:
            shade(ax, name, *ends)
    ax.set(xlabel="training images of the class (logarithmic, head to tail)")
    ax.set_ylabel(f"accuracy above {label(baseline)} (points)")
    n = span(map(len, gains.values()), "seed")
    ax.set_title(
        f"Gain over {label(baseline)} by class frequency (paired by seed, n = {n})\n{over}"
        f"{caveat_of(groups, drawn=drawn_runs)}"
    )
    line = len(distinct) > MOST_MARKS
    legend(drawn, [spreads.key(look(method), line=True, size=5 if line else 6) for method in gains])
    third = max(1, len(counts) // 3)
    said = "; ".join(
        f"{label(m)} {np.nanmean(g[:, :third]):+.1f} and {np.nanmean(g[:, -third:]):+.1f}"
        for m, g in gains.items()
        if m not in lost
    )
    alt_text(
        drawn,
        f"Gain in accuracy over {label(baseline)} against the training images of a class. Mean of the "
        f"most frequent and of the rarest third of classes, in points: {said}."
        f"{said_caveat(groups, drawn=drawn_runs)}",
    )
    return drawn


def _differences(members: Sequence[Run], twins: Sequence[Run], selection: str) -> np.ndarray:
    """Differences in accuracy of runs of one seed (pairs, C)."""
    return np.array(
        [
            run.per_class_accuracy(selection) - twin.per_class_accuracy(selection)
            for run, twin in zip(members, twins, strict=True)
        ]
    )


def _marks(
    ax, gains: dict[str, np.ndarray], counts: np.ndarray, distinct: np.ndarray, lost: set[str]
) -> str:
    single = len(distinct) == len(counts)
    marks = spreads.Marks(ax, "y", spreads.DIFFERENCE, include=(0,))
    ratio = (
        (distinct.max() / distinct.min()) ** (1 / max(1, len(distinct) - 1))
        if len(distinct) > 1
        else 1.5
    )
    for place, (method, gain) in enumerate(gains.items()):
        beside = ratio ** (0.5 * ((place + 0.5) / len(gains) - 0.5))
        places, means = [], []
        for count in distinct:
            of_classes = gain[:, counts == count]
            if single or method in lost:
                values = spreads.spread(of_classes.mean(axis=1), each=method in lost)
            else:
                over_classes = of_classes.mean(axis=0)
                over_classes = over_classes[np.isfinite(over_classes)]
                interval = stats.mean_interval(over_classes)
                values = spreads.Spread(interval.mean, interval.low, interval.high, np.empty(0))
            marks.add(count / beside, values, look(method))
            places.append(count / beside)
            means.append(values.mean)
        how = look(method)
        ax.plot(places, means, color=how.colour, linestyle=how.line, linewidth=0.9, alpha=0.7)
    marks.finish()
    found = sorted({len(gain) for gain in gains.values()})
    if single:
        return spreads.legend_of(found)
    return "bars: 95 % interval of the mean over the classes of one count"


def _curves(
    ax,
    gains: dict[str, np.ndarray],
    counts: np.ndarray,
    lost: set[str],
    far: dict[str, list[bool]],
) -> str:
    """``far``: runs that collapsed, or whose twin did; the axis need not hold them."""
    width = max(5, len(counts) // 8)
    ends, far_ends = [], []
    for method, gain in gains.items():
        if method in lost:
            curves = _each_curve(ax, gain, counts, width, look(method))
            for is_far, own in zip(far[method], curves, strict=True):
                (far_ends if is_far else ends).extend(own)
            continue
        mean = gain.mean(axis=0)  # (C,)
        known = np.isfinite(mean)
        values, images = mean[known], counts[known]
        rows = np.arange(len(values) - width + 1)[:, None] + np.arange(width)
        measured = [stats.mean_interval(row) for row in values[rows]]
        places = np.exp(np.log(images[rows]).mean(axis=1))
        middle = np.array([item.mean for item in measured])
        low, high = (np.array([getattr(item, end) for item in measured]) for end in ("low", "high"))
        how = look(method)
        ax.plot(images, values, ".", color=how.colour, markersize=3, alpha=0.5, markeredgewidth=0)
        ax.plot(places, middle, color=how.colour, linestyle=how.line, marker=how.marker,
                markevery=max(1, len(places) // 8), markersize=5, linewidth=1.5)  # fmt: skip
        ax.fill_between(places, low.clip(-100), high.clip(None, 100), color=how.colour, alpha=0.12,
                        linewidth=0)  # fmt: skip
        ends += [*low, *high]
    low, high = spreads.window([*(ends or far_ends), 0], possible=spreads.DIFFERENCE)
    ax.set_ylim(low, high)  # single classes beyond are not drawn
    leaves = far_ends and (min(far_ends) < low or max(far_ends) > high)
    deepest = f"\ncurves of collapsed runs leave the axis, down to {min(far_ends):+.0f} points"
    return (
        f"running mean of {width} classes; band: 95 % interval over these classes; "
        f"dots: classes within the axis{deepest if leaves else ''}"
    )


def _each_curve(
    ax, gain: np.ndarray, counts: np.ndarray, width: int, how: Look
) -> list[tuple[float, float]]:
    """A thin running mean for each run (n, C), and its two ends."""
    ends = []
    for run in gain:
        known = np.isfinite(run)
        rows = np.arange(known.sum() - width + 1)[:, None] + np.arange(width)
        places = np.exp(np.log(counts[known][rows]).mean(axis=1))
        middle = run[known][rows].mean(axis=1)
        ax.plot(places, middle, color=how.colour, linestyle=how.line, linewidth=0.8)
        ends.append((middle.min(), middle.max()))
    return ends


@drawing
def accuracy_by_cost(
    runs: Iterable[Run],
    *,
    selection: str = "last",
    metric: str = "balanced_accuracy",
    label_of_metric: str = "balanced accuracy",
) -> Figure:
    """A test metric against the time that training took: the mean of a method, its runs as dots.

    The time is that of all epochs of a run, those included that it took over from another run. Where the
    runs were not timed alike (:func:`hml_lab.timed.unlike`: another commit, device or library, or
    beginnings taken over) each run stands by itself and the title says why: no mean of such times is what
    a method costs. Where runs shared a device, which no record tells, each one's time holds its waiting
    for the others. Runs that collapsed are named at the edge.
    """
    groups = by_recipe(runs)
    reasons = timed.unlike(run for members in groups.values() for run in members)
    drawn, (ax,) = figure(8, 4.4)
    marks = spreads.Marks(ax, "y", spreads.SHARE)
    times = {}
    for method, members in groups.items():
        minutes = np.array([run.history["seconds"].sum() / 60 for run in members])
        values = 100 * np.array([run.selection(selection)[metric] for run in members])
        how = look(method)
        lost = np.array([unstable(members) and run_is_lost(run) for run in members])
        if lost.any():
            marks.add_far(minutes[lost], values[lost], how)
        kept = ~lost
        if reasons:
            size = how.scale * marker_size(5)
            ax.plot(minutes[kept], values[kept], color=how.colour, marker=how.marker,
                    linestyle="none", markersize=size, alpha=0.7, markeredgewidth=0.5)  # fmt: skip
            continue
        if not unstable(members):
            times[method] = (minutes.mean(), values.mean())
            marks.add(minutes.mean(), spreads.spread(values), how, size=8)
        if len(members) > 1:
            ax.plot(minutes[kept], values[kept], ".", color=how.colour, alpha=0.5, markersize=5)
    # The dots of few seeds stand at their own times, above.
    marks._entries = [
        (place, spreads.Spread(s.mean, s.low, s.high, np.empty(0)), *rest)
        for place, s, *rest in marks._entries
    ]
    marks.include = [
        100 * run.selection(selection)[metric]
        for members in groups.values()
        for run in members
        if not (unstable(members) and run_is_lost(run))
    ]
    marks.finish()
    devices = sorted({run.metrics["device"] for members in groups.values() for run in members})
    ax.set_xlim(0, None)
    ax.set(xlabel=f"training time of a run (minutes; {', '.join(devices)})")
    ax.set_ylabel(f"{label_of_metric}, test (%)")
    bars = "; bars: 95 % interval" if max(numbers(groups)) > spreads.FEW_SEEDS else ""
    marked = f"dots: runs; marks: means{bars}"
    if reasons:
        marked = (
            "marks: runs, no means, as these were not timed alike and no time is a method's cost"
        )
    ax.set_title(
        f"Accuracy against training time\n{marked}; {seeds(groups)}"
        f"{''.join(f'{chr(10)}{reason}' for reason in reasons)}{caveat_of(groups)}"
    )
    legend(drawn, [spreads.key(look(method), size=7) for method in groups])
    said = "; ".join(
        f"{label(m)} {value:.1f} % in {time:.1f} minutes" for m, (time, value) in times.items()
    )
    said = f"Mean {label_of_metric} against training time. {said}."
    if reasons:
        said = (
            f"The {label_of_metric} of each run against its training time, without means: not timed "
            f"alike, {'; '.join(reasons)}."
        )
    alt_text(drawn, f"{said}{said_caveat(groups)}")
    return drawn


@drawing
def reliability(runs: Iterable[Run], *, selection: str = "last", bins: int = BINS) -> Figure:
    """Accuracy of the predictions against how sure the network is of them; below, how often it is so.

    On the diagonal a network is right as often as it says. Bins are of equal width, as for the expected
    calibration error; those with fewer than 20 test images of all runs are left out, and the legend says
    where no other is left. Bands are over seeds.
    """
    groups = by_recipe(runs)
    drawn, (ax, below) = figure(6, 6, rows=2, sharex=True, gridspec_kw={"height_ratios": [3, 1]})
    edges = np.linspace(0, 1, bins + 1)
    centres = 100 * (edges[:-1] + edges[1:]) / 2
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.9)
    said, entries = [], [Line2D([], [], color="#999999", linewidth=0.9, label="as sure as right")]
    for method, members in groups.items():
        how = look(method)
        right, total = np.array([_bins(run, selection, bins) for run in members]).transpose(1, 0, 2)
        enough = total.sum(axis=0) >= FEWEST_IMAGES
        accuracy = np.divide(100 * right, total, out=np.full_like(right, np.nan), where=total > 0)
        each = unstable(members)
        spreads.band(ax, centres[enough], accuracy[:, enough].T, how, marks=bins, each=each)
        shares = 100 * total / total.sum(axis=1, keepdims=True)
        for share in shares if each else [shares.mean(axis=0)]:
            line = {"linestyle": how.line, "linewidth": 0.8 if each else 1.3}
            below.stairs(share, 100 * edges, color=how.colour, **line)
        errors = 100 * np.array([run.selection(selection)["ece"] for run in members])
        entry = spreads.key(how, line=True, size=5)
        ece = f"median {np.median(errors):.1f}" if each else f"{errors.mean():.1f}"
        curve = "" if enough.any() else f"; no bin has {FEWEST_IMAGES} test images"
        entry.set_label(f"{how.label} (ECE {ece} %{curve})")
        entries.append(entry)
        if each:
            continue
        over = 100 * (right.sum() / total.sum())
        sure = 100 * np.mean([run.test_predictions(selection).confidence.mean() for run in members])
        said.append(f"{label(method)} is {sure:.0f} % sure and {over:.0f} % right on average")
    ax.set(xlim=(0, 100), ylim=(0, 100), ylabel="accuracy of the bin (%)")
    ax.set_title(
        f"Reliability ({spreads.legend_of(numbers(groups), band=True)}){caveat_of(groups)}"
    )
    below.set(xlabel="probability of the predicted class (%)", ylabel="share of\ntest images (%)")
    below.set_ylim(0, None)
    legend(drawn, entries)
    alt_text(drawn, f"Reliability diagram: {'; '.join(said)}.{said_caveat(groups)}")
    return drawn


def _bins(run: Run, selection: str, bins: int) -> np.ndarray:
    """Right predictions and all predictions in each bin of confidence, float64 (2, bins)."""
    predicted = run.test_predictions(selection)
    confidence = np.asarray(predicted.confidence, dtype=float)
    which = np.clip(
        np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1
    )  # (lo, hi], as for the ECE
    right = np.asarray(predicted.classes) == run.test_targets
    return np.array(
        [np.bincount(which, right, minlength=bins), np.bincount(which, minlength=bins)], dtype=float
    )
