"""How Sphinx makes the site of docs/, the executed notebooks and the docstrings: `make docs`."""

from hml_core import __version__

project = "hml-core"
author = "The hml-core developers"
release = version = __version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "hml_lab.site.extension"]
exclude_patterns = ["_build"]
root_doc = "index"

# Notebooks are shown as they were executed; nothing of them runs here or in the reader's browser.
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show code"
nb_code_prompt_hide = "Hide code"
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "text/html", 1), ("html", "text/plain", 2)]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = True

html_theme = "pydata_sphinx_theme"
html_title = "hml-core"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_scaled_image_link = False
# Without a server, a page may not read its neighbours: results are listed by their titles.
html_show_search_summary = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
    # A table of results needs the width.
    "secondary_sidebar_items": {"*": ["page-toc"], "reference/*": ["page-toc"], "executed/*": []},
}
# Only the reference has pages below pages to list.
html_sidebars = {"*": [], "executed/*": []}
html_math_renderer = "mathml"
copyright = "the hml-core developers, MIT licence"
suppress_warnings = ["mystnb.mime_priority", "myst.header", "ref.python"]
