"""Tables of results: mean ± sd over seeds, and the paired difference to a baseline with its test."""

from hml_lab.tables.cells import (
    DERMOSCOPY_METRICS,
    LABELS,
    LOWER_IS_BETTER,
    METRICS,
    SELECTION_LABELS,
    to_markdown,
)
from hml_lab.tables.contrasts import (
    REFERENCE,
    all_pairs,
    collapsed,
    contrasts,
    family,
    over_images,
    primary,
)
from hml_lab.tables.literature import beside_author_runs, beside_published
from hml_lab.tables.methods import (
    bootstrap_intervals,
    comparison,
    differences,
    export_runs,
    selections,
    summary,
)
from hml_lab.tables.statements import conclusion, missing, protocol

__all__ = [
    "DERMOSCOPY_METRICS",
    "LABELS",
    "LOWER_IS_BETTER",
    "METRICS",
    "REFERENCE",
    "SELECTION_LABELS",
    "all_pairs",
    "beside_author_runs",
    "beside_published",
    "bootstrap_intervals",
    "collapsed",
    "comparison",
    "conclusion",
    "contrasts",
    "differences",
    "export_runs",
    "family",
    "missing",
    "over_images",
    "primary",
    "protocol",
    "selections",
    "summary",
    "to_markdown",
]
