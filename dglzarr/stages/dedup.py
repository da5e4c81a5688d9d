"""Dedup: clusters, near-duplicates and per-gene moments, kept as a mask beside the matrix.

Reads ``normalized.zarr``, writes ``samples.zarr``; the matrix is not written again. Every sample is
projected once on a small orthonormal basis. A projection never lengthens a distance, so samples
apart in it are apart: the few pairs left are measured over all genes in float64, and no pair under
the threshold is missed, whatever the basis and the clusters. The k-means runs on the projections.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import DglzarrError
from dglzarr.graph import run_tasks
from dglzarr.kernels.clustering import fit_kmeans, nearest_centroids
from dglzarr.kernels.duplicates import (
    Rule,
    candidate_pairs,
    distance_basis,
    keep_mask,
    pair_distances,
    project,
    projection_slack,
)
from dglzarr.kernels.moments import Moments, chunk_moments, finish_moments, merge_moments
from dglzarr.kernels.slices import iter_slices
from dglzarr.rows import Rows, read_array
from dglzarr.schema import NORMALIZED, SAMPLES
from dglzarr.store import (
    Region,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_labels,
    open_store,
    reduce_regions,
    regions,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.graph import Progress

_N_COMPONENTS = 128
_SUM_GROUPS = 8
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
        Mini-batch passes of the k-means over the training samples, before whole passes.
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
    Four passes over the samples; the second costs samples x genes x components. The candidate
    pairs are read once more. A missing value stands at its gene's training mean.

    References
    ----------
    Sculley 2010, doi:10.1145/1772690.1772862 (mini-batch k-means)
    """
    started = time.monotonic()
    ds = open_labels(source, NORMALIZED)
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
    center = np.nan_to_num(_moments(source, train, "averaging genes", on_progress)[0])
    rng = np.random.default_rng(seed)
    basis = _fit_basis(source, train, center, rng)
    projection, largest = _project(source, basis, center, on_progress)
    n_clusters = min(n_clusters, int(train.sum()))
    centroids = fit_kmeans(projection, train, n_clusters, rng, epochs=epochs)
    cluster = _assign(projection, train, centroids)
    slack = projection_slack(largest, center.size)
    pairs, exact = _close_pairs([source], projection, center, threshold, slack, on_progress)
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
        coords["cluster_index"] = np.arange(n_clusters, dtype=np.int32)
        coords["component"] = np.arange(len(basis), dtype=np.int32)
        create_store(claim, coords)
    members = np.where(train, cluster, -1)
    arrays = {
        "cluster": cluster,
        "keep": keep,
        "duplicate_of": _names(samples, duplicate_of),
        "nearest_distance": _nearest(train.size, pairs, exact, threshold),
        "centroid": _centroids(source, members, n_clusters, center, on_progress),
        "gene_center": center,
        "basis": basis,
        "projection": projection,
        "gene_mean": mean,
        "gene_std": std,
    }
    details = {
        "n_dropped": int((~keep).sum()),
        "n_dropped_test": int((~keep & (split == 2)).sum()),
        "n_clusters": n_clusters,
        "threshold": threshold,
        "n_duplicate_pairs": len(pairs),
        "n_fitted": int((train & keep).sum()),
        "largest_norm": largest,
    }
    return finish(target, started=started, arrays=arrays, details=details)


