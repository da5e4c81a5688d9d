"""Owns detection rates: the share of samples in which a gene is at or above a threshold."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class DetectionCounts:
    """Samples in which a gene is detected, and those that tell, each ``(group, gene)``.

    Group 0 is of all samples.
    """

    detected: NDArray[np.int64]
    told: NDArray[np.int64]


def count_detected(
    block: ArrayLike, threshold: ArrayLike, group: ArrayLike, n_groups: int
) -> DetectionCounts:
    """Return in how many samples of each group each gene is detected.

    Parameters
    ----------
    block : (sample, gene), NaN where unknown
    threshold : (sample,), the least value of a detected gene; NaN where a sample does not tell
    group : (sample,), from 1; 0 for a sample of no group, which counts for group 0 alone
    n_groups : with group 0

    Examples
    --------
    >>> counts = count_detected([[3.0, 9.0], [5.0, np.nan]], [4.0, 4.0], [1, 1], 2)
    >>> counts.detected.tolist(), counts.told.tolist()
    ([[1, 1], [1, 1]], [[2, 1], [2, 1]])
    """
    values, least = np.asarray(block), np.asarray(threshold)[:, np.newaxis]
    of = np.asarray(group)
    told = ~np.isnan(values) & ~np.isnan(least)
    detected = told & (values >= least)
    found = DetectionCounts(
        np.zeros((n_groups, values.shape[1]), np.int64),
        np.zeros((n_groups, values.shape[1]), np.int64),
    )
    for one in (0, *np.unique(of[of > 0]).tolist()):
        rows = of == one if one else np.ones(of.size, bool)
        found.detected[one] = detected[rows].sum(axis=0)
        found.told[one] = told[rows].sum(axis=0)
    return found


def merge_detected(a: DetectionCounts, b: DetectionCounts) -> DetectionCounts:
    """Return the counts of two disjoint sets of samples over the same genes and groups."""
    return DetectionCounts(a.detected + b.detected, a.told + b.told)


def detection_rate(counts: DetectionCounts) -> NDArray[np.float32]:
    """Return the share of the samples that tell ``(group, gene)``, NaN where none does."""
    with np.errstate(invalid="ignore"):
        return (counts.detected / counts.told).astype(np.float32)
