"""What is told of samples: sources and their scale, normalization, near-duplicates, a map.

Of a large study a fixed number of samples, evenly spaced, is shown: the page stays small, and what
is read of the matrices does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.kernels.split import SPLITS
from dglzarr.report.lineage import uris_of
from dglzarr.report.panels import texts
from dglzarr.report.tables import Table, of_rows
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import open_store
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.report.lineage import Stores

SOURCE_FIELDS = (
    "source", "series", "n_samples", "n_genes", "role", "format", "scale", "unit", "n_negative",
    "coverage", "n_missing_genes", "quantiles",
)  # fmt: skip
QUANTILES = ("min", "median", "q99", "max")
N_SPREAD, N_MAP = 120, 4000
SPREAD = {"q01": 0.01, "q25": 0.25, "median": 0.5, "q75": 0.75, "q99": 0.99}


def source_rows(
    per_source: Sequence[Mapping[str, Any]], sources: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what is known of each source, from its raw store and from the joined one."""
    rows: dict[str, dict[str, Any]] = {}
    for uri in sources:
        raw, name = open_store(uri), raw_name(uri)
        rows[name] = {
            "source": name,
            "series": sorted(set(texts(raw, "series"))),
            "n_samples": raw.sizes["sample"],
            "n_genes": raw.sizes["gene"],
            **(raw.attrs.get("details") or {}),
        }
    for entry in per_source:
        name = str(entry.get("source"))
        rows[name] = {**entry, **rows.get(name, {})}
    return [_source_row(row) for row in rows.values()]


def _source_row(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with every field, None where nothing is known."""
    row = {name: known.get(name) for name in SOURCE_FIELDS}
    quantiles = row["quantiles"] or {}
    return row | {
        "series": _list(uris_of(row["series"] or [])),
        "quantiles": {name: quantiles.get(name) for name in QUANTILES},
    }


def _list(values: Sequence[str], n_most: int = 3) -> str:
    """Return the first values in one line, and how many more there are."""
    more = f" and {len(values) - n_most:,} more" if len(values) > n_most else ""
    return ", ".join(values[:n_most]) + more


def source_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the sources with their quantiles as columns of their own."""
    flat = [
        {
            **{name: row[name] for name in SOURCE_FIELDS if name != "quantiles"},
            **{f"value_{name}": row["quantiles"][name] for name in QUANTILES},
        }
        for row in rows
    ]
    return of_rows("sources", "Sources and how their scale was decided", flat)


def series_table(expression: xr.Dataset) -> Table:
    """Return how many samples of each series train, validate and test, most samples first."""
    split = [SPLITS[code] for code in expression["split"].values]
    series: dict[str, dict[str, int]] = {}
    for name, part in zip(texts(expression, "series"), split, strict=True):
        series.setdefault(name, dict.fromkeys(SPLITS, 0))[part] += 1
    ordered = sorted(series.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    rows = [{"series": name, **counts} for name, counts in ordered]
    return of_rows("series", "Series and their use", rows)


def spread_table(stores: Stores, expression: xr.Dataset) -> Table | None:
    """Return quantiles of samples before and after normalization, None without both.

    One row for each of at most `N_SPREAD` samples, evenly spaced in the order of the stores.
    """
    if "normalized" not in stores:
        return None
    at = _evenly(expression.sizes["sample"], N_SPREAD)
    found = {
        stage: _spread(Rows(stores[name]).take(at))
        for stage, name in (("before", "expression"), ("after", "normalized"))
    }
    columns: dict[str, Sequence[Any]] = {
        name: texts(expression, name, at) for name in ("sample", "source", "series")
    }
    for stage, quantiles in found.items():
        columns |= {f"{stage}_{name}": quantiles[k].tolist() for k, name in enumerate(SPREAD)}
    return Table("normalization", "Quantiles of samples before and after normalization", columns)


def _spread(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the quantiles of each row over what is known, ``(quantile, sample)``."""
    found = np.full((len(SPREAD), len(values)), np.nan)
    for i, row in enumerate(values):
        if (known := row[np.isfinite(row)]).size:
            found[:, i] = np.quantile(known, list(SPREAD.values()))
    return found


def duplicate_table(samples: xr.Dataset, expression: xr.Dataset) -> Table:
    """Return the samples that are left out, the kept one that each repeats, and how near it is."""
    at = np.flatnonzero(~samples["keep"].values)
    series = dict(zip(texts(expression, "sample"), texts(expression, "series"), strict=True))
    names, kept = (texts(samples, name, at) for name in ("sample", "duplicate_of"))
    return Table(
        "duplicates",
        "Near-duplicates that are left out",
        {
            "sample": names,
            "series": [series.get(name, "") for name in names],
            "repeats": kept,
            "series_of_that": [series.get(name, "") for name in kept],
            "distance": samples["nearest_distance"].values[at].astype(np.float64).tolist(),
        },
    )


def map_table(samples: xr.Dataset, expression: xr.Dataset) -> Table | None:
    """Return samples on the two directions of largest variance, at most `N_MAP` of them."""
    if samples.sizes["component"] < 2:
        return None
    at = _evenly(samples.sizes["sample"], N_MAP)
    first, second = samples["projection"].values[at, :2].T.astype(np.float64).tolist()
    split = [SPLITS[code] for code in expression["split"].values[at]]
    columns: dict[str, Sequence[Any]] = {
        "sample": texts(samples, "sample", at),
        "series": texts(expression, "series", at),
        "split": split,
        "is_kept": samples["keep"].values[at].tolist(),
        "first": first,
        "second": second,
    }
    return Table("samples", "Samples on the two directions of largest variance", columns)


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    """Return at most so many of n places, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
