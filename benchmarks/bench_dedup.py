"""Dedup beside D-GEX's way in memory (scikit-learn), and beside its own reads and products.

Its k-means alone, on projections of up to a million samples, stands beside one of numpy loops; the
memory of each is that of its process, projections included.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from common import (
    Bench,
    Case,
    Timed,
    main,
    product_seconds,
    run_here,
    run_parts,
    run_stage,
    seconds_of,
    simulated_matrix,
    write_normalized,
)
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances

from dglzarr.kernels.clustering import MAX_PASSES, N_STARTS, fit_kmeans, nearest_centroids
from dglzarr.kernels.gene_kmeans import fit_gene_kmeans
from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import Region, open_store, regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

N_CLUSTERS = 100
PASSES = 4
N_COMPONENTS = 128
THRESHOLD = 1.0


def with_dglzarr(case: Case) -> Timed:
    """Time the stage: moments, clusters, all near-duplicates, moments of the kept."""
    target = case.path("samples.zarr")
    shutil.rmtree(target, ignore_errors=True)
    options = DedupOptions(n_clusters=n_clusters(case), threshold=THRESHOLD)
    timed = run_stage(case, dedup, case.path("normalized.zarr"), target, options=options)
    found = open_store(target)
    rows = Rows(case.path("normalized.zarr"))
    inertia = inertia_of(rows, found["centroid"].values, found["cluster"].values)
    more = {"n_dropped": found.attrs["details"]["n_dropped"], "inertia": inertia}
    return replace(timed, more={**timed.more, **more})


def with_sklearn(case: Case) -> Timed:
    """Time mini-batch k-means, prediction, and all distances within clusters, in memory."""
    matrix = simulated_matrix(case.n_samples, case.n_genes)
    model = MiniBatchKMeans(
        n_clusters(case), max_iter=10, batch_size=1000, compute_labels=False, random_state=0
    )
    timed = run_here(case, lambda: dgex_duplicates(matrix, model))
    inertia = inertia_of(matrix, model.cluster_centers_, model.predict(matrix))
    return replace(timed, more={**timed.more, "inertia": inertia})


def inertia_of(
    rows: Rows | NDArray[np.float32], centroids: NDArray[np.float32], cluster: NDArray[np.int32]
) -> float:
    """Return the sum of squared distances of samples to the centroids of their clusters."""
    total = 0.0
    for start in range(0, len(cluster), 256):
        window = slice(start, min(start + 256, len(cluster)))
        difference = rows[window] - centroids[cluster[window]]
        total += float(np.einsum("sg,sg->", difference, difference, dtype=np.float64))
    return float(f"{total:.6g}")


def dgex_duplicates(matrix: NDArray[np.float32], model: MiniBatchKMeans) -> NDArray[np.bool_]:
    """Return which samples repeat an earlier one of their cluster, by D-GEX's rule."""
    cluster = model.fit(matrix).predict(matrix)
    drop = np.zeros(len(matrix), bool)
    for number in range(model.n_clusters):
        members = np.flatnonzero(cluster == number)
        if members.size > 1:
            close = pairwise_distances(matrix[members]) < THRESHOLD
            drop[members[np.triu(close, 1).any(axis=0)]] = True
    return drop


def with_limit(case: Case) -> Timed:
    """Time the reads of all passes, and one projection in float32, each alone."""
    source = case.path("normalized.zarr")
    return run_parts(case, region_parts, [(source, region) for region in regions(source)])


def region_parts(source: str, region: Region) -> dict[str, float]:
    """Return the seconds of each part over one region."""
    rows = Rows(source)
    shape = (region.stop - region.start, rows.shape[1], N_COMPONENTS)
    return {
        "reads": PASSES * seconds_of(lambda: rows[region.rows]),
        "projection": product_seconds([shape]),
    }


def with_kmeans(case: Case) -> Timed:
    """Time the k-means of the stage on projections in memory, all of them fitted on."""
    everyone = np.ones(case.n_samples, dtype=bool)
    return timed_kmeans(case, lambda points, n, rng: fit_kmeans(points, everyone, n, rng))


def with_numpy_kmeans(case: Case) -> Timed:
    """Time the k-means of genes on the same projections: in numpy, from one start."""
    return timed_kmeans(case, fit_gene_kmeans)


def timed_kmeans(case: Case, fit: Callable[..., NDArray[np.float32]]) -> Timed:
    """Return what a k-means takes on simulated projections, and its inertia."""
    points = simulated_matrix(case.n_samples, case.n_genes)
    points -= points.mean(axis=0)
    found: list[NDArray[np.float32]] = []
    timed = run_here(
        case, lambda: found.append(fit(points, n_clusters(case), np.random.default_rng(0)))
    )
    inertia = inertia_of(points, found[0], nearest_centroids(points, found[0]))
    return replace(timed, more={"inertia": inertia})


def with_kmeans_limit(case: Case) -> Timed:
    """Time the products of points and centroids in float32, as many as there can be passes."""
    n_passes = MAX_PASSES + N_STARTS * 4  # three of mini-batches, and one to judge each start
    shape = (case.n_samples, case.n_genes, n_clusters(case))
    return Timed(n_passes * product_seconds([shape]), case.n_samples)


def write_nothing(case: Case) -> None:
    """Write no files: the projections are made where they are used."""


def n_clusters(case: Case) -> int:
    """Return the number of clusters: D-GEX's, fewer in a tiny run."""
    return min(N_CLUSTERS, case.n_samples // 8)


ENGINES = {
    "dglzarr": with_dglzarr,
    "sklearn MiniBatchKMeans + pairwise_distances, in memory": with_sklearn,
    "limit: four reads + float32 projection": with_limit,
}
KMEANS = {
    "dglzarr": with_kmeans,
    "numpy loops, as for genes": with_numpy_kmeans,
    "limit: float32 products of all passes": with_kmeans_limit,
}
KMEANS_SIZES = {"tiny": (96, 200), "small": (16_384, 128), "full": (1_000_000, 128)}
BENCHES = [
    Bench("dedup", write_normalized, ENGINES, packages=["scikit-learn"]),
    Bench("dedup-kmeans", write_nothing, KMEANS, ["scikit-learn"], KMEANS_SIZES),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
