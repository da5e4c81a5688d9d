"""Batches of standardised expression, in an order that a seed fixes.

This module owns the sampling of rows for training: which windows of consecutive samples are read
together, and in which order their rows are seen. It reads a ``(sample, gene)`` matrix by its
rows, writes nothing and knows no keras.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.moments import Standardizer
from dglzarr.kernels.slices import iter_slices
from dglzarr.models.options import BatchOptions
from dglzarr.storage.rows import Rows

_BLOCK_NBYTES = 2**26  # of samples that are read to be held
_N_READERS = 2  # threads
_N_PARTS = 16  # of what is in memory


class Order(NamedTuple):
    """An order of the kept samples.

    ``rows (kept,)`` are their rows as they are read: windows in random order. ``seen (kept,)`` says
    by its number in ``rows`` which of them comes first, second and so on.
    """

    rows: NDArray[np.int64]
    seen: NDArray[np.int64]


def draw_order(
    keep: NDArray[np.bool_], *, window: int, windows_in_memory: int, rng: np.random.Generator
) -> Order:
    """Return the kept rows in random order, of which few are in memory at once.

    Parameters
    ----------
    keep
        Which samples take part, ``(sample,)``.
    window, windows_in_memory
        Rows of the store that are read together, and about how many such windows are in memory.
    rng
        Draws the order of the windows and of the rows.

    Notes
    -----
    Every row waits in memory for a time drawn from 0 to as long as it takes to read twice the rows
    that are in memory; so half of what was read meanwhile is still there, and a batch holds rows of
    ``2 * windows_in_memory`` windows: four windows a row of the batch give it over nine tenths of
    the series of a full shuffle.
    The first and last rows of an epoch have fewer to mix with.
    Where all kept rows fit in memory, any order is as likely as any other.

    Examples
    --------
    >>> keep = np.array([True, False, True, True])
    >>> order = draw_order(keep, window=2, windows_in_memory=1, rng=np.random.default_rng(0))
    >>> sorted(order.rows[order.seen].tolist())
    [0, 2, 3]
    """
    turn = rng.permutation(-(-len(keep) // window))
    rows = np.flatnonzero(keep).astype(np.int64)
    rows = rows[np.argsort(turn[rows // window], kind="stable")]
    n_in_memory = window * windows_in_memory
    if len(rows) <= n_in_memory:
        return Order(rows, rng.permutation(len(rows)))
    leaves = np.arange(len(rows)) + rng.uniform(0, 2 * n_in_memory, len(rows))
    return Order(rows, np.argsort(leaves))


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
    options
        Rows a batch and how they are read; the last batch of an epoch may be smaller. With cache
        ``"auto"`` the samples are held where they need at most `memory_nbytes`.
    seed
        With the epoch it fixes the order: ``default_rng([seed, epoch])``.
    memory_nbytes
        The bound for ``"auto"``, of these batches alone.
    share
        Batches of the same matrix whose memory these use too: epochs in turn then need it once.
        ``"auto"`` streams where they stream, however few samples these are.

    Raises
    ------
    ValueError
        For shapes that do not fit, or a mask that keeps no sample.

    Notes
    -----
    The order is that of `draw_order`; held or streamed, the batches are the same bit for bit.
    Two threads read ahead, to where rows have been taken. Streaming takes the memory of
    ``windows_in_memory * window`` rows, about a quarter of them, and what of a batch is over that;
    holding takes that of the kept rows.
    """

    def __init__(
        self,
        matrix: Rows,
        *,
        keep: NDArray[np.bool_],
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        options: BatchOptions,
        seed: int = 0,
        memory_nbytes: int = 2**30,
        share: "Batches | None" = None,
    ) -> None:
        _check_shapes(matrix.shape, keep, mean, std)
        self.n_samples = int(np.count_nonzero(keep))
        self.n_genes: int = matrix.shape[1]
        if share is not None and share.n_genes != self.n_genes:
            raise ValueError(
                f"share: expected batches of {self.n_genes} genes, got {share.n_genes}."
            )
        self.batch_size, self._options, self._seed = options.batch_size, options, seed
        self._matrix, self._keep, self._mean, self._std = matrix, keep.copy(), mean, std
        self._standardize = Standardizer(mean, std)
        fits = self.n_samples * self.n_genes * 4 <= memory_nbytes
        fits &= share is None or share.is_cached
        self.is_cached: bool = options.cache == "memory" or (options.cache == "auto" and fits)
        self._rows: NDArray[np.float32] | None = None
        self._memory: list[NDArray[np.float32]] = (
            [] if share is None else share._memory  # noqa: SLF001  (its own kind)
        )

    @property
    def keep(self) -> NDArray[np.bool_]:
        """Which samples of the matrix take part, (sample,)."""
        return self._keep

    @property
    def fingerprint(self) -> str:
        """A digest of all that decides which batches come, but the values of the matrix."""
        settings = (
            "random waiting",  # another way to draw an order needs another name
            self.batch_size,
            self._options.window,
            self._options.windows,
            self._seed,
        )
        digest = hashlib.sha256(repr((self._matrix.shape, settings)).encode())
        for vector in (self._keep, self._mean, self._std):
            digest.update(np.ascontiguousarray(vector).tobytes())
        return digest.hexdigest()

    def epoch(self, epoch: int) -> Iterator[NDArray[np.float32]]:
        """Yield the batches ``(batch, gene)`` of one epoch: each kept sample once."""
        if not self.is_cached:
            return self._streamed(self._order(epoch))
        held, order = self._held(), self.order(epoch)
        return (held.take(order[batch], axis=0) for batch in self._batches())

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order in which an epoch sees the kept samples, numbered as in the store."""
        rows, seen = self._order(epoch)
        number = np.cumsum(self._keep) - 1
        return np.asarray(number[rows[seen]])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the standardised kept samples, in the order of the store, some at a time."""
        kept = np.flatnonzero(self._keep).astype(np.int64)
        for some in iter_slices(len(kept), 4 * self.n_genes, limit_nbytes=_BLOCK_NBYTES):
            rows = kept[some]
            block = np.empty((len(rows), self.n_genes), np.float32)
            self._matrix.read_into(rows, block, np.arange(len(rows)))
            yield self._standardize(block, block)

    def _order(self, epoch: int) -> Order:
        return draw_order(
            self._keep,
            window=self._options.window,
            windows_in_memory=self._options.windows,
            rng=np.random.default_rng([self._seed, epoch]),
        )

    def _batches(self) -> Iterator[slice]:
        """Yield which rows of an order each batch holds."""
        return iter_slices(self.n_samples, 1, limit_nbytes=self.batch_size)

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

    def _streamed(self, order: Order) -> Iterator[NDArray[np.float32]]:
        """Yield the batches of an order; threads read what comes next.

        Rows are read in parts, each in the order of the store, as soon as it finds room.
        """
        rows, seen = order
        n_in_memory = self._options.window * self._options.windows
        n_part = -(-min(self.n_samples, n_in_memory) // _N_PARTS)
        parts = deque(iter_slices(self.n_samples, 1, limit_nbytes=n_part))
        n_needed = np.maximum.accumulate(seen) + 1  # read before a row is seen
        batches = [(int(n_needed[batch.stop - 1]), batch) for batch in self._batches()]
        n_waiting = max(-(-n // n_part) * n_part - batch.start for n, batch in batches)
        memory = self._free_memory(min(self.n_samples, n_waiting + _N_READERS * n_part))
        slot_of = np.empty(self.n_samples, np.int64)  # where a row is in that memory
        free = list(range(len(memory)))
        read = partial(self._matrix.read_into, is_compiled=True)
        reading: deque[tuple[int, Future[object]]] = deque()
        executor = ThreadPoolExecutor(_N_READERS)

        def read_what_fits() -> None:
            while parts and parts[0].stop - parts[0].start <= len(free):
                part = parts.popleft()
                ascending = part.start + np.argsort(rows[part])
                slot_of[ascending] = slots = np.array(free[: len(ascending)])
                del free[: len(ascending)]
                reading.append((part.stop, executor.submit(read, rows[ascending], memory, slots)))

        n_read = 0
        try:
            read_what_fits()
            for n_needed_now, batch in batches:
                while n_read < n_needed_now:
                    n_read, part_read = reading.popleft()
                    part_read.result()
                slots = slot_of[seen[batch]]
                out = np.empty((len(slots), self.n_genes), np.float32)
                self._standardize.take(memory, slots, out)
                free.extend(slots.tolist())
                read_what_fits()  # while the batch is used
                yield out
                del out
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
