"""A trained network as it predicts: with its preprocessing, its classifier and its classes.

What a run keeps of its network is a mapping of tensors and a description in plain JSON types
(:func:`kept`); :func:`rebuilt` makes the network of them again, without the data set and the recipe.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hml_core import models
from hml_core.errors import ConfigError, RunError
from hml_core.models import inference, post_hoc
from hml_core.models.preprocessing import Preprocessing
from hml_core.system import devices, files, scratch, seeds

NETWORK, POST_HOC, SHIFT = "network.", "post_hoc.", "shift"  # how the names of tensors begin


class TrainedModel(nn.Module):
    """A trained network: from images of its size to logits whose softmax is the probability of each class.

    Parameters
    ----------
    network : nn.Module
        With ``features(x)`` and ``classifier``.
    described : mapping
        See :func:`kept`.
    classifier : nn.Module, optional
        What the recipe puts in the place of the trained classifier (τ-norm, NCM).
    shift : Tensor, optional
        (C,), subtracted from the logits: post-hoc logit adjustment.

    Attributes
    ----------
    class_names : tuple of str
    preprocessing : Preprocessing
        Image size, resizing and normalisation, as where the run was evaluated.
    described : dict
        ``run_id``, ``epoch``, ``model``, ``precision`` and what else was kept.
    """

    def __init__(
        self,
        network: nn.Module,
        described: Mapping[str, Any],
        classifier: nn.Module | None = None,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network, self.post_hoc, self.described = network, classifier, dict(described)
        self.register_buffer("shift", shift)
        self.class_names = tuple(described["class_names"])
        self.preprocessing = Preprocessing.from_dict(described["preprocessing"])
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 or float (N, channels, H, W), grey levels from 0 to 255 → logits float32 (N, C).

        In float32. :meth:`logits` computes as the run's evaluation did.
        """
        return self._scaled(self.network.features(self.preprocessing.normalised(images)))

    def _scaled(self, features: Tensor) -> Tensor:
        classifier = self.network.classifier if self.post_hoc is None else self.post_hoc
        logits = classifier(features).float() * self.described["logit_scale"]
        return logits if self.shift is None else logits - self.shift

    @torch.inference_mode()
    @devices.plain_numbers()
    def logits(self, images: Tensor | np.ndarray) -> Tensor:
        """As the run's evaluation computed them, in its precision: float32 (N, C) on the CPU.

        Parameters
        ----------
        images : Tensor or numpy.ndarray
            uint8 (N, channels, H, W), of the network's size, on any device.

        Raises
        ------
        ConfigError
            For images of another shape or type.
        """
        images = self._checked(images)
        device = next(self.network.parameters()).device
        dtype = devices.autocast_dtype(self.described["precision"], device)
        features = inference.features_of(self.network, device, dtype)
        parts = [
            self._scaled(features(self.preprocessing.normalised(part.to(device)))).cpu()
            for part in images.split(self.described["evaluated_at_a_time"])
        ]
        return torch.cat(parts) if parts else torch.zeros(0, len(self.class_names))

    def probabilities(self, images: Tensor | np.ndarray) -> np.ndarray:
        """The softmax of :meth:`logits`: float32 (N, C)."""
        return self.logits(images).softmax(dim=1).numpy()

    def _checked(self, images: Tensor | np.ndarray) -> Tensor:
        images = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
        wanted = (self.preprocessing.channels, *self.preprocessing.size)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise ConfigError(
                f"Expected images uint8 of shape (N, {', '.join(map(str, wanted))}), grey levels from 0 "
                f"to 255, got {str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape)}: "
                "`preprocessing.image` makes one of a file's content."
            )
        return images

    def export(self, path: str | Path | None = None) -> torch.export.ExportedProgram:
        """The network with its normalisation as a program that needs nothing of this package.

        It computes :meth:`forward` for any number of images, on the device that the model is on. With
        ``path`` it is written there, for ``torch.export.load(path).module()(images)``; the class names
        lie beside it as ``extra_files["class_names.txt"]``.

        Raises
        ------
        RunError
            For a network that ``torch.export`` cannot follow, and a path that cannot be written.
        """
        scratch.keep_compiled_code_private()
        device = next(self.network.parameters()).device
        shape = (2, self.preprocessing.channels, *self.preprocessing.size)
        example = torch.zeros(shape, dtype=torch.uint8, device=device)
        try:
            # torch.export.save warns of tensors in another order than the usual one.
            plain = copy.deepcopy(self).to(memory_format=torch.contiguous_format)
            program = torch.export.export(
                plain, (example,), dynamic_shapes={"images": {0: torch.export.Dim("images")}}
            )
        except Exception as error:  # whatever somebody's own backbone does
            raise RunError(
                f"torch.export does not follow the network {self.described['model']!r}: {error}"
            ) from error
        if path is not None:
            buffer = io.BytesIO()
            names = {"class_names.txt": "\n".join(self.class_names)}
            torch.export.save(program, buffer, extra_files=names)
            files.write_atomically(Path(path), buffer.getvalue())
        return program


