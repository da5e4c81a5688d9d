"""Encode: the latent units of every sample, and sums that tell how well test samples are rebuilt.

Reads ``normalized.zarr``, ``samples.zarr`` and a model; writes ``latent.zarr``, one a segment.
Nothing is fitted here. Each task holds a window of 256 samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import SchemaError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.agreement import STATISTICS, sum_agreement
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.moments import standardize
from dglzarr.models.files import encoder_layers, load_model, load_model_once, predict
from dglzarr.storage.declare import text_array
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Run
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import LATENT, NORMALIZED
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    create_store,
    finish,
    map_regions,
    open_labels,
    write_region,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim


@stage(LATENT, reads=("source", "samples", "model"), constants={"judged_on": "test and keep"})
def encode(
    claim: Claim, source: str, target: str, *, samples: str, model: str, run: Run = Run()
) -> StoreSummary:
    """Write the latent units of every sample of a normalized store, and summarize them.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store.
    target
        URI of the latent store.
    model
        Folder of the model.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, the model is of other genes, is no stack of dense layers or
        has no decoder.
    """
    ds = open_labels(source, NORMALIZED)
    saved = load_model(place_of(model), genes=[str(g) for g in ds["gene"].values])
    n_latent = len(encoder_layers(saved)[-1][1])
    if saved.n_encoder_layers == len(saved.layers):
        raise SchemaError(
            f"model {saved.model_id}: expected layers from the latent units back to the genes, got "
            "an encoder alone. It can be scored and grouped, but not be encoded."
        )
    if claim.state == "new":
        length = int(ds.attrs["region_length"])
        labels = {
            "sample": ds["sample"].values,
            "gene": ds["gene"].values,
            "latent_unit": np.arange(n_latent, dtype=np.int32),
            "region": np.arange(-(-ds.sizes["sample"] // length), dtype=np.int32),
            "statistic": text_array(STATISTICS),
        }
        create_store(claim, labels, region_length=length)
    map_regions(
        _encode_region,
        target,
        source=source,
        tested=kept_samples(source, samples, "test"),
        model=model,
        model_id=saved.model_id,
        what="encoding",
        on_progress=run.on_progress,
    )
    return finish(claim)


def _encode_region(
    uri: str,
    region: Region,
    *,
    source: str,
    tested: NDArray[np.bool_],
    model: str,
    model_id: str,
) -> None:
    """Encode one region, window by window."""
    saved = load_model_once(model, model_id)
    encoder, rows = encoder_layers(saved), Rows(source)
    latent = []
    total = np.zeros((len(STATISTICS), len(saved.genes)))  # (statistic, gene)
    for window in region.windows():
        block = rows[window]  # (sample, gene)
        z = standardize(block, saved.gene_mean, saved.gene_std)
        latent.append(forward(encoder, z)[-1][1])  # (sample, latent)
        is_tested = tested[window]
        if is_tested.any():
            z, known = z[is_tested], ~np.isnan(block[is_tested])
            total += sum_agreement(np.where(known, z, np.nan), predict(saved, z))
    arrays = {"agreement_total": total[np.newaxis], "latent": np.concatenate(latent)}
    write_region(uri, region, arrays)
