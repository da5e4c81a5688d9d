"""Owns greedy selection: each gene is the one whose addition predicts all genes best by ridge.

References
----------
Farahat, Ghodsi and Kamel (2011), doi 10.1109/ICDM.2011.22: the recursion, without ridge.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, solve_triangular

from dglzarr.kernels.limits import Limits

Index = NDArray[np.int64]
Float64 = NDArray[np.float64]

_BLOCK = 64
"""Genes that are known beforehand are taken off together: one product instead of many."""


class Products(NamedTuple):
    """What greedy selection of rows Y begins with.

    ``matrix (row, row)`` is ``K = Y diag(w) Y'``, ``norms (gene,)`` is ``y_l' y_l`` and ``reach
    (gene,)`` is ``y_l' K y_l``.
    """

    matrix: Float64
    norms: Float64
    reach: Float64

    @classmethod
    def of(cls, rows: NDArray[np.floating], importance: Float64 | None = None) -> Self:
        """Return those of some rows (row, gene), their genes weighted as targets."""
        weighted = rows if importance is None else rows * importance.astype(rows.dtype)
        matrix = (weighted @ rows.T).astype(np.float64)
        norms = np.einsum("rg,rg->g", rows, rows, dtype=np.float64)
        reach = np.einsum("rg,rg->g", rows, matrix.astype(rows.dtype) @ rows, dtype=np.float64)
        return cls(matrix, norms, reach)


def greedy_order(
    rows: NDArray[np.floating],
    n: int,
    *,
    ridge: float,
    forced: Index,
    allowed: NDArray[np.bool_],
    products: Products | None = None,
    limits: Limits | None = None,
) -> Index:
    """Return n genes, in order; each reduces the ridge error of predicting all genes the most.

    Parameters
    ----------
    rows : (row, gene), samples or a sketch of them, without missing values
    n : genes to select
    ridge : penalty, in the unit of a squared column norm of ``rows``; over 0
    forced : genes on the panel already; what they explain is taken off first
    allowed : (gene,), which genes may be selected
    products : of the rows, where they are known or the genes are weighted as targets
    limits : what the panel may cost and must hold; where no gene can be added any more, fewer
        than n are returned

    Raises
    ------
    ValueError
        If fewer genes are allowed, or the penalty is not over 0.

    Notes
    -----
    With a panel S the error is ``sum_j w_j y_j' C y_j``, where ``C = (I + Y_S Y_S' / ridge)^-1``.
    Adding gene l makes it ``C - v v'`` with ``v = C y_l / sqrt(ridge + y_l' C y_l)``, and
    lowers the error by ``f_l / (ridge + g_l)`` where ``g_l = y_l' C y_l`` and
    ``f_l = y_l' C K C y_l`` with ``K = Y diag(w) Y'``. All f and g follow from
    ``Y' v`` and ``Y' C K v``: a step is one product of the rows with two vectors, 4 x rows x genes.
    Memory: the rows, and twice (row, row) in float64.

    Examples
    --------
    >>> rows = np.array([[2.0, 2.0, 0.0], [0.0, 0.1, 1.0]])
    >>> free, allowed = np.empty(0, dtype=np.int64), np.ones(3, dtype=bool)
    >>> greedy_order(rows, 2, ridge=0.1, forced=free, allowed=allowed)
    array([1, 2])
    """
    is_open = allowed.copy()
    is_open[forced] = False
    if n > is_open.sum():
        raise ValueError(f"n: expected at most {int(is_open.sum())} genes, got {n!r}.")
    if not ridge > 0:
        raise ValueError(f"ridge: expected over 0, got {ridge!r}.")
    state = Deflation(rows, ridge, n + len(forced), products)
    state.add(forced)
    chosen = np.empty(n, dtype=np.int64)
    for i in range(n):
        if limits is None:
            chosen[i] = np.where(is_open, state.gain, -np.inf).argmax()
        else:
            panel = np.concatenate([forced, chosen[:i]])
            chosen[i] = limits.choose(state.gain, is_open, panel)
            if chosen[i] < 0:
                return chosen[:i]
        is_open[chosen[i]] = False
        state.add(chosen[i : i + 1])
    return chosen


def ordered_gain(rows: NDArray[np.floating], panel: Index, *, ridge: float, begin: int) -> Float64:
    """Return by how much each gene of a panel lowered the ridge error when it joined the panel.

    Parameters
    ----------
    rows : (row, gene), samples or a sketch of them, without missing values
    panel : genes in the order in which they joined
    ridge : penalty, in the unit of a squared column norm of ``rows``; over 0
    begin : position of the first gene that is told; those before it are taken off first

    Returns
    -------
    gain : (panel - begin,), in the unit of a squared norm of ``rows``, of all genes alike

    Notes
    -----
    With the Cholesky factor L of ``Y_S' Y_S + ridge`` the columns of ``Y_S L'^-1`` are the v of
    `greedy_order`, and v takes ``v' Y Y' v`` off the error.

    Examples
    --------
    >>> rows = np.array([[2.0, 2.0, 0.0], [0.0, 0.1, 1.0]])
    >>> ordered_gain(rows, np.array([1, 2]), ridge=0.1, begin=0).round(3)
    array([7.808, 0.915])
    """
    own = rows[:, panel].astype(np.float64)
    lower, _ = cho_factor(own.T @ own + ridge * np.eye(panel.size), lower=True)
    directions = solve_triangular(lower, own.T, lower=True)[begin:].astype(rows.dtype)
    gain = np.empty(len(directions))
    for start in range(0, gain.size, _BLOCK):
        along = directions[start : start + _BLOCK] @ rows
        gain[start : start + _BLOCK] = np.einsum("vg,vg->v", along, along, dtype=np.float64)
    return gain


class Deflation:
    """The rows after ridge has taken off what a growing panel explains of them."""

    def __init__(
        self, rows: NDArray[np.floating], ridge: float, n: int, products: Products | None = None
    ) -> None:
        self._products, norms, reach = products or Products.of(rows)
        self._rows, self._ridge = rows, ridge
        self._removed, self._n_removed = np.empty((n, len(rows))), 0
        self._norms, self._reach = norms.copy(), reach.copy()

    def swaps(self, genes: Index) -> tuple[Float64, Float64]:
        """Return what taking one gene of the panel off costs, and what putting another in gains.

        Parameters
        ----------
        genes : some of the panel's

        Returns
        -------
        cost : (gene of the panel,), by how much the error rises without it
        gain : (gene of the panel, gene), by how much each gene lowers it then

        Notes
        -----
        Without gene l, C is ``C + v v'`` with ``v = C y_l / sqrt(ridge - y_l' C y_l)``: all
        exchanges follow from ``Y' v`` and ``Y' C K v``.
        """
        pairs = np.empty((2, len(genes), len(self._rows)))
        length = np.empty(len(genes))
        for i, gene in enumerate(genes):
            values = self._rows[:, gene].astype(np.float64)
            left = self._project(values)
            direction = left / np.sqrt(self._ridge - float(values @ left))
            spread = self._products @ direction
            pairs[0, i], pairs[1, i] = direction, self._project(spread)
            length[i] = direction @ spread
        dtype = self._rows.dtype
        along, reached = (part.astype(dtype) @ self._rows for part in pairs)
        reach = self._reach + (length[:, None] * along + 2 * reached) * along
        gain = np.maximum(reach, 0) / (self._ridge + np.maximum(self._norms, 0) + along**2)
        cost = gain[np.arange(len(genes)), genes]
        return cost.astype(np.float64), gain.astype(np.float64)

    @property
    def gain(self) -> Float64:
        """By how much each gene would lower the error, (gene,)."""
        return np.asarray(np.maximum(self._reach, 0) / (self._ridge + np.maximum(self._norms, 0)))

    def add(self, genes: Index) -> None:
        """Take off what some more genes explain, one after another."""
        for start in range(0, len(genes), _BLOCK):
            pairs, lengths = [], []
            for gene in genes[start : start + _BLOCK]:
                left = self._project(self._rows[:, gene].astype(np.float64))
                norm = self._ridge + float(self._rows[:, gene] @ left)
                direction = left / np.sqrt(norm)
                spread = self._products @ direction
                pairs += [direction, self._project(spread)]
                lengths.append(float(direction @ spread))
                self._removed[self._n_removed] = direction
                self._n_removed += 1
            both = np.stack(pairs).astype(self._rows.dtype) @ self._rows
            for along, reached, length in zip(both[::2], both[1::2], lengths, strict=True):
                one = along.astype(np.float64)
                self._reach += (length * one - 2 * reached) * one
                self._norms -= one**2

    def _project(self, values: Float64) -> Float64:
        """Return C values, C = I - sum of v v'."""
        removed = self._removed[: self._n_removed]
        return values - (removed @ values) @ removed