def kept(
    network: nn.Module,
    classifier: nn.Module,
    shift: Tensor | None,
    described: Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What there is to keep of a network that is evaluated: copies of its tensors, and its description.

    Parameters
    ----------
    network : nn.Module
    classifier : nn.Module
        Its own, or what takes its place (:data:`hml_core.models.post_hoc.CLASSIFIERS`).
    shift : Tensor, optional
    described : mapping
        ``model`` and ``preprocessing`` (:meth:`Preprocessing.to_dict`), ``class_names``, ``logit_scale``,
        ``precision``, ``evaluated_at_a_time``.
    """
    tensors = {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    if classifier is not network.classifier:
        tensors |= {f"{POST_HOC}{name}": value for name, value in classifier.state_dict().items()}
    if shift is not None:
        tensors[SHIFT] = shift
    scaled, head = 0, network.classifier
    while isinstance(head, post_hoc.ClassScales):
        scaled, head = scaled + 1, head.classifier
    kinds = {kind: name for name, kind in post_hoc.CLASSIFIERS.items()}
    described = {
        **described,
        "head": "cosine" if isinstance(head, models.CosineLinear) else "linear",
        "head_scale": getattr(head, "scale", 1.0),
        "class_scales": scaled,
        "post_hoc": kinds.get(type(classifier)),
    }
    # A copy, contiguous and shared with no other: the training goes on, and two names may be one tensor.
    copies = {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()
    }
    return copies, described


def require_keepable(network: nn.Module, name: str) -> None:
    """The state of the network is made of dense tensors.

    Raises
    ------
    ConfigError
    """
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise ConfigError(
                f"The weights of the model {name!r} cannot be kept: {key!r} of its `state_dict` is "
                f"{type(value).__name__}, expected dense tensors only. Expected `keep_weights` None."
            )


@devices.plain_numbers()
def rebuilt(tensors: Mapping[str, Tensor], described: Mapping[str, Any]) -> TrainedModel:
    """The network of what was :func:`kept`, on the CPU.

    Raises
    ------
    ConfigError
        For a model that is not registered here.
    RuntimeError
        Where the tensors are not those of such a network.
    """
    if described["model"] not in models.MODELS:
        raise ConfigError(
            f"The model {described['model']!r} is not registered here: `--import` or an import brings it."
        )
    number = len(described["class_names"])
    with seeds.apart(everywhere=True):  # what is drawn is replaced
        network = models.build(
            described["model"],
            number,
            described["head"],
            in_channels=described["preprocessing"]["channels"],
            head_scale=described["head_scale"],
        )
    for _ in range(described["class_scales"]):
        network.replace_classifier(post_hoc.ClassScales(network.classifier, number))
    network.load_state_dict(_part(tensors, NETWORK))
    classifier = None
    if described["post_hoc"] is not None:
        classifier = post_hoc.CLASSIFIERS[described["post_hoc"]](**_part(tensors, POST_HOC))
    network = network.to(memory_format=torch.channels_last)
    return TrainedModel(network, described, classifier, tensors.get(SHIFT))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
