"""How the documentation is built: MyST pages, whose examples run, and the API from the docstrings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from skyloom import __version__

# Examples call the command line; it stands beside the Python that builds the pages.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["COLUMNS"] = "110"

project = "Skyloom"
author = "the Skyloom developers"
copyright = "2026, the Skyloom developers"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "Skyloom"
html_static_path = ["_static"]
html_css_files = ["skyloom.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#c2410c", "color-brand-content": "#c2410c"},
    "dark_css_variables": {"color-brand-primary": "#fb923c", "color-brand-content": "#fb923c"},
}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900  # the first run of a recipe compiles its kernels
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables in the output of examples
nb_execution_show_tb = True

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
# `name` in a docstring is a cross-reference where there is a target, and code where there is none.
default_role = "any"
suppress_warnings = ["ref.any", "ref.python"]
