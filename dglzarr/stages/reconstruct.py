"""Reconstruct: how well the model rebuilds each gene of the kept test samples.

Reads ``latent.zarr`` for the sums that encoding left there, ``normalized.zarr``, ``samples.zarr``
and a model; writes ``reconstruction.zarr``. One task holds the samples of the permutation test.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.agreement import STATISTICS, finish_agreement
from dglzarr.kernels.comparison import MIN_GROUPS, bootstrap_interval
from dglzarr.kernels.metrics import SIGNIFICANT, known_mean, null_fraction
from dglzarr.kernels.moments import Standardizer, standardize
from dglzarr.kernels.panels import principal_axes
from dglzarr.models.files import load_model, load_model_once, predict
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Run
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import LATENT, NORMALIZED, RECONSTRUCTION
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_labels, write_store
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim

N_NULL = 2048
"""The permutation test, and the rivals, take at most so many samples, evenly spaced."""


@stage(
    RECONSTRUCTION,
    reads=("latent", "model"),  # the latent store's own inputs are the source and the samples
    constants={"judged_on": "test and keep", "n_null": N_NULL},
)
def reconstruct(
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    samples: str,
    latent: str,
    model: str,
    run: Run = Run(),
) -> StoreSummary:
    """Write the reconstruction of test samples, gene by gene, and summarize it.

    Parameters
    ----------
    source, samples, latent
        URIs of the normalized store, of the samples store, and of the latent store made from both.
    target
        URI of the reconstruction store.
    model
        Folder of the model.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used.

    Notes
    -----
    The permutation test takes at most 2,048 test samples, evenly spaced; errors and correlations
    take them all. On the same samples the network stands beside two rivals, in the details: the
    mean of each gene, and as many principal components as it has latent units, of at most 2,048
    kept training samples.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5: Figure 2A.
    """
    saved = load_model(place_of(model))
    parts, ds = open_labels(latent, LATENT), open_labels(source, NORMALIZED)
    total = np.zeros((len(STATISTICS), ds.sizes["gene"]))  # (statistic, gene)
    for region in range(parts.sizes["region"]):
        total += parts["agreement_total"][region].values
    mae, pcc = finish_agreement(total)
    tested = np.flatnonzero(kept_samples(source, samples, "test"))
    chosen = _spaced(tested)
    task = (source, chosen, model, saved.model_id)
    (null,) = run_tasks(
        _null_fraction, [task], what="permutation test", on_progress=run.on_progress
    )
    fitted = _spaced(np.flatnonzero(kept_samples(source, samples)))
    rivals: dict[str, Any] = {}
    if len(chosen) and len(fitted):
        (rivals,) = run_tasks(
            _rivals,
            [(*task, fitted, parts.sizes["latent_unit"])],
            what="rivals",
            on_progress=run.on_progress,
        )
    genes = {n: ds[n].values for n in ("gene", "gene_id", "gene_symbol")}
    return write_store(
        claim,
        {**genes, "mae": mae, "pcc": pcc, "null_fraction": null},
        details={
            "n_test": len(tested),
            "n_null": len(chosen),
            "mean_mae": _none_if_nan(known_mean(mae)),
            "mean_pcc": _none_if_nan(known_mean(pcc)),
            "n_significant": int((null < SIGNIFICANT).sum()),
            "rivals": rivals,
        },
    )


def _null_fraction(
    source: str, chosen: NDArray[np.int64], model: str, model_id: str
) -> NDArray[np.float64]:
    """Return the permutation test of the reconstruction of some samples, (gene,)."""
    saved = load_model_once(model, model_id)
    block = Rows(source).take(chosen)  # (sample, gene)
    is_missing = np.isnan(block)
    z = Standardizer(saved.gene_mean, saved.gene_std)(block, block)
    predicted = predict(saved, z)
    z[is_missing] = np.nan
    return null_fraction(z, predicted)


def _rivals(
    source: str,
    chosen: NDArray[np.int64],
    model: str,
    model_id: str,
    fitted: NDArray[np.int64],
    n_latent: int,
) -> dict[str, Any]:
    """Return the errors of the mean and of principal components beside the network's."""
    saved, rows = load_model_once(model, model_id), Rows(source)
    axes, _ = principal_axes(
        standardize(rows.take(fitted), saved.gene_mean, saved.gene_std), 1.0, n_most=n_latent
    )
    block = rows.take(chosen)  # (sample, gene)
    is_missing = np.isnan(block)
    z = Standardizer(saved.gene_mean, saved.gene_std)(block, block)
    rebuilt: dict[str, NDArray[np.floating]] = {
        "network": predict(saved, z),
        "components": (z @ axes.T) @ axes,
    }
    z[is_missing] = np.nan
    error = {name: np.nanmean(np.abs(z - values), axis=1) for name, values in rebuilt.items()}
    error["mean"] = np.nanmean(np.abs(z), axis=1)
    series = read_array(source, "series")[chosen].astype(object)
    group = series if len(set(series)) >= MIN_GROUPS else np.arange(len(chosen))
    return {
        "mean": _beside(error["network"], error["mean"], group),
        "components": {
            "n": len(axes),
            **_beside(error["network"], error["components"], group),
        },
    }


def _beside(
    network: NDArray[np.floating], rival: NDArray[np.floating], group: NDArray[Any]
) -> dict[str, float | None]:
    """Return a rival's error, the network's, and their difference with its interval."""
    difference = network.astype(np.float64) - rival
    ((low, high),) = bootstrap_interval(difference[np.newaxis], group)
    found = {
        "mae": np.mean(rival, dtype=np.float64),
        "network": np.mean(network, dtype=np.float64),
        "difference": difference.mean(),
        "low": low,
        "high": high,
    }
    return {name: _none_if_nan(float(value)) for name, value in found.items()}


def _spaced(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return evenly spaced ones of some samples, at most `N_NULL`."""
    places = np.linspace(0, len(index) - 1, min(N_NULL, len(index))).astype(np.int64)
    return np.asarray(index[places], dtype=np.int64)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
