"""Panels by stability selection: the genes that greedy selection chooses most often on subsamples.

The subsamples are all ways to keep half of the inner folds of the training series, rounded up: of
five folds ten, of three whole folds each, so that a gene has to be chosen again on other series.

References
----------
Meinshausen and Buehlmann (2010), doi 10.1111/j.1467-9868.2010.00740.x: stability selection.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.kernels.panels import select_panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.sketch import GeneSketch

    Index = NDArray[np.int64]

STABLE = ("one-penalty-drawn", "stable")


def panels_of_halves(sketch: GeneSketch, n: int) -> list[Index]:
    """Return the greedy panel of n genes of each half of the inner folds, with one penalty."""
    group = np.zeros(len(sketch.rows), np.int64) if sketch.group is None else sketch.group
    folds = np.unique(group)
    halves = [np.isin(group, half) for half in combinations(folds, (len(folds) + 1) // 2)]
    own = [
        replace(
            sketch,
            rows=sketch.rows[half],
            n_samples=int(half.mean() * sketch.n_samples),
            group=group[half],
        )
        for half in halves
    ]
    return [select_panel("greedy", one, n) for one in own]


def most_often(panels: Sequence[Index], n: int) -> Index:
    """Return the n genes that are first in the most panels; of equals those that stand first."""
    first = np.stack([panel[:n] for panel in panels])
    genes, at, times = np.unique(first, return_inverse=True, return_counts=True)
    place = np.bincount(at.ravel(), np.tile(np.arange(n), len(panels))) / times
    return genes[np.lexsort((place, -times))[:n]]


def drawn_sketch(sketch: GeneSketch, genes: Index) -> GeneSketch:
    """Return the sketch of some genes."""
    return replace(
        sketch, rows=sketch.rows[:, genes], std=sketch.std[genes], score=sketch.score[genes]
    )


def stable_panels(sketch: GeneSketch, sizes: Sequence[int], way: str) -> dict[int, Index]:
    """Return the panel of each size by one of ``STABLE``."""
    if way == "one-penalty-drawn":
        panel = select_panel("greedy", sketch, sizes[-1])
        return {size: panel[:size] for size in sizes}
    halves = panels_of_halves(sketch, sizes[-1])
    return {size: most_often(halves, size) for size in sizes}
