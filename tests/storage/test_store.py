import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage import declare as layout
from dglzarr.storage import files, store
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import CONTRIBUTIONS, EXPRESSION, NORMALIZED, RAW, SAMPLES, SPECS
from dglzarr.storage.shards import open_matrix
from dglzarr.storage.store import Region

SEGMENTS = (5, 32, 33)
N_GENES = 7


def whole_array(array, sizes):
    """Values that tell each element of an array from the others."""
    numbers = np.arange(math.prod(sizes[d] for d in array.dims))
    shape = tuple(sizes[d] for d in array.dims)
    if array.dtype == "str":
        return np.array([f"{array.name}-{i}" for i in numbers]).reshape(shape)
    return numbers.astype(array.dtype).reshape(shape)


class Study:
    """A store of any spec with known values, to be written in steps."""

    def __init__(self, uri, spec=RAW, *, n_samples=70, region_length=16, first=0, n_genes=N_GENES):
        self.uri = str(uri)
        self.spec = spec
        self.region_length = region_length
        n_regions = math.ceil(n_samples / region_length)
        sizes = {"sample": n_samples, "gene": n_genes, "region": n_regions}
        self.sizes = {d: sizes.get(d, 3) for a in spec.arrays for d in a.dims}
        self.arrays = {"sample": np.array([f"s{i}" for i in range(first, first + n_samples)])}
        self.ran = []

    def __getitem__(self, name):
        if name not in self.arrays:
            self.arrays[name] = whole_array(self.spec[name], self.sizes)
        return self.arrays[name]

    def written(self, when):
        return {a.name: self[a.name] for a in self.spec.arrays if a.written == when}

    def claim(self, *, inputs=(), parameters=None, overwrite=False):
        return store.claim_store(
            self.uri, self.spec, inputs=inputs, parameters=parameters or {}, overwrite=overwrite
        )

    def create(self, **options):
        length = self.region_length if self.spec.region_arrays else None
        store.create_store(self.claim(**options), self.written("create"), region_length=length)
        return self

    def values(self, region):
        own = slice(region.index, region.index + 1)
        return {
            a.name: self[a.name][own if a.dims[0] == "region" else region.rows]
            for a in self.spec.region_arrays
        }

    def write(self, uri, region):
        self.ran.append(region.index)
        store.write_region(uri, region, self.values(region))
        return region.index

    def write_missing(self):
        if self.spec.region_arrays:
            store.map_regions(self.write, self.uri, what="write")
        return self

    def finish(self, **options):
        return store.finish(
            self.uri, started=time.monotonic(), arrays=self.written("finish"), **options
        )

    def complete(self):
        self.create().write_missing().finish()
        return self


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path / "raw.zarr")


def shard(uri, region, name="expression"):
    return Path(uri, name, "c", str(region), "0")


def set_attributes(uri, **changes):
    zarr.open_group(uri, mode="r+").attrs.update(changes)


