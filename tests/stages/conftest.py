"""What tests of several stages begin with."""

import pytest

from tests.builders import simulate, write_files
from tests.stages.networks import Study


@pytest.fixture(scope="session")
def values():
    return simulate(n_duplicates=0, missing_fraction=0.02).expression


@pytest.fixture(scope="session")
def made(tmp_path_factory, values):
    """A study up to its untrained model; nothing is written into its folder."""
    return Study(tmp_path_factory.mktemp("study"), values)


@pytest.fixture
def study(made, tmp_path):
    """The same, with a folder for results."""
    return made.at(tmp_path)


@pytest.fixture(scope="session")
def simulated():
    return simulate(n_series=3)


@pytest.fixture
def sources(tmp_path, simulated):
    """A series matrix of each of three series."""
    return write_files(tmp_path, simulated)
