"""How high a sample's values lie and how far apart, which ranks hide, beside others and training.

A sample in another unit, or one that failed, may rank its genes well enough; who brings it to the
study's scale by ranks must look before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import StoreError
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import EXPRESSION
from dglzarr.storage.store import open_store, regions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Float64 = NDArray[np.float64]

FEWEST = 3
"""Samples of a file from which on they are compared with each other, not with training."""

_FAR, _TIMES, _DEVIATIONS = 3.0, 2.0, 5 * 1.4826
_LEAST_SPREAD = 1e-3


def levels_of(values: NDArray[np.floating]) -> Float64:
    """Return each sample's median and the distance of its quartiles, (2, sample); NaN of none.

    Examples
    --------
    >>> levels_of(np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [7.0, 7.0, 7.0, 7.0, np.nan]]))
    array([[3., 7.],
           [2., 0.]])
    """
    found = np.full((2, len(values)), np.nan)
    some = np.flatnonzero(~np.isnan(values).all(axis=1))
    if some.size:
        low, middle, high = np.nanquantile(values[some], (0.25, 0.5, 0.75), axis=1)
        found[:, some] = middle, high - low
    return found


def are_apart(levels: Float64, usual: Mapping[str, Sequence[float]] | None) -> Mask:
    """Return which samples lie elsewhere than the others of their file, or than training's.

    Of three samples or more: by over 3 log2 units from the middle of their medians, or with
    quartiles twice as far apart as theirs or half; and by over five deviations (of the median
    deviation). Of fewer: where no sample of training lay. False where nothing is known.

    Parameters
    ----------
    levels : (2, sample), as `levels_of` finds them
    usual : ``"median"`` and ``"spread"`` of training, lowest and highest
    """
    known = ~np.isnan(levels[0])
    if np.count_nonzero(known) < FEWEST:
        if usual is None:
            return np.zeros(known.size, dtype=bool)
        low, high = np.array([usual["median"], usual["spread"]]).T[:, :, None]
        return np.asarray(((levels < low) | (levels > high)).any(axis=0))
    height, spread = levels[0], np.log2(np.maximum(levels[1], _LEAST_SPREAD))
    apart = np.zeros(known.size, dtype=bool)
    for values, least in ((height, _FAR), (spread, np.log2(_TIMES))):
        away = np.abs(values - np.median(values[known]))
        apart |= known & (away > max(least, _DEVIATIONS * float(np.median(away[known]))))
    return apart


def apart_note(
    samples: Sequence[str],
    levels: Float64,
    apart: Mask,
    usual: Mapping[str, Sequence[float]] | None,
) -> str:
    """Return a line on the samples that lie elsewhere, with the numbers of the first."""
    first = int(np.flatnonzero(apart)[0])
    shown = ", ".join(samples[i] for i in np.flatnonzero(apart)[:3])
    median, spread = levels[:, first]
    if usual is not None and np.count_nonzero(~np.isnan(levels[0])) < FEWEST:
        (low, high), (narrow, wide) = usual["median"], usual["spread"]
        beside = f"in training {low:.1f} to {high:.1f} and {narrow:.1f} to {wide:.1f}"
    else:
        middle = np.nanmedian(levels, axis=1)
        beside = f"in the middle of the file {middle[0]:.1f} and {middle[1]:.1f}"
    return (
        f"{apart.sum()} of {apart.size} samples lie elsewhere, which ranks hide ({shown}; of the "
        f"first median {median:.1f}, quartiles {spread:.1f} apart; {beside}): another unit or a "
        "failed measurement? They are not to be trusted."
    )


def training_levels(uri: str, chosen: Index, genes: Index) -> dict[str, Any] | None:
    """Return between which levels the panel lay in training before it was normalized.

    None where the study has lost its ``expression.zarr``.

    Parameters
    ----------
    uri
        Of the store of joined expression.
    chosen, genes
        Training samples, and the genes of the panel.
    """
    try:
        open_store(uri, EXPRESSION)
    except StoreError:
        return None
    rows = Rows(uri)
    found = [
        levels_of(rows.take(chosen[(chosen >= of.start) & (chosen < of.stop)])[:, genes])
        for of in regions(uri)
    ]
    levels = np.concatenate(found, axis=1)
    ends = np.stack([np.nanmin(levels, axis=1), np.nanmax(levels, axis=1)], axis=1)
    return dict(zip(("median", "spread"), ends.tolist(), strict=True))
