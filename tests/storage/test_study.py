"""A study is a manifest over immutable segments, replaced in one step."""

import json
import logging
import shutil
import threading
from contextvars import Context
from pathlib import Path

import numpy as np
import pytest
import zarr

import dglzarr
from dglzarr.errors import BusyError, SchemaError, StoreError
from dglzarr.storage import study as storage
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED, SPECS
from dglzarr.storage.study import (
    MANIFEST,
    OPTIONAL,
    SEGMENTED,
    WHOLE,
    Study,
    create_study,
    locked,
    open_study,
    planned_study,
    turn,
)
from tests.builders import no_computing, record_again, write_manifest, write_matrix


def manifest(root):
    return json.loads((root / MANIFEST).read_text(encoding="utf-8"))


# ---------------------------------------------------------------- manifest


def test_create_study__one_segment(tmp_path):
    study = create_study(str(tmp_path / "deep" / "study"))
    assert study.segments == ("0000",)
    written = manifest(tmp_path / "deep" / "study")
    assert len(written.pop("digest")) == 64
    assert written == {"study_version": 1, "segments": ["0000"]}


def test_create_study__leaves_a_manifest_as_it_is(tmp_path):
    write_manifest(str(tmp_path), ["0000", "0001"])
    before = (tmp_path / MANIFEST).stat()
    assert create_study(str(tmp_path)).segments == ("0000", "0001")
    assert (tmp_path / MANIFEST).stat().st_mtime_ns == before.st_mtime_ns


def test_planned_study__writes_nothing(tmp_path):
    assert planned_study(str(tmp_path / "study")).segments == ("0000",)
    assert list(tmp_path.iterdir()) == []
    write_manifest(str(tmp_path), ["a", "b"])
    assert planned_study(str(tmp_path)).segments == ("a", "b")


@pytest.mark.parametrize("killed_in", ["write_bytes", "replace"])
def test_write_manifest__killed_half_way_leaves_the_old_one(killed_in, tmp_path, monkeypatch):
    """Whatever stops the writer before the replacement, readers see the old list."""
    write_manifest(str(tmp_path), ["0000"])
    write_bytes = Path.write_bytes

    def die(self, *_, **__):
        if killed_in == "write_bytes":
            write_bytes(self, b'{"study_version": 1, "segm')
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, killed_in, die)
    with pytest.raises(KeyboardInterrupt):
        write_manifest(str(tmp_path), ["0000", "0001"])
    monkeypatch.undo()
    assert open_study(str(tmp_path)).segments == ("0000",)
    write_manifest(str(tmp_path), ["0000", "0001"])
    assert open_study(str(tmp_path)).segments == ("0000", "0001")


def test_write_manifest__leaves_nothing_else(tmp_path):
    write_manifest(str(tmp_path), ["0000"])
    write_manifest(str(tmp_path), ["0000", "0001"])
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]


def test_write_manifest__refused_by_the_disk_leaves_nothing_else(tmp_path, monkeypatch):
    write_manifest(str(tmp_path), ["0000"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="No space left"):
        write_manifest(str(tmp_path), ["0000", "0001"])
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]


def test_write_manifest__of_a_study_that_another_run_has_grown(tmp_path):
    write_manifest(tmp_path, ["0000"])
    pinned = open_study(str(tmp_path))
    write_manifest(tmp_path, ["0000", "0001"])
    with pytest.raises(StoreError, match=r"study\.json: was changed by another run meanwhile"):
        storage.write_manifest(pinned, ["0000", "0007"])
    with pytest.raises(StoreError, match="was changed by another run meanwhile"):
        storage.write_manifest(Study(str(tmp_path), ()), ["0000"])
    assert open_study(str(tmp_path)).segments == ("0000", "0001")
    assert [p.name for p in tmp_path.iterdir()] == [MANIFEST]


def test_write_manifest__unwritable_root(tmp_path):
    (tmp_path / "file").touch()
    message = r"file: cannot be written: .* Choose a writable root\."
    with pytest.raises(StoreError, match=message):
        write_manifest(str(tmp_path / "file"), ["0000"])


def test_open_study__pinned_to_the_manifest_of_that_moment(tmp_path):
    write_manifest(str(tmp_path), ["0000"])
    pinned = open_study(str(tmp_path))
    write_manifest(str(tmp_path), ["0000", "0001"])
    assert len(pinned.uris("normalized")) == 1
    assert len(open_study(str(tmp_path)).uris("normalized")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no study here \(study\.json is missing\)\. Run 'dglzarr mine'"),
        (
            '{"study_version": 2, "segments": []}',
            r"study\.json: expected a manifest of study_version 1, got 2",
        ),
        ("{}", r"study\.json: expected a manifest of study_version 1, got None"),
        ("[]", r"study\.json: expected a manifest of study_version 1, got \[\]"),
        ('{"study_version": 1, "segm', r"study\.json: expected a manifest"),
        ('{"study_version": 1}', r"study\.json: expected a list of segments"),
        ('{"study_version": 1, "segments": []}', r"study\.json: expected a list of segments"),
        ('{"study_version": 1, "segments": "0000"}', r"study\.json: expected a list of segments"),
    ],
    ids=["none", "newer", "empty", "list", "cut", "no segments", "zero segments", "text"],
)
def test_open_study__refuses(text, message, tmp_path):
    if text is not None:
        (tmp_path / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=message):
        open_study(str(tmp_path))


# ---------------------------------------------------------------- places


