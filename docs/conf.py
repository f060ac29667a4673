"""The documentation site, built by Sphinx: ``make docs``."""

from __future__ import annotations

import re
from typing import Any

from sphinx.util.nodes import make_refnode

import headwater

project = "Headwater"
author = "The Headwater developers"
copyright = "The Headwater developers"
version = release = headwater.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
html_theme = "furo"
pygments_dark_style = "github-dark"
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
PUBLIC = ("headwater.evaluate", "headwater.analyze", "headwater.dataset", "headwater.neuralize", "headwater.optimize")


def lead_to_the_public_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Where an object is named by another of its places, link to the one that the reference has."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    objects = env.domains["py"].objects
    found = [known for known in (f"{module}.{name}" for module in ("headwater", *PUBLIC)) if known in objects]
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, found[0])


def spell_for_napoleon(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes "a, b: text" of attributes for a type and a name, and a colon in a property's text for one."""
    if what in ("property", "attribute"):
        lines[:] = [line.replace(": ", " – ") for line in lines]
    several = re.compile(r"^( {4}\w+)((?:, \w+)+):")
    start = lines.index("Attributes:") if "Attributes:" in lines else len(lines)
    for i in range(start + 1, len(lines)):
        lines[i] = several.sub(lambda found: f"{found[1]}{found[2].replace(' ', '')}:", lines[i])


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", spell_for_napoleon, priority=100)  # before napoleon's own
    app.connect("missing-reference", lead_to_the_public_name)


# Pages link to files of the repository beside them: these become links to nowhere on the site, which is said here once.
suppress_warnings = ["myst.xref_missing"]
