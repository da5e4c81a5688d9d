"""Opening stores: whole ones of the right kind alone; segments are one matrix; rows."""

import shutil
import subprocess
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage import store
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import CONTRIBUTIONS, NORMALIZED, SPECS
from tests.builders import N_GENES, KnownStore, record_again, set_attributes, shard_digests

SEGMENTS = (5, 32, 33)


def test_open_store__nothing_there(study):
    with pytest.raises(StoreError, match=r"raw\.zarr: no such store\. Run the stage that writes"):
        store.open_store(study.uri)


@pytest.mark.parametrize("steps", [1, 2], ids=["created", "written"])
def test_open_store__incomplete_is_refused(study, steps):
    study.create()
    if steps == 2:
        study.write_missing()
    with pytest.raises(StoreError, match=r"raw\.zarr: not complete\. Run the stage that writes it"):
        store.open_store(study.uri)
    with pytest.raises(StoreError, match="not complete"):
        store.store_input(study.uri)


@pytest.mark.parametrize("attributes", [{}, {"dglzarr_schema": "other", "complete": True}])
def test_open_store__foreign_is_refused(study, attributes):
    zarr.open_group(study.uri, mode="w-", attributes=attributes)
    with pytest.raises(StoreError, match="expected a dglzarr store, got a foreign Zarr group"):
        store.open_store(study.uri)


def test_open_store__other_schema_is_refused(study):
    study.complete()
    with pytest.raises(SchemaError, match=r"raw\.zarr: expected schema 'scores', got 'raw'\."):
        store.open_store(study.uri, SPECS["scores"])


def test_open_store__other_version_is_refused(study):
    set_attributes(study.complete().uri, dglzarr_schema_version=99)
    message = r"newer than this .*schema 'raw' version \d at most, got 99\. Upgrade this dglzarr"
    with pytest.raises(SchemaError, match=message):
        store.open_store(study.uri)
    set_attributes(study.uri, dglzarr_schema_version=0)
    message = r"expected schema 'raw' version \d, got version 0\. Run its stage again\."
    with pytest.raises(SchemaError, match=message):
        store.open_store(study.uri)


def test_open_store__content_that_breaks_the_spec_is_refused(study):
    del zarr.open_group(study.complete().uri, mode="r+")["series"]
    record_again(study.uri)
    with pytest.raises(SchemaError, match="missing 'series'"):
        store.open_store(study.uri)


def test_open_store__computes_nothing(study):
    study.complete()
    expected = study["expression"]

    def fail(*_, **__):
        raise AssertionError("computed")

    with dask.config.set(scheduler=fail):
        ds = store.open_store([study.uri, study.uri])
        lazy = ds["expression"].mean("sample")
        with pytest.raises(AssertionError, match="computed"):
            lazy.compute()
    assert lazy.to_numpy() == pytest.approx(expected.mean(axis=0))


def test_open_store__does_not_read_the_matrix(study):
    study.complete()
    for path in Path(study.uri, "expression", "c").rglob("0"):
        if path.is_file():
            path.write_bytes(b"\xff" * path.stat().st_size)
    assert store.open_store(study.uri).sizes["sample"] == 70


def test_open_store__lost_regions_are_refused(study):
    study.complete()
    shutil.rmtree(Path(study.uri, "expression", "c", "2"))
    with pytest.raises(StoreError, match=r"1 regions are missing, the first is 2\. Run the stage"):
        store.open_store(study.uri)
    assert store.open_store(study.uri, whole=False).sizes["sample"] == 70
    before = shard_digests(study)
    assert study.claim().state == "resumed"
    study.ran.clear()
    study.write_missing().finish()
    assert study.ran == [2]
    assert len(shard_digests(study)) == len(before) + 1


def test_open_store__dask_chunks_are_regions(study):
    ds = store.open_store(study.complete().uri)
    assert ds["expression"].chunks == ((16, 16, 16, 16, 6), (N_GENES,))
    assert ds["series"].chunks is None


def test_open_store__labels_index(study):
    ds = store.open_store(study.complete().uri)
    value = ds["expression"].sel(sample="s3", gene="gene-2")
    assert value.to_numpy() == study["expression"][3, 2]


