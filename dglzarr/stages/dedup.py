"""Dedup: clusters, near-duplicates and per-gene moments, kept as a mask beside the matrix.

Reads ``normalized.zarr``, writes ``samples.zarr``; the matrix is not written again. Every sample is
projected once on a small orthonormal basis. A projection never lengthens a distance, so samples
apart in it are apart: the few pairs left are measured over all genes in float64, and no pair under
the threshold is missed, whatever the basis and the clusters. The k-means runs on the projections.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.errors import DglzarrError, StoreError
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
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import NORMALIZED, SAMPLES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    open_labels,
    open_store,
    reduce_regions,
    regions,
    write_store,
)
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim

_N_COMPONENTS = 128
_SUM_GROUPS = 8
_PAIRS_PER_TASK = 512
_CONSTANTS = {"metric": "euclidean"}
_FROZEN = (
    "gene", "cluster_index", "component", "centroid", "gene_center", "basis", "gene_mean",
    "gene_std",
)  # fmt: skip


class DedupOptions(Options):
    """Clusters and near-duplicates."""

    section = "dedup"

    n_clusters: int = choice(
        100, "clusters of the k-means; fewer where there are few training samples", gt=0
    )
    threshold: float = choice(
        1.0, "Euclidean distance over all genes under which two samples are duplicates", ge=0
    )
    rule: Rule = choice(
        "greedy",
        "greedy: each dropped sample has a kept neighbour, training samples come first; dgex: "
        "D-GEX's script, within clusters",
        paper="dgex",
    )
    epochs: int = choice(
        3, "mini-batch passes of the k-means over the training samples, before whole ones", gt=0
    )


class _Projected(NamedTuple):
    """Samples on the basis (sample, component), and the largest norm of one before."""

    projection: NDArray[np.float32]
    largest: float


class _Pairs(NamedTuple):
    """Pairs (pair, 2) of samples closer than the threshold, and their distances (pair,)."""

    pairs: NDArray[np.int64]
    distance: NDArray[np.float64]


@stage(SAMPLES, records=("seed",), constants=_CONSTANTS)
def dedup(
    claim: Claim,
    source: str,
    target: str,
    *,
    seed: int = 0,
    options: DedupOptions = DedupOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write clusters, the keep mask and per-gene moments of a normalized store.

    Parameters
    ----------
    source, target
        URIs of the normalized store and of the samples store.
    seed
        Of the k-means.
    options, run
        Its choices, and how it is run. With the rule ``"greedy"`` a test sample that repeats a
        training sample is dropped, whichever comes first.

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
    del target  # the claim's
    ds = open_labels(source, NORMALIZED)
    split = ds["split"].values
    train = split == 0
    center = np.nan_to_num(_moments(source, train, "averaging genes", run)[0])
    rng = np.random.default_rng(seed)
    basis = _fit_basis(source, train, center, rng)
    projected = _project(source, basis, center, run)
    n_clusters = min(options.n_clusters, int(train.sum()))
    cluster = _fit_clusters(projected.projection, train, n_clusters, options.epochs, rng)
    close = _close_pairs([source], projected, center, options.threshold, run)
    marked = _marked(ds, [], close, cluster, options)
    keep = marked["keep"]
    mean, std = _moments(source, train & keep, "moments of kept samples", run)
    members = np.where(train, cluster, -1)
    arrays = {
        **{name: ds[name].values for name in ("sample", "gene")},
        "cluster_index": np.arange(n_clusters, dtype=np.int32),
        "component": np.arange(len(basis), dtype=np.int32),
        **marked,
        "centroid": _centroids(source, members, n_clusters, center, run),
        "gene_center": center,
        "basis": basis,
        "projection": projected.projection,
        "gene_mean": mean,
        "gene_std": std,
    }
    details = {
        "n_dropped": int((~keep).sum()),
        "n_dropped_test": int((~keep & (split == 2)).sum()),
        "n_clusters": n_clusters,
        "threshold": options.threshold,
        "n_duplicate_pairs": len(close.pairs),
        "n_fitted": int((train & keep).sum()),
        "largest_norm": projected.largest,
    }
    return write_store(claim, arrays, details=details)


@stage(SAMPLES, reads=("source", "known"), records=("seed",), constants=_CONSTANTS)
def dedup_more(
    claim: Claim,
    source: str,
    target: str,
    *,
    known: Sequence[tuple[str, str]],
    seed: int = 0,
    options: DedupOptions = DedupOptions(),
    run: Run = Run(),
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
    seed, options
        Those that the first segment was made with.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, the first segment was made with other choices, or the target
        cannot be written.
    """
    del target, seed  # the claim's, and for the record
    ds, first = open_labels(source, NORMALIZED), open_store(known[0][1], SAMPLES)
    _check_choices(claim, first, known[0][1])
    olds = [open_store(uri, SAMPLES) for _, uri in known]
    n_old = sum(old.sizes["sample"] for old in olds)
    center = first["gene_center"].values
    new = _project(source, first["basis"].values, center, run)
    largest = max(new.largest, *(float(old.attrs["details"]["largest_norm"]) for old in olds))
    cluster = _known_clusters(new.projection, first)
    close = _close_pairs(
        [*(uri for uri, _ in known), source],
        _Projected(_joined(olds, "projection", new.projection), largest),
        center,
        options.threshold,
        run,
        usable=_joined(olds, "keep", np.ones(ds.sizes["sample"], dtype=bool)),
        first_new=n_old,
    )
    marked = _marked(ds, olds, close, cluster, options)
    arrays = {
        "sample": ds["sample"].values,
        **{name: first[name].values for name in _FROZEN},
        **marked,
        "projection": new.projection,
    }
    details = {
        "n_dropped": int((~marked["keep"]).sum()),
        "n_clusters": first.sizes["cluster_index"],
        "threshold": options.threshold,
        "n_fitted": 0,
        "largest_norm": largest,
    }
    return write_store(claim, arrays, details=details)


