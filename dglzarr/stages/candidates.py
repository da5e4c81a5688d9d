"""Candidates: the panels of every size that are compared in one fold.

Reads ``normalized.zarr``, ``samples.zarr``, ``scores.zarr`` where a selector needs it, and
published lists; writes ``candidates.zarr``. All panels are chosen on kept training samples alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.evaluation.panels import (
    Draws,
    ListOptions,
    Panel,
    PanelOptions,
    SizeOptions,
    candidate_panels,
    check_list_names,
    find_rules,
    panel_arrays,
    panel_labels,
    positions,
    read_lists,
    told_penalties,
    with_penalties,
)
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.panels import SELECTORS
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import CANDIDATES, NORMALIZED, SAMPLES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim


class CandidateOptions(SizeOptions, PanelOptions, ListOptions):
    """Which panels a fold has: of which sizes, and by which rules; each list whole and in parts."""

    section = "compare"


@stage(CANDIDATES, reads=("source", "samples", "scores"), records=("seed",))
def candidates(
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    samples: str,
    scores: str | None = None,
    seed: int = 0,
    options: CandidateOptions = CandidateOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write panels of each size: of selectors, random ones, lists and random subsets of lists.

    Parameters
    ----------
    source, samples
        URIs of the normalized and samples stores.
    target
        URI of the candidates store.
    scores
        URI of the scores store; needed by selectors that read DeepLIFT scores.
    seed
        Of everything that draws.
    options, run
        Its choices, and how it is run. A random panel of one size is the beginning of that of the
        next, and the same in every fold but for genes that do not vary there.

    Raises
    ------
    ConfigError
        When a selector is unknown, a size is not smaller than the number of genes, the rules leave
        too few of them, or a list has a name that is taken.
    SourceError
        When under half of a list is measured.
    """
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    n_genes = ds.sizes["gene"]
    _check(options, n_genes)
    rules = find_rules(ds, mask["gene_std"].values, options, sizes=options.sizes, place="--sizes")
    lists = read_lists(ds, options.panels)
    score = read_array(scores, "score") if scores else np.full(n_genes, np.nan)
    sketch = sketch_training(source, samples, score, seed=seed, on_progress=run.on_progress)
    rules = with_penalties(
        rules,
        sketch,
        options,
        selectors=options.selectors,
        n=max(options.sizes),
        seed=seed,
        on_progress=run.on_progress,
    )
    panels = list(
        candidate_panels(
            sketch,
            options.selectors,
            options.sizes,
            rules=rules,
            lists=lists,
            draws=Draws(options.n_random, seed, across_folds=True),
            on_progress=run.on_progress,
        )
    )
    coords = {name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")}
    missing = {name: listed.missing for name, listed in lists.items()}
    return write_store(
        claim,
        coords | _labels(panels) | panel_arrays(panels, ds["gene"].values),
        details={"missing": missing, "penalties": told_penalties(rules)},
    )


def _check(options: CandidateOptions, n_genes: int) -> None:
    if unknown := [name for name in options.selectors if name not in SELECTORS]:
        raise ConfigError(f"panels: expected names of {', '.join(SELECTORS)}, got {unknown!r}.")
    if wrong := [n for n in options.sizes if not 0 < n < n_genes]:
        raise ConfigError(
            f"sizes: expected 1 to {n_genes - 1}, fewer than the genes of the study, got {wrong!r}."
        )
    check_list_names(options.panels)


def _labels(panels: Sequence[Panel]) -> dict[str, NDArray[Any]]:
    return {
        **panel_labels(panels, [f"{panel.name}/{panel.size}" for panel in panels]),
        "position": positions(panels),
        "family": text_array([panel.family for panel in panels]),
        "size": np.array([panel.size for panel in panels], dtype=np.int32),
    }
