import errno
import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec

from dglzarr.errors import StoreError
from dglzarr.storage import shards
from dglzarr.storage.rows import Rows
from dglzarr.storage.shards import open_matrix


def create(folder, *, shape=(70, 23), chunks=(8, 6), shards=(32, 24), **options):
    options = {"dtype": "float32", "fill_value": np.nan, "compressors": None} | options
    group = zarr.open_group(str(folder / "x.zarr"), mode="w", zarr_format=3)
    array = group.create_array("expression", shape=shape, chunks=chunks, shards=shards, **options)
    return str(folder / "x.zarr"), array


WIDE = {"shape": (70, 2050), "chunks": (8, 512), "shards": (32, 2560)}


def values_of(shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values.flat[::7] = np.nan
    return values


def write(matrix, values):
    for start in range(0, len(values), matrix.shards[0]):
        matrix.write(start // matrix.shards[0], [values[start : start + matrix.shards[0]]])


def taken(matrix, index, **how):
    """Rows read to scattered places of a larger array, of which the rest stays as it was."""
    out = np.full((2 * len(index) + 1, matrix.shape[1]), 7, np.float32)
    places = np.random.default_rng(0).permutation(len(out))[: len(index)]
    matrix.take(np.asarray(index, dtype=np.int64), out, places, **how)
    assert (np.delete(out, places, axis=0) == 7).all()
    return out[places]


layouts = st.tuples(
    st.integers(1, 90), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)
).map(
    lambda t: {
        "shape": t[:2],
        "chunks": (t[2], t[3]),
        "shards": (t[2] * t[4], t[3] * -(-t[1] // t[3])),
    }
)


@settings(max_examples=40)
@given(layouts, st.data())
def test_matrix__zarr_reads_what_is_written(tmp_path_factory, layout, data):
    uri, array = create(tmp_path_factory.mktemp("x"), **layout)
    values = values_of(layout["shape"])
    write(open_matrix(uri, "expression"), values)
    np.testing.assert_array_equal(array[...], values)
    rows = data.draw(st.slices(layout["shape"][0]))
    np.testing.assert_array_equal(array[rows.start : rows.stop], values[rows.start : rows.stop])


@settings(max_examples=40)
@given(layouts, st.data())
def test_matrix__reads_what_zarr_writes(tmp_path_factory, layout, data):
    uri, array = create(tmp_path_factory.mktemp("x"), **layout)
    values = values_of(layout["shape"])
    array.with_config({"write_empty_chunks": True})[...] = values
    index = sorted(data.draw(st.sets(st.integers(0, layout["shape"][0] - 1))))
    for is_compiled in (False, True):
        found = taken(open_matrix(uri, "expression"), index, is_compiled=is_compiled)
        np.testing.assert_array_equal(found, values[index])


def test_matrix__chunks_that_zarr_left_out_are_missing_values(tmp_path):
    uri, array = create(tmp_path)
    array[3:5] = 1
    found = taken(open_matrix(uri, "expression"), range(32))
    np.testing.assert_array_equal(found, array[:32])
    assert np.isnan(found).sum() == 30 * 23


def test_matrix_write__strided_block_and_other_dtype(tmp_path):
    uri, array = create(tmp_path, shape=(32, 23))
    values = np.arange(2 * 32 * 46).reshape(64, 46)[::2, ::2]
    open_matrix(uri, "expression").write(0, [values])
    np.testing.assert_array_equal(array[...], values)


def test_matrix_write__same_values_same_bytes(tmp_path):
    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [values_of((32, 23))])
    path = Path(uri, "expression", "c", "0", "0")
    before = path.read_bytes()
    matrix.write(0, [values_of((32, 23))])
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["0"]


@pytest.mark.parametrize("has_direct", [True, False])
@pytest.mark.parametrize("chunks", [(8, 6), (8, 512), (7, 1023)])
def test_matrix_write__large_shard_past_the_cache(tmp_path, monkeypatch, chunks, has_direct):
    def open_file(path, flags, *mode):
        asked.append(flags & os.O_DIRECT)
        if asked[-1] and not has_direct:
            raise OSError(errno.EINVAL, "no direct writes here")
        return create_file(path, flags, *mode)

    asked, create_file = [], os.open
    shards = (4 * chunks[0], -(-2050 // chunks[1]) * chunks[1])
    uri, array = create(tmp_path, shape=(70, 2050), chunks=chunks, shards=shards)
    values = values_of((70, 2050))
    write(open_matrix(uri, "expression"), values)
    before = {p: p.read_bytes() for p in Path(uri).rglob("c/*/0")}
    monkeypatch.setattr("dglzarr.storage.shards._DIRECT_NBYTES", 0)
    monkeypatch.setattr(os, "open", open_file)
    write(open_matrix(uri, "expression"), values)
    assert any(asked)
    assert before == {p: p.read_bytes() for p in Path(uri).rglob("c/*/0")}
    np.testing.assert_array_equal(array[...], values)


@pytest.mark.parametrize("sizes", [{}, WIDE], ids=["under a page", "many pages"])
@pytest.mark.parametrize("n_taken", [1, 2, 3])
def test_matrix_write__a_disk_that_refuses_leaves_the_shard_as_it_was(
    tmp_path, monkeypatch, sizes, n_taken
):
    def take_some_then_refuse(file, values):
        if len(taken_so_far) == n_taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken_so_far.append(100)
        return write_file(file, values[:100])

    taken_so_far, write_file = [], os.write
    uri, array = create(tmp_path, **sizes)
    matrix = open_matrix(uri, "expression")
    shape = 32, array.shape[1]
    matrix.write(0, [np.ones(shape)])
    monkeypatch.setattr(os, "write", take_some_then_refuse)
    with pytest.raises(OSError, match="No space left"):
        matrix.write(0, [np.zeros(shape)])
    assert (array[:32] == 1).all()
    assert [p.name for p in Path(uri, "expression", "c", "0").iterdir()] == ["0"]


def test_matrix_write__blocks_that_fail_half_way_leave_the_shard_as_it_was(tmp_path):
    def fail_after(n_blocks):
        for _ in range(n_blocks):
            yield np.zeros((8, 2050))
        raise RuntimeError("no more samples")

    uri, array = create(tmp_path, **WIDE)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 2050))])
    for n_blocks in range(4):
        with pytest.raises(RuntimeError, match="no more samples"):
            matrix.write(0, fail_after(n_blocks))
    assert (array[:32] == 1).all()
    assert [p.name for p in Path(uri, "expression", "c", "0").iterdir()] == ["0"]


