"""What is kept beside a network's tensors: of which kind and range each part of the description is.

Nobody vouches for a file: its checksum may be made anew with it. What those who rebuild the network
(:func:`hml_core.models.trained.rebuilt`) and predict would stumble over, or would answer with nonsense
for, is refused here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from hml_core.system.fields import is_number, is_text, is_whole

LARGEST_SIDE, MOST_CHANNELS, MOST_CLASSES = 2**14, 2**10, 10**6
MOST_AT_A_TIME, MOST_SCALES = 2**24, 100
PRECISIONS, RESIZING = ("auto", "bf16", "float32"), ("whole", "middle")
LARGEST_NUMBER = 1e30


def require(described: Any, tensors: Mapping[str, Tensor]) -> None:
    """A description of a network that this version can rebuild and predict with.

    Raises
    ------
    ValueError
        Naming the part that is not of its kind.
    """
    _check(described, _PARTS, "the description")
    preprocessing = described["preprocessing"]
    _check(preprocessing, _PREPROCESSING, "`preprocessing`")
    if unknown := sorted({*preprocessing} - {*_PREPROCESSING, *_OPTIONAL}):
        raise ValueError(f"`preprocessing` has {unknown[0]!r}, which this version does not know")
    for name, check in _OPTIONAL.items():
        if name in preprocessing and not check(preprocessing[name]):
            raise ValueError(f"`{name}` of `preprocessing` is none")
    channels, classes = preprocessing["channels"], len(described["class_names"])
    for name in ("mean", "std"):
        if len(preprocessing[name]) != channels:
            raise ValueError(f"`{name}` of `preprocessing` is not that of {channels} channels")
    if min(preprocessing["std"]) <= 0:
        raise ValueError("`std` of `preprocessing` is not above 0")
    if preprocessing["resizing"] == "middle" and not (
        max(preprocessing["size"]) <= preprocessing.get("shorter", 0) <= LARGEST_SIDE
    ):
        raise ValueError("`shorter` of `preprocessing` is less than its `size`")
    # Before a network is built for it: no part of one is larger than all that is kept.
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if max(channels, classes) > numbers:
        raise ValueError(
            f"it tells of {channels} channels and {classes} classes, and holds {numbers} numbers"
        )
    if "shift" in tensors and tensors["shift"].shape != (classes,):
        raise ValueError(f"`shift` is not one number for each of {classes} classes")
    for name, tensor in tensors.items():
        if tensor.is_complex() or (name == "shift" and not tensor.is_floating_point()):
            raise ValueError(f"{name!r} holds {tensor.dtype}")
        # (Infinity is a mask's, or a variance's that overflowed while the logits did not.)
        if tensor.is_floating_point() and bool(tensor.float().isnan().any()):
            raise ValueError(f"{name!r} is not a number")


def _check(found: Any, parts: Mapping[str, Callable[[Any], bool]], what: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no mapping")
    for name, check in parts.items():
        if name not in found or not check(found[name]):
            raise ValueError(f"`{name}` of {what} is none")


def _is_factor(value: Any) -> bool:
    return is_number(value, LARGEST_NUMBER)


def _from_to(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: is_whole(value, low, high)


def _is_list(check: Callable[[Any], bool], low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple) and low <= len(value) <= high and all(map(check, value))
    )


_PARTS: dict[str, Callable[[Any], bool]] = {
    "model": is_text,
    "head": is_text,
    "head_scale": _is_factor,
    "class_scales": _from_to(0, MOST_SCALES),
    "post_hoc": lambda value: value is None or is_text(value),
    "class_names": _is_list(is_text, 1, MOST_CLASSES),
    "logit_scale": _is_factor,
    "precision": lambda value: isinstance(value, str) and value in PRECISIONS,
    "evaluated_at_a_time": _from_to(1, MOST_AT_A_TIME),
    "preprocessing": lambda value: isinstance(value, dict),
}
_PREPROCESSING: dict[str, Callable[[Any], bool]] = {
    "size": _is_list(_from_to(1, LARGEST_SIDE), 2, 2),
    "channels": _from_to(1, MOST_CHANNELS),
    "resizing": lambda value: isinstance(value, str) and value in RESIZING,
    "mean": _is_list(_is_factor, 1, MOST_CHANNELS),
    "std": _is_list(_is_factor, 1, MOST_CHANNELS),
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "shorter": _from_to(0, LARGEST_SIDE),
    "in_memory": lambda value: isinstance(value, bool),
}
