"""Whatever a notebook's file holds: a page without anything that runs, or a notice; never a traceback."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from hml_lab.notebooks import executed, gallery, safe_html
from tests.notebooks import foreign

RUNS = {"script", "iframe", "object", "embed", "form", "input", "base", "link", "svg", "style"}


class _Active(HTMLParser):
    """What in a page could run or load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        if tag in RUNS:
            self.found.append(tag)
        for name, value in attributes:
            address = "".join((value or "").split()).lower()
            loads = name in ("src", "srcset", "background", "data", "xlink:href")
            if name.startswith("on") or address.startswith(("javascript:", "data:text")):
                self.found.append(f"{name}={value}")
            if (loads and not address.startswith("data:image/")) or "url(" in address:
                self.found.append(f"{name}={value}")


def html_of(notebook: executed.Executed) -> list[str]:
    outputs = [output for cell in notebook.content.cells for output in cell.get("outputs", [])]
    return [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]


@pytest.mark.parametrize("name", foreign.SHOWABLE)
def test_of_any_notebook_a_page_is_made_and_nothing_of_it_runs(name, tmp_path):
    path = foreign.write(tmp_path, "a", foreign.SHOWABLE[name])
    notebook = executed.read(path)
    assert notebook.notice == ""
    for html in html_of(notebook):
        assert _Active(html).found == []
    gallery.build([path], tmp_path / "out")
    page = (tmp_path / "out" / "a.html").read_text(encoding="utf-8")
    assert "shown text" in page
    assert set(_Active(page).found) <= {"style"}  # the page's own
    assert "root:" not in page


@pytest.mark.parametrize("name", foreign.HOPELESS)
def test_of_a_file_that_is_no_executed_notebook_a_notice_is_made(name, tmp_path):
    path = foreign.write(tmp_path, "a", foreign.HOPELESS[name])
    notebook = executed.read(path)
    assert notebook.status in (executed.NOTHING, executed.NOT_EXECUTED)
    assert notebook.notice
    index = gallery.build([path], tmp_path / "out").read_text(encoding="utf-8")
    assert notebook.status in index


def test_a_picture_is_shown_with_what_it_shows(tmp_path):
    content = foreign.notebook(
        foreign.cell("markdown", "## The *curve*"),
        foreign.code("1", foreign.data({"image/png": foreign.png(), "text/plain": "<Figure>"})),
        foreign.code(
            "2",
            foreign.data(
                {"image/png": foreign.png()}, metadata={"image/png": {"alt": "Rises <steeply>"}}
            ),
        ),
    )
    first, second = html_of(executed.read(foreign.write(tmp_path, "a", content)))
    assert f'src="data:image/png;base64,{foreign.png()}"' in first
    assert 'alt="Figure: The *curve*"' in first
    assert 'alt="Rises &lt;steeply&gt;"' in second


def test_an_attached_picture_is_shown(tmp_path):
    attached = {"a b.png": {"image/png": foreign.png()}}
    content = foreign.text("![seen](attachment:a%20b.png)", attachments=attached)
    (html,) = html_of(executed.read(foreign.write(tmp_path, "a", content)))
    assert f'<img src="data:image/png;base64,{foreign.png()}" alt="seen">' in html


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (foreign.code("3", count=None), "not finished"),
        (foreign.code("3", {"output_type": "error", "ename": "SystemExit", "evalue": "0"}), "failed"),
        (foreign.code("3", metadata={"papermill": {"status": "running"}}), "not finished"),
    ],
)  # fmt: skip
def test_a_notebook_that_was_cut_off_never_looks_done(last, status, tmp_path):
    for metadata in ({}, {"hml_core": foreign.RECORD}):
        content = foreign.notebook(**metadata)
        content["cells"].append(last)
        path = foreign.write(tmp_path, "a", content)
        assert executed.read(path).status == status
        assert status in gallery.build([path], tmp_path / "out").read_text(encoding="utf-8")


