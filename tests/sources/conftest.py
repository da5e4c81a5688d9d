"""Fixtures of the reader tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repo_data():
    """Heads of real files kept with the tests."""
    return Path(__file__).resolve().parents[1] / "data"
