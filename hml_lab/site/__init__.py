"""One site of the pages in docs/, the executed notebooks and the docstrings, made by Sphinx.

It is read from a folder as well as from a server, without a network: scripts and fonts lie in it, formulas
are MathML, and the search reads an index that is a script. Nothing of a notebook runs, neither when the
site is made nor when it is read (:mod:`hml_lab.notebooks.executed`). Needs the extra ``docs``.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat

from hml_core.errors import ConfigError, RunError, said
from hml_core.system import files, interruptions, scratch
from hml_lab import places
from hml_lab.notebooks import executed, safe_html
from hml_lab.notebooks.executed import Executed
from hml_lab.site import reference

NOTEBOOKS, REFERENCE = "executed", "reference"
LISTED = ".hml-site"  # in a site's folder: the names of what belongs to it
FIRST = ("index.html", "search.html", "searchindex.js", "_static", NOTEBOOKS, REFERENCE, LISTED)


def build(
    notebooks: Sequence[str | Path],
    output: str | Path,
    *,
    pages: str | Path | None = None,
    rooms: Sequence[str] | None = None,
) -> tuple[Path, list[str]]:
    """Make the site.

    Parameters
    ----------
    notebooks : sequence of paths
        Executed notebooks, in the order of their list. One that cannot be shown is a notice there.
    output : path
        Folder of the site. What is in it and no part of the site stays; nothing else is written over.
    pages : path, optional
        Folder of the pages, with ``index.md`` and ``conf.py``; by default the checkout's ``docs``.
    rooms : sequence of str, optional
        Parts of the package that the reference describes, such as "hml_core.losses"; by default all.

    Returns
    -------
    pathlib.Path, list of str
        The first page, and what was amiss: Sphinx's warnings and the notebooks that cannot be shown.

    Raises
    ------
    ConfigError
        Without the extra ``docs``, or without pages; for a folder with files of the site's names that were
        not made here.
    RunError
        If Sphinx gives up.
    """
    try:
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The site needs {error.name!r}, which is not installed: pip install 'hml-core[docs]'."
        ) from error
    pages = places.checkout() / "docs" if pages is None else Path(pages)
    if not (pages / "conf.py").is_file():
        raise ConfigError(f"Expected a folder of pages with a conf.py, got {str(pages)!r}.")
    output = Path(output)
    files.require_writable(output, "folder for the site")
    _require_ours(output, [Path(name) for name in FIRST])
    shown = [executed.read(path) for path in notebooks]
    told, warned = io.StringIO(), io.StringIO()
    try:
        # Beside the pages, so that their links to files of the checkout lead there.
        with _source(pages) as source, scratch.folder() as beside:
            # MyST-NB writes the notebooks' pictures beside the folder that it is given.
            made = beside / "site"
            names = write_notebooks(shown, source / NOTEBOOKS)
            lead_on(source, names)
            reference.write(source / REFERENCE, rooms)
            where = (source, source, made, beside / "doctrees")
            app = Sphinx(*where, "html", status=told, warning=warned, freshenv=True)
            # Its import of what is documented swallows the interruption that a signal raises.
            app.connect("doctree-read", lambda *_: interruptions.heed())
            app.build(force_all=True)
            interruptions.heed()
            _put(made, output)
    except (SphinxError, OSError) as error:
        raise RunError(f"The site could not be made: {said(error)}") from error
    notices = [f"{notebook.name}: {notebook.notice}" for notebook in shown if notebook.notice]
    plain = re.sub(r"\x1b\[[\d;]*m", "", warned.getvalue()).replace(f"{source}/", "docs/")
    return output / "index.html", notices + plain.splitlines()


def _put(made: Path, output: Path) -> None:
    """Copy the site to its folder, with a list of its files: the next site may write over these."""
    names = sorted(path.relative_to(made) for path in made.rglob("*"))
    _require_ours(output, names, made)
    # (First of all: a copy that is cut off is ours, too.)
    earlier = {name for name in _listed(output) if os.path.lexists(output / name)}
    listed = earlier | {path.as_posix() for path in names} | {LISTED}
    output.mkdir(parents=True, exist_ok=True)
    # (A disk that fills up leaves the older site whole.)
    with scratch.folder(output, f"{LISTED}-") as beside:
        shutil.copytree(made, beside, dirs_exist_ok=True)
        files.write_atomically(output / LISTED, "".join(f"{name}\n" for name in sorted(listed)))
        for name in names:
            if (made / name).is_dir():
                (output / name).mkdir(exist_ok=True)
            else:
                os.replace(beside / name, output / name)


def _listed(output: Path) -> set[str]:
    """The names that a site has which was made in that folder."""
    try:
        return {*files.read_text(output / LISTED, files.LARGEST_TABLE).splitlines()}
    except (OSError, UnicodeDecodeError):
        return set()


def _require_ours(output: Path, names: Sequence[Path], made: Path | None = None) -> None:
    """What has these names there was made here, is no link to another place, and a folder where that of
    the site that is ``made`` is one."""
    listed = _listed(output)
    for name in names:
        path = output / name
        is_ours = not path.is_symlink() and (path.is_dir() or name.as_posix() in listed)
        if os.path.lexists(path) and not is_ours:
            raise ConfigError(
                f"{str(output)!r} holds {name.as_posix()!r} that was not made here, or by an earlier "
                "version: give another folder, or remove it."
            )
        if made is not None and path.exists() and path.is_dir() != (made / name).is_dir():
            kind = "file" if path.is_dir() else "folder"
            raise ConfigError(
                f"{str(output)!r} holds {name.as_posix()!r}, which is no {kind} as in the site: remove it."
            )


@contextlib.contextmanager
def _source(pages: Path) -> Iterator[Path]:
    """A copy of the pages for what is written between them, as deep in the checkout as they are.

    Without what is hidden (an editor's locks) and what is no file or folder.
    """

    def no_pages(folder: str, names: list[str]) -> list[str]:
        return [
            name for name in names if name.startswith(".") or not _is_copied(Path(folder, name))
        ]

    with scratch.folder(pages.resolve().parent, ".site-") as source:
        shutil.copytree(pages, source, ignore=no_pages, dirs_exist_ok=True)
        yield source


def _is_copied(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and not path.is_symlink())


def lead_on(source: Path, executed_as: Mapping[str, str]) -> None:
    """Rewrite the pages' links to what is no page: an executed notebook's leads to its page.

    (Sphinx makes copies of the files that pages link to, but takes those for pages whose suffix it knows.)
    """

    def rewritten(link: re.Match) -> str:
        text, address = link[1], link[2]
        path = Path(address)
        if path.parts[:3] == ("..", "results", "notebooks") and path.stem in executed_as:
            return f"[{text}]({NOTEBOOKS}/{executed_as[path.stem]}.ipynb)"
        if (source / path).is_dir():
            return text
        if path.suffix in (".md", ".ipynb"):
            return f"{{download}}`{text.replace('`', '')} <{address}>`"
        return link[0]

    for page in source.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        changed = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)\)", rewritten, text)
        page.write_text(changed, encoding="utf-8")


def write_notebooks(shown: Sequence[Executed], folder: Path) -> dict[str, str]:
    """Write a page of each notebook that can be shown, and the list of all, for Sphinx.

    Returns
    -------
    dict
        The names of the pages, by the notebooks' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = _document_names(shown)
    for name, notebook in zip(names, shown):
        if not notebook.notice:
            nbformat.write(_page(notebook), folder / f"{name}.ipynb")
        if notebook.thumbnail:
            (folder / f"{name}.png").write_bytes(base64.b64decode(notebook.thumbnail))
    (folder / "index.md").write_text(_index(names, shown), encoding="utf-8")
    return {notebook.name: name for name, notebook in zip(names, shown) if not notebook.notice}


def _document_names(shown: Sequence[Executed]) -> list[str]:
    """A name of each page that means nothing in an address, in Sphinx or on a disk, and is its own."""
    names: list[str] = []
    for notebook in shown:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", notebook.name).strip("-")[:80] or "notebook"
        taken = {name.lower() for name in names} | {"index"}
        number, name = 1, plain
        while name.lower() in taken:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def _page(notebook: Executed) -> nbformat.NotebookNode:
    """The notebook, with what it says of itself below its title."""
    content = notebook.content.copy()
    facts = f"<p><small>{safe_html.escape(executed.facts(notebook))}</small></p>"
    if notebook.status != executed.outputs.DONE:
        facts = f"<p><strong>Status: {safe_html.escape(notebook.status)}.</strong></p>{facts}"
    cell = executed.html_cell(facts)
    content.cells = [content.cells[0], cell, *content.cells[1:]]
    return content


def _index(names: Sequence[str], shown: Sequence[Executed]) -> str:
    lines = [
        "# Executed notebooks",
        "",
        "Each makes a table or figures; what it writes lies in `results/`. Code folds out on its page.",
        "",
    ]
    for name, notebook in zip(names, shown):
        title = executed.plain(notebook.title)
        done = notebook.status == executed.outputs.DONE
        key = ", ".join(f"{column}: {value}" for column, value in notebook.key_row.items())
        picture = f"![First figure of: {executed.escaped(notebook.title)}]({name}.png)"
        told = [
            "" if done else f"**Status: {executed.escaped(notebook.status)}.**",
            executed.escaped(" ".join((notebook.notice or notebook.purpose).split())),
            f"Its key row: {executed.escaped(key)}." if key else "",
            "" if notebook.notice else f"*({executed.escaped(executed.facts(notebook))})*",
            picture if notebook.thumbnail else "",
        ]
        lines += [
            f"## {title}" if notebook.notice else f"## [{title}]({name}.ipynb)",
            "",
            *(line for part in told if part for line in (part, "")),
        ]
    entries = [name for name, notebook in zip(names, shown) if not notebook.notice]
    return "\n".join([*lines, "```{toctree}", ":hidden:", "", *entries, "```", ""])
