"""Explain: DeepLIFT contributions of every gene to the latent units, aggregated over the units.

Reads ``normalized.zarr``, ``samples.zarr`` and a model; writes ``contributions.zarr``, one a
segment, with the sums that the scores are made of. Every sample is explained; only kept training
samples are in the sums. Only sums leave a task, never (sample, gene, latent).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.deeplift import Aggregation, Target, aggregate_contributions
from dglzarr.kernels.moments import standardize
from dglzarr.models import Device
from dglzarr.models.explainer import count_units, explain_with_shap
from dglzarr.models.files import (
    check_pre_activation,
    encoder_layers,
    load_model,
    load_model_once,
)
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import CONTRIBUTIONS, LATENT, NORMALIZED
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    create_store,
    finish,
    made_from,
    map_regions,
    open_labels,
    write_region,
)
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dglzarr.kernels.deeplift import AggregatedContributions
    from dglzarr.models.files import SavedModel
    from dglzarr.storage.claims import Claim

    Block = NDArray[np.float32]
    Explainer = Callable[[Block, NDArray[np.bool_]], AggregatedContributions]

DeepliftReference = Literal["mean", "zeros", "samples"]
Engine = Literal["closed-form", "shap"]

_LARGEST_DELTA_ERROR = 1e-2


class ExplainOptions(Options):
    """DeepLIFT: what a sample is compared with, what is explained, and by what."""

    section = "score"

    deeplift_reference: DeepliftReference = choice(
        "mean",
        "what samples are compared with: the mean training sample, no expression, or drawn samples",
        paper="open",
    )
    n_references: int = choice(
        10, "training samples drawn, over which contributions are averaged", ge=1, le=1000
    )
    layer: Target = choice(
        "latent", "explain the latent activation or its pre-activation", paper="open"
    )
    aggregation: Aggregation = choice(
        "mean-abs",
        "how units become one: mean or max of absolute values, signed mean, weighted by variance",
        paper="open",
    )
    engine: Engine = choice(
        "closed-form", "shap is for any Keras network, and 50 times slower; else dense layers alone"
    )
    device: Device = choice(
        "auto", "of the closed form: auto is a worker's GPU where cupy sees one", is_recorded=False
    )

    @property
    def weighs_by_latent(self) -> bool:
        """Whether the latent units have weights, which the latent store gives."""
        return self.aggregation == "variance-weighted"


@stage(
    CONTRIBUTIONS,
    reads=("source", "samples", "model", "latent", "frozen"),
    records=("seed",),
    constants={"rule": "rescale", "scale": "z", "fitted_on": "train and keep"},
)
def explain(  # noqa: PLR0913  (four stores and a model are its inputs)
    claim: Claim,
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    latent: str | None = None,
    frozen: str | None = None,
    seed: int = 0,
    options: ExplainOptions = ExplainOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write the contributions of every sample of a normalized store, and summarize them.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store.
    target
        URI of the contributions store.
    model
        Folder of the model.
    latent
        URI of the latent store, for the options that weigh units alone: the weights are the units'
        variances.
    frozen
        Another contributions store, whose references and weights are used.
    seed
        Draws the training samples that are references.
    options, run
        Its choices, and how it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, the model is of other genes or is no stack of dense layers
        though the closed form is asked for, its last layer has no activation to leave out, or the
        latent store is of another model.
    ConfigError
        When a worker has no GPU though one is asked for, or shap is to use it.
    DglzarrError
        When contributions do not sum to the change of a latent unit.

    Notes
    -----
    Cost: one genes x hidden x latent matrix product a sample and reference. A missing value stands
    at z = 0 and its contribution is missing: it adds nothing to a gene's sum. What a GPU makes
    differs in its last bits: for one result the workers are of one kind.

    References
    ----------
    Shrikumar et al. 2017, arXiv:1704.02685 (DeepLIFT, Rescale rule);
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    ds = open_labels(source, NORMALIZED)
    saved = load_model(place_of(model), genes=[str(g) for g in ds["gene"].values])
    averaged = kept_samples(source, samples)
    _check_engine(saved, options)
    if claim.state == "new":
        labels = _labels(ds, _n_latent(saved, model, options.engine))
        if frozen is not None:
            names = ("deeplift_reference", "latent_weight")
            labels |= {name: read_array(frozen, name) for name in names}
        else:
            n_latent = labels["latent"].size
            is_equal = not options.weighs_by_latent
            labels["latent_weight"] = (
                np.full(n_latent, 1 / n_latent) if is_equal else _variances(latent, saved, averaged)
            )
            labels["deeplift_reference"] = _references(saved, source, averaged, options, seed)
        labels["reference"] = np.arange(len(labels["deeplift_reference"]), dtype=np.int32)
        create_store(claim, labels, region_length=int(ds.attrs["region_length"]))
    map_regions(
        _explain_region,
        target,
        source=source,
        averaged=averaged,
        model=model,
        model_id=saved.model_id,
        options=options,
        what="scoring",
        on_progress=run.on_progress,
    )
    worst = float(read_array(target, "delta_error").max())
    if not worst <= _LARGEST_DELTA_ERROR:
        raise DglzarrError(
            f"{target}: expected contributions to sum to the change of a latent unit "
            f"within {_LARGEST_DELTA_ERROR}, got a gap of {worst!r}. "
            "The model's weights or the matrix are not finite."
        )
    return finish(claim, details={"max_delta_error": worst})


def _check_engine(saved: SavedModel, options: ExplainOptions) -> None:
    """Refuse a model, or workers, that the engine cannot use."""
    if options.engine == "shap" and options.layer == "pre-activation":
        check_pre_activation(saved)
    if options.device == "gpu" and options.engine == "shap":
        raise ConfigError("score.device: expected 'auto' or 'cpu' for engine 'shap', got 'gpu'.")
    if options.device == "gpu":
        run_tasks(_require_gpu, [()], what="GPU")


def _n_latent(saved: SavedModel, model: str, engine: Engine) -> int:
    """Return the number of explained units; the closed form refuses what is not dense."""
    if engine == "shap" and saved.keras:
        return count_units(model)
    return int(encoder_layers(saved)[-1][0].shape[1])


def _labels(ds: Any, n_latent: int) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    n_regions = -(-ds.sizes["sample"] // int(ds.attrs["region_length"]))
    return {
        "sample": ds["sample"].values,
        "gene": ds["gene"].values,
        "latent": np.arange(n_latent, dtype=np.int32),
        "region": np.arange(n_regions, dtype=np.int32),
    }


def _references(
    saved: SavedModel,
    source: str,
    averaged: NDArray[np.bool_],
    options: ExplainOptions,
    seed: int,
) -> Block:
    """Return the inputs that samples are compared with in z units, (reference, gene)."""
    zeros = np.zeros((1, len(saved.genes)), dtype=np.float32)
    if options.deeplift_reference == "mean":
        return zeros
    if options.deeplift_reference == "zeros":
        return standardize(zeros, saved.gene_mean, saved.gene_std)
    known = np.flatnonzero(averaged)
    rng = np.random.default_rng([seed, len(averaged)])
    chosen = np.sort(rng.choice(known, min(options.n_references, len(known)), replace=False))
    return standardize(Rows(source).take(chosen), saved.gene_mean, saved.gene_std)


def _variances(
    latent: str | None, saved: SavedModel, averaged: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each latent unit's share of the variance over kept training samples, (latent,)."""
    if latent is None:
        raise ValueError("latent: expected the URI of the latent store for 'variance-weighted'.")
    ds = open_labels(latent, LATENT)
    encoded_by = made_from(latent, "model")
    if encoded_by != saved.model_id:
        raise StoreError(
            f"{latent}: expected latent units of model {saved.model_id}, got those of "
            f"{encoded_by}. Run 'dglzarr encode' with this model first, or, where it is no stack "
            "of dense layers, choose another score.aggregation."
        )
    values = ds["latent"].values[averaged].astype(np.float64)  # (sample, latent)
    share: NDArray[np.float64] = values.var(axis=0) / values.var(axis=0).sum()
    return share


