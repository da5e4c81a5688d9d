"""What tests of several parts of storage begin with."""

import pytest

from dglzarr.storage import buckets
from tests import bucket
from tests.builders import KnownStore


@pytest.fixture
def study(tmp_path):
    """A raw store of known values, of which nothing is written yet."""
    return KnownStore(tmp_path / "raw.zarr")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """The address of an S3 server."""
    pytest.importorskip("moto.server", reason="the S3 server is moto's")
    with bucket.server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def root(endpoint, monkeypatch, request):
    _environment(monkeypatch, endpoint)
    return f"s3://{bucket.BUCKET}/{request.node.name.replace('[', '-').strip(']')}"


def _environment(monkeypatch, address):
    for name, value in bucket.environment(address).items():
        monkeypatch.setenv(name, value)
    buckets._connected.cache_clear()


@pytest.fixture
def proxy(root, endpoint, monkeypatch):  # noqa: ARG001  (it sets the environment first)
    made = bucket.Proxy(endpoint)
    _environment(monkeypatch, made.address)
    yield made
    made.close()
