"""Predictions of a run in a form small enough to publish, beside its metrics and sealed to them.

A record in compact form has, in place of ``predictions.npz``, the files

- ``predictions_compact.npz``: of every image of the test split, and of the sets beside it, its class, the
  predicted class, the probability of that one and the log-probability of the true class
  (:class:`hml_core.metrics.Predictions`), the latter two as float16, and which images show the same
  lesion or patient, where that is known;
- ``compact.json``: the SHA-256 of that file and of the ``metrics.json`` that it belongs to, and its own.
  It says that the record was exported; one that was exported without its predictions names no file there.

and in place of ``manifest.json`` one copy for all records beside it that were trained on the same images,
``../manifests/<SHA-256>.json.xz``, named by what it holds.

Confusion, accuracies of classes and shot groups, calibration, and a bootstrap over images can be
computed from it. What needs the probabilities of all classes (areas under curves), features or the
confidence of the training images cannot: it is in the run itself.

A run on medical images (their lesions or patients are known, or it was judged on sets beside its test
split; a few hundred to a few thousand) keeps its logits as float16 and the confidence of its training
images as well, if they are few (:data:`MOST_NUMBERS`): curves and intervals of areas under them can be
drawn again. Predicted classes are then still those of the run, not those of the rounded logits.
"""

from __future__ import annotations

import io
import itertools
import json
import lzma
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hml_core.errors import RunError
from hml_core.metrics import Predictions
from hml_core.system import arrays as archives
from hml_core.system import files

ARRAYS = "predictions_compact.npz"
SEAL = "compact.json"
MANIFESTS = "manifests"
PREFIXES = {"last": "", "best_validation": "best_validation_"}  # as in predictions.npz
MOST_NUMBERS = 50_000  # logits, or counts of confidence, of a record that keeps them
LARGEST = float(np.finfo(np.float16).max)


def is_there(folder: Path) -> bool:
    """Whether a record was exported (its seal may be lost), and has not the predictions of a whole one."""
    exported = (folder / SEAL).exists() or (folder / ARRAYS).exists()
    return exported and not (folder / "predictions.npz").exists()


def prefix_of(selection: str, of: str = "test") -> str:
    """What the names of arrays begin with: of an epoch, of the test split or of a further set."""
    return PREFIXES[selection] + ("" if of == "test" else f"{of}_")


