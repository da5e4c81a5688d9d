"""Dedup: clusters, near-duplicates and per-gene moments, kept as a mask beside the matrix.

Reads ``normalized.zarr``, writes ``samples.zarr``. The matrix is not written again. The distances
of a sample to the k-means centroids serve twice: the nearest one is its cluster, and, because two
samples closer than t differ by less than t in each of them, they rule out all pairs but a few,
which are then measured in float64. So no pair under the threshold is missed, in any clustering.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.kernels.clustering import (
    batch_partial,
    centroid_distances,
    distance_slack,
    init_centroids,
    reseed_empty,
    update_centroids,
)
from dglzarr.kernels.duplicates import Rule, candidate_pairs, keep_mask, pair_distances
from dglzarr.kernels.moments import Moments, chunk_moments, finish_moments, merge_moments
from dglzarr.schema import NORMALIZED, SAMPLES
from dglzarr.store import (
    Region,
    Rows,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    reduce_regions,
    regions,
    run_tasks,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.store import Progress

_WINDOW = 256
_WINDOWS_PER_BATCH = 4
_PAIRS_PER_TASK = 512


def dedup(
    source: str,
    target: str,
    *,
    n_clusters: int = 100,
    threshold: float = 1.0,
    rule: Rule = "greedy",
    epochs: int = 3,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write clusters, the keep mask and per-gene moments of a normalized store.

    Parameters
    ----------
    source, target
        URIs of the normalized store and of the samples store.
    n_clusters
        Clusters of the mini-batch k-means; fewer where there are few training samples.
    threshold
        Euclidean distance over all genes under which two samples are duplicates.
    rule
        ``"greedy"``: every dropped sample has a kept neighbour, training samples come first, so a
        test sample that repeats one is dropped. ``"dgex"``: D-GEX's script, within clusters.
    epochs
        Passes of the k-means over the training samples.
    seed
        Of the k-means.
    overwrite
        Replace a store made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When the source cannot be used or the target cannot be written.

    Notes
    -----
    Cost: (epochs + 1) x samples x genes x clusters; the candidate pairs are read once more.
    A missing value stands at its gene's training mean.

    References
    ----------
    Sculley 2010, doi:10.1145/1772690.1772862 (mini-batch k-means)
    """
    started = time.monotonic()
    ds = open_store(source, NORMALIZED)
    claim = claim_store(
        target,
        SAMPLES,
        inputs=[store_input(source)],
        parameters={
            "n_clusters": n_clusters,
            "threshold": threshold,
            "rule": rule,
            "epochs": epochs,
            "metric": "euclidean",
            "seed": seed,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    split = ds["split"].values
    train = split == 0
    fill = _moments(source, train, "averaging genes", on_progress)[0]
    centroids = _fit_centroids(source, train, fill, n_clusters, epochs, seed, on_progress)
    distances = _distances(source, centroids, fill, on_progress)
    cluster = distances.argmin(axis=1).astype(np.int32)
    pairs, exact = _close_pairs(source, distances, fill, threshold, on_progress)
    keep, duplicate_of = keep_mask(
        train.size,
        pairs,
        exact,
        threshold=threshold,
        order=np.argsort(split != 0, kind="stable"),
        rule=rule,
        cluster=cluster,
    )
    mean, std = _moments(source, train & keep, "moments of kept samples", on_progress)
    samples = ds["sample"].values
    if claim.state == "new":
        coords = {"sample": samples, "gene": ds["gene"].values}
        coords["cluster_index"] = np.arange(len(centroids), dtype=np.int32)
        create_store(claim, coords)
    names = samples.copy()
    names[duplicate_of < 0] = ""
    names[duplicate_of >= 0] = samples[duplicate_of[duplicate_of >= 0]]
    arrays = {
        "cluster": cluster,
        "keep": keep,
        "duplicate_of": names,
        "nearest_distance": _nearest(train.size, pairs, exact, threshold),
        "centroid": centroids + np.nan_to_num(fill).astype(np.float32),
        "gene_mean": mean,
        "gene_std": std,
    }
    details = {
        "n_dropped": int((~keep).sum()),
        "n_dropped_test": int((~keep & (split == 2)).sum()),
        "n_clusters": len(centroids),
        "threshold": threshold,
        "n_fitted": int((train & keep).sum()),
    }
    return finish(target, started=started, arrays=arrays, details=details)


# ---------------------------------------------------------------- moments


def _moments(
    source: str, mask: NDArray[np.bool_], what: str, on_progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    partials = reduce_regions(
        _moments_region, source, mask=mask, what=what, on_progress=on_progress
    )
    return finish_moments(reduce(merge_moments, partials))


def _moments_region(uri: str, region: Region, *, mask: NDArray[np.bool_]) -> Moments:
    return chunk_moments(Rows(uri)[region.rows][mask[region.rows]])


def _filled(block: NDArray[np.float32], fill: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a block centred on the gene means, missing values at the mean."""
    return np.nan_to_num(block - np.nan_to_num(fill).astype(np.float32), copy=False)


# ---------------------------------------------------------------- k-means


def _fit_centroids(
    source: str,
    train: NDArray[np.bool_],
    fill: NDArray[np.float64],
    n_clusters: int,
    epochs: int,
    seed: int,
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """Return centroids (cluster, gene) of mini-batch k-means, centred on the gene means.

    A mini-batch is a few windows of samples from different places; each is reduced to sums by one
    task, and the sums are merged in order.
    """
    rng = np.random.default_rng(seed)
    windows = [
        (start, min(start + _WINDOW, region.stop))
        for region in regions(source)
        for start in range(region.start, region.stop, _WINDOW)
        if train[start : min(start + _WINDOW, region.stop)].any()
    ]
    rows = Rows(source)
    chosen = rng.permutation(len(windows))[: 2 * _WINDOWS_PER_BATCH]
    start_block = np.concatenate(
        [_train_rows(rows, train, fill, *windows[i]) for i in sorted(chosen.tolist())]
    )
    centroids = init_centroids(start_block, min(n_clusters, len(start_block)), rng)
    counts = np.zeros(len(centroids), dtype=np.int64)
    for epoch in range(epochs):
        order = rng.permutation(len(windows))
        for at in range(0, len(order), _WINDOWS_PER_BATCH):
            batch = [windows[i] for i in order[at : at + _WINDOWS_PER_BATCH].tolist()]
            partials = run_tasks(
                _window_partial,
                [(source, *window) for window in batch],
                train=train,
                fill=fill,
                centroids=centroids,
                what=f"k-means pass {epoch + 1} of {epochs}",
                on_progress=on_progress,
            )
            sums = reduce(np.add, (p[0] for p in partials))
            n_new = reduce(np.add, (p[1] for p in partials))
            centroids, counts = update_centroids(centroids, counts, sums, n_new)
        centroids = reseed_empty(centroids, counts, start_block, rng)
    return centroids


def _train_rows(
    rows: Rows, train: NDArray[np.bool_], fill: NDArray[np.float64], start: int, stop: int
) -> NDArray[np.float32]:
    return _filled(rows[start:stop][train[start:stop]], fill)


def _window_partial(
    source: str,
    start: int,
    stop: int,
    *,
    train: NDArray[np.bool_],
    fill: NDArray[np.float64],
    centroids: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums, counts, _ = batch_partial(_train_rows(Rows(source), train, fill, start, stop), centroids)
    return sums, counts


def _distances(
    source: str,
    centroids: NDArray[np.float32],
    fill: NDArray[np.float64],
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """Return the distance of every sample to every centroid, (sample, cluster)."""
    parts = reduce_regions(
        _distances_region,
        source,
        centroids=centroids,
        fill=fill,
        what="assigning clusters",
        on_progress=on_progress,
    )
    return np.concatenate(parts)


def _distances_region(
    uri: str, region: Region, *, centroids: NDArray[np.float32], fill: NDArray[np.float64]
) -> NDArray[np.float32]:
    return centroid_distances(_filled(Rows(uri)[region.rows], fill), centroids)


# ---------------------------------------------------------------- near-duplicates


def _close_pairs(
    source: str,
    distances: NDArray[np.float32],
    fill: NDArray[np.float64],
    threshold: float,
    on_progress: Progress | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs closer than the threshold and their distances, measured in float64."""
    candidates = candidate_pairs(distances, threshold, distance_slack(distances, fill.size))
    if not len(candidates):
        return candidates, np.empty(0)
    n_tasks = -(-len(candidates) // _PAIRS_PER_TASK)
    tasks = [(source, part) for part in np.array_split(candidates, n_tasks)]
    measured = run_tasks(
        _measure_pairs, tasks, fill=fill, what="measuring pairs", on_progress=on_progress
    )
    exact = np.concatenate(measured)
    close = exact < threshold
    return candidates[close], exact[close]


def _measure_pairs(
    source: str, pairs: NDArray[np.int64], *, fill: NDArray[np.float64]
) -> NDArray[np.float64]:
    rows, at = np.unique(pairs, return_inverse=True)
    values = Rows(source).take(rows)
    values = np.where(np.isnan(values), np.nan_to_num(fill).astype(np.float32), values)
    at = at.reshape(pairs.shape)
    return np.concatenate(
        [
            pair_distances(values[at[i : i + 64, 0]], values[at[i : i + 64, 1]])
            for i in range(0, len(at), 64)
        ]
    )


def _nearest(
    n_samples: int, pairs: NDArray[np.int64], exact: NDArray[np.float64], threshold: float
) -> NDArray[Any]:
    nearest = np.full(n_samples, np.inf)
    for side in (0, 1):
        np.minimum.at(nearest, pairs[:, side], exact)
    return np.where(nearest < threshold, nearest, np.nan).astype(np.float32)
