"""Copies of one's own backbone are trained and restored for two steps, before a run relies on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hml_core.errors import ConfigError, HmlError
from hml_core.models.inventories import CPU, Inventory, images_of, listed
from hml_core.models.own import OUT_OF_MEMORY, Backbone, untrained
from hml_core.system import devices, seeds, sources

TRIED = (2, 3)  # images, in the two steps that a backbone is tried for
TRIAL_RATE = 0.01


def try_out(make: Callable[[], nn.Module], name: str, shape: tuple[int, int, int]) -> None:
    """Train a copy of one's own backbone for two steps, restore another one from its state, compare.

    Parameters
    ----------
    make : callable
        Makes a network anew; nothing happens where it is none with one's own backbone.
    name : str
    shape : tuple of int
        Channels, height and width of the images.

    Raises
    ------
    ConfigError
        For a backbone that fails, makes no features (N, d), has parameters that only images make or
        that nothing trains, or whose ``state_dict`` does not hold what training changes.
    """
    with _apart(name, CPU):
        model = make()
        if not isinstance(model, Backbone):
            return
        _require_whole(model)
        before = Inventory(model)
        images = [images_of(number, shape, CPU) for number in TRIED]
        for some in images:
            model.eval().features(some)
        _train(model, images)
        before.require_same()
        before.require_same_state()
        _require_restorable(model, make(), images[-1])


def try_sizes(
    make: Callable[[], nn.Module],
    name: str,
    shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    trained: Iterable[int],
    evaluated: Iterable[int],
) -> None:
    """Let a copy of one's own backbone pass as many images at a time as a run will train and evaluate it
    with, on the run's device and under its autocast.

    Raises
    ------
    ConfigError
    """
    with _apart(name, device), devices.autocast(device, dtype):
        model = make()
        if not isinstance(model, Backbone):
            return
        model.to(device, memory_format=torch.channels_last)
        for number in sorted({*trained}):
            # Batch norm may refuse a single image in training, which is told elsewhere, better.
            model.train(number > 1).features(images_of(number, shape, device))
        with torch.inference_mode():
            for number in sorted({*evaluated}):
                model.eval().features(images_of(number, shape, device))


@contextlib.contextmanager
def _apart(name: str, device: torch.device) -> Iterator[None]:
    """What is drawn inside the block is drawn from nobody; what fails is an error of the config."""
    try:
        with seeds.seeded(0, "trial", device=device, everywhere=True):
            yield
    except (ConfigError, *OUT_OF_MEMORY):
        raise
    except HmlError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(f"The model {name!r} does not work: {sources.told(error)}") from error


def _require_whole(model: Backbone) -> None:
    """All tensors of the network are there before it sees images."""
    for name, tensor in model.named_parameters():
        if nn.parameter.is_lazy(tensor):
            raise ConfigError(
                f"The model {model.name!r} makes {name!r} of the first images that it sees (a lazy "
                "layer), which no seed of a run draws: expected it to have all parameters when it is made."
            )
    state = model.state_dict()
    held = {name for name, _ in model.named_parameters()} | {*_lasting_buffers(model)}
    if lacking := sorted(held - {*state}):
        raise ConfigError(
            f"The `state_dict` of the model {model.name!r} lacks {listed(lacking)}: expected every "
            "parameter and buffer in it, of which checkpoints and kept weights are made."
        )


def _lasting_buffers(model: nn.Module) -> Iterator[str]:
    for prefix, layer in model.named_modules():
        for name, tensor in layer._buffers.items():
            if tensor is not None and name not in layer._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name


def _train(model: Backbone, batches: list[Tensor]) -> None:
    """A step of training on each batch.

    Raises
    ------
    ConfigError
        Where they do not move the backbone.
    """
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=TRIAL_RATE)
    own = [tensor for tensor in model.backbone.parameters() if tensor.requires_grad]
    model.train()
    reached = False
    for images in batches:
        optimizer.zero_grad()
        logits = model.classifier(model.features(images)).float()
        classes = torch.arange(len(images)) % logits.shape[1]
        F.cross_entropy(logits, classes).backward()
        reached |= any(tensor.grad is not None and bool(tensor.grad.any()) for tensor in own)
        optimizer.step()
    if not reached:
        raise ConfigError(untrained(model.name))


def _require_restorable(model: Backbone, other: Backbone, images: Tensor) -> None:
    """Another one with the state of the network computes what that one computes."""
    try:
        other.load_state_dict(model.state_dict())
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(
            f"The model {model.name!r} cannot be restored from its `state_dict`, as a run that goes on "
            f"and kept weights are: {sources.told(error)}"
        ) from error

    def features(of: Backbone) -> Tensor:
        torch.manual_seed(0)
        with torch.no_grad():
            return of.eval().features(images)

    before = features(model)
    is_the_same = torch.allclose(before, features(other), rtol=1e-4, atol=1e-6, equal_nan=True)
    # One that draws in evaluation, too, from a stream of its own is never the same.
    if not is_the_same and torch.equal(before, features(model)):
        raise ConfigError(
            f"The model {model.name!r} makes other features once it is restored from its `state_dict`: "
            "expected all that training changes, and evaluation reads, to be a parameter or a buffer that "
            "it holds."
        )
