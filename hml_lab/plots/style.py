"""The look of every figure: sizes, shot-group shades, text that fits, and a legend beside the axes.

Every public function of :mod:`hml_lab.plots` is a :func:`drawing`: it takes ``width`` in inches, such as
3.5 for a paper's column, and is then drawn anew at that width, with its panels below each other and its
text in a smaller size; a figure is never scaled as a picture. What a figure shows is also said in words
(:func:`alt_text`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter

from hml_core.errors import ConfigError
from hml_core.imbalance import shot_groups

GROUP_SHADES = {"many": "#e8f0e4", "medium": "#f6f1dc", "few": "#f6e3e0"}
GRID = "#dddddd"
NARROWEST_PANEL = 2.6  # inches; panels that would be narrower stand below each other
WIDTHS = (1.5, 40.0)  # inches that a figure may be asked for
COLUMN_FONT, FONT = 8.0, 10.0  # points

_width: ContextVar[float | None] = ContextVar("width", default=None)


def drawing(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make ``function`` take ``width`` (inches), and its figure able to be drawn anew at another one.

    The figure has two attributes more: ``alt``, what it shows in words, and ``at_width``, a function of a
    width that gives the same figure at that width.

    Raises
    ------
    ConfigError
        For a width that no page has.
    """

    @functools.wraps(function)
    def draw(*args, width: float | None = None, **options) -> Figure:
        if width is not None and not WIDTHS[0] <= width <= WIDTHS[1]:
            raise ConfigError(
                f"Expected the width of a figure to be {WIDTHS[0]} to {WIDTHS[1]} inches, got {width}."
            )
        args = tuple(list(item) if isinstance(item, Iterator) else item for item in args)
        options = {
            name: list(item) if isinstance(item, Iterator) else item
            for name, item in options.items()
        }
        with _page(width):
            figure = function(*args, **options)
            fit_texts(figure)
        figure.at_width = lambda width: draw(*args, width=width, **options)
        figure.alt = getattr(figure, "alt", "") or (function.__doc__ or "").split("\n")[0]
        return figure

    signature = inspect.signature(function)
    wide = inspect.Parameter(
        "width", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="float | None"
    )
    draw.__signature__ = signature.replace(parameters=[*signature.parameters.values(), wide])
    return draw


@contextlib.contextmanager
def _page(width: float | None) -> Iterator[None]:
    size = FONT if width is None else COLUMN_FONT
    token = _width.set(width)
    try:
        with matplotlib.rc_context({"font.size": size, "axes.titlesize": "medium"}):
            yield
    finally:
        _width.reset(token)


def alt_text(figure: Figure, text: str) -> None:
    """Say in words what ``figure`` shows: for readers who do not see it."""
    figure.alt = " ".join(text.split())


def figure(
    width: float = 8.0,
    height: float = 4.0,
    columns: int = 1,
    rows: int = 1,
    *,
    by_rows: bool = False,
    stack: bool = True,
    **options,
) -> tuple[Figure, list[Axes]]:
    """A figure in inches with its axes in reading order, without touching pyplot's state.

    At another width than its own (:func:`drawing`), its height shrinks less than its width, and columns
    that would be too narrow stand below each other (``stack``). ``by_rows``: the height is that of lines
    of text, and shrinks with these alone.
    """
    wanted = _width.get()
    if wanted is not None:
        if stack and columns > 1 and wanted / columns < NARROWEST_PANEL:
            width, height, rows, columns = width / columns, height * columns, rows * columns, 1
            height *= 0.85
        height *= (
            COLUMN_FONT / FONT if by_rows else float(np.clip(np.sqrt(wanted / width), 0.7, 1.2))
        )
        width = wanted
    drawn = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(rows, columns, squeeze=False, **options)
    axes = list(grid.flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color=GRID, linewidth=0.7)
        ax.set_axisbelow(True)
    return drawn, axes


def page_width() -> float:
    """Inches that the figure was asked to have; infinite where it has its own width."""
    return _width.get() or np.inf


def above(figure: Figure, lines: str) -> None:
    """What is to be said of all panels, once, above their titles."""
    if lines.strip():
        figure.suptitle(lines.strip(), fontsize=matplotlib.rcParams["axes.titlesize"])


def marker_size(points: float) -> float:
    """The size of a mark, smaller where the text is smaller."""
    return points * matplotlib.rcParams["font.size"] / FONT


