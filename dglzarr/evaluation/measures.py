"""How well a fitted predictor tells the target genes of a cohort, worked through in slices.

Owns the measures of one panel, one predictor and one cohort. Neither the prediction nor the truth
of all targets is ever in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dglzarr.kernels.metrics import (
    finish_null,
    mae_per_gene,
    mae_within_series,
    null_counts,
    pcc_per_gene,
)
from dglzarr.kernels.slices import iter_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.evaluation.cohorts import Cohort
    from dglzarr.evaluation.predictors import Predictor

    Index = NDArray[np.int64]

_SLICE_NBYTES = 2**27  # of a slice of the truth, and as much of its prediction


class Measures(NamedTuple):
    """What a predictor achieves: four measures of each target (target,), one of each sample."""

    mae: NDArray[np.float32]
    mae_within: NDArray[np.float32]
    pcc: NDArray[np.float32]
    null_fraction: NDArray[np.float32]
    sample_error: NDArray[np.float32]


def evaluate_predictor(
    predictor: Predictor,
    cohort: Cohort,
    *,
    landmarks: Index,
    targets: Index,
    with_null: bool = True,
    slice_nbytes: int = _SLICE_NBYTES,
) -> Measures:
    """Return how well the targets of a cohort are predicted from its landmarks.

    Parameters
    ----------
    predictor
        Fitted on these landmarks and targets.
    cohort
        The samples; a landmark that it does not measure stands at the training mean.
    landmarks, targets
        Genes of the study, as indices.
    with_null
        Whether to run the permutation test, which takes by far the longest; NaN without it.
    slice_nbytes
        Bound of a slice of the truth.
    """
    n_samples, n_targets = len(cohort.series), targets.size
    x = np.nan_to_num(cohort.columns(landmarks))
    measures = np.full((4, n_targets), np.nan, dtype=np.float32)
    total, n_known = np.zeros(n_samples), np.zeros(n_samples, dtype=np.int64)
    slices = list(iter_slices(n_targets, 4 * max(1, n_samples), limit_nbytes=slice_nbytes))
    for here in slices:
        truth, predicted = cohort.columns(targets[here]), predictor.predict(x, here)
        right = pcc_per_gene(truth, predicted)
        measures[0, here] = mae_per_gene(truth, predicted)
        measures[1, here] = mae_within_series(truth, predicted, cohort.series)
        measures[2, here] = right
        if with_null:
            above, others = np.zeros((2, right.size), dtype=np.int64)
            for there in slices:
                block = truth if there == here else cohort.columns(targets[there])
                own = np.arange(right.size) if there == here else np.full(right.size, -1)
                counts = null_counts(block, predicted, right, own)
                above, others = above + counts[0], others + counts[1]
            measures[3, here] = finish_null(above, others, right)
        error = np.abs(truth - predicted)
        total += np.nansum(error, axis=1, dtype=np.float64)
        n_known += np.count_nonzero(~np.isnan(error), axis=1)
    sample_error = np.full(n_samples, np.nan)
    np.divide(total, n_known, where=n_known > 0, out=sample_error)
    mae, within, pcc, null = measures
    return Measures(mae, within, pcc, null, sample_error.astype(np.float32))
