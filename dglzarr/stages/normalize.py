"""Normalize: every sample gets the same distribution, fitted on the training split.

Reads ``expression.zarr``, writes ``normalized.zarr`` with the frozen quantile reference. Two passes
over the samples; each task holds a window of 256 samples.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import SchemaError
from dglzarr.kernels.quantile import (
    QuantilePartial,
    Ties,
    apply_quantile,
    finish_quantile,
    merge_quantile,
    sum_sorted,
)
from dglzarr.kernels.split import SPLITS
from dglzarr.sources.targets import read_target
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    create_store,
    finish,
    map_regions,
    open_labels,
    recorded_parameters,
    reduce_regions,
    write_region,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim

Method = Literal["quantile", "none"]

_ROLE = "reference_file"


class NormalizeOptions(Options):
    """Quantile normalization; method "none" takes sources that are normalized already."""

    section = "normalize"

    method: Method = choice("quantile", "how samples are made alike; none: values are copied")
    ties: Ties = choice("midrank", "where equal values stand: R's rule, qnorm's or D-GEX's")
    fit_on: Literal["train", "all"] = choice(
        "train", "samples the reference is fitted on; all lets test samples in", paper="all"
    )
    reference: str | None = choice(
        None,
        "file with a published distribution in log2, one value a line, instead of fitting one",
        is_path=True,
    )

    def inputs(self) -> dict[str, str]:
        """Return the file of the reference by a role of its own: a store may be another."""
        return {} if self.reference is None else {_ROLE: self.reference}

    @classmethod
    def setting_names(cls) -> dict[str, str]:
        """Return what the settings call each choice, and the file of the reference."""
        return {**super().setting_names(), _ROLE: "normalize.reference"}


@stage(NORMALIZED, reads=("source", "reference"))
def normalize(
    claim: Claim,
    source: str,
    target: str,
    *,
    reference: str | None = None,
    options: NormalizeOptions = NormalizeOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write the quantile-normalized copy of an expression store and summarize it.

    Parameters
    ----------
    source, target
        URIs of the expression store and of the normalized store.
    reference
        Normalized store whose frozen reference is applied instead of fitting one: new samples
        become comparable with old ones. How far they were from it is in the details as drift, as
        it is of a published one that the options name; this store counts before that.
    options, run
        Its choices, and how it is run. With method ``"none"`` the reference is still fitted, for
        cohorts and for drift.

    Raises
    ------
    StoreError, SchemaError
        When the source cannot be used or the target cannot be written.
    SourceError
        When the file of a published reference is none.

    Notes
    -----
    Sorts each sample once per pass: O(samples x genes log genes), divided by the workers. The
    partial sums are merged in region order, so the bits do not depend on the workers.

    References
    ----------
    Bolstad et al. 2003, doi:10.1093/bioinformatics/19.2.185
    """
    ds = open_labels(source, EXPRESSION)
    is_all = options.fit_on == "all" or reference is not None
    fitted = np.ones(ds.sizes["sample"], bool) if is_all else ds["split"].values == 0
    details: dict[str, Any] = {"fitted_on": SPLITS[0] if options.fit_on == "train" else "all"}
    frozen = reference or options.reference
    if frozen is not None:
        quantiles = (
            _frozen_reference(frozen, ds.sizes["gene"])
            if reference is not None
            else read_target(frozen, ds.sizes["gene"])
        )
        drift = _fit(source, fitted, run) - quantiles
        details["fitted_on"] = frozen
        details["drift_rms"] = float(np.sqrt(np.mean(drift**2)))
        details["drift_largest"] = float(np.abs(drift).max())
    elif claim.state == "new":
        quantiles = _fit(source, fitted, run)
    if claim.state == "new":
        arrays = {**_coordinates(ds), "quantile_reference": quantiles}
        arrays["quantile"] = np.arange(quantiles.size, dtype=np.int32)
        create_store(claim, arrays, region_length=int(ds.attrs["region_length"]))
    map_regions(
        _apply_region,
        target,
        source=source,
        method=options.method,
        ties=options.ties,
        what="normalizing",
        on_progress=run.on_progress,
    )
    quantiles = read_array(target, "quantile_reference")
    details["n_fitted"] = 0 if frozen else int(fitted.sum())
    details |= {"lowest": float(quantiles[0]), "highest": float(quantiles[-1])}
    if by := recorded_parameters(source).get("center_by"):
        details["center_by"] = by
    return finish(claim, details=details)


def _frozen_reference(reference: str, n_genes: int) -> NDArray[np.float64]:
    """Return the reference of a normalized store, to be applied to samples of the same genes."""
    quantiles: NDArray[np.float64] = open_labels(reference, NORMALIZED)["quantile_reference"].values
    if quantiles.size != n_genes:
        raise SchemaError(
            f"{reference}: expected a quantile reference of {n_genes} genes, got {quantiles.size}. "
            "Use one of the same genes."
        )
    return quantiles


def _fit(source: str, fitted: NDArray[np.bool_], run: Run) -> NDArray[np.float64]:
    """Return the mean of each order statistic over the fitted samples."""
    partials = reduce_regions(
        _fit_region, source, fitted=fitted, what="fitting quantiles", on_progress=run.on_progress
    )
    return finish_quantile(reduce(merge_quantile, partials))


def _coordinates(ds: xr.Dataset) -> dict[str, NDArray[Any]]:
    """Return every coordinate of a joined store, to be carried on unchanged."""
    return {str(name): ds[name].values for name in ds.coords}


def _fit_region(uri: str, region: Region, *, fitted: NDArray[np.bool_]) -> QuantilePartial:
    rows = Rows(uri)
    chosen = (window.start + np.flatnonzero(fitted[window]) for window in region.windows())
    return reduce(merge_quantile, (sum_sorted(rows.take(index)) for index in chosen))


def _apply_region(uri: str, region: Region, *, source: str, method: Method, ties: Ties) -> None:
    rows, quantiles = Rows(source), read_array(uri, "quantile_reference")
    blocks = (rows[window] for window in region.windows())
    if method == "quantile":
        blocks = (apply_quantile(block, quantiles, ties=ties) for block in blocks)
    write_region(uri, region, {"expression": blocks})