def _explain_region(
    uri: str,
    region: Region,
    *,
    source: str,
    averaged: NDArray[np.bool_],
    model: str,
    model_id: str,
    options: ExplainOptions,
) -> None:
    """Explain one region, window by window: what is made of a window takes the memory of the last.

    shap takes it whole, in one process.
    """
    saved = load_model_once(model, model_id)
    explainer = _explainer(uri, saved, model, options)
    rows, n_samples, n_genes = Rows(source), region.stop - region.start, len(saved.genes)
    contribution = np.empty((n_samples, n_genes), dtype=np.float32)
    delta_error = np.empty(n_samples, dtype=np.float32)
    latent_total = np.zeros((read_array(uri, "latent").size, n_genes))
    gene_total = np.zeros(n_genes)
    for window in [region.rows] if options.engine == "shap" else region.windows():
        block = rows[window]  # (sample, gene)
        z = standardize(block, saved.gene_mean, saved.gene_std)
        if not np.isfinite(z).all():
            raise _not_finite(source, saved, window.start, block, z)
        found = _explain_window(explainer, z, np.isnan(block), averaged[window])
        here = slice(window.start - region.start, window.stop - region.start)
        contribution[here], delta_error[here] = found.contribution, found.delta_error
        latent_total += found.latent_total
        gene_total += found.gene_total
    write_region(
        uri,
        region,
        {
            "latent_total": latent_total[np.newaxis],
            "gene_total": gene_total[np.newaxis],
            "n_scored": np.array([averaged[region.rows].sum()]),
            "delta_error": delta_error,
            "contribution": contribution,
        },
    )


