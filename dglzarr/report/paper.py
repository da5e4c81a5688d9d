"""The figures and lists of Kong et al. 2021 for any study, from its finished stores.

Figures 2 to 5, the sorted gene list (Additional file 1) and the overlap of panels. What a study
lacks - a labelled series, gene sets, a cohort - has no figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import hypergeom

from dglzarr.evaluation.panels import MINED
from dglzarr.kernels.enrichment import P_CUTOFF, Q_CUTOFF, is_enriched
from dglzarr.kernels.metrics import SIGNIFICANT, known_mean
from dglzarr.query import gene_keys
from dglzarr.report import drawings
from dglzarr.report.panels import cohorts, kinds, measure, rival_of, texts
from dglzarr.report.tables import Table, formatted, interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.report.drawings import Drawing

N_TERMS = 20
CIRCLES = {"latent": "latent units", "pca": "principal components", "panel mined": "mined panel"}


@dataclass(frozen=True)
class PaperFigure:
    """One figure: the file it goes to, the drawing, what it shows and how to read it."""

    name: str
    title: str
    drawing: Drawing
    alt: str
    caption: str


@dataclass(frozen=True)
class Overlap:
    """Genes that two panels share, and how many random panels of their sizes would.

    Attributes
    ----------
    n_shared
        Distinct genes in both.
    n_expected
        Mean for two random sets of as many genes.
    p_value
        Chance of so many or more.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    n_shared: int
    n_expected: float
    p_value: float


def paper_figures(opened: Mapping[str, xr.Dataset]) -> list[PaperFigure]:
    """Return the figures that a study's stores allow, in the paper's order."""
    found: list[PaperFigure] = []
    if "reconstruction" in opened:
        found.append(reconstruction_figure(opened["reconstruction"]))
    if "groups" in opened:
        found.append(groups_figure(opened["groups"]))
    evaluation = opened["evaluation"]
    found += comparison_figure(evaluation)
    for number, cohort in enumerate(cohorts(evaluation)[1:], start=1):
        found += cohort_figure(evaluation, cohort, number)
    if "enrichment" in opened:
        found += enrichment_figure(opened["enrichment"])
    return found


def reconstruction_figure(reconstruction: xr.Dataset) -> PaperFigure:
    """Return figure 2A: error and correlation of every gene rebuilt by the model."""
    mae, pcc, null = (reconstruction[name].values for name in ("mae", "pcc", "null_fraction"))
    n_known = int(np.isfinite(null).sum())
    return PaperFigure(
        "figure-2a-reconstruction",
        "Figure 2A: reconstruction",
        drawings.error_and_correlation({"": mae}, {"": pcc}),
        "Density of the error and the correlation of every gene rebuilt by the autoencoder",
        f"How well the autoencoder rebuilds held-out samples, gene by gene: mean error "
        f"{formatted(known_mean(mae))}, mean correlation {formatted(known_mean(pcc))}. "
        f"{int((null < SIGNIFICANT).sum()):,} of {n_known:,} genes pass the permutation test.",
    )


def groups_figure(groups: xr.Dataset) -> PaperFigure:
    """Return figure 2B: labelled samples in a circle, by latent units and beside them."""
    of = texts(groups, "representation")
    trees, words = {}, []
    for name, title in CIRCLES.items():
        if name not in of:
            continue
        here = groups.isel(representation=of.index(name))
        ari, nmi, silhouette = (float(here[m]) for m in ("ari", "nmi", "silhouette"))
        told = f"ARI {ari:.3f}, NMI {nmi:.3f}, silhouette {formatted(silhouette, '.3f')}"
        told = told if np.isfinite(ari) else str(here["reason"].values) or "not known"
        trees[f"{title}\n{told}"] = here["tree"].values
        words.append(f"{title}: {told}")
    random = np.flatnonzero(groups["kind"].values == "random")
    if random.size:
        words.append(
            f"{random.size} random panels: ARI {_span(groups['ari'].values[random], '.3f')}"
        )
    parameters = groups.attrs["parameters"]
    series = ", ".join(sorted(set(texts(groups, "series")))[:4])
    n_trained = groups.attrs["details"]["n_trained_on"]
    return PaperFigure(
        "figure-2b-groups",
        "Figure 2B: groups of samples",
        drawings.circles(trees, texts(groups, "group")),
        "Circular dendrograms of labelled samples by latent units, components and the panel",
        f"{groups.sizes['sample']:,} samples of {series}, coloured by {parameters['label']!r}; "
        f"the model was trained on {n_trained:,} of them. Hierarchical clustering "
        f"({parameters['linkage']}), cut into as many clusters as there are groups; ARI and NMI "
        f"are 1 for the groups themselves and near 0 by chance. {'; '.join(words)}.",
    )


