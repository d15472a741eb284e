"""An executed notebook as pages show it: what it says of itself, and its cells without what runs.

Whoever made the file, and whatever is wrong with it, there is something to show: what cannot be shown is
replaced by a notice that says why, in its place.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hml_core.system import files, images
from hml_lab.notebooks import outputs, safe_html

THUMBNAIL_WIDTH = 640
KEY_ROW_CELLS = 6
NOTHING = "cannot be shown"
NOT_EXECUTED = "not executed"
# A cell that stands for text or for a notice: its source is not shown.
TEXT = "remove-input"
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


@dataclass
class Executed:
    """One executed notebook: ``content`` is safe to show (see :func:`shown`)."""

    name: str
    title: str
    purpose: str = ""
    status: str = outputs.DONE
    notice: str = ""
    date: str = ""
    duration: str = ""
    commit: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    key_row: dict[str, str] = field(default_factory=dict)
    thumbnail: str = ""
    content: nbformat.NotebookNode = field(default_factory=new_notebook)


def read(path: str | Path) -> Executed:
    """An executed notebook; where the file is none, its ``notice`` says what it is instead."""
    path = Path(path)
    name = os.fsencode(path.name).decode("utf-8", "replace").removesuffix(".ipynb")
    try:
        shaped = _shaped(_content(path))
        # (A file may hold halves of characters, which no page can.)
        whole = json.dumps(shaped, ensure_ascii=False).encode("utf-8", "replace")
        content = nbformat.from_dict(json.loads(whole))
    except Exception as error:  # decoders, validators and converters raise errors of all kinds
        reason = f"It is not a Jupyter notebook: {_short(error)}"
        return Executed(name, name, status=NOTHING, notice=reason)
    try:
        return _described(path, name, content)
    except Exception as error:  # whatever a stranger's file holds, the others are shown
        return Executed(name, name, status=NOTHING, notice=f"It cannot be shown: {_short(error)}")


def _content(path: Path) -> Any:
    """What the file holds, in the present format if in any; nbformat's validators want it faultless."""
    content = json.loads(files.read_text(path, files.LARGEST_TABLE))
    version = content.get("nbformat") if isinstance(content, dict) else None
    if version == 4 or not isinstance(version, int):
        return content
    return outputs.parsed(path)


def _described(path: Path, name: str, content: nbformat.NotebookNode) -> Executed:
    title, purpose = _heading(content, name)
    results = [output for cell in content.cells for output in cell.get("outputs", [])]
    if not results:
        reason = f"It was not executed: `hml run {path}` does it."
        return Executed(name, title, purpose, status=NOT_EXECUTED, notice=reason)
    record = outputs.record(content) or outputs.record_of_papermill(content)
    has_times = {"started", "seconds"} <= {*record}
    return Executed(
        name=name,
        title=title,
        purpose=purpose,
        status=outputs.status(content),
        date=record["started"][:16].replace("T", " ") + " UTC" if has_times else "",
        duration=_duration(record["seconds"]) if has_times else "",
        commit=str(record.get("git_commit") or "")[:10],
        parameters=record.get("parameters", {}),
        key_row=_key_row(results),
        thumbnail=_thumbnail(results),
        content=shown(content, title),
    )


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


# What any file may lack ---------------------------------------------------------------------------


def _shaped(content: Any) -> dict[str, Any]:
    """A notebook with every part that the format asks for, of the type that it asks for."""
    if not isinstance(content, Mapping) or not isinstance(content.get("cells"), list):
        raise ValueError("there are no cells in it")
    cells = [_shaped_cell(cell) for cell in content["cells"] if isinstance(cell, Mapping)]
    metadata = content.get("metadata")
    return {
        "nbformat": 4,
        "nbformat_minor": 4,
        "metadata": dict(metadata) if isinstance(metadata, Mapping) else {},
        "cells": cells,
    }


def _shaped_cell(cell: Mapping) -> dict[str, Any]:
    kind = cell.get("cell_type")
    metadata = cell.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
    tags = metadata.get("tags")
    metadata["tags"] = [str(tag) for tag in tags] if isinstance(tags, list) else []
    if not isinstance(metadata.get("papermill", {}), Mapping):
        del metadata["papermill"]
    shaped = {
        "cell_type": kind if kind in ("code", "markdown") else "raw",
        "metadata": metadata,
        "source": _text(cell.get("source")),
    }
    if kind == "code":
        given = cell.get("outputs")
        given = given if isinstance(given, list) else []
        shaped["outputs"] = [
            _shaped_output(output) for output in given if isinstance(output, Mapping)
        ]
        count = cell.get("execution_count")
        shaped["execution_count"] = count if isinstance(count, int) else None
    attachments = cell.get("attachments")
    if isinstance(attachments, Mapping):
        shaped["attachments"] = dict(attachments)
    return shaped


