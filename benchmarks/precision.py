"""Does bf16 cost accuracy? The same runs in float32 and in bf16, on real images, paired by seed."""

from __future__ import annotations

import argparse
import tempfile

from benchmarks import report
from hml_core import engines
from hml_core.config import grid
from hml_lab import stats

METRICS = {"top1": "top-1", "balanced_accuracy": "balanced accuracy", "ece": "ECE"}


def main() -> None:
    given = report.arguments(__doc__, _options)
    configs = grid(
        recipe="ce",
        seed=list(range(given.seeds)),
        dataset=given.dataset,
        precision=["float32", "bf16"],
        **{name: getattr(given, name) for name in ("epochs", "model") if getattr(given, name)},
    )
    with tempfile.TemporaryDirectory(prefix="hml-bench-") as folder:
        frame = engines.sweep(
            configs,
            engine=given.engine,
            runs_root=given.runs_root or folder,
            data_root=given.data_root,
            device=given.device,
        )
    what = f"{given.name or given.dataset}, {configs[0].model}, {configs[0].epochs} epochs"
    rows = []
    for name, shown in METRICS.items():
        table = frame.pivot_table(index="seed", columns="precision", values=f"last_{name}")
        found = stats.paired_difference(100 * table["bf16"], 100 * table["float32"])
        rows.append(
            {
                "what": f"{what}: {shown}",
                "n": len(table),
                "float32_percent": 100 * table["float32"].mean(),
                "bf16_percent": 100 * table["bf16"].mean(),
                "difference_points": found.difference,
                "low_95": found.low,
                "high_95": found.high,
            }
        )
    report.write(f"precision_{given.name}" if given.name else "precision", rows, given.device)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="digits", help="a data set with real images")
    parser.add_argument("--name", help="of the data set in the table and the file")
    parser.add_argument("--data-root", help="where its files are")
    parser.add_argument("--seeds", type=int, default=10, help="runs in each precision")
    parser.add_argument("--epochs", type=int, help="of a run")
    parser.add_argument("--model", help="the network")
    parser.add_argument("--engine", default="serial", help="as for hml_core.engines.sweep")
    parser.add_argument("--runs-root", help="keep the run records there")


if __name__ == "__main__":
    main()
