"""How a store is written: created, region by region, finished."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage import declare as layout
from dglzarr.storage import store
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import CONTRIBUTIONS, EXPRESSION, SAMPLES, SPECS
from dglzarr.storage.shards import open_matrix
from dglzarr.storage.store import Region
from tests.builders import N_GENES, KnownStore, shard, shard_digests


@pytest.mark.parametrize(
    ("n_samples", "n_genes", "chunks", "shards"),
    [
        (129_158, 22_268, (256, 2_025), (2_048, 22_275)),
        (8_192, 22_268, (256, 2_025), (1_024, 22_275)),
        (2_921, 10_463, (256, 2_093), (256, 10_465)),
        (571, 22_268, (256, 2_025), (256, 22_275)),
        (300, 100, (256, 100), (256, 100)),
        (40, 12, (48, 12), (48, 12)),
    ],
)
def test_create_store__chunk_layout(tmp_path, n_samples, n_genes, chunks, shards):
    length = layout.shard_samples(n_samples)
    study = KnownStore(
        tmp_path / "x", EXPRESSION, n_samples=n_samples, region_length=length, n_genes=n_genes
    )
    array = zarr.open_array(study.create().uri, path="expression", mode="r")
    assert array.shape == (n_samples, n_genes)
    assert array.chunks == chunks
    assert array.shards == shards
    assert array.dtype == np.float32
    assert math.isnan(array.fill_value)
    assert len(store.regions(study.uri)) == math.ceil(n_samples / shards[0])
    padding = shards[1] - n_genes
    assert padding <= 0.001 * n_genes


@pytest.mark.parametrize(
    "spec", [s for s in SPECS.values() if any(a.is_matrix for a in s.arrays)], ids=lambda s: s.name
)
def test_create_store__matrices_are_not_compressed(tmp_path, spec):
    study = KnownStore(tmp_path / "x", spec).create()
    for array in (a for a in spec.arrays if a.is_matrix):
        assert open_matrix(study.uri, array.name) is not None
        assert zarr.open_array(study.uri, path=array.name, mode="r").compressors == ()


def test_create_store__no_two_regions_share_an_object(tmp_path):
    study = KnownStore(tmp_path / "x", CONTRIBUTIONS).create()
    group = zarr.open_group(study.uri, mode="r")
    chunks = {a.name: group[a.name].chunks for a in study.spec.region_arrays}
    assert chunks["latent_total"] == (1, 3, N_GENES)
    assert chunks["n_scored"] == (1,)
    assert chunks["delta_error"] == (16,)
    assert group["contribution"].shards == (16, N_GENES)
    assert group["sample"].chunks == (70,)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_create_store__writes_labels_and_common_attributes(tmp_path, spec):
    source = KnownStore(tmp_path / "source.zarr").complete().uri
    inputs = [{"role": "source", **store.store_input(source)}]
    study = KnownStore(tmp_path / "x", spec).create(
        inputs={"source": source}, parameters={"seed": 3, "q": (1, 2)}
    )
    attributes = store.read_attributes(study.uri)
    assert attributes["dglzarr_schema"] == spec.name
    assert attributes["dglzarr_schema_version"] == spec.version
    assert attributes["inputs"] == inputs
    assert attributes["parameters"] == {"seed": 3, "q": [1, 2]}
    assert attributes["complete"] is False
    assert attributes["created"].endswith("+00:00")
    assert len(attributes["store_id"]) == 36
    assert attributes["dglzarr_version"]
    group = zarr.open_group(study.uri, mode="r")
    for array in spec.arrays:
        if array.written == "create":
            assert (group[array.name][...] == study[array.name]).all()
    for name in group.array_keys():
        assert group[name].attrs["description"] == spec[name].description
        assert group[name].attrs.get("units") == spec[name].units


def test_create_store__place_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"x\.zarr: cannot be created: .* Choose a writable root"):
        KnownStore(tmp_path / "file" / "x.zarr").create()


@pytest.mark.parametrize(
    "text",
    ["", "plain", " spaced ", "naïve β-catenin", "日本語", "tab\there", "a" * 300, "🧬"],
    ids=ascii,
)
def test_create_store__text_round_trip(tmp_path, text):
    study = KnownStore(tmp_path / "x")
    study.arrays["series"] = np.array([text] * 70)
    study.complete()
    got = store.open_store(study.uri)["series"].to_numpy()
    assert got.tolist() == [text] * 70
    assert zarr.open_array(study.uri, path="series", mode="r").dtype == np.dtypes.StringDType()


@pytest.mark.parametrize(
    ("n_samples", "length", "expected"),
    [
        (70, 16, [(0, 16), (16, 32), (32, 48), (48, 64), (64, 70)]),
        (64, 32, [(0, 32), (32, 64)]),
        (5, 16, [(0, 5)]),
    ],
)
def test_regions__cover_all_samples_in_order(tmp_path, n_samples, length, expected):
    study = KnownStore(tmp_path / "x", n_samples=n_samples, region_length=length).create()
    got = store.regions(study.uri)
    assert [(r.start, r.stop) for r in got] == expected
    assert [r.index for r in got] == list(range(len(expected)))
    assert got[-1].rows == slice(*expected[-1])


def test_missing_regions__all_then_fewer_then_none(study):
    study.create()
    assert len(store.missing_regions(study.uri)) == 5
    study.write(study.uri, store.regions(study.uri)[2])
    assert [r.index for r in store.missing_regions(study.uri)] == [0, 1, 3, 4]
    study.write_missing()
    assert store.missing_regions(study.uri) == []


@pytest.mark.parametrize("name", [a.name for a in CONTRIBUTIONS.region_arrays])
def test_missing_regions__object_of_any_array(tmp_path, name):
    study = KnownStore(tmp_path / "x", CONTRIBUTIONS).create().write_missing()
    target = Path(study.uri, name, "c", "3")
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert [r.index for r in store.missing_regions(study.uri)] == [3]


def test_write_region__of_a_store_that_was_replaced_is_refused(study):
    study.create()
    (old, *_) = store.regions(study.uri)
    study.create(parameters={"seed": 1}, overwrite=True)
    with pytest.raises(StoreError, match=r"got one that has replaced it\. Another run is"):
        study.write(study.uri, old)
    assert store.missing_regions(study.uri) == store.regions(study.uri)


def test_write_region__shard_without_values_is_written(tmp_path):
    study = KnownStore(tmp_path / "x", EXPRESSION)
    for array in study.spec.region_arrays:
        empty = -1 if array.dtype.startswith("int") else np.nan
        study.arrays[array.name] = np.full_like(study[array.name], empty)
    study.create().write_missing()
    assert store.missing_regions(study.uri) == []
    study.finish()
    assert store.open_store(study.uri)["expression"].isnull().all()


@pytest.mark.parametrize(
    "region",
    [
        Region(0, 15, 0),
        Region(1, 17, 0),
        Region(0, 32, 0),
        Region(8, 24, 1),
        Region(16, 32, 0),
        Region(64, 80, 4),
        Region(80, 96, 5),
    ],
    ids=lambda r: f"{r.start}:{r.stop}@{r.index}",
)
def test_write_region__misaligned_is_refused(study, region):
    study.create()
    values = {"expression": np.zeros((region.stop - region.start, N_GENES), np.float32)}
    message = (
        rf"raw\.zarr: region {region.start}:{region.stop} is not aligned with shards of 16 samples"
        r"\. Use store\.regions\(\)\."
    )
    with pytest.raises(StoreError, match=message):
        store.write_region(study.uri, region, values)
    assert len(store.missing_regions(study.uri)) == 5


@pytest.mark.parametrize("shape", [(15, N_GENES), (16, N_GENES - 1), (16, 1), (1, N_GENES), (16,)])
def test_write_region__wrong_shape_is_never_stretched(study, shape):
    study.create()
    with pytest.raises(AssertionError):
        store.write_region(study.uri, Region(0, 16, 0), {"expression": np.zeros(shape, "f4")})
    assert len(store.missing_regions(study.uri)) == 5


@pytest.mark.parametrize("names", [[], ["expression", "extra"], ["extra"]], ids=str)
def test_write_region__all_arrays_and_no_others(study, names):
    study.create()
    values = dict.fromkeys(names, np.zeros((16, N_GENES), "f4"))
    with pytest.raises(AssertionError):
        store.write_region(study.uri, Region(0, 16, 0), values)


def test_write_region__partial_results_before_the_matrix(tmp_path):
    study = KnownStore(tmp_path / "x", CONTRIBUTIONS).create()
    Path(study.uri, "contribution", "c").write_text("in the way")
    message = "x, region 2: cannot be written: .* Mend that and run again; finished work is"
    with pytest.raises(StoreError, match=message):
        study.write(study.uri, store.regions(study.uri)[2])
    assert shard(study.uri, 2, "latent_total").is_dir()
    Path(study.uri, "contribution", "c").unlink()
    assert len(store.missing_regions(study.uri)) == 5


def test_write_region__source_that_cannot_be_read_is_named(study, tmp_path):
    source = KnownStore(tmp_path / "source", study.spec).create().write_missing()
    shard(source.uri, 2).unlink()
    study.create()
    region = store.regions(study.uri)[2]
    blocks = (Rows(source.uri)[window] for window in region.windows())
    with pytest.raises(StoreError, match=r"^\S*source: region 2 of 'expression' is missing"):
        store.write_region(study.uri, region, {"expression": blocks})
    assert region in store.missing_regions(study.uri)


def test_write_region__again_gives_the_same_bytes(study):
    study.create().write_missing()
    before = shard_digests(study)
    study.write(study.uri, store.regions(study.uri)[1])
    assert shard_digests(study) == before


@settings(max_examples=8)
@given(order=st.permutations(range(5)))
def test_write_region__any_order_same_bytes(tmp_path_factory, order):
    ordered = KnownStore(tmp_path_factory.mktemp("a") / "x").create().write_missing()
    shuffled = KnownStore(tmp_path_factory.mktemp("b") / "x").create()
    for index in order:
        shuffled.write(shuffled.uri, store.regions(shuffled.uri)[index])
    assert shard_digests(shuffled) == shard_digests(ordered)
    shutil.rmtree(ordered.uri)
    shutil.rmtree(shuffled.uri)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_finish__every_store_reads_back_as_written(tmp_path, spec):
    (tmp_path / "a[1] b*").mkdir()  # no pattern, but a name
    study = KnownStore(tmp_path / "a[1] b*" / "x", spec).complete()
    ds = store.open_store(study.uri, spec)
    assert set(ds.variables) == {a.name for a in spec.arrays}
    assert {str(c) for c in ds.coords} == {a.name for a in spec.arrays if a.is_coord}
    for array in spec.arrays:
        assert (ds[array.name].to_numpy() == study[array.name]).all(), array.name
        assert ds[array.name].dims == array.dims
    assert ds.attrs["complete"] is True


def test_finish__returns_the_summary(study):
    details = {"scale": "log2", "n": np.float32(1.5)}
    summary = study.create().write_missing().finish(details=details)
    assert summary.uri == study.uri
    assert summary.schema == "raw"
    assert summary.state == "new"
    assert summary.sizes["sample"] == 70
    assert summary.sizes["gene"] == N_GENES
    assert summary.details == {"scale": "log2", "n": 1.5}
    assert summary.seconds >= 0
    files = [p for p in Path(study.uri).rglob("*") if p.is_file()]
    assert summary.nbytes >= sum(p.stat().st_size for p in files)
    assert store.summarize(study.claim()).details == summary.details


def test_finish__sweeps_what_a_dead_worker_left(study):
    study.create().write_missing()
    partial = shard(study.uri, 1).with_name("0.0123456789abcdef.partial")
    partial.touch()
    study.finish()
    assert not partial.exists()


def test_finish__missing_regions_are_refused(study):
    study.create().write_missing()
    shard(study.uri, 1).unlink()
    shard(study.uri, 4).unlink()
    message = r"raw\.zarr: expected all regions, 2 are missing\. Run the stage again\."
    with pytest.raises(StoreError, match=message):
        study.finish()
    assert not store.is_complete(study.uri)


def test_finish__invalid_labels_are_refused_before_complete(study):
    study.arrays["gene"] = np.array(["g"] * N_GENES)
    study.create().write_missing()
    with pytest.raises(SchemaError, match="gene: labels repeat, for example 'g'"):
        study.finish()
    assert not store.is_complete(study.uri)


def test_finish__missing_result_is_refused_before_complete(tmp_path):
    study = KnownStore(tmp_path / "x", SAMPLES).create()
    del zarr.open_group(study.uri, mode="r+")["keep"]
    arrays = study.written("finish")
    del arrays["keep"]
    with pytest.raises(SchemaError, match="missing 'keep'"):
        store.finish(study.claim(), arrays=arrays)
    assert not store.is_complete(study.uri)


def test_finish__complete_is_the_last_thing_written(study, monkeypatch):
    seen = []
    validate = store.validate

    def spy(ds, spec):
        seen.append(store.is_complete(study.uri))
        validate(ds, spec)

    monkeypatch.setattr(store, "validate", spy)
    study.create().write_missing().finish()
    assert seen[0] is False
    assert store.is_complete(study.uri)
