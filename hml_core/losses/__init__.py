"""The losses of the three papers and of the methods they compare with, one file each.

:func:`register` adds one's own.

>>> sorted(LOSSES)[:3]
['balanced_hard_mining', 'balanced_softmax', 'cross_entropy']
"""

from hml_core.losses.balanced_hard_mining import BalancedHardMiningLoss
from hml_core.losses.balanced_softmax import BalancedSoftmaxLoss
from hml_core.losses.base import ClassificationLoss
from hml_core.losses.cross_entropy import CrossEntropyLoss
from hml_core.losses.focal import FocalLoss
from hml_core.losses.hard_mining import (
    HardMiningLoss,
    hard_mining_factor,
    hard_mining_value,
    outlier_cut,
)
from hml_core.losses.influence_balanced import InfluenceBalancedLoss
from hml_core.losses.ldam import LDAMLoss
from hml_core.losses.logit_adjusted import LogitAdjustedLoss
from hml_core.losses.registry import BUILT_IN, LOSSES, register

__all__ = [
    "BUILT_IN",
    "LOSSES",
    "BalancedHardMiningLoss",
    "BalancedSoftmaxLoss",
    "ClassificationLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "HardMiningLoss",
    "InfluenceBalancedLoss",
    "LDAMLoss",
    "LogitAdjustedLoss",
    "hard_mining_factor",
    "hard_mining_value",
    "outlier_cut",
    "register",
]
