"""What a network is worth: features, logits and metrics of whole splits, and the best epochs so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core import datasets, metrics
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles, LabelledImages, Splits
from hml_core.errors import ConfigError, DataError
from hml_core.models import inference, post_hoc, trained
from hml_core.trainer import feeds
from hml_core.trainer.world import ALONE, World

# Test images × classes: logits of more are not kept, only what metrics need of them.
MOST_LOGITS = 5 * 10**7
ROWS = 2048  # of logits that exist at a time, where they are not kept


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a network says of the images of a split.

    Attributes
    ----------
    predictions : metrics.Predictions
    logits : numpy.ndarray or None
        float32 (N, C); None where they would be too many (:data:`MOST_LOGITS`).
    """

    predictions: metrics.Predictions
    logits: np.ndarray | None

    def arrays(self, prefix: str = "") -> dict[str, np.ndarray]:
        """What a record keeps."""
        if self.logits is not None:
            return {f"{prefix}logits": self.logits}
        found = self.predictions
        return {
            f"{prefix}predictions": found.classes,
            f"{prefix}prediction_confidence": found.confidence.astype(np.float32),
            f"{prefix}log_probability": found.log_probability.astype(np.float32),
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors."""
        values = {**vars(self.predictions), "logits": self.logits}
        return {
            name: None if value is None else torch.from_numpy(value)
            for name, value in values.items()
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Outcome:
        """From a :meth:`state`."""
        values = {name: None if one is None else one.numpy() for name, one in state.items()}
        logits = values.pop("logits")
        return cls(metrics.Predictions(**values), logits)


class Evaluator:
    """Evaluates a network on validation and test split and remembers the best epochs.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    device : torch.device
    autocast_dtype : torch.dtype or None
        See :func:`hml_core.system.devices.autocast_dtype`.
    world : World
        Each of its processes evaluates its own share of the images; what is measured is measured over all
        of them, on every process.
    keeps : {"last", "best"}, optional
        Keep a copy of the network that was evaluated last, or is the best on validation.

    Raises
    ------
    ConfigError
        Where the best is to be kept and there is no validation split.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
        world: World = ALONE,
        keeps: str | None = None,
    ) -> None:
        self.config, self.splits, self.world, self.keeps = config, splits, world, keeps
        if keeps == "best" and splits.validation is None:
            raise ConfigError(
                f"The data set {config.dataset!r} has no validation split to say which epoch is the best: "
                "expected `keep_weights` 'last', or `validation_fraction` > 0."
            )
        self.device, self.autocast_dtype = device, autocast_dtype
        self.evaluated = {"test": splits.test}
        if splits.validation is not None:
            self.evaluated = {"validation": splits.validation, **self.evaluated}
        # They choose nothing and stand in no history, so that a run is the same with them or without.
        self.further = {name: further.images for name, further in splits.further_tests.items()}
        self.parts = {**self.evaluated, **self.further}
        if min(map(len, self.parts.values())) < world.size:
            raise DataError(f"There are fewer test images than the {world.size} processes.")
        self.feeds = {name: self._feed(split) for name, split in self.parts.items()}
        self.info = datasets.info(config.dataset)
        self.keeps_logits = len(splits.test) * splits.num_classes <= MOST_LOGITS
        self.is_finite = True  # what the last evaluation computed
        self.best: dict[str, dict[str, Any]] = {}
        self.last: Outcome | None = None
        self.last_further: dict[str, Outcome] = {}
        self.features: Tensor | None = None  # of the test images, at the best epoch on validation
        # Of the network that is to be kept: {"which", "epoch", "tensors", "described"}.
        self.kept: dict[str, Any] | None = None

    def _feed(self, part: LabelledImages | LabelledFiles) -> feeds.Feed:
        return feeds.make(part, self.splits, self.config, self.device)

    def evaluate(self, model: nn.Module, logit_scale: float, epoch: int) -> dict[str, float]:
        """Accuracies of every split for the history's row of ``epoch`` (from 1)."""
        model.eval()
        self.is_finite = True
        classifier = self._classifier(model)
        features = {name: self._features(model, name) for name in self.parts}
        outcomes = {
            name: self._outcome(classifier, found, logit_scale, self.parts[name].targets)
            for name, found in features.items()
        }
        self.last = outcomes["test"]
        self.last_further = {name: outcomes[name] for name in self.further}
        row = {}
        is_wanted = self.keeps == "last"
        for name, split in self.evaluated.items():
            predicted = outcomes[name].predictions.classes
            found = metrics.quick(predicted, split.targets, self.splits.num_classes)
            row[f"{name}_accuracy"] = found["top1"]
            row[f"{name}_balanced_accuracy"] = score = found["balanced_accuracy"]
            best = self.best.get(f"best_{name}")
            if best is None or score > best["score"]:
                self.best[f"best_{name}"] = {"epoch": epoch, "score": score, "test": self.last}
                is_wanted |= self.keeps == "best" and name == "validation"
                if name == "validation":
                    self.best["best_validation"]["further"] = self.last_further
                    if self.info.streamed and self.keeps_logits:
                        own = features["test"].half().cpu().numpy()
                        self.features = torch.from_numpy(self.world.joined(own))
        if is_wanted:
            self._keep(model, classifier, logit_scale, epoch)
        return row

    def keep(self, model: nn.Module, logit_scale: float, epoch: int) -> None:
        """Keep the network as it was evaluated after ``epoch``. All processes must call it."""
        model.eval()
        self._keep(model, self._classifier(model), logit_scale, epoch)

    def _keep(
        self, model: nn.Module, classifier: nn.Module, logit_scale: float, epoch: int
    ) -> None:
        described = {
            "model": self.config.model,
            "preprocessing": feeds.preprocessing_of(self.splits, self.config).to_dict(),
            "class_names": list(self.splits.class_names),
            "dataset": self.config.dataset,
            "synthetic": self.splits.synthetic,
            "logit_scale": float(logit_scale),
            "precision": self.config.precision,
            "evaluated_at_a_time": self._images_at_a_time(),
        }
        shift = self._shift().cpu() if self.config.post_hoc_tau else None
        tensors, described = trained.kept(model, classifier, shift, described)
        self.kept = {
            "which": self.keeps,
            "epoch": epoch,
            "tensors": tensors,
            "described": described,
        }

    def _classifier(self, model: nn.Module) -> nn.Module:
        """The trained classifier, or the one that the recipe puts in its place after training."""
        method = self.config.method
        if method.post_hoc == "tau_norm":
            return post_hoc.tau_normalised(model.classifier, method.options["tau"])
        if method.post_hoc == "ncm":
            train = self.splits.train
            targets = torch.from_numpy(train.targets).to(self.device)
            own = self._features(model, "train")
            if self.world.size > 1:
                own = torch.from_numpy(self.world.joined(own.cpu().numpy())).to(self.device)
            return post_hoc.nearest_class_mean(own, targets, self.splits.num_classes)
        return model.classifier

    @torch.inference_mode()
    def _features(self, model: nn.Module, name: str) -> Tensor:
        """float32 (N, d) of this process's share of a split, on the device."""
        if name not in self.feeds:
            self.feeds[name] = self._feed(self.splits.train)
        feed, parts = self.feeds[name], []
        number = len(self.splits.train if name == "train" else self.parts[name])
        size = self._images_at_a_time()
        features = inference.features_of(model, self.device, self.autocast_dtype)
        for payload in feed.batches(torch.arange(number)[self.world.share(number)], size):
            parts.append(features(feed.images(payload)))
        return torch.cat(parts)

    def _images_at_a_time(self) -> int:
        if self.info.streamed:
            return self.config.micro_batch_size or self.config.batch_size
        return feeds.bank_batch(self.device)

    @property
    def sizes(self) -> set[int]:
        """Images that pass the network together: of whole batches, and of the last one of each split."""
        most, found = self._images_at_a_time(), set()
        for part in self.parts.values():
            number = len(range(len(part))[self.world.share(len(part))])
            found |= {min(most, number), number % most or min(most, number)}
        return found

    @torch.inference_mode()
    def _outcome(
        self,
        classifier: nn.Module,
        features: Tensor,
        logit_scale: float,
        targets: np.ndarray,
    ) -> Outcome:
        """Of all images, from each process's features."""
        own = targets[self.world.share(len(targets))]
        step = len(own) if self.keeps_logits else ROWS
        logits, found, is_finite = [], [], True
        for start in range(0, len(own), step):
            part = slice(start, start + step)
            values = self._logits(classifier, features[part], logit_scale).numpy()
            is_finite &= bool(np.isfinite(values).all())
            values = values if is_finite else np.zeros_like(values)
            found.append(vars(metrics.Predictions.of(values, own[part])))
            if self.keeps_logits:
                logits.append(values)
        joined = {
            name: self.world.joined(np.concatenate([one[name] for one in found]))
            for name in found[0]
        }
        self.is_finite &= all(self.world.all(is_finite))
        whole = self.world.joined(np.concatenate(logits)) if self.keeps_logits else None
        return Outcome(metrics.Predictions(**joined), whole)

    @torch.inference_mode()
    def _logits(self, classifier: nn.Module, features: Tensor, logit_scale: float) -> Tensor:
        """float32 (N, C) on the CPU, scaled so that their softmax is the model's probability."""
        logits = classifier(features).float() * logit_scale
        if self.config.post_hoc_tau:
            logits = logits - self._shift()
        return logits.cpu()

    def _shift(self) -> Tensor:
        """What post-hoc logit adjustment subtracts, (C,)."""
        counts = torch.from_numpy(self.splits.class_counts).to(self.device)
        return self.config.post_hoc_tau * (counts / counts.sum()).log()

    def selections(self, last_epoch: int) -> dict[str, Any]:
        """Test metrics after the last epoch and at the best epochs on validation and on the test set."""
        chosen = {"last": {"epoch": last_epoch, "test": self.last}, **self.best}
        found: dict[str, Any] = {"best_validation": None}
        for name, one in chosen.items():
            measured = self._measured(one["test"], self.splits.test.targets)
            found[name] = {"epoch": one["epoch"], **measured}
        return found

    def further_tests(self, last_epoch: int) -> dict[str, Any]:
        """What a record says of each further set: its size, and metrics as in ``selections``."""
        found = {}
        for name, further in self.splits.further_tests.items():
            targets, selections = further.images.targets, {}
            for selection, (epoch, outcomes) in self._further_outcomes(last_epoch).items():
                if name in outcomes:
                    measured = self._measured(outcomes[name], targets)
                    selections[selection] = {"epoch": epoch, **measured}
            found[name] = {
                "images": len(targets),
                "clusters": len(np.unique(further.clusters)),
                "sha256": further.sha256(),
                "selections": selections,
            }
        return found

    def _further_outcomes(self, last_epoch: int) -> dict[str, tuple[int, dict[str, Outcome]]]:
        """By selection the epoch and the outcomes of the further sets."""
        found = {"last": (last_epoch, self.last_further)}
        if best := self.best.get("best_validation"):
            # A checkpoint from before the set was there has none at an epoch that is over.
            found["best_validation"] = (best["epoch"], best.get("further", {}))
        return found

    def _measured(self, outcome: Outcome, targets: np.ndarray) -> dict[str, Any]:
        """The metrics of a set of test images, without NaN."""
        predicted, logits = outcome.predictions.classes, outcome.logits
        per_class = metrics.per_class_accuracy(predicted, targets, self.splits.num_classes)
        measured = metrics.summary_of(outcome.predictions, targets, self.splits.class_counts)
        area = np.nan if logits is None else metrics.macro_auc(logits, targets)
        return {
            **_without_nan({**measured, "macro_auc": area}),
            **self._of_positive_class(predicted, targets),
            "per_class_accuracy": [None if np.isnan(a) else float(a) for a in per_class],
        }

    def _of_positive_class(
        self, predicted: np.ndarray, targets: np.ndarray
    ) -> dict[str, float | None]:
        """Sensitivity and specificity, where the data set has a class that they are about."""
        names = self.splits.class_names
        if self.info.positive_class not in names:
            return {}
        positive = names.index(self.info.positive_class)
        return _without_nan(metrics.one_against_rest(predicted, targets, positive))

    def arrays(self) -> dict[str, np.ndarray]:
        """Of the last and of the best epoch on validation, and features of the latter.

        Which images are not independent of each other stands in ``clusters``, as numbers; what belongs to
        a further set has its name before it.
        """
        found = self.last.arrays()
        if "best_validation" in self.best:
            found |= self.best["best_validation"]["test"].arrays("best_validation_")
        if self.features is not None:
            found["best_validation_features"] = self.features.numpy()
        if self.splits.test_clusters is not None:
            found["clusters"] = _numbered(self.splits.test_clusters)
        for name, further in self.splits.further_tests.items():
            found[f"{name}_targets"] = further.images.targets
            found[f"{name}_clusters"] = _numbered(further.clusters)
            for selection, (_, outcomes) in self._further_outcomes(0).items():
                prefix = "" if selection == "last" else f"{selection}_"
                if name in outcomes:
                    found |= outcomes[name].arrays(f"{prefix}{name}_")
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "best": {name: _each_outcome(one, Outcome.state) for name, one in self.best.items()},
            "last": None if self.last is None else self.last.state(),
            "last_further": {name: one.state() for name, one in self.last_further.items()},
            "features": self.features,
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.best = {
            name: _each_outcome(one, Outcome.restored) for name, one in state["best"].items()
        }
        self.last = None if state["last"] is None else Outcome.restored(state["last"])
        self.last_further = {
            name: Outcome.restored(one) for name, one in state.get("last_further", {}).items()
        }
        self.features = state["features"]
        kept = state.get("kept")
        self.kept = kept if kept is not None and kept["which"] == self.keeps else None


def _each_outcome(best: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """An entry of ``Evaluator.best`` with its outcomes changed into states, or back."""
    changed = {**best, "test": change(best["test"])}
    if "further" in best:
        changed["further"] = {name: change(one) for name, one in best["further"].items()}
    return changed


def _numbered(clusters: np.ndarray) -> np.ndarray:
    """Names as int64 numbers, the same for the same name."""
    return np.unique(clusters, return_inverse=True)[1].astype(np.int64)


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}
