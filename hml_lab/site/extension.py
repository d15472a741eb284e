"""What Sphinx does not know of: formulas as MathML, and signs in docstrings that mean nothing there."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from hml_lab.notebooks.safe_html import mathml


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    # Before napoleon, which makes lists with stars.
    app.connect("autodoc-process-docstring", _plain_signs, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def _plain_signs(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list) -> None:
    """A bar is an absolute value and a lone star a star: neither is reStructuredText."""
    for number, line in enumerate(lines):
        parts = re.split(r"(``.*?``)", line)
        for at in range(0, len(parts), 2):
            parts[at] = re.sub(r"(?<!\\)\||(?<=\S\s)\*(?=[\s\".,)])", r"\\\g<0>", parts[at])
        lines[number] = "".join(parts)
