"""Whether the times of runs can be set beside each other as what their methods cost.

A record holds the time of every epoch, and in ``environment.json`` the code, device and libraries. It does
not hold how many runs had the device at once. Times of one commit on one device, each run trained from its
first epoch on, are taken for alike; whoever lets runs take turns has to know that they waited.
"""

from __future__ import annotations

from collections.abc import Iterable

from hml_core.errors import RunError
from hml_core.runs import Run
from hml_lab.wording import number

# of environment.json: what the time of an epoch depends on, and how it is called
DEPENDS_ON = {
    "git_commit": "commit",
    "device": "device",
    "precision": "precision",
    "threads": "number of threads",
    "processes": "number of processes",
    "cuda": "version of CUDA",
    "torch": "version of torch",
}
HASH = 10  # letters of a commit


def unlike(runs: Iterable[Run]) -> list[str]:
    """In what these runs were timed unlike each other; empty where nothing is known to differ.

    Runs that took their first epochs over from another run have that one's times there.
    """
    runs = list({run.run_id: run for run in runs}.values())
    found = [_environment(run) for run in runs]
    reasons = []
    for field, name in DEPENDS_ON.items():
        values = sorted({str(one[field]) for one in found if one.get(field) is not None})
        if len(values) > 1:
            reasons.append(f"{number(len(values), name)} ({', '.join(map(_short, values))})")
    branched = sum(bool(run.metrics.get("branch")) for run in runs)
    if branched:
        reasons.append(f"{branched} of {len(runs)} runs began with another's epochs")
    return reasons


def _environment(run: Run) -> dict:
    try:
        return {**run.environment, "torch": run.environment.get("versions", {}).get("torch")}
    except (RunError, AttributeError):
        return {}


def _short(value: str) -> str:
    """A commit as it is written; what is no commit as it is."""
    name, dash, dirty = value.partition("-dirty")
    is_hash = len(name) == 40 and set(name) <= set("0123456789abcdef")
    return f"{name[:HASH]}{dash}{dirty}" if is_hash else value
