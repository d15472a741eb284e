"""Runs by method, and what every figure says of them: how many seeds, and what is not to be kept quiet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hml_core import datasets
from hml_core.runs import Run
from hml_lab.alike import early_drops, qualifier, separating, setting
from hml_lab.notes import data_note
from hml_lab.plots.looks import label, variant
from hml_lab.tables.contrasts import run_is_lost
from hml_lab.wording import number, span

EACH = "each run by itself, no mean"
ITS_MEDIAN = "its median run is shown"
LEFT_OUT = "left out"


def by_recipe(runs: Iterable[Run], *, qualified: bool = True) -> dict[str, list[Run]]:
    """Runs by method, in order of first appearance; at least one, all on one training set.

    A method is a recipe. Where runs of a recipe differ in another field than the seed, it is several:
    "hml1, early drop" and "hml1, no early drop"; means over unlike runs are never drawn. ``qualified``
    names say which class weights a method has that are not its recipe's ("ce_drw, CS weights …").

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
            elif qualified and (words := qualifier(run.config.to_dict())):
                names[id(run)] = variant(recipe, words)
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(names[id(run)], []).append(run)
    return groups


def numbers(groups: Mapping[str, Sequence[Run]]) -> list[int]:
    """How many runs the methods have, each number once."""
    return sorted({len(members) for members in groups.values()})


def seeds(groups: Mapping[str, Sequence[Run]]) -> str:
    """ "n = 3 seeds", "n = 1 to 3 seeds", "n = 1 seed"."""
    return f"n = {span(numbers(groups), 'seed')}"


def unstable(members: Sequence[Run]) -> bool:
    """Whether some of a method's several runs collapsed: no mean or band stands for them."""
    return len(members) > 1 and any(run_is_lost(run) for run in members)


def one_for(members: Sequence[Run], selection: str = "last") -> list[Run]:
    """What a mean is drawn over: all runs, or of an unstable method its run of median accuracy."""
    if not unstable(members):
        return [*members]
    ranked = sorted(members, key=lambda run: run.selection(selection)["balanced_accuracy"])
    return [ranked[(len(ranked) - 1) // 2]]


def caveat(runs: Iterable[Run]) -> str:
    """:func:`caveats` as the further lines of a title."""
    return "".join(f"\n{line}" for line in caveats(runs))


def caveat_of(
    groups: Mapping[str, Sequence[Run]],
    shown: str = EACH,
    drawn: Mapping[str, Sequence[Run]] | None = None,
) -> str:
    """What a title must not keep to itself: made-up or other images, less training than published, and
    of which methods runs collapsed, with how they are ``shown``. Where not all runs are ``drawn``, those
    that are count."""
    runs = [run for members in groups.values() for run in members]
    lost = ""
    for method, members in groups.items():
        if unstable(members):
            of = f"{sum(map(run_is_lost, members))} of {len(members)} runs"
            own = members if drawn is None else drawn.get(method, [])
            if len(own) < len(members):
                of = f"{sum(map(run_is_lost, own))} of the {number(len(own), 'run')} drawn ({of})"
            lost += f"\n{label(method)}: {of} collapsed: {shown}"
    fields = pd.DataFrame(
        [{"recipe": run.config.recipe, "early_drop": run.config.early_drop} for run in runs]
    )
    without = early_drops(fields) if not fields["early_drop"].any() else ""
    return caveat(runs) + (f"\n{without}" if without else "") + lost


def said_caveat(
    groups: Mapping[str, Sequence[Run]],
    shown: str = EACH,
    drawn: Mapping[str, Sequence[Run]] | None = None,
) -> str:
    """:func:`caveat_of` as the end of an alternative text: a sentence after a space, or nothing."""
    text = caveat_of(groups, shown, drawn).strip().replace("\n", ". ")
    return f" {text}." if text else ""


def _setting_of(runs: Sequence[Run]) -> str:
    """Data, network, epochs: "imagefolder (100 classes, ratio 100), resnet32, 200 epochs"."""

    def listed(values: Iterable[Any]) -> str:
        return " or ".join(dict.fromkeys(map(str, values)))

    configs = [run.config for run in runs]
    data = listed(
        f"{run.config.dataset} ({number(len(run.class_counts), 'class', 'classes')}"
        + (
            ""
            if run.config.imbalance_type == "natural"
            else f", ratio {run.config.imbalance_ratio:g}"
        )
        + ")"
        for run in runs
    )
    epochs = listed(number(config.epochs, "epoch") for config in configs)
    return f"{data}, {listed(config.model for config in configs)}, {epochs}"


def caveats(runs: Iterable[Run]) -> list[str]:
    """What is said of data, images and protocol; of all runs, for one of them is enough."""
    runs = list(runs)
    lines = [_setting_of(runs)] if runs else []
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
