"""A gallery of executed notebooks: static HTML pages that need neither network nor scripts.

Each page is one file: figures are embedded, formulas are MathML, and its content security policy lets it
load nothing and run nothing. The index shows of each notebook the first figure, what it makes, its key
row (see :func:`hml_lab.notebooks.show_table`), when it was executed and with which parameters.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from hml_core.errors import ConfigError
from hml_core.system import files, images
from hml_lab.notebooks import outputs

TEMPLATES = Path(__file__).parent / "templates"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
THUMBNAIL_WIDTH = 640
KEY_ROW_CELLS = 6


@dataclass
class Page:
    """One executed notebook, as the index shows it."""

    file: str
    title: str
    purpose: str
    status: str
    body: str
    date: str = ""
    duration: str = ""
    commit: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    key_row: dict[str, str] = field(default_factory=dict)
    thumbnail: str = ""


def build(notebooks: Sequence[str | Path], folder: str | Path, title: str = "Results") -> Path:
    """Write the gallery of executed notebooks.

    Parameters
    ----------
    notebooks : sequence of paths
        Executed notebooks, in the order of the index.
    folder : path
        Where ``index.html`` and one page per notebook go. Pages of notebooks that are not named stay.
    title : str
        Heading of the index.

    Returns
    -------
    pathlib.Path
        The index.

    Raises
    ------
    ConfigError
        For a file that is no notebook or was never executed, or two of the same name; nothing is
        written then.
    """
    paths = [Path(path) for path in notebooks]
    if not paths:
        raise ConfigError("No executed notebooks were given: `hml run` or `hml batch` makes some.")
    names = [path.stem for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1 or name == "index"}):
        raise ConfigError(f"Every page needs a file name of its own: {', '.join(twice)}.")
    pages = [_page(path) for path in paths]
    folder = Path(folder)
    files.require_writable(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    shared = {"policy": POLICY, "style": style}
    for page in pages:
        html = environment.get_template("page.html.j2").render(page=page, **shared)
        files.write_atomically(folder / page.file, html.lstrip())
    html = environment.get_template("index.html.j2").render(pages=pages, title=title, **shared)
    files.write_atomically(folder / "index.html", html.lstrip())
    return folder / "index.html"


def _page(path: Path) -> Page:
    try:
        content = outputs.parsed(path)
    except FileNotFoundError as error:
        raise ConfigError(f"There is no notebook {str(path)!r}.") from error
    except Exception as error:  # nbformat raises its validators' own errors
        raise ConfigError(f"{str(path)!r} is not a Jupyter notebook: {error}") from error
    shown = [output for cell in content.cells for output in cell.get("outputs", [])]
    if not shown:
        raise ConfigError(f"{str(path)!r} was not executed: `hml run {path}` does it.")
    record = outputs.record(content)
    title, purpose = _heading(content, path.stem)
    _describe_figures(content, title)
    body, _ = _Exporter().from_notebook_node(content)
    return Page(
        file=f"{path.stem}.html",
        title=title,
        purpose=purpose,
        status=outputs.status(content),
        body=body,
        date=record.get("started", "")[:16].replace("T", " ") + " UTC" if record else "",
        duration=_duration(record["seconds"]) if record else "",
        commit=(record.get("git_commit") or "")[:10],
        parameters=record.get("parameters", {}),
        key_row=_key_row(shown),
        thumbnail=_thumbnail(shown),
    )


def _duration(seconds: float) -> str:
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


def _describe_figures(content: nbformat.NotebookNode, title: str) -> None:
    """Give every figure the heading that it stands under as its alternative text."""
    heading = title
    for cell in content.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ +(.+)$", cell.source, re.M)
            heading = found[-1].strip() if found else heading
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.metadata.setdefault("image/png", {}).setdefault("alt", f"Figure: {heading}")


def _key_row(outputs: list) -> dict[str, str]:
    rows = [output.get("metadata", {}).get("hml_core", {}).get("key_row") for output in outputs]
    return dict(next((row for row in rows if row), [])[:KEY_ROW_CELLS])


def _thumbnail(outputs: list) -> str:
    """The first figure as base64 of a smaller PNG; empty without one."""
    for output in outputs:
        if data := output.get("data", {}).get("image/png"):
            try:
                image = images.decode(base64.b64decode(data))
            except (images.ImageError, ValueError):  # no figure that one can look at
                continue
            image.thumbnail((THUMBNAIL_WIDTH, 4 * THUMBNAIL_WIDTH))
            buffer = io.BytesIO()
            image.quantize(64).save(buffer, format="PNG", optimize=True)
            return base64.b64encode(buffer.getvalue()).decode()
    return ""


class _MathMLRenderer(IPythonRenderer):
    """Renders formulas as MathML, which browsers show without a script."""

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")


def _mathml(latex: str, display: str) -> str:
    from latex2mathml.converter import convert

    return convert(latex, display=display)


class _Exporter(HTMLExporter):
    """nbconvert's exporter with our template (code folded away) and MathML."""

    def __init__(self) -> None:
        super().__init__(template_name="hml_gallery", extra_template_basedirs=[str(TEMPLATES)])
        self.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)

    @jinja2.pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _MathMLRenderer(
            escape=False, attachments=attachments, exclude_anchor_links=True, **self.lexer_options
        )
        return MarkdownWithMath(renderer=renderer).render(source)
