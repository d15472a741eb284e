"""Notebooks as programs: strict parameters, headless execution, batches, a gallery of the results.

A notebook's ``parameters`` cell is its interface: plain assignments of literals, each with a comment.
papermill would only warn about a parameter that the cell does not assign, and it passes a tuple on as
text; here both are errors.
"""

import importlib
import sys

# jsonschema, with which nbformat validates, imports whatever it finds to check formats of text. This one
# makes a parser as it is imported, which takes a second; no notebook has such text.
sys.modules.setdefault("rfc3987_syntax", None)

# Each comes with its module when it is asked for: a kernel has no use for what reads notebooks, and what
# executes them none for torch and figures, which take seconds to import.
_MODULES = {
    "Parameter": "interface",
    "ParameterError": "interface",
    "check_parameters": "interface",
    "delta_slider": "display",
    "execute": "execution",
    "parameters": "interface",
    "save": "display",
    "save_frame": "display",
    "save_text": "display",
    "show": "display",
    "show_table": "display",
    "versions": "display",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in _MODULES.values():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
