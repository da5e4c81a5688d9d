"""Owns telling raw from log2 expression, and bringing raw values to log2(x + 1)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["raw", "log2"]

Unit = Literal["log2", "intensity", "counts", "rpkm", "fpkm", "tpm"]

FROM_ZERO: tuple[Unit, ...] = ("counts", "rpkm", "fpkm", "tpm")
"""Units without negative values."""

_FEWEST_ENDS = 20
SCALE_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)


def value_quantiles(
    values: NDArray[np.floating], q: Sequence[float] = SCALE_QUANTILES
) -> NDArray[np.float64]:
    """Return quantiles over all values of an array of any shape, missing values ignored.

    Raises
    ------
    ValueError
        If there is no value, or an infinite one.

    Examples
    --------
    >>> value_quantiles(np.array([1.0, 2.0, np.nan, 3.0]), q=(0, 0.5, 1))
    array([1., 2., 3.])
    """
    known = values[~np.isnan(values)]
    if not known.size:
        raise ValueError("values: expected at least one number, got only missing values.")
    if np.isinf(known).any():
        raise ValueError("values: expected finite values or NaN, got an infinite value.")
    return np.asarray(np.quantile(known, q), dtype=np.float64)


def detect_scale(quantiles: Sequence[float] | NDArray[np.float64]) -> Scale:
    """Return the scale of expression values, "raw" or "log2", from their quantiles.

    The rule is GEO2R's: raw when the 99 % quantile is above 100, or when the values span more than
    50 and the lower quartile is not negative. (GEO2R asks for a positive quartile; zero is taken
    in, because a quarter of zeros is usual in sequencing counts and no log2 scale spans 50.)

    Parameters
    ----------
    quantiles : the quantiles 0, 0.25, 0.5, 0.75, 0.99 and 1 of the values

    Raises
    ------
    ValueError
        If the values look median-centred, like ratios or z-scores, or are mostly negative: neither
        scale can be restored. If all lie between 0 and 1, as probabilities and methylation do. If
        they look like log2 values but for a few that span more than 50.

    References
    ----------
    Barrett et al. (2013), doi 10.1093/nar/gks1193.

    Examples
    --------
    >>> detect_scale([0, 20, 64, 150, 4000, 18067])
    'raw'
    >>> detect_scale([-0.4, 4.1, 6.2, 8.0, 12.9, 14.8])
    'log2'
    """
    lowest, lower, median, upper, top, highest = (float(value) for value in quantiles)
    if lower > 1 and top <= 32 and highest - lowest > 50:
        raise ValueError(
            f"expression values: expected one scale, got log2 (99 % of the values up to {top:.3g}) "
            f"and others from {lowest:.4g} to {highest:.3g}. Take the outliers out of the file."
        )
    if lowest >= 0 and highest <= 1:
        raise ValueError(
            f"expression values: expected raw or log2 values, got all between 0 and 1 (median "
            f"{median:.3g}), as probabilities of detection and methylation are. Use the file of "
            "expression."
        )
    if top > 100 or (highest - lowest > 50 and lower >= 0 and lowest >= -top):
        return "raw"
    if lowest < -50 and lower >= 0:
        raise ValueError(
            f"expression values: expected raw or log2 values, got values down to {lowest:.3g} and "
            f"99 % up to {top:.3g}, which look like differences or z-scores. Use the series as "
            "measured."
        )
    if abs(median) < 0.5 and lower < 0 < upper:
        raise ValueError(
            f"expression values: expected raw or log2 values, got median {median:.3g} between "
            f"quartiles {lower:.3g} and {upper:.3g}, which look median-centred. "
            "Use the series before centring."
        )
    are_calls = lowest < 0 and lower == upper == 0
    if (lower < 0 <= upper or are_calls) and top < 6:
        raise ValueError(
            f"expression values: expected raw or log2 values, got quartiles {lower:.3g} and "
            f"{upper:.3g} and 99 % up to {top:.3g}, which look like ratios to a reference or calls "
            "of copies. Use the series as measured."
        )
    if upper < 0:
        raise ValueError(
            f"expression values: expected raw or log2 values, got upper quartile {upper:.3g}. "
            "Negative values are on no scale known here; use the series as measured."
        )
    if median > 20:
        raise ValueError(
            f"expression values: expected raw or log2 values, got median {median:.3g} and at most "
            f"{highest:.3g}, which look like cycles (Ct) of qPCR, lower for more, or amounts of "
            "proteins."
        )
    return "log2"


def per_million(counts: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return counts of each sample for a million of its counts; missing values count for nothing.

    A sample without counts stays as it is.

    Examples
    --------
    >>> per_million(np.array([[1.0, 3.0, np.nan], [0.0, 0.0, 0.0]]))
    array([[250000., 750000.,     nan],
           [     0.,      0.,      0.]], dtype=float32)
    """
    depth = np.nansum(counts, axis=1, dtype=np.float64, keepdims=True)
    return np.asarray(counts * (1e6 / np.where(depth > 0, depth, 1e6)), np.float32)


