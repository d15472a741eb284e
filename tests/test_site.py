"""The site: one build with pages, strangers' notebooks and docstrings, read without a network."""

from __future__ import annotations

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hml_core.errors import ConfigError
from hml_lab import site
from hml_lab.site import reference
from tests.notebooks import foreign

ROOT = Path(__file__).resolve().parents[1]
PAGE = """# Start

Of $L_f(p) = \\frac{1}{p}$, malformed $\\frac{1$, and a [record](../kept.csv).

$$\\sum_i x_i$$

```{toctree}
executed/index
reference/index
```
"""


class _Page(HTMLParser):
    """The texts, links, pictures and scripts of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.html = path.read_text(encoding="utf-8")
        self.links: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        names = (
            ("src", "srcset", "href") if tag in ("link", "script", "img", "iframe") else ("src",)
        )
        rel = (given.get("rel") or "") if tag == "link" else ""
        if rel not in ("canonical", "index", "search", "next", "prev", "author", "copyright"):
            self.loads += [given[name] for name in names if given.get(name)]
        self.handlers += [name for name in given if name.startswith("on")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[str]]:
    """A site of one page, one room of the reference and every notebook that strangers may bring."""
    for name in ("sphinx", "myst_nb", "pydata_sphinx_theme"):
        pytest.importorskip(name, reason="the extra `docs` is not installed: `make docs` does it")
    folder = tmp_path_factory.mktemp("site")
    pages, given = folder / "docs", folder / "given"
    pages.mkdir(), given.mkdir()
    (folder / "kept.csv").write_text("run\n1\n")
    (pages / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (pages / "index.md").write_text(PAGE)
    (pages / "_static").mkdir()
    (pages / "_static" / "site.css").write_text("")
    contents = {
        **foreign.SHOWABLE,
        **foreign.HOPELESS,
        **dict.fromkeys(foreign.NAMES, foreign.notebook()),
    }
    cut_off = foreign.notebook(hml_core=foreign.RECORD)
    cut_off["cells"].append(foreign.code("3", count=None))
    good = foreign.notebook(
        foreign.cell(
            "markdown",
            "# A *good* one: $L_f$\n\n**Makes:** a curve.\n\n## The uncommonword\n\n"
            "See [the verdict](../docs/verdict.md) and [docs/a.md](../docs/a.md).",
        ),
        foreign.code("draw()", foreign.data({"image/png": foreign.png()})),
    )
    contents |= {"cut": cut_off, "good": good}
    paths = [foreign.write(given, name, content) for name, content in contents.items()]
    first, amiss = site.build(paths, folder / "out", pages=pages, rooms=["hml_core.losses"])
    assert first.is_file()
    before = {"docs", "given", "kept.csv"}
    assert {path.name for path in folder.iterdir()} == {*before, "out"}, "nothing lies beside it"
    return folder / "out", amiss


def pages(made) -> list[_Page]:
    found = [_Page(path) for path in sorted(made[0].rglob("*.html")) if "_static" not in path.parts]
    assert len(found) > len(foreign.SHOWABLE)
    return found


def test_links_of_a_notebook_to_files_beside_its_folder_are_their_names(made):
    (page,) = [page for page in pages(made) if page.path.name == "good.html"]
    assert "See the verdict (docs/verdict.md) and docs/a.md." in page.html
    assert not [link for link in page.links if link.endswith(".md")]


def test_a_signal_that_sphinx_swallows_leaves_the_older_site(made, tmp_path, monkeypatch):
    """Its import of what is documented does: pages without these docstrings would be put there."""
    folder = tmp_path / "docs"
    (folder / "_static").mkdir(parents=True)
    (folder / "_static" / "site.css").touch()
    (folder / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (folder / "index.md").write_text("# Start\n")
    site.build([], tmp_path / "out", pages=folder, rooms=["hml_core.losses"])
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    told = [None, None]  # after two pages

    def heed() -> None:
        if not told:
            raise KeyboardInterrupt
        told.pop()

    monkeypatch.setattr(site.interruptions, "heed", heed)
    (folder / "index.md").write_text("# Another start\n")
    with pytest.raises(KeyboardInterrupt):
        site.build([], tmp_path / "out", pages=folder, rooms=["hml_core.losses"])
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


def test_every_page_opens_without_a_network(made):
    """What a page loads lies in the site, by a relative address; formulas need no script."""
    for page in pages(made):
        for address in page.loads:
            if address.startswith(("data:image/", "#")):
                continue
            assert not re.match(r"[a-z]+:|//|/", address), f"{page.path.name}: {address}"
            assert (page.path.parent / address.partition("?")[0]).is_file(), address
            assert not re.search("mathjax|require", address, re.I), address
    styles = [path.read_text() for path in made[0].rglob("*.css")]
    assert not any(re.search(r"url\(['\"]?(https?:)?//", text) for text in styles)


def test_formulas_are_mathml_and_malformed_ones_show_their_source(made):
    html = _Page(made[0] / "index.html").html
    assert re.search(r"<math[^>]*><mrow><msub><mi>L</mi><mi>f</mi></msub>", html)
    assert re.search(r'<math[^>]*display="block">', html)
    assert "<code>\\frac{1</code>" in html


def test_nothing_of_a_notebook_runs(made):
    for page in pages(made):
        assert foreign.EVIL not in re.sub(r"<pre>.*?</pre>|<p>.*?</p>", "", page.html, flags=re.S)
        assert page.handlers == []
        assert "root:x:" not in page.html
    assert not list(made[0].rglob("*.svg*")) or all(
        foreign.EVIL not in path.read_text() for path in made[0].rglob("*.svg")
    )
    assert not list(made[0].rglob("*passwd*"))


def test_every_notebook_has_a_page_or_a_notice_in_the_list(made):
    listed = _Page(made[0] / "executed" / "index.html")
    for name in foreign.HOPELESS:
        assert any(notice.startswith(f"{name}: It ") for notice in made[1])
    marks = [listed.html.count(f"Status: {mark}") for mark in ("cannot be shown", "not executed")]
    assert sum(marks) == len(foreign.HOPELESS)
    own = [link for link in listed.links if link.endswith(".html") and "/" not in link]
    expected = len(foreign.SHOWABLE) + len(foreign.NAMES) + 2
    assert len(set(own) - {"index.html"}) == expected
    for link in own:
        text = _Page(listed.path.parent / link).html
        assert link == "index.html" or "shown text" in text


def test_a_notebook_that_was_cut_off_says_so_in_the_list_and_on_its_page(made):
    assert "Status: not finished" in (made[0] / "executed" / "index.html").read_text()
    assert "Status: not finished" in (made[0] / "executed" / "cut.html").read_text()
    assert "Status:" not in (made[0] / "executed" / "good.html").read_text()


def test_a_page_of_a_notebook_has_sections_and_pictures_with_descriptions(made):
    page = _Page(made[0] / "executed" / "good.html")
    assert re.search(r"<h1>A good one: <math.*?</h1>|<h1>A good one: .*?<math", page.html, re.S)
    assert "<h2>The uncommonword" in page.html
    assert re.search(r"<strong>Makes:</strong> *a curve", page.html)
    assert 'alt="Figure: The uncommonword"' in page.html
    assert "#the-uncommonword" in page.links


def test_the_search_finds_notebooks_and_docstrings_from_an_index_that_is_a_script(made):
    """A page opened from a folder may load a script, but not read another file."""
    index = (made[0] / "searchindex.js").read_text()
    assert index.startswith("Search.setIndex(")
    assert "uncommonword" in index
    assert "hardminingloss" in index.lower()
    assert "searchindex.js" in (made[0] / "search.html").read_text()


def test_the_reference_has_the_docstrings(made):
    html = (made[0] / "reference" / "hml_core.losses.html").read_text()
    assert 'id="hml_core.losses.hard_mining.HardMiningLoss"' in html


def test_a_link_to_a_file_of_the_checkout_leads_to_a_copy_of_it(made):
    (link,) = (x for x in _Page(made[0] / "index.html").links if x.endswith("kept.csv"))
    assert (made[0] / link).read_text() == "run\n1\n"


def test_the_reference_knows_every_room():
    rooms = reference.rooms()
    assert {"hml_core.losses", "hml_core.trainer", "data_prep.isic", "hml_lab.stats"} <= set(rooms)
    assert "hml_core.trainer.loop" in rooms["hml_core.trainer"]


def test_a_notebook_says_when_and_with_what_it_was_executed(made):
    html = (made[0] / "executed" / "cut.html").read_text()
    assert "executed 2026-11-24 04:07 UTC, in 0 min 1 s" in html


def test_without_pages_nothing_is_made(tmp_path):
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed: `make docs` does it")
    with pytest.raises(ConfigError, match=r"a folder of pages with a conf\.py"):
        site.build([], tmp_path / "out", pages=tmp_path)
    assert not (tmp_path / "out").exists()


def made_site(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_site_takes_the_place_of_a_site_alone(tmp_path):
    """A page of somebody's own, and what a link leads to, are left as they are."""
    out = tmp_path / "out"
    site._put(made_site(tmp_path / "1", {"index.html": "first", "executed/a.html": "a"}), out)
    (out / "notes.txt").write_text("mine")
    site._put(made_site(tmp_path / "2", {"index.html": "second", "executed/b.html": "b"}), out)
    assert (out / "index.html").read_text() == "second"
    assert {path.name for path in (out / "executed").iterdir()} == {"a.html", "b.html"}
    assert (out / "notes.txt").read_text() == "mine"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "b.html").write_text("precious")
    for spoil in ("a page", "a link", "a folder by a link"):
        taken = tmp_path / spoil
        shutil.copytree(out, taken)
        if spoil == "a page":
            (taken / site.LISTED).unlink()
        elif spoil == "a link":
            (taken / "executed" / "b.html").unlink()
            (taken / "executed" / "b.html").symlink_to(precious / "b.html")
        else:
            shutil.rmtree(taken / "executed")
            (taken / "executed").symlink_to(precious)
        with pytest.raises(ConfigError, match="not made here"):
            site._put(tmp_path / "1" if spoil == "a page" else tmp_path / "2", taken)
        assert (taken / "index.html").read_text() == "second"
    assert (precious / "b.html").read_text() == "precious"


def test_what_is_no_page_beside_the_pages_is_left_out(tmp_path):
    """An editor's lock, a pipe, a link to a folder around."""
    pages = tmp_path / "docs"
    (pages / "_static").mkdir(parents=True)
    (pages / "_static" / "site.css").write_text("")
    (pages / "index.md").write_text("# Start")
    (pages / "also.md").symlink_to("index.md")
    (pages / ".#index.md").symlink_to("me@host.1:2")
    (pages / "gone.md").symlink_to("nowhere.md")
    (pages / "around").symlink_to(".")
    os.mkfifo(pages / "pipe.md")
    with site._source(pages) as source:
        assert source.parent == tmp_path
        found = {path.relative_to(source).as_posix() for path in source.rglob("[!.]*")}
        assert found == {"index.md", "also.md", "_static", "_static/site.css"}
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]
