"""The gallery: complete, readable without network or scripts, and safe to open."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from click.testing import CliRunner
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)
from PIL import Image

from hml_core.errors import ConfigError
from hml_lab import notebooks
from hml_lab.cli import main
from hml_lab.notebooks import gallery
from hml_lab.notebooks.executed import THUMBNAIL_WIDTH, read


def png(width: int = 1000) -> str:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, 300)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


RECORD = {
    "status": "done",
    "seconds": 3725.0,
    "started": "2026-11-24T04:07:40+00:00",
    "git_commit": "0123456789abcdef-dirty",
    "parameters": {"epochs": 4, "name": "<b>x</b>"},
    "versions": {},
}


def executed(folder: Path, name: str = "a.ipynb", record: dict | None = RECORD, **heading) -> Path:
    """A notebook with text, a formula, a figure, a table and printed lines."""
    title = heading.get("title", "Made & <tested>")
    table = new_output(
        "display_data",
        {"text/html": "<table><tr><td>95.7 ± 1.0</td></tr></table>"},
        metadata={"hml_core": {"key_row": [["Recipe", "HML<1>"], ["Balanced acc.", "95.7 ± 1.0"]]}},
    )
    outputs = [new_output("stream", name="stdout", text=text) for text in ("one", "\n", "two\n")]
    figure = new_output("display_data", {"image/png": png()})
    cells = [
        new_markdown_cell(f"# {title}\n\n**Makes:** a `figure`,\nand more.\n\nOf $L_f(p) = -\\log p$."),
        new_code_cell("secret = 'the code'", execution_count=1, outputs=outputs),
        new_markdown_cell("## The curve"),
        new_code_cell("draw()", execution_count=2, outputs=[figure]),
        new_code_cell("show()", execution_count=3, outputs=[table]),
    ]  # fmt: skip
    path = folder / name
    metadata = {} if record is None else {"hml_core": record}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


class _References(HTMLParser):
    """What a page would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.found.append(tag)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        loading = ("src", "srcset", "poster", "background")
        self.found += [given[name] for name in loading if name in given]


def test_pages_load_and_run_nothing(tmp_path):
    index = gallery.build([executed(tmp_path)], tmp_path / "out")
    for page in (index, tmp_path / "out" / "a.html"):
        text = page.read_text(encoding="utf-8")
        references = _References(text)
        assert references.found
        assert all(source.startswith("data:image/png;base64,") for source in references.found)
        assert references.policy == gallery.POLICY
        assert "url(" not in text
        assert "@import" not in text
        assert 'name="viewport"' in text


def test_the_index_says_what_when_and_how(tmp_path):
    paths = [executed(tmp_path), executed(tmp_path, "b.ipynb", None, title="Second")]
    index = gallery.build(paths, tmp_path / "out", title="My tables")
    text = index.read_text(encoding="utf-8")
    assert "<h1>My tables</h1>" in text
    assert "2 executed notebooks" in text
    assert text.index("HML&lt;1&gt;") < text.index("95.7 ± 1.0")
    assert text.index("Made &amp; &lt;tested&gt;") < text.index("Second")
    assert "a figure, and more." in text
    assert "HML&lt;1&gt;" in text
    assert "95.7 ± 1.0" in text
    assert "2026-11-24 04:07 UTC, in 1 h 2 min" in text
    assert "commit 0123456789" in text
    assert "epochs = 4" in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert {"a.html", "b.html"} <= set(_References(text).links)
    (thumbnail, _) = re.findall(r"data:image/png;base64,([^\"]+)", text)
    assert Image.open(io.BytesIO(base64.b64decode(thumbnail))).width == THUMBNAIL_WIDTH


def test_a_page_holds_the_whole_notebook(tmp_path):
    gallery.build([executed(tmp_path)], tmp_path / "out")
    text = (tmp_path / "out" / "a.html").read_text(encoding="utf-8")
    assert "index.html" in _References(text).links
    assert re.search(r"<math[^>]*>.*<mi>L</mi>", text, re.S)
    assert "\\log" not in text
    assert re.search(r"<details class=\"code\">.*the code.*</details>", text, re.S)
    assert "one\ntwo" in text
    assert f"data:image/png;base64,{png()}" in text.replace("\n", "")
    assert 'alt="Figure: The curve"' in text


