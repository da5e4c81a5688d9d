"""Owns how wide an interval of a prediction is: calibrated on series that were left out, by gene.

A gene's spread is the mean over left-out series of its mean square residual, drawn towards that of
all genes as far as chance moves it; one factor for all genes makes the intervals hold the wanted
share of values, each series counting the same. That is split conformal prediction with a scale of
its own for each gene, over groups instead of samples.

References
----------
Lei et al. (2018), doi 10.1080/01621459.2017.1307116 (scaled residuals).
Dunn, Wasserman and Ramdas (2023), doi 10.1080/01621459.2022.2060112 (groups).
"""

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

MIN_GUARANTEED = 19
"""Series from which a finite interval of 95 % can be guaranteed for the next one: 1 / (n + 1)."""


def group_spread(squares: NDArray[np.floating]) -> Float64:
    """Return the spread of each gene's residuals in a group not seen, (gene,).

    Parameters
    ----------
    squares : (group, gene), mean square residual of each left-out group; a gene without values in
        a group is NaN there

    Notes
    -----
    The logarithm of the mean square is drawn to its mean over genes by the share of its variance
    that is chance, as told by how much groups differ. A gene without values gets the mean.

    Examples
    --------
    >>> group_spread(np.array([[1.0, 4.0, 9.0], [1.0, 4.0, 9.0]]))
    array([1., 2., 3.])
    """
    n_known = np.maximum((~np.isnan(squares)).sum(axis=0), 1)
    mean = np.nansum(squares, axis=0) / n_known
    known = mean > 0
    if not known.any():
        return np.zeros(mean.size)
    log = np.log(np.where(known, mean, 1.0))
    center = log[known].mean()
    deviation = np.where(np.isnan(squares), 0.0, squares - mean)
    scatter = (deviation**2).sum(axis=0) / np.maximum(n_known - 1, 1) / n_known
    chance = float((scatter[known] / mean[known] ** 2).mean())
    total = float(log[known].var())
    kept = max(0.0, 1 - chance / total) if total > 0 else 0.0
    drawn: Float64 = np.exp((center + kept * (log - center)) / 2)
    return np.where(known, drawn, np.exp(center / 2))


def interval_factor(
    residuals: NDArray[np.floating],
    spread: NDArray[np.floating],
    group: NDArray[np.int64],
    *,
    level: float = 0.95,
) -> float:
    """Return by what a spread is multiplied to hold a share of residuals, groups counting alike.

    Parameters
    ----------
    residuals : (sample, gene), of groups that were left out; NaN where nothing is known
    spread : (group, gene), told without the group itself
    group : (sample,), as rows of ``spread``
    level : the share

    Raises
    ------
    ValueError
        If there is no residual.

    Examples
    --------
    >>> residuals = np.array([[1.0, 2.0, 3.0, 4.0]]).T
    >>> interval_factor(residuals, np.ones((1, 1)), np.zeros(4, int), level=0.75)
    3.0
    """
    ratios, weights = [], []
    for one in np.unique(group):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(residuals[group == one]) / spread[one]
        ratio = ratio[np.isfinite(ratio)].astype(np.float64)
        if ratio.size:
            ratios.append(ratio)
            weights.append(np.full(ratio.size, 1 / ratio.size))
    if not ratios:
        raise ValueError("intervals: expected residuals of left-out samples, got none.")
    return weighted_quantile(np.concatenate(ratios), np.concatenate(weights), level)


def weighted_quantile(values: Float64, weights: Float64, level: float) -> float:
    """Return the lowest value up to which at least a share of the weight lies.

    Examples
    --------
    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.ones(3), 0.5)
    2.0
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    place = np.searchsorted(total, level * total[-1] * (1 - 1e-12))
    return float(values[order][min(int(place), values.size - 1)])


def without_each(squares: NDArray[np.floating]) -> Float64:
    """Return the spread as told without each group, (group, gene); of one group it is its own."""
    if len(squares) < 2:
        return np.stack([group_spread(squares)] * len(squares))
    return np.stack([group_spread(np.delete(squares, k, axis=0)) for k in range(len(squares))])
