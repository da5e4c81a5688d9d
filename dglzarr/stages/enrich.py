"""Enrich: which gene sets a panel holds more of than a random draw from the measured genes.

Reads ``landmarks.zarr`` and gene sets (GMT, or OBO with GAF); writes ``enrichment.zarr``. Every
panel is tested; the random ones tell how many terms come up by chance.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from dglzarr.errors import ConfigError, SourceError
from dglzarr.kernels.enrichment import Enrichment, enrich_terms, is_enriched
from dglzarr.sources.identifiers import first_symbol, strip_version
from dglzarr.sources.terms import Terms, read_gmt, read_ontology
from dglzarr.storage.files import file_input
from dglzarr.storage.schemas import ENRICHMENT, LANDMARKS
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
    import xarray as xr
    from numpy.typing import NDArray


def enrich(
    source: str,
    target: str,
    *,
    gene_sets: str | None = None,
    ontology: str | None = None,
    associations: str | None = None,
    namespace: str = "molecular_function",
    min_size: int = 10,
    max_size: int = 500,
    overwrite: bool = False,
) -> StoreSummary:
    """Write which terms each panel is enriched in, and summarize it.

    Parameters
    ----------
    source, target
        URIs of the landmarks store and of the enrichment store.
    gene_sets
        GMT file; or else
    ontology, associations
        OBO and GAF files, of which the terms of ``namespace`` are taken.
    namespace
        ``"molecular_function"``, ``"biological_process"`` or ``"cellular_component"``.
    min_size, max_size
        Fewest and most measured genes of a term that is tested.
    overwrite
        Replace a store made from other inputs or parameters.

    Raises
    ------
    ConfigError
        When neither or both kinds of gene sets are given.
    SourceError
        When a file is not of its format, or names no gene of the study.

    References
    ----------
    Yu et al. 2012, doi:10.1089/omi.2011.0118 (clusterProfiler, whose choices these are)
    """
    started = time.monotonic()
    files = [path for path in (gene_sets, ontology, associations) if path]
    if len(files) != (1 if gene_sets else 2):
        raise ConfigError(
            "enrich: expected enrich.gene_sets (GMT), or enrich.ontology (OBO) with "
            f"enrich.associations (GAF), got {len(files)} of the three. Add a section [enrich]."
        )
    ds = open_store(source, LANDMARKS)
    claim = claim_store(
        target,
        ENRICHMENT,
        inputs=[store_input(source), *(file_input(path) for path in files)],
        parameters={
            "test": "one-sided hypergeometric",
            "universe": "measured genes with a term",
            "namespace": namespace,
            "min_size": min_size,
            "max_size": max_size,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    terms = (
        read_gmt(gene_sets)
        if gene_sets
        else read_ontology(str(ontology), str(associations), namespace=namespace)
    )
    named_by, keys = _gene_names(ds, terms, files[-1])
    genes = sorted({key for key in keys if key})
    members = _members(terms, genes)
    in_panel = _panels(ds, keys, genes)
    found = [enrich_terms(q, members, min_size=min_size, max_size=max_size) for q in in_panel]
    if claim.state == "new":
        text = np.dtypes.StringDType()
        coords = {
            "panel": ds["panel"].values,
            "term": np.array(terms.ids, dtype=text),
            "term_name": np.array(terms.names, dtype=text),
        }
        create_store(claim, coords)
    arrays = {
        "n_genes": found[0].n_genes,
        "n_query": np.array([f.n_query for f in found]),
        **{
            name: np.stack([getattr(f, name) for f in found])
            for name in ("n_hits", "p_value", "p_adjusted", "q_value")
        },
        "hits": np.stack([_hits(q, members, genes) for q in in_panel]),
    }
    panels = [str(p) for p in ds["panel"].values]
    details = {
        "matched_by": named_by,
        "n_universe": found[0].n_universe,
        "n_measured": len(genes),
        "notes": dict(terms.notes),
        "panels": {p: _counts(f) for p, f in zip(panels, found, strict=True)},
    }
    return finish(target, started=started, arrays=arrays, details=details)


def _counts(found: Enrichment) -> dict[str, int]:
    return {
        "n_tested": int((~np.isnan(found.p_value)).sum()),
        "n_enriched": int(is_enriched(found.p_adjusted, found.q_value).sum()),
        "n_query": found.n_query,
    }


def _key(name: str) -> str:
    return strip_version(first_symbol(name)).upper()


def _gene_names(ds: xr.Dataset, terms: Terms, file: str) -> tuple[str, list[str]]:
    """Return what names genes as the terms do, and that name of each feature.

    Raises
    ------
    SourceError
        When no kind of name finds a gene of the study in the terms.
    """
    known = {_key(gene) for members in terms.genes for gene in members}
    names = {n: [_key(str(v)) for v in ds[n].values] for n in ("gene_symbol", "gene_id", "gene")}
    best = max(names, key=lambda name: len(known & {*names[name]}))
    if known.isdisjoint(names[best]):
        raise SourceError(
            f"{file}: expected genes of the study such as {_example(names)}, got "
            f"{sorted(known)[:3]!r}. Give ingest.annotation, or gene sets with the same ids."
        )
    return best, names[best]


def _example(names: dict[str, list[str]]) -> str:
    return " or ".join(repr(next(filter(None, n))) for n in names.values() if any(n))


def _members(terms: Terms, genes: list[str]) -> csr_array:
    """Return 1 where a term holds a measured gene `(term, gene)`."""
    at = {gene: i for i, gene in enumerate(genes)}
    found = [sorted({at[k] for g in members if (k := _key(g)) in at}) for members in terms.genes]
    starts = np.cumsum([0, *map(len, found)])
    columns = np.array([i for row in found for i in row], dtype=np.int64)
    shape = (len(found), len(genes))
    return csr_array((np.ones(columns.size, dtype=np.int64), columns, starts), shape=shape)


def _panels(ds: xr.Dataset, keys: list[str], genes: list[str]) -> NDArray[np.bool_]:
    """Return whether each panel holds each gene, through whatever feature `(panel, gene)`."""
    key_of = dict(zip((str(g) for g in ds["gene"].values), keys, strict=True))
    at = {gene: i for i, gene in enumerate(genes)}
    held = np.zeros((ds.sizes["panel"], len(genes)), dtype=bool)
    for row, features in zip(held, ds["panel_gene"].values, strict=True):
        row[[at[key_of[str(f)]] for f in features if f and key_of[str(f)]]] = True
    return held


def _hits(is_query: NDArray[np.bool_], members: csr_array, genes: list[str]) -> NDArray[Any]:
    """Return the panel's genes in each term, joined by "/"."""
    rows = (members.indices[a:b] for a, b in zip(members.indptr, members.indptr[1:], strict=False))
    joined = ["/".join(genes[i] for i in row if is_query[i]) for row in rows]
    return np.array(joined, dtype=np.dtypes.StringDType())
