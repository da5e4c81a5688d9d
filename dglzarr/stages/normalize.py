"""Normalize: every sample gets the same distribution, fitted on the training split.

Reads ``expression.zarr``, writes ``normalized.zarr`` with the frozen quantile reference. Two passes
over the samples; each task holds one region.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.kernels.quantile import (
    QuantilePartial,
    Ties,
    apply_quantile,
    finish_quantile,
    merge_quantile,
    sum_sorted,
)
from dglzarr.schema import EXPRESSION, NORMALIZED, SPLITS
from dglzarr.store import (
    Region,
    Rows,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    map_regions,
    open_store,
    read_array,
    reduce_regions,
    store_input,
    summarize,
    write_region,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.store import Progress

FitOn = Literal["train", "all"]


def normalize(
    source: str,
    target: str,
    *,
    ties: Ties = "midrank",
    fit_on: FitOn = "train",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the quantile-normalized copy of an expression store and summarize it.

    Parameters
    ----------
    source, target
        URIs of the expression store and of the normalized store.
    ties
        Rule for equal values: ``"midrank"`` is R's, ``"tie-mean"`` qnorm's, ``"dgex"`` D-GEX's.
    fit_on
        Samples the reference is fitted on; ``"all"`` lets test samples in, as the papers do.
    overwrite
        Replace a store made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When the source cannot be used or the target cannot be written.

    Notes
    -----
    Sorts each sample once per pass: O(samples x genes log genes), divided by the workers. The
    partial sums are merged in region order, so the bits do not depend on the workers.

    References
    ----------
    Bolstad et al. 2003, doi:10.1093/bioinformatics/19.2.185
    """
    started = time.monotonic()
    ds = open_store(source, EXPRESSION)
    claim = claim_store(
        target,
        NORMALIZED,
        inputs=[store_input(source)],
        parameters={"ties": ties, "fit_on": fit_on},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    fitted = np.ones(ds.sizes["sample"], bool) if fit_on == "all" else ds["split"].values == 0
    if claim.state == "new":
        partials = reduce_regions(
            _fit_region, source, fitted=fitted, what="fitting quantiles", on_progress=on_progress
        )
        reference = finish_quantile(reduce(merge_quantile, partials))
        arrays = {**_coordinates(ds), "quantile_reference": reference}
        arrays["quantile"] = np.arange(reference.size, dtype=np.int32)
        create_store(claim, arrays, region_length=int(ds.attrs["region_length"]))
    map_regions(
        _apply_region, target, source=source, ties=ties, what="normalizing", on_progress=on_progress
    )
    reference = read_array(target, "quantile_reference")
    details = {
        "fitted_on": SPLITS[0] if fit_on == "train" else "all",
        "n_fitted": int(fitted.sum()),
        "lowest": float(reference[0]),
        "highest": float(reference[-1]),
    }
    return finish(target, started=started, details=details)


def _coordinates(ds: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Return every coordinate of a joined store, to be carried on unchanged."""
    return {str(name): ds[name].values for name in ds.coords}


def _fit_region(uri: str, region: Region, *, fitted: NDArray[np.bool_]) -> QuantilePartial:
    return sum_sorted(Rows(uri)[region.rows][fitted[region.rows]])


def _apply_region(uri: str, region: Region, *, source: str, ties: Ties) -> None:
    reference = read_array(uri, "quantile_reference")
    block = Rows(source)[region.rows]
    write_region(uri, region, {"expression": apply_quantile(block, reference, ties=ties)})
