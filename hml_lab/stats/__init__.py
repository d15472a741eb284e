"""Intervals and tests for few seeds: Student's t, paired by seed, corrected for their number.

An interval over seeds covers the chance in training, and another draw of the training subset where
``subset_seed`` follows the seed. It does not cover another draw of the test images: :func:`over_images`
does. None covers another data set.

"Not significant" is not "the same": that is said only by :func:`equivalence`, within a margin.
"""

from hml_lab.stats.bootstraps import (
    bootstrap_interval,
    class_means_bootstrap,
    cluster_bootstrap,
    stratified_bootstrap,
)
from hml_lab.stats.every_pair import all_pairs
from hml_lab.stats.images import balanced_mean, image_error, over_images, tail_of_sum
from hml_lab.stats.paired import (
    equivalence,
    holm,
    mean_interval,
    paired_difference,
    sd_interval,
    welch,
)
from hml_lab.stats.power import minimum_detectable
from hml_lab.stats.values import Difference, Equivalence, Interval, mean

__all__ = [
    "Difference",
    "Equivalence",
    "Interval",
    "all_pairs",
    "balanced_mean",
    "bootstrap_interval",
    "class_means_bootstrap",
    "cluster_bootstrap",
    "equivalence",
    "holm",
    "image_error",
    "mean",
    "mean_interval",
    "minimum_detectable",
    "over_images",
    "paired_difference",
    "sd_interval",
    "stratified_bootstrap",
    "tail_of_sum",
    "welch",
]
