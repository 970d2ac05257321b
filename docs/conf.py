"""Sphinx configuration; `make docs` builds the pages into docs/_build."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "qdgnn_ase"
release = version = _version("qdgnn-ase")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Quantum-informed graph neural network for energy materials",
    "page_width": "70em",
    "sidebar_width": "15em",
}
html_title = f"qdgnn_ase {release}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # cards and tables that are included begin where they begin
