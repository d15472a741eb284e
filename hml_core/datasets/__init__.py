"""Data sets by name, with the defaults that suit them.

A data set registers itself in its own file, as a :class:`DatasetInfo` made of a function
``load(config, data_root) → Splits``: a new one is that file, one import here and, where images have to be
made ready first, a part of :mod:`data_prep`. :func:`register` adds one from outside of the package, too.
"""

from hml_core.datasets import digits, cifar, imagefolder, isic, inaturalist, folder  # isort: skip (as they are listed)
from hml_core.datasets.base import (
    EvaluationSet,
    LabelledFiles,
    LabelledImages,
    Splits,
    make_long_tailed,
)
from hml_core.datasets.registry import (
    BUILT_IN,
    DATASETS,
    DatasetInfo,
    departures,
    info,
    is_built_in,
    is_subset,
    load,
    register,
)
from hml_core.errors import DataError

__all__ = [
    "BUILT_IN",
    "DATASETS",
    "DataError",
    "DatasetInfo",
    "EvaluationSet",
    "LabelledFiles",
    "LabelledImages",
    "Splits",
    "cifar",
    "departures",
    "digits",
    "folder",
    "imagefolder",
    "inaturalist",
    "info",
    "is_built_in",
    "is_subset",
    "isic",
    "load",
    "make_long_tailed",
    "register",
]

BUILT_IN.update(DATASETS)