def _explainer(uri: str, saved: SavedModel, model: str, options: ExplainOptions) -> Explainer:
    """Return what explains a window, given its z-scores and which of its samples count."""
    references = read_array(uri, "deeplift_reference")  # (reference, gene)
    asked: dict[str, Any] = {
        "layer": options.layer,
        "aggregation": options.aggregation,
        "latent_weight": read_array(uri, "latent_weight") if options.weighs_by_latent else None,
    }
    if options.engine == "shap":
        return lambda z, counts: explain_with_shap(model, z, references, counts=counts, **asked)
    layers, xp = encoder_layers(saved), array_library(options.device)
    return lambda z, counts: aggregate_contributions(
        layers, z, references, counts=counts, xp=xp, **asked
    )


def _explain_window(
    explainer: Explainer, z: Block, is_missing: NDArray[np.bool_], counts: NDArray[np.bool_]
) -> AggregatedContributions:
    """Return what is found of a window, (sample, gene); what is missing is NaN and in no sum."""
    try:
        found = explainer(z, counts)
    except MemoryError as error:
        raise DglzarrError(
            f"scoring: expected memory for {len(z)} samples, got: {error}. Take fewer workers, "
            "or score.device 'cpu'."
        ) from error
    is_unknown = is_missing & counts[:, np.newaxis]
    unknown = found.contribution.sum(axis=0, dtype=np.float64, where=is_unknown)  # (gene,)
    found.contribution[is_missing] = np.nan
    return replace(found, gene_total=found.gene_total - unknown)


def _not_finite(source: str, saved: SavedModel, start: int, block: Block, z: Block) -> DglzarrError:
    """Return the error that names the first value of a window that is not finite."""
    row, gene = np.argwhere(~np.isfinite(z))[0]
    sample = read_array(source, "sample")[start + row]
    return DglzarrError(
        f"{source}: expected finite or missing values, got {block[row, gene]} for gene "
        f"{saved.genes[gene]!r} in sample {str(sample)!r}. Mend the file and ingest it anew."
    )


def array_library(device: Device) -> Any:  # noqa: ANN401  (a module)
    """Return cupy where this process is to use a GPU, else numpy."""
    if device != "cpu":
        with suppress(ImportError):  # not installed, or not fit for the machine
            import cupy  # noqa: PLC0415

            if cupy.cuda.is_available():
                return cupy
    if device == "gpu":
        raise ConfigError(
            "score.device: expected a GPU on every worker, got one where cupy sees none. Install "
            "'dglzarr[gpu]' where there are GPUs, or take 'auto'."
        )
    return np


def _require_gpu() -> None:
    """Refuse a worker without a GPU."""
    array_library("gpu")
