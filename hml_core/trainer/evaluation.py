"""What a network is worth: features, logits and metrics of whole splits, and the best epochs so far."""

from __future__ import annotations

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
        if min(map(len, self.evaluated.values())) < world.size:
            raise DataError(f"There are fewer test images than the {world.size} processes.")
        self.feeds = {name: self._feed(split) for name, split in self.evaluated.items()}
        self.info = datasets.info(config.dataset)
        self.keeps_logits = len(splits.test) * splits.num_classes <= MOST_LOGITS
        self.is_finite = True  # what the last evaluation computed
        self.best: dict[str, dict[str, Any]] = {}
        self.last: Outcome | None = None
        self.features: Tensor | None = None  # of the test images, at the best epoch on validation
        # Of the network that is to be kept: {"which", "epoch", "tensors", "described"}.
        self.kept: dict[str, Any] | None = None

    def _feed(self, part: LabelledImages | LabelledFiles) -> feeds.Feed:
        return feeds.make(part, self.splits, self.config, self.device)

    def evaluate(self, model: nn.Module, logit_scale: float, epoch: int) -> dict[str, float]:
        """Accuracies of every split for the history's row of ``epoch`` (from 1)."""
        model.eval()
        classifier = self._classifier(model)
        features = {name: self._features(model, name) for name in self.evaluated}
        outcomes = {
            name: self._outcome(classifier, found, logit_scale, self.evaluated[name].targets)
            for name, found in features.items()
        }
        self.last = outcomes["test"]
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
                if name == "validation" and self.info.streamed and self.keeps_logits:
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
        number = len(self.splits.train if name == "train" else self.evaluated[name])
        size = self._images_at_a_time()
        features = inference.features_of(model, self.device, self.autocast_dtype)
        for payload in feed.batches(torch.arange(number)[self.world.share(number)], size):
            parts.append(features(feed.images(payload)))
        return torch.cat(parts)

    def _images_at_a_time(self) -> int:
        if self.info.streamed:
            return self.config.micro_batch_size or self.config.batch_size
        return feeds.bank_batch(self.device)

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
        self.is_finite = all(self.world.all(is_finite))
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
        targets, counts = self.splits.test.targets, self.splits.class_counts
        found: dict[str, Any] = {"best_validation": None}
        for name, one in chosen.items():
            outcome: Outcome = one["test"]
            predicted = outcome.predictions.classes
            per_class = metrics.per_class_accuracy(predicted, targets, self.splits.num_classes)
            measured = metrics.summary_of(outcome.predictions, targets, counts)
            logits = outcome.logits
            area = np.nan if logits is None else metrics.macro_auc(logits, targets)
            found[name] = {
                "epoch": one["epoch"],
                **_without_nan({**measured, "macro_auc": area}),
                **self._of_positive_class(predicted),
                "per_class_accuracy": [None if np.isnan(a) else float(a) for a in per_class],
            }
        return found

    def _of_positive_class(self, predicted: np.ndarray) -> dict[str, float | None]:
        """Sensitivity and specificity, where the data set has a class that they are about."""
        names = self.splits.class_names
        if self.info.positive_class not in names:
            return {}
        positive = names.index(self.info.positive_class)
        targets = self.splits.test.targets
        return _without_nan(metrics.one_against_rest(predicted, targets, positive))

    def arrays(self) -> dict[str, np.ndarray]:
        """Of the last and of the best epoch on validation, and features of the latter."""
        found = self.last.arrays()
        if "best_validation" in self.best:
            found |= self.best["best_validation"]["test"].arrays("best_validation_")
        if self.features is not None:
            found["best_validation_features"] = self.features.numpy()
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "best": {name: {**one, "test": one["test"].state()} for name, one in self.best.items()},
            "last": None if self.last is None else self.last.state(),
            "features": self.features,
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`."""
        self.best = {
            name: {**one, "test": Outcome.restored(one["test"])}
            for name, one in state["best"].items()
        }
        self.last = None if state["last"] is None else Outcome.restored(state["last"])
        self.features = state["features"]
        kept = state.get("kept")
        self.kept = kept if kept is not None and kept["which"] == self.keeps else None


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}
