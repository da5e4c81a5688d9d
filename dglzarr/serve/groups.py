"""Samples by the value of a label, and how a gene's values spread in each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.storage.files import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Index = NDArray[np.int32]
    Values = NDArray[np.float32]

N_GROUPS, MOST_GROUPS = 24, 500
"""Groups of samples that are told of, unless others are asked for, and at most."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
N_BINS, N_POINTS = 36, 60
"""Of the outline of a group, and the samples of it that are drawn."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Samples by the value of one label, the largest group first.

    ``members[i]`` are the places of the samples whose value is ``names[i]``, ascending; samples
    without a value are in no group.
    """

    label: str
    names: list[str]
    members: list[Index]


@dataclass(frozen=True, eq=False)
class Spread:
    """How values of one group spread: quantiles 5, 25, 50, 75 and 95 %, ends, and an outline.

    ``counts (bin,)`` are of equal bins from the lowest to the highest value of all groups;
    ``points`` are some of the values.
    """

    name: str
    n: int
    n_missing: int
    mean: float
    quantiles: tuple[float, ...]
    low: float
    high: float
    counts: NDArray[np.int64]
    points: Values


def group_samples(label: str, values: Sequence[str], chosen: NDArray[np.bool_]) -> Groups:
    """Return chosen samples by their value of a label; "" is no value.

    Examples
    --------
    >>> found = group_samples("x", ["b", "a", "", "b"], np.ones(4, bool))
    >>> found.names, [m.tolist() for m in found.members]
    (['b', 'a'], [[0, 3], [1]])
    """
    by_value: dict[str, list[int]] = {}
    for place in np.flatnonzero(chosen).tolist():
        by_value.setdefault(values[place], []).append(place)
    by_value.pop("", None)
    names = sorted(by_value, key=lambda name: (-len(by_value[name]), name))
    return Groups(label, names, [np.array(by_value[name], np.int32) for name in names])


def spreads(values: Values, groups: Groups, n: int) -> list[Spread]:
    """Return how a gene's values (sample,) spread in each of the n largest groups."""
    parts = [values[members] for members in groups.members[:n]]
    known = [part[~np.isnan(part)] for part in parts]
    every = np.concatenate(known) if known else np.empty(0, np.float32)
    if not every.size:
        return []
    ends = float(every.min()), float(every.max())
    return [
        _spread(name, part.size, np.sort(some), ends)
        for name, part, some in zip(groups.names, parts, known, strict=False)
        if some.size
    ]


def spread_rows(found: Sequence[Spread]) -> list[dict[str, Any]]:
    """Return spreads as the API and tables tell them."""
    names = ("q05", "q25", "median", "q75", "q95")
    return [
        {
            "name": one.name,
            "n": one.n,
            "n_missing": one.n_missing,
            "mean": plain(one.mean),
            "low": plain(one.low),
            **dict(zip(names, map(plain, one.quantiles), strict=True)),
            "high": plain(one.high),
        }
        for one in found
    ]


def _spread(name: str, n: int, ascending: Values, ends: tuple[float, float]) -> Spread:
    edges = np.linspace(*ends, N_BINS + 1)
    below = np.searchsorted(ascending, edges[1:-1])
    counts = np.diff(below, prepend=0, append=ascending.size)
    some = np.linspace(0, ascending.size - 1, min(N_POINTS, ascending.size)).astype(np.int64)
    return Spread(
        name,
        int(ascending.size),
        n - int(ascending.size),
        float(ascending.mean(dtype=np.float64)),
        tuple(np.quantile(ascending.astype(np.float64), QUANTILES).tolist()),
        float(ascending[0]),
        float(ascending[-1]),
        counts,
        ascending[some],
    )
