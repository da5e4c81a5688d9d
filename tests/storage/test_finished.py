"""Finished stores are opened by their own metadata, as Zarr and xarray do, with few reads."""

import pickle
import shutil
import sys
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import dglzarr
from dglzarr.errors import StoreError
from dglzarr.query import describe_study
from dglzarr.storage import store
from dglzarr.storage.finished import read_finished
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED, SAMPLES, SPECS
from dglzarr.storage.study import SEGMENTED
from tests.builders import KnownStore, write_manifest

_opened: list[str] = []
_counting = ""


def _note(event, arguments):
    if _counting and event == "open" and str(arguments[0]).startswith(_counting):
        _opened.append(str(arguments[0]))


sys.addaudithook(_note)  # cannot be taken back; it does nothing unless asked to


def opened(folder, ask):
    """The files below a folder that a question opens."""
    global _counting
    _opened.clear()
    _counting = str(folder)
    try:
        ask()
    finally:
        _counting = ""
    return [str(Path(name).relative_to(folder)) for name in _opened]


def without_told(ds):
    return ds.drop_attrs(deep=False).assign_attrs(
        {n: v for n, v in ds.attrs.items() if n not in ("digest", "segments")}
    )


def write_segments(root, n_segments, names=SEGMENTED):
    for number in range(n_segments):
        for name in names:
            place = root / "segments" / f"{number:04d}" / f"{name}.zarr"
            known = KnownStore(place, SPECS[name], n_samples=20, first=20 * number)
            with dask.config.set(scheduler="synchronous"):
                known.complete()
    write_manifest(root, [f"{number:04d}" for number in range(n_segments)])
    return root


@pytest.mark.parametrize("name", sorted(SPECS))
def test_open_store__as_zarr_and_xarray_do(tmp_path, name):
    with dask.config.set(scheduler="synchronous"):
        uri = KnownStore(tmp_path / "known.zarr", SPECS[name]).complete().uri
    ds, known = store.open_store(uri), store._open_by_zarr(uri)
    xr.testing.assert_identical(without_told(ds).load(), without_told(known).load())
    for variable in known.variables:
        assert ds[variable].dtype == known[variable].dtype
        np.testing.assert_array_equal(read_array(uri, variable), known[variable].values)
    assert set(ds.xindexes) == set(known.xindexes)


def test_open_store__segments_as_xarray_joins_them(tmp_path):
    root = write_segments(tmp_path / "study", 3)
    for name in SEGMENTED:
        uris = [f"{root}/segments/{i:04d}/{name}.zarr" for i in range(3)]
        known = store._concatenate([store._open_by_zarr(uri) for uri in uris], uris)
        ds = store.open_store(uris)
        xr.testing.assert_identical(without_told(ds).load(), without_told(known).load())
        assert [told["uri"] for told in ds.attrs["segments"]] == uris


def test_open_store__segments_with_other_labels(tmp_path):
    parts = [KnownStore(tmp_path / f"{i}.zarr", NORMALIZED, first=70 * i) for i in range(2)]
    parts[1].arrays["label"] = np.array(["label-1", "other", "label-0"])
    uris = [part.complete().uri for part in parts]
    ds = store.open_store(uris)
    known = store._concatenate([store._open_by_zarr(uri) for uri in uris], uris)
    assert ds["label"].values.tolist() == ["label-0", "label-1", "label-2", "other"]
    np.testing.assert_array_equal(ds["sample_label"].values, known["sample_label"].values)
    assert ds["sample_label"].sel(sample="s70").values.tolist()[2] == ""


def test_open_study__files_opened_a_segment(tmp_path):
    """Metadata, record and samples of each store, and metadata once more for what it was made from.

    The rest is of the first segment alone.
    """
    counts = {}
    for n_segments in (2, 6):
        root = write_segments(tmp_path / str(n_segments), n_segments)
        counts[n_segments] = {
            "tree": len(opened(root, lambda r=root: dglzarr.open_study(r))),
            "info": len(opened(root, lambda r=root: describe_study(str(r)))),
        }
    more = {what: counts[6][what] - counts[2][what] for what in counts[2]}
    assert more == {"tree": 4 * 4 * len(SEGMENTED), "info": 4 * 2 * len(SEGMENTED)}
    again = opened(root, lambda: dglzarr.open_study(root))
    values = [n for n in again if "/c/" in n and not n.startswith("segments/0000/")]
    assert {name.split("/")[3] for name in values} == {"sample"}


def test_stored_matrix__reads_only_the_segments_asked_for(tmp_path):
    root = write_segments(tmp_path / "study", 3, ["normalized"])
    matrix = dglzarr.open(f"{root}#normalized").expression
    files = opened(root, lambda: matrix[25:30].values)
    assert {name.split("/")[1] for name in files} == {"0001"}
    assert matrix[5:5].values.shape == (0, matrix.shape[1])
    copied = pickle.loads(pickle.dumps(matrix.variable))  # noqa: S301  as a worker gets it
    np.testing.assert_array_equal(copied[[59, 0, 21], ::-1], matrix.values[[59, 0, 21], ::-1])


@pytest.mark.parametrize("damage", ["cut", "lost", "other bytes"])
def test_open_store__damage_of_a_later_segment_is_refused(tmp_path, damage):
    root = write_segments(tmp_path / "study", 2, ["samples"])
    uris = [f"{root}/segments/{i:04d}/samples.zarr" for i in range(2)]
    where = "sample" if damage == "other bytes" else "keep"
    place = Path(uris[1], where, "c", "0")
    content = place.read_bytes()
    if damage == "lost":
        place.unlink()
    else:
        place.write_bytes(content[:-1] if damage == "cut" else content[:-1] + b"\x00")
    with pytest.raises(StoreError, match=rf"0001/samples\.zarr: cannot be read: {where}/c/0 of"):
        store.open_store(uris, SAMPLES)


@pytest.mark.parametrize("name", ["series", "split"])
def test_open_store__one_that_was_replaced_since_is_not_read(tmp_path, name):
    known = KnownStore(tmp_path / "known.zarr", NORMALIZED)
    ds = store.open_store(known.complete().uri)
    shutil.rmtree(known.uri)
    other = KnownStore(tmp_path / "known.zarr", NORMALIZED)
    other.arrays[name] = other[name][::-1]
    other.complete()
    with pytest.raises(StoreError, match=rf"cannot be read: {name}/c/0 of '{name}' holds"):
        ds[name].load()


def test_read_finished__of_one_that_is_not_is_left_to_others(tmp_path):
    begun = KnownStore(tmp_path / "known.zarr").create()
    assert read_finished(begun.uri) is None
    assert read_finished(str(tmp_path / "nothing")) is None
    assert read_finished("memory://nothing") is None
    begun.write_missing().finish()
    found = read_finished(f"file://{begun.uri}")
    assert found is not None
    assert found.sizes["sample"] == 70
