"""Published quantile targets, such as refine.bio's: one value a rank.

References
----------
Bolstad et al. (2003), doi 10.1093/bioinformatics/19.2.185; preprocessCore's
``normalize.quantiles.use.target`` takes a target of another length between its values too.
"""

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.scaled import LARGEST_LOG2
from dglzarr.sources.text import TextStream

_FEWEST = 100


def read_target(path: str | Path, n_genes: int) -> NDArray[np.float64]:
    """Return a published distribution as quantiles of some genes, ascending, in log2.

    Parameters
    ----------
    path
        Text, plain or gzip, with one value a line, in the last of its columns; a header, blank
        lines and # comments are left out.
    n_genes
        Quantiles to return; where the file has another number they are taken between its values,
        from the lowest to the highest.

    Raises
    ------
    SourceError
        If the file is missing, a line has no finite number, there are under 100, or they are not
        in log2.
    """
    path = Path(path)
    values: list[float] = []
    with TextStream(path) as stream:
        for line, text in stream.lines():
            cell = re.split(r"[\t, ]", text.strip())[-1].strip('"')
            if not cell or text.startswith("#"):
                continue
            try:
                value = float(cell)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                if line == 1 and not values:
                    continue  # a header
                raise SourceError(
                    f"{path.name}, line {line}: expected a number of a quantile target, got "
                    f"{text[:60]!r}."
                )
            values.append(value)
    if len(values) < _FEWEST:
        raise SourceError(
            f"{path.name}: expected a quantile target of {_FEWEST} values or more, got "
            f"{len(values)}."
        )
    target = np.sort(np.array(values))
    if target[-1] > LARGEST_LOG2:
        raise SourceError(
            f"{path.name}: expected a quantile target in log2, got values up to {target[-1]:.4g}. "
            "Take their logarithms."
        )
    return np.asarray(
        np.interp(np.linspace(0, target.size - 1, n_genes), np.arange(target.size), target)
    )
