"""Ingest alone as a flow: it writes the expression store and nothing after it."""

from pathlib import Path

import pytest

from dglzarr.errors import StoreError
from dglzarr.query import describe
from dglzarr.settings import load_settings
from dglzarr.testing import write_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flow(flows):
    return flows.ingest_flow


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("flow"), n_samples=40, n_genes=60)


def test_ingest_flow__writes_expression_only_and_once(flow, file):
    settings = load_settings(file, ("cluster.kind=none",))
    uri = flow(settings)
    assert uri == f"{settings.root}/segments/0000/expression.zarr"
    first = describe(uri)
    assert first["complete"]
    assert sorted(p.name for p in Path(uri).parent.iterdir()) == ["expression.zarr"]
    assert flow(settings) == uri
    assert describe(uri)["store_id"] == first["store_id"]


def test_ingest_flow__other_parameters_fail_it_until_overwritten(flow, file, tmp_path):
    settings = load_settings(file, ("cluster.kind=none", f"root={tmp_path}/study"))
    before = describe(flow(settings))
    other = settings.model_copy(update={"seed": 1})
    state = flow(other, return_state=True)
    assert state.is_failed()
    assert "seed: 0 -> 1" in state.message
    assert isinstance(state.result(raise_on_failure=False), StoreError)
    after = describe(flow(other, overwrite=True))
    assert after["store_id"] != before["store_id"]
    assert after["parameters"]["seed"] == 1
