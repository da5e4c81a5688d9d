"""Select: rank genes by score and write the panels that will be compared.

Reads ``scores.zarr`` and published lists, writes ``landmarks.zarr``. A panel is an ordered list of
genes; random panels of the same size are the null that a mined panel has to beat.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.files import file_input
from dglzarr.genes import read_panel
from dglzarr.kernels.panels import random_panel, top_score_panel
from dglzarr.query import gene_keys
from dglzarr.schema import LANDMARKS, SCORES
from dglzarr.store import (
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

    import xarray as xr
    from numpy.typing import NDArray

MINED = "mined"
BASELINE = "mean"
RESERVED = (MINED, BASELINE, "")


def select(
    source: str,
    target: str,
    *,
    n_landmarks: int = 943,
    n_random: int = 20,
    panels: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> StoreSummary:
    """Write the ranked genes and the panels, and summarize them.

    Parameters
    ----------
    source, target
        URIs of the scores store and of the landmarks store.
    n_landmarks
        Size of the mined panel.
    n_random
        Random panels of that size.
    panels
        Name -> file of published lists (probes, symbols, Entrez or Ensembl IDs).
    seed
        Of the random panels.
    overwrite
        Replace a store made from other inputs or parameters.

    Raises
    ------
    ConfigError
        When the panel is not smaller than the number of genes, or a panel has a name that is
        taken.
    SourceError
        When a list shares no gene with the study.
    """
    started = time.monotonic()
    ds = open_store(source, SCORES)
    n_genes = ds.sizes["gene"]
    if not 0 < n_landmarks < n_genes:
        raise ConfigError(f"select.n_landmarks: expected 1 to {n_genes - 1}, got {n_landmarks}.")
    published = dict(panels or {})
    if taken := [p for p in published if p in RESERVED or p.startswith("random-")]:
        raise ConfigError(
            f"evaluate.panels: expected names other than {MINED!r}, {BASELINE!r} and 'random-...', "
            f"got {taken!r}. Rename the panel."
        )
    claim = claim_store(
        target,
        LANDMARKS,
        inputs=[store_input(source), *(file_input(path) for path in published.values())],
        parameters={
            "selector": "top score",
            "n_landmarks": n_landmarks,
            "n_random": n_random,
            "panels": sorted(published),
            "seed": seed,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    score = ds["score"].values
    order = top_score_panel(score, n_genes)
    rank = np.empty(n_genes, dtype=np.int32)
    rank[order] = np.arange(1, n_genes + 1)
    genes = ds["gene"].values
    chosen = {MINED: genes[order[:n_landmarks]]}
    n_missing = {MINED: 0}
    for name, path in published.items():
        chosen[name], n_missing[name] = _published(ds, path)
    for i in range(n_random):
        drawn = random_panel(n_genes, n_landmarks, np.random.default_rng([seed, i]))
        chosen[f"random-{i}"] = genes[drawn]
    if claim.state == "new":
        coords = {name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")}
        create_store(claim, {**coords, **_panel_labels(chosen)})
    arrays = {
        "score": score,
        "rank": rank,
        "is_landmark": rank <= n_landmarks,
        "panel_gene": _table(chosen),
        "n_missing": np.array([n_missing.get(name, 0) for name in chosen]),
    }
    details = {
        "n_landmarks": n_landmarks,
        **_named(ds, order[:n_landmarks]),
    }
    return finish(target, started=started, arrays=arrays, details=details)


def _named(ds: xr.Dataset, chosen: NDArray[np.int64]) -> dict[str, int | None]:
    """Return how many distinct genes the chosen features measure, None where no name is known."""
    is_named = (ds["gene_symbol"].values != "") | (ds["gene_id"].values != "")
    named = chosen[is_named[chosen]]
    n_distinct = len({*gene_keys(ds)[named].tolist()}) if named.size else None
    return {"n_distinct_genes": n_distinct, "n_unnamed": int(chosen.size - named.size)}


def _published(ds: xr.Dataset, path: str) -> tuple[NDArray[Any], int]:
    labels = [str(g) for g in ds["gene"].values]
    symbols, ids = ([str(v) for v in ds[n].values] for n in ("gene_symbol", "gene_id"))
    match = read_panel(path, genes=labels, symbols=symbols, gene_ids=ids)
    return np.array(match.genes, dtype=np.dtypes.StringDType()), len(match.missing)


def _panel_labels(chosen: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    longest = max(len(genes) for genes in chosen.values())
    return {
        "panel": np.array(list(chosen), dtype=np.dtypes.StringDType()),
        "position": np.arange(longest, dtype=np.int32),
    }


def _table(chosen: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    longest = max(len(genes) for genes in chosen.values())
    table = np.full((len(chosen), longest), "", dtype=np.dtypes.StringDType())
    for row, genes in zip(table, chosen.values(), strict=True):
        row[: len(genes)] = genes
    return table
