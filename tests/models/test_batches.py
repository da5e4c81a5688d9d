from concurrent.futures import Future
from itertools import chain

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.errors import StoreError
from dglzarr.models.batches import Batches, draw_order
from dglzarr.models.options import BatchOptions
from dglzarr.storage.rows import Rows
from tests.arrays import InMemory

CACHES = ["memory", "stream"]


def labelled(n_samples, n_genes=3):
    """A matrix whose first gene is the row number."""
    matrix = np.zeros((n_samples, n_genes), np.float32)
    matrix[:, 0] = np.arange(n_samples)
    return InMemory(matrix)


def make(matrix, **settings):
    """Batches of a matrix, of which every option of theirs may be given by name."""
    n_samples, n_genes = matrix.shape
    fixed = {"keep": np.ones(n_samples, bool), "mean": np.zeros(n_genes), "std": np.ones(n_genes)}
    options = {name: settings.pop(name) for name in BatchOptions.model_fields if name in settings}
    return Batches(matrix, options=BatchOptions(**options), **(fixed | settings))


def rows_of(batches, epoch=0):
    return [batch[:, 0].astype(int).tolist() for batch in batches.epoch(epoch)]


def drawn(keep, seed=0, **sizes):
    return draw_order(keep, **sizes, rng=np.random.default_rng(seed))


def test_draw_order__whole_windows_in_an_order_that_is_drawn():
    keep = np.arange(40) % 5 > 0
    reads = [drawn(keep, seed, window=4, windows_in_memory=2).rows for seed in range(5)]
    assert len({rows.tobytes() for rows in reads}) == 5
    for rows in reads:
        assert sorted(rows.tolist()) == np.flatnonzero(keep).tolist()
        windows = rows // 4
        assert np.count_nonzero(np.diff(windows)) == len(np.unique(windows)) - 1
        assert all((np.diff(rows[windows == w]) > 0).all() for w in np.unique(windows))


def test_draw_order__about_so_many_rows_are_in_memory():
    rows, seen = drawn(np.ones(20_000, bool), window=4, windows_in_memory=250)
    in_memory = np.maximum.accumulate(seen) + 1 - np.arange(len(rows))
    assert 900 < np.median(in_memory) <= in_memory.max() < 1150
    assert np.median(np.abs(seen - np.arange(len(rows)))) > 200


def test_draw_order__any_order_where_all_fits_in_memory():
    firsts = np.zeros(6)
    for seed in range(600):
        order = drawn(np.ones(6, bool), seed, window=2, windows_in_memory=3)
        firsts[order.rows[order.seen[0]]] += 1
    assert firsts.min() > 60


def test_epoch__batches_are_of_equal_size_but_the_last():
    for n_samples, expected in [(8, [4, 4]), (9, [4, 4, 1]), (3, [3])]:
        for cache in CACHES:
            batches = make(labelled(n_samples), batch_size=4, window=2, cache=cache)
            assert [len(batch) for batch in batches.epoch(0)] == expected


