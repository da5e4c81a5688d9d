"""What doctests of questions ask: ``study``, the root of a small finished study."""

import pytest
from _pytest.doctest import DoctestItem

ASKED = ("dglzarr.query", "dglzarr.export")


@pytest.fixture(scope="session")
def example_study(tmp_path_factory):
    """The root of a small finished study, made once a session; it is not to be changed."""
    from tests.example import write_example

    return write_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(autouse=True)
def _asked(request, doctest_namespace):
    node = request.node
    if isinstance(node, DoctestItem) and node.name.startswith(ASKED):
        from dglzarr.query import open_study

        root = request.getfixturevalue("example_study")
        doctest_namespace |= {"study": root, "open_study": open_study}
