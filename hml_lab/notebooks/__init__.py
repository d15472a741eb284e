"""Notebooks as programs: strict parameters, headless execution, batches, a gallery of the results.

A notebook's ``parameters`` cell is its interface: plain assignments of literals, each with a comment.
papermill would only warn about a parameter that the cell does not assign, and it passes a tuple on as
text; here both are errors.
"""

from hml_lab.notebooks.display import (
    delta_slider,
    save,
    save_frame,
    save_text,
    show,
    show_table,
    versions,
)
from hml_lab.notebooks.execution import execute
from hml_lab.notebooks.interface import Parameter, ParameterError, check_parameters, parameters

__all__ = [
    "Parameter",
    "ParameterError",
    "check_parameters",
    "delta_slider",
    "execute",
    "parameters",
    "save",
    "save_frame",
    "save_text",
    "show",
    "show_table",
    "versions",
]
