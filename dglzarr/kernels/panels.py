"""Owns the selectors: ways to choose a panel, behind one signature.

``select_panel("greedy", sketch, 100)`` returns 100 genes in order; ``SELECTORS`` lists the names.
All selectors see the same `GeneSketch` of the samples they are fitted on, put forced genes first,
and never choose excluded genes or genes that do not vary.

References
----------
Kong et al. (2021), doi 10.1186/s12859-021-03972-5: top score.
Mahoney and Drineas (2009), doi 10.1073/pnas.0803205106: leverage.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.medoids import cluster_medoids, peel_off
from dglzarr.kernels.penalties import Stretch, greedy_path
from dglzarr.kernels.sketch import GeneSketch

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Float64 = NDArray[np.float64]

RIDGE = 3.0
"""Penalty of the greedy selectors, in numbers of samples, where held-out series cannot tell."""

CONSTANT = (Stretch(1, RIDGE),)
"""One penalty for panels of every size."""

VARIANCE_SHARE = 0.9
"""Of the rows' squares that principal axes hold; L1000's."""


class Asked(NamedTuple):
    """What a selector is asked for: n of the allowed genes in order, beside the forced ones.

    ``path`` is how the penalty of a greedy selector grows.
    """

    n: int
    forced: Index
    allowed: Mask
    rng: np.random.Generator
    path: Sequence[Stretch] = CONSTANT


Choose = Callable[[GeneSketch, Asked], Index]


class Selector(NamedTuple):
    """A way to choose a panel.

    ``choose(sketch, asked)`` returns the genes. ``nested``: the first k genes of a panel are its
    panel of size k; otherwise every size is chosen anew. ``uses_score``: it reads DeepLIFT scores,
    so a cross-validation that does not train the network in every fold must not use it.
    ``is_greedy``: it has a penalty.
    """

    choose: Choose
    nested: bool
    uses_score: bool
    is_greedy: bool = False


def select_panel(
    name: str,
    sketch: GeneSketch,
    n: int,
    *,
    forced: Sequence[int] | Index = (),
    excluded: Sequence[int] | Index = (),
    path: Sequence[Stretch] = CONSTANT,
    seed: int | Sequence[int] = 0,
) -> Index:
    """Return the indices of a panel of n genes in order: the forced ones, then those chosen.

    Parameters
    ----------
    name : one of ``SELECTORS``
    sketch : of the samples to fit on
    n : size of the panel, forced genes counted
    forced : genes that must be on the panel, in order; also one that does not vary
    excluded : genes that must not be on it
    path : how the penalty of a greedy selector grows along the panel
    seed : of selectors that draw

    Raises
    ------
    ValueError
        If the name is unknown, a gene is forced twice or also excluded, or there are not enough
        genes to choose from.

    Examples
    --------
    >>> rows = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 1.0]], dtype=np.float32)
    >>> sketch = GeneSketch(rows, np.array([1.0, 3.0, 2.0]), np.array([0.1, 0.2, 0.9]), 2)
    >>> select_panel("top-score", sketch, 2), select_panel("variance", sketch, 2, forced=[0])
    (array([2, 1]), array([0, 1]))
    """
    if name not in SELECTORS:
        raise ValueError(f"selector: expected one of {sorted(SELECTORS)}, got {name!r}.")
    allowed = allowed_genes(name, sketch, forced, excluded)
    first = np.asarray(forced, dtype=np.int64)
    largest = int(allowed.sum()) + first.size
    if not max(1, first.size) <= n <= largest:
        raise ValueError(f"n_landmarks: expected {max(1, first.size)} to {largest}, got {n!r}.")
    asked = Asked(n - first.size, first, allowed, np.random.default_rng(seed), path)
    return np.concatenate([first, SELECTORS[name].choose(sketch, asked)])


def allowed_genes(
    name: str, sketch: GeneSketch, forced: Sequence[int] | Index, excluded: Sequence[int] | Index
) -> Mask:
    """Return which genes a selector may choose beside the forced ones, (gene,).

    Raises
    ------
    ValueError
        If a gene is forced twice or also excluded.
    """
    first, never = np.asarray(forced, dtype=np.int64), np.asarray(excluded, dtype=np.int64)
    if np.unique(first).size < first.size or np.isin(first, never).any():
        raise ValueError("forced: expected different genes, none of them excluded.")
    allowed = sketch.varies
    if SELECTORS[name].uses_score:
        allowed = allowed & ~np.isnan(sketch.score)
    allowed[never] = allowed[first] = False
    return allowed


def _best(value: NDArray[np.floating], n: int, allowed: Mask) -> Index:
    """Return the n allowed genes of the highest values, equal ones by index."""
    return np.argsort(np.where(allowed, -value, np.inf), kind="stable")[:n].astype(np.int64)


def _top_score(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the genes of the highest DeepLIFT scores: the paper's panel."""
    return _best(sketch.score, asked.n, asked.allowed)


