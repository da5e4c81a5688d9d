"""What was written is what is read: digests of objects, of attributes, and who looks at them."""

import shutil
from pathlib import Path

import pytest
import zarr

import dglzarr
from dglzarr import query
from dglzarr.errors import StoreError
from dglzarr.storage import objects, store
from dglzarr.storage.files import open_filesystem
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import CONTRIBUTIONS, EXPRESSION, LANDMARKS, RAW, SAMPLES
from tests.builders import KnownStore, shard


@pytest.fixture(params=[CONTRIBUTIONS, EXPRESSION, SAMPLES], ids=lambda spec: spec.name)
def study(request, tmp_path):
    return KnownStore(tmp_path / "known.zarr", request.param).complete()


def flip(path, at=0.5):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 4
    path.write_bytes(content)


def recorded(uri):
    return objects.read_record(uri, store.read_attributes(uri))


def test_record__every_object_is_in_it_as_it_lies_there(study):
    filesystem, path = open_filesystem(study.uri)
    names = objects.list_objects(study.uri)
    assert recorded(study.uri) == {
        name: objects.measure(filesystem, f"{path}/{name}") for name in names
    }
    files = {str(p.relative_to(study.uri)) for p in Path(study.uri).rglob("*") if p.is_file()}
    assert files == {*names, "zarr.json", "objects/zarr.json"}, "nothing of regions is left"


def test_record__of_a_region_stands_before_its_matrix(tmp_path, monkeypatch):
    study = KnownStore(tmp_path / "x", EXPRESSION).create()
    (first, *_) = store.regions(study.uri)

    def die(self, target):
        if target.parent.name == "0":  # the shard, not its record
            raise KeyboardInterrupt
        return self.rename(target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        study.write(study.uri, first)
    monkeypatch.undo()
    assert "expression/c/0/0" in objects.known_so_far(study.uri)
    assert first in store.missing_regions(study.uri)


def test_record__of_a_killed_run_is_what_was_written_not_what_lies_there(tmp_path):
    study = KnownStore(tmp_path / "x", RAW).create().write_missing()
    flip(shard(study.uri, 1))
    study.finish()
    (problem,) = query.verify(study.uri)["problems"]
    assert problem.startswith("expression, samples 16:32: expression/c/1/0 of 'expression' holds")


def test_record__that_a_killed_run_did_not_write_is_measured(tmp_path):
    study = KnownStore(tmp_path / "x", RAW).create().write_missing()
    Path(study.uri, "objects", "2.json").unlink()
    study.finish()
    assert query.verify(study.uri)["problems"] == []


def test_finish__labels_that_changed_meanwhile_are_refused(tmp_path):
    study = KnownStore(tmp_path / "x", EXPRESSION).create().write_missing()
    flip(Path(study.uri, "split", "c", "0"), at=0.99)
    with pytest.raises(StoreError, match=r"split/c/0 of 'split' holds .* expected .* Remove the"):
        study.finish()
    assert not store.is_complete(study.uri)


@pytest.mark.parametrize(("name", "spec"), [("split", EXPRESSION), ("score", LANDMARKS)])
def test_read__a_small_array_is_checked(tmp_path, name, spec):
    study = KnownStore(tmp_path / "x", spec).complete()
    flip(Path(study.uri, name, "c", "0"), at=0.99)
    message = rf"x: cannot be read: {name}/c/0 of '{name}' holds .* Remove the store and run"
    with pytest.raises(StoreError, match=message):
        read_array(study.uri, name)
    ds = dglzarr.open(study.uri)
    with pytest.raises(StoreError, match=message):
        ds[name].load()
    with pytest.raises(StoreError, match=rf"is damaged: {name}/c/0 of .* Use --overwrite"):
        study.claim()
    assert study.claim(overwrite=True).state == "new"


@pytest.mark.parametrize("name", ["split", "n_missing", "expression"])
def test_open__a_lost_array_is_refused(tmp_path, name):
    """It read as -1, as empty or as missing, in every sample."""
    study = KnownStore(tmp_path / "x", EXPRESSION).complete()
    shutil.rmtree(Path(study.uri, name, "c"))
    for read in (store.open_store, store.open_labels):
        with pytest.raises(StoreError, match=r"is missing|regions are missing"):
            read(study.uri)
    if name == "split":
        with pytest.raises(StoreError, match=r"split/c/0 of 'split' is missing"):
            read_array(study.uri, name)


def test_claim__cut_regions_are_made_again(tmp_path):
    study = KnownStore(tmp_path / "x", RAW).complete()
    before = shard(study.uri, 3).read_bytes()
    shard(study.uri, 3).write_bytes(before[: len(before) // 2])
    with pytest.raises(StoreError, match="1 regions are missing, the first is 3"):
        store.open_store(study.uri)
    assert study.claim().state == "resumed"
    study.ran.clear()
    study.write_missing().finish()
    assert study.ran == [3]
    assert shard(study.uri, 3).read_bytes() == before
    assert query.verify(study.uri)["problems"] == []


def test_verify__every_object_of_a_store(study):
    for name in objects.list_objects(study.uri):
        path = Path(study.uri, name)
        content = path.read_bytes()
        flip(path)
        problems = query.verify(study.uri)["problems"]
        assert any(name in problem for problem in problems), name
        path.write_bytes(content)
    assert not any("CRC" in problem for problem in query.verify(study.uri)["problems"])


def test_verify__an_object_that_was_added(tmp_path):
    study = KnownStore(tmp_path / "x", RAW).complete()
    Path(study.uri, "series", "c", "1").write_bytes(b"x")
    assert query.verify(study.uri)["problems"] == [
        "series: series/c/1 was added. Remove the store and run its stage again"
    ]


@pytest.mark.parametrize("name", ["zarr.json", "objects/zarr.json"])
def test_open__changed_attributes_or_record_are_refused(study, name):
    path = Path(study.uri, name)
    content = path.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 40)):
        flip(path, at=at / len(content))
        with pytest.raises(StoreError):
            store.open_store(study.uri)
        path.write_bytes(content)
    store.open_store(study.uri)


def test_open__attributes_that_were_set_by_hand_are_refused(study):
    zarr.open_group(study.uri, mode="r+").attrs.update({"parameters": {"seed": 7}})
    with pytest.raises(StoreError, match=r"cannot be read: zarr\.json: expected it as it was"):
        store.open_store(study.uri)


def test_check_matrices__what_rows_read_unchecked(tmp_path):
    study = KnownStore(tmp_path / "x", EXPRESSION).complete()
    store.check_matrices(study.uri)
    flip(shard(study.uri, 1), at=0.1)
    assert (Rows(study.uri)[16:32] != study["expression"][16:32]).sum() == 1
    with pytest.raises(StoreError, match=r"expression/c/1/0 of 'expression' holds .* Remove that"):
        store.check_matrices(study.uri)
    store.check_matrices(str(tmp_path / "no-store"))
