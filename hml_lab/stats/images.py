"""Other test images as well as other seeds: Student's t convolved with the images' normal error."""

from __future__ import annotations

import functools

import numpy as np
import scipy

from hml_lab.stats.values import Difference, Equivalence, as_values, check_confidence, mean

POINTS = 3001  # of a convolution


def over_images(
    seed_values,
    image_sd: float,
    *,
    margin: float | None = None,
    confidence: float = 0.95,
) -> Difference | Equivalence:
    """A mean over seeds whose interval covers both another seed and another draw of test images.

    Its error is the sum of two: Student's t of n − 1 degrees of freedom for the seeds, and a normal one
    for the images. Their distribution is convolved numerically (:func:`tail_of_sum`), without draws: the
    ends have no noise of their own. With the images fixed that is :func:`mean_interval`; with many seeds,
    the normal interval over images. Resampling three seeds instead, as a plain hierarchical bootstrap
    does, is too narrow by a factor of 2. What seeds and images do together counts twice: the interval is
    a little wide.

    Parameters
    ----------
    seed_values : float (n,)
        The statistic of each seed on all test images, n ≥ 2.
    image_sd : float
        The standard error of their mean that the draw of the test images leaves (:func:`image_error`).
    margin : float, optional
        Asks for the equivalence within it, at level (1 − ``confidence``), instead of the difference.

    Examples
    --------
    >>> found = over_images([1.0, 2.0, 3.0], 0.5)
    >>> f"{found.difference:.1f} [{found.low:.2f}, {found.high:.2f}]"
    '2.0 [-0.63, 4.63]'
    """
    check_confidence(confidence)
    own = as_values(seed_values, "seed_values", 2)
    if not 0 <= image_sd < np.inf:
        raise ValueError(f"Expected `image_sd` ≥ 0 and finite, got {image_sd}.")
    n, sd, middle = len(own), float(own.std(ddof=1)), mean(own)
    errors = sd / np.sqrt(n), image_sd, n - 1
    half = _half_width(*errors, (1 - confidence) / 2 if margin is None else 1 - confidence)
    low, high = middle - half, middle + half
    if margin is None:
        return Difference(middle, sd, low, high, 2 * tail_of_sum(abs(middle), *errors), n)
    p_value = tail_of_sum(margin - abs(middle), *errors)
    return Equivalence(middle, low, high, margin, p_value, 1 - confidence, n)


def tail_of_sum(above: float, t_scale: float, normal_sd: float, degrees: int) -> float:
    """P(``t_scale``·T + ``normal_sd``·Z > ``above``), T of Student's t and Z normal, independent.

    The trapezoid rule, whose error vanishes faster than any power of the step for such integrands: over Z
    where T scatters more, else over T, spread out by a hyperbolic sine.

    >>> round(tail_of_sum(4.302653, 1.0, 0.0, 2), 6), round(tail_of_sum(1.959964, 0.0, 1.0, 2), 6)
    (0.025, 0.025)
    """
    if t_scale == normal_sd == 0:
        return float(above < 0) + 0.5 * float(above == 0)
    if t_scale >= normal_sd:
        z, mass = _normal_points()
        return float(mass @ scipy.special.stdtr(degrees, (normal_sd * z - above) / t_scale))
    t, mass = _t_points(degrees)
    return float(mass @ scipy.special.ndtr((t_scale * t - above) / normal_sd))


@functools.cache
def _normal_points() -> tuple[np.ndarray, np.ndarray]:
    z, step = np.linspace(-9, 9, POINTS // 5, retstep=True)
    return z, step * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@functools.cache
def _t_points(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    # The density falls as t to the power −1 − degrees, so that e³⁰ is far enough.
    place, step = np.linspace(-30, 30, POINTS, retstep=True)
    t = np.sinh(place)
    return t, step * np.exp(scipy.stats.t.logpdf(t, degrees)) * np.cosh(place)


def _half_width(t_scale: float, normal_sd: float, degrees: int, tail: float) -> float:
    """Where the upper tail of the symmetric sum of :func:`tail_of_sum` is ``tail``, less than a half."""
    if t_scale == normal_sd == 0:
        return 0.0
    wide = scipy.stats.t.isf(tail, degrees) * t_scale + scipy.stats.norm.isf(tail) * normal_sd
    while tail_of_sum(wide, t_scale, normal_sd, degrees) > tail:
        wide *= 2
    return float(
        scipy.optimize.brentq(
            lambda x: tail_of_sum(x, t_scale, normal_sd, degrees) - tail, 0, wide, rtol=1e-9
        )
    )


def balanced_mean(values: np.ndarray, targets) -> np.ndarray:
    """Mean over classes of the mean over their images, float64 (n,), of values (n, N)."""
    values, targets = np.asarray(values, dtype=float), np.asarray(targets)
    classes = [values[:, targets == label].mean(axis=1) for label in np.unique(targets)]
    return np.mean(classes, axis=0)


def image_error(values: np.ndarray, targets) -> float:
    """Standard error of the balanced mean over all rows that another draw of the test images leaves.

    Every class keeps its number of images: √(Σ_c s_c² / N_c) / C, where s_c is the standard deviation
    over the N_c images of a class of their mean over the rows; a class of one image says nothing of its
    scatter and adds none. The square root of what a bootstrap of the images of each class would find,
    without its draws. The mean over many images is normal enough: ten a class and ten classes do.

    Parameters
    ----------
    values : float (n, N)
        1 where a network is right, 0 where not; or a difference of two networks.
    targets : int (N,)
    """
    each, targets = np.asarray(values, dtype=float).mean(axis=0), np.asarray(targets)
    labels = np.unique(targets)
    members = (each[targets == label] for label in labels)
    variances = [own.var(ddof=1) / len(own) for own in members if len(own) > 1]
    return float(np.sqrt(np.sum(variances)) / len(labels))
