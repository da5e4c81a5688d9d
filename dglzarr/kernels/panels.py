"""Owns the choice of a panel: the genes with the highest scores, or random ones."""

import numpy as np
from numpy.typing import NDArray


def top_score_panel(score: NDArray[np.floating], n: int) -> NDArray[np.int64]:
    """Return the indices of the n highest scores, best first, equal scores by index.

    Genes whose score is NaN are never chosen.

    Raises
    ------
    ValueError
        If there are fewer genes with a score.

    Examples
    --------
    >>> top_score_panel(np.array([0.2, np.nan, 0.9, 0.9]), 2)
    array([2, 3])
    """
    n_scored = int(np.count_nonzero(~np.isnan(score)))
    if not 1 <= n <= n_scored:
        raise ValueError(f"n_landmarks: expected 1 to {n_scored}, got {n!r}.")
    return np.argsort(-score, kind="stable")[:n].astype(np.int64)


def random_panel(n_genes: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the ascending indices of n different genes, all choices equally likely.

    Raises
    ------
    ValueError
        If there are fewer genes.

    Examples
    --------
    >>> random_panel(3, 3, np.random.default_rng(0))
    array([0, 1, 2])
    """
    if not 1 <= n <= n_genes:
        raise ValueError(f"n_landmarks: expected 1 to {n_genes}, got {n!r}.")
    return np.sort(rng.choice(n_genes, n, replace=False)).astype(np.int64)
