"""What tests of several parts of storage begin with."""

import pytest

from tests.builders import KnownStore


@pytest.fixture
def study(tmp_path):
    """A raw store of known values, of which nothing is written yet."""
    return KnownStore(tmp_path / "raw.zarr")
