"""Owns the moderated t of two groups of samples: variances of genes lean on each other.

References
----------
Smyth (2004), doi 10.2202/1544-6115.1027: the moderated t; what limma's `eBayes` does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma, stdtr

Float64 = NDArray[np.float64]

MIN_SAMPLES = 2
"""Of each group: fewer tell no variance."""


class Moderated(NamedTuple):
    """What two groups of samples differ by, of each gene.

    Attributes
    ----------
    change
        Mean of the case less that of the control (gene,), in the unit of the values.
    t, pvalue
        Moderated t (gene,) and its two-sided p-value; NaN where a gene does not vary at all.
    prior_df, prior_variance
        What the variances of all genes have in common: how many degrees of freedom it counts for,
        infinite where genes differ by no more than chance, and the variance itself.
    """

    change: Float64
    t: Float64
    pvalue: Float64
    prior_df: float
    prior_variance: float


def moderated_t(case: NDArray[np.floating], control: NDArray[np.floating]) -> Moderated:
    """Return the moderated t of each gene between two groups of samples.

    Parameters
    ----------
    case, control
        Values (sample, gene), log2, none missing; two samples of each or more.

    Raises
    ------
    ValueError
        If a group has fewer than two samples.

    Examples
    --------
    >>> case, control = np.array([[1.0, 2], [2, 4], [3, 3]]), np.array([[0.0, 2], [1, 3], [2, 5]])
    >>> found = moderated_t(case, control)
    >>> found.change.round(3).tolist(), found.t.round(3).tolist()
    ([1.0, -0.333], [1.061, -0.354])
    """
    n = len(case), len(control)
    if min(n) < MIN_SAMPLES:
        raise ValueError(f"expected {MIN_SAMPLES} samples or more in each group, got {n}.")
    df = sum(n) - 2
    change = case.mean(axis=0, dtype=np.float64) - control.mean(axis=0, dtype=np.float64)
    squares = sum(((part - part.mean(axis=0)) ** 2).sum(axis=0) for part in (case, control))
    variance = np.asarray(squares, dtype=np.float64) / df
    prior_df, prior = _fit_prior(variance, df)
    if np.isinf(prior_df):
        pooled = np.full_like(variance, prior)
    else:
        pooled = (df * variance + prior_df * prior) / (df + prior_df)
    error = np.sqrt(pooled * (1 / n[0] + 1 / n[1]))
    t = np.divide(change, error, out=np.full_like(change, np.nan), where=error > 0)
    total = min(df + prior_df, float(df * variance.size))
    return Moderated(change, t, 2 * stdtr(total, -np.abs(t)), prior_df, prior)


def _fit_prior(variance: Float64, df: int) -> tuple[float, float]:
    """Return the degrees of freedom and the variance of a scaled F that fits variances of genes.

    By the mean and the variance of their logarithms; variances of near 0 are lifted first.
    """
    middle = float(np.median(variance))
    if variance.size < 2 or not middle > 0:
        return 0.0, 0.0
    lifted = np.maximum(variance, 1e-5 * middle)
    level = np.log(lifted) - digamma(df / 2) + np.log(df / 2)
    mean = float(level.mean())
    spread = float(level.var(ddof=1) - polygamma(1, df / 2))
    if not spread > 0:
        return np.inf, float(lifted.mean())
    prior_df = 2 * _inverse_trigamma(spread)
    return prior_df, float(np.exp(mean + digamma(prior_df / 2) - np.log(prior_df / 2)))


def _inverse_trigamma(value: float) -> float:
    """Return where the trigamma function has a value over 0, by Newton's steps on its inverse."""
    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x
