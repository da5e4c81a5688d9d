"""Values as JSON and tables have them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.serve.groups import Spread

N_GROUPS, MOST_GROUPS = 24, 500
"""Groups of samples that are told of, unless others are asked for, and at most."""


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a value as JSON has it: a number that is not finite is None."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
