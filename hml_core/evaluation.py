"""What a network is worth: features, logits and metrics of whole splits, and the best epochs so far."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core import datasets, feeds, metrics, post_hoc
from hml_core.config import RunConfig
from hml_core.datasets import LabelledFiles, LabelledImages, Splits
from hml_core.models import inference


class Evaluator:
    """Evaluates a network on validation and test split and remembers the best epochs.

    Parameters
    ----------
    config : RunConfig
    splits : Splits
    device : torch.device
    autocast_dtype : torch.dtype or None
        See :func:`hml_core.devices.autocast_dtype`.
    """

    def __init__(
        self,
        config: RunConfig,
        splits: Splits,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        self.config, self.splits = config, splits
        self.device, self.autocast_dtype = device, autocast_dtype
        self.evaluated = {"test": splits.test}
        if splits.validation is not None:
            self.evaluated = {"validation": splits.validation, **self.evaluated}
        self.feeds = {name: self._feed(split) for name, split in self.evaluated.items()}
        self.info = datasets.info(config.dataset)
        self.best: dict[str, dict[str, Any]] = {}
        self.last_logits: Tensor | None = None
        self.features: Tensor | None = None  # of the test images, at the best epoch on validation

    def _feed(self, part: LabelledImages | LabelledFiles) -> feeds.Feed:
        return feeds.make(part, self.splits, self.config, self.device)

    def evaluate(self, model: nn.Module, logit_scale: float, epoch: int) -> dict[str, float]:
        """Accuracies of every split for the history's row of ``epoch`` (from 1)."""
        model.eval()
        classifier = self._classifier(model)
        features = {name: self._features(model, name) for name in self.evaluated}
        logits = {
            name: self._logits(classifier, found, logit_scale) for name, found in features.items()
        }
        row = {}
        for name, split in self.evaluated.items():
            found = metrics.quick(
                logits[name].argmax(dim=1).numpy(), split.targets, self.splits.num_classes
            )
            row[f"{name}_accuracy"] = found["top1"]
            row[f"{name}_balanced_accuracy"] = score = found["balanced_accuracy"]
            best = self.best.get(f"best_{name}")
            if best is None or score > best["score"]:
                self.best[f"best_{name}"] = {
                    "epoch": epoch,
                    "score": score,
                    "logits": logits["test"],
                }
                if name == "validation" and self.info.streamed:
                    self.features = features["test"].half().cpu()
        self.last_logits = logits["test"]
        return row

    def _classifier(self, model: nn.Module) -> post_hoc.Classifier:
        """The trained classifier, or the one that the recipe puts in its place after training."""
        method = self.config.method
        if method.post_hoc == "tau_norm":
            return post_hoc.tau_normalised(model.classifier, method.options["tau"])
        if method.post_hoc == "ncm":
            train = self.splits.train
            targets = torch.from_numpy(train.targets).to(self.device)
            features = self._features(model, "train")
            return post_hoc.nearest_class_mean(features, targets, self.splits.num_classes)
        return model.classifier

    @torch.inference_mode()
    def _features(self, model: nn.Module, name: str) -> Tensor:
        """float32 (N, d) of all images of a split, on the device."""
        if name not in self.feeds:
            self.feeds[name] = self._feed(self.splits.train)
        feed, parts = self.feeds[name], []
        number = len(self.splits.train if name == "train" else self.evaluated[name])
        size = self.config.batch_size if self.info.streamed else feeds.bank_batch(self.device)
        features = inference.features_of(model, self.device, self.autocast_dtype)
        for payload in feed.batches(torch.arange(number), size):
            parts.append(features(feed.images(payload)))
        return torch.cat(parts)

    @torch.inference_mode()
    def _logits(
        self, classifier: post_hoc.Classifier, features: Tensor, logit_scale: float
    ) -> Tensor:
        """float32 (N, C) on the CPU, scaled so that their softmax is the model's probability."""
        logits = classifier(features).float() * logit_scale
        if self.config.post_hoc_tau:
            counts = torch.from_numpy(self.splits.class_counts).to(self.device)
            logits = logits - self.config.post_hoc_tau * (counts / counts.sum()).log()
        return logits.cpu()

    def selections(self, last_epoch: int) -> dict[str, Any]:
        """Test metrics after the last epoch and at the best epochs on validation and on the test set."""
        chosen = {"last": {"epoch": last_epoch, "logits": self.last_logits}, **self.best}
        targets, counts = self.splits.test.targets, self.splits.class_counts
        found: dict[str, Any] = {"best_validation": None}
        for name, one in chosen.items():
            logits = one["logits"].numpy()
            per_class = metrics.per_class_accuracy(
                logits.argmax(axis=1), targets, self.splits.num_classes
            )
            found[name] = {
                "epoch": one["epoch"],
                **_without_nan(metrics.summary(logits, targets, counts)),
                **self._of_positive_class(logits),
                "per_class_accuracy": [None if np.isnan(a) else float(a) for a in per_class],
            }
        return found

    def _of_positive_class(self, logits: np.ndarray) -> dict[str, float | None]:
        """Sensitivity and specificity, where the data set has a class that they are about."""
        names = self.splits.class_names
        if self.info.positive_class not in names:
            return {}
        positive = names.index(self.info.positive_class)
        predictions, targets = logits.argmax(axis=1), self.splits.test.targets
        return _without_nan(metrics.one_against_rest(predictions, targets, positive))

    def arrays(self) -> dict[str, np.ndarray]:
        """Test logits of the last and of the best epoch on validation, and features of the latter."""
        found = {"logits": self.last_logits.numpy()}
        if "best_validation" in self.best:
            found["best_validation_logits"] = self.best["best_validation"]["logits"].numpy()
        if self.features is not None:
            found["best_validation_features"] = self.features.numpy()
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "best": self.best,
            "last_logits": self.last_logits,
            "features": self.features,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.best, self.last_logits = state["best"], state["last_logits"]
        self.features = state["features"]


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}
