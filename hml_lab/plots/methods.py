"""Runs by method, and what every figure says of them: how many seeds, and what is not to be kept quiet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hml_core import datasets
from hml_core.runs import Run
from hml_lab.alike import separating, setting
from hml_lab.notes import data_note
from hml_lab.plots.looks import label, variant
from hml_lab.tables.contrasts import is_lost
from hml_lab.wording import number


def by_recipe(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by method, in order of first appearance; at least one, all on one training set.

    A method is a recipe. Where runs of a recipe differ in another field than the seed, it is several:
    "hml1, early drop" and "hml1, no early drop"; means over unlike runs are never drawn.

    Raises
    ------
    ValueError
        For no runs, and for runs with different numbers of classes.
    """
    runs = list(runs)
    if not runs:
        raise ValueError("Expected at least one finished run to draw, got none.")
    sizes = {len(run.class_counts) for run in runs}
    if len(sizes) > 1:
        raise ValueError(f"Expected runs of one data set, got runs with {sorted(sizes)} classes.")
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.config.recipe, []).append(run)
    names: dict[int, str] = {}
    for recipe, members in by_name.items():
        fields = separating([run.config.to_dict() for run in members])
        for run in members:
            names[id(run)] = recipe
            if fields:
                names[id(run)] = variant(recipe, setting(run.config.to_dict(), fields))
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(names[id(run)], []).append(run)
    return groups


def numbers(groups: Mapping[str, Sequence[Run]]) -> list[int]:
    """How many runs the methods have, each number once."""
    return sorted({len(members) for members in groups.values()})


def seeds(groups: Mapping[str, Sequence[Run]]) -> str:
    """ "n = 3 seeds", "n = 1 to 3 seeds", "n = 1 seed"."""
    found = numbers(groups)
    if len(found) == 1:
        return f"n = {number(found[0], 'seed')}"
    return f"n = {found[0]} to {found[-1]} seeds"


def caveat(runs: Iterable[Run]) -> str:
    """What a title must not keep to itself: made-up or other images, less training than published, means
    over runs of which some collapsed."""
    runs = list(runs)
    return "".join(f"\n{line}" for line in [*caveats(runs), *collapses(runs)])


def collapses(runs: Iterable[Run]) -> list[str]:
    """Of each recipe with several runs, some of them collapsed, that its mean is nobody's."""
    scores: dict[str, list[bool]] = {}
    for run in runs:
        lost = is_lost(run.selection("last")["balanced_accuracy"], len(run.class_counts))
        scores.setdefault(run.config.recipe, []).append(lost)
    return [
        f"{label(recipe)}: {sum(lost)} of {len(lost)} runs collapsed to chance, its mean is that of none"
        for recipe, lost in scores.items()
        if len(lost) > 1 and any(lost)
    ]


def caveat_of(groups: Mapping[str, Sequence[Run]]) -> str:
    """:func:`caveat` of the runs of all methods."""
    return caveat(run for members in groups.values() for run in members)


def said_caveat(groups: Mapping[str, Sequence[Run]]) -> str:
    """:func:`caveat_of` as the end of an alternative text: a sentence after a space, or nothing."""
    text = caveat_of(groups).strip().replace("\n", ". ")
    return f" {text}." if text else ""


def caveats(runs: Iterable[Run]) -> list[str]:
    """What is said of images and protocol; of all runs, for one of them is enough."""
    runs = list(runs)
    lines = []
    if any(run.synthetic for run in runs):
        lines.append("SYNTHETIC images")
    else:
        told = {
            datasets.departures(
                run.config.dataset, {**vars(run.config), "initialised_from": run.initialised_from}
            ): None
            for run in runs
        }
        lines += [f"SHORTENED protocol: {departures}" for departures in told if departures]
    lines += dict.fromkeys(note for run in runs if (note := data_note(getattr(run, "path", None))))
    return lines
