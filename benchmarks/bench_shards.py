"""Shards: the ways to read rows, to feed training and to write, beside plain calls and Zarr.

    python benchmarks/bench_shards.py --size full --repeats 20 --stage shards-windows

Engines take turns in one process. A name in brackets is what `dglzarr.storage.shards` goes without
there, so that a ratio over 1 is what it gains by it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import google_crc32c
import numpy as np
import zarr
from common import Bench, Case, Timed, main, run_here, simulated_rows

from dglzarr.kernels.slices import iter_slices
from dglzarr.models.batches import Batches, BatchOptions, draw_order
from dglzarr.storage import shards
from dglzarr.storage.declare import layout, shard_samples
from dglzarr.storage.schemas import NORMALIZED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]
    Read = Callable[[Index, Values, Index], object]
    Write = Callable[[int, Values], object]

PART = 160  # rows at once, as training reads them
N_SHARDS = 2  # that are read whole, and written


def prepare(case: Case) -> None:
    """Write a matrix to read, and make one to write to."""
    for name in ("read.zarr", "written.zarr"):
        shape = case.n_samples, case.n_genes
        chunk, shard = layout(NORMALIZED["expression"], shape, shard_samples(case.n_samples))
        options: dict[str, Any] = {"dtype": "float32", "fill_value": np.nan, "compressors": None}
        zarr.open_group(case.path(name), mode="w").create_array(
            "expression", shape=shape, chunks=chunk, shards=shard, **options
        )
    for shard in range(-(-case.n_samples // shard_samples(case.n_samples))):
        opened(case, "read.zarr").write(shard, [rows_of(case, shard)])


def opened(case: Case, name: str) -> shards.Matrix:
    """Return a matrix for direct reading and writing."""
    return cast("shards.Matrix", shards.open_matrix(case.path(name), "expression"))


@cache
def rows_of(case: Case, shard: int) -> Values:
    """Return the samples of a shard."""
    length = shard_samples(case.n_samples)
    stop = min((shard + 1) * length, case.n_samples)
    return simulated_rows(shard * length, stop, case.n_genes)


def shard_paths(case: Case, name: str) -> list[Path]:
    """Return the files of the shards."""
    return sorted(Path(case.path(name), "expression", "c").glob("*/0"))


# ---------------------------------------------------------------- rows


def kept(case: Case) -> NDArray[np.bool_]:
    """Return which samples are trained on: eight of ten neighbours, less one in twenty."""
    is_kept = np.random.default_rng(0).random(case.n_samples) < 0.95
    return is_kept & (np.arange(case.n_samples) % 10 < 8)


def windows(case: Case) -> list[Index]:
    """Return rows as training reads them: windows of ten neighbours in random order."""
    rng = np.random.default_rng(1)
    return in_parts(draw_order(kept(case), window=10, windows_in_memory=256, rng=rng).rows[:3200])


def scattered(case: Case) -> list[Index]:
    """Return rows in random order."""
    return in_parts(np.random.default_rng(2).permutation(case.n_samples)[:960])


def whole(case: Case) -> list[Index]:
    """Return whole shards, as most stages read them."""
    length = min(shard_samples(case.n_samples), case.n_samples)
    every = np.arange(min(N_SHARDS * length, case.n_samples))
    return [every[some] for some in iter_slices(every.size, 1, limit_nbytes=length)]


def in_parts(rows: Index) -> list[Index]:
    """Return parts of rows, each in the order of the store."""
    return [np.sort(rows[some]) for some in iter_slices(rows.size, 1, limit_nbytes=PART)]


# ---------------------------------------------------------------- reading


def reader(attribute: str = "", value: object = None, **how: bool) -> Callable[[Case], Read]:
    """Return what makes a reader that is dglzarr's, but for an attribute of `shards`."""

    def make(case: Case) -> Read:
        take = partial(opened(case, "read.zarr").take, **how)

        def read(*where: Any) -> None:  # noqa: ANN401
            with patch.object(shards, attribute, value):
                take(*where)

        return read if attribute else take

    return make