def test_matrix_write__a_disk_that_takes_little_at_a_time(tmp_path, monkeypatch):
    uri, array = create(tmp_path)
    write_file = os.write
    monkeypatch.setattr(os, "write", lambda file, values: write_file(file, values[:1000]))
    values = values_of((32, 23))
    open_matrix(uri, "expression").write(0, [values])
    np.testing.assert_array_equal(array[:32], values)


def test_matrix_write__direct_writes_that_open_takes_and_write_refuses(tmp_path, monkeypatch):
    def refuse_direct(file, values):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(file)
            raise OSError(errno.EINVAL, "Invalid argument")
        return write_file(file, values)

    refused, write_file = [], os.write
    monkeypatch.setattr("dglzarr.storage.shards._DIRECT_NBYTES", 0)
    monkeypatch.setattr(os, "write", refuse_direct)
    uri, array = create(tmp_path)
    values = values_of((32, 23))
    open_matrix(uri, "expression").write(0, [values])
    assert len(refused) == 1
    np.testing.assert_array_equal(array[:32], values)


@pytest.mark.parametrize("lengths", [(4, 28), (32, 1), (16,)])
def test_matrix_write__blocks_that_do_not_fit_the_chunks(tmp_path, lengths):
    uri, _ = create(tmp_path)
    with pytest.raises(AssertionError):
        open_matrix(uri, "expression").write(0, [np.ones((n, 23)) for n in lengths])
    assert not list(Path(uri, "expression").rglob("*.partial"))


def test_rows_take__chunks_of_other_genes_are_not_read(tmp_path, monkeypatch):
    uri, _ = create(tmp_path)
    values = values_of((70, 23))
    write(open_matrix(uri, "expression"), values)
    read, calls = os.preadv, []
    monkeypatch.setattr(os, "preadv", lambda *a: calls.append(a) or read(*a))
    rows, index = Rows(uri), np.array([69, 3, 4, 3])  # two runs of neighbours
    for genes, n_chunks in [([7, 22, 8, 7], 2), ([0], 1), ([-1, 12], 2), (list(range(23)), 4)]:
        calls.clear()
        found = rows.take(index, np.array(genes))
        np.testing.assert_array_equal(found, values[np.ix_(index, genes)])
        assert len(calls) == 2 * n_chunks