def test_a_failed_notebook_is_marked(tmp_path):
    index = gallery.build([executed(tmp_path, record={**RECORD, "status": "timed out"})], tmp_path)
    assert '<dd class="failed">timed out</dd>' in index.read_text(encoding="utf-8")


def test_a_call_without_sense_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "other").mkdir()
    good, twin = executed(tmp_path), executed(tmp_path / "other")
    for paths, message in [
        ([], "No executed notebooks"),
        ([good, tmp_path / "no.ipynb"], "There is no notebook"),
        ([good, twin], "a file name of its own: a"),
        ([executed(tmp_path, "index.ipynb")], "a file name of its own: index"),
    ]:
        with pytest.raises(ConfigError, match=message):
            gallery.build(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["index.html", "a.html"])
def test_a_page_of_somebody_else_is_left_and_nothing_is_written(name, tmp_path):
    path, folder = executed(tmp_path), tmp_path / "site"
    folder.mkdir()
    (folder / name).write_text("my homepage")
    with pytest.raises(ConfigError, match=rf"holds '{name}' that was not made here"):
        gallery.build([path], folder)
    assert [(one.name, one.read_text()) for one in folder.iterdir()] == [(name, "my homepage")]
    (folder / name).unlink()
    assert gallery.build([path], folder) == gallery.build([path], folder), "our own is made anew"


def test_a_bad_notebook_is_a_notice_and_the_others_are_shown(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "new.ipynb")
    (tmp_path / "text.ipynb").write_text("hello")
    paths = [executed(tmp_path), tmp_path / "new.ipynb", tmp_path / "text.ipynb"]
    text = gallery.build(paths, tmp_path / "out").read_text(encoding="utf-8")
    assert "It is not a Jupyter notebook: " in text
    assert "It was not executed: `hml run" in text
    assert text.count('<dd class="failed">') == 2
    assert "95.7 ± 1.0" in text
    assert "It is not a Jupyter" in (tmp_path / "out" / "text.html").read_text(encoding="utf-8")


def test_the_command_takes_what_was_executed_last(tmp_path, monkeypatch):
    (tmp_path / "hml_lab").mkdir()
    (tmp_path / "hml_lab" / "__init__.py").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, ["report"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: No executed notebooks")
    Path("my_results/notebooks").mkdir(parents=True)
    executed(Path("my_results/notebooks"))
    assert "my_results/gallery/index.html" in CliRunner().invoke(main, ["report"]).output
    assert Path("my_results/gallery/a.html").is_file()


@pytest.fixture
def shown(monkeypatch) -> list:
    calls: list = []
    monkeypatch.setattr(notebooks.display, "display", lambda *a, **k: calls.append(k["metadata"]))
    return calls


def test_the_key_row_of_a_table_is_the_best_one(shown):
    cells = {"Top-1": ["9.5 ± 1", "95.7 ± 1.0 *", "–"], "n": ["5", "5", "5"]}
    table = pd.DataFrame(cells, index=pd.Index(["CE", "HML1", "Focal"], name="Recipe"))
    notebooks.show_table(table, best="Top-1")
    notebooks.show_table(table.reset_index(), best="Top-1")
    notebooks.show_table(table[2:], best="Top-1")
    recipe, top1, n = ["Recipe", "HML1"], ["Top-1", "95.7 ± 1.0 *"], ["n", "5"]
    rows = [metadata["hml_core"]["key_row"] for metadata in shown]
    assert rows == [[recipe, top1, n], [top1, recipe, n], []]
    with pytest.raises(ConfigError, match="no column 'top1': it has Top-1, n"):
        notebooks.show_table(table, best="top1")


def test_a_notebook_that_nobody_executed_to_its_end_is_not_shown_as_done(tmp_path):
    """Killed, or executed in part by another tool: neither without nor against its record."""
    path = executed(tmp_path)
    assert read(path).status == "done"
    content = nbformat.read(path, 4)
    content.cells.append(nbformat.v4.new_code_cell("print('never executed')"))
    nbformat.write(content, path)
    assert read(path).status == "not finished"