def plain_reader(case: Case) -> Read:
    """Return a reader of plain ``os.preadv``: a call a chunk and run of neighbours."""
    matrix = opened(case, "read.zarr")
    (length, width), n_genes = matrix.chunks, case.n_genes
    grid = matrix.shards[0] // length, matrix.shards[1] // width
    beyond = memoryview(bytearray(4 * width))

    def offsets_of(file: int) -> list[list[int]]:
        nbytes = 16 * grid[0] * grid[1]
        found = os.pread(file, nbytes + 4, os.fstat(file).st_size - nbytes - 4)
        if google_crc32c.value(found[:-4]) != int.from_bytes(found[-4:], "little"):
            raise OSError("damaged")
        offsets: list[list[int]] = (
            np.frombuffer(found[:-4], "<u8").reshape(*grid, 2)[..., 0].tolist()
        )
        return offsets

    def read(index: Index, out: Values, places: Index) -> None:
        memory, at = out.reshape(-1).view(np.uint8).data, (places * 4 * n_genes).tolist()
        is_first = (np.diff(index, prepend=-2) != 1) | (index % length == 0)
        shard = -1
        with ExitStack() as stack:
            for start, stop in pairwise([*np.flatnonzero(is_first).tolist(), index.size]):
                if index[start] // matrix.shards[0] != shard:
                    shard = int(index[start] // matrix.shards[0])
                    path = matrix.path / "c" / str(shard) / "0"
                    file = stack.enter_context(path.open("rb", buffering=0)).fileno()
                    offsets = offsets_of(file)
                row, skipped = divmod(int(index[start]) % matrix.shards[0], length)
                for column, offset in enumerate(offsets[row]):
                    first, last = 4 * column * width, 4 * min((column + 1) * width, n_genes)
                    rows = [memory[a + first : a + last] for a in at[start:stop]]
                    if last - first < 4 * width:
                        rest = beyond[last - first :]
                        rows = [part for row in rows for part in (row, rest)]
                    n_read = os.preadv(file, rows, offset + 4 * skipped * width)
                    if n_read != 4 * width * (stop - start):
                        raise OSError("cut short")

    return read


def zarr_reader(case: Case) -> Read:
    """Return a reader that is Zarr's own."""
    array: Any = zarr.open_array(case.path("read.zarr"), path="expression", mode="r")

    def read(index: Index, out: Values, places: Index) -> None:
        is_range = index[-1] - index[0] + 1 == index.size
        out[places] = array[index[0] : index[-1] + 1] if is_range else array.oindex[index]

    return read


def bytes_reader(case: Case) -> Read:
    """Return a reader of as many bytes, one after another."""
    paths, place = shard_paths(case, "read.zarr"), [0, 0]

    def read(index: Index, out: Values, _: Index) -> None:
        memory = out[: index.size].reshape(-1).view(np.uint8).data
        while memory:
            with paths[place[0]].open("rb", buffering=0) as file:
                n_read = os.preadv(file.fileno(), [memory], place[1])
            memory = memory[n_read:]
            place[:] = (place[0], place[1] + n_read) if n_read else ((place[0] + 1) % len(paths), 0)

    return read


UNASKED = "_ask", lambda *_: None
PEERS: dict[str, Callable[[Case], Read]] = {
    "os.preadv": plain_reader,
    "zarr": zarr_reader,
    "limit: as many bytes in order": bytes_reader,
}
STAGES = {
    "dglzarr": reader(),
    "dglzarr, compiled": reader(is_compiled=True),
    "dglzarr (without asking the disk beforehand)": reader(*UNASKED),
    **PEERS,
}
TRAINING = {
    "dglzarr": reader(is_compiled=True),
    "dglzarr (without compiled calls)": reader(),
    "dglzarr (without asking the disk beforehand)": reader(*UNASKED, is_compiled=True),
    **PEERS,
}


def reading(
    case: Case,
    name: str,
    readers: Mapping[str, Callable[[Case], Read]],
    rows: Callable[[Case], list[Index]],
    *,
    n_threads: int = 1,
    is_cold: bool = False,
    is_beside: bool = False,
) -> Timed:
    """Time threads that read parts, each thread to memory of its own."""
    read, parts = readers[name](case), rows(case)
    parts = parts[:1] if name == "zarr" else parts  # it takes a hundred times as long
    n_rows = max(part.size for part in parts)
    memory = [np.zeros((n_rows, case.n_genes), np.float32) for _ in range(n_threads)]

    def work(thread: int) -> None:
        for part in parts[thread::n_threads]:
            read(part, memory[thread], np.arange(part.size))

    read(parts[0][:1], memory[0], np.arange(1))  # compiled, where it is, and opened
    set_page_cache(case, is_cold=is_cold)
    with ThreadPoolExecutor(n_threads) as pool, beside_python() if is_beside else nullcontext():
        n_samples = sum(part.size for part in parts)
        return run_here(case, lambda: list(pool.map(work, range(n_threads))), n_samples=n_samples)


def feeding(case: Case, name: str, *, is_cold: bool = False) -> Timed:
    """Time an epoch of streamed batches, after another that takes the memory."""
    read, is_kept = TRAINING[name](case), kept(case)
    is_kept[4096:] = is_cold

    class Rows:
        shape = case.n_samples, case.n_genes

        def read_into(self, index: Index, out: Values, places: Index, **_: bool) -> None:
            read(index, out, places)

    mean, std = np.zeros(case.n_genes), np.ones(case.n_genes)
    options = BatchOptions(cache="stream")
    batches = Batches(Rows(), keep=is_kept, mean=mean, std=std, options=options)

    def epoch(number: int) -> None:
        for _ in batches.epoch(number):
            pass

    epoch(0)
    set_page_cache(case, is_cold=is_cold)
    return run_here(case, lambda: epoch(1), n_samples=batches.n_samples)


def set_page_cache(case: Case, *, is_cold: bool) -> None:
    """Have the page cache hold all of the matrix, or nothing of it."""
    for path in shard_paths(case, "read.zarr"):
        with path.open("rb", buffering=0) as file:
            if not is_cold:
                while file.read(2**22):
                    pass
                continue
            os.fsync(file.fileno())
            for _ in range(100):  # what is still being read stays
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if not n_cached(file.fileno()):
                    break
                time.sleep(0.05)
            else:
                raise OSError(f"{path}: the page cache keeps it")


def n_cached(file: int) -> int:
    """Return how many pages of a file are in the page cache."""
    with closing(mmap.mmap(file, 0, prot=mmap.PROT_READ)) as memory:
        found = np.empty(-(-len(memory) // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(memory, np.uint8)
        call = ctypes.CDLL(None).mincore
        call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        if call(view.ctypes.data, len(memory), found.ctypes.data):
            raise OSError("mincore")
        del view
        return int((found & 1).sum())


@contextmanager
def beside_python() -> Iterator[None]:
    """Keep Python's lock as busy as another thread can."""
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            sum(range(100))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# ---------------------------------------------------------------- writing


class AtOnce(ThreadPoolExecutor):
    """Calls what is submitted before it goes on."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:  # noqa: ANN401
        """Return what a call returned."""
        done: Future[Any] = Future()
        done.set_result(call(*args, **options))
        return done


def writing_without(attribute: str, value: object) -> Callable[[Case], Write]:
    """Return what makes a writer that goes without something."""

    def writer(case: Case) -> Write:
        def write(shard: int, block: Values) -> None:
            with patch.object(shards, attribute, value):
                opened(case, "written.zarr").write(shard, [block])

        return write

    return writer


def plain_writer(case: Case) -> Write:
    """Return a writer of plain ``os.pwrite``: a call a row of chunks, then the index."""
    matrix = opened(case, "written.zarr")
    (length, width), n_genes = matrix.chunks, case.n_genes
    n_columns = matrix.shards[1] // width

    def write(shard: int, block: Values) -> None:
        table = np.full((matrix.shards[0] // length, n_columns, 2), 2**64 - 1, "<u8")
        chunks = np.full((n_columns, length, width), np.nan, np.float32)
        at = 0
        with new_file(matrix, shard, os.O_WRONLY) as file:
            for row, start in enumerate(range(0, len(block), length)):
                samples = block[start : start + length]
                for column in range(n_columns):
                    genes = slice(column * width, min((column + 1) * width, n_genes))
                    chunks[column, : len(samples), : genes.stop - genes.start] = samples[:, genes]
                table[row, :, 0] = at + np.arange(n_columns) * chunks[0].nbytes
                table[row, :, 1] = chunks[0].nbytes
                at += os.pwrite(file, chunks, at)
            index = table.tobytes()
            os.pwrite(file, index + google_crc32c.value(index).to_bytes(4, "little"), at)

    return write


def zarr_writer(case: Case) -> Write:
    """Return a writer that is Zarr's own."""
    array: Any = zarr.open_array(case.path("written.zarr"), path="expression", mode="r+")

    def write(shard: int, block: Values) -> None:
        start = shard * shard_samples(case.n_samples)
        array[start : start + len(block)] = block

    return write


def bytes_writer(case: Case) -> Write:
    """Return a writer of as many bytes, past the page cache where they are many."""
    matrix = opened(case, "written.zarr")
    nbytes = min(2**28, 4 * matrix.shards[0] * matrix.shards[1])
    memory = mmap.mmap(-1, -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)  # begins at a page
    memory.write(b"\x40" * len(memory))

    def write(shard: int, _: Values) -> None:
        flags = os.O_WRONLY | (os.O_DIRECT if nbytes > 2**24 else 0)
        with new_file(matrix, shard, flags) as file:
            os.write(file, memory)

    return write


@contextmanager
def new_file(matrix: shards.Matrix, shard: int, flags: int) -> Iterator[int]:
    """Yield the file of a shard."""
    path = matrix.path / "c" / str(shard) / "0"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, flags | os.O_CREAT, 0o666)
    try:
        yield file
    finally:
        os.close(file)


WRITERS: dict[str, Callable[[Case], Write]] = {
    "dglzarr": lambda case: lambda shard, block: opened(case, "written.zarr").write(shard, [block]),
    "dglzarr (without writing past the page cache)": writing_without("_DIRECT", 0),
    "dglzarr (without writing beside)": writing_without("ThreadPoolExecutor", AtOnce),
    "os.pwrite": plain_writer,
    "zarr": zarr_writer,
    "limit: as many bytes": bytes_writer,
}


def writing(case: Case, name: str, *, is_synced: bool = False, is_read: bool = False) -> Timed:
    """Time the writing of shards, until they are on the disk or have been read again."""
    write, take = WRITERS[name](case), opened(case, "written.zarr").take
    blocks = [rows_of(case, shard) for shard in range(min(N_SHARDS, len(whole(case))))]
    out = np.zeros_like(blocks[0])
    for path in shard_paths(case, "written.zarr"):
        path.unlink()

    def work() -> None:
        for shard, block in enumerate(blocks):
            write(shard, block)
        for path in shard_paths(case, "written.zarr") if is_synced else ():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for rows in whole(case) if is_read and not name.startswith("limit: ") else ():
            take(rows, out, np.arange(rows.size))

    return run_here(case, work, n_samples=sum(map(len, blocks)))


def bench(stage: str, engine: Callable[..., Timed], names: Iterable[str], **how: Any) -> Bench:  # noqa: ANN401
    """Return the comparison of some readers or writers."""
    engines = {name: partial(engine, name=name, **how) for name in names}
    return Bench(stage, prepare, engines, is_quick=True)


FEEDERS = [name for name in TRAINING if name != "zarr"]
WINDOWS = partial(bench, engine=reading, names=TRAINING, readers=TRAINING, rows=windows)
SCATTERED = partial(bench, engine=reading, names=STAGES, readers=STAGES, rows=scattered)
WHOLE = partial(bench, engine=reading, names=STAGES, readers=STAGES, rows=whole)
BENCHES = [
    WINDOWS("shards-windows"),
    WINDOWS("shards-windows, two threads", n_threads=2),
    WINDOWS("shards-windows, two threads beside Python", n_threads=2, is_beside=True),
    WINDOWS("shards-windows, from the disk", is_cold=True),
    SCATTERED("shards-scattered"),
    SCATTERED("shards-scattered, from the disk", is_cold=True),
    WHOLE("shards-whole"),
    WHOLE("shards-whole, from the disk", is_cold=True),
    bench("shards-feeding", feeding, FEEDERS),
    bench("shards-feeding, from the disk", feeding, FEEDERS, is_cold=True),
    bench("shards-write", writing, WRITERS),
    bench("shards-write, until it is on the disk", writing, WRITERS, is_synced=True),
    bench("shards-write, and read again", writing, WRITERS, is_read=True),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