def _marked(
    ds: xr.Dataset,
    olds: Sequence[xr.Dataset],
    close: _Pairs,
    cluster: NDArray[np.int32],
    options: DedupOptions,
) -> dict[str, NDArray[Any]]:
    """Return which new samples are kept beside those so far, and what the others repeat."""
    n_old, split = sum(old.sizes["sample"] for old in olds), ds["split"].values
    keep, duplicate_of = keep_mask(
        n_old + split.size,
        *close,
        threshold=options.threshold,
        order=np.append(np.arange(n_old), n_old + np.argsort(split != 0, kind="stable")),
        rule=options.rule,
        cluster=_joined(olds, "cluster", cluster),
    )
    samples = _joined(olds, "sample", ds["sample"].values)
    return {
        "cluster": cluster,
        "keep": keep[n_old:],
        "duplicate_of": _names(samples, duplicate_of)[n_old:],
        "nearest_distance": _nearest(n_old + split.size, close, options.threshold)[n_old:],
    }


def _check_choices(claim: Claim, first: xr.Dataset, uri: str) -> None:
    """Refuse choices other than those that the first segment was made with."""
    asked, made = claim.lineage["parameters"], first.attrs["parameters"]
    changed = [name for name in asked if name in made and asked[name] != made[name]]
    if changed:
        raise StoreError(
            f"{uri}: expected {changed[0]} to be {made[changed[0]]!r}, as it was made, "
            f"got {asked[changed[0]]!r}. Use the choices it was made with."
        )


def _joined(olds: Sequence[xr.Dataset], name: str, new: NDArray[Any]) -> NDArray[Any]:
    """Return an array of the samples so far and the new ones (sample, ...)."""
    return np.concatenate([*(old[name].values for old in olds), new])


