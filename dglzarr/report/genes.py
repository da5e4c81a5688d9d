"""Owns the table of all genes: what every store tells of a gene, in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.panels import MINED
from dglzarr.report.panels import cohorts, kinds, measure, rival_of, texts
from dglzarr.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

GENES = "genes"


def ranked(landmarks: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row for each gene, best first; gains are NaN where the store has none."""
    rank = landmarks["rank"].values
    gain = landmarks["gain"].values if "gain" in landmarks else np.full(rank.size, np.nan)
    columns = {name: texts(landmarks, name) for name in ("gene", "gene_symbol", "gene_id")}
    score = landmarks["score"].values.tolist()
    inside = landmarks["is_landmark"].values.tolist()
    n_forced = int((landmarks.attrs.get("details") or {}).get("n_forced") or 0)  # stand first
    return [
        {
            "rank": int(rank[i]),
            **{name: values[i] for name, values in columns.items()},
            "score": score[i],
            "gain": float(gain[i]),
            "is_landmark": inside[i],
            "is_forced": inside[i] and int(rank[i]) <= n_forced,
        }
        for i in np.argsort(rank, kind="stable").tolist()
    ]


def gene_table(opened: Mapping[str, xr.Dataset]) -> Table:
    """Return a row for each gene by rank: its score, the panels that hold it, its errors.

    Columns ``error_*`` and ``pcc_*`` are those of held-out samples by the first predictor with the
    mined panel and its rival; unknown for genes that are no common target.
    """
    landmarks, evaluation = opened["landmarks"], opened["evaluation"]
    rows = ranked(landmarks)
    genes = [row["gene"] for row in rows]
    columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["score_rank"] = _ranks(np.array(columns["score"], dtype=np.float64))
    columns["panels"] = _panels_of(landmarks, genes)
    rival = rival_of(evaluation)
    for panel in [name for name in (MINED, rival) if name in kinds(evaluation)]:
        for label, name in (("error", "mae"), ("pcc", "pcc")):
            columns[f"{label}_{_called(panel)}"] = _of(
                genes, evaluation, measure(evaluation, name, str(panel))
            )
    columns |= _of_cohorts(evaluation, genes)
    if "reconstruction" in opened:
        found = opened["reconstruction"]
        for name in ("mae", "pcc"):
            columns[f"reconstruction_{name}"] = _of(genes, found, found[name].values)
    beside = f"; the rival of the mined panel is {rival}" if rival else ""
    return Table(GENES, f"All genes by rank, with score and errors{beside}", columns)


def _called(panel: str | None) -> str:
    return "mined" if panel == MINED else "rival"


def _of_cohorts(evaluation: xr.Dataset, genes: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return error and correlation with the mined panel in each external cohort."""
    if MINED not in kinds(evaluation):
        return {}
    columns: dict[str, Sequence[Any]] = {}
    for number, cohort in enumerate(cohorts(evaluation)[1:], start=1):
        for label, name in (("error", "mae"), ("pcc", "pcc")):
            values = measure(evaluation, name, MINED, cohort)
            columns[f"{label}_cohort_{number}"] = _of(genes, evaluation, values)
    return columns


def _of(genes: Sequence[str], ds: xr.Dataset, values: NDArray[np.floating]) -> list[float]:
    """Return the value of each gene, NaN of one that the store does not hold."""
    known = dict(zip(texts(ds, "gene"), values.tolist(), strict=True))
    return [known.get(gene, np.nan) for gene in genes]


def _ranks(score: NDArray[np.float64]) -> list[int]:
    """Return the rank of each score, 1 for the highest."""
    rank = np.empty(score.size, dtype=np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(1, score.size + 1)
    return rank.tolist()


def _panels_of(landmarks: xr.Dataset, genes: Sequence[str]) -> list[str]:
    """Return the panels that hold each gene, but for random ones, joined by a comma."""
    of: dict[str, list[str]] = {}
    for (name, kind), held in zip(
        kinds(landmarks).items(), landmarks["panel_gene"].values, strict=True
    ):
        if kind != "random":
            for gene in filter(None, map(str, held)):
                of.setdefault(gene, []).append(name)
    return [", ".join(of.get(gene, ())) for gene in genes]
