"""Which training images an epoch shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hml_core.errors import ConfigError, said
from hml_core.system import fingerprints, registries

SAMPLERS = {
    "instance": "every image once",
    "class_balanced": "every class equally often",
    "square_root": "classes in proportion to the square root of their images",
    "progressive": "from instance to class-balanced over the run",
}
BUILT_IN = dict(SAMPLERS)
_OWN: dict[str, Callable[..., np.ndarray]] = {}
registries.add("sampler", SAMPLERS, BUILT_IN, {"SAMPLERS"}, lambda name: function_of(name))


def register(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Decorator: make a sampler available under its function's name.

    ``function(counts (C,), progress) -> probabilities (C,)`` says how probable each class is to be drawn
    at the fraction ``progress`` of the run; the image is then one of that class.

    Raises
    ------
    ConfigError
        For a name of this package's, or a function that gives no probabilities.
    """
    name = getattr(function, "__name__", "<lambda>")
    if not name.isidentifier() or name in BUILT_IN:
        raise ConfigError(
            f"Expected a sampler to be a function with a name of its own, got {name!r}."
        )
    counts = np.array([9.0, 5.0, 2.0])
    with fingerprints.unchanged(function, f"The sampler {name!r}"):
        for progress in (0.0, 0.5, 1.0):
            _probabilities(name, function, counts, progress)
    _OWN[name] = function
    SAMPLERS[name] = (function.__doc__ or "one's own").strip().partition("\n")[0]
    return function


def _probabilities(
    name: str, function: Callable[..., np.ndarray], counts: np.ndarray, progress: float
) -> np.ndarray:
    """Those of a sampler of one's own, float64 (C,); ConfigError for what are none."""
    try:
        found = np.asarray(function(counts.copy(), progress), dtype=np.float64)
    except Exception as error:  # whatever somebody's own code raises
        raise ConfigError(f"The sampler {name!r} does not work: {said(error)}") from error
    if found.shape != counts.shape or not (found >= 0).all() or not np.isclose(found.sum(), 1):
        raise ConfigError(
            f"Expected the sampler {name!r} to give one probability for each class ({len(counts)}), which "
            f"sum to 1, at progress {progress:g}, got {found.tolist()}."
        )
    return found


@registries.asks("sampler")
def function_of(name: str) -> Callable[..., np.ndarray]:
    """The function of a sampler of one's own."""
    return _OWN[name]


@registries.asks("sampler")
def sampling_probabilities(
    counts: Sequence[int] | np.ndarray, scheme: str, progress: float = 0.0
) -> np.ndarray:
    """Probability of drawing each class, float64 (C,).

    p_c ∝ n_c^q with q = 1 (instance), 1/2 (square root) or 0 (class-balanced); progressive is
    (1 − t)·p_instance + t·p_class_balanced at the fraction t of the run. Source: Kang et al.,
    "Decoupling representation and classifier" (ICLR 2020), equations 1 and 2.

    Raises
    ------
    ValueError
        For an unknown scheme, progress outside [0, 1] or counts without any image.

    Examples
    --------
    >>> sampling_probabilities([30, 10], "progressive", progress=0.5)
    array([0.625, 0.375])
    """
    counts = np.asarray(counts, dtype=np.float64)
    if scheme not in SAMPLERS:
        raise ValueError(f"Expected `scheme` to be one of {', '.join(SAMPLERS)}, got {scheme!r}.")
    if not 0 <= progress <= 1:
        raise ValueError(f"Expected 0 ≤ `progress` ≤ 1, got {progress}.")
    if (counts < 0).any() or not counts.sum() > 0:
        raise ValueError(f"Expected counts ≥ 0 with at least one image, got {counts.tolist()}.")
    if scheme in _OWN:
        return _probabilities(scheme, _OWN[scheme], counts, progress)
    present = counts > 0
    instance = counts / counts.sum()
    balanced = present / present.sum()
    if scheme == "instance":
        return instance
    if scheme == "class_balanced":
        return balanced
    if scheme == "square_root":
        return np.sqrt(counts) / np.sqrt(counts).sum()
    return (1 - progress) * instance + progress * balanced


def epoch_indices(
    targets: Tensor,
    scheme: str = "instance",
    *,
    generator: torch.Generator,
    num_samples: int | None = None,
    progress: float = 0.0,
) -> Tensor:
    """Indices of the images of one epoch, int64 (num_samples,), on the device of ``targets``.

    Parameters
    ----------
    targets : Tensor
        int64 (N,).
    scheme : str
        A name of :data:`SAMPLERS`. "instance" is a permutation; the others draw with replacement: a
        class first, then one of its images, each with the same probability.
    generator : torch.Generator
        On the same device.
    num_samples : int, optional
        Default N; "instance" takes no more than N.
    progress : float
        Fraction of the run that has passed, for "progressive".

    Raises
    ------
    ValueError
        See :func:`sampling_probabilities`; also for ``num_samples`` out of range.
    """
    number = len(targets)
    samples = number if num_samples is None else num_samples
    if samples < 1 or (scheme == "instance" and samples > number):
        raise ValueError(f"Expected 1 ≤ `num_samples` ≤ {number}, got {samples}.")
    if scheme == "instance":
        return torch.randperm(number, generator=generator, device=targets.device)[:samples]
    counts = torch.bincount(targets)
    probabilities = sampling_probabilities(counts.cpu().numpy(), scheme, progress)
    classes = torch.multinomial(
        torch.from_numpy(probabilities).to(targets.device), samples, True, generator=generator
    )
    # Sorting by class puts the images of class c at starts[c] … starts[c] + counts[c] − 1.
    members = torch.argsort(targets, stable=True)
    starts = counts.cumsum(0) - counts
    share = torch.rand(samples, generator=generator, device=targets.device, dtype=torch.float64)
    within = (share * counts[classes]).long()
    return members[starts[classes] + within]
