"""Encode: the latent units of every sample, and how well the model reconstructs test samples.

Reads ``normalized.zarr``, ``samples.zarr`` and a model; writes ``latent.zarr`` (one a segment) and
``reconstruction.zarr``. Nothing is fitted here.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import SchemaError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.agreement import STATISTICS, finish_agreement, sum_agreement
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.metrics import SIGNIFICANT, known_mean, null_fraction
from dglzarr.kernels.moments import Standardizer, standardize
from dglzarr.models.files import encoder_layers, load_model, load_model_once, predict
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import LATENT, NORMALIZED, RECONSTRUCTION
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    map_regions,
    open_store,
    store_input,
    summarize,
    write_region,
)
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.storage.tasks import Progress

N_NULL = 2048
"""The permutation test takes at most so many test samples, evenly spaced."""


def encode(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    latent: str,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write latent units and the reconstruction of test samples; summarize the latter.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store.
    target, latent
        URIs of the reconstruction store and of the latent store.
    model
        Folder of the model.
    overwrite
        Replace stores made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, the model is of other genes, is no stack of dense layers or
        has no decoder.

    Notes
    -----
    The permutation test takes at most 2,048 test samples, evenly spaced; errors and correlations
    take them all.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5: Figure 2A.
    """
    encode_samples(
        source, latent, samples=samples, model=model, overwrite=overwrite, on_progress=on_progress
    )
    started = time.monotonic()
    saved = load_model(Path(model))
    claim = claim_store(
        target,
        RECONSTRUCTION,
        inputs=[store_input(latent)],
        parameters={"model_id": saved.model_id, "judged_on": "test and keep", "n_null": N_NULL},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    parts, ds = open_store(latent, LATENT), open_store(source, NORMALIZED)
    total = np.zeros((len(STATISTICS), ds.sizes["gene"]))
    for region in range(parts.sizes["region"]):
        total += parts["agreement_total"][region].values
    mae, pcc = finish_agreement(total)
    judged = np.flatnonzero(kept_samples(source, samples, "test"))
    chosen = judged[np.linspace(0, len(judged) - 1, min(N_NULL, len(judged))).astype(int)]
    task = (source, chosen, model, saved.model_id)
    (null,) = run_tasks(_null_fraction, [task], what="permutation test", on_progress=on_progress)
    if claim.state == "new":
        create_store(claim, {n: ds[n].values for n in ("gene", "gene_id", "gene_symbol")})
    return finish(
        target,
        started=started,
        arrays={"mae": mae, "pcc": pcc, "null_fraction": null},
        details={
            "n_test": len(judged),
            "n_null": len(chosen),
            "mean_mae": _none_if_nan(known_mean(mae)),
            "mean_pcc": _none_if_nan(known_mean(pcc)),
            "n_significant": int((null < SIGNIFICANT).sum()),
        },
    )


def encode_samples(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the latent units of every sample of a normalized store, and summarize them.

    The keywords and errors are those of ``encode``; ``target`` is the latent store.
    """
    started = time.monotonic()
    ds = open_store(source, NORMALIZED)
    saved = load_model(Path(model), genes=[str(g) for g in ds["gene"].values])
    n_latent = len(encoder_layers(saved)[-1][1])
    if saved.n_encoder_layers == len(saved.layers):
        raise SchemaError(
            f"model {saved.model_id}: expected layers from the latent units back to the genes, got "
            "an encoder alone. It can be scored and grouped, but not be encoded."
        )
    claim = claim_store(
        target,
        LATENT,
        inputs=[store_input(source), store_input(samples)],
        parameters={"model_id": saved.model_id, "judged_on": "test and keep"},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    length = int(ds.attrs["region_length"])
    if claim.state == "new":
        labels = {
            "sample": ds["sample"].values,
            "gene": ds["gene"].values,
            "latent_unit": np.arange(n_latent, dtype=np.int32),
            "region": np.arange(-(-ds.sizes["sample"] // length), dtype=np.int32),
            "statistic": np.array(STATISTICS, dtype=np.dtypes.StringDType()),
        }
        create_store(claim, labels, region_length=length)
    map_regions(
        _encode_region,
        target,
        source=source,
        judged=kept_samples(source, samples, "test"),
        model=model,
        model_id=saved.model_id,
        what="encoding",
        on_progress=on_progress,
    )
    return finish(target, started=started)


def _encode_region(
    uri: str,
    region: Region,
    *,
    source: str,
    judged: NDArray[np.bool_],
    model: str,
    model_id: str,
) -> None:
    """Encode one region, window by window."""
    saved = load_model_once(model, model_id)
    encoder, rows = encoder_layers(saved), Rows(source)
    latent = []
    total = np.zeros((len(STATISTICS), len(saved.genes)))
    for window in region.windows():
        block = rows[window]
        z = standardize(block, saved.gene_mean, saved.gene_std)
        latent.append(forward(encoder, z)[-1][1])
        is_judged = judged[window]
        if is_judged.any():
            z, known = z[is_judged], ~np.isnan(block[is_judged])
            total += sum_agreement(np.where(known, z, np.nan), predict(saved, z))
    arrays = {"agreement_total": total[np.newaxis], "latent": np.concatenate(latent)}
    write_region(uri, region, arrays)


def _null_fraction(
    source: str, chosen: NDArray[np.int64], model: str, model_id: str
) -> NDArray[np.float64]:
    """Return the permutation test of the reconstruction of some samples."""
    saved = load_model_once(model, model_id)
    block = Rows(source).take(chosen)
    is_missing = np.isnan(block)
    z = Standardizer(saved.gene_mean, saved.gene_std)(block, block)
    predicted = predict(saved, z)
    z[is_missing] = np.nan
    return null_fraction(z, predicted)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
