"""How Sphinx makes a site of these pages: `make docs-site` builds it, and a broken link fails."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

project = "dglzarr"
author = "the authors of dglzarr"
version = release = version_of("dglzarr")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = f"dglzarr {version}"
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False


def prepare(_app: object, name: str, source: list[str]) -> None:
    """Put what `dglzarr VERB --help` says in the place of the page of commands; mend links."""
    source[0] = source[0].replace("](../CHANGELOG.md)", "](CHANGELOG.md)")
    if name == "cli":
        words = [sys.executable, "-m", "typer", "dglzarr.cli", "utils", "docs", "--name", "dglzarr"]
        told = subprocess.check_output(words, cwd=ROOT, text=True)  # noqa: S603
        source[0] = told.replace("# `dglzarr`\n", "# Commands\n", 1)


def setup(app: Any) -> None:  # noqa: ANN401  (Sphinx has no types without Sphinx)
    """Connect what is written when pages are read."""
    app.connect("source-read", prepare)
