"""Stability: how far scores and panels of replicates agree.

A replicate is a network of another seed, or one trained and scored on a random half of the samples.
``halve`` writes a samples store whose mask keeps such a half; ``compare_replicates`` reads the
replicates' scores and writes ``stability.zarr``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import numpy as np

from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.stability import panel_overlap, rank_correlation, rank_genes
from dglzarr.storage.schemas import SAMPLES, SCORES, STABILITY
from dglzarr.storage.store import (
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def halve(
    source: str,
    target: str,
    *,
    normalized: str,
    part: Literal["a", "b"],
    seed: int,
    overwrite: bool = False,
) -> StoreSummary:
    """Write a samples store that keeps a random half of the training samples; summarize it.

    Parameters
    ----------
    source, normalized
        URIs of the samples store and of the normalized store.
    target
        URI of the new samples store. Validation and test samples are kept as before, and so are
        the means and deviations of the genes.
    part
        ``"a"`` and ``"b"`` of one seed are complementary.
    seed
        Draws the halves.
    overwrite
        Replace a store made from other inputs or parameters.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, or another store stands there.
    """
    started = time.monotonic()
    claim = claim_store(
        target,
        SAMPLES,
        inputs=[store_input(source), store_input(normalized)],
        parameters={"half": part, "seed": seed},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    ds = open_store(source, SAMPLES)
    keep = ds["keep"].values.copy()
    training = np.flatnonzero(kept_samples(normalized, source))
    shuffled = np.random.default_rng([seed, len(keep)]).permutation(training)
    left_out = shuffled[::2] if part == "a" else shuffled[1::2]
    keep[left_out] = False
    arrays = {array.name: ds[array.name].values for array in SAMPLES.arrays} | {"keep": keep}
    if claim.state == "new":
        create_store(
            claim, {a.name: arrays[a.name] for a in SAMPLES.arrays if a.written == "create"}
        )
    written = {a.name: arrays[a.name] for a in SAMPLES.arrays if a.written == "finish"}
    return finish(target, started=started, arrays=written)


def compare_replicates(
    target: str, *, replicates: Mapping[str, str], n_landmarks: int, overwrite: bool = False
) -> StoreSummary:
    """Write how far the scores and top panels of replicates agree, and summarize it.

    Parameters
    ----------
    target
        URI of the stability store.
    replicates
        Name of each replicate, ``seed-...`` or ``half-...``, to the URI of its scores store.
    n_landmarks
        Genes of a panel: those of the highest scores.
    overwrite
        Replace a store made from other inputs or parameters.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, or another store stands there.
    """
    started = time.monotonic()
    claim = claim_store(
        target,
        STABILITY,
        inputs=[store_input(uri) for uri in replicates.values()],
        parameters={"replicates": list(replicates), "n_landmarks": n_landmarks},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    opened = [open_store(uri, SCORES) for uri in replicates.values()]
    score = np.stack([ds["score"].values for ds in opened])
    rank = rank_genes(score)
    is_landmark = rank <= n_landmarks
    overlap, correlation = panel_overlap(is_landmark), rank_correlation(score)
    if claim.state == "new":
        names = np.array(list(replicates), dtype=np.dtypes.StringDType())
        labels = {n: opened[0][n].values for n in ("gene", "gene_id", "gene_symbol")}
        create_store(claim, {**labels, "replicate": names, "other": names})
    seeds = np.array([name.startswith("seed-") for name in replicates])
    return finish(
        target,
        started=started,
        arrays={
            "score": score,
            "rank": rank,
            "overlap": overlap,
            "rank_correlation": correlation,
            "n_panels": is_landmark.sum(axis=0),
        },
        details={
            "by_chance": n_landmarks / score.shape[1],
            "n_in_every_seed": int(is_landmark[seeds].all(axis=0).sum()),
            **{
                f"{name}_of_{kind}": _mean_of_pairs(values[np.ix_(chosen, chosen)])
                for kind, chosen in (("seeds", seeds), ("halves", ~seeds))
                for name, values in (("overlap", overlap), ("rank_correlation", correlation))
            },
        },
    )


def _mean_of_pairs(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    """Return the mean over pairs of different replicates, None without one."""
    pairs = values[~np.eye(len(values), dtype=np.bool_)]
    return float(pairs.mean()) if len(pairs) else None