def horizontal_values(ax: Axes) -> None:
    """Grid lines for values along x."""
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID, linewidth=0.7)


def legend(figure: Figure, handles: Sequence, title: str | None = None) -> None:
    """A legend below the axes, where it covers nothing, in as many columns as the width holds.

    The figure grows by its height.
    """
    if not handles:
        return
    options = {"loc": "outside lower center", "frameon": False, "fontsize": "small", "title": title}
    renderer = figure.canvas.get_renderer()
    room = figure.bbox.width
    for columns in range(min(len(handles), 6), 0, -1):
        placed = figure.legend(handles=handles, ncols=columns, **options)
        _letter_for_letter(placed)
        extent = placed.get_window_extent(renderer)
        if extent.width <= room or columns == 1:
            break
        placed.remove()
    figure.set_figheight(figure.get_figheight() + extent.height / figure.dpi)


def handles(ax: Axes) -> list:
    """What of ``ax`` has a label, once for each label."""
    return list(
        {label: item for item, label in zip(*ax.get_legend_handles_labels(), strict=True)}.values()
    )


def wrapped(names: Sequence[str], width: int = 12) -> list[str]:
    """Names broken into lines, so that they stand beside each other."""
    return [textwrap.fill(str(name), width, break_long_words=False) for name in names]


def row_height(texts: Sequence[str], least: float) -> float:
    """Inches of each of equally high rows, so that labels of several lines do not touch."""
    lines = [1 + text.count("\n") for text in texts]
    pairs = [(a + b) / 2 for a, b in itertools.pairwise(lines)]
    return max(least, 0.155 * max([*pairs, 1]) + 0.05)


LONGEST_NAME = 28  # letters of a class name under an axis


def shortened(name: str) -> str:
    """A name without what of it no axis has room for."""
    name = " ".join(str(name).split())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def name_classes(
    ax: Axes, positions: Sequence[float], names: Sequence[str], axis: str = "x"
) -> None:
    """Class names along an axis that never overlap: broken, turned, smaller, or only every so many.

    Which of these it takes is measured when the figure is complete (:func:`fit_texts`).
    """
    ax.figure.__dict__.setdefault("class_axes", []).append((ax, list(positions), list(names), axis))
    _ticks(ax, axis, positions, names)


def _ticks(ax: Axes, axis: str, positions, names, **how) -> None:
    (ax.set_xticks if axis == "x" else ax.set_yticks)(positions, names, **how)


def _letter_for_letter(drawn: Artist) -> None:
    """Show names as they are: two dollar signs in one make no formula.

    Only matplotlib's own labels of numbers are formulas here.
    """
    for axis in drawn.findobj(Axis):
        if isinstance(axis.get_major_formatter(), FixedFormatter):  # names
            for tick in axis.get_major_ticks():
                tick.label1.set_parse_math(False)
    for text in drawn.findobj(Text):
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)


def _grow(figure: Figure, named: list[Axes]) -> None:
    """Let turned names lengthen the figure instead of flattening its axes."""
    figure.draw_without_rendering()
    rows: dict[int, float] = {}
    for ax in named:
        tall = max((t.get_window_extent().height for t in ax.get_xticklabels()), default=0)
        row = round(ax.get_window_extent().y0)
        rows[row] = max(rows.get(row, 0), tall - 2 * matplotlib.rcParams["font.size"])
    extra = sum(max(0, tall) for tall in rows.values()) / figure.dpi
    figure.set_figheight(figure.get_figheight() + extra)
    figure.draw_without_rendering()


MOST_NAMES = 150  # under one axis; of more classes, only some are named
SIZES = {"medium": 1.0, "small": 0.833, "x-small": 0.694}


