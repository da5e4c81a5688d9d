"""Where things stand in the pictures of a page: outlines, boxes and points, in a unit of its own.

A picture is 400 wide; a row of it is 30 high. Names and numbers stand beside it, as text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dglzarr.serve.groups import Spread

WIDTH, HEIGHT = 400.0, 30.0
FEWEST_IN_OUTLINE = 12
_STEPS = (1.0, 2.0, 2.5, 5.0)
_NARROWEST = 1e-8  # part of the values: two ends that are nearer are one


@dataclass(frozen=True)
class Row:
    """One group of a picture: its numbers, an outline, a box and points."""

    spread: Spread
    outline: str
    whisker: tuple[float, float]
    box: tuple[float, float]
    median: float
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Picture:
    """Groups under one another on one axis, whose marks stand at equal distances, end to end."""

    rows: list[Row]
    marks: list[str]


def axis(low: float, high: float) -> list[float]:
    """Return three to six marks at equal distances, round numbers, around two ends.

    Examples
    --------
    >>> axis(3.1, 11.2), axis(5.0, 5.0)
    ([2.0, 4.0, 6.0, 8.0, 10.0, 12.0], [4.0, 5.0, 6.0])
    """
    if not high - low > _NARROWEST * max(abs(low), abs(high), 1):
        return [low - 1, low, low + 1]
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    for factor in (*_STEPS, *(10 * step for step in _STEPS)):
        step = factor * power
        first, last = math.floor(low / step), math.ceil(high / step)
        if last - first <= 5:
            break
    last = max(last, first + 2)
    return [round(i * step, 10) for i in range(first, last + 1)]


def strips(spreads: Sequence[Spread]) -> Picture | None:
    """Return the picture of some groups, None where there is no value."""
    if not spreads:
        return None
    ends = min(one.low for one in spreads), max(one.high for one in spreads)
    marks = axis(*ends)

    def at(value: float) -> float:
        return round(WIDTH * (value - marks[0]) / (marks[-1] - marks[0]), 1)

    rows = []
    for one in spreads:
        q05, q25, median, q75, q95 = (at(q) for q in one.quantiles)
        jitter = np.random.default_rng(one.points.size).uniform(-1, 1, one.points.size)
        points = [
            (at(float(value)), round(HEIGHT / 2 + 8 * float(j), 1))
            for value, j in zip(one.points, jitter, strict=True)
        ]
        rows.append(Row(one, _outline(one, ends, at), (q05, q95), (q25, q75), median, points))
    return Picture(rows, [f"{mark:g}" for mark in marks])


def _outline(one: Spread, ends: tuple[float, float], at: Callable[[float], float]) -> str:
    """Return the outline of a violin as the points of a polygon, "" of few samples."""
    if one.n < FEWEST_IN_OUTLINE or not ends[1] > ends[0]:
        return ""
    smooth = np.convolve(one.counts, [0.25, 0.5, 0.25], mode="same")
    edges = np.linspace(*ends, len(smooth) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    half = (HEIGHT / 2 - 1) * smooth / max(float(smooth.max()), 1e-9)
    seen = np.flatnonzero(smooth > 0)
    seen = np.arange(seen[0], seen[-1] + 1)
    x = [at(float(middle)) for middle in middles[seen]]
    up = [f"{a},{HEIGHT / 2 - h:.1f}" for a, h in zip(x, half[seen], strict=True)]
    down = [f"{a},{HEIGHT / 2 + h:.1f}" for a, h in zip(x, half[seen], strict=True)]
    return " ".join([*up, *reversed(down)])


def bar(value: float | None, most: float) -> float:
    """Return the width of a bar."""
    return round(WIDTH * value / most, 1) if value is not None and most > 0 else 0.0
