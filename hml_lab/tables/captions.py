"""What stands above a table: data, protocol, n, what intervals cover, the family of tests, the commit.

A caption is put together from the runs themselves, so that none can be quoted without it: images that were
made up, a protocol that was shortened, and what is noted of the images beside the records
(:mod:`hml_lab.notes`) come first. It lies in ``table.attrs["caption"]`` and is written by every format of
:mod:`hml_lab.tables.formats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hml_core import datasets, recipes
from hml_core.errors import RunError
from hml_core.runs.record import environment_of
from hml_lab import alike
from hml_lab.notes import data_note
from hml_lab.tables.cells import ABSENT, BEST, LABELS, PAIRS, SELECTION_LABELS, finished, text_cell
from hml_lab.wording import number, span

KINDS = {"exp": "exponential", "step": "step"}


def captioned(
    table: pd.DataFrame,
    frame: pd.DataFrame,
    *,
    selection: str = "last",
    by: str = "recipe",
    title: str = "",
    runs_root: str | Path = "",
) -> pd.DataFrame:
    """The table with its caption, and with the ids of the runs behind each row (``attrs["run_ids"]``).

    Commit and note on the images are read below ``runs_root``, from which the frame was loaded.

    What intervals cover and which tests are one family is taken from ``attrs["covers"]`` and
    ``attrs["family"]`` where the table's maker has said so; a table that has a caption already, as those
    of other people's runs do, keeps it.
    """
    described = table.copy()
    ids = table.attrs.get("run_ids")
    said = table.attrs.get("caption")
    names = {} if said else alike.titles(finished(frame, selection))
    described.attrs = {
        **table.attrs,
        "caption": said or caption(table, frame, selection, title, runs_root),
        "run_ids": run_ids(table, frame, by) if ids is None else ids,
    }
    if names:
        described.index = [_renamed(label, names) for label in table.index]
        described.index.name = _renamed(table.index.name, names)
        described.columns = [_renamed(label, names) for label in table.columns]
        if "Recipe" in described:
            described["Recipe"] = [_renamed(label, names) for label in described["Recipe"]]
    return described


def _renamed(text: Any, names: Mapping[str, str]) -> Any:
    """A label or sentence in which methods are called what they are beside these runs."""
    if not isinstance(text, str):
        return text
    for title, said in names.items():
        text = re.sub(rf"(?<![\w-]){re.escape(title)}(?![\w-]|, \w+ weights)", said, text)
    return text


def caption(
    table: pd.DataFrame,
    frame: pd.DataFrame,
    selection: str = "last",
    title: str = "",
    runs_root: str | Path = "",
) -> str:
    """The caption of a table of these runs, in sentences."""
    done = finished(frame, selection).drop_duplicates("run_id") if "run_id" in frame else frame
    if "path" in done:
        done = done.assign(path=[Path(runs_root) / str(path) for path in done["path"]])
    cells = [str(cell) for row in table.to_numpy() for cell in row]
    names = alike.titles(done)
    parts = [f"{title.rstrip('.')}." if title else "", *warnings(done), data(done), protocol(done)]
    if weights := alike.class_weights(done):
        parts.append(f"Class weights: {weights}.")
    if drops := alike.early_drops(done):
        parts.append(f"{drops}.")
    parts.append(table.attrs.get("reported", f"Reported: {SELECTION_LABELS[selection]}."))
    parts.append(_spread(done, cells))
    if any("[" in cell for cell in cells):
        covers = table.attrs.get("covers") or _covers(done)
        parts.append(_renamed(_sentence(covers), names))
    if "p (Holm)" in table:
        tests = int((table["p (Holm)"] != ABSENT).sum())
        if not tests:  # whatever was meant to be tested
            family = "p: none (fewer than two seeds in common, or no spread)"
        else:
            family = table.attrs.get("family") or (
                "p: paired t-tests, corrected by Holm's method over the "
                f"{number(tests, 'difference')} of this table"
            )
        parts.append(_renamed(_sentence(family), names))
    if LABELS["macro_auc"] in table:
        parts.append("AUC: mean over the classes, each against the rest.")
    if LABELS["sensitivity"] in table and (positive := _positive_classes(done)):
        parts.append(f"Sensitivity, specificity: of {positive} against the rest.")
    if PAIRS in table:
        parts.append(
            "pairs: seeds that a method and what it is compared with both have; difference, interval and "
            "p are made of these, the other columns of all n runs."
        )
    if any(cell.startswith("median ") for cell in cells):
        parts.append(
            "A median where a mean would describe no run: one collapsed (ended less than a tenth "
            "of the way from chance to 100 %), or half of the values are 0."
        )
    if any(cell.endswith(BEST) for cell in cells):
        parts.append("* best of its column.")
    if any(text_cell(cell) == ABSENT for row in table.to_numpy() for cell in row):
        parts.append(f"{ABSENT} not there.")
    parts.append(commits(done))
    return " ".join(filter(None, parts))


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text and not text.startswith("p:") else f"{text}."


def warnings(done: pd.DataFrame) -> list[str]:
    """What nobody may leave out who quotes a number."""
    lines = []
    if _any(done, "synthetic"):
        lines.append("SYNTHETIC images: no number here is a result.")
    elif "dataset" in done:
        told = dict.fromkeys(datasets.departures(row["dataset"], row) for _, row in done.iterrows())
        lines += [
            f"SHORTENED protocol ({text}): not comparable with published figures."
            for text in told
            if text
        ]
    if "path" in done:
        notes = dict.fromkeys(data_note(path) for path in done["path"])
        lines += [_sentence(note) for note in notes if note]
    return lines


def _any(done: pd.DataFrame, column: str) -> bool:
    return column in done and bool(done[column].fillna(False).astype(bool).any())


def _values(done: pd.DataFrame, column: str) -> list:
    return list(done[column].drop_duplicates()) if column in done else []


def data(done: pd.DataFrame) -> str:
    """Data set and imbalance of each setting: "Data: cifar10, exponential, ratio 100." """
    columns = [
        c for c in ("dataset", "num_classes", "imbalance_type", "imbalance_ratio") if c in done
    ]
    if "dataset" not in columns:
        return ""
    settings = []
    for _, row in done[columns].drop_duplicates().iterrows():
        classes = ""
        if "num_classes" in row and not pd.isna(row["num_classes"]):
            classes = f" ({number(int(row['num_classes']), 'class', 'classes')})"
        kind = KINDS.get(row.get("imbalance_type"), "")
        ratio = f", {kind} imbalance, ratio {row['imbalance_ratio']:g}" if kind else ""
        settings.append(f"{row['dataset']}{classes}{ratio}")
    return f"Data: {'; '.join(settings)}."


def protocol(done: pd.DataFrame) -> str:
    """Network, epochs, batch, schedule and precision, each with all its values."""

    def listed(column: str, form: str = "{}") -> str:
        return " or ".join(form.format(value) for value in _values(done, column))

    parts = [listed("model")]
    if epochs := _values(done, "epochs"):
        parts.append(" or ".join(number(int(value), "epoch") for value in epochs))
    parts += [
        f"batch {listed('batch_size')}" if "batch_size" in done else "",
        f"{listed('protocol')} protocol" if "protocol" in done else "",
        " or ".join(name for name in _from_environments(done, "precision") if name != "unknown"),
        f"on {', '.join(sorted(set(done['device'])))}" if "device" in done else "",
    ]
    parts = [part for part in parts if part]
    return f"Protocol: {', '.join(parts)}." if parts else ""


def _positive_classes(done: pd.DataFrame) -> str:
    """Those of the data sets, which sensitivity and specificity are of."""
    names = (name for name in _values(done, "dataset") if name in datasets.DATASETS)
    found = (datasets.DATASETS[name].positive_class for name in names)
    return " or ".join(filter(None, dict.fromkeys(found)))


def _spread(done: pd.DataFrame, cells: Iterable[str]) -> str:
    keys = [
        c for c in ("dataset", "imbalance_type", "imbalance_ratio", "recipe", "cell") if c in done
    ]
    if not keys or "seed" not in done:
        return ""
    sizes = done.groupby(keys, dropna=False)["seed"].nunique()
    seeds = span(sizes, "seed")
    draws = ""
    if "subset_seed" in done and done["subset_seed"].nunique() > 1:
        draws = ", each with another draw of the long-tailed subset"
    if sizes.max() == 1:
        return "n = 1 seed: no spread, no interval, no test."
    what = "Mean ± sample standard deviation over" if any(" ± " in cell for cell in cells) else "Of"
    return f"{what} n = {seeds}{draws}."


def _covers(done: pd.DataFrame) -> str:
    drawn = "subset_seed" in done and done["subset_seed"].nunique() > 1
    covered = "training and in the draw of the subset" if drawn else "training"
    lacking = "test images" if drawn else "the subset or of the test images"
    return (
        f"brackets: 95 % Student-t intervals of the difference paired by seed; they cover the chance in "
        f"{covered}, not another draw of {lacking}"
    )


def _from_environments(done: pd.DataFrame, name: str) -> list[str]:
    """What the environments of the runs' records say under this name; "unknown" where they do not."""
    found: dict[str, None] = {}
    for path in done.get("path", ()):
        try:
            found[str(environment_of(Path(path)).get(name) or "unknown")] = None
        except RunError:
            found["unknown"] = None
    return list(found)


