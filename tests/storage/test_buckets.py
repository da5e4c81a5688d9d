"""Objects and leases in a bucket of a real S3 server, which also misbehaves."""

import threading

import numpy as np
import pytest

pytest.importorskip("moto.server", reason="the S3 server is moto's")

from dglzarr.cli import app, guarded
from dglzarr.errors import BucketError, ConfigError, StoreError
from dglzarr.query import verify
from dglzarr.settings import load_settings
from dglzarr.storage import buckets
from dglzarr.storage.buckets import BucketPath, ChangedError, check_address
from dglzarr.storage.files import place_of, put, tag, whole
from dglzarr.storage.objects import RECORD
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import is_complete, open_store
from dglzarr.storage.study import create_study, open_study, write_manifest
from tests import bucket
from tests.builders import write_matrix

pytestmark = pytest.mark.slow


# ---------------------------------------------------------------- objects


def test_conditions(root):
    place = f"{root}/a/x.json"
    first = put(place, b"1", if_absent=True)
    with pytest.raises(ChangedError, match="another by now"):
        put(place, b"2", if_absent=True)
    assert put(place, b"2", if_match=first) == tag(b"2")
    with pytest.raises(ChangedError):
        put(place, b"3", if_match=first)
    with pytest.raises(ChangedError, match="gone"):
        put(f"{root}/a/y.json", b"3", if_match=first)
    assert place_of(place).read_bytes() == b"2"


def test_of_sixteen_writers_one_wins(root):
    place, won = f"{root}/x", []

    def write(i):
        try:
            put(place, f"{i}".encode(), if_absent=True)
            won.append(i)
        except ChangedError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert place_of(place).read_bytes() == f"{won[0]}".encode()
    assert len(won) == 1


def test_paths(root):
    for name in ("a/x.zarr/zarr.json", "a/y.zarr/zarr.json", "a/z.txt", "b.txt"):
        put(f"{root}/{name}", name.encode())
    place = place_of(root)
    assert [one.name for one in (place / "a").glob("*.zarr")] == ["x.zarr", "y.zarr"]
    assert [str(one) for one in place.glob("*/*.txt")] == [f"{root}/a/z.txt"]
    assert (place / "a").exists()
    assert not (place / "a").is_file()
    assert not (place / "c").exists()
    assert place_of(root, "b.txt").open("rb").read() == b"b.txt"
    with pytest.raises(FileNotFoundError, match=f"{root}/c"):
        (place / "c").read_bytes()


def test_what_fails_while_it_is_written_leaves_nothing(root):
    def fail():
        with whole(f"{root}/x") as partial:
            partial.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert place_of(root).bucket.find(place_of(root).key) == []


def test_rows_and_columns_are_those_of_a_disk(root, tmp_path, rng):
    values = rng.normal(size=(700, 2100)).astype(np.float32)
    values[3] = np.nan
    local = Rows(write_matrix(tmp_path / "m", NORMALIZED, values, shard=256))
    there = Rows(write_matrix(f"{root}/m", NORMALIZED, values, shard=256))
    assert type(there._parts[0]).__name__ == "BucketMatrix"
    index = rng.integers(0, 700, 90)
    genes = np.array([2099, 3])
    np.testing.assert_array_equal(there[5:650], local[5:650])
    np.testing.assert_array_equal(there.take(index), local.take(index))
    np.testing.assert_array_equal(there.take(index, genes), local.take(index, genes))
    for gene in (0, 2060, 2099):
        np.testing.assert_array_equal(there.column(gene), values[:, gene])
    shard = place_of(f"{root}/m/expression/c/1/0")
    assert shard.read_bytes() == (tmp_path / "m/expression/c/1/0").read_bytes()
    put(shard, shard.read_bytes()[:-1])
    with pytest.raises(StoreError, match="whole shard"):
        Rows(f"{root}/m")[256:300]
    shard.unlink(missing_ok=True)
    with pytest.raises(StoreError, match="region 1 of 'expression' is missing"):
        Rows(f"{root}/m")[256:300]


def test_a_store_takes_few_requests(proxy, root, rng):
    """Two regions; its objects are put side by side, none is asked for twice without need."""
    values = rng.normal(size=(32, 40)).astype(np.float32)
    uri = write_matrix(f"{root}/m", NORMALIZED, values)
    n_objects, made = len(place_of(uri).bucket.find(place_of(uri).key)), proxy.n_requests
    assert made < 4 * n_objects
    opened = open_store(uri, NORMALIZED)
    assert opened["split"].dtype == np.int8
    assert proxy.n_requests - made < 10
    np.testing.assert_array_equal(opened["expression"].values, values)


def test_small_objects_are_kept_for_the_store_that_they_were_read_of(proxy, root, rng):
    values, split = rng.normal(size=(32, 40)).astype(np.float32), np.zeros(32, np.int8)
    uri = write_matrix(f"{root}/m", NORMALIZED, values, split=split)
    np.testing.assert_array_equal(read_array(uri, "split"), split)
    made = proxy.n_requests
    np.testing.assert_array_equal(read_array(uri, "split"), split)
    assert proxy.n_requests - made == 1, "zarr.json alone, which tells whether it is the same store"
    put(f"{uri}/split/c/0", b"damaged")
    np.testing.assert_array_equal(read_array(uri, "split"), split)
    assert any("split" in problem for problem in verify(uri)["problems"])
    put(f"{uri}/{RECORD}", b"{}")
    with pytest.raises(StoreError, match="cannot be read"):
        verify(uri)
    place_of(uri).bucket.rm(place_of(uri).key, recursive=True)
    write_matrix(uri, NORMALIZED, values, split=split + 2)
    np.testing.assert_array_equal(read_array(uri, "split"), split + 2)


