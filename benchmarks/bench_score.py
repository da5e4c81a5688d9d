"""Score beside shap.DeepExplainer, and beside the float32 matrix product that it cannot avoid."""

from __future__ import annotations

import os
import shutil
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import (
    Bench,
    Case,
    Timed,
    labels,
    main,
    run_here,
    run_stage,
    simulated_rows,
    write_normalized_and_samples,
)

from dglzarr.kernels.moments import standardize
from dglzarr.models.files import encoder_layers, load_model, save_model
from dglzarr.stages.explain import explain
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import store_input

if TYPE_CHECKING:
    from dglzarr.models.files import Layer

HIDDEN, N_LATENT = 500, 100
N_EXPLAINED = {"tiny": 2, "small": 4, "full": 8}
N_PRODUCT = 16


def prepare(case: Case) -> None:
    """Write a normalized store, a samples store and an untrained network of the paper's shape."""
    write_normalized_and_samples(case)
    rng = np.random.default_rng(0)
    widths = [case.n_genes, HIDDEN, N_LATENT, HIDDEN, case.n_genes]
    layers: list[Layer] = [
        (
            (rng.standard_normal((n_in, n_out), np.float32) / np.float32(n_in**0.5)),
            np.zeros(n_out, np.float32),
            "linear" if i == 3 else "sigmoid",
        )
        for i, (n_in, n_out) in enumerate(pairwise(widths))
    ]
    samples = case.path("samples.zarr")
    save_model(
        Path(case.path("model")),
        layers,
        config={"n_genes": case.n_genes},
        genes=labels("g", case.n_genes),
        gene_mean=read_array(samples, "gene_mean"),
        gene_std=read_array(samples, "gene_std"),
        inputs=[store_input(case.path("normalized.zarr")), store_input(samples)],
        parameters={},
    )


def with_dglzarr(case: Case) -> Timed:
    """Time both stages: contributions, the sum checked for every sample; latent scores, groups."""
    contributions, scores = case.path("contributions.zarr"), case.path("scores.zarr")
    for target in (contributions, scores):
        shutil.rmtree(target, ignore_errors=True)
    source, samples = case.path("normalized.zarr"), case.path("samples.zarr")
    explained = run_stage(
        case, explain, source, contributions, samples=samples, model=case.path("model")
    )
    options = ScoreOptions(group_by="series")
    places = {"normalized": source, "samples": samples}
    scored = run_stage(case, score, contributions, scores, options=options, **places)
    return replace(
        explained,
        seconds=explained.seconds + scored.seconds,
        peak_rss_mb=max(explained.peak_rss_mb, scored.peak_rss_mb),
    )


def with_one_worker(case: Case) -> Timed:
    """Time the same on one worker."""
    return with_dglzarr(replace(case, workers=min(1, case.workers)))


def with_shap(case: Case) -> Timed:
    """Time shap on a few samples, after a first one that builds its graph."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, case.workers))
    warnings.simplefilter("ignore")
    import keras  # noqa: PLC0415
    import shap  # noqa: PLC0415

    saved = load_model(Path(case.path("model")))
    inputs = tensor = keras.Input((case.n_genes,))
    for _, bias, activation in encoder_layers(saved):
        tensor = keras.layers.Dense(len(bias), activation=activation)(tensor)
    model = keras.Model(inputs, tensor)
    model.set_weights([part for layer in encoder_layers(saved) for part in layer[:2]])
    background = np.zeros((1, case.n_genes), np.float32)
    explainer = shap.DeepExplainer((model.inputs, model.output), background)
    n_explained = N_EXPLAINED[case.size]
    block = simulated_rows(0, n_explained + 1, case.n_genes)
    z = standardize(block, saved.gene_mean, saved.gene_std)
    explainer.shap_values(z[:1], check_additivity=False)
    return run_here(
        case,
        lambda: explainer.shap_values(z[1:], check_additivity=False),
        n_samples=n_explained,
    )


def with_limit(case: Case) -> Timed:
    """Time the products of the first kernel with the scaled second one, for as many samples."""
    rng = np.random.default_rng(0)
    back = rng.random((N_PRODUCT * N_LATENT, HIDDEN), np.float32)
    kernel = rng.random((HIDDEN, case.n_genes), np.float32)
    out = np.empty((len(back), case.n_genes), np.float32)

    def multiply() -> None:
        for _ in range(0, case.n_samples, N_PRODUCT):
            np.matmul(back, kernel, out=out)

    timed = run_here(case, multiply)
    gflops = 2e-9 * case.n_samples * N_LATENT * HIDDEN * case.n_genes / timed.seconds
    return replace(timed, more={"gflops": round(gflops, 1)})


ENGINES = {
    "dglzarr": with_dglzarr,
    "dglzarr, one worker": with_one_worker,
    "shap.DeepExplainer": with_shap,
    "limit: float32 matrix product": with_limit,
}
BENCHES = [Bench("score", prepare, ENGINES, packages=["shap", "keras", "tensorflow"])]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