def comparison_figure(evaluation: xr.Dataset) -> list[PaperFigure]:
    """Return figure 3: the mined panel against the best published one, or else a random one."""
    rival = rival_of(evaluation)
    if rival is None:
        return []
    names = (MINED, rival)
    mae, pcc = ({n: measure(evaluation, m, n) for n in names} for m in ("mae", "pcc"))
    failed = {n: int((measure(evaluation, "null_fraction", n) >= SIGNIFICANT).sum()) for n in names}
    ranges = "; ".join(
        f"{n}: error {_span(mae[n])}, correlation {_span(pcc[n])}, "
        + (
            ""
            if kinds(evaluation)[n] == "random"
            else f"{failed[n]:,} targets fail the permutation test"
        )
        for n in names
    )
    return [
        PaperFigure(
            "figure-3-panels",
            f"Figure 3: mined panel and {rival}",
            drawings.panel_against(mae, pcc, names=names),
            f"Errors and correlations of target genes with the mined panel against {rival}",
            f"Held-out samples, common target genes. {ranges.rstrip(', ')}.",
        )
    ]


def _span(values: NDArray[np.floating], form: str = ".4f") -> str:
    """Return the lowest and the highest of the known values, in words where there is none."""
    known = values[np.isfinite(values)]
    return interval((known.min(), known.max()), form) if known.size else "not known"


def cohort_figure(evaluation: xr.Dataset, cohort: str, number: int) -> list[PaperFigure]:
    """Return figure 4: targets of another platform predicted from the panel's genes."""
    rival = rival_of(evaluation)
    names = [MINED, *([rival] if rival else [])]
    mae, pcc = ({n: measure(evaluation, m, n, cohort) for n in names} for m in ("mae", "pcc"))
    if not np.isfinite(mae[MINED]).any():
        return []
    null = measure(evaluation, "null_fraction", MINED, cohort)
    known = np.isfinite(null)
    share = f"{(null[known] < SIGNIFICANT).mean():.2%}" if known.any() else "-"
    return [
        PaperFigure(
            f"figure-4-{number}-cohort",
            f"Figure 4: {cohort}",
            drawings.error_and_correlation(mae, pcc),
            f"Density of error and correlation of target genes in {cohort}",
            f"Target genes of {cohort}, predicted by the mined panel with what was learned on the "
            f"training samples: mean error {known_mean(mae[MINED]):.4f}, mean correlation "
            f"{formatted(known_mean(pcc[MINED]))}, {share} of {int(known.sum()):,} targets pass "
            "the permutation test.",
        )
    ]


def enrichment_figure(enrichment: xr.Dataset) -> list[PaperFigure]:
    """Return figure 5: the terms that the mined panel holds most more of than chance."""
    rows = term_rows(enrichment)
    if not rows:
        return []
    names = [str(row["name"]) for row in rows]
    share, n_hits, p_adjusted, is_listed = (
        np.array([row[name] for row in rows])
        for name in ("share", "n_hits", "p_adjusted", "is_enriched")
    )
    n_tested = enrichment.attrs["details"]["panels"][MINED]["n_tested"]
    return [
        PaperFigure(
            "figure-5-enrichment",
            "Figure 5: enriched terms",
            drawings.enriched_terms(names, share, n_hits, p_adjusted, is_enriched=is_listed),
            f"The {len(rows)} terms of lowest p in the mined panel",
            f"The {len(rows)} terms of lowest p of {n_tested:,} tested; filled dots count as "
            f"enriched (adjusted p < {P_CUTOFF}, q < {Q_CUTOFF}). {enrichment_words(enrichment)}",
        )
    ]


