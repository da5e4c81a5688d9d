"""A tiny finished study, its report, and the page read; once a session."""

import pytest

from dglzarr.report.page import write_report
from tests.report.pages import Page, finished_study


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A finished tiny study, as keywords of write_report."""
    return finished_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def written(study, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "out" / "report.html"
    assert write_report(str(target), title="Study <1>", **study) == str(target)
    return target


@pytest.fixture(scope="session")
def page(written):
    return Page(written.read_text())
