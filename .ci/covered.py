"""Whether the tests reach enough of what trains: ``python .ci/covered.py REPORT``, coverage's JSON.

Prints the files of ``hml_core`` that the tests reach less than 90 % of (statements and branches) and then
ends with 1, as it does where the report tells nothing about some file.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, LEAST = "hml_core", 90.0


def too_little(report: str) -> list[str]:
    told = json.loads(Path(report).read_text(encoding="utf-8"))["files"]
    reached = {name: data["summary"]["percent_covered"] for name, data in told.items()}
    files = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*.py"))
    below = [
        f"{name}: {reached[name]:.2f} % covered, expected at least {LEAST:.0f} %"
        for name in files
        if name in reached and reached[name] < LEAST
    ]
    return below + [f"{name}: not measured" for name in files if name not in reached]


if __name__ == "__main__":
    if failures := too_little(*sys.argv[1:]):
        sys.exit("\n".join(failures))