def to_log2(
    block: NDArray[np.floating], scale: Scale, *, pseudocount: float | None = None
) -> tuple[NDArray[np.float32], int]:
    """Return a block on the log2 scale, and how many negative values were set to 0 for that.

    Raw values become log2(x + 1); log2 values stay as they are, without a copy. Where these are
    known to be log2(x + pseudocount), they become log2(x + 1) too.

    Examples
    --------
    >>> to_log2(np.array([[7.0, -2.0, np.nan]]), "raw")
    (array([[ 3.,  0., nan]], dtype=float32), 1)
    >>> to_log2(np.log2(np.array([[7.001, 0.001]])), "log2", pseudocount=0.001)[0].round(3)
    array([[3., 0.]], dtype=float32)
    """
    if scale == "log2" and pseudocount in (None, 1):
        return np.asarray(block, dtype=np.float32), 0
    if scale == "log2":
        told = np.exp2(np.asarray(block, np.float64)) - float(pseudocount or 0)
        return np.log2(np.maximum(told, 0) + 1).astype(np.float32), 0
    values = np.array(block, dtype=np.float32)
    n_negative = int(np.count_nonzero(values < 0))
    np.maximum(values, 0, out=values)
    values += 1
    return np.log2(values, out=values), n_negative


def looks_like_counts(values: NDArray[np.floating]) -> bool:
    """Return whether values may be read counts: whole numbers from 0, some of them 0.

    Examples
    --------
    >>> looks_like_counts(np.array([0.0, 7.0, np.nan])), looks_like_counts(np.array([0.0, 0.5]))
    (True, False)
    """
    known = values[~np.isnan(values)]
    return bool(known.size and known.min() == 0 and (known == np.floor(known)).all())


