"""Owns how well predictions agree with the truth, gene by gene.

A sample whose truth or prediction is missing for a gene does not count for that gene.
"""

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices

_MIN_SAMPLES = 3
_TIE = 1e-6


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
    One matrix product per block of genes: ``O(sample * gene**2)``, memory two copies of the
    arguments. Correlations closer than 1e-6 count as equal.

    References
    ----------
    Kong et al. (2021), doi 10.1186/s12859-021-03972-5: the permutation test.

    Examples
    --------
    >>> truth = np.array([[1.0, 3.0], [2.0, 1.0], [3.0, 2.0]])
    >>> null_fraction(truth, truth[:, ::-1])
    array([1., 1.])
    """
    n_genes = truth.shape[1]
    result = np.full(n_genes, np.nan)
    if len(truth) < _MIN_SAMPLES:
        return result
    is_known = ~np.isnan(truth)
    own = _unit(truth, is_known).astype(np.float32)
    centred = (predicted - predicted.mean(axis=0, dtype=np.float64)).astype(np.float32)
    for genes in iter_slices(n_genes, 16 * n_genes):
        correlation = (centred[:, genes].T @ own) / _known_norm(centred[:, genes], is_known)
        right = correlation[np.arange(len(correlation)), np.arange(n_genes)[genes]]
        n_above = (correlation > right[:, None] + _TIE).sum(axis=1)
        n_others = (~np.isnan(correlation)).sum(axis=1) - 1
        is_defined = ~np.isnan(right) & (n_others > 0)
        np.divide(n_above, n_others, where=is_defined, out=result[genes])
    return result


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


def _known_norm(predicted: NDArray[np.float32], is_known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the norm of every prediction over the known samples of every gene, NaN where it is 0.

    The result is (predicted gene, gene), or (predicted gene, 1) where all samples are known.
    """
    square = np.einsum("sg,sg->g", predicted, predicted)[:, None]
    variation = square
    if not is_known.all():
        known = is_known.astype(np.float32)
        total = predicted.T @ known
        variation = (predicted**2).T @ known - total**2 / np.maximum(known.sum(axis=0), 1)
    return np.sqrt(np.where(variation > 1e-6 * square, variation, np.nan))
