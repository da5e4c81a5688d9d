"""Files: lineage, sizes, plain metadata."""

import hashlib
import json
import shutil
from pathlib import Path

from dglzarr.storage import files, store


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
