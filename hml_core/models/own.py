"""One's own backbone: with a classifier behind it, tried out before a run relies on it, and watched in it.

Somebody's code may work on two images and fail on the last batch of an epoch, hold what no checkpoint
has, or let nothing be learned. What can be known of that beforehand, :func:`try_out` and :func:`try_sizes`
find out on copies; the rest is told, with the model's name, in the step in which it happens.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hml_core.errors import ConfigError, HmlError, RunError, raised_by_handler
from hml_core.models import heads
from hml_core.models.heads import Headed
from hml_core.system import devices, fingerprints, seeds

TRIED = (2, 3)  # images, in the two steps that a backbone is tried for
TRIAL_RATE = 0.01
LISTED = 3  # names, of many
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
CPU = torch.device("cpu")


class Backbone(Headed):
    """One's own backbone, which makes features (N, d) of images, with a classifier behind it.

    Parameters
    ----------
    backbone : nn.Module
        (N, channels, H, W) → (N, d); its attribute ``out_features`` is d.
    name : str
        By which errors name it.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, head: str, head_scale: float, name: str
    ) -> None:
        super().__init__()
        width = getattr(backbone, "out_features", None)
        if not isinstance(width, int):
            raise ConfigError(
                f"Expected the backbone {type(backbone).__name__} to have the attribute `out_features`, "
                f"the length of its features, got {width!r}."
            )
        self.name, self.width = name, width
        self.backbone = backbone
        self.linear = heads.build(head, width, num_classes, head_scale)

    def features(self, x: Tensor) -> Tensor:
        """The representation before the classifier: (N, channels, H, W) → (N, d).

        Raises
        ------
        RunError
            Where the backbone fails, or makes something else; of whatever it raises, with the place.
        """
        if torch.compiler.is_compiling():  # into a program, where there is nobody to tell
            return self.backbone(x)
        try:
            features = self.backbone(x)
        except (HmlError, *OUT_OF_MEMORY):
            raise
        except Exception as error:  # whatever somebody's own code raises
            raise RunError(
                f"The model {self.name!r} does not work on images of {_shape(x)}, {len(x)} at a time: "
                f"{fingerprints.told(error)}"
            ) from error
        wanted = (len(x), self.width)
        if not isinstance(features, Tensor) or features.shape != wanted:
            shape = getattr(features, "shape", None)
            got = type(features).__name__ if shape is None else tuple(shape)
            raise RunError(
                f"Expected the model {self.name!r} to make features of shape {wanted} out of {len(x)} "
                f"images of {_shape(x)}, got {got}."
            )
        if not features.is_floating_point():
            raise RunError(
                f"Expected the model {self.name!r} to make features that are floating-point numbers, got "
                f"{features.dtype}."
            )
        if self.training and torch.is_grad_enabled() and not features.requires_grad:
            self._require_trained()
        return features

    def _require_trained(self) -> None:
        """Features that depend on no parameter: ConfigError where some are to move."""
        if any(tensor.requires_grad for tensor in self.backbone.parameters()):
            raise RunError(_untrained(self.name))


def _untrained(name: str) -> str:
    return (
        f"Expected the model {name!r} to make features in training that its parameters can be trained by: "
        "no gradient reaches them (`detach`, `.data` or `torch.no_grad` stands in its way)."
    )


def _shape(images: Tensor) -> str:
    return " × ".join(map(str, images.shape[1:]))


class OwnModel:
    """What the registry of models holds of one's own backbone: a function like those of this package."""

    def __init__(self, backbone: Callable[..., nn.Module], name: str | None = None) -> None:
        self.backbone = backbone
        self.name = name or getattr(backbone, "__name__", None) or repr(backbone)

    def __call__(
        self,
        num_classes: int,
        head: str = "linear",
        *,
        in_channels: int = 3,
        head_scale: float = 1.0,
    ) -> Backbone:
        takes = inspect.signature(self.backbone).parameters
        if "in_channels" not in takes:
            raise ConfigError(
                f"Expected the backbone {self.name} to take `in_channels`, "
                f"it takes {', '.join(takes) or 'nothing'}."
            )
        backbone = self.backbone(in_channels=in_channels)
        return Backbone(backbone, num_classes, head, head_scale, self.name)


# Trials -------------------------------------------------------------------------------------------


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
        images = [_images(number, shape, CPU) for number in TRIED]
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
            model.train(number > 1).features(_images(number, shape, device))
        with torch.inference_mode():
            for number in sorted({*evaluated}):
                model.eval().features(_images(number, shape, device))


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
        raise ConfigError(
            f"The model {name!r} does not work: {fingerprints.told(error)}"
        ) from error


