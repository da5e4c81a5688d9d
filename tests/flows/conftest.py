"""One temporary Prefect server for all flow tests of a process, and the flows, loaded by path."""

import pytest

from tests.builders import undrawn
from tests.prefect_server import load_flows


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    with undrawn():
        yield


@pytest.fixture(scope="session")
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def client(flows):  # noqa: ARG001
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as opened:
        yield opened


@pytest.fixture
def artifact(client):
    """The latest artifact of a key."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    def latest(key):
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        found = client.read_artifacts(artifact_filter=wanted)
        return max(found, key=lambda a: a.created)

    return latest


@pytest.fixture(scope="session")
def flows(prefect_server):  # noqa: ARG001
    """The module that flows/mine.py makes."""
    return load_flows()
