"""Means with what surrounds them: seeds as dots, intervals as bars or bands, inside the possible.

Up to :data:`FEW_SEEDS` runs are shown themselves, each a dot, or as a band from the lowest to the highest:
an interval of three values is mostly Student's t. From five on there is a 95 % interval of the mean. A
single run is a mark without either. Axes hold every mark and dot; an interval may widen them somewhat, and
where it leaves them, or what a share can be, its bar ends in an arrow. Runs that collapsed, far from all
others, need not be on the axis: they are named at its edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hml_lab import stats
from hml_lab.plots.looks import Look
from hml_lab.plots.style import marker_size
from hml_lab.wording import number, span

FEW_SEEDS = 4
SHARE = (0.0, 100.0)  # percent
DIFFERENCE = (-100.0, 100.0)  # points
ANYTHING = (-np.inf, np.inf)


@dataclass(frozen=True)
class Spread:
    """A mean with the values behind it; ``low`` and ``high`` are NaN where there is no interval."""

    mean: float
    low: float
    high: float
    values: np.ndarray

    @property
    def dots(self) -> np.ndarray:
        """Values that are drawn themselves."""
        drawn = 1 < len(self.values) <= FEW_SEEDS or np.isnan(self.mean)
        return self.values if drawn else self.values[:0]


def spread(values: Iterable[float], *, each: bool = False) -> Spread:
    """Mean of the values that are numbers, with its 95 % interval from five on; with ``each`` neither,
    but the values: those of runs of which some collapsed."""
    values = np.asarray(list(values), dtype=float)
    values = values[np.isfinite(values)]
    if not len(values) or each:
        return Spread(np.nan, np.nan, np.nan, values)
    if len(values) <= FEW_SEEDS:
        return Spread(float(values.mean()), np.nan, np.nan, values)
    interval = stats.mean_interval(values)
    return Spread(interval.mean, interval.low, interval.high, values)


def _listed(values: np.ndarray) -> str:
    """Each value, or of many the ends."""
    if len(values) > FEW_SEEDS:
        return f"{values.min():.1f} to {values.max():.1f}"
    return " / ".join(f"{value:.1f}" for value in values)


def legend_of(numbers: Sequence[int], *, band: bool = False) -> str:
    """What dots, bars or bands are, given how many seeds the methods have."""
    fewest, most = min(numbers), max(numbers)
    count = span(numbers, "seed")
    if most == 1:
        return "n = 1 seed: no interval"
    few = "bands: lowest to highest" if band else "dots: seeds"
    many = "bands: 95 % interval" if band else "bars: 95 % interval"
    if most <= FEW_SEEDS:
        return f"{few}, n = {count}"
    if fewest > FEW_SEEDS or fewest == most:
        return f"{many}, n = {count}"
    return f"{many} (n ≥ {FEW_SEEDS + 1}) or {few.split(': ')[1]}, n = {count}"


def window(
    points: Sequence[float],
    lows: Sequence[float] = (),
    highs: Sequence[float] = (),
    possible: tuple[float, float] = ANYTHING,
) -> tuple[float, float]:
    """Limits of an axis: all points, and of the intervals what does not flatten them.

    An interval widens the axis to each side by no more than the points span, or twice the median
    half-length of the intervals.

    >>> window([1.0, 3.0], [0.5, -100.0], [1.5, 106.0], (0.0, 100.0))
    (0.0, 5.0)
    """
    points = np.asarray(points, dtype=float)
    points = points[np.isfinite(points)]
    if not len(points):
        return (0.0, 1.0) if not np.isfinite(possible).all() else possible
    low, high = points.min(), points.max()
    lows, highs = np.asarray(lows, dtype=float), np.asarray(highs, dtype=float)
    lows, highs = lows[np.isfinite(lows)], highs[np.isfinite(highs)]
    span = high - low
    room = span
    if len(lows) and len(lows) == len(highs):
        half = float(np.median(highs - lows)) / 2
        room = max(span, 2 * half if half < 5 * span or not span else span)
        low, high = max(min(low, lows.min()), low - room), min(max(high, highs.max()), high + room)
    pad = 0.06 * (high - low) if high > low else max(1.0, 0.05 * abs(high))
    if low > points.min() - room or not len(lows):
        low -= pad
    if high < points.max() + room or not len(highs):
        high += pad
    return float(max(low, possible[0])), float(min(high, possible[1]))


@dataclass
class Marks:
    """Means of one axes with their dots and bars; drawn by :meth:`finish`, which knows the limits.

    Parameters
    ----------
    ax : Axes
    along : {"x", "y"}
        The axis of the values.
    possible : (float, float)
        What a value can be.
    include : sequence of float
        Values that the axis has to hold, too, such as 0 of a difference.
    """

    ax: Axes
    along: str = "y"
    possible: tuple[float, float] = SHARE
    include: Sequence[float] = ()
    _entries: list = field(default_factory=list)
    _far: list = field(default_factory=list)

    def add(self, place: float, values: Spread, look: Look, *, size: float = 6, **marker) -> None:
        """A mark at ``place`` on the other axis; without a mean the dots alone, without either nothing."""
        if np.isfinite(values.mean) or len(values.dots):
            self._entries.append((place, values, look, look.scale * marker_size(size), marker))

    def add_far(self, place: float | Sequence[float], values: Sequence[float], look: Look) -> None:
        """Values that the axis need not hold: dots where it does, else named at the edge with an arrow.

        With a ``place`` for each value there is an arrow at each, and one text for all of them.
        """
        values = np.asarray(values, dtype=float)
        self._far.append(
            (np.broadcast_to(np.asarray(place, dtype=float), values.shape), values, look)
        )

    def finish(self, *, dots: float = 0.0) -> None:
        """Draw everything; ``dots`` is the room beside the mark over which its dots are spread."""
        points = [v for _, s, *_ in self._entries for v in (s.mean, *s.dots)]
        if not points and not len(self.include):
            points = [value for _, values, _ in self._far for value in values]
        inside = [
            (s.low, s.high) for _, s, *_ in self._entries if np.isfinite([s.low, s.high]).all()
        ]
        lows, highs = np.array(inside).reshape(-1, 2).T
        limits = self._with_room(window([*points, *self.include], lows, highs, self.possible))
        (self.ax.set_xlim if self.along == "x" else self.ax.set_ylim)(limits)
        for place, values, look, size, marker in self._entries:
            self._dots(place, values, look, dots, size)
            self._bar(place, values, look, limits)
            self._plot([place], [values.mean], color=look.colour, marker=look.marker, markersize=size,
                       linestyle="none", markeredgecolor=look.colour, markeredgewidth=0.8, zorder=3,
                       clip_on=False, **marker)  # fmt: skip
        for line, (places, values, look) in enumerate(self._far):
            self._at_edges(places, values, look, limits, line)

    def _with_room(self, limits: tuple[float, float]) -> tuple[float, float]:
        """Limits with room for what is named at an edge below or above; at the sides its row has it."""
        far = np.concatenate([[], *(values for _, values, _ in self._far)])
        if self.along == "x" or not len(far):
            return limits
        line = (0.04 + 0.065 * len(self._far)) * (limits[1] - limits[0])  # a line of text each
        low = limits[0] - line if far.min() < limits[0] else limits[0]
        high = limits[1] + line if far.max() > limits[1] else limits[1]
        return low, high

    def _at_edges(
        self,
        places: np.ndarray,
        values: np.ndarray,
        look: Look,
        limits: tuple[float, float],
        line: int,
    ) -> None:
        inside = (values >= limits[0]) & (values <= limits[1])
        if inside.any():
            self._plot(places[inside], values[inside], color=look.colour, marker=".",
                       linestyle="none", alpha=0.7, markeredgewidth=0, clip_on=False)  # fmt: skip
        arrows = ("<", ">") if self.along == "x" else ("v", "^")
        for edge, arrow, is_beyond in (
            (limits[0], arrows[0], values < limits[0]),
            (limits[1], arrows[1], values > limits[1]),
        ):
            if not is_beyond.any():
                continue
            beyond, there = values[is_beyond], np.unique(places[is_beyond])
            edges = np.full(len(there), edge)
            self._plot(there, edges, color=look.colour, marker=arrow, markersize=marker_size(6),
                       linestyle="none", clip_on=False, zorder=3, gid="off the axis")  # fmt: skip
            along_x = self.along == "x"
            at = (edge, there.mean()) if along_x else (there.mean(), edge)
            # Above each other at a lower or upper edge; at the sides each has its row.
            inwards = (7 if along_x else 7 + 11 * line) * (1 if edge == limits[0] else -1)
            self.ax.annotate(
                f"{number(len(beyond), 'run')} at {_listed(beyond)}", at, textcoords="offset points",
                xytext=(inwards, 0) if along_x else (0, inwards), fontsize="small", color=look.colour,
                ha=("left" if inwards > 0 else "right") if along_x else "center",
                va="center" if along_x else ("bottom" if inwards > 0 else "top"),
            )  # fmt: skip

    def _plot(self, places, values, **how) -> None:
        pair = (values, places) if self.along == "x" else (places, values)
        self.ax.plot(*pair, **how)

    def _dots(self, place, values: Spread, look: Look, room: float, size: float) -> None:
        dots = values.dots
        if len(dots):
            beside = np.linspace(-room, room, len(dots)) if room else np.zeros(len(dots))
            self._plot(place + beside, dots, color=look.colour, marker=".", linestyle="none",
                       markersize=0.85 * size / look.scale, alpha=0.7, markeredgewidth=0, zorder=2,
                       clip_on=False)  # fmt: skip

    def _bar(self, place, values: Spread, look: Look, limits: tuple[float, float]) -> None:
        if not np.isfinite([values.low, values.high]).all():
            return
        ends = (max(values.low, limits[0]), min(values.high, limits[1]))
        self._plot([place, place], ends, color=look.colour, linewidth=1.3, zorder=2.5)
        outwards = ("<", ">") if self.along == "x" else ("v", "^")
        caps = ("|", "|") if self.along == "x" else ("_", "_")
        for end, whole, arrow, cap in zip(
            ends, (values.low, values.high), outwards, caps, strict=True
        ):
            left = end != whole and end not in self.possible  # beyond 100 % there is nothing
            self._plot([place], [end], color=look.colour, marker=arrow if left else cap,
                       markersize=marker_size(5), linestyle="none", clip_on=False, zorder=2.5,
                       gid="leaves the axis" if left else None)  # fmt: skip


def key(look: Look, *, line: bool = False, size: float = 6) -> Line2D:
    """The entry of a method in a legend."""
    return Line2D(
        [],
        [],
        color=look.colour,
        marker=look.marker,
        markersize=look.scale * marker_size(size),
        label=look.label,
        linestyle=look.line if line else "none",
    )


def band(
    ax: Axes,
    places: np.ndarray,
    values: np.ndarray,
    look: Look,
    *,
    possible: tuple[float, float] = SHARE,
    back: Callable = lambda x: x,
    marks: int = 8,
    each: bool = False,
) -> np.ndarray:
    """Line of the means over the columns of ``values`` (places, runs) with its band, mapped ``back``.

    With ``each`` a thin line for every run in their place: of runs of which some collapsed.

    Returns
    -------
    float64 (places,)
        The means, as they were drawn; with ``each`` the medians. Without a place nothing is drawn.
    """
    if not len(places):
        return np.zeros(0)
    if each:
        for run in values.T:
            ax.plot(places, back(run), color=look.colour, linestyle=look.line, linewidth=0.8)
        return back(np.median(values, axis=1))
    spreads = [spread(row) for row in values]
    middle = back(np.array([item.mean for item in spreads]))
    every = max(1, len(places) // marks)
    ax.plot(places, middle, color=look.colour, linestyle=look.line, marker=look.marker,
            markevery=every, markersize=look.scale * marker_size(5), linewidth=1.4)  # fmt: skip
    ends = [
        (item.values.min(), item.values.max()) if len(item.dots) else (item.low, item.high)
        for item in spreads
        if len(item.values)
    ]
    if len(ends) == len(spreads) and np.isfinite(ends).all():
        low, high = np.clip(back(np.array(ends)).T, *possible)
        ax.fill_between(places, low, high, color=look.colour, alpha=0.12, linewidth=0)
    return middle