def further_sets(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The sets beside the test split that the arrays of a record speak of."""
    return [name.removesuffix("_targets") for name in arrays if name.endswith("_targets")]


def of_arrays(
    arrays: Mapping[str, np.ndarray], selection: str, of: str = "test"
) -> Predictions | None:
    """What the arrays of a record, compact or not, say of a set's images; None: not of that epoch."""
    prefix, targets = prefix_of(selection, of), "targets" if of == "test" else f"{of}_targets"
    if f"{prefix}predictions" not in arrays:
        if f"{prefix}logits" not in arrays:
            return None
        return Predictions.of(arrays[f"{prefix}logits"], arrays[targets])
    return Predictions(
        arrays[f"{prefix}predictions"].astype(np.int64),
        arrays[f"{prefix}prediction_confidence"].astype(np.float64),
        arrays[f"{prefix}log_probability"].astype(np.float64),
    )


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of ``predictions_compact.npz``."""
    names = [name for name in arrays if name.endswith(("targets", "clusters"))]
    kept = {name: _small(arrays[name]) for name in names}
    for selection, of in itertools.product(PREFIXES, ["test", *further_sets(arrays)]):
        predictions = of_arrays(arrays, selection, of)
        if predictions is not None:
            log_probability = np.maximum(predictions.log_probability, -LARGEST)
            prefix = prefix_of(selection, of)
            kept |= {
                f"{prefix}predictions": _small(predictions.classes),
                f"{prefix}prediction_confidence": predictions.confidence.astype(np.float16),
                f"{prefix}log_probability": log_probability.astype(np.float16),
            }
    if further_sets(arrays) or "clusters" in arrays:
        kept |= _probabilities(arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **kept)
    return buffer.getvalue()


def _probabilities(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The logits of all sets and the confidence of the training images, if they are few."""
    logits = {name: array for name, array in arrays.items() if name.endswith("logits")}
    kept = {}
    if sum(array.size for array in logits.values()) <= MOST_NUMBERS:
        kept = {
            name: np.clip(array, -LARGEST, LARGEST).astype(np.float16)
            for name, array in logits.items()
        }
    if "confidence" in arrays and arrays["confidence"].size <= MOST_NUMBERS:
        kept["confidence"] = arrays["confidence"]
    return kept


def _small(classes: np.ndarray) -> np.ndarray:
    return classes.astype(np.min_scalar_type(int(classes.max())))


def read(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a compact record, classes as int64.

    Raises
    ------
    RunError
        Naming the file, where it cannot be read, or holds what :func:`pack` does not write.
    """
    arrays = arrays_of(folder / ARRAYS)
    for name, array in arrays.items():
        if array.dtype != np.float16 and array.dtype.kind not in "iu":
            raise RunError(
                f"Cannot read {str(folder / ARRAYS)!r}: expected {name!r} to be whole numbers or float16, "
                f"got {array.dtype}."
            )
    return {
        name: array if array.dtype == np.float16 else array.astype(np.int64)
        for name, array in arrays.items()
    }


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays in a file of a record.

    Raises
    ------
    RunError
        Naming the file, where it cannot be read, or declares more than it holds or anybody needs.
    """
    try:
        return archives.read(path)
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read {str(path)!r}: {files.reason(error)}.") from error


def require_sound(arrays: Mapping[str, np.ndarray], classes: int) -> None:
    """Predictions of as many images as there are classes of, and logits of as many classes.

    Raises
    ------
    ValueError
    """
    for of in ("test", *further_sets(arrays)):
        targets = arrays["targets" if of == "test" else f"{of}_targets"]
        if targets.ndim != 1 or targets.dtype.kind not in "iu" or not len(targets):
            raise ValueError(
                f"the classes of the set {of!r} are {targets.dtype} of shape {targets.shape}"
            )
        if int(targets.min()) < 0 or int(targets.max()) >= classes:
            raise ValueError(
                f"the set {of!r} has images of other classes than the record's {classes}"
            )
        for selection in PREFIXES:
            logits = arrays.get(f"{prefix_of(selection, of)}logits")
            if logits is None:
                continue
            if logits.shape != (len(targets), classes) or logits.dtype.kind != "f":
                kind = f"{logits.dtype} of shape {logits.shape}"
                raise ValueError(f"the logits of the set {of!r} are {kind}")
            if not np.isfinite(logits).all():
                raise ValueError(f"the logits of the set {of!r} are not finite")


def content(run_id: str, packed: bytes | None, metrics: bytes) -> dict[str, bytes]:
    """Of each file that a record in compact form has besides: predictions, if there are any, and seal.

    ``packed`` is what :func:`pack` gives, ``metrics`` the content of the record's ``metrics.json``.
    """
    predictions = {} if packed is None else {ARRAYS: packed}
    seal = {
        "run_id": run_id,
        "metrics": files.checksum(json.loads(metrics)),
        "files": {name: files.sha256_of(written) for name, written in predictions.items()},
    }
    return {**predictions, SEAL: files.json_text(files.sealed(seal)).encode()}


def verify(folder: Path, manifest_sha256: str) -> None:
    """Check an exported record against its seal, and the manifest that it shares.

    Without predictions it needs no manifest either.

    Raises
    ------
    RunError
        Naming what is damaged.
    """
    require(_is_sealed(folder), folder, SEAL)
    seal = json.loads(files.read_text(folder / SEAL))
    for name, recorded in seal["files"].items():
        path = folder / name
        require(files.holds(path, recorded), folder, name)
    if seal["files"] and not (folder / "manifest.json").exists():
        manifest(folder, manifest_sha256)


def _is_sealed(folder: Path) -> bool:
    try:
        text = files.read_text(folder / SEAL)
        written: dict[str, Any] = json.loads(text)
        seal = files.unsealed(written)
        metrics = files.checksum(json.loads(files.read_text(folder / "metrics.json")))
        return (
            text == files.json_text(written)
            and seal is not None
            and seal["metrics"] == metrics
            and seal["run_id"] == folder.name
            and set(seal["files"]) in ({ARRAYS}, set())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def manifest_path(folder: Path, sha256: str) -> Path:
    """Where the records beside ``folder`` keep the manifest with that SHA-256."""
    return folder.parent / MANIFESTS / f"{sha256}.json.xz"


def manifest(folder: Path, sha256: str) -> bytes:
    """The content of the ``manifest.json`` that the record shares.

    Raises
    ------
    RunError
        Where it is not there, or not what was written.
    """
    path = manifest_path(folder, sha256)
    try:
        content = files.read_xz(path)
    except (OSError, lzma.LZMAError, EOFError):
        content = None
    require(
        content is not None and files.sha256_of(content) == sha256,
        folder,
        f"../{MANIFESTS}/{path.name}",
    )
    return content


def write_manifest(folder: Path, content: bytes) -> None:
    """Keep the content of a ``manifest.json`` for the record in ``folder`` and those beside it."""
    path = manifest_path(folder, files.sha256_of(content))
    if path.parent.is_symlink():
        raise RunError(f"{str(path.parent)!r} is a link, and nothing is written where it leads.")
    if os.path.lexists(path.parent) and not path.parent.is_dir():
        raise RunError(
            f"{str(path.parent)!r} is no folder, and that of the records' manifests has its name: "
            "expected another destination, or that to be moved away."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_half_written(path.parent, [path.name])
    files.write_atomically(path, lzma.compress(content, preset=9))


def require(holds: bool, folder: Path, name: str) -> None:
    """RunError where a file of a record is not what its checksum says, or not there."""
    if not holds:
        said = "not what was written" if (folder / name).exists() else "not there"
        raise RunError(f"The run {folder.name} is damaged: {name} is {said}.")
