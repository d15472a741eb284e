"""What the runs of every cell reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from hml_lab import tables
from hml_lab.tables.cells import score


def scores_by_seed(done: pd.DataFrame, metric: str = "balanced_accuracy") -> dict[str, pd.Series]:
    """Percent by seed, for each cell."""
    return {
        cell: 100 * runs.set_index("seed")[f"last_{metric}"].astype(float)
        for cell, runs in done.groupby("cell", sort=False)
    }


def scores_by_cell(
    frame: pd.DataFrame, order: Iterable[str], metrics: Sequence[str]
) -> pd.DataFrame:
    """n and "mean ± sd" of every cell; the median and each run where one collapsed; "–" without a run."""
    done = frame[frame["status"] == "done"]
    long = tables.summary(done, by="cell", metrics=metrics)
    texts = []
    for row in long.itertuples():
        runs = done.loc[done["cell"] == row.cell, f"last_{row.metric}"]
        texts.append(score(100 * runs.to_numpy(dtype=float), lost=bool(row.collapsed)))
    shown = long.assign(text=texts).pivot(index="cell", columns="metric", values="text")
    shown = shown.reindex(index=list(order), columns=list(metrics)).fillna("–")
    sizes = done.groupby("cell").size()
    shown.insert(0, "n", [str(sizes.get(cell, "–")) for cell in shown.index])
    return shown
