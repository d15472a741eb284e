"""What common beginnings save: a sweep that trains each once, against every run in a sweep of its own.

All recipes, and the audit's grid as notebook 07 makes it, each with one seed on Digits-LT, as epochs and
as time. The start of a run and its evaluations are not shared: time saves a little less than epochs.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report
from hml_core import engines, recipes
from hml_core.config import RunConfig, grid
from hml_core.runs import Run
from hml_core.trainer import branches
from hml_lab.studies import audit

EPOCHS = 30
EVALUATE_EVERY = 10  # evaluations of such small networks would take as long as their training
REPETITIONS = 2
DELTAS = (1e2, 1e4, 1e6, 1e8, 1e10)  # notebook 07's


def every_recipe() -> list[RunConfig]:
    """One run of each built-in recipe."""
    return grid(recipe=list(recipes.BUILT_IN), epochs=EPOCHS, evaluate_every=EVALUATE_EVERY)


def every_cell() -> list[RunConfig]:
    """One run of each cell of the audit; cells that are the same run count once."""
    base = {"epochs": EPOCHS, "evaluate_every": EVALUATE_EVERY, "protocol": "controlled"}
    cells = audit.cells(base, [0], DELTAS)
    return list(
        {config.run_id: config for members in cells.values() for config in members}.values()
    )


def rows() -> list[dict[str, Any]]:
    """Two rows for each grid: its runs alone, and in one sweep."""
    methods, cells = every_recipe(), every_cell()
    with tempfile.TemporaryDirectory(prefix="hml-bench-") as folder:
        roots = (Path(folder) / str(number) for number in itertools.count())
        _train(methods[:1], next(roots))  # imports, and memory that the process keeps
        return [
            *_compared(f"all {len(methods)} recipes", methods, roots),
            *_compared(f"the audit's {len(cells)} runs", cells, roots),
        ]


def _compared(
    name: str, configs: Sequence[RunConfig], roots: Iterator[Path]
) -> list[dict[str, Any]]:
    epochs: dict[str, int] = {}

    def alone() -> None:
        epochs["alone"] = sum(_train([config], next(roots)) for config in configs)

    def together() -> None:
        epochs["together"] = _train(configs, next(roots))

    seconds = report.alternate({"alone": alone, "together": together}, REPETITIONS)
    assert epochs["together"] == branches.epochs_to_train(configs)
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    titles = {
        "alone": f"{name}, each alone",
        "together": f"{name}, beginnings shared",
    }
    return [
        {
            "what": title,
            "n": REPETITIONS,
            **report.spread(seconds[way]),
            "ratio": medians["alone"] / medians[way],
            "epochs": epochs[way],
            "share_of_epochs": epochs[way] / epochs["alone"],
            "share_of_time": medians[way] / medians["alone"],
        }
        for way, title in titles.items()
    ]


def _train(configs: Sequence[RunConfig], root: Path) -> int:
    """Epochs that a sweep over the runs has trained."""
    frame = engines.sweep(configs, runs_root=root, device="cpu", progress=False)
    assert (frame["status"] == "done").all(), frame["error"].tolist()
    return sum(Run(root / run_id).trained_epochs for run_id in frame["run_id"])
