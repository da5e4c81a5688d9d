"""The pages build to a site without a warning: no link leads nowhere, every name is there."""

import subprocess
import sys
from pathlib import Path

import pytest

import dglzarr

REPO = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("sphinx", "myst_parser", "furo", "sphinxcontrib.mermaid"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'dglzarr[docs]'")
    place = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-d", place / "trees", REPO / "docs", place / "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return place / "html"


def test_site__has_every_public_name(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in dglzarr.__all__ if f'id="dglzarr.{name}"' not in page] == []
    for name in ("StudyQuestions.top", "StudyQuestions.by", "StoreQuestions.gene"):
        assert f'id="dglzarr.query.{name}"' in page
    assert 'id="dglzarr.testing.write_study"' in page


def test_site__has_every_command_and_setting(site):
    commands = (site / "cli.html").read_text(encoding="utf-8")
    assert 'id="dglzarr-export"' in commands
    assert "--by-gene" in commands
    assert "n_landmarks" in (site / "settings.html").read_text(encoding="utf-8")


def test_site__leads_to_every_page(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = {page.stem for page in (REPO / "docs").glob("*.md")} - {"index"}
    assert {page for page in pages if f'href="{page}.html"' not in index} == set()


@pytest.mark.usefixtures("site")
def test_site__a_link_that_leads_nowhere_fails(tmp_path):
    """The settings of the site alone, with one page."""
    (tmp_path / "conf.py").write_bytes((REPO / "docs" / "conf.py").read_bytes())
    (tmp_path / "index.md").write_text("# A\n\n[b](nosuch.md)\n", encoding="utf-8")
    words = [sys.executable, "-m", "sphinx", "-W", "-q", tmp_path, tmp_path / "html"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nosuch.md" in done.stderr
