"""Owns the sketch of the training samples that panels are selected on.

Selection needs only products of genes over samples. They survive, in expectation exactly, when
samples are shuffled and every few of them are added up with random signs (a count sketch); so a
matrix of few rows stands for any number of samples. When there are few samples they are the rows.

References
----------
Clarkson and Woodruff (2017), doi 10.1145/3019134: sparse sketches.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.greedy import Products


@dataclass(frozen=True)
class GeneSketch:
    """What selectors see of the samples they are fitted on.

    ``rows (row, gene)`` holds samples in z units, missing values 0, or signed sums of a few of
    them; so ``rows.T @ rows`` estimates ``n_samples`` times the correlation of genes. ``std`` is
    the spread of each gene before it was standardised, 0 or NaN for one that does not vary;
    ``score`` its DeepLIFT score. ``group`` holds the inner fold of each row, (row,): rows of one
    series are in one; None where they are not told apart.
    """

    rows: NDArray[np.float32]
    std: NDArray[np.float64]
    score: NDArray[np.float64]
    n_samples: int
    group: NDArray[np.int64] | None = None

    @property
    def varies(self) -> NDArray[np.bool_]:
        """Whether a gene varies among the samples, (gene,); others are never selected."""
        return np.asarray(self.std > 0)

    @cached_property
    def products(self) -> Products:
        """What greedy selection begins with, of all genes alike; made once."""
        return Products.of(self.rows)


def fold_samples(
    block: NDArray[np.float32], n_rows: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a block of samples folded to at most some rows (row, gene).

    Parameters
    ----------
    block : (sample, gene), z units, without missing values
    n_rows : rows at most; a block with no more samples is returned as it is
    rng : source of the shuffle and the signs

    Raises
    ------
    ValueError
        If no row is allowed.

    Notes
    -----
    Every sample enters one row, with a sign. A product of two genes over the rows is that over
    the samples plus products of different samples, whose signs make them 0 on average.

    Examples
    --------
    >>> fold_samples(np.array([[1.0, 2.0]], dtype=np.float32), 1, np.random.default_rng(0))
    array([[1., 2.]], dtype=float32)
    >>> fold_samples(np.ones((4, 1), np.float32), 2, np.random.default_rng(0)).shape
    (2, 1)
    """
    if n_rows < 1:
        raise ValueError(f"n_rows: expected 1 or more, got {n_rows!r}.")
    if len(block) <= n_rows:
        return block
    order = rng.permutation(len(block))
    signs = rng.choice(np.array([-1, 1], dtype=np.float32), len(block))
    folded = np.zeros((n_rows, block.shape[1]), dtype=np.float32)
    for row, sample in enumerate(order):
        folded[row % n_rows] += signs[row] * block[sample]
    return folded


def share_rows(counts: NDArray[np.integer], n_rows: int) -> NDArray[np.int64]:
    """Return how many rows of a sketch each region's samples are folded to, (region,).

    All samples are kept as they are where there are no more than rows; otherwise regions share
    the rows by their numbers of samples, with one at least for any sample.

    Examples
    --------
    >>> share_rows(np.array([3, 0, 5]), 8), share_rows(np.array([300, 1, 99]), 40)
    (array([3, 0, 5]), array([30,  1, 10]))
    """
    if counts.sum() <= n_rows:
        return counts.astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum(counts)]) * n_rows // counts.sum()
    return np.asarray(np.maximum(np.diff(bounds), counts > 0), dtype=np.int64)
