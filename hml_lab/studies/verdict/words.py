"""How numbers, tables and links of the verdict's page are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hml_core.runs import Run
from hml_lab.studies.verdict import stored


def signed(value: float, form: str = ".2f") -> str:
    """With a minus sign, as the page has it."""
    return f"{value:{form}}".replace("-", "−")


def bracket(low: float, high: float, form: str = ".2f") -> str:
    """Both ends; a dash where there is no interval."""
    return "–" if np.isnan(low) else f"[{signed(low, form)}, {signed(high, form)}]"


def interval(found, form: str = ".2f") -> str:
    """:func:`bracket` of what has ``low`` and ``high``."""
    return bracket(found.low, found.high, form)


def said(found, form: str = "+.2f") -> str:
    """ "+0.48 [0.39, 0.57]" of what has ``difference``, ``low`` and ``high``."""
    return f"{signed(found.difference, form)} {interval(found, form.lstrip('+'))}"


def p_text(value: float) -> str:
    """With its sign of comparison: "= 0.028"."""
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def drawn_p(value: float) -> str:
    """Of a distribution that is drawn: two digits after the point are known of it."""
    return "< 0.01" if value < 0.005 else f"= {value:.2f}"


def drawn_ps(values: Iterable[float]) -> list[str]:
    """Several of :func:`drawn_p`, of which the first alone has the sign of equality."""
    first, *others = map(drawn_p, values)
    return [first, *(text.removeprefix("= ") for text in others)]


def seeds_text(seeds: Iterable[int]) -> str:
    """ "seeds 0 to 9", "seeds 0, 2"."""
    seeds = sorted({int(seed) for seed in seeds})
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def link(run_id: str, folder: str = stored.FULL) -> str:
    """A run's balanced accuracy in percent, which leads to its record."""
    metrics = Run(stored.folder(folder) / run_id).selection("last")
    target = f"../results/records/{folder}/{run_id}/metrics.json"
    return f"[{100 * metrics['balanced_accuracy']:.2f}]({target})"
