"""Owns what a gene does on a panel: targets it serves, what stands in for it, which goes first.

References
----------
Sherman and Morrison (1950), doi 10.1214/aoms/1177729893: a gene less, in closed form.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from dglzarr.kernels.greedy import Deflation, Products

Index = NDArray[np.int64]
Float64 = NDArray[np.float64]

_BLOCK = 128


class Roles(NamedTuple):
    """What each gene of a panel does, best first.

    ``loss (gene,)``: by how much the ridge error of all genes rises without it. ``served (gene,
    target)``: the genes beside the panel whose errors rise most, and ``served_share`` of the loss.
    ``substitute (gene, other)``: the genes that can take its place, and ``regained`` of the loss,
    -inf where there are no more.
    """

    loss: Float64
    served: Index
    served_share: Float64
    substitute: Index
    regained: Float64


def panel_roles(
    rows: NDArray[np.floating],
    panel: Index,
    *,
    ridge: float,
    allowed: NDArray[np.bool_],
    products: Products | None = None,
    n_served: int = 5,
    n_substitutes: int = 3,
) -> Roles:
    """Return what each gene of a panel does, and what can be had instead.

    Parameters
    ----------
    rows : (row, gene), samples or a sketch of them, without missing values
    panel : its genes
    ridge : penalty, in the unit of a squared column norm of ``rows``; over 0
    allowed : (gene,), which genes may take a place; or (panel, gene), that of each
    products : of the rows, where they are known
    n_served, n_substitutes : how many are told of each gene, where there are so many

    Notes
    -----
    With ``A = (Y_S' Y_S + ridge)^-1`` and ``B = A Y_S' Y``, gene i of the panel lowers the error of
    gene j by ``B_ij^2 / A_ii``. Memory: 128 x genes in float64.
    """
    x = rows[:, panel].astype(np.float64)
    inverse = scipy.linalg.inv(x.T @ x + ridge * np.eye(panel.size))
    solve = (inverse @ x.T).astype(rows.dtype)
    state = Deflation(rows, ridge, panel.size, products)
    state.add(panel)
    is_free = np.ones(rows.shape[1], dtype=bool)
    is_free[panel] = False
    able = np.broadcast_to(allowed & is_free, (panel.size, rows.shape[1]))
    n_target = min(n_served, int(is_free.sum()))
    n_other = min(n_substitutes, int(able.sum(axis=1).max(initial=0)))
    found: list[tuple[NDArray[np.generic], ...]] = []
    for start in range(0, panel.size, _BLOCK):
        some = slice(start, start + _BLOCK)
        share = (solve[some] @ rows).astype(np.float64) ** 2 / inverse.diagonal()[some, None]
        served = _largest(np.where(is_free, share, -np.inf), n_target)
        loss, gain = state.swaps(panel[some])
        gain = np.where(able[some], gain, -np.inf)
        others = _largest(gain, n_other)
        total = np.maximum(loss, np.finfo(np.float64).tiny)[:, None]
        found.append(
            (
                loss,
                served,
                np.take_along_axis(share, served, axis=1) / total,
                others,
                np.take_along_axis(gain, others, axis=1) / total,
            )
        )
    return Roles(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _largest(values: Float64, n: int) -> Index:
    """Return the n largest of each row, the largest first."""
    if n < values.shape[1]:
        some = np.argpartition(-values, n, axis=1)[:, :n]
    else:
        some = np.tile(np.arange(values.shape[1]), (len(values), 1))
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def shrink_order(
    rows: NDArray[np.floating], panel: Index, n: int, *, ridge: float, forced: Index
) -> Index:
    """Return the n genes of a panel that are left when the least needed goes, again and again.

    Parameters
    ----------
    rows : (row, gene), samples or a sketch of them, without missing values
    panel : its genes, in an order that is kept
    n : genes to keep
    ridge : penalty, in the unit of a squared column norm of ``rows``; over 0
    forced : genes that stay

    Raises
    ------
    ValueError
        If fewer genes than n are on the panel, or more are forced.

    Notes
    -----
    Without gene i the error rises by ``(A G A)_ii / A_ii``, where ``G = Y_S' K Y_S`` and
    ``K = Y Y'``; A and A G A are updated by one outer product a step.

    Examples
    --------
    >>> rows = np.array([[2.0, 2.0, 0.0], [0.0, 0.1, 1.0]])
    >>> shrink_order(rows, np.array([0, 1, 2]), 2, ridge=0.1, forced=np.empty(0, dtype=np.int64))
    array([1, 2])
    """
    stays = np.isin(panel, forced)
    if not stays.sum() <= n <= panel.size:
        raise ValueError(f"n: expected {int(stays.sum())} to {panel.size}, got {n!r}.")
    x = rows[:, panel].astype(np.float64)
    inverse = scipy.linalg.inv(x.T @ x + ridge * np.eye(panel.size))
    products = (rows @ rows.T).astype(np.float64)
    middle = inverse @ (x.T @ products @ x) @ inverse
    is_left = np.ones(panel.size, dtype=bool)
    for _ in range(panel.size - n):
        able = is_left & ~stays
        lost = np.full(panel.size, np.inf)
        lost[able] = middle.diagonal()[able] / inverse.diagonal()[able]
        gone = int(lost.argmin())
        is_left[gone] = False
        one, other = inverse[:, gone].copy(), middle[:, gone].copy()
        spread, length = one[gone], other[gone]
        both = np.outer(one, other) / spread
        middle += np.outer(one, one) * length / spread**2 - both - both.T
        inverse -= np.outer(one, one) / spread
    return panel[is_left]
