"""Tables of results: mean ± sd over seeds, and the paired difference to a baseline with its test."""

from hml_lab.tables.captions import caption, captioned
from hml_lab.tables.cells import (
    DERMOSCOPY_METRICS,
    LABELS,
    LOWER_IS_BETTER,
    METRICS,
    SELECTION_LABELS,
)
from hml_lab.tables.formats import to_csv, to_html, to_latex, to_markdown, write
from hml_lab.tables.image_sets import against, bootstrap_intervals, on_set
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
    "SELECTION_LABELS",
    "against",
    "beside_author_runs",
    "beside_published",
    "bootstrap_intervals",
    "caption",
    "captioned",
    "comparison",
    "conclusion",
    "differences",
    "export_runs",
    "missing",
    "on_set",
    "protocol",
    "selections",
    "summary",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
    "write",
]