def test_matrix_take__more_shards_than_are_open_at_once(tmp_path, monkeypatch):
    uri, _ = create(tmp_path)
    matrix, values = open_matrix(uri, "expression"), values_of((70, 23))
    write(matrix, values)
    monkeypatch.setattr(shards, "_OPEN_SHARDS", 2)
    index = [0, 1, 31, 33, 40, 64, 69]
    before = len(list(Path("/proc/self/fd").iterdir()))
    np.testing.assert_array_equal(taken(matrix, index), values[index])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("answer", ["cached", "not cached", "cannot tell", "begin is cached"])
def test_matrix_take__the_disk_is_asked_beforehand_for_what_is_not_cached(
    tmp_path, monkeypatch, answer
):
    read, asked, read_at, waited_at = os.preadv, [], [], []

    def look(file, memory, offset, flags):
        is_cached = answer == "cached" or (answer == "begin is cached" and len(read_at) < 5)
        if flags == os.RWF_NOWAIT and not is_cached:
            raise OSError(errno.EOPNOTSUPP if answer == "cannot tell" else errno.EAGAIN, answer)
        (read_at if flags else waited_at).append(offset)
        return read(file, memory, offset, flags)

    def ask(_, offset, nbytes, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        assert not waited_at
        asked.append((offset, nbytes))

    uri, _ = create(tmp_path)
    matrix, values = open_matrix(uri, "expression"), values_of((70, 23))
    write(matrix, values)
    monkeypatch.setattr(os, "preadv", look)
    monkeypatch.setattr(os, "posix_fadvise", ask)
    index = [1, 2, *range(8, 16), 33, 34]  # a piece, whole chunks, a piece in another shard
    np.testing.assert_array_equal(taken(matrix, index), values[index])
    chunk, row = 8 * 6 * 4, 6 * 4
    pieces = [(n * chunk + row, 2 * row) for n in range(4)]
    expected = {
        "cached": [],
        "begin is cached": [(5 * chunk, 3 * chunk), *pieces],
    }
    assert asked == expected.get(answer, [*pieces, (4 * chunk, 4 * chunk), *pieces])
    assert len(read_at) + len(waited_at) == 12
    assert len(waited_at) == {"cached": 0, "begin is cached": 7}.get(answer, 12)


def empty_page_cache(monkeypatch):
    def look(file, memory, offset, flags):
        if flags:
            raise OSError(errno.EAGAIN, "not cached")
        return read(file, memory, offset, flags)

    read = os.preadv
    monkeypatch.setattr(os, "preadv", look)


def test_matrix_take__the_disk_is_not_asked_for_neighbours_alone(tmp_path, monkeypatch):
    uri, _ = create(tmp_path)
    matrix, values = open_matrix(uri, "expression"), values_of((70, 23))
    write(matrix, values)
    empty_page_cache(monkeypatch)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("asked"))
    np.testing.assert_array_equal(taken(matrix, range(8, 24)), values[8:24])


def test_matrix_take__a_refused_hint_is_no_error(tmp_path, monkeypatch):
    refused = []

    def refuse(*arguments):
        refused.append(arguments)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    uri, _ = create(tmp_path)
    matrix, values = open_matrix(uri, "expression"), values_of((70, 23))
    write(matrix, values)
    empty_page_cache(monkeypatch)
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    np.testing.assert_array_equal(taken(matrix, [1, 2, 9]), values[[1, 2, 9]])
    assert refused


@pytest.mark.parametrize("is_compiled", [False, True])
def test_matrix_take__from_the_disk(tmp_path, is_compiled):
    uri, _ = create(tmp_path, **WIDE)
    matrix, values = open_matrix(uri, "expression"), values_of(WIDE["shape"])
    write(matrix, values)
    for path in Path(uri).rglob("c/*/0"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    index = [0, 3, 4, *range(8, 16), 31, 40]
    found = taken(matrix, index, is_compiled=is_compiled)
    np.testing.assert_array_equal(found, values[index])


def test_matrix_take__missing_shard(tmp_path):
    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 23))])
    with pytest.raises(StoreError, match=r"x\.zarr: region 1 of 'expression' is missing\. Run"):
        taken(matrix, [3, 33])


