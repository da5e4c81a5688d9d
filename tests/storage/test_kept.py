"""What is read again and again is kept, by bytes: a study of 200 segments fits."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from dglzarr.storage import finished, objects
from dglzarr.storage.files import tag
from dglzarr.storage.kept import Kept


def test_kept__is_bounded_by_bytes_and_forgets_the_one_asked_longest_ago():
    asked = Counter()

    def answer(name, nbytes):
        asked[name] += 1
        return b"0" * nbytes

    kept = Kept(answer, nbytes=100, weigh=len)
    for name in ("a", "b", "a", "c"):
        assert len(kept(name, 40)) == 40
    assert [name for name, _ in kept.answers] == ["a", "c"]
    assert asked == {"a": 1, "b": 1, "c": 1}
    assert len(kept("large", 1000)) == 1000  # the last one in any case
    kept("a", 40)
    assert [name for name, _ in kept.answers] == ["a"]
    assert asked["a"] == 2
    assert kept._weight == 40


def test_kept__errors_are_not():
    asked = []

    def fails(name):
        asked.append(name)
        raise ValueError(name)

    kept = Kept(fails, nbytes=100, weigh=len)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            kept("x")
    assert asked == ["x", "x"]


def test_kept__by_many_threads_at_once():
    kept = Kept(lambda n: b"0" * n, nbytes=500, weigh=len)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(kept, [n % 40 + 1 for n in range(4000)]))
    assert [len(content) for content in found] == [n % 40 + 1 for n in range(4000)]
    assert kept._weight == sum(map(len, kept.answers.values())) <= 500


def test_records__of_200_segments_are_read_once():
    """Five stores each, of 100 objects: asked for in turn, each is asked for last."""
    asked = []

    def check(written, digest):
        asked.append(digest)
        return objects._check_record(written, digest)

    limit = objects._checked_record.nbytes
    kept = Kept(check, nbytes=limit, weigh=objects._nbytes)
    contents = []
    for store in range(1000):
        listed = {f"normalized/c/{region}/0": [store, region] for region in range(100)}
        written = json.dumps({"attributes": {"objects": listed}}).encode()
        contents.append((written, tag(written)))
    for _ in range(2):
        for written, digest in contents:
            assert len(kept(written, digest)) == 100
    assert len(asked) == 1000


def test_objects__of_200_segments_fit():
    """Labels of 20 kB, five of each segment."""
    kept = finished._kept
    assert kept.weigh(b"0" * finished._SMALL_NBYTES) * 500 <= kept.nbytes
    assert kept.weigh(b"0" * 20_000) * 200 * 5 <= kept.nbytes
