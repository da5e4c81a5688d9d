"""Owns over-representation of gene sets in a panel: the test, and what corrects for many of them.

A term is a set of genes. Which genes and terms count is clusterProfiler's choice: the universe is
every measured gene with a term, the query every panel gene with one, and only terms of a sensible
size that hold a query gene are tested.
"""

from typing import NamedTuple

import numpy as np
import scipy  # whose stats take half a second, once they are used
from numpy.typing import NDArray
from scipy.sparse import csr_array

QVALUE_LAMBDA = 0.05
P_CUTOFF, Q_CUTOFF = 0.05, 0.2
"""clusterProfiler's: a term counts as enriched under both."""


class Enrichment(NamedTuple):
    """Over-representation of terms in one panel; NaN where a term was not tested.

    Attributes
    ----------
    n_hits, n_genes
        Panel genes in the term and measured genes in the term `(term,)`.
    n_query, n_universe
        Panel genes and measured genes with any term.
    p_value, p_adjusted, q_value
        One-sided p, Benjamini-Hochberg's and Storey's `(term,)`.
    """

    n_hits: NDArray[np.int64]
    n_genes: NDArray[np.int64]
    n_query: int
    n_universe: int
    p_value: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    q_value: NDArray[np.float64]


def enrich_terms(
    is_query: NDArray[np.bool_], members: csr_array, *, min_size: int = 10, max_size: int = 500
) -> Enrichment:
    """Return which terms hold more of a panel's genes than a random draw would.

    Parameters
    ----------
    is_query
        Whether each measured gene is in the panel `(gene,)`.
    members
        1 where a term holds a measured gene `(term, gene)`.
    min_size, max_size
        Fewest and most measured genes of a term that is tested.

    References
    ----------
    Yu et al. (2012), doi 10.1089/omi.2011.0118: clusterProfiler.

    Examples
    --------
    >>> members = csr_array(np.array([[1, 1, 0, 0], [0, 1, 1, 1]]))
    >>> found = enrich_terms(np.array([True, True, False, False]), members, min_size=2)
    >>> found.n_hits.tolist(), found.p_value.round(3).tolist()
    ([2, 1], [0.167, 1.0])
    """
    has_term = members.sum(axis=0) > 0
    n_genes = np.asarray(members.sum(axis=1), dtype=np.int64)
    n_hits = np.asarray(members @ is_query.astype(np.int64), dtype=np.int64)
    n_universe, n_query = int(has_term.sum()), int((has_term & is_query).sum())
    tested = (n_hits > 0) & (n_genes >= min_size) & (n_genes <= max_size)
    p_value, p_adjusted, q_value = (np.full(n_hits.size, np.nan) for _ in range(3))
    if tested.any():
        p_value[tested] = scipy.stats.hypergeom.sf(
            n_hits[tested] - 1, n_universe, n_genes[tested], n_query
        )
        p_adjusted[tested] = scipy.stats.false_discovery_control(p_value[tested])
        q_value[tested] = storey_qvalue(p_value[tested])
    return Enrichment(n_hits, n_genes, n_query, n_universe, p_value, p_adjusted, q_value)


def storey_qvalue(p_value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return q-values as clusterProfiler asks R's qvalue for them (lambda = 0.05).

    All NaN where R cannot tell: a single p-value, or none of 0.05 or above.

    Parameters
    ----------
    p_value : (test,)

    References
    ----------
    Storey (2002), doi 10.1111/1467-9868.00346.

    Examples
    --------
    >>> storey_qvalue(np.array([0.01, 0.04, 0.03, 0.005])).tolist()
    [nan, nan, nan, nan]
    >>> storey_qvalue(np.array([0.01, 0.5, 0.03, 0.005])).round(4).tolist()
    [0.0053, 0.1316, 0.0105, 0.0053]
    """
    null_share = min(1.0, float((p_value >= QVALUE_LAMBDA).mean()) / (1 - QVALUE_LAMBDA))
    if p_value.size < 2 or not null_share:
        return np.full(p_value.size, np.nan)
    return np.asarray(null_share * scipy.stats.false_discovery_control(p_value), dtype=np.float64)


def is_enriched(p_adjusted: NDArray[np.float64], q_value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which terms clusterProfiler would list; a q-value that is NaN does not matter."""
    return np.asarray((p_adjusted < P_CUTOFF) & ~(q_value >= Q_CUTOFF))