def _variance(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the genes that vary most, in log2."""
    return _best(sketch.std, asked.n, asked.allowed)


def _leverage(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the genes of the highest leverage on the principal axes of 90 % of the variance."""
    axes, _ = principal_axes(sketch.rows)
    return _best(np.einsum("ag,ag->g", axes, axes, dtype=np.float64), asked.n, asked.allowed)


def _random(sketch: GeneSketch, asked: Asked) -> Index:
    """Return genes in random order."""
    del sketch
    return asked.rng.permutation(np.flatnonzero(asked.allowed))[: asked.n].astype(np.int64)


def _greedy(sketch: GeneSketch, asked: Asked) -> Index:
    """Return genes that in turn lower the ridge error of all genes the most."""
    return _greedy_rest(sketch, asked)


def _deeplift_greedy(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the genes of `_greedy` when the error of each gene counts by its DeepLIFT score."""
    return _greedy_rest(sketch, asked, np.nan_to_num(sketch.score))


def _greedy_rest(sketch: GeneSketch, asked: Asked, weight: Float64 | None = None) -> Index:
    """Return the greedy genes behind the forced ones."""
    n_first = len(asked.forced)
    panel = greedy_path(
        sketch,
        n_first + asked.n,
        asked.path,
        forced=asked.forced,
        allowed=asked.allowed,
        importance=weight,
    )
    return panel[n_first:]


def _medoids(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the gene nearest to each centre of n k-means clusters of genes, largest first."""
    if not asked.n:
        return np.empty(0, dtype=np.int64)
    genes = np.flatnonzero(asked.allowed)
    return genes[cluster_medoids(_points(sketch, genes), asked.n, asked.rng)].astype(np.int64)


def _peel_off(sketch: GeneSketch, asked: Asked) -> Index:
    """Return the centres of tight clusters of genes, peeled off round by round: L1000's way."""
    genes = np.flatnonzero(asked.allowed)
    return genes[peel_off(_points(sketch, genes), asked.n, asked.rng)].astype(np.int64)


def _points(sketch: GeneSketch, genes: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return some genes as points (gene, axis) on the principal axes of 90 % of the variance."""
    axes, length = principal_axes(sketch.rows)
    return np.ascontiguousarray(axes[:, genes].T * length.astype(np.float32))


def principal_axes(
    rows: NDArray[np.float32], share: float = VARIANCE_SHARE, *, n_most: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return orthonormal axes (axis, gene) of the rows, and the length of the rows along each.

    They are the first by length that hold a share of the rows' squares, ``n_most`` of them at most.

    Examples
    --------
    >>> rows = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=np.float32)
    >>> axes, length = principal_axes(rows, 0.8)
    >>> abs(axes).tolist(), length
    ([[1.0, 0.0, 0.0]], array([3.]))
    """
    square, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    square, vectors = np.maximum(square[::-1], 0), vectors[:, ::-1]
    n_axes = 1 + int((np.cumsum(square) < share * square.sum()).sum())
    n_axes = min(n_axes, *rows.shape, n_axes if n_most is None else n_most)
    length = np.sqrt(square[:n_axes])
    scaled = np.divide(
        vectors[:, :n_axes], length, where=length > 0, out=np.zeros((len(rows), n_axes))
    )
    return scaled.T.astype(np.float32) @ rows, length


SELECTORS = {
    "top-score": Selector(_top_score, nested=True, uses_score=True),
    "variance": Selector(_variance, nested=True, uses_score=False),
    "leverage": Selector(_leverage, nested=True, uses_score=False),
    "random": Selector(_random, nested=True, uses_score=False),
    "medoids": Selector(_medoids, nested=False, uses_score=False),
    "peel-off": Selector(_peel_off, nested=True, uses_score=False),
    "greedy": Selector(_greedy, nested=True, uses_score=False, is_greedy=True),
    "deeplift-greedy": Selector(_deeplift_greedy, nested=True, uses_score=True, is_greedy=True),
}
