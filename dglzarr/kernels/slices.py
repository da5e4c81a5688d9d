"""Owns how a kernel walks a large block piece by piece, so that temporaries stay small."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

_TILE = 16  # columns turned at once: their cache lines stay until each is full


def iter_slices(length: int, item_nbytes: int, *, limit_nbytes: int = 2**24) -> Iterator[slice]:
    """Yield consecutive slices of ``range(length)``, each at most a byte limit, never empty.

    Parameters
    ----------
    length : number of items to walk
    item_nbytes : bytes of temporaries that one item needs
    limit_nbytes : bytes of temporaries allowed at once; one item is always allowed

    Examples
    --------
    >>> list(iter_slices(5, 10, limit_nbytes=20))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(1, limit_nbytes // max(1, item_nbytes))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def copy_block(block: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy a block ``(row, column)`` that may lie column by column in memory; fast either way.

    Parameters
    ----------
    block : values
    out : memory of the same shape, row by row
    """
    is_turned = abs(block.strides[0]) < abs(block.strides[1])
    step = _TILE if is_turned else max(1, block.shape[1])
    for start in range(0, block.shape[1], step):
        out[:, start : start + step] = block[:, start : start + step]
