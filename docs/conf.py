"""Sphinx builds the site from the Markdown of this folder: `make docs`. Pages stay plain Markdown for a forge."""

import re
from importlib.metadata import version as installed

project = "ham-suite"
copyright = "the ham-suite authors"  # noqa: A001 (a name of Sphinx)
version = release = installed("ham-suite")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"ham-suite {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
myst_heading_anchors = 4  # the anchors of a forge
autodoc_typehints = "none"  # signatures have them in the source; arguments are described with types in words
autodoc_member_order = "bysource"
nitpicky = False


def _navigation(app, docname, source):
    """Turn the list of links of an index page into the site's navigation, so that each page is named once."""
    if docname.rpartition("/")[2] != "index":
        return
    pages = re.findall(r"^(?:- |\| )\[[^\]]*\]\(([\w/]+)\.md\)", source[0], flags=re.MULTILINE)
    if docname == "index":
        pages = [page for page in pages if page.count("/") == 0 or page.endswith("/index")]
    source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(dict.fromkeys(pages)) + "\n```\n"


def _as_text(app, what, name, thing, options, lines):
    """Keep the bars of |w| from being read as substitutions."""
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app):
    """Connect the two functions above."""
    app.connect("source-read", _navigation)
    app.connect("autodoc-process-docstring", _as_text)