@settings(max_examples=60, deadline=None)
@given(
    keep=st.lists(st.booleans(), min_size=1, max_size=60).filter(any),
    batch_size=st.integers(1, 20),
    window=st.integers(1, 20),
    windows_in_memory=st.integers(1, 5),
    seed=st.integers(0, 99),
    cache=st.sampled_from(CACHES),
)
def test_epoch__every_kept_sample_once(keep, batch_size, window, windows_in_memory, seed, cache):
    batches = make(
        labelled(len(keep)),
        keep=np.array(keep),
        batch_size=batch_size,
        window=window,
        windows_in_memory=windows_in_memory,
        seed=seed,
        cache=cache,
    )
    for epoch in range(2):
        rows = rows_of(batches, epoch)
        assert sorted(row for batch in rows for row in batch) == np.flatnonzero(keep).tolist()
        assert len(rows) == -(-sum(keep) // batch_size)
        assert all(len(batch) == batch_size for batch in rows[:-1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 5), batch_size=st.integers(1, 30))
def test_epoch__memory_and_stream_give_the_same_bytes(seed, epoch, batch_size):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(8, 3, (47, 5)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    common = {
        "keep": np.arange(47) % 3 > 0,
        "mean": rng.normal(8, 1, 5),
        "std": np.array([0, 1.1, 2.3, np.nan, 0.7]),
        "batch_size": batch_size,
        "window": 5,
        "windows_in_memory": 3,
        "seed": seed,
    }
    matrix = InMemory(matrix)
    held, streamed = (make(matrix, cache=cache, **common).epoch(epoch) for cache in CACHES)
    for left, right in zip(held, streamed, strict=True):
        assert left.dtype == right.dtype == np.float32
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("cache", CACHES)
def test_epoch__standardises_and_fills_missing(cache):
    matrix = np.array([[2, 5, 7], [np.nan, 9, 7]], np.float32)
    moments = {"mean": np.array([1.0, 5, 7]), "std": np.array([2.0, 4, 0])}
    batches = make(InMemory(matrix), **moments, batch_size=9, cache=cache)
    (batch,) = batches.epoch(0)
    assert sorted(batch.tolist()) == [[0, 1, 0], [0.5, 0, 0]]


@pytest.mark.parametrize("cache", CACHES)
def test_epoch__order_depends_on_seed_and_epoch_alone(cache):
    matrix = labelled(64)
    first = make(matrix, window=4, batch_size=64, cache=cache, seed=1)
    again = make(matrix, window=4, batch_size=64, cache=cache, seed=1)
    other = make(matrix, window=4, batch_size=64, cache=cache, seed=2)
    assert rows_of(first, 3) == rows_of(again, 3) == rows_of(first, 3)
    assert rows_of(first, 3) != rows_of(first, 4)
    assert rows_of(first, 3) != rows_of(other, 3)


def series_in_order(n_samples, rng):
    """Series of uneven size, one after the other, as in a store made file by file."""
    sizes = 3 + rng.lognormal(np.log(60), 0.8, n_samples // 3).astype(int)
    return np.repeat(np.arange(len(sizes)), sizes)[:n_samples]


@pytest.mark.parametrize("n_samples", [16_384, 99_909])
@pytest.mark.parametrize("batch_size", [128, 256])
def test_draw_order__batches_hold_series_nearly_as_a_full_shuffle_does(n_samples, batch_size):
    """With the default windows, of which there are twice as many for a batch of 256."""
    rng = np.random.default_rng(0)
    series = series_in_order(n_samples, rng)

    def composition(order):
        """Numbers of series in the batches, and the mean share of a batch's largest."""
        batches = np.split(series[order], range(batch_size, n_samples, batch_size))
        counts = [np.bincount(batch) for batch in batches if len(batch) == batch_size]
        n_series = np.array([(c > 0).sum() for c in counts])
        return n_series, np.mean([c.max() / batch_size for c in counts])

    def windows(window, windows_in_memory):
        sizes = {"window": window, "windows_in_memory": windows_in_memory}
        order = draw_order(np.ones(n_samples, bool), **sizes, rng=rng)
        return order.rows[order.seen]

    window = BatchOptions().window
    full, largest = composition(rng.permutation(n_samples))
    ours, ours_largest = composition(windows(window, BatchOptions(batch_size=batch_size).windows))
    few_large, _ = composition(windows(256, 8))
    _, unmixed_largest = composition(np.arange(n_samples))
    assert ours.mean() > 0.9 * full.mean() > 1.6 * few_large.mean()
    assert min(ours[:10].mean(), ours[-10:].mean()) > 0.7 * full.mean()
    assert ours_largest < 1.3 * largest < 0.1 * unmixed_largest


@pytest.mark.parametrize(("batch_size", "windows"), [(1, 256), (128, 256), (129, 258), (300, 600)])
def test_batches__as_many_windows_as_the_batch_wants(batch_size, windows):
    matrix = labelled(4)
    default = make(matrix, batch_size=batch_size).fingerprint
    assert default == make(matrix, batch_size=batch_size, windows_in_memory=windows).fingerprint
    assert default != make(matrix, batch_size=batch_size, windows_in_memory=windows - 1).fingerprint


def test_batch_options__record_the_number_of_windows_and_not_the_cache():
    recorded = BatchOptions(batch_size=300, cache="stream").recorded()
    assert recorded == {"batch_size": 300, "window": 10, "windows_in_memory": 600}
    assert BatchOptions(windows_in_memory=7).recorded()["windows_in_memory"] == 7


@pytest.mark.parametrize("cache", CACHES)
def test_epoch__reads_kept_samples_only(cache):
    matrix = labelled(20)
    keep = np.zeros(20, bool)
    keep[[1, 2, 19]] = True
    batches = make(matrix, keep=keep, window=6, cache=cache)
    assert sum(map(len, batches.epoch(0))) == 3
    assert list(chain(*matrix.read)) == [1, 2, 19]


def test_epoch__stream_reads_each_row_once_an_epoch_in_parts_in_the_order_of_the_store():
    matrix = labelled(200)
    batches = make(matrix, window=4, windows_in_memory=16, batch_size=3, cache="stream")
    for _ in range(2):
        matrix.read.clear()
        rows_of(batches)
        assert sorted(chain(*matrix.read)) == list(range(200))
        assert all(rows == sorted(rows) for rows in matrix.read)
        assert {len(rows) for rows in matrix.read} == {4}  # a sixteenth of what is in memory


def test_epoch__memory_reads_once_for_all_epochs():
    matrix = labelled(20)
    batches = make(matrix, window=4, cache="memory")
    for epoch in range(3):
        rows_of(batches, epoch)
    assert matrix.read == [list(range(20))]


def test_epoch__stream_reads_where_rows_were_taken():
    """No more is read than was taken and finds room: what is in memory, and a part a reader."""
    matrix = labelled(2000)
    batches = make(matrix, window=4, windows_in_memory=64, batch_size=5, cache="stream")
    epoch = batches.epoch(0)
    for n_taken in range(60):
        next(epoch)
        assert 5 * n_taken + 5 <= sum(map(len, matrix.read)) <= 310 + 5 * n_taken + 5
    epoch.close()
    assert sum(map(len, matrix.read)) <= 310 + 5 * 60
    assert not batches._memory, "what a reader may still write to is not used again"


class AtOnce:
    """An executor that works when it is told to: what it overwrites is lost for certain."""

    def __init__(self, max_workers):
        assert max_workers == 2

    def submit(self, func, *args):
        future = Future()
        future.set_result(func(*args))
        return future

    def shutdown(self, *, cancel_futures):
        assert cancel_futures


@pytest.mark.parametrize("batch_size", [1, 5, 7, 16, 50, 200])
@pytest.mark.parametrize("windows_in_memory", [1, 2, 10, 100])
def test_epoch__stream_overwrites_nothing_too_early_and_reads_ahead(
    monkeypatch, batch_size, windows_in_memory
):
    monkeypatch.setattr("dglzarr.models.batches.ThreadPoolExecutor", AtOnce)
    keep = np.random.default_rng(1).random(160) < 0.8
    matrix = labelled(160)
    common = {"keep": keep, "window": 4, "windows_in_memory": windows_in_memory}
    common |= {"batch_size": batch_size}
    held = rows_of(make(matrix, cache="memory", **common))
    matrix.read.clear()
    taken, n_read, n_kept = [0], [], int(keep.sum())
    streamed = make(matrix, cache="stream", **common)
    for ours, theirs in zip(streamed.epoch(0), held, strict=True):
        assert ours[:, 0].astype(int).tolist() == theirs
        taken.append(taken[-1] + len(ours))
        n_read.append(sum(map(len, matrix.read)))
    (memory,) = streamed._memory
    part = -(-min(n_kept, windows_in_memory * 4) // 16)
    for after, n in zip(taken[1:], n_read, strict=True):
        assert n > min(n_kept - 1, after + len(memory) - part), "what fits is not read ahead"


def test_epoch__rows_of_a_store_are_a_matrix(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    place = str(tmp_path / "a.zarr")
    stored = zarr.create_array(place, name="expression", shape=(30, 4), chunks=(8, 2), dtype="f4")
    stored[:] = matrix
    for cache in CACHES:
        given = (InMemory(matrix), Rows(place))
        held, read = (make(m, window=8, cache=cache).epoch(0) for m in given)
        for left, right in zip(held, read, strict=True):
            np.testing.assert_array_equal(left, right)


def test_epoch__a_piece_of_memory_serves_epochs_in_turn():
    keep = np.random.default_rng(1).random(2000) < 0.7
    matrix = labelled(2000)
    settings = {"window": 10, "windows_in_memory": 20, "batch_size": 16}
    batches = make(matrix, keep=keep, cache="stream", **settings)
    streamed = rows_of(batches)
    (memory,) = batches._memory
    assert 200 < len(memory) <= 200 + 70
    assert streamed == rows_of(make(matrix, keep=keep, cache="memory", **settings))


def test_epoch__batches_stay_as_they_were_when_memory_is_used_again():
    batches = make(labelled(40), window=4, windows_in_memory=1, batch_size=4, cache="stream")
    found = list(batches.epoch(0))
    assert sorted(row for batch in found for row in batch[:, 0]) == list(range(40))


def test_epoch__failure_of_the_background_read_is_raised():
    class Broken(InMemory):
        def read_into(self, ascending, *where, **how):
            if 8 in ascending:
                raise OSError("disk gone")
            super().read_into(ascending, *where, **how)

    broken = Broken(labelled(20).values)
    batches = make(broken, window=4, windows_in_memory=1, cache="stream")
    with pytest.raises(OSError, match="disk gone"):
        list(batches.epoch(0))


@pytest.mark.parametrize(
    ("memory_nbytes", "expected"),
    [(20 * 3 * 4, True), (20 * 3 * 4 - 1, False)],
    ids=["fits", "not"],
)
def test_batches__auto_holds_what_fits(memory_nbytes, expected):
    assert make(labelled(20), memory_nbytes=memory_nbytes).is_cached is expected


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"batch_size": 7}, id="batch_size"),
        pytest.param({"window": 7}, id="window"),
        pytest.param({"windows_in_memory": 7}, id="windows_in_memory"),
        pytest.param({"seed": 7}, id="seed"),
        pytest.param({"keep": np.arange(20) > 3}, id="keep"),
        pytest.param({"mean": np.full(3, 0.5)}, id="mean"),
        pytest.param({"std": np.full(3, 0.5)}, id="std"),
    ],
)
def test_fingerprint__every_setting_changes_it(change):
    assert make(labelled(20), **change).fingerprint != make(labelled(20)).fingerprint


def test_fingerprint__where_the_data_lie_does_not():
    held, streamed = (make(labelled(20), cache=cache) for cache in CACHES)
    assert held.fingerprint == streamed.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"keep": np.ones(3, bool)}, "keep: expected a boolean mask of 20", id="keep"),
        pytest.param({"keep": np.ones(20, int)}, "keep: expected a boolean mask", id="dtype"),
        pytest.param({"keep": np.zeros(20, bool)}, "at least one kept sample", id="none-kept"),
        pytest.param({"mean": np.zeros(4)}, "one value for each of 3 genes", id="mean"),
        pytest.param({"std": np.zeros((3, 1))}, "one value for each of 3 genes", id="std"),
        pytest.param({"batch_size": 0}, "batch_size\n.* greater than 0", id="batch_size"),
        pytest.param({"window": -1}, "window\n.* greater than 0", id="window"),
        pytest.param({"windows_in_memory": 0}, "memory\n.* greater than 0", id="windows"),
    ],
)
def test_batches__refuses(change, message):
    with pytest.raises(ValueError, match=message):
        make(labelled(20), **change)


