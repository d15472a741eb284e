"""Notebooks as they come: of other tools, cut off, damaged, and written by somebody who means ill."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

EVIL = "window.hml_ran = true"


def png() -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((200, 120)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def cell(kind: str, source: Any, **more: Any) -> dict:
    return {"cell_type": kind, "metadata": {}, "source": source, **more}


def code(source: str = "1", *outputs: Any, count: int | None = 1, **more: Any) -> dict:
    return cell("code", source, outputs=list(outputs), execution_count=count, **more)


def data(bundle: dict, **more: Any) -> dict:
    return {"output_type": "display_data", "metadata": {}, "data": bundle, **more}


SHOWN = data({"text/plain": "shown text"})


def notebook(*cells: Any, **metadata: Any) -> dict:
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": metadata,
        "cells": [*cells, code("2", SHOWN)],
    }


def text(source: str, **more: Any) -> dict:
    return notebook(cell("markdown", source, **more))


def output(bundle: dict, **more: Any) -> dict:
    return notebook(code("1", data(bundle, **more)))


WIDGET = "application/vnd.jupyter.widget-view+json"
RECORD = {
    "status": "done",
    "seconds": 1.0,
    "started": "2026-11-24T04:07:40+00:00",
    "parameters": {},
}
# Of each a page is made that shows "shown text"; nothing of it runs or is loaded.
SHOWABLE: dict[str, Any] = {
    "script in Markdown": text(f"<script>{EVIL}</script>\n\n<img src=x onerror='{EVIL}'>"),
    "unbalanced HTML": text("</div></div></article></main><table><tr><td>a"),
    "frame, form and link": text(
        f"<iframe src='https://a.invalid'></iframe><form><input autofocus onfocus='{EVIL}'></form>\n\n"
        f"[x](javascript:{EVIL}) <a href='jav&#x09;ascript:{EVIL}'>y</a> <base href='https://a.invalid/'>"
    ),
    "style sheet": text("<style>@import url(https://a.invalid/x.css); body {display: none}</style>"),
    "picture from elsewhere": text("![far](https://a.invalid/x.png) <img src='https://a.invalid/y.png'>"),
    "file of the machine": text("![](/etc/passwd) ![](../../x.png)\n\n```{include} /etc/passwd\n```\n\n"
                                "```{literalinclude} /etc/passwd\n```\n\n{download}`/etc/passwd`"),
    "orders to Sphinx": text("---\nmyst:\n  x: 1\n---\n\n(target)=\n\n% comment\n\n+++\n\n"
                             "{ref}`nothing`\n\n"
                             f"```{{raw}} html\n<script>{EVIL}</script>\n```\n\n[x](#nowhere) |sub|"),
    "orders to MyST-NB": notebook(mystnb={"execution_mode": "force"}, myst={"html_meta": 3}),
    "malformed LaTeX": text("$\\frac{1}$, $x_$ and $\\begin{foo}$\n\n"
                            "$$\\left( \\undefined{$$\n\n# T $\\frac{$"),
    "malformed LaTeX output": output({"text/latex": "$\\frac{$", "text/plain": "x"}),
    "missing attachment": text("![a](attachment:no.png)"),
    "odd attachments": text("![a](attachment:x.png)", attachments={"x.png": {"image/png": 3}}),
    "attachments of another kind": text("![a](attachment:x)", attachments=["x"]),
    "attachment of HTML": text("![a](attachment:x)", attachments={"x": {"text/html": "PHNjcmlwdD4="}}),
    "Colab widgets": notebook(code("1", data({WIDGET: {"model_id": "a"}, "text/plain": "Box()"})),
                              widgets={"application/vnd.jupyter.widget-state+json": {"a": {}}}),
    "script output": output({"application/javascript": EVIL, "text/html": f"<script>{EVIL}</script>"}),
    "SVG with a script": output({"image/svg+xml": f"<svg onload='{EVIL}'><script>{EVIL}</script></svg>"}),
    "damaged picture": output({"image/png": "!!!!", "text/plain": "a figure"}),
    "picture that is none": output({"image/png": base64.b64encode(b"hello").decode()}),
    "picture in lines": output({"image/png": [png()[:50], "\n", png()[50:]]}),
    "numbers for text": output({"text/plain": 3, "text/html": None}),
    "odd metadata": output({"image/png": png()}, metadata={"image/png": 3, "hml_core": {"key_row": 3}}),
    "stream of another name": notebook(code("1", {"output_type": "stream", "name": 3, "text": ["a", 1]})),
    "error without a traceback": notebook(code("1", {"output_type": "error"})),
    "output that is none": notebook(code("1", 3, {"output_type": "new kind"}, {})),
    "cells that are none": notebook(3, {}, {"cell_type": "heading"}, {"cell_type": "code"}),
    "tags that are none": notebook(cell("code", "1", outputs=None) | {"metadata": {"tags": 3}}),
    "metadata that is none": notebook(code() | {"metadata": []}),
    "record half written": notebook(hml_core={"status": "done", "seconds": "NaN"}),
    "record of something else": notebook(hml_core=[1], language_info="python", kernelspec=3),
    "record without a time": notebook(hml_core={**RECORD, "seconds": float("nan")}),
    "half a character": text("half \ud800 of one \x00 \x1b[31m"),
    "raw cell": notebook(cell("raw", f"<script>{EVIL}</script>")),
    "another language": notebook(language_info={"name": "julia", "pygments_lexer": "<b>"}),
    "old format": {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"metadata": {},
                   "cells": [{"cell_type": "code", "language": "python", "input": "1", "metadata": {},
                              "collapsed": False, "prompt_number": 1, "outputs": [
                                  {"output_type": "stream", "stream": "stdout",
                                   "text": "shown text"}]}]}]},
    "HTML without end": output({"text/html": "<div>" * 100_000, "text/plain": "x"}),
    "Markdown without end": text("<b>" * 100_000),
    "attributes without end": output({"text/html": f"<p {' '.join(f'a{n}' for n in range(100_000))}>"}),
    "deep headings": text("# A\n\n###### B\n\n#### C\n\nSetext\n======\n\n"
                          "# {toctree}`x` [a](b) | *c* <b>"),
}  # fmt: skip
# Of each a notice is made.
HOPELESS: dict[str, bytes] = {
    "empty": b"", "text": b"hello", "cut off": json.dumps(notebook()).encode()[:100],
    "a list": b"[]", "a number": b"3", "no cells": b'{"nbformat": 4, "nbformat_minor": 5}',
    "cells of another kind": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}',
    "bytes": bytes(range(256)), "the future": b'{"nbformat": 99, "cells": []}',
    "no version": b'{"cells": []}', "deep": b"[" * 5000,
    "not executed": json.dumps({**notebook(), "cells": [code()]}).encode(),
}  # fmt: skip
NAMES = ["a#b?c%41", "a b", "ä_1", "..x", "<b>&\"'", "index2", "*[x]*", "con{x}"]


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / f"{name}.ipynb"
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    return path
