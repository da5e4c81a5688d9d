"""Hypothesis strategies: matrices (sample, gene), ways to cut them, orders."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import DTypeLike, NDArray


@st.composite
def matrices(
    draw: st.DrawFn,
    *,
    min_samples: int = 1,
    max_samples: int = 8,
    min_genes: int = 1,
    max_genes: int = 10,
    dtype: DTypeLike = np.float32,
    max_value: float = 100.0,
    tied: bool = True,
    missing: bool = False,
) -> NDArray[np.floating]:
    """A matrix (sample, gene): with ties or all different, complete or with missing values."""
    shape = (
        draw(st.integers(min_samples, max_samples)),
        draw(st.integers(min_genes, max_genes)),
    )
    if tied:
        steps = draw(hnp.arrays(np.int16, shape, elements=st.integers(-20, 20)))
        matrix = (steps * (max_value / 20)).astype(dtype)
    else:
        seed = draw(st.integers(0, 2**32 - 1))
        matrix = np.random.default_rng(seed).uniform(-max_value, max_value, shape).astype(dtype)
    if missing:
        matrix[draw(hnp.arrays(bool, shape))] = np.nan
    return matrix


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[slice]:
    """Consecutive non-empty slices that cover ``range(length)``: one way to chunk it."""
    inner = draw(st.sets(st.integers(1, length - 1))) if length > 1 else set()
    edges = [0, *sorted(inner), length]
    return [slice(a, b) for a, b in pairwise(edges)]
