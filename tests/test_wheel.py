"""What is installed: the package, its data and nothing beside it."""

import re
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def names(wheel):
    """The files of a wheel."""
    return zipfile.ZipFile(wheel).namelist()


def test_wheel__holds_the_package_only(names):
    assert {name.split("/")[0] for name in names} == {
        "dglzarr", f"dglzarr-{version('dglzarr')}.dist-info",
    }  # fmt: skip


def test_wheel__holds_every_module_and_what_they_read(names):
    made = {
        path.relative_to(REPO).as_posix()
        for path in (REPO / "dglzarr").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("dglzarr/")} == made
    assert {"dglzarr/py.typed", "dglzarr/report/report.html"} <= made


def test_wheel__the_readme_says_which_extra_brings_prefect():
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert re.search(r"dglzarr\[[\w,]*flows\b[\w,]*\]", readme)
