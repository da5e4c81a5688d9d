"""Batches of standardised expression, in an order that a seed fixes.

This module owns the sampling of rows for training: which windows of consecutive samples are read
together, and in which order their rows are seen. It reads any ``(sample, gene)`` matrix that gives
some of its rows, writes nothing and knows no keras.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.moments import Standardizer
from dglzarr.kernels.slices import iter_slices

Cache = Literal["auto", "memory", "stream"]
Scalar = TypeVar("Scalar", bound=np.generic)
_BLOCK_NBYTES = 2**26  # of samples that are read to be held
_STEP_NBYTES = 2**23  # standardised at once: short steps make the reading thread wait for its turn
_N_PARTS = 8  # of a pool: one is read while rows of the pool before it still wait for their turn


class Matrix(Protocol):
    """A ``(sample, gene)`` matrix that gives some of its rows, as `dglzarr.rows.Rows` does."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of samples and of genes."""
        ...

    def read_into(
        self, ascending: NDArray[np.int64], out: NDArray[np.float32], places: NDArray[np.int64], /
    ) -> object:
        """Write the rows at an ascending index to their places in ``out (row, gene)``."""
        ...


def iter_windows(n_samples: int, *, window: int, rng: np.random.Generator) -> list[slice]:
    """Return the windows of consecutive samples in random order.

    Parameters
    ----------
    n_samples
        Number of rows of the matrix.
    window
        Rows a window; the last window may be shorter.
    rng
        Draws the order.

    Examples
    --------
    >>> windows = iter_windows(10, window=4, rng=np.random.default_rng(0))
    >>> sorted((window.start, window.stop) for window in windows)
    [(0, 4), (4, 8), (8, 10)]
    """
    starts: list[int] = rng.permutation(np.arange(0, n_samples, window)).tolist()
    return [slice(start, min(start + window, n_samples)) for start in starts]