def test_names_that_mean_something_in_an_address_lead_to_their_pages(tmp_path):
    import re
    import urllib.parse

    paths = [foreign.write(tmp_path, name, foreign.notebook()) for name in foreign.NAMES]
    index = gallery.build(paths, tmp_path / "out").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)"', index)
    assert [urllib.parse.unquote(link) for link in links] == [f"{n}.html" for n in foreign.NAMES]
    assert all((tmp_path / "out" / urllib.parse.unquote(link)).is_file() for link in links)
    assert not any("#" in link or "?" in link for link in links)


def test_much_html_is_shown_where_it_is_not_deep():
    """A data frame of thousands of rows; a picture of many paths, which goes, and the text around it."""
    rows = "<tr><td>seen<td>1" * 5_000
    drawn = "<svg>" + '<path d="M0 0"/>' * 5_000 + "</svg>"
    shown = safe_html.sanitised(f"<table>{rows}</table>{drawn}<p>{'word ' * 30_000}</p>")
    assert shown.count("seen") == 5_000
    assert shown.count("word") == 30_000
    assert "path" not in shown


@pytest.mark.parametrize(
    "piece", ["<" + "a" * 10**6, "<a" * 10**5, "<a b='" + "c" * 10**6, "<a/" * 10**5]
)
def test_html_without_an_end_is_gone_over_once(piece):
    """Were letters given back, one by one, this would take hours."""
    assert not safe_html._takes_long(piece)


HEADINGS = (
    r"Price $<script>x()</script>\$ x", r"$$<img src=x onerror=x()>\$$", r"\\$<b>\$ $x$ \$<i>$1",
    r"`a`$<b>$`{b}`", "$5 and `<b>$ more`", r"a\ $<b>$", "${eval}`x`$ [a](javascript:x()) ![b](/c)",
    "{{ x }} {download}`/etc/passwd`", "$ $ <b>", "``$<b>$``",
)  # fmt: skip


@pytest.mark.parametrize("heading", HEADINGS)
def test_of_a_heading_nothing_is_read_as_html_whatever_reads_it(heading):
    """Who reads Markdown differ in where a formula ends: outside of code every sign is escaped."""
    text = executed.plain(heading)
    outside = re.split(r"(?<!\\)`[^`]+`", text)
    for part in outside:
        bare = re.sub(r"\\.", "", part).removesuffix("{math}")
        assert not re.search(r"[<>$`\[\]{}]", bare), text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("see [x](../docs/a.md)", "<p>see x (docs/a.md)</p>"),
        ("see [docs/a.md](../docs/a.md)", "<p>see docs/a.md</p>"),
        ('[x](../a.md "title")', "<p>x (a.md)</p>"),
        ("[x][1]\n\n[1]: ../../a.md", "<p>x (a.md)</p>"),
        ("[x](../a%20b.md)", "<p>x (a b.md)</p>"),
        ("![a curve](../p.png)", "<p>[picture: a curve] (p.png)</p>"),
        ("`[x](../a.md)`", "<p><code>[x](../a.md)</code></p>"),
        ("```\n[x](../a.md)\n```", "<pre><code>[x](../a.md)\n</code></pre>"),
        ("[x](https://a.b/../c)", '<p><a href="https://a.b/../c">x</a></p>'),
    ],
)
def test_a_link_to_a_file_beside_the_notebooks_folder_is_its_name(source, shown):
    """It would lead to nothing on a page of ours; in code it is no link."""
    assert safe_html.from_markdown(source).strip() == shown


def test_a_formula_leads_nowhere():
    html = safe_html.mathml(r"\href{javascript:x()}{y} + z^2")
    assert html.startswith("<math")
    assert "javascript" not in html
    assert "<msup>" in html


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_papermill_itself_executed_says_with_which_parameters(is_killed, tmp_path):
    told = {"parameters": {"epochs": 30}, "start_time": "2026-11-24T04:07:09.1+00:00"}
    told["duration"] = None if is_killed else 61.2
    notebook = foreign.notebook()
    notebook["metadata"] = {"papermill": told}
    facts = executed.facts(executed.read(foreign.write(tmp_path, "a", notebook)))
    assert facts.endswith("parameters: epochs = 30")
    assert is_killed != ("executed 2026-11-24 04:07 UTC, in 1 min 1 s" in facts)
