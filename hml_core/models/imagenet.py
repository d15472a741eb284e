"""torchvision's networks for large images, with this package's interface and a head of its own."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hml_core.errors import ConfigError, DataError, RunError
from hml_core.models import heads
from hml_core.system import downloads, files, states

WEIGHTS = ("none", "imagenet")
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")  # of files that hold more


class ImageNetModel(heads.Headed):
    """A torchvision classification network whose last linear layer is replaced.

    Parameters
    ----------
    name : str
        A function of ``torchvision.models``: an EfficientNet (dropout stays in front of the head) or
        a ResNet.
    num_classes : int
    head : {"linear", "cosine"}
    in_channels : int
        3; these networks take colour images.
    head_scale : float
        The scale of a cosine head.

    Raises
    ------
    ConfigError
        For images of another number of channels.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        head: str = "linear",
        *,
        in_channels: int = 3,
        head_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if in_channels != 3:
            raise ConfigError(
                f"The model {name} takes images of 3 channels, got {in_channels}: expected a data set of "
                "colour images, or another `model`."
            )
        from torchvision import models  # takes seconds; most runs do not need it

        self.name = name
        self.backbone = models.get_model(name, weights=None)
        last = self.backbone.fc if hasattr(self.backbone, "fc") else self.backbone.classifier
        self.dropout: nn.Module = nn.Identity()
        if isinstance(last, nn.Sequential):
            self.dropout, last = last[0], last[1]
        self._set_backbone_head(nn.Identity())
        self.linear = heads.build(head, last.in_features, num_classes, head_scale)

    def _set_backbone_head(self, module: nn.Module) -> None:
        setattr(self.backbone, "fc" if hasattr(self.backbone, "fc") else "classifier", module)

    def features(self, x: Tensor) -> Tensor:
        """The representation before the classifier: (N, 3, H, W) → (N, d)."""
        return self.dropout(self.backbone(x))


IMAGENET_MODELS = {
    name: functools.partial(ImageNetModel, name)
    for name in ("efficientnet_b0", "efficientnet_b3", "resnet18", "resnet50")
}


def load_weights(model: ImageNetModel, weights: str) -> dict[str, Any]:
    """Initialise the backbone, all but the head, from a file of weights.

    Parameters
    ----------
    model : ImageNetModel
    weights : {"none", "imagenet"} or a path
        torchvision's weights for ImageNet, taken from torch's cache or downloaded; or a file with a
        ``state_dict`` of the same torchvision network, as torch or safetensors writes it: alone, within
        a checkpoint under a usual name, or as a part of a larger network, such as the
        ``weights.safetensors`` of a run.

    Returns
    -------
    dict
        What the network starts from, for the run's record: ``weights`` ("random", "imagenet" or the
        name of the file), and ``sha256`` or, where ImageNet's weights could not be reached, ``why``.

    Raises
    ------
    DataError
        For a file that is missing, damaged or of another network.

    Warns
    -----
    UserWarning
        Where ImageNet's weights cannot be reached: the network then starts at random.
    """
    if weights == "none":
        return {"weights": "random"}
    if weights == "imagenet":
        from torchvision import models

        published = models.get_model_weights(model.name).DEFAULT
        cached = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rpartition("/")[2]
        try:
            downloads.require_regular(cached, files.LARGEST_DATA)
        except OSError as error:
            raise DataError(f"Cannot read {str(cached)!r}: {files.reason(error)}") from error
        try:
            with downloads.patience(limit=files.LARGEST_DATA):
                state = published.get_state_dict(progress=False, check_hash=True)
        except RunError:
            raise
        except downloads.UNREACHABLE as error:
            if downloads.is_of_the_disk(error):
                raise DataError(
                    f"The ImageNet weights of {model.name} cannot be stored in {str(cached.parent)!r}: "
                    f"{files.reason(error)}."
                ) from error
            said = downloads.reason(error)
            warnings.warn(
                f"The ImageNet weights of {model.name} cannot be reached ({said}): the network starts "
                f"at random. Expected a connection, or {published.url} in the folder checkpoints/ of "
                "`torch.hub.get_dir()`, or the path of that file as `weights`.",
                stacklevel=2,
            )
            return {"weights": "random", "why": f"ImageNet weights not reachable: {said}"}
        except Exception as error:  # a wrong sum, or a cached file that does not load
            raise DataError(f"The ImageNet weights of {model.name} are damaged: {error}") from error
        described = {"weights": "imagenet", "file": cached.name}
    else:
        cached = Path(weights)
        try:
            state = states.weights(cached)
        except Exception as error:  # whatever a damaged archive makes its readers raise
            raise DataError(
                f"Cannot read the weights in {weights!r}: {files.reason(error)}"
            ) from error
        described = {"weights": cached.name}
    _load_backbone(model, state, cached.name)
    return {**described, "sha256": files.sha256(cached)}


def _load_backbone(model: ImageNetModel, state: Any, name: str) -> None:
    wanted = model.backbone.state_dict()
    for key in CHECKPOINT_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    start = _start_of(wanted, state)
    if start is None:
        raise DataError(f"{name!r} does not hold the weights of torchvision's {model.name}.")
    taken = {key: state[start + key] for key in wanted}
    if odd := [key for key, one in taken.items() if not torch.isfinite(one).all()]:
        raise DataError(f"{name!r} holds weights that are no numbers: {start}{odd[0]}.")
    model.backbone.load_state_dict(taken)


def _start_of(wanted: dict[str, Tensor], state: Any) -> str | None:
    """How the names of the backbone's tensors begin in a file: with nothing, "module." of a network on
    several GPUs, or where it stands in a larger one; None where one is missing or of another shape."""
    if not isinstance(state, dict):
        return None
    first = next(iter(wanted))
    names = (key for key in state if isinstance(key, str))
    starts = sorted((key.removesuffix(first) for key in names if key.endswith(first)), key=len)
    for start in starts:
        found = [(state.get(start + key), value) for key, value in wanted.items()]
        if all(_has_its_place(one, value) for one, value in found):
            return start
    return None


def _has_its_place(one: Any, value: Tensor) -> bool:
    """Whether what a file holds can be copied there: a sparse tensor cannot, nor one without values."""
    is_tensor = isinstance(one, Tensor) and one.shape == value.shape
    if not is_tensor or one.layout != torch.strided or one.is_meta:
        return False
    return one.is_floating_point() == value.is_floating_point()


def freeze(model: nn.Module, fraction: float) -> int:
    """Stop training the first ``fraction`` of the parameter tensors (their number rounded down).

    Batch normalisation in the frozen part goes on to follow its batches, as in the authors' code.
    Returns the number of frozen tensors.
    """
    tensors = list(model.parameters())
    frozen = int(fraction * len(tensors))
    for tensor in tensors[:frozen]:
        tensor.requires_grad_(False)
    return frozen
