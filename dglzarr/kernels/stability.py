"""Owns how far replicates of a ranking agree: shared panels and rank correlation."""

import numpy as np
import scipy  # whose stats take half a second, once they are used
from numpy.typing import NDArray


def rank_genes(score: NDArray[np.floating]) -> NDArray[np.int32]:
    """Return the rank of every gene in its replicate, 1 = highest; of equals the first is first.

    Parameters
    ----------
    score : (replicate, gene)

    Examples
    --------
    >>> rank_genes(np.array([[0.5, 2.0, 0.5]]))
    array([[2, 1, 3]], dtype=int32)
    """
    order = np.argsort(-score, axis=1, kind="stable")
    return np.argsort(order, axis=1).astype(np.int32) + np.int32(1)


def panel_overlap(is_landmark: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share of each panel that each other panel holds too, (replicate, replicate).

    Parameters
    ----------
    is_landmark : which genes are in a replicate's panel, (replicate, gene)

    Examples
    --------
    >>> panel_overlap(np.array([[True, True, False, False], [False, True, True, False]]))
    array([[1. , 0.5],
           [0.5, 1. ]])
    """
    member = is_landmark.astype(np.float64)
    return np.asarray(member @ member.T / member.sum(axis=1)[:, None])


def rank_correlation(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return Spearman's correlation of each pair of replicates, (replicate, replicate).

    Parameters
    ----------
    score : (replicate, gene); equal scores share their mean rank

    Examples
    --------
    >>> rank_correlation(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])).round(6)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    return np.atleast_2d(np.corrcoef(scipy.stats.rankdata(score, axis=1)))
