"""Notebooks as programs: strict parameters, headless execution, batches, a gallery of the results.

A notebook's ``parameters`` cell is its interface: plain assignments of literals, each with a comment.
papermill would only warn about a parameter that the cell does not assign, and it passes a tuple on as
text; here both are errors.
"""

import importlib

from hml_lab.notebooks.display import (
    delta_slider,
    save,
    save_frame,
    save_text,
    show,
    show_table,
    versions,
)

# What a cell never calls, and the module that has it: reading notebooks takes a second to import, which
# every kernel would pay.
_ON_DEMAND = {
    "Parameter": "interface",
    "ParameterError": "interface",
    "check_parameters": "interface",
    "execute": "execution",
    "parameters": "interface",
}

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


def __getattr__(name: str):
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