@pytest.mark.parametrize("kept", [0, 3, 100, 3000])
def test_matrix_take__truncated_shard(tmp_path, kept):
    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 23))])
    path = Path(uri, "expression", "c", "0", "0")
    assert kept < path.stat().st_size
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=r"expected a whole shard, got a damaged one\. Remove it"):
        taken(matrix, [3])


@pytest.mark.parametrize("call", ["open", "pread"])
def test_matrix_take__a_disk_that_refuses_names_the_shard(tmp_path, monkeypatch, call):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 23))])
    monkeypatch.setattr(os, call, refuse)
    message = r"expression/c/0/0: cannot be read: Input/output error\. Mend"
    with pytest.raises(StoreError, match=message):
        taken(matrix, [3])


@pytest.mark.parametrize("is_compiled", [False, True])
def test_matrix_take__a_piece_that_cannot_be_read_names_its_shard(
    tmp_path, monkeypatch, is_compiled
):
    def unreadable(self, opened, *where):
        pieces = find(self, opened, *where)
        pieces[-1, 1] = -(2**40)  # before the file begins
        return pieces

    uri, _ = create(tmp_path)
    matrix, find = open_matrix(uri, "expression"), shards.Matrix._pieces
    write(matrix, values_of((70, 23)))
    monkeypatch.setattr(shards.Matrix, "_pieces", unreadable)
    message = r"expression/c/1/0: cannot be read: Invalid argument\. Mend"
    with pytest.raises(StoreError, match=message):
        taken(matrix, [3, 33], is_compiled=is_compiled)


@pytest.mark.parametrize("cut", ["refused", "short", "short for good"])
def test_matrix_take__a_read_that_is_cut_short_is_made_again(tmp_path, monkeypatch, cut):
    read, n_cut = os.preadv, []

    def cut_short(file, memory, offset, flags):
        if offset == 0 and len(n_cut) < (9 if cut == "short for good" else 2):
            n_cut.append(flags)
            if cut == "refused":
                raise OSError(errno.EIO, "Input/output error")
            return 5
        return read(file, memory, offset, flags)

    uri, _ = create(tmp_path)
    matrix, values = open_matrix(uri, "expression"), values_of((70, 23))
    write(matrix, values)
    monkeypatch.setattr(os, "preadv", cut_short)
    if cut == "short for good":
        with pytest.raises(StoreError, match=r"c/0/0: cannot be read: Input/output error\. Mend"):
            taken(matrix, [0])
    else:
        np.testing.assert_array_equal(taken(matrix, [0]), values[[0]])
    assert n_cut == [os.RWF_NOWAIT, 0, 0][: len(n_cut)]
    assert len(n_cut) == (3 if cut == "short for good" else 2)


def test_matrix_take__longest_chunks_that_are_read_directly(tmp_path):
    shape = (600, 23)
    uri, _ = create(tmp_path, shape=shape, chunks=(512, 6), shards=(512, 24))
    values = values_of(shape)
    write(open_matrix(uri, "expression"), values)
    np.testing.assert_array_equal(taken(open_matrix(uri, "expression"), range(600)), values)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_matrix_take__chunk_beyond_the_end(tmp_path, is_compiled):
    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 23))])
    path = Path(uri, "expression", "c", "0", "0")
    tail = path.read_bytes()[-(16 * 16 + 4) :]
    path.write_bytes(tail)
    with pytest.raises(StoreError, match=r"expression/c/0/0: expected a whole shard"):
        taken(matrix, [31], is_compiled=is_compiled)


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": BloscCodec(cname="lz4")},
        {"shards": None},
        {"dtype": "float64"},
        {"shards": (32, 12)},
        {"shape": (70, 23, 2), "chunks": (8, 6, 2), "shards": (32, 24, 2)},
        {"chunk_key_encoding": {"name": "default", "separator": "."}},
        {"fill_value": 0},
        {"chunks": (513, 6), "shards": (513, 24)},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    ],
    ids=lambda o: next(iter(o)),
)
def test_open_matrix__none_for_another_layout(tmp_path, options):
    uri, _ = create(tmp_path, **options)
    assert open_matrix(uri, "expression") is None


