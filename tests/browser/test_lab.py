"""What a person sees: notebooks run by hand in JupyterLab, the gallery and the site, on a phone, too."""

from __future__ import annotations

import re

import pytest

from hml_lab import site as sites
from hml_lab.notebooks import gallery
from tests.notebooks import foreign

pytestmark = pytest.mark.browser

RUN_S = 180_000  # milliseconds, as Playwright counts
OUTPUT = ".jp-Notebook .jp-OutputArea-output"
ALL_RAN = """() => {
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputArea-prompt')];
    return cells.length > 0 && cells.every(cell => /\\[\\d+\\]/.test(cell.textContent));
}"""
SIZES = "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
BOXES = """tables => tables.map(table => (
    {right: table.getBoundingClientRect().right, text: table.textContent.slice(0, 80)}))"""
INK = """image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    return canvas.toDataURL();
}"""


def run_all(browser, lab, notebook: str):
    """Open a notebook and run it from the menu."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(lab.page(notebook))
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(ALL_RAN, timeout=RUN_S)
    return page


def figures(page) -> list:
    sizes = page.locator(f"{OUTPUT} img").evaluate_all(SIZES)
    return [size for size in sizes if min(size) > 100]


def errors(page) -> list[str]:
    return page.locator(f"{OUTPUT}[data-mime-type*='error']").all_inner_texts()


def test_the_quickstart_runs_and_shows_its_figures_and_its_table(browser, lab):
    page = run_all(browser, lab, "00_quickstart.ipynb")
    assert errors(page) == []
    assert len(figures(page)) >= 5
    table = page.locator(f"{OUTPUT} table", has_text="Balanced acc.").first
    assert re.search(r"HML1.*±", table.inner_text(), re.S)
    page.close()


def test_the_slider_moves_the_curve(browser, lab):
    page = run_all(browser, lab, "01_hard_mining_loss.ipynb")
    assert errors(page) == []
    assert len(figures(page)) >= 5
    slider = page.locator(".jupyter-widgets.widget-slider")
    image = page.locator("img.widget-image")
    image.scroll_into_view_if_needed()
    before, value = image.evaluate(INK), slider.locator(".widget-readout").inner_text()
    slider.locator(".noUi-handle").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([before, ink]) => eval(ink)(document.querySelector('img.widget-image')) !== before",
        arg=[before, INK], timeout=30_000,
    )  # fmt: skip
    assert slider.locator(".widget-readout").inner_text() != value
    page.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_the_gallery_needs_no_network_and_fits_a_phone(width, browser, repository, tmp_path):
    paths = sorted((repository / "results" / "notebooks").glob("*.ipynb"))
    index = gallery.build(paths, tmp_path / "gallery")
    context = browser.new_context(offline=True, viewport={"width": width, "height": 800})
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(index.as_uri())
    assert page.locator(".card").count() == len(paths)
    for number in range(len(paths)):
        page.locator(".card > a").nth(number).click()
        page.wait_for_selector("h1")
        images = page.locator("img").evaluate_all(SIZES)
        assert images
        assert all(min(size) > 100 for size in images)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_text("← All notebooks").click()
        page.wait_for_selector(".card")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert complaints == []
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_is_read_from_a_folder_and_fits(width, browser, site):
    """Pages, pictures with descriptions, the main table, search and keyboard; without a network."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
    page, asked, failures = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    for name in ("index", "executed/index", "executed/02_cifar10_lt_short", "methods", "speed"):
        page.goto((site / f"{name}.html").as_uri())
        page.wait_for_selector("h1")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.locator("img:not([alt]), img[alt='']").count() == 0
    for path in (site / "executed").glob("0*.html"):
        page.goto(path.as_uri())
        page.wait_for_selector("h1")
        for box in page.locator("article table").evaluate_all(BOXES):
            assert width < 1280 or box["right"] <= width, f"{path.name}: {box['text']}"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to main content"
    page.goto(f"{(site / 'search.html').as_uri()}?q=hardminingloss")
    page.wait_for_selector("#search-results li")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert failures == []
    context.close()


def test_nothing_of_a_strangers_notebook_runs(browser, tmp_path):
    """Each such page, of the site and of the gallery, in a browser that would run it."""
    for name in ("sphinx", "myst_nb", "pydata_sphinx_theme"):
        pytest.importorskip(name, reason="the extra `docs` is not installed: `make docs` does it")
    paths = [foreign.write(tmp_path, name, text) for name, text in foreign.SHOWABLE.items()]
    sites.build(paths, tmp_path / "site", rooms=[])
    gallery.build(paths, tmp_path / "gallery")
    pages = [
        *(tmp_path / "site" / "executed").glob("*.html"),
        *(tmp_path / "gallery").glob("*.html"),
    ]
    assert len(pages) > 2 * len(paths)
    context = browser.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    for path in pages:
        page.goto(path.as_uri())
        page.wait_for_selector("h1")
        assert page.evaluate("typeof window.hml_ran") == "undefined", path.name
    assert all(url.startswith(("file:", "data:")) for url in asked)
    context.close()