def _names(samples: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    """Return the sample at each index, "" where it is negative."""
    names = np.full(index.size, "", dtype=np.dtypes.StringDType())
    names[index >= 0] = samples[index[index >= 0]]
    return names


# ---------------------------------------------------------------- moments


def _moments(
    source: str, mask: NDArray[np.bool_], what: str, run: Run
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    partials = reduce_regions(
        _moments_region, source, mask=mask, what=what, on_progress=run.on_progress
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
    source: str, basis: NDArray[np.float32], center: NDArray[np.float64], run: Run
) -> _Projected:
    """Return every sample on the basis."""
    parts = reduce_regions(
        _project_region,
        source,
        basis=basis,
        center=center,
        what="projecting samples",
        on_progress=run.on_progress,
    )
    return _Projected(np.concatenate([p.projection for p in parts]), max(p.largest for p in parts))


def _project_region(
    uri: str, region: Region, *, basis: NDArray[np.float32], center: NDArray[np.float64]
) -> _Projected:
    projected, largest = [], 0.0
    rows = Rows(uri)
    for window in region.windows():
        block = _centred(rows[window], center)
        projected.append(project(block, basis))
        largest = max(largest, float(np.einsum("sg,sg->s", block, block).max()) ** 0.5)
    return _Projected(np.concatenate(projected), largest)


def _fit_clusters(
    projection: NDArray[np.float32],
    train: NDArray[np.bool_],
    n_clusters: int,
    epochs: int,
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Return every sample's cluster (sample,), of those that a training sample is nearest to."""
    centroids = fit_kmeans(projection, train, n_clusters, rng, epochs=epochs)
    cluster = nearest_centroids(projection, centroids).astype(np.int32)
    used = np.unique(cluster[train])
    strays = np.flatnonzero(~np.isin(cluster, used))
    if strays.size:
        cluster[strays] = used[nearest_centroids(projection[strays], centroids[used])]
    return cluster


def _known_clusters(projection: NDArray[np.float32], first: xr.Dataset) -> NDArray[np.int32]:
    """Return every new sample's cluster (sample,), of those that have training samples."""
    means = first["centroid"].values
    used = np.flatnonzero(~np.isnan(means).any(axis=1)).astype(np.int32)
    on_basis = (means[used] - first["gene_center"].values) @ first["basis"].values.T.astype(float)
    nearest: NDArray[np.int32] = used[nearest_centroids(projection, on_basis.astype(np.float32))]
    return nearest


def _centroids(
    source: str,
    members: NDArray[np.int32],
    n_clusters: int,
    center: NDArray[np.float64],
    run: Run,
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
        on_progress=run.on_progress,
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
    projected: _Projected,
    center: NDArray[np.float64],
    threshold: float,
    run: Run,
    *,
    usable: NDArray[np.bool_] | None = None,
    first_new: int = 0,
) -> _Pairs:
    """Return all pairs closer than the threshold and their distances, measured in float64.

    Only pairs of usable samples of which one at least is at or after ``first_new``.
    """
    projection = projected.projection
    slack = projection_slack(projected.largest, center.size)
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
        return _Pairs(pairs, np.empty(0))
    parts = np.array_split(pairs, -(-len(pairs) // _PAIRS_PER_TASK))
    measured = run_tasks(
        _measure_pairs,
        [(tuple(sources), part) for part in parts],
        center=center,
        what="measuring pairs",
        on_progress=run.on_progress,
    )
    exact = np.concatenate(measured)
    close = exact < threshold
    return _Pairs(pairs[close], exact[close])


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


def _nearest(n_samples: int, close: _Pairs, threshold: float) -> NDArray[Any]:
    """Return every sample's distance to its nearest duplicate (sample,), NaN without any."""
    nearest = np.full(n_samples, np.inf)
    for side in (0, 1):
        np.minimum.at(nearest, close.pairs[:, side], close.distance)
    return np.where(nearest < threshold, nearest, np.nan).astype(np.float32)
