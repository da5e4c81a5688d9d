"""The scale and the unit of a source: as stated, or as its values show."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import Scale, Unit, detect_scale, looks_like_counts, value_quantiles
from dglzarr.sources.base import Source

LARGEST_LOG2 = 50
_SCALE_WINDOWS, _SCALE_WINDOW = 16, 8


class Scaled(NamedTuple):
    """A source, the quantiles of its values, their scale and, where it is known, their unit."""

    table: Source
    quantiles: dict[str, float]
    scale: Scale
    unit: Unit | None


def find_scale(table: Source, unit: Unit | None) -> Scaled:
    """Return a source with the scale and the unit that are stated, or that its values show.

    Of a large source a few windows of samples are looked at, spread evenly: a row alone costs as
    much as its whole chunk where the file is compressed.
    """
    n = len(table.samples)
    starts = np.linspace(0, max(0, n - _SCALE_WINDOW), _SCALE_WINDOWS).astype(int)
    is_small = n <= _SCALE_WINDOW * _SCALE_WINDOWS
    windows = [(0, n)] if is_small else [(int(s), int(s) + _SCALE_WINDOW) for s in starts]
    values = np.concatenate([table.read(*window) for window in windows])
    try:
        quantiles = value_quantiles(values)
        scale = _stated_scale(unit, quantiles) or detect_scale(quantiles)
    except ValueError as error:
        raise SourceError(f"{table.path.name}: {error}") from error
    if unit is None and (scale == "log2" or looks_like_counts(values)):
        unit = "log2" if scale == "log2" else "counts"
    names = ("min", "q25", "median", "q75", "q99", "max")
    return Scaled(table, dict(zip(names, (float(q) for q in quantiles), strict=True)), scale, unit)


def _stated_scale(unit: Unit | None, quantiles: NDArray[np.float64]) -> Scale | None:
    """Return the scale of a stated unit, None where none is.

    Raises
    ------
    ValueError
        When the values cannot be of that unit.
    """
    if unit is None:
        return None
    low, high = float(quantiles[0]), float(quantiles[-1])
    if unit == "log2" and high > LARGEST_LOG2:
        raise ValueError(f"unit: expected log2 values, got up to {high:.4g}. Correct the unit.")
    if unit in ("counts", "rpkm", "tpm") and low < 0:
        raise ValueError(f"unit: expected {unit} from 0, got down to {low:.4g}. Correct the unit.")
    return "log2" if unit == "log2" else "raw"