def _shaped_output(output: Mapping) -> dict[str, Any]:
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": "stream", "name": name, "text": _text(output.get("text"))}
    if kind == "error":
        lines = output.get("traceback")
        return {
            "output_type": "error",
            "ename": _text(output.get("ename")),
            "evalue": _text(output.get("evalue")),
            "traceback": [_text(line) for line in lines] if isinstance(lines, list) else [],
        }
    data, metadata = output.get("data"), output.get("metadata")
    return {
        "output_type": "display_data",
        "data": dict(data) if isinstance(data, Mapping) else {},
        "metadata": dict(metadata) if isinstance(metadata, Mapping) else {},
    }


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(item for item in value if isinstance(item, str))
    return "" if value is None else str(value)


# What it says of itself ---------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    if isinstance(seconds, bool) or not 0 <= seconds < math.inf:
        return "an unknown time"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _heading(content: nbformat.NotebookNode, default: str) -> tuple[str, str]:
    """The title and the **Makes:** paragraph of a notebook's first text."""
    text = next((cell.source for cell in content.cells if cell.cell_type == "markdown"), "")
    title = re.search(r"^# +(.+)$", text, re.M)
    purpose = re.search(r"\*\*Makes:\*\* *(.+?)(?:\n\n|$)", text, re.S)
    plain = re.sub(r"[*`]", "", purpose[1]) if purpose else ""
    return (title[1].strip() if title else default), " ".join(plain.split())


def _key_row(results: list) -> dict[str, str]:
    for output in results:
        told = output.get("metadata", {}).get("hml_core")
        row = told.get("key_row") if isinstance(told, Mapping) else None
        try:
            if row:
                return {str(name): str(value) for name, value in row[:KEY_ROW_CELLS]}
        except (TypeError, ValueError):
            continue
    return {}


def _thumbnail(results: list) -> str:
    """The first figure as base64 of a smaller PNG; empty without one."""
    for output in results:
        data = output.get("data", {}).get("image/png")
        try:
            image = images.decode(base64.b64decode(data or ""))
        except (images.ImageError, ValueError, TypeError):  # no figure that one can look at
            continue
        image.thumbnail((THUMBNAIL_WIDTH, 4 * THUMBNAIL_WIDTH))
        buffer = io.BytesIO()
        image.quantize(64).save(buffer, format="PNG", optimize=True)
        return base64.b64encode(buffer.getvalue()).decode()
    return ""


# Its cells ----------------------------------------------------------------------------------------


def shown(content: nbformat.NotebookNode, title: str) -> nbformat.NotebookNode:
    """The notebook as pages show it: headings, code, and outputs that are plain text or safe HTML.

    Markdown becomes headings and, between them, HTML outputs of cells tagged ``remove-input``; of each
    output the best form stays that needs no script; metadata, which may give orders to what builds the
    pages, go. So nothing of a stranger's file is read as anything but code to colour, text and HTML
    that :func:`hml_lab.notebooks.safe_html.sanitised` let through.
    """
    heading = title
    cells = []
    for cell in content.cells:
        try:
            if cell.cell_type == "markdown":
                parts, heading = _markdown(cell, heading)
                cells += parts
            elif cell.cell_type == "code":
                cells.append(_code(cell, heading))
            elif cell.source.strip():
                cells.append(html_cell(f"<pre>{escape(cell.source)}</pre>"))
        except Exception as error:  # one bad cell is a notice
            cells.append(_notice(f"A cell cannot be shown: {_short(error)}"))
    if not any(_is_heading(cell, 1) for cell in cells[:1]):
        cells.insert(0, new_markdown_cell(f"# {plain(title)}"))
    shown = new_notebook(cells=cells, metadata={"language_info": _language(content.metadata)})
    for number, cell in enumerate(shown.cells):
        cell.id = f"cell-{number}"
    return shown


def _language(metadata: Mapping) -> dict[str, str]:
    """What the code is coloured as."""
    told = metadata.get("language_info")
    name = _text(told.get("name")) if isinstance(told, Mapping) else "python"
    lexer = "python" if name in ("", "python") else "text"
    return {"name": name or "python", "pygments_lexer": lexer}


def _is_heading(cell: nbformat.NotebookNode, level: int) -> bool:
    return cell.cell_type == "markdown" and cell.source.startswith("#" * level + " ")


def plain(text: str) -> str:
    r"""A heading's text with formulas and code; everything else that means something is escaped.

    A formula stands in backticks, as code does: who reads dollars otherwise than this (before a backslash,
    a digit) would take what is between them for HTML.

    >>> print(plain("The *loss* $L_f$ <b>of</b> `x_1`"))
    The loss {math}`L_f` \<b\>of\</b\> `x_1`
    """
    parts = re.split(r"(\$[^$`]+\$|`[^`{}]+`)", " ".join(text.split()))
    for at, part in enumerate(parts):
        if at % 2 == 0:
            parts[at] = escaped(re.sub(r"\*\*|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)", "", part))
        elif part.startswith("$"):
            parts[at] = f"{{math}}`{part[1:-1].strip()}`" if part[1:-1].strip() else escaped(part)
    return "".join(parts)