def test_open_labels__loads_no_arrays_of_dask(study):
    uri = study.complete().uri
    code = (
        "import sys; from dglzarr.storage.store import open_labels; "
        f"print(open_labels({uri!r}).series.values[0], 'dask.array' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    labels = store.open_labels(uri)
    assert done.stdout.split() == [str(labels.series.values[0]), "False"]
    assert "expression" not in labels


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Three segments of one logical matrix, and the matrix."""
    root = tmp_path_factory.mktemp("segments")
    starts = np.cumsum([0, *SEGMENTS])[:-1]
    studies = []
    for start, n_samples in zip(starts.tolist(), SEGMENTS, strict=True):
        study = KnownStore(root / f"{start}.zarr", NORMALIZED, n_samples=n_samples, first=start)
        study.arrays["expression"] = study["expression"] + np.float32(start * N_GENES)
        with dask.config.set(scheduler="synchronous"):
            studies.append(study.complete())
    matrix = np.concatenate([s["expression"] for s in studies])
    return [s.uri for s in studies], matrix


def test_open_store__segments_are_one_matrix(segments):
    uris, matrix = segments
    ds = store.open_store(uris, NORMALIZED)
    assert ds["expression"].dims == ("sample", "gene")
    assert (ds["expression"].to_numpy() == matrix).all()
    assert ds["sample"].to_numpy().tolist() == [f"s{i}" for i in range(sum(SEGMENTS))]
    assert ds["gene_symbol"].dims == ("gene",)
    assert ds["quantile_reference"].dims == ("quantile",)
    assert ds["series"].dims == ("sample",)


def test_rows_take__some_genes_in_slices_of_segments(segments, monkeypatch, rng):
    uris, matrix = segments
    monkeypatch.setattr("dglzarr.storage.rows.ROWS_NBYTES", 5 * 4 * N_GENES)
    index, genes = rng.integers(len(matrix), size=33), np.array([5, 0, N_GENES - 1, 5])
    for rows in (index, np.sort(index)):
        np.testing.assert_array_equal(Rows(uris).take(rows, genes), matrix[np.ix_(rows, genes)])


def test_open_store__one_segment_is_that_store(segments):
    uris, _ = segments
    xr.testing.assert_identical(store.open_store(uris[:1]), store.open_store(uris[0]))


def test_open_store__segments_with_other_genes_are_refused(segments, tmp_path):
    uris, _ = segments
    other = KnownStore(tmp_path / "x", NORMALIZED, n_samples=20)
    other.arrays["gene"] = other["gene"][::-1]
    message = r"0\.zarr: expected segments that differ in samples only, got other genes .*'.*x'\]"
    with pytest.raises(SchemaError, match=message):
        store.open_store([uris[0], other.complete().uri])


def test_open_store__segments_with_another_reference_are_refused(segments, tmp_path):
    uris, _ = segments
    other = KnownStore(tmp_path / "x", NORMALIZED, n_samples=20)
    other.arrays["quantile_reference"] = other["quantile_reference"] + 1
    with pytest.raises(SchemaError, match="expected segments that differ in samples only"):
        store.open_store([uris[0], other.complete().uri])


def test_open_store__an_incomplete_segment_is_refused(segments, tmp_path):
    uris, _ = segments
    begun = KnownStore(tmp_path / "x", NORMALIZED, n_samples=20).create()
    with pytest.raises(StoreError, match="not complete"):
        store.open_store([*uris, begun.uri])


@given(
    st.integers(-80, 80) | st.none(),
    st.integers(-80, 80) | st.none(),
)
def test_rows__slices_as_numpy(segments, start, stop):
    uris, matrix = segments
    rows = Rows(uris)
    assert rows.shape == matrix.shape
    assert len(rows) == len(matrix)
    got = rows[start:stop]
    assert got.shape == matrix[start:stop].shape
    assert got.dtype == np.float32
    assert (got == matrix[start:stop]).all()


@given(st.lists(st.integers(0, sum(SEGMENTS) - 1)))
def test_rows_take__any_order_with_repeats_as_numpy(segments, index):
    uris, matrix = segments
    got = Rows(uris).take(np.array(index, dtype=np.int64))
    assert got.shape == (len(index), N_GENES)
    assert (got == matrix[index]).all()


@pytest.mark.parametrize("index", [-1, sum(SEGMENTS)])
def test_rows_take__outside_is_an_error(segments, index):
    uris, _ = segments
    with pytest.raises(AssertionError, match="row out of range"):
        Rows(uris).take(np.array([0, index]))


def test_rows__one_store_and_another_array(tmp_path):
    study = KnownStore(tmp_path / "x", CONTRIBUTIONS).complete()
    rows = Rows(study.uri, "contribution")
    assert (rows[20:40] == study["contribution"][20:40]).all()


def test_rows__an_older_compressed_store(tmp_path):
    values = np.arange(70 * 9, dtype=np.float32).reshape(70, 9)
    group = zarr.open_group(str(tmp_path / "old.zarr"), mode="w", zarr_format=3)
    packed = {"compressors": zarr.codecs.BloscCodec(cname="lz4")}
    array = group.create_array(
        "expression", shape=(70, 9), dtype="float32", chunks=(16, 4), shards=(32, 12), **packed
    )
    array[...] = values
    rows = Rows(str(tmp_path / "old.zarr"))
    assert (rows[20:40] == values[20:40]).all()
    assert rows[7:7].shape == (0, 9)
    index = np.array([69, 3, 31, 32, 3])
    assert (rows.take(index) == values[index]).all()
    for ascending in (np.array([4, 5, 6]), np.array([3, 31, 69])):
        out, places = np.zeros((5, 9), np.float32), np.array([4, 0, 2])
        rows.read_into(ascending, out, places)
        assert (out[places] == values[ascending]).all()
        assert not out[[1, 3]].any()
