"""Studies as they stand: the state before a change or the one after it, never between."""

import threading
import time

import numpy as np
import pytest

from dglzarr.serve import shelf
from dglzarr.serve.answers import Answers
from dglzarr.serve.cache import ArrayCache
from dglzarr.serve.later import Later
from dglzarr.serve.refusals import Busy, NotFound
from dglzarr.serve.shelf import Served, Shelf, name_studies
from dglzarr.serve.stamps import stamp_of
from tests.builders import set_attributes, wait_for
from tests.serve import studies


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(shelf, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(shelf, "LOAD_SECONDS", 20.0)
    monkeypatch.setattr(Answers, "begin", lambda _: None)


def counts(answers):
    """What one answer tells of the samples, by several ways."""
    facts = answers.facts()
    spreads = answers.expression(9, "split", 9)["spreads"]
    return facts["n_samples"], len(facts["segments"]), sum(s.n + s.n_missing for s in spreads)


@pytest.mark.usefixtures("quick")
def test_growing__is_seen_whole_or_not_at_all(root):
    served = Served("study", str(root), ArrayCache(10**6))
    before = counts(served.answers())
    assert before == (80, 1, studies.KEEP.sum())
    studies.write_segment(root / "segments" / "0001", studies.values_of(5, 32), prefix="t")
    assert counts(served.answers()) == before  # written, not yet named
    studies.write_manifest(root, ["0000", "0001"])
    after = (112, 2, studies.KEEP.sum() + studies.KEEP[:32].sum())
    seen = set()

    def ask():
        try:
            seen.add(counts(served.answers()))
        except Busy:
            seen.add("busy")
        return after in seen

    wait_for(ask)
    assert seen <= {before, after, "busy"}


def test_old_answers__tell_nothing_of_the_new_state(root):
    answers = Answers("study", str(root), ArrayCache(10**6))
    known = answers.expression(3, "split", 9)["spreads"][0].mean
    studies.grow(root)
    assert answers.expression(3, "split", 9)["spreads"][0].mean == known  # it is in memory
    with pytest.raises(Busy, match="is being changed"):
        answers.expression(4, "split", 9)


def test_stores_that_change_while_a_study_is_opened(root, monkeypatch):
    load = Answers._load_genes

    def change(self):
        load(self)
        set_attributes(root / "scores.zarr", note="other")

    monkeypatch.setattr(Answers, "_load_genes", change)
    with pytest.raises(Busy, match="is being changed"):
        Answers("study", str(root), ArrayCache(0))


@pytest.mark.usefixtures("quick")
def test_study_that_cannot_be_read_any_more__stays_as_it_was_until_it_can(root, caplog):
    served = Served("study", str(root), ArrayCache(10**6))
    first = served.answers()
    manifest = (root / "study.json").read_bytes()
    (root / "study.json").write_text("{")
    for _ in range(20):
        assert served.answers() is first
        time.sleep(0.01)
    wait_for(lambda: "expected a manifest" in caplog.text or served.answers() is not first)
    assert caplog.text.count("expected a manifest") == 1
    (root / "study.json").write_bytes(manifest)
    studies.grow(root)
    wait_for(lambda: served.answers().n_samples == 112)


def test_study_that_is_being_opened__lets_others_go_on(root, monkeypatch):
    """A request waits for a second at most: few threads answer for all studies."""
    may_end = threading.Event()
    monkeypatch.setattr(Served, "_open", lambda _: may_end.wait(60))
    begun = time.monotonic()
    with pytest.raises(Busy, match="The study study is being prepared") as error:
        Served("study", str(root), ArrayCache(0)).answers()
    may_end.set()
    assert time.monotonic() - begun < 10
    assert error.value.retry_after


@pytest.mark.usefixtures("quick")
def test_study_that_could_not_be_opened__is_tried_again(root):
    file = root / "segments/0000/samples.zarr/zarr.json"
    content = file.read_bytes()
    file.unlink()
    served = Served("study", str(root), ArrayCache(0))
    with pytest.raises(OSError, match="no such store"):
        served.answers()
    file.write_bytes(content)

    def is_open():
        try:
            return served.answers().n_samples == 80
        except OSError:
            return False

    wait_for(is_open)


def test_stamp__of_no_study_and_of_another_state(root, tmp_path):
    assert stamp_of(str(tmp_path / "none")) != stamp_of(str(root))
    before = stamp_of(str(root))
    assert stamp_of(str(root)) == before
    set_attributes(root / "landmarks.zarr", note="x")
    assert stamp_of(str(root)) != before


def test_shelf__unknown_study(original):
    with pytest.raises(NotFound, match="There is no study 'x' here"):
        Shelf([str(original)], cache_nbytes=0)["x"]


def test_name_studies__are_different_and_plain():
    assert name_studies(["/a/x", "/b/y"]) == ["x", "y"]
    assert name_studies(["/a/x", "/a/x/", "/b/x"]) == ["a-x", "a-x-2", "b-x"]
    assert name_studies(["/a/<b> '", "/"]) == ["b", "study"]


def test_cache__keeps_the_last_used_within_its_limit():
    cache, made = ArrayCache(100), []

    def get(key):
        return cache.get(key, lambda: made.append(key) or np.full(40, key, np.int8))

    for key in (1, 2, 1, 3, 1, 2):
        assert get(key)[0] == key
    assert made == [1, 2, 3, 2]
    assert cache.nbytes == 80
    assert cache.get("large", lambda: np.zeros(101, np.int8)).size == 101
    assert cache.nbytes == 80
    with pytest.raises(ValueError, match="read-only"):
        get(2)[0] = 1
    cache.clear()
    assert cache.nbytes == 0


def test_cache__of_nothing():
    cache, made = ArrayCache(0), []
    for _ in range(3):
        cache.get("x", lambda: made.append(1) or np.zeros(4))
    assert (len(made), cache.nbytes) == (3, 0)


def test_cache__of_many_threads_counts_right():
    cache = ArrayCache(4000)
    threads = [
        threading.Thread(
            target=lambda seed=seed: [
                cache.get(int(key), lambda: np.zeros(100, np.int8))
                for key in np.random.default_rng(seed).integers(0, 60, 2000)
            ]
        )
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.nbytes == 100 * len(cache._known) == 4000


def test_later__is_made_once_and_tells_its_error():
    made, may_end = [], threading.Event()

    def make():
        may_end.wait(20)
        made.append(1)
        return "x"

    later = Later(make, "The thing")
    for _ in range(3):
        with pytest.raises(Busy, match="The thing is being prepared"):
            later.get(wait=0.01)
    assert later.state == "begun"
    may_end.set()
    assert later.get(wait=20) == "x"
    assert (later.state, made) == ("made", [1])
    wrong = Later(lambda: 1 // 0, "Another")
    with pytest.raises(ZeroDivisionError):
        wrong.get(wait=20)
    assert wrong.state == "failed"


def test_later__an_error_does_not_grow_with_those_who_ask():
    wrong = Later(lambda: 1 // 0, "The thing")
    lengths = set()
    for _ in range(4):
        with pytest.raises(ZeroDivisionError) as error:
            wrong.get(wait=20)
        lengths.add(len(error.traceback))
    assert lengths == {4}  # who asks, `get`, and where it went wrong: `_run` and the function
