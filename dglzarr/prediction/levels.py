"""How high a sample's values lie and how far apart, which ranks hide, beside training and others.

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
"""Samples of a file from which on they are compared with each other, too."""

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


def are_beyond(levels: Float64, usual: Mapping[str, Sequence[float]] | None) -> Mask:
    """Return which samples lie far from all of training; False where nothing is known.

    With a median over 3 log2 units beyond training's, or quartiles under half as far apart as the
    nearest of training, or over twice as far as the farthest. A new series lies a little beyond
    the others often enough.

    Parameters
    ----------
    levels : (2, sample), as `levels_of` finds them
    usual : ``"median"`` and ``"spread"`` of training, lowest and highest

    Examples
    --------
    >>> usual = {"median": [5.0, 9.0], "spread": [2.0, 4.0]}
    >>> are_beyond(np.array([[3.0, 13.0, 7.0], [3.0, 3.0, 0.9]]), usual).tolist()
    [False, True, True]
    """
    if usual is None:
        return np.zeros(levels.shape[1], dtype=bool)
    (low, high), (narrow, wide) = usual["median"], usual["spread"]
    median, spread = levels
    is_high_or_low = (median < low - _FAR) | (median > high + _FAR)
    return np.asarray(is_high_or_low | (spread < narrow / _TIMES) | (spread > wide * _TIMES))


def are_apart(levels: Float64, usual: Mapping[str, Sequence[float]] | None) -> Mask:
    """Return which samples lie elsewhere than training, or than the others of their file.

    Than training as `are_beyond` tells. Than the others, of three samples or more: by over 3 log2
    units from the middle of their medians, or with quartiles twice as far apart as theirs or half;
    and by over five deviations (of the median deviation). The others tell nothing where their
    middle itself is beyond training: most of such a file is wrong, and its good samples are few.

    Parameters
    ----------
    levels : (2, sample), as `levels_of` finds them; NaN of samples that do not count
    usual : ``"median"`` and ``"spread"`` of training, lowest and highest
    """
    apart, known = are_beyond(levels, usual), ~np.isnan(levels[0])
    if np.count_nonzero(known) < FEWEST:
        return apart
    middle = np.nanmedian(levels, axis=1, keepdims=True)
    if are_beyond(middle, usual).any():
        return apart
    height, spread = levels[0], np.log2(np.maximum(levels[1], _LEAST_SPREAD))
    for values, least in ((height, _FAR), (spread, np.log2(_TIMES))):
        away = np.abs(values - np.median(values[known]))
        apart |= known & (away > max(least, _DEVIATIONS * float(np.median(away[known]))))
    return apart


def apart_note(
    samples: Sequence[str],
    levels: Float64,
    apart: Mask,
    usual: Mapping[str, Sequence[float]] | None,
    *,
    by_ranks: bool,
) -> str:
    """Return a line on the samples that lie elsewhere, with the numbers of the first.

    Parameters
    ----------
    samples, levels, apart, usual
        As `are_apart` has them.
    by_ranks
        Whether values are brought to the study's scale by ranks, which hide it.
    """
    places, beyond = np.flatnonzero(apart), are_beyond(levels, usual)
    n, n_known = places.size, np.count_nonzero(~np.isnan(levels[0]))
    hide = ", which ranks hide" if by_ranks else ""
    shown = ", ".join(samples[i] for i in places[:3]) + (", ..." if n > 3 else "")
    numbers = f"{'of the first ' if n > 1 else ''}{_numbers(levels, int(places[0]), beyond, usual)}"
    if n_known >= FEWEST and 2 * np.count_nonzero(beyond) > n_known:
        return (
            f"{'The whole' if n == n_known else 'Most of the'} file lies elsewhere than training"
            f"{hide} ({n} of {len(samples)} samples: {shown}; {numbers}): another unit? They are "
            "not to be trusted."
        )
    if len(samples) == 1:
        who = "The sample lies"
    else:
        who = f"{n} of {len(samples)} samples {'lies' if n == 1 else 'lie'}"
    return (
        f"{who} elsewhere{hide} ({shown}; {numbers}): another unit or a failed measurement? "
        f"{'It is' if n == 1 else 'They are'} not to be trusted."
    )


def _numbers(
    levels: Float64, one: int, beyond: Mask, usual: Mapping[str, Sequence[float]] | None
) -> str:
    """Return where one sample lies, and where training does or the middle of the file."""
    own = f"median {levels[0, one]:.1f}, quartiles {levels[1, one]:.1f} apart"
    if usual is not None and beyond[one]:
        (low, high), (narrow, wide) = usual["median"], usual["spread"]
        return f"{own}; in training {low:.1f} to {high:.1f} and {narrow:.1f} to {wide:.1f}"
    height, spread = np.nanmedian(levels, axis=1)
    return f"{own}; in the middle of the file {height:.1f} and {spread:.1f}"


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
