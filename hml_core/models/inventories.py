"""What a network with one's own backbone holds, compared with what it held when training began."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hml_core.errors import RunError, raised_by_handler
from hml_core.models.own import Backbone
from hml_core.system import seeds

COMPARED = 3  # images, that two networks are to make the same features of
LISTED = 3  # names, of many
CPU = torch.device("cpu")


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
        self.state = _kinds(model)

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
                    f"The model {self.model.name!r} changed while it was trained: {listed(names)} {how}. "
                    "Expected its parameters to stay what they were when it was made, for the optimiser "
                    "and checkpoints know no others."
                )

    def require_same_state(self) -> None:
        """Its ``state_dict`` has the same tensors as before.

        Raises
        ------
        RunError
        """
        now, before = _kinds(self.model), self.state
        if names := sorted(n for n in {*now, *before} if now.get(n) != before.get(n)):
            raise RunError(
                f"The `state_dict` of the model {self.model.name!r} changed while it was trained: "
                f"{listed(names)} was added, removed or got another shape or kind of numbers. Expected it "
                "to hold the same tensors throughout, or no checkpoint can be gone on from."
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
                images = images_of(COMPARED, shape, CPU)
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


def _kinds(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype] | None]:
    """Shape and type of each tensor; None for what is none."""
    return {
        name: (value.shape, value.dtype) if isinstance(value, Tensor) else None
        for name, value in model.state_dict().items()
    }


def images_of(number: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Noise, laid out in memory as the images of a run are."""
    images = torch.randn(number, *shape, device=device)
    return images.contiguous(memory_format=torch.channels_last)


def listed(names: list[str]) -> str:
    rest = len(names) - LISTED
    listed = ", ".join(map(repr, names[:LISTED]))
    return f"{listed} and {rest} more" if rest > 0 else listed