def test_study__where_things_stand():
    study = Study("/s", ("0000", "0001"))
    assert study.raw("GSE1") == "/s/raw/GSE1.zarr"
    for name in SEGMENTED:
        assert study.uris(name) == [f"/s/segments/{i}/{name}.zarr" for i in ("0000", "0001")]
        assert study.uri(name) == f"/s/segments/0001/{name}.zarr"
    for name in (*WHOLE, *OPTIONAL):
        assert study.uris(name) == [f"/s/{name}.zarr"]
    assert (study.model(3), study.report) == ("/s/models/seed-3", "/s/report.html")


def test_study__no_such_store():
    with pytest.raises(StoreError, match=r"/s: expected a store of expression, .*, got 'nosuch'"):
        Study("/s", ("0000",)).uris("nosuch")


def test_study__every_store_of_a_study_is_known():
    known = [*SEGMENTED, *WHOLE, *OPTIONAL]
    assert set(known) < set(SPECS)
    assert len(set(known)) == len(known)


# ---------------------------------------------------------------- segments


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A study grown by a second segment of other samples; returns the root and both matrices."""
    root, rng = tmp_path_factory.mktemp("grown"), np.random.default_rng(0)
    matrices = [rng.normal(8, 1, (n, 12)).astype(np.float32) for n in (40, 24)]
    for name, values in zip(("0000", "0001"), matrices, strict=True):
        for spec in (EXPRESSION, NORMALIZED):
            uri = root / "segments" / name / f"{spec.name}.zarr"
            write_matrix(uri, spec, values)
            rename_samples(uri, name)
    align_reference(root)
    write_manifest(str(root), ["0000", "0001"])
    return root, matrices


@pytest.fixture
def two_segments(grown, tmp_path):
    root, matrices = grown
    return shutil.copytree(root, tmp_path / "study"), matrices


def rename_samples(uri, prefix):
    """Let a store hold other names, as if it had been written so."""
    labels = zarr.open_array(str(uri), path="sample", mode="r+")
    labels[...] = np.array([f"{prefix}-{s}" for s in labels[...]], dtype=np.dtypes.StringDType())
    record_again(uri)


def align_reference(root):
    """A later segment is normalized against the frozen reference of the first."""
    stores = sorted((root / "segments").glob("*/normalized.zarr"))
    for store in stores[1:]:
        shutil.rmtree(store / "quantile_reference")
        record_again(store)
        shutil.copytree(stores[0] / "quantile_reference", store / "quantile_reference")
        record_again(store)


@pytest.mark.parametrize("name", ["normalized", "expression"])
def test_open__segments_are_concatenated(name, two_segments):
    root, matrices = two_segments
    with no_computing():
        ds = dglzarr.open(f"{root}#{name}")
    assert ds.sizes["sample"] == 64
    np.testing.assert_array_equal(ds["expression"].values, np.concatenate(matrices))
    samples = [f"{s}-s{i:03d}" for s, n in (("0000", 40), ("0001", 24)) for i in range(n)]
    assert ds["sample"].values.tolist() == samples
    assert ds["split"].dims == ("sample",)
    np.testing.assert_array_equal(ds["expression"].sel(sample="0001-s003").values, matrices[1][3])


def test_open__one_segment_of_two_is_itself(two_segments):
    root, matrices = two_segments
    ds = dglzarr.open(f"{root}/segments/0001/normalized.zarr")
    np.testing.assert_array_equal(ds["expression"].values, matrices[1])


def test_open__a_segment_is_missing(two_segments):
    root, _ = two_segments
    write_manifest(str(root), ["0000", "0001", "0002"])
    with pytest.raises(StoreError, match=r"0002/normalized\.zarr: no such store"):
        dglzarr.open(f"{root}#normalized")


def test_open__segments_of_other_genes(two_segments, rng):
    root, _ = two_segments
    uri = root / "segments" / "0002" / "expression.zarr"
    write_matrix(
        uri, EXPRESSION, rng.normal(8, 1, (20, 12)).astype(np.float32),
        genes=[f"other{i}" for i in range(12)],
    )  # fmt: skip
    write_manifest(str(root), ["0000", "0001", "0002"])
    with pytest.raises(SchemaError, match="expected segments that differ in samples only"):
        dglzarr.open(f"{root}#expression")


# ---------------------------------------------------------------- one run at a time


def test_turn__what_is_done_within_is_one_run(tmp_path):
    root = create_study(str(tmp_path)).root
    with turn(root, seconds=0):
        with locked(root):
            pass
        with pytest.raises(BusyError, match="another run is changing this study"):
            Context().run(locked(root).__enter__)
    with locked(root), pytest.raises(BusyError), locked(root):
        pass


def test_turn__waits_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(storage, "_PAUSE_SECONDS", 0.01)
    root, told = create_study(str(tmp_path)).root, []

    def wait():
        with turn(root, seconds=60):
            told.append("second")

    with caplog.at_level(logging.INFO, logger=storage.__name__), locked(root):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.5)
        told.append("first")
    thread.join()
    assert told == ["first", "second"]
    assert caplog.text.count("another run is at work here; this one waits for it") == 1


def test_turn__ends_when_it_has_waited_too_long(tmp_path):
    root = create_study(str(tmp_path)).root
    with (
        locked(root),
        pytest.raises(BusyError, match=r"waited 1e-05 hours: .*another run is changing"),
        turn(root, seconds=0.036),
    ):
        pass
