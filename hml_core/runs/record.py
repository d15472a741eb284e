"""Run records: one folder a run, done if and only if its ``metrics.json`` is there and holds.

``<runs_root>/<run_id>/`` has ``config.json``, ``environment.json``, ``manifest.json`` (which images
were trained on), ``history.csv`` (a row per epoch), ``predictions.npz`` (logits and targets of the test
split and of sets beside it, and how sure the network was of its training images),
``weights.safetensors`` where it was asked for (:mod:`hml_core.runs.kept_weights`), ``checkpoint.pt``
while the run is going, ``failed.json`` after a failure and ``metrics.json`` last. The latter carries the
SHA-256 of every other file and of itself.
"""

from __future__ import annotations

import errno
import io
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hml_core.errors import ForeignRecordError, RunError, UnknownMethodError, UnreachableRecordError
from hml_core.metrics import Predictions
from hml_core.models.trained import TrainedModel
from hml_core.runs import compact_predictions, form, kept_weights
from hml_core.runs.evaluated import TEST, Evaluated
from hml_core.runs.form import REQUIRED, SELECTIONS
from hml_core.runs.stored_config import read_config
from hml_core.system import files, paths
from hml_core.system.quantities import told

EXPORTED = ("config.json", "environment.json", "history.csv", "metrics.json")
# What a file of the right name and the wrong content makes its readers raise.
UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError,
)  # fmt: skip
# What the system says where something is not there, or is no file of ours; all else tells nothing of it.
_NOT_THERE = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENXIO,
    errno.ENODEV, errno.ENAMETOOLONG,
)  # fmt: skip
CLOCK = ("seconds", "waiting_seconds")  # columns of the history that differ from repeat to repeat
RECORDED = ("config.json", "environment.json", "manifest.json", "history.csv", "predictions.npz")
WRITTEN_LAST = {"history.csv", "predictions.npz"}  # of these, when the run ends


def environment_of(folder: Path) -> dict[str, Any]:
    """What ``environment.json`` in the folder of a run tells; RunError where that is none."""
    path = folder / "environment.json"
    try:
        held = json.loads(files.read_text(path))
    except UNREADABLE as error:
        raise RunError(f"Cannot read {str(path)!r}: {files.reason(error)}.") from error
    if not isinstance(held, dict):
        raise RunError(f"Cannot read {str(path)!r}: it is no mapping.")
    return held


