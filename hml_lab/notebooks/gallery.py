"""Pages of executed notebooks, each one file without scripts that needs no network: to look at or to mail.

Figures are embedded, formulas are MathML, and a page's content security policy lets it load nothing and
run nothing. The index shows of each notebook the first figure, what it makes, its key row (see
:func:`hml_lab.notebooks.show_table`), when it was executed and with which parameters. A notebook that
cannot be shown is a notice there; the others are shown. (The documentation with the published notebooks,
search and the reference of the code is another thing: :mod:`hml_lab.site`.)
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor

from hml_core.errors import ConfigError
from hml_core.system import files
from hml_lab.notebooks import executed, safe_html

TEMPLATES = Path(__file__).parent / "templates"
INDEX = "index.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclass
class Page:
    """One file of the gallery."""

    file: str
    body: str
    notebook: executed.Executed

    @property
    def address(self) -> str:
        """The file as a link names it: ``#``, ``?`` and ``%`` mean something there."""
        return urllib.parse.quote(os.fsencode(self.file))


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
        Without a notebook, for a file that is not there, two of the same name, or a page of somebody
        else's in the folder; nothing is written then.
    """
    paths = [Path(path) for path in notebooks]
    if not paths:
        raise ConfigError("No executed notebooks were given: `hml run` or `hml batch` makes some.")
    if missing := [str(path) for path in paths if not path.exists()]:
        raise ConfigError(f"There is no notebook {', '.join(map(repr, missing))}.")
    names = [path.name.removesuffix(".ipynb") for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1 or name == "index"}):
        raise ConfigError(f"Every page needs a file name of its own: {', '.join(twice)}.")
    pages = [_page(path) for path in paths]
    folder = Path(folder)
    files.require_writable(folder, "folder for the gallery")
    for name in (INDEX, *(page.file for page in pages)):
        _require_ours(folder / name)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    shared = {"policy": POLICY, "style": style}
    for page in pages:
        html = environment.get_template("page.html.j2").render(
            page=page, notebook=page.notebook, **shared
        )
        files.write_atomically(folder / page.file, html.lstrip())
    html = environment.get_template("index.html.j2").render(pages=pages, title=title, **shared)
    files.write_atomically(folder / INDEX, html.lstrip())
    return folder / INDEX


def _require_ours(path: Path) -> None:
    """A page that is there may be written over: nobody else's pages allow just this (:data:`POLICY`)."""
    if not os.path.lexists(path):
        return
    try:
        is_ours = not path.is_symlink() and str(escape(POLICY)) in files.read_text(
            path, files.LARGEST_TABLE
        )
    except (OSError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"{str(path.parent)!r} holds {path.name!r} that was not made here: give another folder."
        )


def _page(path: Path) -> Page:
    notebook = executed.read(path)
    body = ""
    if not notebook.notice:
        try:
            body, _ = _Exporter().from_notebook_node(notebook.content)
        except Exception as error:  # the exporter's parts raise errors of all kinds
            notebook.status, notebook.notice = executed.NOTHING, f"It cannot be shown: {error}"
    return Page(f"{path.name.removesuffix('.ipynb')}.html", body, notebook)


class _Exporter(HTMLExporter):
    """nbconvert's exporter with our template: code folded away, text as HTML that does nothing."""

    def __init__(self) -> None:
        super().__init__(template_name="hml_gallery", extra_template_basedirs=[str(TEMPLATES)])
        text = TagRemovePreprocessor(remove_input_tags={executed.TEXT})
        self.register_preprocessor(text, enabled=True)

    @jinja2.pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return safe_html.from_markdown(source)
