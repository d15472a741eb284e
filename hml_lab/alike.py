"""What makes runs those of one method: their settings agree, but for what a repetition changes.

Figures draw runs of a recipe that differ in another field as several methods; tables, whose rows are
recipes, refuse them and say which field it is. A mean over unlike runs is neither drawn nor printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hml_core import recipes
from hml_core.config import SETTINGS
from hml_core.runs import Run

# Fields that a repetition changes, or that come with the data: they make no method.
REPEATED = ("seed", "subset_seed")
# What separates methods first is named first; a field that separates nothing more is not named.
FIRST = (
    "protocol",
    "early_drop",
    "mean_over",
    "delta",
    "weighting",
    "weight_placement",
    "stage_ends",
)
SAID = {
    "protocol": "{} protocol",
    "mean_over": "mean over {}",
    "delta": "δ = {:g}",
    "gamma": "γ = {:g}",
    "weighting": "{} weights",
    "weight_placement": "{} weights",
    "loss_scale": "loss × {:g}",
    "epochs": "{} epochs",
    "imbalance_ratio": "ratio {:g}",
}


def separating(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fewest fields in their order that tell unlike configs apart, repetitions aside.

    >>> separating([{"seed": 0, "delta": 1.0, "gamma": 1.0}, {"seed": 1, "delta": 2.0, "gamma": 3.0}])
    ['delta']
    """
    known = list(dict.fromkeys(name for config in configs for name in config))
    names = [name for name in (*FIRST, *known) if name in known and name not in REPEATED]
    chosen: list[str] = []
    kinds = 1
    for name in dict.fromkeys(names):
        together = {
            tuple(str(config.get(field)) for field in (*chosen, name)) for config in configs
        }
        if len(together) > kinds:
            chosen.append(name)
            kinds = len(together)
    return chosen


def setting(config: Mapping[str, Any], fields: Sequence[str]) -> str:
    """What a run has of its own, in words.

    >>> setting({"early_drop": False, "delta": 1e4}, ["early_drop", "delta"])
    'no early drop, δ = 10000'
    """
    words = []
    for name in fields:
        value = config.get(name)
        plain = name.replace("_", " ")
        if isinstance(value, bool):
            words.append(plain if value else f"no {plain}")
        elif name == "stage_ends" and value:
            words.append(f"switch after {', '.join(f'{end:g}' for end in value)}")
        elif value is None or (name in SAID and ":g" in SAID[name] and isinstance(value, str)):
            words.append(f"{plain} {'–' if value is None else value}")
        else:
            words.append(SAID.get(name, f"{plain} {{}}").format(value))
    return ", ".join(words)


def qualifier(config: Mapping[str, Any]) -> str:
    """What a label has to say of class weights that are not those of the recipe of its name; "" else.

    CE-DRW has CB weights from 80 % of a run on; the control of a hard-mining recipe is another method:

    >>> control = {"recipe": "ce_drw", "weighting": "CS", "mean_over": "images"}
    >>> qualifier(control), qualifier({**control, "weighting": "CB", "mean_over": "weights"})
    ('CS weights over images', '')
    """
    recipe = str(config.get("recipe"))
    own = recipes.options(recipe) if recipe in recipes.names() else {}
    differs = [
        name
        for name in ("weighting", "mean_over")
        if name in own and not _absent(value := config.get(name)) and value != own[name]
    ]
    if not differs:
        return ""
    scheme = config["weighting"] if "weighting" in own else ""
    words = "no class weights" if scheme == "none" else f"{scheme} weights".strip()
    return f"{words} over {config['mean_over']}" if "mean_over" in differs else words


def class_weights(frame: pd.DataFrame) -> str:
    """Which class weights a frame's methods have, and from when on; "" for none.

    A name such as CE-DRW does not say it: "CS from epoch 101, mean over images: HML1".
    """
    fields = {"recipe", "weighting", "mean_over", "stage_ends"}
    if not fields <= {*frame}:
        return ""
    told: dict[str, dict[str, None]] = {}
    for row in frame.to_dict("records"):
        if _absent(row["weighting"]) and row["recipe"] in recipes.names():  # not to be chosen
            row["weighting"] = recipes.get(row["recipe"]).stages[-1].weighting
        if _absent(row["weighting"]) or row["weighting"] == "none":
            continue
        since = f"epoch {row['stage_ends'][-1] + 1 if row['stage_ends'] else 1}"
        words = f"{row['weighting']} from {'a plateau' if row.get('switch_patience') else since} on"
        if not _absent(row["mean_over"]):
            words += f", mean over {row['mean_over']}"
        told.setdefault(words, {})[recipes.title(str(row["recipe"]))] = None
    return "; ".join(f"{words}: {', '.join(names)}" for words, names in told.items())


def early_drops(frame: pd.DataFrame) -> str:
    """Which of a frame's methods have the authors' early drop of the rate; "" where none would have it.

    The name of a hard-mining method does not say it: the authors' code drops its rate, the protocol
    "controlled" does not.
    """
    if not {"recipe", "early_drop"} <= {*frame}:
        return ""
    dropped = [not _absent(value) and bool(value) for value in frame["early_drop"]]
    if any(dropped):
        names = dict.fromkeys(recipes.title(str(name)) for name in frame.loc[dropped, "recipe"])
        return f"Early drop of the learning rate: {', '.join(names)}"
    known = {*frame["recipe"].astype(str)} & {*recipes.names()}
    names = [recipes.title(name) for name in recipes.names() if name in known and _drops(name)]
    if not names:
        return ""
    return f"No early drop of the learning rate, which the authors' code gives {', '.join(names)}"


def _drops(recipe: str) -> bool:
    return any(stage.learning_rate_scale != 1 for stage in recipes.get(recipe).stages)


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """Titles of recipes → what they are called beside these runs, where that says more."""
    if "recipe" not in frame:
        return {}
    found: dict[str, set[str]] = {}
    for row in frame.to_dict("records"):
        found.setdefault(recipes.title(str(row["recipe"])), set()).add(qualifier(row))
    return {
        title: f"{title}, {next(iter(words))}"
        for title, words in found.items()
        if len(words) == 1 and words != {""}
    }


def require(configs: Iterable[Mapping[str, Any]]) -> None:
    """Each recipe's configs agree, repetitions aside.

    Raises
    ------
    ValueError
        Naming the recipe, the field and its values.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for config in configs:
        by_name.setdefault(str(config.get("recipe")), []).append(config)
    for recipe, members in by_name.items():
        if fields := separating(members):
            own = dict.fromkeys(setting(config, fields) for config in members)
            raise ValueError(
                f"Expected the runs of {recipe!r} to differ in their seeds alone, got several settings "
                f"({'; '.join(own)}): pass the runs of one of them, or another `by`."
            )


def require_rows(frame: pd.DataFrame) -> None:
    """:func:`require` of the runs of a frame (:func:`hml_core.runs.load`), by the fields that it has."""
    fields = [name for name in SETTINGS if name in frame]
    require(
        {name: None if _absent(value) else value for name, value in row.items()}
        for row in frame[fields].to_dict("records")
    )


def require_runs(runs: Iterable[Run]) -> None:
    """:func:`require` of records."""
    require(run.config.to_dict() for run in runs)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