def commits(done: pd.DataFrame) -> str:
    """The commits of the code that made the runs, from their records."""
    found = _from_environments(done, "git_commit")
    if not found:
        return ""
    short = sorted(name[:10] + ("-dirty" if name.endswith("-dirty") else "") for name in found)
    return f"{'Commit' if len(short) == 1 else 'Commits'} {', '.join(short)}."


def run_ids(table: pd.DataFrame, frame: pd.DataFrame, by: str = "recipe") -> list[str]:
    """For each row the ids of its runs, with spaces between; those of all runs where rows mix them.

    A row is named by its group (``by``), its cell or the title of its recipe: the first of these that any
    row of the table has. A row without runs has no ids.
    """
    if "run_id" not in frame:
        return [""] * len(table)
    done = frame[frame["status"] == "done"]
    rows = table.to_dict("records")
    own = [str(row.get("Recipe", index)) for index, row in zip(table.index, rows, strict=True)]
    titles = done["recipe"].map(lambda recipe: recipes.title(str(recipe)))
    kinds = [done[name].astype(str) for name in (by, "cell") if name in done] + [titles]
    labels = next((kind for kind in kinds if {*kind} & {*own}), None)
    if labels is None:
        return [" ".join(dict.fromkeys(done["run_id"]))] * len(table)
    settings = done.apply(_setting, axis=1).astype(str)
    found = []
    for index, label in zip(table.index, own, strict=True):
        its = labels == label
        if (same := its & (settings == str(index))).any():
            its = same
        found.append(" ".join(dict.fromkeys(done.loc[its, "run_id"])))
    return found


def _setting(run: Mapping) -> str:
    """As the first column of :func:`hml_lab.tables.beside_published` has it."""
    kind, ratio = run.get("imbalance_type"), run.get("imbalance_ratio", np.nan)
    return str(kind) if kind == "natural" or pd.isna(ratio) else f"{kind} {ratio:g}"
