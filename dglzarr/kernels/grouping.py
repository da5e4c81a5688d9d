"""Owns how well samples fall into known groups: a tree over their features, cut and compared.

A tree is scipy's: one row a merge, of two nodes, their distance and the samples below.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from dglzarr.kernels.slices import iter_slices

Linkage = Literal["ward", "average", "complete"]


class Grouping(NamedTuple):
    """How samples group, beside the groups they are known to be in.

    Attributes
    ----------
    tree
        Hierarchical clustering `(sample - 1, 4)`.
    cluster
        The tree cut into as many clusters as there are groups, from 1 `(sample,)`.
    ari, nmi
        Adjusted Rand index and normalized mutual information of clusters and groups.
    silhouette
        Mean silhouette of the groups in the features: 1 apart, 0 mixed.
    reason
        Why a measure is NaN, "" where none is.
    """

    tree: NDArray[np.float64]
    cluster: NDArray[np.int32]
    ari: float
    nmi: float
    silhouette: float
    reason: str


def group_samples(
    features: NDArray[np.floating], groups: NDArray[np.integer], *, method: Linkage = "ward"
) -> Grouping:
    """Return the hierarchical clustering of samples and its agreement with known groups.

    With one group, or a group for every sample, there is nothing to agree with: NaN and a reason.

    Parameters
    ----------
    features
        Euclidean features without missing values `(sample, feature)`; 2 samples or more.
    groups
        Number of the group of each sample, 0 ... n - 1 `(sample,)`.
    method
        How the distance of two clusters is taken.

    References
    ----------
    Hubert & Arabie (1985), doi 10.1007/BF01908075 (ARI); Rousseeuw (1987),
    doi 10.1016/0377-0427(87)90125-7 (silhouette); Ward (1963), doi 10.1080/01621459.1963.10500845.

    Examples
    --------
    >>> features = np.array([[0.0], [0.1], [5.0], [5.2]])
    >>> found = group_samples(features, np.array([0, 0, 1, 1]))
    >>> found.cluster.tolist(), found.ari, round(found.silhouette, 3)
    ([1, 1, 2, 2], 1.0, 0.97)
    """
    values = np.asarray(features, dtype=np.float64)
    n_groups = int(np.unique(groups).size)
    tree = np.asarray(linkage(values, method=method), dtype=np.float64)
    cluster = np.asarray(fcluster(tree, n_groups, criterion="maxclust"), dtype=np.int32)
    reason = ""
    if n_groups < 2:
        reason = "all samples are of one group"
    elif n_groups == len(values):
        reason = "every sample is a group of its own"
    if reason:
        return Grouping(tree, cluster, np.nan, np.nan, np.nan, reason)
    table = np.zeros((n_groups, int(cluster.max())))
    np.add.at(table, (groups, cluster - 1), 1)
    ari, nmi = adjusted_rand_index(table), normalized_mutual_information(table)
    return Grouping(tree, cluster, ari, nmi, mean_silhouette(values, groups), "")


def adjusted_rand_index(table: NDArray[np.floating]) -> float:
    """Return the agreement of two partitions beyond chance, from their contingency table.

    Examples
    --------
    >>> adjusted_rand_index(np.array([[2, 0], [0, 2]])), adjusted_rand_index(np.array([[1, 1]]))
    (1.0, 0.0)
    """
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    together, in_rows, in_columns = (
        float((counts * (counts - 1)).sum()) / 2 for counts in (table, rows, columns)
    )
    n = float(table.sum())
    expected = in_rows * in_columns / (n * (n - 1) / 2)
    most = (in_rows + in_columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def normalized_mutual_information(table: NDArray[np.floating]) -> float:
    """Return the information two partitions share, over the mean of their entropies.

    Examples
    --------
    >>> normalized_mutual_information(np.array([[2, 0], [0, 2]]))
    1.0
    """
    joint = table / table.sum()
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    h_rows, h_columns, h_joint = _entropy(rows), _entropy(columns), _entropy(joint.ravel())
    if h_rows + h_columns == 0:
        return 1.0
    return max(0.0, 2 * (h_rows + h_columns - h_joint) / (h_rows + h_columns))


def mean_silhouette(features: NDArray[np.float64], groups: NDArray[np.integer]) -> float:
    """Return the mean over samples of how much closer their own group is than the next one.

    A sample alone in its group counts 0.
    """
    n_groups = int(groups.max()) + 1
    is_in = np.eye(n_groups)[groups]
    size = is_in.sum(axis=0)
    total = 0.0
    for rows in iter_slices(len(features), 8 * len(features)):
        sums = cdist(features[rows], features) @ is_in
        own = groups[rows]
        at = np.arange(len(own))
        within = sums[at, own] / np.maximum(size[own] - 1, 1)
        means = sums / size
        means[at, own] = np.inf
        between = means.min(axis=1)
        largest = np.maximum(within, between)
        gap = np.divide(between - within, largest, out=np.zeros(len(own)), where=largest > 0)
        total += float(np.where(size[own] > 1, gap, 0.0).sum())
    return total / len(features)


def principal_components(
    fitted: NDArray[np.floating], samples: NDArray[np.floating], n_components: int
) -> NDArray[np.float64]:
    """Return samples on the principal components of others `(sample, component)`.

    Parameters
    ----------
    fitted
        Samples that the components are of `(sample, gene)`.
    samples
        Samples to be placed on them `(sample, gene)`.
    n_components
        How many; fewer where there are not so many.

    Notes
    -----
    Works in the space of the fitted samples: ``O(fitted**2 * gene)``.
    """
    center = fitted.mean(axis=0, dtype=np.float64)
    centred = (fitted - center).astype(np.float64)
    variance, rotation = np.linalg.eigh(centred @ centred.T)
    wanted = np.argsort(variance)[::-1][:n_components]
    wanted = wanted[variance[wanted] > 1e-10 * max(float(variance.max()), 1e-300)]
    axes = centred.T @ (rotation[:, wanted] / np.sqrt(variance[wanted]))
    return np.asarray((samples - center) @ axes, dtype=np.float64)


def _entropy(shares: NDArray[np.floating]) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())
