"""What the table of iNaturalist 2018 costs: hours and money, from measured images a second.

    python -m benchmarks.cost                      # from what you measured, else what is published
    python -m benchmarks.cost --rate 1000          # from an assumption, and marked as one

The rate is that of training ``python -m benchmarks.inat`` measured on one device. Evaluation is a forward
pass, a third of a training step's work. Several devices are taken to be as many times faster, so that
hours and money are lower bounds, as long as the processor cores feed them: an image takes a core as long
as was measured.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import report
from hml_core.datasets import DATASETS
from hml_core.system import devices
from hml_lab.tables import to_markdown

TRAIN, TEST = 437_513, 24_426  # images of the official splits
FORWARD = 1 / 3  # of the work of a training step
FEED, STEP = "FileFeed", "step of"


@dataclass(frozen=True)
class Rates:
    """Images a second: trained by one device, and made ready by one processor core."""

    trained: float
    ready: float
    source: str


def measured(*folders: Path) -> Rates:
    """From the benchmark's table in the first folder that has one, that of a GPU where there is one.

    Raises
    ------
    SystemExit
        Where nothing was measured.
    """
    names = ("inat_cuda.csv", "inat.csv")
    for path in (folder / name for folder in folders for name in names):
        if path.is_file():
            frame = pd.read_csv(path)
            rows = [frame[frame["what"].str.contains(t, regex=False)] for t in (STEP, FEED)]
            trained, ready = (float(found["images_per_s"].iloc[0]) for found in rows)
            ready /= float(rows[1]["cores"].iloc[0])
            return Rates(trained, ready, f"measured on {frame['device'].iloc[0]}")
    raise SystemExit(f"Expected {folders[0] / 'inat.csv'}: run `python -m benchmarks.inat` first.")


def table(
    rates: Rates, counts: list[int], *, recipes: int, seeds: int, epochs: int, price: float
) -> pd.DataFrame:
    """A row for each number of devices."""
    images = epochs * (TRAIN + FORWARD * TEST)  # of a run, in training images
    rows = {}
    for number in counts:
        hours = images / (number * rates.trained) / 3600
        total = recipes * seeds * hours
        rows[f"{number} device(s)"] = {
            "images/s": f"{number * rates.trained:,.0f}",
            "cores to feed them": f"{number * rates.trained / rates.ready:.1f}",
            "hours a run": f"{hours:,.1f}",
            f"days for {recipes * seeds} runs": f"{total / 24:,.1f}",
            "device hours": f"{total * number:,.0f}",
            f"money at {price:g} a device hour": f"{total * number * price:,.0f}",
        }
    made = pd.DataFrame.from_dict(rows, orient="index")
    made.index.name = rates.source
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rate", type=float, help="assumed training images a second of one device")
    parser.add_argument("--price", type=float, default=3.0, help="of a device hour")
    parser.add_argument("--recipes", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=DATASETS["inat2018"].defaults["epochs"])
    given = vars(parser.parse_args())
    rate, counts = given.pop("rate"), given.pop("devices")
    rates = measured(report.FOLDER, report.PUBLISHED)
    if rate is not None:
        source = f"ASSUMED {rate:g} images/s; cores as measured on {devices.describe(report.CPU)}"
        rates = Rates(rate, rates.ready, source)
    print(to_markdown(table(rates, counts, **given)))


if __name__ == "__main__":
    main()
