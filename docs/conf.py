"""The documentation site, built by Sphinx: ``make docs``."""

from __future__ import annotations

import headwater

project = "Headwater"
author = "The Headwater developers"
copyright = "The Headwater developers"
version = release = headwater.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
html_theme = "furo"
html_title = f"Headwater {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_show_sourcelink = False
html_copy_source = False

myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_use_rtype = False
napoleon_use_ivar = True
copybutton_exclude = ".linenos, .gp, .go"
# Pages link to files of the repository beside them: these become links to nowhere on the site, which is said here once.
suppress_warnings = ["myst.xref_missing"]