def escaped(text: str) -> str:
    r"""A text as Markdown in which no sign means anything, nor a line's end.

    >>> print(escaped("a_b\n==="))
    a\_b ===
    """
    return re.sub(r"([\\`*_{}\[\]<>$&#!|~^%@])", r"\\\1", re.sub(r"\s*[\r\n]\s*", " ", text))


def _markdown(cell: nbformat.NotebookNode, heading: str) -> tuple[list, str]:
    """The headings of a Markdown cell, what stands between them as HTML, and the last heading."""
    parts, lines, fence = [], [], ""

    def flush() -> None:
        text = "\n".join(lines)
        lines.clear()
        if text.strip():
            parts.append(html_cell(safe_html.from_markdown(text, cell.get("attachments"))))

    for line in cell.source.splitlines():
        if found := _FENCE.match(line):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence):
                fence = ""
        found = None if fence else _HEADING.match(line)
        if found is None:
            lines.append(line)
            continue
        flush()
        heading = found[2]
        parts.append(new_markdown_cell(f"{found[1]} {plain(heading)}"))
    flush()
    return parts, heading


def html_cell(html: str) -> nbformat.NotebookNode:
    """A cell of which nothing but this HTML is shown."""
    output = new_output("display_data", {"text/html": html})
    # (MyST-NB leaves out cells without a source.)
    return new_code_cell("# text", metadata={"tags": [TEXT]}, outputs=[output])


def _notice(text: str) -> nbformat.NotebookNode:
    return html_cell(f"<p><strong>{escape(text)}</strong></p>")


def _code(cell: nbformat.NotebookNode, heading: str) -> nbformat.NotebookNode:
    results = []
    for output in cell.outputs:
        if output.output_type == "stream":
            last = results[-1] if results else {}
            if last.get("output_type") == "stream" and last["name"] == output.name:
                last["text"] += output.text
            else:
                results.append(new_output("stream", name=output.name, text=output.text))
        elif output.output_type == "error":
            told = {name: output[name] for name in ("ename", "evalue", "traceback")}
            results.append(new_output("error", **told))
        elif data := _best(output, heading):
            results.append(new_output("display_data", data))
    has_source = bool(cell.source.strip())
    return new_code_cell(
        cell.source if has_source else "# nothing",
        execution_count=cell.execution_count,
        metadata={"tags": ["hide-input" if has_source else TEXT]},
        outputs=results,
    )


def _best(output: nbformat.NotebookNode, heading: str) -> dict[str, str]:
    """An output in the form that shows most without a script; empty for one that shows nothing."""
    data = output.data
    damaged = ""
    for mime in sorted(safe_html.PICTURES & set(data), key=lambda mime: mime == "image/svg+xml"):
        try:
            source = safe_html.embedded(mime, _text(data[mime]))
        except (ValueError, images.ImageError) as error:
            damaged = f"A picture cannot be shown: {error}"
            continue
        told = output.metadata.get(mime)
        told = told if isinstance(told, Mapping) else {}
        alt = escape(_text(told.get("alt")) or f"Figure: {heading}")
        width = told.get("width")
        size = f' width="{width}"' if isinstance(width, int) else ""
        return {"text/html": f'<img src="{source}" alt="{alt}"{size}>'}
    widget = any("widget" in mime for mime in data)
    if not widget and (html := safe_html.sanitised(_text(data.get("text/html")))).strip():
        return {"text/html": html}
    for mime in ("text/markdown", "text/latex"):
        if mime in data and (html := safe_html.from_markdown(_text(data[mime]))).strip():
            return {"text/html": html}
    if damaged:
        return {"text/html": f"<p><strong>{escape(damaged)}</strong></p>"}
    if "text/plain" in data:
        return {"text/plain": _text(data["text/plain"])}
    if data and not set(data) <= {"text/html", "application/javascript"}:
        kinds = ", ".join(sorted(map(str, data)))
        return {"text/plain": f"[an output that needs a script: {kinds}]"}
    return {}


def facts(notebook: Executed) -> str:
    """When, in how long, with which code and parameters: one line of text."""
    given = ", ".join(f"{name} = {json.dumps(v)}" for name, v in notebook.parameters.items())
    parts = [
        f"executed {notebook.date}, in {notebook.duration}" if notebook.date else "",
        f"commit {notebook.commit}" if notebook.commit else "",
        f"parameters: {given}" if given else "the notebook's own parameters",
    ]
    return "; ".join(part for part in parts if part)
