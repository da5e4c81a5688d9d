"""How arrays lie on disk: inner chunks, shards, and what stands for a value never written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dglzarr.specs import ArraySpec

CHUNK_SAMPLES = 256
CHUNK_GENES = 2048
SHARD_SAMPLES = 2048
MIN_REGIONS = 8


def shard_samples(n_samples: int) -> int:
    """Return how many samples a shard holds: whole chunks, about eight regions or more.

    Examples
    --------
    >>> shard_samples(129158), shard_samples(2000), shard_samples(300), shard_samples(40)
    (2048, 256, 256, 48)
    """
    chunk = chunk_samples(n_samples)
    wanted = chunk * max(1, n_samples // (MIN_REGIONS * chunk))
    return max(chunk, min(wanted, SHARD_SAMPLES // chunk * chunk))


def chunk_samples(n_samples: int) -> int:
    """Return how many samples an inner chunk holds, smaller only for tiny stores."""
    return min(CHUNK_SAMPLES, 16 * math.ceil(n_samples / 16))


def chunk_genes(n_genes: int) -> int:
    """Return how many genes an inner chunk holds: near 2048 and balanced.

    Examples
    --------
    >>> chunk_genes(22268), chunk_genes(10463), chunk_genes(100)
    (2025, 2093, 100)
    """
    return math.ceil(n_genes / max(1, round(n_genes / CHUNK_GENES)))


def layout(
    array: ArraySpec, shape: tuple[int, ...], region_length: int | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return inner chunks and shards; whatever a region task writes is one object a region.

    Examples
    --------
    >>> from dglzarr.schema import NORMALIZED
    >>> layout(NORMALIZED["expression"], (129158, 22268), 2048)
    ((256, 2025), (2048, 22275))
    """
    if array.is_matrix:
        assert region_length is not None
        genes = chunk_genes(shape[1])
        chunk = (min(chunk_samples(shape[0]), region_length), genes)
        return chunk, (region_length, genes * math.ceil(shape[1] / genes))
    first = 1 if array.dims[0] == "region" else region_length
    whole = tuple(max(1, n) for n in shape)
    if array.written == "region" and first is not None:
        return (first, *whole[1:]), None
    return whole, None


def fill_value(dtype: str) -> float | int | str | bool:
    """Return what stands for a value that was never written."""
    if dtype.startswith("float"):
        return math.nan
    if dtype == "str":
        return ""
    return False if dtype == "bool" else -1
