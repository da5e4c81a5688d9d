"""Owns greedy selection: each gene is the one whose addition predicts all genes best by ridge.

References
----------
Farahat, Ghodsi and Kamel (2011), doi 10.1109/ICDM.2011.22: the recursion, without ridge.
"""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Float64 = NDArray[np.float64]

_BLOCK = 64
"""Genes that are known beforehand are taken off together: one product instead of many."""


def greedy_order(
    rows: NDArray[np.floating],
    n: int,
    *,
    ridge: float,
    forced: Index,
    allowed: NDArray[np.bool_],
    importance: Float64 | None = None,
) -> Index:
    """Return n genes, in order; each reduces the ridge error of predicting all genes the most.

    Parameters
    ----------
    rows : (row, gene), samples or a sketch of them, without missing values
    n : genes to select
    ridge : penalty, in the unit of a squared column norm of ``rows``; over 0
    forced : genes on the panel already; what they explain is taken off first
    allowed : (gene,), which genes may be selected
    importance : (gene,), weights of the genes as targets

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
    state = _Deflation(rows, ridge, importance, n + len(forced))
    state.add(forced)
    chosen = np.empty(n, dtype=np.int64)
    for i in range(n):
        chosen[i] = np.where(is_open, state.gain, -np.inf).argmax()
        is_open[chosen[i]] = False
        state.add(chosen[i : i + 1])
    return chosen


class _Deflation:
    """The rows after ridge has taken off what a growing panel explains of them."""

    def __init__(
        self, rows: NDArray[np.floating], ridge: float, importance: Float64 | None, n: int
    ) -> None:
        weighted = rows if importance is None else rows * importance.astype(rows.dtype)
        self._rows, self._ridge = rows, ridge
        self._products = (weighted @ rows.T).astype(np.float64)
        self._removed, self._n_removed = np.empty((n, len(rows))), 0
        self._norms = np.einsum("rg,rg->g", rows, rows, dtype=np.float64)
        self._reach = np.einsum(
            "rg,rg->g", rows, self._products.astype(rows.dtype) @ rows, dtype=np.float64
        )

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
                pairs += [direction, self._project(self._products @ direction)]
                lengths.append(float(direction @ self._products @ direction))
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