def _images(number: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Noise, laid out in memory as the images of a run are."""
    images = torch.randn(number, *shape, device=device)
    return images.contiguous(memory_format=torch.channels_last)


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
            f"The `state_dict` of the model {model.name!r} lacks {_listed(lacking)}: expected every "
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
        raise ConfigError(_untrained(model.name))


def _require_restorable(model: Backbone, other: Backbone, images: Tensor) -> None:
    """Another one with the state of the network computes what that one computes."""
    try:
        other.load_state_dict(model.state_dict())
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(
            f"The model {model.name!r} cannot be restored from its `state_dict`, as a run that goes on "
            f"and kept weights are: {fingerprints.told(error)}"
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


class Inventory:
    """The tensors of a network of one's own, to be compared with while it is trained.

    Parameters
    ----------
    model : Backbone
        As the optimiser was made for it.
    """

    def __init__(self, model: Backbone) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters())
        self.moving = {name for name, tensor in self.parameters.items() if tensor.requires_grad}
        self.state = _shapes(model)

    def require_same(self) -> None:
        """The parameters are those that the optimiser has.

        Raises
        ------
        RunError
            For one that was added, removed, replaced, or lets no gradient reach it any more.
        """
        now, before = dict(self.model.named_parameters()), self.parameters
        changed = {
            "was added": [name for name in now if name not in before],
            "was removed": [name for name in before if name not in now],
            "was replaced": [n for n in now if n in before and now[n] is not before[n]],
            "was given or denied gradients": [
                name for name in now if (name in self.moving) != now[name].requires_grad
            ],
        }
        for how, names in changed.items():
            if names:
                raise RunError(
                    f"The model {self.model.name!r} changed while it was trained: {_listed(names)} {how}. "
                    "Expected its parameters to stay what they were when it was made, for the optimiser "
                    "and checkpoints know no others."
                )

    def require_same_state(self) -> None:
        """Its ``state_dict`` has the same tensors as before.

        Raises
        ------
        RunError
        """
        now, before = _shapes(self.model), self.state
        if names := sorted(n for n in {*now, *before} if now.get(n) != before.get(n)):
            raise RunError(
                f"The `state_dict` of the model {self.model.name!r} changed while it was trained: "
                f"{_listed(names)} was added, removed or got another shape. Expected it to hold the same "
                "tensors throughout, or no checkpoint can be gone on from."
            )

    def require_no_memory(self, make: Callable[[], nn.Module], shape: tuple[int, int, int]) -> None:
        """A new network with the state of this one's backbone makes the same features, on the CPU.

        One that cannot be copied, or works on a GPU alone, is not looked at.

        Parameters
        ----------
        make : callable
            Makes a network anew.
        shape : tuple of int
            Channels, height and width of the images.

        Raises
        ------
        RunError
        """
        try:
            # What is dropped depends on the layout in memory.
            laid_out = {"device": CPU, "memory_format": torch.channels_last}
            used = copy.deepcopy(self.model.backbone).to(**laid_out)
            other = make().backbone.to(**laid_out)
            other.load_state_dict(used.state_dict())
            with seeds.seeded(0, "trial"):
                images = _images(TRIED[-1], shape, CPU)
            is_same = all(
                _agree(images, used.train(how), other.train(how)) for how in (True, False)
            )
        except Exception as error:  # whatever somebody's own code raises
            if raised_by_handler(error):
                raise
            return
        if not is_same:
            raise RunError(
                f"The model {self.model.name!r} makes other features than one that is restored from its "
                "`state_dict`: it keeps a state elsewhere (a counter, a generator), which no checkpoint "
                "holds, and a run that was killed would go on as another. Expected it in parameters and "
                "buffers."
            )


def _agree(images: Tensor, *backbones: nn.Module) -> bool:
    features = []
    for one in backbones:
        with seeds.seeded(0, "trial", everywhere=True), torch.no_grad():
            features.append(one(images))
    return torch.allclose(*features, rtol=1e-4, atol=1e-6, equal_nan=True)


def inventory(model: nn.Module) -> Inventory | None:
    """Of a network with one's own backbone; those of this package do not change."""
    return Inventory(model) if isinstance(model, Backbone) else None


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...] | None]:
    shapes = {name: getattr(value, "shape", None) for name, value in model.state_dict().items()}
    return {name: None if shape is None else tuple(shape) for name, shape in shapes.items()}


def _listed(names: list[str]) -> str:
    rest = len(names) - LISTED
    listed = ", ".join(map(repr, names[:LISTED]))
    return f"{listed} and {rest} more" if rest > 0 else listed
