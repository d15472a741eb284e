"""Tables of results: mean ± sd over seeds, and the paired difference to a baseline with its test."""

from hml_lab.tables.captions import caption, captioned, warnings
from hml_lab.tables.cells import (
    DERMOSCOPY_METRICS,
    LABELS,
    LOWER_IS_BETTER,
    METRICS,
    SELECTION_LABELS,
    in_print,
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
from hml_lab.tables.formats import to_csv, to_html, to_markdown, write
from hml_lab.tables.image_sets import against, bootstrap_intervals, on_set
from hml_lab.tables.latex import to_latex
from hml_lab.tables.literature import beside_author_runs, beside_published
from hml_lab.tables.methods import (
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
    "against",
    "all_pairs",
    "beside_author_runs",
    "beside_published",
    "bootstrap_intervals",
    "caption",
    "captioned",
    "collapsed",
    "comparison",
    "conclusion",
    "contrasts",
    "differences",
    "export_runs",
    "family",
    "in_print",
    "missing",
    "on_set",
    "over_images",
    "primary",
    "protocol",
    "selections",
    "summary",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
    "warnings",
    "write",
]