def test_share__epochs_in_turn_use_the_same_memory():
    matrix, common = labelled(64), {"window": 4, "windows_in_memory": 4, "cache": "stream"}
    many = make(matrix, keep=np.arange(64) < 48, **common)
    few = make(matrix, keep=np.arange(64) >= 54, share=many, **common)
    alone = make(matrix, keep=np.arange(64) >= 54, **common)
    used = []
    for epoch in range(3):
        list(many.epoch(epoch))
        used.append([id(rows) for rows in many._memory])
        for left, right in zip(few.epoch(epoch), alone.epoch(epoch), strict=True):
            np.testing.assert_array_equal(left, right)
        used.append([id(rows) for rows in few._memory])
    assert len(used[0]) == 1
    assert used == used[:1] * 6


@pytest.mark.parametrize(
    ("cache", "memory_nbytes", "expected"),
    [
        pytest.param("auto", 48 * 12, (True, True), id="held"),
        pytest.param("auto", 48 * 12 - 1, (False, False), id="streamed"),
        pytest.param("memory", 0, (True, True), id="told-to-hold"),
    ],
)
def test_share__few_are_not_held_beside_many_that_stream(cache, memory_nbytes, expected):
    matrix, common = labelled(64), {"cache": cache, "memory_nbytes": memory_nbytes}
    many = make(matrix, keep=np.arange(64) < 48, **common)
    few = {"keep": np.arange(64) >= 54} | common
    assert (many.is_cached, make(matrix, share=many, **few).is_cached) == expected
    assert make(matrix, **few).is_cached is (memory_nbytes > 0 or cache == "memory")