def dedup_more(
    source: str,
    target: str,
    *,
    known: Sequence[tuple[str, str]],
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write clusters and the keep mask of new samples beside those of a study.

    Nothing is fitted: basis, clusters and moments are the study's, and what it keeps it keeps. A
    new sample within the threshold of a kept one, old or new, is dropped.

    Parameters
    ----------
    source, target
        URIs of the new samples' normalized store and of their samples store.
    known
        Normalized and samples store of every segment so far, the first one first.
    overwrite
        Replace a store made from other inputs.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used or the target cannot be written.
    """
    started = time.monotonic()
    ds, first = open_labels(source, NORMALIZED), open_store(known[0][1], SAMPLES)
    settings = dict(first.attrs["parameters"])
    claim = claim_store(
        target,
        SAMPLES,
        inputs=[store_input(source), *(store_input(uri) for pair in known for uri in pair)],
        parameters=settings,
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    olds = [open_store(uri, SAMPLES) for _, uri in known]
    n_old = sum(old.sizes["sample"] for old in olds)
    center, basis = first["gene_center"].values, first["basis"].values
    new, largest = _project(source, basis, center, on_progress)
    projection = np.concatenate([*(old["projection"].values for old in olds), new])
    largest = max(largest, *(float(old.attrs["details"]["largest_norm"]) for old in olds))
    means = first["centroid"].values
    used = np.flatnonzero(~np.isnan(means).any(axis=1)).astype(np.int32)
    centroids = ((means[used] - center) @ basis.T.astype(np.float64)).astype(np.float32)
    cluster = used[nearest_centroids(new, centroids)]
    kept_before = np.concatenate([old["keep"].values for old in olds])
    pairs, exact = _close_pairs(
        [*(uri for uri, _ in known), source],
        projection,
        center,
        settings["threshold"],
        projection_slack(largest, center.size),
        on_progress,
        usable=np.append(kept_before, np.ones(len(new), dtype=bool)),
        first_new=n_old,
    )
    split = ds["split"].values
    keep, duplicate_of = keep_mask(
        n_old + len(new),
        pairs,
        exact,
        threshold=settings["threshold"],
        order=np.append(np.arange(n_old), n_old + np.argsort(split != 0, kind="stable")),
        rule=settings["rule"],
        cluster=np.concatenate([*(old["cluster"].values for old in olds), cluster]),
    )
    samples = np.concatenate([*(old["sample"].values for old in olds), ds["sample"].values])
    if claim.state == "new":
        indexes = {name: first[name].values for name in ("gene", "cluster_index", "component")}
        create_store(claim, {"sample": ds["sample"].values, **indexes})
    frozen = ("centroid", "gene_center", "basis", "gene_mean", "gene_std")
    arrays = {
        **{name: first[name].values for name in frozen},
        "cluster": cluster,
        "keep": keep[n_old:],
        "duplicate_of": _names(samples, duplicate_of)[n_old:],
        "nearest_distance": _nearest(n_old + len(new), pairs, exact, settings["threshold"])[n_old:],
        "projection": new,
    }
    details = {
        "n_dropped": int((~keep[n_old:]).sum()),
        "n_clusters": len(means),
        "threshold": settings["threshold"],
        "n_fitted": 0,
        "largest_norm": largest,
    }
    return finish(target, started=started, arrays=arrays, details=details)


def _names(samples: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Return the sample at each index, "" where it is negative."""
    names = np.full(index.size, "", dtype=np.dtypes.StringDType())
    names[index >= 0] = samples[index[index >= 0]]
    return names


# ---------------------------------------------------------------- moments


def _moments(
    source: str, mask: NDArray[np.bool_], what: str, on_progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    partials = reduce_regions(
        _moments_region, source, mask=mask, what=what, on_progress=on_progress
    )
    with np.errstate(invalid="ignore"):
        merged = reduce(merge_moments, partials)
    is_finite = np.isfinite(merged.mean) & np.isfinite(merged.m2)
    if not is_finite.all():
        gene = read_array(source, "gene")[np.argmin(is_finite)]
        raise DglzarrError(
            f"{source}: expected finite or missing values, got an infinite one for gene "
            f"{str(gene)!r}. Mend the file and ingest it anew."
        )
    return finish_moments(merged)


def _moments_region(uri: str, region: Region, *, mask: NDArray[np.bool_]) -> Moments:
    rows = Rows(uri)
    with np.errstate(invalid="ignore"):  # an infinite value, which is refused later
        return reduce(merge_moments, (chunk_moments(rows[w][mask[w]]) for w in region.windows()))


def _centred(block: NDArray[np.float32], center: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a block about the center of the genes, missing values at it."""
    centred: NDArray[np.float32] = block - center.astype(np.float32)
    centred[np.isnan(centred)] = 0
    return centred


# ---------------------------------------------------------------- projections and clusters


def _fit_basis(
    source: str, train: NDArray[np.bool_], center: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the basis (component, gene): principal axes of a few training samples."""
    drawn = rng.permutation(np.flatnonzero(train))[:_N_COMPONENTS]
    return distance_basis(_centred(Rows(source).take(np.sort(drawn)), center), _N_COMPONENTS)


def _project(
    source: str,
    basis: NDArray[np.float32],
    center: NDArray[np.float64],
    on_progress: Progress | None,
) -> tuple[NDArray[np.float32], float]:
    """Return every sample on the basis (sample, component), and the largest norm of one."""
    parts = reduce_regions(
        _project_region,
        source,
        basis=basis,
        center=center,
        what="projecting samples",
        on_progress=on_progress,
    )
    return np.concatenate([p for p, _ in parts]), max(norm for _, norm in parts)


def _project_region(
    uri: str, region: Region, *, basis: NDArray[np.float32], center: NDArray[np.float64]
) -> tuple[NDArray[np.float32], float]:
    projected, largest = [], 0.0
    rows = Rows(uri)
    for window in region.windows():
        block = _centred(rows[window], center)
        projected.append(project(block, basis))
        largest = max(largest, float(np.einsum("sg,sg->s", block, block).max()) ** 0.5)
    return np.concatenate(projected), largest


def _assign(
    projection: NDArray[np.float32], train: NDArray[np.bool_], centroids: NDArray[np.float32]
) -> NDArray[np.int32]:
    """Return the nearest cluster of each sample among those that have a training sample."""
    cluster = nearest_centroids(projection, centroids).astype(np.int32)
    used = np.unique(cluster[train])
    strays = np.flatnonzero(~np.isin(cluster, used))
    if strays.size:
        cluster[strays] = used[nearest_centroids(projection[strays], centroids[used])]
    return cluster


def _centroids(
    source: str,
    members: NDArray[np.int32],
    n_clusters: int,
    center: NDArray[np.float64],
    on_progress: Progress | None,
) -> NDArray[np.float32]:
    """Return the mean of each cluster's training samples, NaN without any.

    Missing values stand at the center. The regions are summed in a fixed number of groups, so that
    few sums of clusters by genes exist at once and their order does not depend on the workers.
    """
    groups = np.array_split(np.arange(len(regions(source))), _SUM_GROUPS)
    parts = run_tasks(
        _sum_group,
        [(source, group) for group in groups if group.size],
        members=members,
        n_clusters=n_clusters,
        center=center,
        what="averaging clusters",
        on_progress=on_progress,
    )
    counts = np.bincount(members[members >= 0], minlength=n_clusters)
    total: NDArray[np.float64] = reduce(np.add, parts)
    total[counts == 0] = np.nan
    return (total / np.maximum(counts, 1)[:, None] + center).astype(np.float32)


def _sum_group(
    source: str,
    group: NDArray[np.int64],
    *,
    members: NDArray[np.int32],
    n_clusters: int,
    center: NDArray[np.float64],
) -> NDArray[np.float64]:
    rows, every = Rows(source), regions(source)
    sums: NDArray[np.float64] = np.zeros((n_clusters, center.size))
    for window in (w for i in group for w in every[i].windows()):
        block = _centred(rows[window], center)
        for cluster, sample in zip(members[window], block, strict=True):
            if cluster >= 0:
                sums[cluster] += sample
    return sums


# ---------------------------------------------------------------- near-duplicates


def _close_pairs(
    sources: Sequence[str],
    projection: NDArray[np.float32],
    center: NDArray[np.float64],
    threshold: float,
    slack: float,
    on_progress: Progress | None,
    *,
    usable: NDArray[np.bool_] | None = None,
    first_new: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs closer than the threshold and their distances, measured in float64.

    Only pairs of usable samples of which one at least is at or after ``first_new``.
    """
    pairs = candidate_pairs(projection, threshold, slack)
    if usable is not None:
        pairs = pairs[usable[pairs].all(axis=1) & (pairs[:, 1] >= first_new)]
    reach = threshold + slack * len(projection[0]) ** 0.5
    is_near = np.ones(len(pairs), dtype=bool)
    for some in iter_slices(len(pairs), 32 * projection.shape[1]):
        left, right = pairs[some].T
        is_near[some] = pair_distances(projection[left], projection[right]) < reach
    pairs = pairs[is_near]
    if not len(pairs):
        return pairs, np.empty(0)
    parts = np.array_split(pairs, -(-len(pairs) // _PAIRS_PER_TASK))
    measured = run_tasks(
        _measure_pairs,
        [(tuple(sources), part) for part in parts],
        center=center,
        what="measuring pairs",
        on_progress=on_progress,
    )
    exact = np.concatenate(measured)
    close = exact < threshold
    return pairs[close], exact[close]


def _measure_pairs(
    sources: Sequence[str], pairs: NDArray[np.int64], *, center: NDArray[np.float64]
) -> NDArray[np.float64]:
    rows, at = np.unique(pairs, return_inverse=True)
    values = Rows(sources).take(rows)
    values = np.where(np.isnan(values), center.astype(np.float32), values)
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