def test_a_store_whose_creation_was_cut_off_is_made_anew(proxy, root, rng):
    values, left = rng.normal(size=(32, 40)).astype(np.float32), [9]

    def spoil(method, _):
        left[0] -= method == "PUT"
        return 403 if left[0] < 0 else None

    proxy.spoil = spoil
    with pytest.raises(BucketError, match="refuses the credentials"):
        write_matrix(f"{root}/m", NORMALIZED, values)
    left[0] = 10**6
    assert not is_complete(f"{root}/m")
    with pytest.raises(StoreError, match="not complete"):
        open_store(f"{root}/m")
    uri = write_matrix(f"{root}/m", NORMALIZED, values)
    np.testing.assert_array_equal(open_store(uri)["expression"].values, values)


# ---------------------------------------------------------------- one run at a time


def test_of_two_manifests_one_is_written(root):
    study = create_study(root)
    write_manifest(study, ("0000", "0001"))
    with pytest.raises(StoreError, match="was changed by another run"):
        write_manifest(study, ("0000", "0002"))
    assert open_study(root).segments == ("0000", "0001")


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_recovers_is_not_noticed(proxy, root, status):
    left = [3]

    def spoil(*_):
        left[0] -= 1
        return status if left[0] >= 0 else None

    proxy.spoil = spoil
    put(f"{root}/x", b"1")
    left[0] = 3
    assert place_of(f"{root}/x").read_bytes() == b"1"


def test_a_condition_that_was_met_by_an_answer_that_got_lost(proxy, root):
    lost = []

    def spoil(method, path):
        if method == "PUT" and not lost:
            lost.append(path)
            return "cut"  # written, and not told
        return None

    proxy.spoil = spoil
    put(f"{root}/x", b"1", if_absent=True)
    assert place_of(f"{root}/x").read_bytes() == b"1"


def test_slow_and_partial_answers(proxy, root):
    content = bytes(range(256)) * 4096
    put(f"{root}/x", content)
    left = [2]

    def spoil(method, _):
        left[0] -= method == "GET"
        return "cut" if left[0] >= 0 and method == "GET" else 0.2

    proxy.spoil = spoil
    assert place_of(f"{root}/x").read_bytes() == content
    left[0] = 10**6
    with pytest.raises(BucketError):
        place_of(f"{root}/x").read_bytes()


def test_retries_are_bounded_and_told_in_one_line(proxy, root):
    proxy.spoil = lambda *_: 503
    with pytest.raises(BucketError, match="503 Service Unavailable, asked 6 times") as told:
        open_study(root)
    assert len(str(told.value).splitlines()) == 1
    assert proxy.n_requests == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("bucket", "there is no such bucket. Correct the root"),
        ("credentials", "there are no credentials in the environment. Set them"),
        ("ExpiredToken", "the credentials have expired. Renew them"),
        ("RequestTimeTooSkewed", "this machine's clock is wrong. Set it"),
        ("denied", "the server refuses the credentials (403 Forbidden)"),
        ("down", "the server cannot be reached"),
    ],
)
def test_what_is_wrong_is_told_before_work(proxy, root, monkeypatch, capfd, tmp_path, change, said):
    if change == "bucket":
        root = "s3://no-such-bucket/study"
    elif change == "credentials":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    elif change[0].isupper():
        proxy.spoil = lambda *_: change
    elif change == "denied":
        proxy.spoil = lambda *_: 403
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    buckets._connected.cache_clear()
    (tmp_path / "m.tsv").write_text("gene\ta\tb\nx\t1\t2\n")
    settings = tmp_path / "study.toml"
    settings.write_text(f'root = "{root}"\n[[sources]]\nuri = "m.tsv"\n')
    status = guarded(lambda: app(["mine", str(settings)], standalone_mode=False))
    out = capfd.readouterr()
    assert status == 1
    assert said in out.err
    assert len(out.err.strip().splitlines()) == 1
    assert bucket.SECRET not in out.err + out.out
    assert bucket.KEY not in out.err + out.out


def test_what_an_answer_without_a_body_does_not_tell_is_asked_for(proxy, root):
    proxy.spoil = lambda *_: "ExpiredToken"
    with pytest.raises(BucketError, match=r"the credentials have expired\. Renew them"):
        place_of(f"{root}/study.json").exists()


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://B!/x", "ftp://a/b", "s3://b-u/../x"])
def test_an_address_that_is_none(uri, tmp_path):
    (tmp_path / "study.toml").write_text(f'root = "{uri}"\n[[sources]]\nuri = "m.tsv"\n')
    with pytest.raises(ConfigError, match="root: expected"):
        load_settings(tmp_path / "study.toml")


def test_an_address():
    check_address("gs://bucket/a/b")
    assert str(BucketPath("az://bucket/a/b").parent) == "az://bucket/a"
