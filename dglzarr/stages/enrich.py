"""Enrich: which gene sets a panel holds more of than a random draw from the measured genes.

Reads ``landmarks.zarr`` and gene sets (GMT, or OBO with GAF); writes ``enrichment.zarr``. Every
panel is tested; the random ones tell how many terms come up by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import model_validator
from scipy.sparse import csr_array

from dglzarr.errors import ConfigError, SourceError
from dglzarr.kernels.enrichment import Enrichment, enrich_terms, is_enriched
from dglzarr.sources.identifiers import first_symbol, strip_version
from dglzarr.sources.terms import Namespace, Terms, read_gmt, read_ontology
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.schemas import ENRICHMENT, LANDMARKS
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim


class EnrichOptions(Options):
    """Gene sets a panel is tested for: a GMT file, or OBO and GAF. Without either: no test."""

    section = "enrich"

    gene_sets: str | None = choice(None, "GMT file of the gene sets", is_path=True)
    ontology: str | None = choice(None, "OBO file of terms; goes with associations", is_path=True)
    associations: str | None = choice(None, "GAF file of the genes of its terms", is_path=True)
    namespace: Namespace = choice("molecular_function", "terms of the ontology that are tested")
    min_size: int = choice(10, "fewest measured genes of a term that is tested", gt=0)
    max_size: int = choice(500, "most measured genes of a term that is tested", gt=0)

    @model_validator(mode="after")
    def _one_kind_of_sets(self) -> Self:
        if (self.ontology is None) != (self.associations is None):
            raise ValueError("enrich.ontology: goes with associations; give both or neither")
        if self.gene_sets is not None and self.ontology is not None:
            raise ValueError("enrich.gene_sets: expected it or ontology, got both")
        if self.min_size > self.max_size:
            raise ValueError("enrich.min_size: expected at most max_size")
        return self


@stage(
    ENRICHMENT,
    constants={"test": "one-sided hypergeometric", "universe": "measured genes with a term"},
)
def enrich(
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    options: EnrichOptions = EnrichOptions(),
    run: Run = Run(),  # noqa: ARG001  (the stage acts on it)
) -> StoreSummary:
    """Write which terms each panel is enriched in, and summarize it.

    Parameters
    ----------
    source, target
        URIs of the landmarks store and of the enrichment store.
    options, run
        Its choices, and how it is run.

    Raises
    ------
    ConfigError
        When no gene sets are given.
    SourceError
        When a file is not of its format, or names no gene of the study.

    References
    ----------
    Yu et al. 2012, doi:10.1089/omi.2011.0118 (clusterProfiler, whose choices these are)
    """
    ds = open_store(source, LANDMARKS)
    terms, file = _read_terms(options)
    named_by, keys = _gene_names(ds, terms, file)
    genes = sorted({key for key in keys if key})
    members = _members(terms, genes)  # (term, gene)
    in_panel = _panels(ds, keys, genes)  # (panel, gene)
    found = [
        enrich_terms(row, members, min_size=options.min_size, max_size=options.max_size)
        for row in in_panel
    ]
    arrays = _labels(ds, terms) | _arrays(found)
    arrays["hits"] = np.stack([_hits(row, members, genes) for row in in_panel])
    panels = [str(p) for p in ds["panel"].values]
    details = {
        "matched_by": named_by,
        "n_universe": found[0].n_universe,
        "n_measured": len(genes),
        "notes": dict(terms.notes),
        "panels": {p: _counts(f) for p, f in zip(panels, found, strict=True)},
    }
    return write_store(claim, arrays, details=details)


def _read_terms(options: EnrichOptions) -> tuple[Terms, str]:
    """Return the gene sets, and the file that names their genes.

    Raises
    ------
    ConfigError
        When none is given.
    """
    if options.gene_sets:
        return read_gmt(options.gene_sets), options.gene_sets
    if options.ontology and options.associations:
        files = (options.ontology, options.associations)
        return read_ontology(*files, namespace=options.namespace), options.associations
    raise ConfigError(
        "enrich: expected enrich.gene_sets (GMT), or enrich.ontology (OBO) with "
        "enrich.associations (GAF), got 0 of the three. Add a section [enrich]."
    )


def _labels(ds: xr.Dataset, terms: Terms) -> dict[str, NDArray[Any]]:
    return {
        **{name: ds[name].values for name in ("panel", "kind")},
        "term": text_array(terms.ids),
        "term_name": text_array(terms.names),
    }


def _arrays(found: Sequence[Enrichment]) -> dict[str, NDArray[Any]]:
    """Return what was found of each panel as arrays over (panel, term)."""
    names = ("n_hits", "p_value", "p_adjusted", "q_value")
    return {
        "n_genes": found[0].n_genes,
        "n_query": np.array([f.n_query for f in found]),
        **{name: np.stack([getattr(f, name) for f in found]) for name in names},
    }


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
    return text_array(joined)
