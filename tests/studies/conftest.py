"""What a study of these tests looks like is seen elsewhere: tests/report, tests/cli, the README."""

import pytest

from tests.builders import undrawn


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with undrawn():
        yield
