"""What a record's metrics look like: of each field that is read, the kind that its readers take it for.

A record may hold (its seal says so) and be written by another version, or by somebody's own program. What
this version would stumble over is told beforehand. Fields that are not known here may be anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from hml_core.errors import ConfigError
from hml_core.system.fields import is_number, is_text, is_whole

SELECTIONS = ("last", "best_validation", "best_test")
KEPT = ("last", "best")  # of weights
MOST = 2**63 - 1  # of a whole number: no more fits an array
REQUIRED = {"selections", "class_counts", "class_names", "seconds", "device", "files"}
# Of every selection: what is there, undefined (null) in some, and what only some data sets have.
ALWAYS = ("top1", "balanced_accuracy", "many", "medium", "few", "macro_f1", "g_mean", "ece")
OFTEN = ("nll", "macro_auc", "sensitivity", "specificity")


def require_selection(name: Any) -> None:
    """ConfigError for what is none of :data:`SELECTIONS`."""
    if name not in SELECTIONS:
        raise ConfigError(f"Expected `selection` to be one of {SELECTIONS}, got {name!r}.")


def is_understood(metrics: Mapping[str, Any]) -> bool:
    """Whether every field of a record's metrics is such as readers of this version take it for."""
    names, counts = metrics["class_names"], metrics["class_counts"]
    if not (_is_list(names, is_text) and _is_list(counts, _is_count) and names):
        return False
    classes = len(names)
    further, kept = metrics.get("further_tests", {}), metrics.get("kept_weights")
    return (
        len(counts) == classes
        and _are_selections(metrics["selections"], classes, SELECTIONS)
        and _is_measure(metrics["seconds"])
        and is_text(metrics["device"])
        and isinstance(metrics.get("synthetic", False), bool)
        and is_text(metrics.get("images_note", ""))
        and _is_list(metrics.get("class_groups", []), is_text)
        and len(metrics.get("class_groups", [])) in (0, classes)
        and _is_count(metrics.get("trained_epochs", 0))
        and _are_texts(metrics.get("initialisation", {}))
        and _is_branch(metrics.get("branch"))
        and isinstance(metrics.get("own", {}), dict)
        and isinstance(further, dict)
        and all(_is_further(one, classes) for one in further.values())
        and (kept is None or _is_kept(kept))
    )


def _are_selections(found: Any, classes: int, required: tuple[str, ...]) -> bool:
    """Metrics by selection; of the last epoch they are there."""
    return (
        isinstance(found, dict)
        and {*required} <= {*found}
        and isinstance(found.get("last"), dict)
        and all(one is None or _is_measured(one, classes) for one in found.values())
    )


def _is_measured(found: Any, classes: int) -> bool:
    return (
        isinstance(found, dict)
        and _is_count(found.get("epoch"))
        and _is_measure(found.get("balanced_accuracy"))
        and {*ALWAYS} <= {*found}
        and all(found.get(name) is None or _is_measure(found[name]) for name in (*ALWAYS, *OFTEN))
        and ("sensitivity" not in found or {"macro_auc", "specificity"} <= {*found})
        and _is_list(found.get("per_class_accuracy"), lambda one: one is None or _is_measure(one))
        and len(found["per_class_accuracy"]) == classes
    )


def _is_further(found: Any, classes: int) -> bool:
    return (
        isinstance(found, dict)
        and _is_count(found.get("images"))
        and _is_count(found.get("clusters"))
        and is_text(found.get("sha256"))
        and _are_selections(found.get("selections"), classes, ())
    )


def _is_kept(found: Any) -> bool:
    return isinstance(found, dict) and found.get("which") in KEPT and _is_count(found.get("epoch"))


def _is_branch(found: Any) -> bool:
    return found is None or (
        isinstance(found, dict) and _is_count(found.get("epoch")) and is_text(found.get("from"))
    )


def _are_texts(found: Any) -> bool:
    return isinstance(found, dict) and all(map(is_text, found.values()))


def _is_measure(found: Any) -> bool:
    """(The log loss of a network that diverged may be as large as a float is.)"""
    return is_number(found, MOST if isinstance(found, int) else math.inf)


def _is_count(found: Any) -> bool:
    return is_whole(found, 0, MOST)


def _is_list(found: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(found, list) and all(map(holds, found))
