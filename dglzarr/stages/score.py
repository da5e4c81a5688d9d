"""Score: DeepLIFT contributions of every gene to the latent units, averaged into one score.

Reads ``normalized.zarr``, ``samples.zarr`` and a model; writes ``contributions.zarr`` (per sample,
aggregated over latent units) and ``scores.zarr``. Only sums leave a task, never
(sample, gene, latent). Every sample is scored; only kept training samples are averaged.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.deeplift import aggregate_contributions
from dglzarr.kernels.moments import standardize
from dglzarr.models.explainer import count_units, explain_with_shap
from dglzarr.models.files import (
    check_pre_activation,
    encoder_layers,
    load_model,
    load_model_once,
)
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import CONTRIBUTIONS, LATENT, NORMALIZED, SCORES
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    map_regions,
    open_store,
    read_attributes,
    reduce_regions,
    store_input,
    summarize,
    write_region,
)
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dglzarr.kernels.deeplift import AggregatedContributions, Aggregation
    from dglzarr.models import Device
    from dglzarr.models.files import SavedModel
    from dglzarr.storage.tasks import Progress

DeepliftReference = Literal["mean", "zeros", "samples"]
TargetLayer = Literal["latent", "pre-activation"]
Engine = Literal["closed-form", "shap"]

_LARGEST_DELTA_ERROR = 1e-2


def score(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    contributions: str,
    latent: str | None = None,
    deeplift_reference: DeepliftReference = "mean",
    n_references: int = 10,
    layer: TargetLayer = "latent",
    aggregation: Aggregation = "mean-abs",
    group_by: str | None = None,
    engine: Engine = "closed-form",
    device: Device = "auto",
    seed: int = 0,
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
    latent
        URI of the latent store; its variances are the weights of ``"variance-weighted"``.
    deeplift_reference, n_references, seed
        ``"mean"``: the average training sample (z = 0). ``"zeros"``: no expression at all.
        ``"samples"``: the contributions are averaged over so many kept training samples, drawn
        with the seed.
    layer
        Explain the latent activation or its pre-activation.
    aggregation
        How contributions to latent units become one: ``"mean-abs"`` or ``"max"`` of their absolute
        values, ``"mean"`` of signed ones, ``"variance-weighted"`` mean of absolute values.
    group_by
        Also score the samples of each ``series``, ``platform``, ``source`` or value of a sample
        label.
    engine
        ``"closed-form"`` for stacks of dense layers; ``"shap"`` for any Keras network, about 50
        times slower.
    device
        Of the closed form: ``"auto"`` is a worker's GPU where cupy sees one. What a GPU makes
        differs in its last bits: for one result the workers are of one kind.
    overwrite
        Replace stores made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, the model is of other genes or is no stack of dense layers
        though the closed form is asked for, its last layer has no activation to leave out, or the
        latent store is of another model.
    ConfigError
        When there is no such label to group by, a worker has no GPU though one is asked for, or
        shap is to use it.
    DglzarrError
        When contributions do not sum to the change of a latent unit.

    Notes
    -----
    Cost: one genes x hidden x latent matrix product a sample and reference. A missing value stands
    at z = 0 and its contribution is missing: it adds nothing to a gene's score.

    References
    ----------
    Shrikumar et al. 2017, arXiv:1704.02685 (DeepLIFT, Rescale rule);
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    if group_by is not None:
        _group_of(source, group_by)
    explain(
        source,
        contributions,
        samples=samples,
        model=model,
        latent=latent,
        deeplift_reference=deeplift_reference,
        n_references=n_references,
        layer=layer,
        aggregation=aggregation,
        engine=engine,
        device=device,
        seed=seed,
        overwrite=overwrite,
        on_progress=on_progress,
    )
    return _finish_scores(
        contributions, target, source, samples, group_by=group_by, overwrite=overwrite
    )


def explain(
    source: str,
    target: str,
    *,
    samples: str,
    model: str,
    latent: str | None = None,
    frozen: str | None = None,
    deeplift_reference: DeepliftReference = "mean",
    n_references: int = 10,
    layer: TargetLayer = "latent",
    aggregation: Aggregation = "mean-abs",
    engine: Engine = "closed-form",
    device: Device = "auto",
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the contributions of every sample of a normalized store, and summarize them.

    The keywords and errors are those of ``score``; ``target`` is the contributions store.
    ``frozen`` is another one, whose references and weights are used.
    """
    started = time.monotonic()
    ds = open_store(source, NORMALIZED)
    saved = load_model(Path(model), genes=[str(g) for g in ds["gene"].values])
    averaged = kept_samples(source, samples)
    if engine == "shap" and layer == "pre-activation":
        check_pre_activation(saved)
    if device == "gpu" and engine == "shap":
        raise ConfigError("score.device: expected 'auto' or 'cpu' for engine 'shap', got 'gpu'.")
    if device == "gpu":
        run_tasks(_require_gpu, [()], what="GPU")
    n_latent = _n_latent(saved, model, engine)
    latent_weight = np.full(n_latent, 1 / n_latent)
    if aggregation == "variance-weighted" and frozen is None:
        latent_weight = _variances(latent, saved, averaged)
    claim = claim_store(
        target,
        CONTRIBUTIONS,
        inputs=[store_input(source), store_input(samples)],
        parameters={
            "rule": "rescale",
            "deeplift_reference": deeplift_reference,
            "n_references": n_references,
            "seed": seed,
            "layer": layer,
            "aggregation": aggregation,
            "engine": engine,
            "scale": "z",
            "fitted_on": "train and keep",
            "model_id": saved.model_id,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    if claim.state == "new":
        labels = _labels(ds, n_latent)
        if frozen is not None:
            names = ("deeplift_reference", "latent_weight")
            labels |= {name: read_array(frozen, name) for name in names}
        else:
            labels["deeplift_reference"] = (
                _drawn(saved, source, averaged, n_references, seed)
                if deeplift_reference == "samples"
                else _reference(saved, deeplift_reference)
            )
            labels["latent_weight"] = latent_weight
        labels["reference"] = np.arange(len(labels["deeplift_reference"]), dtype=np.int32)
        create_store(claim, labels, region_length=int(ds.attrs["region_length"]))
    map_regions(
        _score_region,
        target,
        source=source,
        averaged=averaged,
        model=model,
        model_id=saved.model_id,
        device=device,
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


def _reference(saved: SavedModel, name: str) -> NDArray[np.float32]:
    """Return the one reference input in z units, (1, gene)."""
    zeros = np.zeros((1, len(saved.genes)), dtype=np.float32)
    return zeros if name == "mean" else standardize(zeros, saved.gene_mean, saved.gene_std)


def _drawn(
    saved: SavedModel, source: str, averaged: NDArray[np.bool_], n_references: int, seed: int
) -> NDArray[np.float32]:
    """Return some kept training samples in z units, (reference, gene)."""
    known = np.flatnonzero(averaged)
    rng = np.random.default_rng([seed, len(averaged)])
    chosen = np.sort(rng.choice(known, min(n_references, len(known)), replace=False))
    return standardize(Rows(source).take(chosen), saved.gene_mean, saved.gene_std)


def _variances(
    latent: str | None, saved: SavedModel, averaged: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return each latent unit's share of the variance over kept training samples."""
    if latent is None:
        raise ValueError("latent: expected the URI of the latent store for 'variance-weighted'.")
    ds = open_store(latent, LATENT)
    encoded_by = ds.attrs["parameters"]["model_id"]
    if encoded_by != saved.model_id:
        raise StoreError(
            f"{latent}: expected latent units of model {saved.model_id}, got those of "
            f"{encoded_by}. Run 'dglzarr encode' with this model first, or, where it is no stack "
            "of dense layers, choose another score.aggregation."
        )
    values = ds["latent"].values[averaged].astype(np.float64)
    share: NDArray[np.float64] = values.var(axis=0) / values.var(axis=0).sum()
    return share


def _score_region(
    uri: str,
    region: Region,
    *,
    source: str,
    averaged: NDArray[np.bool_],
    model: str,
    model_id: str,
    device: Device,
) -> None:
    """Score one region, window by window: what is made of a window takes the memory of the last.

    shap takes it whole, in one process.
    """
    saved = load_model_once(model, model_id)
    asked: Any = (read_attributes(uri) or {})["parameters"]
    is_weighted = asked["aggregation"] == "variance-weighted"
    options: dict[str, Any] = {
        "layer": asked["layer"],
        "aggregation": asked["aggregation"],
        "latent_weight": read_array(uri, "latent_weight") if is_weighted else None,
    }
    explained: Callable[..., AggregatedContributions]
    if asked["engine"] == "shap":
        explained = partial(explain_with_shap, model, **options)
    else:
        options["xp"] = _array_library(device)
        explained = partial(aggregate_contributions, encoder_layers(saved), **options)
    references = read_array(uri, "deeplift_reference")
    rows, n_samples, n_genes = Rows(source), region.stop - region.start, len(saved.genes)
    contribution = np.empty((n_samples, n_genes), dtype=np.float32)
    delta_error = np.empty(n_samples, dtype=np.float32)
    latent_total = np.zeros((read_array(uri, "latent").size, n_genes))
    gene_total = np.zeros(n_genes)
    for window in [region.rows] if asked["engine"] == "shap" else region.windows():
        block = rows[window]
        z = standardize(block, saved.gene_mean, saved.gene_std)
        if not np.isfinite(z).all():
            raise _not_finite(source, saved, window.start, block, z)
        try:
            found = explained(z, references, counts=averaged[window])
        except MemoryError as error:
            raise DglzarrError(
                f"scoring: expected memory for {len(z)} samples, got: {error}. Take fewer workers, "
                "or score.device 'cpu'."
            ) from error
        is_missing = np.isnan(block)
        is_unknown = is_missing & averaged[window, None]
        unknown = found.contribution.sum(axis=0, dtype=np.float64, where=is_unknown)
        found.contribution[is_missing] = np.nan
        here = slice(window.start - region.start, window.stop - region.start)
        contribution[here], delta_error[here] = found.contribution, found.delta_error
        latent_total += found.latent_total
        gene_total += found.gene_total - unknown
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


def _not_finite(
    source: str,
    saved: SavedModel,
    start: int,
    block: NDArray[np.float32],
    z: NDArray[np.float32],
) -> DglzarrError:
    """Return the error that names the first value of a window that is not finite."""
    row, gene = np.argwhere(~np.isfinite(z))[0]
    sample = read_array(source, "sample")[start + row]
    return DglzarrError(
        f"{source}: expected finite or missing values, got {block[row, gene]} for gene "
        f"{saved.genes[gene]!r} in sample {str(sample)!r}. Mend the file and ingest it anew."
    )


def _array_library(device: Device) -> Any:  # noqa: ANN401  (a module)
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
    _array_library("gpu")


def _finish_scores(
    contributions: str,
    target: str,
    source: str,
    samples: str,
    *,
    group_by: str | None,
    overwrite: bool,
) -> StoreSummary:
    """Merge the partial sums of all regions, in order, into the scores store."""
    started = time.monotonic()
    asked: Any = (read_attributes(contributions) or {})["parameters"]
    claim = claim_store(
        target,
        SCORES,
        inputs=[store_input(contributions)],
        parameters={**asked, "group_by": group_by},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    parts = open_store(contributions, CONTRIBUTIONS)
    genes = open_store(source, NORMALIZED)
    n_scored = int(parts["n_scored"].sum())
    latent_total = np.zeros((parts.sizes["latent"], parts.sizes["gene"]))
    gene_total = np.zeros(parts.sizes["gene"])
    for region in range(parts.sizes["region"]):
        latent_total += parts["latent_total"][region].values
        gene_total += parts["gene_total"][region].values
    arrays = {
        "score": np.abs(gene_total / n_scored),
        "latent_score": latent_total / n_scored,
    }
    names = ("gene", "gene_id", "gene_symbol")
    labels = {**{n: genes[n].values for n in names}, "latent": parts["latent"].values}
    if group_by is not None:
        averaged = kept_samples(source, samples)
        groups, more = _group_scores(contributions, _group_of(source, group_by), averaged)
        labels["group"] = groups
        arrays |= more
    if claim.state == "new":
        create_store(claim, labels)
    return finish(
        target,
        started=started,
        arrays=arrays,
        details={
            "n_scored": n_scored,
            "max_delta_error": parts.attrs["details"]["max_delta_error"],
        },
    )


def _group_of(source: str, group_by: str) -> NDArray[Any]:
    """Return the value of a label of every sample, '' where it is absent."""
    ds = open_store(source, NORMALIZED)
    plain = ["series", "platform", "source"]
    named = [str(name) for name in ds["label"].values]
    if group_by in plain:
        return np.asarray(ds[group_by].values)
    if group_by not in named:
        raise ConfigError(
            f"score.group_by: expected one of {', '.join([*plain, *named])}, got {group_by!r}."
        )
    return np.asarray(ds["sample_label"].values[:, named.index(group_by)])


def _group_scores(
    contributions: str, group: NDArray[Any], averaged: NDArray[np.bool_]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the groups of kept training samples, and their scores and sizes."""
    is_grouped = averaged & (group != "")
    groups, inverse = np.unique(np.array([str(g) for g in group[is_grouped]]), return_inverse=True)
    code = np.full(len(group), -1)
    code[is_grouped] = inverse
    found = reduce_regions(_sum_groups, contributions, what="groups", code=code)
    total = np.zeros((len(groups), read_array(contributions, "gene").size))
    for sums in found:
        for index, part in sums.items():
            total[index] += part
    n_grouped = np.bincount(code[is_grouped], minlength=len(groups))
    return (
        np.array(groups, dtype=np.dtypes.StringDType()),
        {"group_score": np.abs(total / n_grouped[:, None]), "n_grouped": n_grouped},
    )


def _sum_groups(
    uri: str, region: Region, *, code: NDArray[np.int64]
) -> dict[int, NDArray[np.float64]]:
    """Return the sum of the contributions of the samples of each group in a region."""
    rows = Rows(uri, "contribution")
    total: dict[int, NDArray[np.float64]] = {}
    for window in region.windows():
        codes, block = code[window], np.nan_to_num(rows[window], copy=False)
        for index in np.unique(codes[codes >= 0]).tolist():
            part = block[codes == index].sum(axis=0, dtype=np.float64)
            total[index] = part + total.get(index, 0.0)
    return total