def test_open_matrix__none_for_a_remote_store():
    assert open_matrix("memory://x.zarr", "expression") is None


@settings(max_examples=30)
@given(layouts, st.data())
def test_matrix_column__as_zarr_has_it(tmp_path_factory, layout, data):
    uri, array = create(tmp_path_factory.mktemp("x"), **layout)
    write(open_matrix(uri, "expression"), values_of(layout["shape"]))
    n_samples, n_genes = layout["shape"]
    gene = data.draw(st.integers(0, n_genes - 1))
    rows = slice(*sorted(data.draw(st.tuples(*[st.integers(0, n_samples)] * 2))))
    matrix = open_matrix(uri, "expression")
    np.testing.assert_array_equal(matrix.column(gene), array[:, gene])
    np.testing.assert_array_equal(matrix.column(gene, rows), array[rows, gene])


def test_matrix_column__chunks_that_zarr_left_out_are_missing_values(tmp_path):
    uri, array = create(tmp_path)
    array[3:5, 20] = 1
    array[40:42, 0] = 2
    array[66, 8] = 3
    for gene in (0, 8, 20, 22):
        np.testing.assert_array_equal(open_matrix(uri, "expression").column(gene), array[:, gene])


def test_matrix_column__a_shard_that_takes_anothers_place_is_seen(tmp_path):
    uri, _ = create(tmp_path, shape=(32, 23))
    matrix, other = open_matrix(uri, "expression"), open_matrix(uri, "expression")
    for value in (1, 2):
        other.write(0, [np.full((32, 23), value)])
        assert (matrix.column(3) == value).all()
    path = Path(uri, "expression", "c", "0", "0")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(StoreError, match=r"expression/c/0/0"):
        matrix.column(3)
    path.unlink()
    with pytest.raises(StoreError, match=r"region 0 of 'expression' is missing"):
        matrix.column(3)


def test_matrix_column__few_shards_stay_mapped_and_an_empty_range_maps_none(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "most_maps", lambda: 2)
    uri, array = create(tmp_path)
    write(open_matrix(uri, "expression"), values_of((70, 23)))
    matrix = open_matrix(uri, "expression")
    assert matrix.column(3, slice(80, 90)).size == 0
    assert not matrix._maps
    for gene in (3, 22):
        np.testing.assert_array_equal(matrix.column(gene), array[:, gene])
        assert len(matrix._maps) == 2


def test_matrix_column__missing_shard_and_chunk_beyond_the_end(tmp_path):
    uri, _ = create(tmp_path)
    matrix = open_matrix(uri, "expression")
    matrix.write(0, [np.ones((32, 23))])
    with pytest.raises(StoreError, match=r"x\.zarr: region 1 of 'expression' is missing\. Run"):
        matrix.column(3)
    path = Path(uri, "expression", "c", "0", "0")
    path.write_bytes(path.read_bytes()[-(16 * 16 + 4) :])
    with pytest.raises(StoreError, match=r"expression/c/0/0: expected a whole shard"):
        matrix.column(3)


def test_matrix_column__a_disk_that_refuses_names_the_shard(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    uri, _ = create(tmp_path, shape=(32, 23))
    open_matrix(uri, "expression").write(0, [np.ones((32, 23))])
    monkeypatch.setattr(shards.mmap, "mmap", refuse)
    with pytest.raises(StoreError, match=r"expression/c/0/0: cannot be read: Input/output error"):
        open_matrix(uri, "expression").column(3)


@pytest.mark.parametrize("options", [{}, {"compressors": BloscCodec(cname="lz4")}])
def test_rows_column__of_all_segments_compressed_or_not(tmp_path, options):
    uris, values = [], []
    for part in range(2):
        folder = tmp_path / str(part)
        uri, array = create(folder, shape=(30 + part, 23), **options)
        values.append(values_of(array.shape, seed=part))
        array[...] = values[-1]
        uris.append(uri)
    both, genes = np.concatenate(values), np.array([22, 3])
    np.testing.assert_array_equal(Rows(uris).column(22), both[:, 22])
    for rows in (np.arange(61), np.arange(28, 33), np.arange(40, 50), np.array([2, 40])):
        np.testing.assert_array_equal(Rows(uris).take(rows, genes), both[np.ix_(rows, genes)])
    with pytest.raises(AssertionError, match="gene out of range"):
        Rows(uris).column(23)
