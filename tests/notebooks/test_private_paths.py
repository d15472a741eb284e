"""No path of the machine is left in an executed notebook, and nothing else of it is changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from hml_lab.notebooks import execution, outputs, private_paths

MACHINES = ("/", "//", "/plain", "/png", "/json", "/data", "/a", "/n", "/home/me", "/home/mé")


def executed(path: str) -> nbformat.NotebookNode:
    """What a notebook may hold that was executed with ``path`` as a parameter, a home, a folder."""
    shown = {
        "text/plain": f"'{path}/x'",
        "text/html": f'<a href="{path}/x">{path}</a>',
        "application/json": {"a/plain": [f"{path}/x", 1, None], path + "/key": True},
        "image/png": "iVBORw0KGgo/plain/png+/png=",
        "image/svg+xml": f"<svg><!-- {path}/x --></svg>",
    }
    cells = [  # (their ids would be drawn at random)
        new_code_cell(
            f"root = {path!r}",
            id="parameters",
            metadata={"tags": ["injected-parameters"]},
        ),
        new_code_cell(
            f"print('a/plain text', 'image/png', {path!r})  # the notebook's own",
            id="own",
            outputs=[
                new_output("stream", name="stdout", text=f"a/plain text, b/data/png\n{path}/x\n"),
                new_output("display_data", data=shown),
                new_output(
                    "error",
                    ename="E",
                    evalue=f"no {path}/x",
                    traceback=[f"\x1b[0;32m{path}/x.py\x1b[0m", f"file://{path}/x", f"-I{path}/x"],
                ),
            ],
        ),
    ]
    return new_notebook(cells=cells, metadata={"hml_core": {"parameters": {"root": path}}})


@pytest.mark.parametrize("path", MACHINES)
@pytest.mark.parametrize("of", ["parameter", "home", "folder"])
def test_paths_are_replaced_where_they_are_paths_and_nowhere_else(path, of, monkeypatch, tmp_path):
    given = {"root": path} if of == "parameter" else {}
    before = executed(path)
    with monkeypatch.context() as patch:
        if of == "home":
            patch.setenv("HOME", path)
        if of == "folder":
            patch.setattr(Path, "cwd", lambda: Path(path))
        after = private_paths.without(before, given, tmp_path)
    nbformat.validate(after)
    assert before == executed(path), "a copy"
    parameters, cell = after.cells
    assert cell.source == before.cells[1].source
    stream, shown, error = cell.outputs
    assert {*shown.data} == {*before.cells[1].outputs[1].data}, "media types"
    assert {*shown.data["application/json"]} == {"a/plain", path + "/key"}
    assert shown.data["image/png"] == "iVBORw0KGgo/plain/png+/png="
    assert stream.text.startswith("a/plain text, b/data/png\n")
    if path.strip("/"):
        told = [stream.text, parameters.source, error.evalue, *error.traceback]
        told += [json.dumps(after.metadata, ensure_ascii=False), shown.data["text/plain"]]
        told += [shown.data["text/html"], shown.data["image/svg+xml"]]
        told += [shown.data["application/json"]["a/plain"][0]]
        left = re.compile(rf'(?<![.]){re.escape(path)}(/x|")')  # (`../..` may lead to it)
        assert not [text for text in told if left.search(text)]
    else:
        assert after == before, "the root of all is nobody's"


# What is written with a slash and no path, of every name: ends of elements, units, comments, patterns.
NO_PATHS = (
    "<div>a<{0}>x</{0}>b</{0} ></{0}\n></div><svg:{0}>x</svg:{0}>",
    "<pre>&lt;{0}&gt;x&lt;/{0}&gt; &#60;/{0}&#62; &#x3c;/{0}&gt;</pre>",
    "<style>/* a comment */{0} {{color: red}} /**/{0}</style><script>f(x)/{0}; a[0]/{0}</script>",
    "3 %/{0}, 3 m²/{0}, {{root}}/{0}, */{0}, a/{0}, ../{0}, ~/{0}, <\\/{0}>, \\u003c/{0}>",
)


@pytest.mark.parametrize("of", ["parameter", "home", "folder", "environment"])
@pytest.mark.parametrize("name", ["a", "b", "div", "td", "table", "code", "svg", "text", "g"])
def test_markup_is_no_path(name, of, monkeypatch, tmp_path):
    texts = [text.format(name) for text in NO_PATHS]
    kinds = ("text/html", "image/svg+xml", "text/latex", "text/markdown", "text/plain")
    shown = [new_output("display_data", data=dict.fromkeys(kinds, "".join(texts)))]
    shown.append(new_output("stream", text="".join(texts)))
    before = new_notebook(cells=[new_code_cell("", outputs=shown)], metadata={"told": texts})
    path = f"/{name}"
    given = {"title": path} if of == "parameter" else {}
    with monkeypatch.context() as patch:
        if of == "home":
            patch.setenv("HOME", path)
        if of == "folder":
            patch.setattr(Path, "cwd", lambda: Path(path))
        if of == "environment":
            patch.setattr(private_paths.sys, "prefix", path)
        assert private_paths.without(before, given, tmp_path) == before


def test_paths_within_markup_are_paths(tmp_path):
    """Two parts behind `<` are no element's end."""
    hidden = private_paths.hider({"data_root": "/data/me"}, tmp_path)
    for frame in ("<{0}/x>", "[a](<{0}>)", "&lt;{0}/x&gt;", "<b>{0}</b>", "href={0}", "({0})"):
        assert "/data/me" in (text := frame.format("/data/me"))
        assert "/data/me" not in hidden(text).replace("../data/me", "")
    assert hidden("</tmp/ipykernel_1/2.py>") == "<<cell>>"


@pytest.mark.parametrize("path", ["/", "/plain", "/home/mé"])
def test_what_is_recorded_is_found_done_again(path, tmp_path):
    notebook, result = tmp_path / "made.ipynb", tmp_path / "out.ipynb"
    partial = tmp_path / "partial"
    nbformat.write(new_notebook(), notebook)
    nbformat.write(new_notebook(), partial)
    record = {"status": outputs.DONE, "seconds": 1.0, "parameters": {"root": path}}
    record |= {"started": "now", "sha256": execution.files.sha256(notebook)}
    execution._keep(tmp_path / "made.ipynb", partial, result, record)
    assert outputs.read(result) is not None
    assert execution.is_done(notebook, {"root": path}, result)
    assert not execution.is_done(notebook, {"root": path + "q"}, result)


def test_text_of_slashes_is_read_once():
    """(A pattern that begins anew at every slash would take hours over a million.)"""
    hidden = private_paths.hider({}, Path("/nowhere"))
    text = "/a" * 500_000
    assert hidden(text) == text
    assert hidden("in /tmp/ipykernel_12/345.py:3") == "in <cell>:3"
