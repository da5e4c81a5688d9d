"""Stores of older versions are read as those of now, and are as good; what is begun is not."""

import numpy as np
import pytest
import zarr

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage.schemas import COMPARISON, ENRICHMENT, GROUPS, LANDMARKS
from dglzarr.storage.store import check_claim, open_labels, open_store, store_input, take_claim
from tests.builders import set_attributes, text, times, write_landmarks, write_store

GENES = {name: text(["a", "b", "c"]) for name in ("gene", "gene_symbol", "gene_id")}
PANELS = {"mined": ["a", "b"], "greedy": ["c"], "random": ["a"], "random-0": ["b"], "l1000": ["c"]}
KINDS = ["mined", "selector", "selector", "random", "published"]


def outdated(uri, version, *names):
    """The same store as an older version wrote it."""
    group = zarr.open_group(uri, mode="r+")
    for name in names:
        del group[name]
    set_attributes(uri, dglzarr_schema_version=version)
    return uri


@pytest.fixture
def old(tmp_path):
    return outdated(write_landmarks(tmp_path / "landmarks.zarr", PANELS, GENES), 2, "kind")


@pytest.mark.parametrize("read", [open_store, open_labels])
def test_open_store__an_older_version_is_read_as_this_one(old, read):
    before = times(old)
    ds = read(old, LANDMARKS)
    assert ds["kind"].values.tolist() == KINDS
    assert ds.attrs["dglzarr_schema_version"] == LANDMARKS.version
    assert times(old) == before


def test_open_store__a_version_that_nobody_reads(old):
    outdated(old, 1)
    message = "expected schema 'landmarks' version 3, got version 1. Run its stage again"
    for read in (open_store, store_input):
        with pytest.raises(SchemaError, match=message):
            read(old)


def claim(uri, **parameters):
    return check_claim(uri, [LANDMARKS], inputs={}, parameters=parameters)


def test_check_claim__an_older_version_is_as_good_where_it_is_complete(old):
    assert take_claim(claim(old)).state == "unchanged"
    assert claim(old, seed=1).state == "refused"
    set_attributes(old, complete=False)
    with pytest.raises(StoreError, match="other parameters: dglzarr_schema_version: 2 -> 3"):
        take_claim(claim(old))


def test_with_kinds__of_panels_of_several_sizes_and_their_rows(tmp_path):
    families = ["mean", "greedy", "random", "random", "l1000", "random of l1000"]
    panels = ["mean/0", "greedy/2", "random-0/2", "random-1/2", "l1000/3", "random-l1000-0/2"]
    rows = list(dict.fromkeys(families))
    arrays = {
        "panel": text(panels), "family": text(families), "size": [0, 2, 2, 2, 3, 2],
        "row": text(rows), "row_family": text(rows), "predictor": text(["ridge"]),
        "sample": text(["s"]), "gene": text(["g"]), "fold": [0], "bound": text(["low", "high"]),
    }  # fmt: skip
    uri = write_store(tmp_path / "comparison.zarr", COMPARISON, arrays)
    ds = open_store(outdated(uri, 1, "kind", "row_kind"))
    kinds = ["baseline", "selector", "random", "random", "published", "subset"]
    assert ds["kind"].values.tolist() == kinds
    assert ds["row_kind"].values.tolist() == list(dict.fromkeys(kinds))


def test_with_kinds__of_representations_and_of_panels_with_terms(tmp_path):
    names = ["latent", "pca", "all genes", *(f"panel {name}" for name in PANELS)]
    arrays = {
        "representation": text(names), "merge": np.arange(1), "node": text(["left"]),
        "sample": text(["s0", "s1"]),
    }  # fmt: skip
    uri = write_store(tmp_path / "groups.zarr", GROUPS, arrays)
    assert open_store(outdated(uri, 1, "kind"))["kind"].values.tolist() == ["", "", "", *KINDS]
    arrays = {"panel": text(list(PANELS)), "term": text(["t"])}
    uri = write_store(tmp_path / "enrichment.zarr", ENRICHMENT, arrays)
    assert open_store(outdated(uri, 1, "kind"))["kind"].values.tolist() == KINDS
