"""Makes the sketch that panels are selected on, from a normalized store: each region is read once.

A sketch of 2048 rows of 22,268 genes takes 180 MB, whatever the number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.sketch import GeneSketch, fold_samples, share_rows
from dglzarr.kernels.split import inner_folds
from dglzarr.sources.chosen import studies_of
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import Region, reduce_regions, regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.storage.options import Progress

SKETCH_ROWS = 2048
INNER_FOLDS = 5
"""Parts of the training series on which the selectors choose what they leave open."""


def sketch_training(
    source: str,
    samples: str,
    score: NDArray[np.float64],
    *,
    seed: int,
    on_progress: Progress | None = None,
) -> GeneSketch:
    """Return the sketch of the kept training samples, which panels are chosen on.

    Parameters
    ----------
    source, samples
        URIs of the normalized and samples stores.
    score
        DeepLIFT scores, (gene,); NaN where there are none.
    seed, on_progress
        As in `sketch_samples`.
    """
    chosen = kept_samples(source, samples)
    group = np.full(chosen.size, -1)
    studies = studies_of(read_array(source, "series")[chosen])
    group[chosen] = inner_folds(studies, n_folds=INNER_FOLDS, seed=seed)
    return sketch_samples(
        source,
        group,
        mean=read_array(samples, "gene_mean"),
        std=read_array(samples, "gene_std"),
        score=score,
        seed=seed,
        on_progress=on_progress,
    )


def sketch_samples(
    source: str,
    chosen: NDArray[np.bool_] | NDArray[np.int64],
    *,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    score: NDArray[np.float64],
    seed: int = 0,
    n_rows: int = SKETCH_ROWS,
    on_progress: Progress | None = None,
) -> GeneSketch:
    """Return the sketch of some samples of a normalized store.

    Parameters
    ----------
    source
        URI of the normalized store.
    chosen
        Which samples are fitted on, (sample,): of the kept training samples all, or those of a
        fold. Or the inner fold of each sample, -1 of one that is not: samples of different inner
        folds are not folded together.
    mean, std
        Per-gene moments of these samples, (gene,).
    score
        DeepLIFT scores learned from these samples, (gene,); NaN where there are none.
    seed
        Of the signs with which samples are folded together.
    n_rows
        Rows of the sketch, about; with fewer samples it holds them all.
    on_progress
        Called with (what, done, total).

    Notes
    -----
    The same for any number of workers. A task holds a region and its rows of the sketch.
    """
    group = np.where(chosen, 0, -1) if chosen.dtype == bool else chosen
    n_groups = 1 + int(group.max(initial=0))
    counts = np.array(
        [np.bincount(1 + group[r.rows], minlength=1 + n_groups)[1:] for r in regions(source)]
    )  # (region, group)
    parts = reduce_regions(
        _fold_region,
        source,
        group=group,
        mean=mean,
        std=std,
        n_rows=share_rows(counts.ravel(), n_rows).reshape(counts.shape),
        seed=seed,
        what="sketching samples",
        on_progress=on_progress,
    )
    rows, groups = (np.concatenate(part) for part in zip(*parts, strict=True))
    n_samples = int(counts.sum())
    return GeneSketch(rows, std, score, n_samples, None if chosen.dtype == bool else groups)


def _fold_region(
    uri: str,
    region: Region,
    *,
    group: NDArray[np.int64],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    n_rows: NDArray[np.int64],
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a region's rows of the sketch, and the group of each."""
    is_chosen = group[region.rows] >= 0
    own, n_own = group[region.rows][is_chosen], n_rows[region.index]
    if not is_chosen.any():
        return np.empty((0, mean.size), dtype=np.float32), own
    z = standardize(Rows(uri)[region.rows][is_chosen], mean, std)
    if n_own.sum() >= len(z):
        return z, own
    rng, present = np.random.default_rng([seed, region.start]), np.flatnonzero(n_own)
    folded = [fold_samples(z[own == k], int(n_own[k]), rng) for k in present]
    return np.concatenate(folded), np.repeat(present, [len(rows) for rows in folded])
