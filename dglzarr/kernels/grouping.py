"""Owns how well samples fall into known groups: a tree over their features, cut and compared.

A tree is scipy's: one row a merge, of two nodes, their distance and the samples below. scikit-learn
is imported where it is used: it takes half a second, which a study without labels does without.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform

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
    from sklearn.metrics import (  # noqa: PLC0415
        adjusted_rand_score,
        normalized_mutual_info_score,
        silhouette_score,
    )

    distances = pdist(np.asarray(features, dtype=np.float64))
    n_groups = int(np.unique(groups).size)
    tree = np.asarray(linkage(distances, method=method), dtype=np.float64)
    cluster = np.asarray(fcluster(tree, n_groups, criterion="maxclust"), dtype=np.int32)
    reason = ""
    if n_groups < 2:
        reason = "all samples are of one group"
    elif n_groups == len(features):
        reason = "every sample is a group of its own"
    if reason:
        return Grouping(tree, cluster, np.nan, np.nan, np.nan, reason)
    ari = float(adjusted_rand_score(groups, cluster))
    nmi = float(normalized_mutual_info_score(groups, cluster))
    between = squareform(distances)
    silhouette = float(silhouette_score(between, groups, metric="precomputed"))
    return Grouping(tree, cluster, ari, nmi, silhouette, "")


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
    By the products of samples, ``O(fitted**2 * gene)``: decomposing their matrix takes ten times as
    long. On each component the fitted sample farthest from 0 stands above it.
    """
    from sklearn.decomposition import KernelPCA  # noqa: PLC0415

    center = fitted.mean(axis=0, dtype=np.float64)
    components = KernelPCA(
        n_components, kernel="linear", eigen_solver="dense", remove_zero_eig=True, copy_X=False
    ).fit(fitted - center)
    return np.asarray(components.transform(samples - center), dtype=np.float64)
