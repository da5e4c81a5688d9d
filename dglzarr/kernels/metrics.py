"""Owns how well predictions agree with the truth, gene by gene.

A sample whose truth or prediction is missing for a gene does not count for that gene.
"""

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices

SIGNIFICANT = 0.01
"""The ``null_fraction`` under which a gene passes the permutation test."""

_MIN_SAMPLES = 3
_TIE = 1e-6
_BLOCK_NBYTES = 2**25  # of one side of a matrix product: long enough for it to run at full speed


def known_means(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the means along the last axis over known values, NaN where none is known.

    Examples
    --------
    >>> known_means(np.array([[1.0, np.nan, 4.0], [np.nan, np.nan, np.nan]]))
    array([2.5, nan])
    """
    is_known = ~np.isnan(values)
    count = is_known.sum(axis=-1)
    total = np.where(is_known, values, 0.0).sum(axis=-1, dtype=np.float64)
    means = np.full(total.shape, np.nan)
    np.divide(total, count, where=count > 0, out=means)
    return means


def known_mean(values: NDArray[np.floating]) -> float:
    """Return the mean of the known values, NaN without any."""
    return float(known_means(values.ravel()))


def mae_per_gene(
    truth: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the mean absolute error of every gene (gene,), NaN without a sample.

    Parameters
    ----------
    truth, predicted : (sample, gene)

    Examples
    --------
    >>> mae_per_gene(np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[2.0, 2.5], [3.0, 0.0]]))
    array([0.5, 0.5])
    """
    result = np.full(truth.shape[1], np.nan)
    for genes in iter_slices(truth.shape[1], 16 * len(truth)):
        error = np.abs(truth[:, genes].astype(np.float64) - predicted[:, genes])
        is_known = ~np.isnan(error)
        total = np.where(is_known, error, 0.0).sum(axis=0)
        count = is_known.sum(axis=0)
        np.divide(total, count, where=count > 0, out=result[genes])
    return result


def pcc_per_gene(
    truth: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the Pearson correlation of every gene (gene,), NaN where it is undefined.

    It is undefined with fewer than 3 samples, or where truth or prediction do not vary.

    Parameters
    ----------
    truth, predicted : (sample, gene)

    Examples
    --------
    >>> truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> pcc_per_gene(truth, -truth)
    array([-1., nan])
    """
    result = np.full(truth.shape[1], np.nan)
    if len(truth) < _MIN_SAMPLES:
        return result
    for genes in iter_slices(truth.shape[1], 64 * len(truth)):
        is_known = ~(np.isnan(truth[:, genes]) | np.isnan(predicted[:, genes]))
        x, y = _unit(truth[:, genes], is_known), _unit(predicted[:, genes], is_known)
        result[genes] = np.clip(np.einsum("sg,sg->g", x, y), -1, 1)
    return result


def mae_within_series(
    truth: NDArray[np.floating], predicted: NDArray[np.floating], series: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Return the error of every gene (gene,) after truth and prediction are centred by series.

    What is left is how well differences between samples of one study are told. A series counts
    for a gene that it measures in two samples or more; NaN where there is none.

    Parameters
    ----------
    truth, predicted : (sample, gene)
    series : (sample,), a label of the study each sample belongs to

    Examples
    --------
    >>> truth = np.array([[1.0], [3.0], [7.0]])
    >>> mae_within_series(truth, truth + [[5.0], [7.0], [0.0]], np.array([0, 0, 1]))
    array([1.])
    """
    result = np.full(truth.shape[1], np.nan)
    members = [np.flatnonzero(series == one) for one in np.unique(series)]
    for genes in iter_slices(truth.shape[1], 16 * len(truth)):
        error = truth[:, genes].astype(np.float64) - predicted[:, genes]
        total, n_known = np.zeros(error.shape[1]), np.zeros(error.shape[1], dtype=np.int64)
        for rows in members:
            own = error[rows]
            is_known = ~np.isnan(own)
            count = is_known.sum(axis=0)
            centre = np.where(is_known, own, 0.0).sum(axis=0) / np.maximum(count, 1)
            spread = np.where(is_known, np.abs(own - centre), 0.0).sum(axis=0)
            total += np.where(count > 1, spread, 0.0)
            n_known += np.where(count > 1, count, 0)
        np.divide(total, n_known, where=n_known > 0, out=result[genes])
    return result


def null_fraction(
    truth: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the share of wrong genes that a prediction fits better than its own gene (gene,).

    For every gene: among the correlations of its prediction with the truth of all other genes, the
    share above the correlation with its own truth. NaN where its own correlation is undefined or
    no other gene has one.

    Parameters
    ----------
    truth, predicted : (sample, gene); predictions without missing values

    Notes
    -----
    One matrix product in all: ``O(sample * gene**2)``, in float32. Correlations closer than 1e-6
    count as equal.

    References
    ----------
    Kong et al. (2021), doi 10.1186/s12859-021-03972-5: the permutation test.

    Examples
    --------
    >>> truth = np.array([[1.0, 3.0], [2.0, 1.0], [3.0, 2.0]])
    >>> null_fraction(truth, truth[:, ::-1])
    array([1., 1.])
    """
    right = pcc_per_gene(truth, predicted)
    n_above, n_others = null_counts(truth, predicted, right, np.arange(truth.shape[1]))
    return finish_null(n_above, n_others, right)


def null_counts(
    truth: NDArray[np.floating],
    predicted: NDArray[np.floating],
    right: NDArray[np.float64],
    own: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many truths of a block each prediction fits better than its own, of how many.

    Counts of disjoint blocks of truths add up, so that neither the truths nor the predictions of
    all genes need to be in memory.

    Parameters
    ----------
    truth : (sample, gene), a block of genes
    predicted : (sample, predicted gene), without missing values
    right : (predicted gene,), the correlation of each prediction with its own truth
    own : (predicted gene,), where its own gene stands in the block, -1 where it does not

    Examples
    --------
    >>> truth = np.array([[1.0, 3.0], [2.0, 1.0], [3.0, 2.0]])
    >>> null_counts(truth, truth[:, 1:], np.array([0.5]), np.array([-1]))
    (array([1]), array([2]))
    """
    n_predicted = predicted.shape[1]
    n_above, n_others = np.zeros(n_predicted, dtype=np.int64), np.zeros(n_predicted, dtype=np.int64)
    if len(truth) < _MIN_SAMPLES:
        return n_above, n_others
    centred, mean = np.empty(predicted.shape, np.float32), predicted.mean(axis=0, dtype=np.float64)
    np.subtract(predicted, mean, out=centred, casting="same_kind")  # in float64, piece by piece
    limit = (right + _TIE).astype(np.float32)[:, np.newaxis]
    item = 4 * max(len(truth), n_predicted)
    for genes in iter_slices(truth.shape[1], item, limit_nbytes=_BLOCK_NBYTES):
        correlation = _correlation(centred, truth[:, genes])
        is_here = (own >= genes.start) & (own < genes.stop)
        correlation[is_here, own[is_here] - genes.start] = np.nan
        n_above += np.count_nonzero(correlation > limit, axis=1)
        n_others += np.count_nonzero(~np.isnan(correlation), axis=1)
    return n_above, n_others


def finish_null(
    n_above: NDArray[np.int64], n_others: NDArray[np.int64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of wrong genes above the right one, NaN where either is undefined.

    Examples
    --------
    >>> finish_null(np.array([1, 0]), np.array([4, 4]), np.array([0.5, np.nan]))
    array([0.25,  nan])
    """
    result = np.full(right.shape, np.nan)
    np.divide(n_above, n_others, where=~np.isnan(right) & (n_others > 0), out=result)
    return result


def _correlation(
    predicted: NDArray[np.float32], truth: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return the correlation of every centred prediction with every truth, NaN where undefined.

    A prediction varies as much as it does over the samples whose truth is known.
    """
    is_known = ~np.isnan(truth)
    square = np.einsum("sg,sg->g", predicted, predicted)[:, np.newaxis]
    square[square == 0] = np.nan
    correlation = predicted.T @ _unit(truth, is_known).astype(np.float32)
    correlation /= np.sqrt(square)
    gaps = np.flatnonzero(~is_known.all(axis=0))
    if gaps.size:
        known = is_known[:, gaps].astype(np.float32)
        total = predicted.T @ known
        variation = (predicted**2).T @ known - total**2 / np.maximum(known.sum(axis=0), 1)
        share = np.where(variation > 1e-6 * square, variation / square, np.nan)
        correlation[:, gaps] /= np.sqrt(share)
    return np.asarray(correlation)


def _unit(values: NDArray[np.floating], is_known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return genes centred and scaled to norm 1, 0 where unknown; all NaN without variation."""
    count = is_known.sum(axis=0)
    low = np.where(is_known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(is_known, values, -np.inf).max(axis=0, initial=-np.inf)
    mean = np.where(is_known, values, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(count, 1)
    centred = np.where(is_known, values - mean, 0.0)
    norm = np.sqrt(np.einsum("sg,sg->g", centred, centred))
    is_defined = (count >= _MIN_SAMPLES) & (low < high) & (norm > 0)
    return np.asarray(centred / np.where(is_defined, norm, np.nan), dtype=np.float64)