def digests(uri, name="expression"):
    found = sorted(Path(uri, name, "c").rglob("*"))
    return {
        str(p.relative_to(uri)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in found
        if p.is_file()
    }


# ---------------------------------------------------------------- layout


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
    study = Study(
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
    study = Study(tmp_path / "x", spec).create()
    for array in (a for a in spec.arrays if a.is_matrix):
        assert open_matrix(study.uri, array.name) is not None
        assert zarr.open_array(study.uri, path=array.name, mode="r").compressors == ()


def test_create_store__no_two_regions_share_an_object(tmp_path):
    study = Study(tmp_path / "x", CONTRIBUTIONS).create()
    group = zarr.open_group(study.uri, mode="r")
    chunks = {a.name: group[a.name].chunks for a in study.spec.region_arrays}
    assert chunks["latent_total"] == (1, 3, N_GENES)
    assert chunks["n_scored"] == (1,)
    assert chunks["delta_error"] == (16,)
    assert group["contribution"].shards == (16, N_GENES)
    assert group["sample"].chunks == (70,)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_create_store__writes_labels_and_common_attributes(tmp_path, spec):
    inputs = [{"uri": "a.zarr", "store_id": "1"}]
    study = Study(tmp_path / "x", spec).create(inputs=inputs, parameters={"seed": 3, "q": (1, 2)})
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
        Study(tmp_path / "file" / "x.zarr").create()


@pytest.mark.parametrize(
    "text",
    ["", "plain", " spaced ", "naïve β-catenin", "日本語", "tab\there", "a" * 300, "🧬"],
    ids=ascii,
)
def test_create_store__text_round_trip(tmp_path, text):
    study = Study(tmp_path / "x")
    study.arrays["series"] = np.array([text] * 70)
    study.complete()
    got = store.open_store(study.uri)["series"].to_numpy()
    assert got.tolist() == [text] * 70
    assert zarr.open_array(study.uri, path="series", mode="r").dtype == np.dtypes.StringDType()


# ---------------------------------------------------------------- claim


def test_claim_store__nothing_there_is_new_and_writes_nothing(study):
    assert study.claim().state == "new"
    assert not Path(study.uri).exists()


def test_claim_store__empty_folder_is_new(study):
    Path(study.uri).mkdir()
    assert study.claim().state == "new"
    study.complete()


def test_claim_store__begun_is_resumed(study):
    assert study.create().claim().state == "resumed"


def test_claim_store__finished_is_unchanged(study):
    before = store.read_attributes(study.complete().uri)
    assert study.claim().state == "unchanged"
    assert store.read_attributes(study.uri) == before


def test_claim_store__version_of_the_package_does_not_matter(study):
    set_attributes(study.complete().uri, dglzarr_version="0.0.1")
    assert study.claim().state == "unchanged"


@pytest.mark.parametrize("finished", [False, True], ids=["begun", "finished"])
def test_claim_store__other_parameters_are_refused(study, finished):
    study.create(parameters={"seed": 1, "ties": "midrank"})
    if finished:
        study.write_missing().finish()
    message = r"raw\.zarr: was made with other parameters: seed 1 -> 2\. Replace it \(--overwrite\)"
    with pytest.raises(StoreError, match=message):
        study.claim(parameters={"seed": 2, "ties": "midrank"})
    assert store.is_complete(study.uri) is finished


def test_claim_store__at_most_five_parameters_are_shown(study):
    study.create(parameters={f"p{i}": 0 for i in range(7)})
    with pytest.raises(StoreError, match="p4 0 -> 1") as error:
        study.claim(parameters={f"p{i}": 1 for i in range(7)})
    assert "p5" not in str(error.value)


def test_claim_store__an_added_parameter_is_another_parameter(study):
    study.create(parameters={"seed": 1})
    with pytest.raises(StoreError, match="ties None -> 'midrank'"):
        study.claim(parameters={"seed": 1, "ties": "midrank"})


def test_claim_store__other_inputs_are_refused(study):
    study.create(inputs=[{"uri": "old.zarr", "store_id": "1"}])
    with pytest.raises(StoreError, match=r"was made from other inputs: new\.zarr\. Replace"):
        study.claim(inputs=[{"uri": "new.zarr", "store_id": "2"}])


def test_claim_store__a_moved_input_is_the_same_input(study):
    study.create(inputs=[{"uri": "old.zarr", "store_id": "1"}])
    assert study.claim(inputs=[{"uri": "moved.zarr", "store_id": "1"}]).state == "resumed"


def test_claim_store__overwrite_removes_another_store(study):
    study.create(parameters={"seed": 1}).write_missing().finish()
    assert study.claim(parameters={"seed": 2}, overwrite=True).state == "new"
    assert not Path(study.uri).exists()


def test_claim_store__overwrite_keeps_an_equal_store(study):
    study.complete()
    assert study.claim(overwrite=True).state == "unchanged"


def test_claim_store__other_schema_is_refused(study):
    Study(study.uri, EXPRESSION).complete()
    with pytest.raises(StoreError, match="expected dglzarr_schema 'raw', got 'expression'"):
        study.claim()


def test_claim_store__other_version_is_refused(study):
    set_attributes(study.complete().uri, dglzarr_schema_version=99)
    with pytest.raises(StoreError, match=r"expected dglzarr_schema_version \d+, got 99\. Replace"):
        study.claim()


@pytest.mark.parametrize("overwrite", [False, True])
def test_claim_store__foreign_group_is_refused_and_kept(study, overwrite):
    zarr.create_array(study.uri + "/a", shape=(3,), dtype="f4")
    zarr.open_group(study.uri, mode="a")
    partial = Path(study.uri, "a", "c.partial")
    partial.touch()
    with pytest.raises(StoreError, match="expected a dglzarr store, got a foreign Zarr group"):
        study.claim(overwrite=overwrite)
    assert Path(study.uri, "a", "zarr.json").exists()
    assert partial.exists()


def test_claim_store__killed_while_writing_the_first_file_is_new(study):
    partial = Path(study.uri, "zarr.0123456789abcdef.partial")
    partial.parent.mkdir()
    partial.touch()
    assert study.claim().state == "new"
    study.create()
    assert study.claim().state == "resumed"
    assert not partial.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_claim_store__other_files_are_refused_and_kept(study, overwrite):
    thesis = Path(study.uri, "thesis.txt")
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    with pytest.raises(StoreError, match="expected a dglzarr store or nothing, got other files"):
        study.claim(overwrite=overwrite)
    assert thesis.read_text() == "years of work"


def test_claim_store__a_file_is_refused(study):
    Path(study.uri).touch()
    with pytest.raises(StoreError, match="got other files"):
        study.claim()


def test_claim_store__half_created_is_removed(study):
    begun = {"dglzarr_schema": "raw", "created": "", "complete": False}
    zarr.open_group(study.uri, mode="w-", zarr_format=3, attributes=begun)
    with pytest.raises(StoreError, match="not complete"):
        store.open_store(study.uri)
    assert study.claim().state == "new"
    assert not Path(study.uri).exists()


@pytest.mark.parametrize("n_steps", range(1, 12, 2))
def test_create_store__killed_while_creating_starts_anew(study, monkeypatch, n_steps):
    steps = iter(range(n_steps))

    def create_some(*args):
        next(steps)
        return create_array(*args)

    create_array = store._create_array
    monkeypatch.setattr(store, "_create_array", create_some)
    try:
        study.create()
    except RuntimeError:
        pass
    except StopIteration:
        assert study.claim().state == "new"
    monkeypatch.undo()
    if study.claim().state == "new":
        study.create()
    study.write_missing().finish()
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


def test_claim_store__killed_while_removing_starts_anew(study, monkeypatch):
    study.create(parameters={"seed": 1}).write_missing().finish()
    filesystem, _ = files.open_filesystem(study.uri)
    remove = type(filesystem).rm
    calls = iter(range(1))

    def remove_once(self, *args, **kwargs):
        try:
            next(calls)
        except StopIteration:
            raise KeyboardInterrupt from None
        return remove(self, *args, **kwargs)

    monkeypatch.setattr(type(filesystem), "rm", remove_once)
    with pytest.raises(KeyboardInterrupt):
        study.claim(parameters={"seed": 2}, overwrite=True)
    monkeypatch.undo()
    assert not store.is_complete(study.uri)
    assert study.claim(parameters={"seed": 2}).state == "new"


def test_claim_store__sweeps_partial_files(study):
    study.create().write_missing()
    partial = shard(study.uri, 1).with_name("0.0123456789abcdef.partial")
    shard(study.uri, 1).rename(partial)
    assert [r.index for r in store.missing_regions(study.uri)] == [1]
    assert study.claim().state == "resumed"
    assert not partial.exists()
    assert shard(study.uri, 0).exists()


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize(
    ("n_samples", "length", "expected"),
    [
        (70, 16, [(0, 16), (16, 32), (32, 48), (48, 64), (64, 70)]),
        (64, 32, [(0, 32), (32, 64)]),
        (5, 16, [(0, 5)]),
    ],
)
def test_regions__cover_all_samples_in_order(tmp_path, n_samples, length, expected):
    study = Study(tmp_path / "x", n_samples=n_samples, region_length=length).create()
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
    study = Study(tmp_path / "x", CONTRIBUTIONS).create().write_missing()
    target = Path(study.uri, name, "c", "3")
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert [r.index for r in store.missing_regions(study.uri)] == [3]


def test_write_region__of_a_store_that_was_replaced_is_refused(study):
    study.create()
    (old, *_) = store.regions(study.uri)
    study.claim(parameters={"seed": 1}, overwrite=True)
    study.create(parameters={"seed": 1})
    with pytest.raises(StoreError, match=r"got one that has replaced it\. Another run is"):
        study.write(study.uri, old)
    assert store.missing_regions(study.uri) == store.regions(study.uri)


def test_write_region__shard_without_values_is_written(tmp_path):
    study = Study(tmp_path / "x", EXPRESSION)
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
    study = Study(tmp_path / "x", CONTRIBUTIONS).create()
    Path(study.uri, "contribution", "c").write_text("in the way")
    message = "x, region 2: cannot be written: .* Mend that and run again; finished regions are"
    with pytest.raises(StoreError, match=message):
        study.write(study.uri, store.regions(study.uri)[2])
    assert shard(study.uri, 2, "latent_total").is_dir()
    Path(study.uri, "contribution", "c").unlink()
    assert len(store.missing_regions(study.uri)) == 5


def test_write_region__source_that_cannot_be_read_is_named(study, tmp_path):
    source = Study(tmp_path / "source", study.spec).create().write_missing()
    shard(source.uri, 2).unlink()
    study.create()
    region = store.regions(study.uri)[2]
    blocks = (Rows(source.uri)[window] for window in region.windows())
    with pytest.raises(StoreError, match=r"^\S*source: region 2 of 'expression' is missing"):
        store.write_region(study.uri, region, {"expression": blocks})
    assert region in store.missing_regions(study.uri)


def test_write_region__again_gives_the_same_bytes(study):
    study.create().write_missing()
    before = digests(study.uri)
    study.write(study.uri, store.regions(study.uri)[1])
    assert digests(study.uri) == before


@settings(max_examples=8)
@given(order=st.permutations(range(5)))
def test_write_region__any_order_same_bytes(tmp_path_factory, order):
    ordered = Study(tmp_path_factory.mktemp("a") / "x").create().write_missing()
    shuffled = Study(tmp_path_factory.mktemp("b") / "x").create()
    for index in order:
        shuffled.write(shuffled.uri, store.regions(shuffled.uri)[index])
    assert digests(shuffled.uri) == digests(ordered.uri)
    shutil.rmtree(ordered.uri)
    shutil.rmtree(shuffled.uri)


# ---------------------------------------------------------------- tasks


def test_map_regions__resumes_with_the_missing_ones_only(study):
    study.create().write_missing()
    before = digests(study.uri)
    shard(study.uri, 3).unlink()
    study.ran.clear()
    assert store.map_regions(study.write, study.uri, what="write") == [3]
    assert study.ran == [3]
    assert digests(study.uri) == before


def test_map_regions__failing_task_leaves_the_store_incomplete_and_resumable(study):
    study.create()

    def fail_at_two(uri, region):
        if region.index == 2:
            raise RuntimeError("lost power")
        return study.write(uri, region)

    with pytest.raises(RuntimeError, match="lost power"):
        store.map_regions(fail_at_two, study.uri, what="write")
    assert not store.is_complete(study.uri)
    missing = [r.index for r in store.missing_regions(study.uri)]
    assert 2 in missing
    assert store.map_regions(study.write, study.uri, what="write") == missing
    study.finish()


def test_map_regions__passes_keyword_arguments(study):
    study.create()
    got = store.map_regions(
        lambda uri, region, *, scale: (uri, region.index * scale), study.uri, what="x", scale=10
    )
    assert got == [(study.uri, 10 * i) for i in range(5)]


def test_reduce_regions__all_regions_in_order_also_when_written(study):
    study.create().write_missing()
    got = store.reduce_regions(lambda _, region: region.start, study.uri, what="read")
    assert got == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_run_tasks__results_in_the_order_of_the_tasks(scheduler):
    def wait(number):
        time.sleep(0.002 * (8 - number))
        return number

    with dask.config.set(scheduler=scheduler):
        assert store.run_tasks(wait, [(i,) for i in range(8)], what="wait") == list(range(8))


def test_run_tasks__equal_tasks_each_run():
    calls = []
    assert store.run_tasks(calls.append, [(1,), (1,), (1,)], what="append") == [None] * 3
    assert calls == [1, 1, 1]


def test_run_tasks__no_tasks():
    seen = []
    assert store.run_tasks(len, [], what="none", on_progress=lambda *a: seen.append(a)) == []
    assert seen == [("none", 0, 0)]


def test_run_tasks__reports_each_finished_task():
    seen = []
    tasks = [("{} {names}", {"a": [1, i]}) for i in range(3)]
    got = store.run_tasks(
        str.format, tasks, what="work", on_progress=lambda *a: seen.append(a), names=["x", "y"]
    )
    assert got[2] == "{'a': [1, 2]} ['x', 'y']"
    assert seen == [("work", i, 3) for i in range(4)]


@pytest.mark.slow
def test_run_tasks__cluster_survives_a_killed_worker(tmp_path):
    from distributed import Client, LocalCluster

    study = Study(tmp_path / "x").create()
    mark, uri, seen = str(tmp_path / "killed"), study.uri, []
    values = [study.values(region) for region in store.regions(uri)]

    def work(uri, region, values):
        if region.index == 2 and not os.path.exists(mark):  # noqa: PTH110
            os.close(os.open(mark, os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)
        store.write_region(uri, region, values[region.index])
        return region.index, threading.get_ident(), os.getpid()

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        got = store.map_regions(
            work, uri, what="write", values=values, on_progress=lambda *a: seen.append(a)
        )
        assert store.reduce_regions(lambda _, r: r.index, uri, what="read") == [0, 1, 2, 3, 4]
    assert Path(mark).exists()
    assert [index for index, *_ in got] == [0, 1, 2, 3, 4]
    assert os.getpid() not in {pid for *_, pid in got}
    assert seen[0] == ("write", 0, 5)
    assert seen[-1] == ("write", 5, 5)
    study.finish()
    assert (store.open_store(uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.mark.slow
def test_write_region__concurrent_neighbours_give_the_same_bytes(tmp_path):
    alone = Study(tmp_path / "alone", n_samples=300).create().write_missing()
    study = Study(tmp_path / "together", n_samples=300).create()
    tasks = [(study.uri, region, study.values(region)) for region in store.regions(study.uri)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(store.write_region, tasks * 3, chunksize=1)
    assert digests(study.uri) == digests(alone.uri)
    study.finish()
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    as_root = ["/usr/bin/env", *(() if os.geteuid() == 0 else ("sudo", "-n"))]
    options = f"size=64m,uid={os.geteuid()},mode=700"
    command = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("mounting a small disk needs root")
    yield place
    subprocess.run([*as_root, "umount", str(place)], check=True)


@pytest.mark.slow
def test_write_region__disk_full_and_then_resumed(small_disk):
    study = Study(small_disk / "x", NORMALIZED, n_samples=320, region_length=64, n_genes=20_000)
    study.create()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(50 << 20))
    message = r"region \d: cannot be written: .*No space left"
    with dask.config.set(scheduler="synchronous"), pytest.raises(StoreError, match=message):
        study.write_missing()
    left = [r.index for r in store.missing_regions(study.uri)]
    *kept, failed = study.ran
    assert kept
    assert left == sorted({*range(5)} - {*kept})
    assert failed in left
    assert list(Path(study.uri).rglob("*.partial")) == [], "what could not be written is removed"
    with pytest.raises(StoreError, match=r"regions, \d are missing"):
        study.finish()
    assert not store.is_complete(study.uri)
    filler.unlink()
    study.ran.clear()
    assert study.claim().state == "resumed"
    study.write_missing().finish()
    assert sorted(study.ran) == left, "what was written is not written again"
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.mark.slow
def test_create_store__disk_full(small_disk):
    (small_disk / "filler").write_bytes(bytes((64 << 20) - 4096))
    study = Study(small_disk / "x")
    with pytest.raises(StoreError, match=r"x: cannot be created: .*No space left.* free space"):
        study.create()
    (small_disk / "filler").unlink()
    assert study.claim().state == "new"
    study.complete()


# ---------------------------------------------------------------- finish


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_finish__every_store_reads_back_as_written(tmp_path, spec):
    study = Study(tmp_path / "x", spec).complete()
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
    assert store.summarize(study.uri, "unchanged").details == summary.details


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
    study = Study(tmp_path / "x", SAMPLES).create()
    del zarr.open_group(study.uri, mode="r+")["keep"]
    arrays = study.written("finish")
    del arrays["keep"]
    with pytest.raises(SchemaError, match="missing 'keep'"):
        store.finish(study.uri, started=0.0, arrays=arrays)
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


# ---------------------------------------------------------------- open


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
    message = r"expected schema 'raw' version 1, got version 99\. Run its stage again\."
    with pytest.raises(SchemaError, match=message):
        store.open_store(study.uri)


def test_open_store__content_that_breaks_the_spec_is_refused(study):
    del zarr.open_group(study.complete().uri, mode="r+")["series"]
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
            path.write_bytes(b"damaged")
    assert store.open_store(study.uri).sizes["sample"] == 70


def test_open_store__lost_regions_are_refused(study):
    study.complete()
    shutil.rmtree(Path(study.uri, "expression", "c", "2"))
    with pytest.raises(StoreError, match=r"1 regions are missing, the first is 2\. Run the stage"):
        store.open_store(study.uri)
    assert store.open_store(study.uri, whole=False).sizes["sample"] == 70
    before = digests(study.uri)
    assert study.claim().state == "resumed"
    study.ran.clear()
    study.write_missing().finish()
    assert study.ran == [2]
    assert len(digests(study.uri)) == len(before) + 1


def test_open_store__dask_chunks_are_regions(study):
    ds = store.open_store(study.complete().uri)
    assert ds["expression"].chunks == ((16, 16, 16, 16, 6), (N_GENES,))
    assert ds["series"].chunks is None


def test_open_store__labels_index(study):
    ds = store.open_store(study.complete().uri)
    value = ds["expression"].sel(sample="s3", gene="gene-2")
    assert value.to_numpy() == study["expression"][3, 2]


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Three segments of one logical matrix, and the matrix."""
    root = tmp_path_factory.mktemp("segments")
    starts = np.cumsum([0, *SEGMENTS])[:-1]
    studies = []
    for start, n_samples in zip(starts.tolist(), SEGMENTS, strict=True):
        study = Study(root / f"{start}.zarr", NORMALIZED, n_samples=n_samples, first=start)
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
    other = Study(tmp_path / "x", NORMALIZED, n_samples=20)
    other.arrays["gene"] = other["gene"][::-1]
    message = r"0\.zarr: expected segments that differ in samples only, got other genes .*'.*x'\]"
    with pytest.raises(SchemaError, match=message):
        store.open_store([uris[0], other.complete().uri])


def test_open_store__segments_with_another_reference_are_refused(segments, tmp_path):
    uris, _ = segments
    other = Study(tmp_path / "x", NORMALIZED, n_samples=20)
    other.arrays["quantile_reference"] = other["quantile_reference"] + 1
    with pytest.raises(SchemaError, match="expected segments that differ in samples only"):
        store.open_store([uris[0], other.complete().uri])


def test_open_store__an_incomplete_segment_is_refused(segments, tmp_path):
    uris, _ = segments
    begun = Study(tmp_path / "x", NORMALIZED, n_samples=20).create()
    with pytest.raises(StoreError, match="not complete"):
        store.open_store([*uris, begun.uri])


# ---------------------------------------------------------------- rows


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
    study = Study(tmp_path / "x", CONTRIBUTIONS).complete()
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


# ---------------------------------------------------------------- lineage


def test_store_input__names_the_store(study):
    study.complete()
    store_id = store.read_attributes(study.uri)["store_id"]
    assert store.store_input(study.uri) == {"uri": study.uri, "store_id": store_id}


def test_file_input__is_the_sha256_of_the_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc" * (1 << 21))
    got = files.file_input(str(path))
    assert got["uri"] == str(path)
    assert got["store_id"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_input__known_and_unchanged_is_not_read_again(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_bytes(b"abc")
    shutil.copy2(path, other)
    known = {"inputs": [{**files.file_input(str(path)), "store_id": "remembered"}]}
    assert files.file_input(str(path), known=known)["store_id"] == "remembered"
    assert files.file_input(str(other), known=known)["store_id"] != "remembered"
    path.write_bytes(b"abcd")
    sha256 = hashlib.sha256(b"abcd").hexdigest()
    assert files.file_input(str(path), known=known)["store_id"] == sha256


def test_file_input__follows_a_change(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc")
    before = files.file_input(str(path))
    path.write_bytes(b"abcd")
    assert files.file_input(str(path)) != before


def test_store_nbytes__nothing_there_is_zero(tmp_path):
    assert files.store_nbytes(str(tmp_path / "none")) == 0


def test_read_attributes__none_where_there_is_no_group(tmp_path):
    assert store.read_attributes(str(tmp_path)) is None
    assert store.is_complete(str(tmp_path)) is False


def test_store__metadata_is_plain_zarr_3(study):
    study.complete()
    group = json.loads(Path(study.uri, "zarr.json").read_text())
    assert group["zarr_format"] == 3
    assert group["node_type"] == "group"
    array = json.loads(Path(study.uri, "expression", "zarr.json").read_text())
    assert array["dimension_names"] == ["sample", "gene"]
    assert array["codecs"][0]["name"] == "sharding_indexed"
