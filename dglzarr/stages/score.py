"""Score: DeepLIFT contributions of every gene to the latent units, averaged into one score.

Reads ``normalized.zarr``, ``samples.zarr`` and a model; writes ``contributions.zarr`` (per sample,
reduced over latent units) and ``scores.zarr``. Only sums leave a task, never
(sample, gene, latent). Every sample is scored; only kept training samples are averaged.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import DglzarrError
from dglzarr.kernels.deeplift import absolute_contributions
from dglzarr.kernels.moments import standardize
from dglzarr.models.files import encoder_layers, load_model
from dglzarr.rows import Rows, read_array
from dglzarr.schema import CONTRIBUTIONS, NORMALIZED, SAMPLES, SCORES
from dglzarr.store import (
    Region,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    map_regions,
    open_store,
    read_attributes,
    store_input,
    summarize,
    write_region,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.graph import Progress
    from dglzarr.models.files import SavedModel

DeepliftReference = Literal["mean", "zeros"]
TargetLayer = Literal["latent", "pre-activation"]

_LARGEST_DELTA_ERROR = 1e-2


def score(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    contributions: str,
    deeplift_reference: DeepliftReference = "mean",
    layer: TargetLayer = "latent",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write contributions and gene scores, and summarize the scores.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store.
    target, contributions
        URIs of the scores store and of the contributions store.
    model
        Folder of the model.
    deeplift_reference
        ``"mean"``: the average training sample (z = 0). ``"zeros"``: no expression at all.
    layer
        Explain the latent activation or its pre-activation.
    overwrite
        Replace stores made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, or the model is of other genes.
    DglzarrError
        When contributions do not sum to the change of a latent unit.

    Notes
    -----
    Cost: one genes x hidden x latent matrix product a sample. A missing value stands at z = 0
    and its contribution is missing.

    References
    ----------
    Shrikumar et al. 2017, arXiv:1704.02685 (DeepLIFT, Rescale rule);
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    explain(
        source,
        contributions,
        samples=samples,
        model=model,
        deeplift_reference=deeplift_reference,
        layer=layer,
        overwrite=overwrite,
        on_progress=on_progress,
    )
    return _finish_scores(contributions, target, source, overwrite=overwrite)


def explain(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    deeplift_reference: DeepliftReference = "mean",
    layer: TargetLayer = "latent",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the contributions of every sample of a normalized store, and summarize them.

    The keywords and errors are those of ``score``; ``target`` is the contributions store.
    """
    started = time.monotonic()
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    saved = load_model(Path(model), genes=[str(g) for g in ds["gene"].values])
    claim = claim_store(
        target,
        CONTRIBUTIONS,
        inputs=[store_input(source), store_input(samples)],
        parameters={
            "rule": "rescale",
            "deeplift_reference": deeplift_reference,
            "layer": layer,
            "aggregation": "mean of abs over samples and latent units",
            "scale": "z",
            "fitted_on": "train and keep",
            "model_id": saved.model_id,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    if claim.state == "new":
        create_store(claim, _labels(ds, saved), region_length=int(ds.attrs["region_length"]))
    map_regions(
        _score_region,
        target,
        source=source,
        averaged=mask["keep"].values & (ds["split"].values == 0),
        model=model,
        model_id=saved.model_id,
        deeplift_reference=deeplift_reference,
        layer=layer,
        what="scoring",
        on_progress=on_progress,
    )
    worst = float(read_array(target, "delta_error").max())
    if not worst <= _LARGEST_DELTA_ERROR:
        raise DglzarrError(
            f"{target}: expected contributions to sum to the change of a latent unit "
            f"within {_LARGEST_DELTA_ERROR}, got a gap of {worst!r}. "
            "The model's weights or the matrix are not finite."
        )
    return finish(target, started=started, details={"max_delta_error": worst}, state=claim.state)


def _labels(ds: Any, saved: SavedModel) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    n_regions = -(-ds.sizes["sample"] // int(ds.attrs["region_length"]))
    n_latent = encoder_layers(saved)[-1][0].shape[1]
    return {
        "sample": ds["sample"].values,
        "gene": ds["gene"].values,
        "latent": np.arange(n_latent, dtype=np.int32),
        "region": np.arange(n_regions, dtype=np.int32),
    }


def _score_region(
    uri: str,
    region: Region,
    *,
    source: str,
    averaged: NDArray[np.bool_],
    model: str,
    model_id: str,
    deeplift_reference: DeepliftReference,
    layer: TargetLayer,
) -> None:
    """Score one region: averaged samples first, as only their latent sums are kept."""
    saved = _load(model, model_id)
    block = Rows(source)[region.rows]
    z = standardize(block, saved.gene_mean, saved.gene_std)
    is_averaged = averaged[region.rows]
    contribution = np.empty_like(z)
    delta_error = np.empty(len(z), dtype=np.float32)
    latent_total: Any = 0.0
    for chosen in (is_averaged, ~is_averaged):
        found = absolute_contributions(
            encoder_layers(saved), z[chosen], _reference(saved, deeplift_reference), layer=layer
        )
        contribution[chosen], delta_error[chosen] = found.contribution, found.delta_error
        if chosen is is_averaged:
            latent_total = found.latent_total
    contribution[np.isnan(block)] = np.nan
    write_region(
        uri,
        region,
        {
            "latent_total": latent_total[np.newaxis],
            "n_scored": np.array([is_averaged.sum()]),
            "delta_error": delta_error,
            "contribution": contribution,
        },
    )


@lru_cache(maxsize=2)
def _load(model: str, model_id: str) -> SavedModel:  # noqa: ARG001  (part of the cache key)
    return load_model(Path(model))


def _reference(saved: SavedModel, name: DeepliftReference) -> NDArray[np.float32]:
    """Return the reference input in z units, (gene,)."""
    zeros = np.zeros((1, len(saved.genes)), dtype=np.float32)
    z = zeros if name == "mean" else standardize(zeros, saved.gene_mean, saved.gene_std)
    return z.reshape(-1)


def _finish_scores(
    contributions: str, target: str, source: str, *, overwrite: bool
) -> StoreSummary:
    """Merge the partial sums of all regions, in order, into the scores store."""
    started = time.monotonic()
    claim = claim_store(
        target,
        SCORES,
        inputs=[store_input(contributions)],
        parameters=(read_attributes(contributions) or {})["parameters"],
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    parts = open_store(contributions, CONTRIBUTIONS)
    genes = open_store(source, NORMALIZED)
    n_scored = int(parts["n_scored"].sum())
    total = np.zeros((parts.sizes["latent"], parts.sizes["gene"]))
    for region in range(parts.sizes["region"]):
        total += parts["latent_total"][region].values
    latent_score = total / n_scored
    if claim.state == "new":
        names = ("gene", "gene_id", "gene_symbol")
        create_store(
            claim, {**{n: genes[n].values for n in names}, "latent": parts["latent"].values}
        )
    return finish(
        target,
        started=started,
        arrays={"score": latent_score.mean(axis=0), "latent_score": latent_score},
        details={
            "n_scored": n_scored,
            "max_delta_error": parts.attrs["details"]["max_delta_error"],
        },
    )