class Run:
    """A finished run, read from its folder.

    Attributes
    ----------
    path : pathlib.Path
    config : RunConfig or StoredConfig
    unknown : tuple of str
        What the run used of somebody's own, such as "recipe 'mine'", that is not registered here, or with
        other code. The record is read all the same, its config from what was written
        (:class:`~hml_core.runs.stored_config.StoredConfig`).
    metrics : dict
        ``metrics["selections"][selection]`` holds the test metrics of that epoch,
        ``metrics["further_tests"]`` those of sets beside the test split (:meth:`evaluated`).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = paths.named(path, "the folder of a run")
        try:
            text = files.read_text(self.path / "metrics.json")
            self.metrics = json.loads(text)
            damaged = text != files.json_text(self.metrics)
            claimed = self.metrics.pop("checksum")
            damaged |= claimed != files.checksum(self.metrics)
            if not damaged:  # else no name in it is believed, such as that of an unknown method
                content = files.read_text(self.path / "config.json")
                self.config, self.unknown = read_config(content, self.metrics)
                damaged |= self.metrics["config_hash"] != self.config.hash
                run_id = self.metrics["run_id"]
                damaged |= not set(self.metrics) >= REQUIRED
                damaged |= set(self.metrics["files"]) - {kept_weights.NAME} != set(RECORDED)
                damaged |= not form.is_understood(self.metrics)
        except UnknownMethodError as error:
            raise UnknownMethodError(f"The run {self.path.name} {error}") from error
        except FileNotFoundError as error:
            raise RunError(self._lacking(Path(error.filename).name)) from error
        except UNREADABLE as error:
            _require_reached(error, self.path)
            self._require_ours(repr(error))
            said = files.reason(error) if isinstance(error, OSError) else repr(error)
            raise RunError(f"The run {self.path.name} is damaged: {said}") from error
        if damaged:
            self._require_ours("its metrics.json has another form")
            raise RunError(f"The run {self.path.name} is damaged: its metrics.json does not hold.")
        if self.path.name != run_id:
            raise RunError(
                f"The run {self.path.name} is damaged: it is the record of {told(run_id)}, and its folder "
                "was renamed or copied. Expected a folder of that name."
            )

    def _require_ours(self, reason: str) -> None:
        """A record that holds, and is not understood, is not damaged: somebody else can read it.

        Raises
        ------
        ForeignRecordError
        """
        if _is_whole(self.path):
            raise ForeignRecordError(
                f"The run {self.path.name} is whole, and was written by a version of this package that "
                f"this one does not understand ({reason}). It is left as it is: expected that version, or "
                "another `runs_root`."
            )

    def _lacking(self, name: str) -> str:
        """What to say where a file is not there: the folder need be no finished run's."""
        if name == "metrics.json":
            held = {one for one in RECORDED if os.path.lexists(self.path / one)}
            if not held:
                run = self.path.name or str(self.path)
                return f"The run {run} is damaged, or no run record at all: {name} is not there."
            if (self.path / "checkpoint.pt").exists() or not held & WRITTEN_LAST:
                run = f"The run {self.path.name}"
                return f"{run} is not finished: the command that began it goes on with it."
        return f"The run {self.path.name} is damaged: {name} is not there."

    def verify(self) -> Run:
        """Check every file against its recorded SHA-256; raises RunError naming the damaged one.

        Which files must be there is told by the record: predictions and manifest may lack where its seal
        says that it was exported, and what has their place (:mod:`hml_core.runs.compact_predictions`).
        Weights may be removed from any record. UnreachableRecordError where the system does not let us
        read a file that is there: that tells nothing of it.
        """
        name = compact_predictions.SEAL
        try:
            if self.is_compact:
                compact_predictions.verify(self.path, self.metrics["files"]["manifest.json"])
            for name, recorded in self.metrics["files"].items():
                path = self.path / name
                may_lack = self.is_compact or name == kept_weights.NAME
                if may_lack and name not in EXPORTED and not path.exists():
                    continue
                compact_predictions.require(files.holds(path, recorded), self.path, name)
        except OSError as error:
            _require_reached(error, self.path, name)
            raise
        return self

    @property
    def run_id(self) -> str:
        return self.path.name

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Code, libraries and device that made the run; RunError where it is told in another form."""
        return environment_of(self.path)

    @property
    def is_compact(self) -> bool:
        """Whether this was exported: it keeps of its predictions what most metrics need, or none."""
        return compact_predictions.is_there(self.path)

    @property
    def has_predictions(self) -> bool:
        """Whether the record says what was predicted for each test image: not all exported ones do."""
        return self._arrays_path.exists()

    @property
    def class_counts(self) -> np.ndarray:
        """Training images of each class, int64 (C,)."""
        return np.asarray(self.metrics["class_counts"], dtype=np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.metrics["class_names"])

    @property
    def class_groups(self) -> tuple[str, ...]:
        """What each class belongs to (a supercategory); empty where classes are not grouped."""
        return tuple(self.metrics.get("class_groups", ()))

    @property
    def synthetic(self) -> bool:
        """Whether the images were made up."""
        return bool(self.metrics.get("synthetic", False))

    @property
    def images_note(self) -> str:
        """What has to be said of the images wherever the run is quoted; mostly nothing."""
        return str(self.metrics.get("images_note", ""))

    @property
    def initialised_from(self) -> str:
        """What the network started from: "random", "imagenet" or the name of a file."""
        return self.metrics.get("initialisation", {}).get("weights", "random")

    def keeps(self, which: str | None = None) -> bool:
        """Whether weights are there: any, or those of the "last" or the "best" epoch on validation."""
        return kept_weights.are_there(self.path, self.metrics, which)

    def model(self) -> TrainedModel:
        """The trained network with its preprocessing, on the CPU; where weights were kept.

        It predicts what the record says: after the last epoch, or at the best one on validation
        (``described["which"]``), with the average of the weights and the classifier that were evaluated.

        Raises
        ------
        RunError
            Where no weights were kept, they are damaged, or the network is somebody's own that is not
            registered here as it was then.
        """
        if changed := [text for text in self.unknown if text.startswith("model ")]:
            raise RunError(
                f"The run {self.run_id} was made with the {changed[0]}, which is not registered here, "
                "or with other code (`--import` brings it): its weights are of that network."
            )
        return kept_weights.load(self.run_id, self.path, self.metrics)

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row per epoch."""
        return pd.read_csv(io.StringIO(files.read_text(self.path / "history.csv")))

    @property
    def branch(self) -> tuple[int, str] | None:
        """Epochs that the run took over from another one, and that run's id; None where it took none."""
        found = self.metrics.get("branch")
        return None if found is None else (found["epoch"], found["from"])

    @property
    def trained_epochs(self) -> int:
        """Epochs that the run computed itself."""
        return self.metrics.get("trained_epochs", self.metrics["selections"]["last"]["epoch"])

    @property
    def predictions(self) -> tuple[np.ndarray, np.ndarray]:
        """Test logits float32 (N, C) after the last epoch and targets int64 (N,)."""
        return self.test_logits("last"), self._arrays["targets"]

    def test_logits(self, selection: str = "last") -> np.ndarray:
        """float32 (N, C) after the last epoch, or at the best one on validation.

        Raises
        ------
        ValueError
            For another selection, where the run had no validation split, or where test images times
            classes are so many that only predictions are kept.
        """
        return self._of_selection("logits", selection)

    def test_classes(self, selection: str = "last") -> np.ndarray:
        """Predicted classes of the test images, int64 (N,).

        Raises
        ------
        ValueError
            For another selection, or where the run had no validation split.
        """
        if "predictions" in self._arrays:
            return self._of_selection("predictions", selection)
        return self.test_logits(selection).argmax(axis=1)

    @property
    def test_targets(self) -> np.ndarray:
        """Classes of the test images, int64 (N,)."""
        return self._arrays["targets"]

    def test_predictions(self, selection: str = "last") -> Predictions:
        """Predicted class, its probability and the true class's log-probability of each test image.

        Enough for every metric but the areas under curves (:func:`hml_core.metrics.summary_of`). In a
        compact record probabilities are rounded to float16.

        Raises
        ------
        ValueError
            For another selection, or where the run had no validation split.
        """
        known = selection in compact_predictions.PREFIXES
        predictions = compact_predictions.of_arrays(self._arrays, selection) if known else None
        if predictions is None:
            raise ValueError(f"The run {self.run_id} holds no test predictions of {selection!r}.")
        return predictions

    @property
    def further_tests(self) -> tuple[str, ...]:
        """Names of the sets beside the test split that the run was judged on, such as "official_test"."""
        return tuple(self.metrics.get("further_tests", ()))

    def evaluated(self, name: str = TEST) -> Evaluated:
        """What the record says of the test split, or of a further set.

        Raises
        ------
        ValueError
            For a set that the run was not judged on.
        RunError
            For a record that was exported without its predictions.
        """
        if name == TEST:
            return Evaluated(name, self._arrays, self.metrics["selections"], self.run_id)
        if name not in self.further_tests:
            known = ", ".join((TEST, *self.further_tests))
            raise ValueError(
                f"The run {self.run_id} was judged on {known}, not on {name!r}: expected one of them, or "
                "the run trained anew where that set was prepared."
            )
        measured = self.metrics["further_tests"][name]["selections"]
        return Evaluated(name, self._arrays, measured, self.run_id)

    def _of_selection(self, what: str, selection: str) -> np.ndarray:
        names = {"last": what, "best_validation": f"best_validation_{what}"}
        if what == "logits" and selection in names and names[selection] not in self._arrays:
            self._require_whole("test logits")
        if names.get(selection) not in self._arrays:
            raise ValueError(f"The run {self.run_id} holds no test {what} of {selection!r}.")
        found = self._arrays[names[selection]]
        return found.astype(np.float32, copy=False) if what == "logits" else found

    @property
    def features(self) -> np.ndarray:
        """Test features float32 (N, d) at the best epoch on validation; of image files only."""
        self._require_whole("features")
        if "best_validation_features" not in self._arrays:
            raise ValueError(f"The run {self.run_id} holds no features.")
        return self._arrays["best_validation_features"].astype(np.float32)

    @property
    def confidence(self) -> np.ndarray:
        """Training images of each epoch, class and bin of their class's probability, (E, C, BINS).

        As the training step saw them: augmented, and before it changed the network.
        """
        if "confidence" not in self._arrays:
            self._require_whole("the confidence of training images")
            raise ValueError(f"The run {self.run_id} is too old to hold confidences.")
        return self._arrays["confidence"]

    def _require_whole(self, what: str) -> None:
        if self.is_compact:
            self._require_predictions()
            raise RunError(
                f"The record {self.run_id} is in compact form, without {what}: expected the folder of "
                "the run itself (its classes and probabilities are `test_predictions`)."
            )

    @property
    def _arrays_path(self) -> Path:
        name = compact_predictions.ARRAYS if self.is_compact else "predictions.npz"
        return self.path / name

    def _require_predictions(self) -> None:
        """RunError for a record without: it was exported so, or has lost them."""
        if not self.has_predictions:
            lost = f"is damaged: {self._arrays_path.name} is not there"
            said = "was exported without its predictions" if self.is_compact else lost
            raise RunError(f"The run {self.run_id} {said}.")

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        self._require_predictions()
        if self.is_compact:
            return compact_predictions.read(self.path)
        return compact_predictions.arrays_of(self._arrays_path)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Which images were trained on."""
        return json.loads(self.manifest_content)

    @property
    def manifest_content(self) -> bytes:
        """What ``manifest.json`` holds, or held where records share it."""
        path = self.path / "manifest.json"
        if self.is_compact and not path.exists():
            self._require_predictions()
            return compact_predictions.manifest(self.path, self.metrics["files"][path.name])
        return files.read_bytes(path, files.LARGEST_TABLE)

    def selection(self, name: str = "last") -> dict[str, Any]:
        """Test metrics after the last epoch, or at the best epoch on validation or on the test set.

        Raises
        ------
        ValueError
            For an unknown selection, or best-on-validation of a run without a validation split.
        """
        form.require_selection(name)
        chosen = self.metrics["selections"][name]
        if chosen is None:
            raise ValueError(f"The run {self.run_id} had no validation split to select on.")
        return _with_nan(chosen)

    def per_class_accuracy(self, selection: str = "last") -> np.ndarray:
        """Test accuracy of each class, (C,)."""
        return np.asarray(self.selection(selection)["per_class_accuracy"], dtype=float)

    def row(self) -> dict[str, Any]:
        """This run as a row of :func:`hml_core.runs.load`'s frame."""
        try:
            return self._row()
        except UNREADABLE as error:
            raise ForeignRecordError(
                f"The run {self.run_id} holds, but not what a record of this version does ({error!r})."
            ) from error

    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"run_id": self.run_id, "status": "done", "error": None}
        row.update({name: getattr(self.config, name) for name in self.config.to_dict()})
        row["path"] = self.path.name
        for name in ("seconds", "device"):
            row[name] = self.metrics[name]
        row["synthetic"] = self.synthetic
        row["initialised_from"] = self.initialised_from
        row["num_classes"] = len(self.class_names)
        row["last_validation_score"] = self.history["validation_balanced_accuracy"].iloc[-1]
        for name in SELECTIONS:
            chosen = _with_nan(self.metrics["selections"][name] or {})
            row.update(
                {
                    f"{name}_{key}": value
                    for key, value in chosen.items()
                    if not isinstance(value, list)
                }
            )
        return row


def _require_reached(error: Exception, folder: Path, name: str = "") -> None:
    """An error of reading that is not about what lies there: UnreachableRecordError."""
    if isinstance(error, OSError) and error.errno not in (None, *_NOT_THERE):
        place = error.filename or folder / name
        raise UnreachableRecordError(
            f"The run {folder.name} cannot be read now ({str(place)!r}: {files.reason(error)}). It is "
            "left as it is."
        ) from error


def _is_whole(folder: Path) -> bool:
    """Whether the record's seal holds, and every file that it names is what was written."""
    try:
        text = files.read_text(folder / "metrics.json")
        metrics = json.loads(text)
        if text != files.json_text(metrics):
            return False
        recorded = (files.unsealed(metrics) or {}).get("files")
        if metrics["run_id"] != folder.name or "config.json" not in recorded:
            return False
        return all(
            Path(name).name == name and files.holds(folder / name, known)
            for name, known in recorded.items()
            if name in EXPORTED or (folder / name).exists()
        )
    except UNREADABLE as error:
        _require_reached(error, folder)
        return False


def _with_nan(metrics: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: a metric that is not defined (an empty shot group) is stored as null."""
    return {key: float("nan") if value is None else value for key, value in metrics.items()}
