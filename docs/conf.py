"""Sphinx's settings for the pages; `make docs` builds them."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

ROOT = Path(__file__).resolve().parent.parent

project = "megdet_hvd"
author = "the authors of megdet_hvd"
copyright = "the authors of megdet_hvd; Apache-2.0"
release = re.findall('__version__ = "(.+)"', (ROOT / "megdet_hvd" / "__init__.py").read_text())[0]
html_title = f"megdet_hvd {release}"
html_theme = "furo"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
highlight_language = "none"
extensions = ["myst_parser", "autoapi.extension"]
exclude_patterns = ["_build", "_static"]

myst_heading_anchors = 3  # links to a heading of another page

# Docstrings are read from the sources; pages name what they show (docs/api.md).
autoapi_dirs = [str(ROOT / "megdet_hvd")]
autoapi_ignore = [f"*/megdet_hvd/{part}/*" for part in ("bench", "lab", "slurm_job", "submit")]
autoapi_generate_api_docs = False
autoapi_add_toctree_entry = False
add_module_names = False
python_use_unqualified_type_names = True
suppress_warnings = ["autoapi.python_import_resolution"]  # names handed on from part to part


def _google(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Google-style sections as fields. Attributes' docstrings are sentences: colons stay colons."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_rtype=False), app, what).lines()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _google)
