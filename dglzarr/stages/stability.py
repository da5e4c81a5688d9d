"""Stability: how far scores and panels of replicates agree.

A replicate is a network of another seed, or one trained and scored on a random half of the samples.
``halve`` writes a samples store whose mask keeps such a half; ``stability`` reads the replicates'
scores and writes ``stability.zarr``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.stability import panel_overlap, rank_correlation, rank_genes
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.schemas import SAMPLES, SCORES, STABILITY
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim


class StabilityOptions(Options):
    """Which replicates a study is compared with; its own network is the first."""

    section = "stability"

    n_seeds: int = choice(5, "networks in all, of the study's seed and those after it", ge=1)
    n_halves: int = choice(1, "random splits of the training samples into two halves", ge=0)

    @model_validator(mode="after")
    def _two_replicates(self) -> Self:
        if self.n_seeds + 2 * self.n_halves < 2:
            raise ValueError(
                f"stability: expected at least two replicates, got {self.n_seeds} seeds and "
                f"{self.n_halves} splits into halves. Raise --seeds or --halves."
            )
        return self


@stage(SAMPLES, reads=("source", "normalized"), records=("half", "seed"))
def halve(
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    normalized: str,
    half: Literal["a", "b"],
    seed: int,
    run: Run = Run(),  # noqa: ARG001  (the stage acts on it)
) -> StoreSummary:
    """Write a samples store that keeps a random half of the training samples; summarize it.

    Parameters
    ----------
    source, normalized
        URIs of the samples store and of the normalized store.
    target
        URI of the new samples store. Validation and test samples are kept as before, and so are
        the means and deviations of the genes.
    half
        ``"a"`` and ``"b"`` of one seed are complementary.
    seed
        Draws the halves.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, or another store stands there.
    """
    ds = open_store(source, SAMPLES)
    keep = ds["keep"].values.copy()
    training = np.flatnonzero(kept_samples(normalized, source))
    shuffled = np.random.default_rng([seed, len(keep)]).permutation(training)
    left_out = shuffled[::2] if half == "a" else shuffled[1::2]
    keep[left_out] = False
    arrays = {array.name: ds[array.name].values for array in SAMPLES.arrays} | {"keep": keep}
    return write_store(claim, arrays)


@stage(STABILITY, records=("replicates", "n_landmarks"))
def stability(
    claim: Claim,
    source: Sequence[str],
    target: str,  # noqa: ARG001  (the claim's)
    *,
    replicates: Sequence[str],
    n_landmarks: int,
    run: Run = Run(),  # noqa: ARG001  (the stage acts on it)
) -> StoreSummary:
    """Write how far the scores and top panels of replicates agree, and summarize it.

    Parameters
    ----------
    source
        URIs of the replicates' scores stores.
    target
        URI of the stability store.
    replicates
        Name of each replicate: ``seed-...`` or ``half-...``.
    n_landmarks
        Genes of a panel: those of the highest scores.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used, or another store stands there.
    """
    opened = [open_store(uri, SCORES) for uri in source]
    score = np.stack([ds["score"].values for ds in opened])  # (replicate, gene)
    rank = rank_genes(score)
    is_landmark = rank <= n_landmarks
    overlap, correlation = panel_overlap(is_landmark), rank_correlation(score)
    seeds = np.array([name.startswith("seed-") for name in replicates])
    details: dict[str, Any] = {
        "by_chance": n_landmarks / score.shape[1],
        "n_in_every_seed": int(is_landmark[seeds].all(axis=0).sum()),
    }
    for kind, chosen in (("seeds", seeds), ("halves", ~seeds)):
        for name, values in (("overlap", overlap), ("rank_correlation", correlation)):
            details[f"{name}_of_{kind}"] = _mean_of_pairs(values[np.ix_(chosen, chosen)])
    names = text_array(list(replicates))
    arrays = {
        **{n: opened[0][n].values for n in ("gene", "gene_id", "gene_symbol")},
        "replicate": names,
        "other": names,
        "score": score,
        "rank": rank,
        "overlap": overlap,
        "rank_correlation": correlation,
        "n_panels": is_landmark.sum(axis=0),
    }
    return write_store(claim, arrays, details=details)


def _mean_of_pairs(values: NDArray[np.float64]) -> float | None:
    """Return the mean over pairs of different replicates, None without one."""
    pairs = values[~np.eye(len(values), dtype=np.bool_)]
    return float(pairs.mean()) if len(pairs) else None