def iter_pools(
    keep: NDArray[np.bool_], *, window: int, windows_in_memory: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the kept rows of a few random windows at a time, shuffled among themselves.

    Parameters
    ----------
    keep
        Which samples take part, ``(sample,)``.
    window, windows_in_memory
        Rows a window, and the most windows that one pool mixes.
    rng
        Draws the order of the windows and of the rows in each pool.

    Notes
    -----
    Every kept row is in exactly one pool. Windows without a kept row are left out, and the pools
    are of nearly equal size, so that the last rows of an epoch are mixed as well as the first.
    """
    windows = iter_windows(len(keep), window=window, rng=rng)
    rows_of = [np.flatnonzero(keep[rows]).astype(np.int64) + rows.start for rows in windows]
    kept = [rows for rows in rows_of if len(rows)]
    n_pools = -(-len(kept) // windows_in_memory)
    for pool in range(n_pools):
        first, last = pool * len(kept) // n_pools, (pool + 1) * len(kept) // n_pools
        yield rng.permutation(np.concatenate(kept[first:last]))


def split_batches(
    pools: Iterable[tuple[NDArray[Scalar], NDArray[np.int64]]], *, batch_size: int
) -> Iterator[NDArray[Scalar]]:
    """Yield the rows of the pools, in order, as batches of equal size but the last.

    A pool is an array and the order in which its rows are taken. What is yielded are copies.

    Examples
    --------
    >>> pools = [(np.arange(9), np.array([8, 6, 4])), (np.arange(5), np.arange(5))]
    >>> [batch.tolist() for batch in split_batches(pools, batch_size=4)]
    [[8, 6, 4, 0], [1, 2, 3, 4]]
    """
    waiting: list[NDArray[Scalar]] = []
    for values, order in pools:
        start = 0
        while start < len(order):
            stop = start + batch_size - sum(map(len, waiting))
            waiting.append(values.take(order[start:stop], axis=0))
            start = stop
            if sum(map(len, waiting)) == batch_size:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting = []
    if waiting:
        yield np.concatenate(waiting)


class Batches:
    """Standardised batches of the kept samples of a matrix, any epoch in its own random order.

    Parameters
    ----------
    matrix
        ``(sample, gene)``, float32, missing values NaN.
    keep
        Which samples take part, ``(sample,)``.
    mean, std
        Per gene, ``(gene,)``; a missing value becomes z = 0.
    batch_size
        Rows a batch; the last batch of an epoch may be smaller.
    window, windows_in_memory
        Rows read together, and the number of such windows whose rows are mixed. Where neighbours
        are of one series, many small windows mix far better than a few large ones.
    seed
        With the epoch it fixes the order: ``default_rng([seed, epoch])``.
    cache
        ``"memory"`` standardises the kept samples once and holds them, ``"stream"`` reads them anew
        every epoch; ``"auto"`` holds them where they need at most `memory_nbytes`. The batches
        are the same bit for bit.
    memory_nbytes
        The bound for ``"auto"``, of these batches alone.
    share
        Batches of the same matrix whose memory these use too: epochs in turn then need it once.
        ``"auto"`` streams where they stream, however few samples these are.

    Raises
    ------
    ValueError
        For shapes that do not fit, sizes under 1, or a mask that keeps no sample.

    Notes
    -----
    A background thread reads the next pool to where rows of the present one have been taken.
    Streaming takes the memory of a pool, at most ``windows_in_memory * window`` rows, and an
    eighth; holding takes that of the kept rows.
    """

    def __init__(  # noqa: PLR0913  the two data arguments and named settings
        self,
        matrix: Matrix,
        *,
        keep: NDArray[np.bool_],
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        batch_size: int = 256,
        window: int = 8,
        windows_in_memory: int = 512,
        seed: int = 0,
        cache: Cache = "auto",
        memory_nbytes: int = 2**30,
        share: "Batches | None" = None,
    ) -> None:
        _check_shapes(matrix.shape, keep, mean, std)
        if min(batch_size, window, windows_in_memory) < 1:
            raise ValueError(
                "batches: expected batch_size, window and windows_in_memory of at least 1, "
                f"got {batch_size!r}, {window!r}, {windows_in_memory!r}."
            )
        self.n_samples = int(np.count_nonzero(keep))
        self.n_genes: int = matrix.shape[1]
        if share is not None and share.n_genes != self.n_genes:
            raise ValueError(
                f"share: expected batches of {self.n_genes} genes, got {share.n_genes}."
            )
        self.batch_size = batch_size
        self._matrix, self._keep, self._mean, self._std = matrix, keep.copy(), mean, std
        self._standardize = Standardizer(mean, std, limit_nbytes=_STEP_NBYTES)
        self._window, self._windows_in_memory, self._seed = window, windows_in_memory, seed
        fits = self.n_samples * self.n_genes * 4 <= memory_nbytes
        fits &= share is None or share.is_cached
        self.is_cached: bool = cache == "memory" or (cache == "auto" and fits)
        self._rows: NDArray[np.float32] | None = None
        self._memory: list[NDArray[np.float32]] = (
            [] if share is None else share._memory  # noqa: SLF001  (its own kind)
        )

    @property
    def n_batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.n_samples // self.batch_size)

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides which batches come, but the values of the matrix."""
        settings = (self.batch_size, self._window, self._windows_in_memory, self._seed)
        digest = hashlib.sha256(repr((self._matrix.shape, settings)).encode())
        for vector in (self._keep, self._mean, self._std):
            digest.update(np.ascontiguousarray(vector).tobytes())
        return digest.hexdigest()

    def epoch(self, epoch: int) -> Iterator[NDArray[np.float32]]:
        """Yield the batches ``(batch, gene)`` of one epoch: each kept sample once."""
        if self.is_cached:
            return split_batches([(self._held(), self.order(epoch))], batch_size=self.batch_size)
        batches = split_batches(self._streamed(self._pools(epoch)), batch_size=self.batch_size)
        return (self._standardize(batch, batch) for batch in batches)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which an epoch sees the kept samples, numbered as in the store."""
        number = np.cumsum(self._keep) - 1
        return np.asarray(number[np.concatenate(self._pools(epoch))])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the standardised kept samples, in the order of the store, some at a time."""
        kept = np.flatnonzero(self._keep).astype(np.int64)
        for some in iter_slices(len(kept), 4 * self.n_genes, limit_nbytes=_BLOCK_NBYTES):
            rows = kept[some]
            block = np.empty((len(rows), self.n_genes), np.float32)
            self._matrix.read_into(rows, block, np.arange(len(rows)))
            yield self._standardize(block, block)

    def _pools(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of the pools of an epoch, in the order in which they are seen."""
        rng = np.random.default_rng([self._seed, epoch])
        n_windows = self._windows_in_memory
        return list(
            iter_pools(self._keep, window=self._window, windows_in_memory=n_windows, rng=rng)
        )

    def _held(self) -> NDArray[np.float32]:
        """Return the kept samples, in memory."""
        if self._rows is None:
            rows = np.empty((self.n_samples, self.n_genes), np.float32)
            start = 0
            for block in self.blocks():
                rows[start : start + len(block)] = block
                start += len(block)
            self._rows = rows
        return self._rows

    def _streamed(
        self, pools: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield a pool's rows as they are in the store, no more at a time than a batch lacks.

        The rows of a pool are all in memory before the first is yielded. They are read in the order
        of the store, in parts, each as soon as it finds room.
        """
        part_rows = -(-max(map(len, pools)) // _N_PARTS)
        memory = self._free_memory(min(self.n_samples, (_N_PARTS + 1) * part_rows))
        slot_of = np.empty(len(self._keep), np.int64)  # where a row is in that memory
        free = list(range(len(memory)))
        parts = deque(
            part
            for pool in pools
            for part in np.split(np.sort(pool), range(part_rows, len(pool), part_rows))
        )
        reading: deque[tuple[int, Future[object]]] = deque()
        executor = ThreadPoolExecutor(max_workers=1)

        def read_what_fits() -> None:
            while parts and len(parts[0]) <= len(free):
                part = parts.popleft()
                slots = np.array(free[: len(part)])
                del free[: len(part)]
                slot_of[part] = slots
                future = executor.submit(self._matrix.read_into, part, memory, slots)
                reading.append((len(part), future))

        n_yielded = 0
        try:
            for pool in pools:
                n_awaited = len(pool)
                while n_awaited:
                    read_what_fits()
                    n_rows, future = reading.popleft()
                    future.result()
                    n_awaited -= n_rows
                ends = range(-n_yielded % self.batch_size, len(pool), self.batch_size)
                for rows in np.split(pool, ends):
                    read_what_fits()
                    yield memory, slot_of[rows]
                    free.extend(slot_of[rows].tolist())
                n_yielded += len(pool)
        finally:
            executor.shutdown(cancel_futures=True)
        self._memory.append(memory)

    def _free_memory(self, n_rows: int) -> NDArray[np.float32]:
        """Return memory that is not in use: what an epoch before left, or new.

        Fresh pages cost as much as a third of the reading.
        """
        while self._memory:
            memory = self._memory.pop()
            if len(memory) >= n_rows:
                return memory
        return np.empty((n_rows, self.n_genes), np.float32)


def _check_shapes(
    shape: tuple[int, ...],
    keep: NDArray[np.bool_],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
) -> None:
    """Raise ValueError unless the vectors fit the matrix and some sample is kept."""
    n_samples, n_genes = shape
    if keep.shape != (n_samples,) or keep.dtype != np.bool_:
        raise ValueError(
            f"keep: expected a boolean mask of {n_samples} samples, "
            f"got {keep.dtype} of shape {keep.shape}."
        )
    if mean.shape != (n_genes,) or std.shape != (n_genes,):
        raise ValueError(
            f"mean, std: expected one value for each of {n_genes} genes, "
            f"got shapes {mean.shape} and {std.shape}."
        )
    if not keep.any():
        raise ValueError(f"keep: expected at least one kept sample, got none of {n_samples}.")
