"""One colour, marker and line for every method, and looks that are reserved for methods of one's own.

No two methods that are drawn in one process look the same. A built-in recipe has its look from a table.
Settings of one recipe beside each other (with and without the early drop) are its variants: shades of its
colour with markers and lines of their own. A method of one's own has a reserved look, which follows from
its name unless another method has taken that one before.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass

from matplotlib.colors import to_hex, to_rgb

from hml_core import recipes

# Okabe and Ito's palette (readable with every common colour vision) plus darker relatives.
BUILT_IN = {  # colour, marker, line: the methods of one table differ in all three
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
LIMIT = ("#1b4965", "", (0, (1, 1)))  # of L_f, the loss that HML tends to: no recipe's

# Reserved: their numbers have no common divisor, so that all three come around together only once.
OWN_COLOURS = (
    "#00a6a6", "#d7191c", "#5e3c99", "#66a61e", "#e7298a", "#1f1fff", "#8c510a", "#ff9896",
)  # fmt: skip
OWN_MARKERS = ((4, 1, 0), (6, 1, 0), (3, 1, 0), (8, 1, 0), (5, 1, 36))
OWN_LINES = ((0, (6, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (8, 2, 2, 2)))
_POSSIBLE = [
    (OWN_COLOURS[i % 8], OWN_MARKERS[i % 5], OWN_LINES[i % 3])
    for i in range(len(OWN_COLOURS) * len(OWN_MARKERS) * len(OWN_LINES))
]
_VARIANT_MARKERS = ((3, 0, 0), (5, 0, 0), (4, 0, 45), (6, 0, 0), (7, 0, 0), (3, 0, 180), (8, 0, 0))
_VARIANT_LINES = ((0, (3, 1)), (0, (1, 2)), (0, (5, 1, 1, 1)), (0, (2, 2, 6, 2)), (0, (9, 3)))
_SHADES = (-0.4, 0.3, -0.6, 0.5, -0.2)  # towards black, towards white


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    colour: str
    marker: object
    line: object
    label: str

    @property
    def scale(self) -> float:
        """What makes a mark of this form as large as a disc: stars are thin."""
        return 1.6 if isinstance(self.marker, tuple) and self.marker[1] == 1 else 1.0


_taken: dict[
    str, tuple
] = {}  # looks of methods of one's own and of variants, as they were first drawn
_variants: dict[
    str, tuple[str, str]
] = {}  # name of a variant: its recipe, and what it has of its own


def look(method: str) -> Look:
    """The look of a recipe, of a :func:`variant`, or of a method of one's own."""
    if method in _variants:
        recipe, setting = _variants[method]
        return Look(*_taken[method], f"{recipes.title(recipe)}, {setting}")
    if method in BUILT_IN:
        return Look(*BUILT_IN[method], recipes.title(method))
    if method not in _taken:
        _taken[method] = _own(method)
    return Look(*_taken[method], recipes.title(method))


def label(method: str) -> str:
    """How a method is called in a figure."""
    return look(method).label


def variant(recipe: str, setting: str) -> str:
    """The name of a recipe in one of several settings, under which :func:`look` knows it."""
    name = f"{recipe}, {setting}"
    if name not in _variants:
        number = sum(known == recipe for known, _ in _variants.values())
        plain = look(recipe)
        _taken[name] = (
            _shaded(plain.colour, _SHADES[number % len(_SHADES)] if number else 0.0),
            _VARIANT_MARKERS[number % len(_VARIANT_MARKERS)] if number else plain.marker,
            _VARIANT_LINES[number % len(_VARIANT_LINES)] if number else plain.line,
        )
        _variants[name] = (recipe, setting)
    return name


def _own(name: str) -> tuple:
    """A reserved look that no method has: by its name, or the next with a colour that is free."""
    start = zlib.crc32(name.encode()) % len(_POSSIBLE)
    order = [*_POSSIBLE[start:], *_POSSIBLE[:start]]
    taken = set(_taken.values())
    colours = {colour for colour, _, _ in taken}
    markers = {marker for _, marker, _ in taken}
    for wanted in (
        lambda drawn: drawn[0] not in colours and drawn[1] not in markers,
        lambda drawn: drawn[0] not in colours,
        lambda drawn: drawn not in taken,
    ):
        if free := next(filter(wanted, order), None):
            return free
    # More methods than looks: shades of the colours.
    for number in itertools.count(1):
        for colour, marker, line in order:
            shade = _shaded(colour, (-1) ** number * (1 - 0.8**number))
            if (shade, marker, line) not in taken:
                return shade, marker, line
    raise AssertionError  # unreachable


def _shaded(colour: str, by: float) -> str:
    """The colour nearer to black (``by`` < 0) or to white."""
    target = 0.0 if by < 0 else 1.0
    return to_hex([part + (target - part) * abs(by) for part in to_rgb(colour)])