def _fit_names(figure: Figure, ax: Axes, positions: list, names: list, axis: str) -> None:
    plain = [shortened(name) for name in names]
    if axis == "x":
        ways = [
            (wrapped(plain), "medium", 0),
            (wrapped(plain), "small", 0),
            (plain, "small", 90),
            (plain, "x-small", 90),
        ]
    else:
        ways = [(plain, size, 0) for size in SIZES]
    box = ax.get_window_extent()
    room = box.width if axis == "x" else box.height
    ends = ax.get_xlim() if axis == "x" else ax.get_ylim()
    pixels = room / abs(ends[1] - ends[0])  # of one unit of the axis
    for texts, size, turn in ways:
        if len(texts) <= MOST_NAMES and _stand_apart(
            figure, texts, positions, size, turn, axis, pixels
        ):
            return _ticks(ax, axis, positions, texts, fontsize=size, rotation=turn)
    _, size, turn = ways[-1]
    step = 2
    while not (
        len(plain[::step]) <= MOST_NAMES
        and _stand_apart(figure, plain[::step], positions[::step], size, turn, axis, pixels)
    ):
        step += max(1, step // 4)
    return _ticks(ax, axis, positions[::step], plain[::step], fontsize=size, rotation=turn)


def _stand_apart(figure, texts, positions, size, turn, axis, pixels) -> bool:
    """Whether texts at these positions leave at least two pixels between each other."""
    renderer = figure.canvas.get_renderer()
    font = FontProperties(size=matplotlib.rcParams["font.size"] * SIZES[size])
    high = 1.25 * font.get_size_in_points() * figure.dpi / 72
    extents = []
    for text in texts:
        lines = text.split("\n")
        if axis == "x" and not turn:
            extents.append(
                max(renderer.get_text_width_height_descent(x, font, False)[0] for x in lines)
            )
        else:
            extents.append(high * len(lines))
    gaps = pixels * np.abs(np.diff(positions))
    extents = np.array(extents)
    return bool((gaps >= (extents[1:] + extents[:-1]) / 2 + 2).all())


def fit_texts(figure: Figure) -> None:
    """Give class names, titles and labels of axes the form in which they fit."""
    _letter_for_letter(figure)
    figure.draw_without_rendering()
    if entries := figure.__dict__.pop("class_axes", []):
        for entry in entries:
            _fit_names(figure, *entry)
        _grow(figure, [ax for ax, _, _, axis in entries if axis == "x"])
        for entry in entries:  # turned names have left less room beside them
            _fit_names(figure, *entry)
        figure.draw_without_rendering()
    texts = [(ax.title, ax.get_window_extent()) for ax in figure.axes]
    texts += [(ax.xaxis.label, ax.get_window_extent()) for ax in figure.axes]
    if figure.get_suptitle():
        texts.append((figure._suptitle, figure.bbox))
    for text, around in texts:
        _fit(figure, text, around)
    for ax in figure.axes:
        _fit_upright(figure, ax)


def _fit(figure: Figure, text: Text, around) -> None:
    """Break lines that are wider than the room around their middle."""
    if not text.get_text():
        return
    middle = (around.x0 + around.x1) / 2
    several = len(figure.axes) > 1 and around.width < 0.6 * figure.bbox.width
    room = 2 * min(middle, figure.bbox.width - middle)  # to the nearer edge of the page
    if several:
        room = min(room, around.width * 1.1)
    wide = text.get_window_extent().width
    if wide <= room:
        return
    whole = text.get_text().splitlines()
    letters = int(max(map(len, whole)) * room / wide)
    while text.get_window_extent().width > room and letters > 12:  # letters are not equally wide
        letters -= 1
        text.set_text("\n".join(textwrap.fill(line, letters) for line in whole))


def _fit_upright(figure: Figure, ax: Axes) -> None:
    """Break the label of a y axis that is longer than its axis, and write it smaller if need be."""
    label = ax.yaxis.label
    for size in (None, "small", "x-small"):
        if size:
            label.set_size(size)
        tall = label.get_window_extent().height
        if not label.get_text() or tall <= (room := 1.05 * ax.get_window_extent().height):
            return
        words = label.get_text().replace("\n", " ")
        letters = max(8, int(len(words) * room / tall))
        label.set_text(textwrap.fill(words, letters, break_long_words=False))
        figure.draw_without_rendering()


def shade_groups(ax: Axes, counts: np.ndarray) -> None:
    """Shade the class axis by shot group and name the groups at the top."""
    for name, members in shot_groups(counts).items():
        if len(members):
            shade(ax, name, members.min() - 0.5, members.max() + 0.5)


def shade(ax: Axes, group: str, left: float, right: float) -> None:
    """Shade what of the x axis is a shot group's, and name it at the top."""
    ax.axvspan(left, right, color=GROUP_SHADES[group], zorder=0)
    logarithmic = ax.get_xscale() == "log"
    ax.annotate(
        group,
        (np.sqrt(left * right) if logarithmic else (left + right) / 2, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, -3),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize="small",
        color="#666666",
    )
