"""``python -m tests.chaos``: every scenario in full, and the tally."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests import forks
from tests.chaos import ends, foreign  # (they add their scenarios)
from tests.chaos.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SCENARIOS, []], help="default: all of them")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random moments")
    parser.add_argument("--cases", type=int, help="of each kind, at most [default: all]")
    arguments = parser.parse_args()
    # A process finds its scenario imported: else most of its time, in hundreds of groups, is that.
    forks.begin(ends.__name__, foreign.__name__)
    print(f"Seed {arguments.seed}\n")
    print(f"{'what happens':<58}{'cases':>7}{'survived':>10}{'data lost':>11}{'seconds':>9}")
    total, failures = [0, 0, 0], []
    for name in arguments.names or SCENARIOS:
        entry = SCENARIOS[name]
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="hml-chaos-") as folder:
            cases = min(arguments.cases or entry.cases, entry.cases)
            outcomes = list(entry.run(Path(folder), Random(arguments.seed), cases))
        failures += [f"{name}: {o.note}" for o in outcomes if o.lost or not o.survived]
        row = [len(outcomes), sum(o.survived for o in outcomes), sum(o.lost for o in outcomes)]
        total = [a + b for a, b in zip(total, row)]
        _line(entry.title, row, time.monotonic() - started)
    _line("all", total)
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


def _line(title: str, row: list[int], seconds: float | None = None) -> None:
    took = "" if seconds is None else f"{seconds:.0f}"
    print(f"{title:<58}{row[0]:>7}{row[1]:>10}{row[2]:>11}{took:>9}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