def test_share__two_epochs_at_once_do_not_mix():
    common = {"window": 4, "windows_in_memory": 2, "batch_size": 4, "cache": "stream"}
    first = make(labelled(40), **common)
    second = make(labelled(40), share=first, **common)
    list(first.epoch(9))  # there is memory to share now
    expected = [list(make(labelled(40), **common).epoch(epoch)) for epoch in (0, 1)]
    for *found, left, right in zip(first.epoch(0), second.epoch(1), *expected, strict=True):
        np.testing.assert_array_equal(found[0], left)
        np.testing.assert_array_equal(found[1], right)


def test_share__too_little_memory_is_not_used():
    common = {"window": 4, "windows_in_memory": 4, "cache": "stream"}
    few = make(labelled(64), keep=np.arange(64) >= 54, **common)
    many = make(labelled(64), share=few, **common)
    list(few.epoch(0))
    alone = make(labelled(64), **common)
    for left, right in zip(many.epoch(0), alone.epoch(0), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("cache", CACHES)
def test_epoch__a_failed_read_leaves_nothing_behind(cache):
    class FailsOnce(InMemory):
        has_failed = False

        def read_into(self, ascending, out, places, **how):  # noqa: ARG002
            if not self.has_failed:
                self.has_failed = True
                out[...] = -1e9
                raise StoreError("the disk refuses")
            super().read_into(ascending, out, places)

    batches = make(FailsOnce(labelled(20).values), cache=cache)
    with pytest.raises(StoreError, match="the disk refuses"):
        list(batches.epoch(0))
    assert rows_of(batches) == rows_of(make(labelled(20), cache=cache))


def test_share__other_genes():
    with pytest.raises(ValueError, match="share: expected batches of 3 genes, got 5"):
        make(np.zeros((4, 3), np.float32), share=make(np.zeros((4, 5), np.float32)))