def enrichment_words(enrichment: xr.Dataset) -> str:
    """Return how many terms come up in the mined panel, published ones and random ones."""
    counts: Mapping[str, Mapping[str, int]] = enrichment.attrs["details"]["panels"]
    kind = kinds(enrichment)
    random = [c["n_enriched"] for n, c in counts.items() if kind[n] == "random"]
    named = [
        f"{n}: {c['n_enriched']:,} of {c['n_tested']:,} tested terms are enriched"
        for n, c in counts.items()
        if kind[n] != "random"
    ]
    chance = f"{len(random)} random panels: {min(random)} to {max(random)}" if random else ""
    return "; ".join(filter(None, [*named, chance])) + "."


def overlaps(landmarks: xr.Dataset) -> list[Overlap]:
    """Return the genes shared by each pair of panels that are not random."""
    keys = dict(zip(texts(landmarks, "gene"), gene_keys(landmarks).tolist(), strict=True))
    n_genes = len(set(keys.values()))
    panels = zip(kinds(landmarks).items(), landmarks["panel_gene"].values, strict=True)
    held = {
        name: {keys[str(g)] for g in row if g} for (name, kind), row in panels if kind != "random"
    }
    found = []
    for (first, a), (second, b) in combinations(held.items(), 2):
        n_shared = len(a & b)
        expected, p = len(a) * len(b) / n_genes, hypergeom.sf(n_shared - 1, n_genes, len(a), len(b))
        found.append(Overlap(first, second, len(a), len(b), n_shared, expected, float(p)))
    return found


def group_rows(groups: xr.Dataset) -> list[dict[str, object]]:
    """Return ARI, NMI and silhouette by representation, random panels as their mean."""
    rows: list[dict[str, object]] = []
    of = texts(groups, "representation")
    measures = {m: groups[m].values for m in ("ari", "nmi", "silhouette")}
    random = np.flatnonzero(groups["kind"].values == "random")
    for i, name in enumerate(of):
        if i not in random:
            shown = CIRCLES.get(name, name.removeprefix("panel "))
            rows.append({"name": shown, **{m: v[i] for m, v in measures.items()}})
    if random.size:
        means: Sequence[float] = [float(v[random].mean()) for v in measures.values()]
        name = f"random panels, mean of {random.size}"
        rows.append({"name": name, **dict(zip(measures, means, strict=True))})
    return rows


def term_rows(enrichment: xr.Dataset) -> list[dict[str, object]]:
    """Return the mined panel's terms of lowest p; `term_table` has all."""
    columns = term_table(enrichment).columns
    rows = zip(*(values[:N_TERMS] for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def term_table(enrichment: xr.Dataset) -> Table:
    """Return every tested term of the mined panel, of lowest p first, as figure 5 draws it."""
    here = enrichment.isel(panel=texts(enrichment, "panel").index(MINED))
    p, n_query = here["p_value"].values, max(1, int(here["n_query"]))
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    numbers = ("n_hits", "n_genes", "p_value", "p_adjusted", "q_value")
    found = {name: here[name].values[order] for name in numbers}
    term, name, hits = (texts(here, one, order) for one in ("term", "term_name", "hits"))
    strength = -np.log10(np.maximum(found["p_adjusted"], 1e-300))
    return Table(
        "terms",
        "Tested terms of the mined panel, of lowest p first",
        {
            "term": term,
            "name": name,
            **{one: values.tolist() for one, values in found.items()},
            "hits": hits,
            "share": (found["n_hits"] / n_query).tolist(),
            "strength": strength.tolist(),
            "is_enriched": is_enriched(found["p_adjusted"], found["q_value"]).tolist(),
        },
        n_embedded=N_TERMS,
    )