def are_probabilities(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which samples of an array `(sample, gene)` hold fractions between 0 and 1 alone.

    Fewer than 20 values tell nothing.

    Examples
    --------
    >>> are_probabilities(np.array([np.linspace(0, 1, 30), np.linspace(0, 9, 30)]))
    array([ True, False])
    """
    known = ~np.isnan(values)
    is_within = ~known | ((values >= 0) & (values <= 1))
    n_parts = (known & (values > 0) & (values < 1)).sum(axis=1)
    n_known = known.sum(axis=1)
    return np.asarray(is_within.all(axis=1) & (n_known >= 20) & (n_parts >= 0.1 * n_known))


def scales_of(values: NDArray[np.floating]) -> NDArray[np.str_]:
    """Return the scale that each sample of `(sample, gene)` shows by itself, "" where none.

    "raw" where two values, and 0.05 %, are above 50; "log2" where the largest is at most 25 and
    some have fractions. Fewer than 20 values tell nothing.

    Examples
    --------
    >>> levels = np.linspace(0, 15, 40)
    >>> scales_of(np.array([levels, 2**levels, np.round(levels)]))
    array(['log2', 'raw', ''], dtype='<U4')
    """
    known = ~np.isnan(values)
    n_known = known.sum(axis=1)
    is_raw = (values > 50).sum(axis=1) >= np.maximum(2, 0.0005 * n_known)
    is_low = np.max(values, axis=1, initial=-np.inf, where=known) <= 25
    has_parts = (known & (values != np.floor(values))).any(axis=1)
    found = np.where(is_raw, "raw", np.where(is_low & has_parts, "log2", ""))
    return np.where(n_known >= 20, found, "")


def is_logarithm_of(values: NDArray[np.floating], is_raw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which samples of `(sample, gene)` are spread as the logarithm of the raw ones.

    By how far the 99 % quantile is above the upper quartile: a raw sample that failed, all values
    of which are low, keeps that. False without raw samples, or where the quartile is 0.

    Examples
    --------
    >>> raw = np.random.default_rng(0).lognormal(2, 1.5, size=(1, 500))
    >>> values = np.concatenate([raw, np.log2(raw + 1), raw / 100])
    >>> is_logarithm_of(values, np.array([True, False, False]))
    array([False,  True, False])
    """
    if not is_raw.any():
        return np.zeros(len(values), np.bool_)
    quartile, top = np.nanquantile(values, (0.75, 0.99), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.log(top / quartile)
        raw = np.median(spread[is_raw])
        logged = np.median(np.log(np.log2(1 + top[is_raw]) / np.log2(1 + quartile[is_raw])))
        return np.asarray(np.abs(spread - logged) < np.abs(spread - raw))


def unlike_the_rest(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which samples of an array `(sample, gene)` are not measured as the others are.

    Such a sample ranks the genes unlike the median sample, though most samples rank them alike; or
    all its values are below, or above, what half of the values lie between; or it is the highest of
    every gene, as sums are, or neither the highest nor the lowest of any, as means are.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = rng.normal(size=(1, 200)) + rng.normal(0, 0.3, size=(6, 200))
    >>> values[4] = rng.normal(size=200)
    >>> np.flatnonzero(unlike_the_rest(values))
    array([4])
    """
    from scipy.stats import rankdata  # noqa: PLC0415  (a second, which readers of names can spare)

    n_samples, n_genes = values.shape
    if n_samples < 4 or n_genes < 50:
        return np.zeros(n_samples, np.bool_)
    known = ~np.isnan(values)
    filled = np.where(known, values, np.nanmedian(values)) if not known.all() else values
    ranks = rankdata(filled, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    middle = np.median(ranks, axis=0)
    middle -= middle.mean()
    lengths = np.linalg.norm(ranks, axis=1) * np.linalg.norm(middle)
    alike = np.divide(ranks @ middle, lengths, out=np.zeros(n_samples), where=lengths > 0)
    low, high = np.quantile(filled, (0.25, 0.75))
    is_apart = (filled.max(axis=1) < low) | (filled.min(axis=1) > high)
    is_other = (alike < 0.3) & (np.median(alike) > 0.6)
    return np.asarray(is_other | is_apart | _are_made_of_others(filled))


def _are_made_of_others(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return which samples are the highest of every gene, or the highest or lowest of none.

    For the latter, genes of which several samples are that tell nothing; False where few are left.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    is_low, is_high = values == low, values == high
    told = (is_low.sum(axis=0) == 1) & (is_high.sum(axis=0) == 1)
    is_within = ~(is_low | is_high)[:, told].any(axis=1)
    is_above = is_high[:, low < high].all(axis=1)
    n_least = _FEWEST_ENDS * len(values)
    is_within &= np.count_nonzero(told) >= n_least
    is_above &= np.count_nonzero(low < high) >= n_least
    return np.asarray(is_within | is_above)


def find_rescaling(values: NDArray[np.floating]) -> str:
    """Return what was made of `(sample, gene)` that left no scale, in words; "" where none is seen.

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(8, 2, size=(1, 200)) + np.arange(5)[:, None] / 9
    >>> find_rescaling(values), find_rescaling(values.argsort(axis=1).argsort(axis=1) + 1.0)
    ('', 'ranks or percentiles')
    """
    if len(values) < 3 or values.shape[1] < 50:
        return ""
    if _share_a_level(values[:, ~np.isnan(values).any(axis=0)].astype(np.float64)):
        return "one mean, median or maximum of all genes, as of z-scores and what is scaled by gene"
    if (np.abs(np.nansum(values, axis=1, dtype=np.float64) - 100) < 1).all():
        return "percentages, which make 100 in each sample"
    return "ranks or percentiles" if all(map(_are_even, values)) else ""


def _share_a_level(values: NDArray[np.float64]) -> bool:
    """Return whether nearly all genes have the same mean, median or maximum, other than 0."""
    if not values.size:
        return False
    spread = np.median(values.max(axis=0) - values.min(axis=0))
    levels = [values.mean(axis=0), np.median(values, axis=0), values.max(axis=0)]
    near = [np.abs(level - np.median(level)) < 0.01 * spread for level in levels if level.any()]
    return any(np.mean(one) > 0.95 for one in near)


def _are_even(values: NDArray[np.floating]) -> bool:
    """Return whether values stand at even distances once they are sorted."""
    known = np.sort(values[~np.isnan(values)]).astype(np.float64)
    if known.size < 50 or known[0] == known[-1]:
        return False
    even = np.linspace(known[0], known[-1], known.size)
    return bool(np.abs(known - even).max() <= 0.002 * (known[-1] - known[0]))


def are_levels_of_samples(values: NDArray[np.floating]) -> bool:
    """Return whether samples differ in level and genes hardly do, as where genes are samples.

    Examples
    --------
    >>> levels = np.random.default_rng(0).normal(8, 2, size=(1, 60)) + np.arange(5)[:, None] / 9
    >>> are_levels_of_samples(levels), are_levels_of_samples(levels.T)
    (False, True)
    """
    if min(values.shape) < 4:
        return False
    filled = np.where(np.isnan(values), np.nanmean(values), values).astype(np.float64)
    total, of_genes, of_samples = (v.var() for v in (filled, filled.mean(0), filled.mean(1)))
    return bool(of_samples > 0.5 * total and of_genes < 0.1 * total)
