"""Select: choose the mined panel, and the panels that it will be compared with.

Reads ``scores.zarr``, ``normalized.zarr``, ``samples.zarr`` and published lists, writes
``landmarks.zarr``. A panel is an ordered list of genes; random panels of the same size are the null
that a mined panel has to beat. Selectors are fitted on kept training samples alone.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.evaluation.panels import (
    MINED,
    RANDOM,
    Rules,
    check_list_names,
    find_rules,
    match_lists,
    panel_table,
)
from dglzarr.evaluation.sketch import sketch_samples
from dglzarr.kernels.panels import SELECTORS, select_panel
from dglzarr.query import gene_keys
from dglzarr.storage.files import file_input
from dglzarr.storage.schemas import LANDMARKS, SAMPLES, SCORES
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
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.kernels.sketch import GeneSketch
    from dglzarr.storage.tasks import Progress

PUBLISHED = "published"


class Chosen(NamedTuple):
    """One panel: its genes in order, how it was chosen, and how many of a list are missing."""

    genes: NDArray[Any]
    selector: str
    n_missing: int = 0


def select(
    source: str,
    target: str,
    *,
    normalized: str,
    samples: str,
    selector: str = "greedy",
    selectors: Sequence[str] = ("top-score", "deeplift-greedy", "medoids"),
    n_landmarks: int = 943,
    n_random: int = 20,
    forced: str | Sequence[str] = (),
    excluded: str | Sequence[str] = (),
    panels: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the panels and the ranked genes, and summarize them.

    Parameters
    ----------
    source, normalized, samples
        URIs of the scores, normalized and samples stores.
    target
        URI of the landmarks store.
    selector
        How the mined panel is chosen, one of ``dglzarr.kernels.panels.SELECTORS``.
    selectors
        Selectors whose panels the mined one is compared with, each named after its selector.
    n_landmarks
        Size of all these panels.
    n_random
        Random panels of that size.
    forced, excluded
        Genes that every chosen panel must hold, or must not: labels, symbols, Entrez or Ensembl
        IDs, or a file with one a line. A forced gene stands first, by its first feature; an
        excluded one is kept out with all its features.
    panels
        Name -> file of published lists (probes, symbols, Entrez or Ensembl IDs), taken as they
        are.
    seed
        Of everything drawn.
    overwrite
        Replace a store made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When a selector is unknown, a forced gene is not measured or is excluded too, too few genes
        are left to choose from, or a panel has a name that is taken.
    SourceError
        When under half of a list is measured.

    Notes
    -----
    The normalized store is read once. Memory: 180 MB of sketch for 22,268 genes, and two or three
    times as much while genes are chosen.
    """
    started = time.monotonic()
    ds = open_store(source, SCORES)
    published = dict(panels or {})
    _check_names(selector, selectors, published)
    files = [file for file in (forced, excluded) if isinstance(file, str)]
    std = open_store(samples, SAMPLES)["gene_std"].values
    rules = find_rules(ds, std, forced, excluded, sizes=[n_landmarks], place="select.n_landmarks")
    inputs = [store_input(uri) for uri in (source, normalized, samples)]
    claim = claim_store(
        target,
        LANDMARKS,
        inputs=[*inputs, *(file_input(path) for path in (*files, *published.values()))],
        parameters={
            "selector": selector,
            "selectors": list(selectors),
            "n_landmarks": n_landmarks,
            "n_random": n_random,
            "forced": forced if isinstance(forced, str) else list(forced),
            "excluded": excluded if isinstance(excluded, str) else list(excluded),
            "panels": sorted(published),
            "seed": seed,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    lists = match_lists(ds, published)
    sketch = _sketch(normalized, samples, ds["score"].values, seed, on_progress)
    chosen: dict[str, Chosen] = {}
    for name, how in {MINED: selector, **{name: name for name in selectors}}.items():
        chosen[name] = _select(ds, how, sketch, n_landmarks, rules, seed)
    for name, match in lists.items():
        genes = np.array(match.genes, dtype=np.dtypes.StringDType())
        chosen[name] = Chosen(genes, PUBLISHED, len(match.missing))
    for i in range(n_random):
        chosen[f"{RANDOM}-{i}"] = _select(ds, RANDOM, sketch, n_landmarks, rules, [seed, i])
    if claim.state == "new":
        create_store(claim, _labels(ds, chosen))
    rank = _rank(ds, chosen[MINED].genes)
    arrays = {
        "score": ds["score"].values,
        "rank": rank,
        "is_landmark": rank <= n_landmarks,
        "panel_gene": panel_table([panel.genes for panel in chosen.values()]),
        "n_missing": np.array([panel.n_missing for panel in chosen.values()]),
    }
    details = {
        "n_landmarks": n_landmarks,
        **_named(ds, np.flatnonzero(rank <= n_landmarks)),
        "n_forced": len(rules.forced),
        "n_excluded": len(rules.excluded),
        "n_sketch_rows": len(sketch.rows),
        "missing": {name: match.missing for name, match in lists.items()},
    }
    return finish(target, started=started, arrays=arrays, details=details)


# ---------------------------------------------------------------- what is asked for


def _check_names(selector: str, selectors: Sequence[str], published: Mapping[str, str]) -> None:
    for place, names in (("select.selector", [selector]), ("select.selectors", selectors)):
        if unknown := [name for name in names if name not in SELECTORS]:
            raise ConfigError(f"{place}: expected any of {list(SELECTORS)}, got {unknown!r}.")
    check_list_names(published)


# ---------------------------------------------------------------- panels


def _sketch(
    normalized: str,
    samples: str,
    score: NDArray[np.float64],
    seed: int,
    on_progress: Progress | None,
) -> GeneSketch:
    """Return the sketch of the kept training samples."""
    mask = open_store(samples, SAMPLES)
    return sketch_samples(
        normalized,
        kept_samples(normalized, samples),
        mean=mask["gene_mean"].values,
        std=mask["gene_std"].values,
        score=score,
        seed=seed,
        on_progress=on_progress,
    )


def _select(
    ds: xr.Dataset,
    selector: str,
    sketch: GeneSketch,
    n: int,
    rules: Rules,
    seed: int | Sequence[int],
) -> Chosen:
    order = select_panel(selector, sketch, n, **rules._asdict(), seed=seed)
    return Chosen(ds["gene"].values[order], selector)


# ---------------------------------------------------------------- what is written


def _rank(ds: xr.Dataset, mined: NDArray[Any]) -> NDArray[np.int32]:
    """Return the rank of each gene: the mined panel in its order, then all others by score."""
    place = {str(gene): i for i, gene in enumerate(ds["gene"].values)}
    first = np.array([place[str(gene)] for gene in mined])
    by_score = np.argsort(-ds["score"].values, kind="stable")
    order = np.concatenate([first, by_score[~np.isin(by_score, first)]])
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(1, order.size + 1)
    return rank


def _named(ds: xr.Dataset, chosen: NDArray[np.int64]) -> dict[str, int | None]:
    """Return how many distinct genes the chosen features measure, None where no name is known."""
    is_named = (ds["gene_symbol"].values != "") | (ds["gene_id"].values != "")
    named = chosen[is_named[chosen]]
    n_distinct = len({*gene_keys(ds)[named].tolist()}) if named.size else None
    return {"n_distinct_genes": n_distinct, "n_unnamed": int(chosen.size - named.size)}


def _labels(ds: xr.Dataset, chosen: Mapping[str, Chosen]) -> dict[str, NDArray[Any]]:
    text = np.dtypes.StringDType()
    longest = max(len(panel.genes) for panel in chosen.values())
    return {
        **{name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")},
        "panel": np.array(list(chosen), dtype=text),
        "selector": np.array([panel.selector for panel in chosen.values()], dtype=text),
        "position": np.arange(longest, dtype=np.int32),
    }
