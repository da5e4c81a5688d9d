"""Pictures of the page: each still, as SVG, and a description from which the page draws it alive.

A description names a table, its columns and a kind of chart; `report.js` knows the kinds. The still
picture is what stands on paper and where there is no JavaScript.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.cohorts import HELD_OUT
from dglzarr.evaluation.panels import MINED
from dglzarr.report import figures
from dglzarr.report.genes import GENES
from dglzarr.report.panels import CHANCE, cohorts, rival_of, texts
from dglzarr.report.tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from dglzarr.models.files import History
    from dglzarr.report.panels import PanelRow
    from dglzarr.report.paper import PaperFigure

N_BARS = 30
PANEL_COLUMNS = (
    "cohort", "predictor", "panel", "kind", "mean_mae", "low", "high", "versus_mined",
    "versus_low", "versus_high", "versus_pvalue", "mean_mae_within", "median_pcc",
    "share_below_random", "share_significant", "n_failed", "n_genes", "n_missing",
)  # fmt: skip
ERROR = "mean absolute error (z), lower is better"


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page.

    Attributes
    ----------
    uri
        Data URI of the still picture.
    alt, caption
        What it shows, and how to read it.
    name
        Of its files when it is downloaded, unique in the page.
    chart
        Its description for ``report.js``: ``kind``, ``table`` and columns; empty for a picture
        that stays still.
    """

    uri: str
    alt: str
    caption: str
    name: str
    chart: Mapping[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> str:
        """The table of its data, "" where it has none."""
        return str(self.chart.get("table", ""))


def picture(svg: str, alt: str, caption: str, name: str, **chart: Any) -> Picture:  # noqa: ANN401
    """Return a picture whose description is what is not None of the rest."""
    encoded = base64.b64encode(svg.encode()).decode()
    told = {key: value for key, value in chart.items() if value is not None}
    return Picture(f"data:image/svg+xml;base64,{encoded}", alt, caption, name, told)


OF_GENES = {"table": GENES, "label": "gene_symbol", "sublabel": "gene"}
"""Of a chart whose points are genes."""

# ---------------------------------------------------------------- panels


def panel_table(rows: Sequence[PanelRow]) -> Table:
    """Return every panel on every cohort by every predictor, and the line that it is drawn on."""
    told = [row for row in rows if row.panel != CHANCE]
    n_random = len({row.panel for row in told if row.kind == "random"})
    columns: dict[str, Sequence[Any]] = {
        name: [getattr(row, name) for row in told] for name in PANEL_COLUMNS
    }
    columns["line"] = [
        f"random ({n_random})" if row.kind == "random" else row.panel for row in told
    ]
    return Table("panels", "Every panel on every cohort", columns)


def panel_pictures(rows: Sequence[PanelRow], evaluation: xr.Dataset) -> list[Picture]:
    """Return the pictures of the held-out samples, where the mined panel could be evaluated."""
    held_out, predictor = cohorts(evaluation)[0], texts(evaluation, "predictor")[0]
    strip = panel_strip(rows, held_out, predictor)
    if strip is None:
        return []
    rival = rival_of(evaluation)
    return [strip, *([gene_picture(evaluation, held_out, rival)] if rival else [])]


def panel_strip(
    rows: Sequence[PanelRow], cohort: str, predictor: str, name: str = "panels"
) -> Picture | None:
    """Return the errors of panels on one cohort, None where the mined panel has none."""
    here = [row for row in rows if (row.cohort, row.predictor) == (cohort, predictor)]
    by_kind = {
        kind: {
            row.panel: row.mean_mae
            for row in here
            if row.kind == kind and row.panel != CHANCE and math.isfinite(row.mean_mae)
        }
        for kind in ("mined", "selector", "published", "random")
    }
    if not by_kind["mined"]:
        return None
    mined = next(iter(by_kind["mined"].values()))
    judged = "held-out samples" if cohort == HELD_OUT else f"samples of {cohort}"
    return picture(
        figures.panel_strip(
            mined,
            by_kind["selector"] | by_kind["published"],
            np.array([*by_kind["random"].values()]),
        ),
        "Mean error of the mined panel, other selectors, published lists and random panels",
        f"Each dot is one panel of landmark genes, judged on {judged}. Further left is "
        "better. If the mined panel lies among the grey dots, a random draw does as well.",
        name,
        kind="strip",
        table="panels",
        where={"cohort": cohort, "predictor": predictor},
        without={"kind": "baseline"},
        x="mean_mae",
        y="line",
        low="low",
        high="high",
        color="kind",
        label="panel",
        rule=mined,
        xlabel=ERROR,
    )


def gene_picture(evaluation: xr.Dataset, cohort: str, rival: str) -> Picture:
    """Return the error of each target gene with the mined panel against that with its rival."""
    panels = texts(evaluation, "panel")
    at = texts(evaluation, "cohort").index(cohort)
    mae = evaluation["mae"].isel(cohort=at, predictor=0).values
    mined, other = mae[panels.index(MINED)], mae[panels.index(rival)]
    known = np.isfinite(mined) & np.isfinite(other)
    n_better = int((mined[known] < other[known]).sum())
    return picture(
        figures.gene_scatter(mined[known], other[known], other_name=rival),
        f"Error of every target gene with the mined panel against {rival}",
        f"Each dot is one target gene. Below the line the mined panel predicts it better than "
        f"{rival}: {n_better:,} of {int(known.sum()):,} genes.",
        "target-genes",
        kind="scatter",
        **OF_GENES,
        x="error_rival",
        y="error_mined",
        diagonal=True,
        xlabel=f"error with {rival} (z)",
        ylabel="error with mined (z)",
        above=f"{rival} better",
        below="mined better",
    )


def size_picture(shown: Mapping[str, Any]) -> tuple[Picture, Table]:
    """Return the errors of families of panels by size, and their table; `shown` of `by_size`."""
    sizes = shown["sizes"].tolist()
    columns: dict[str, Sequence[Any]] = {
        "size": sizes,
        **{name: values.tolist() for name, values in shown["errors"].items()},
        "random, best": shown["best"].tolist(),
        "random, worst": shown["worst"].tolist(),
    }
    table = Table("sizes", "Mean error of each kind of panel by its number of genes", columns)
    return picture(
        figures.accuracy_by_size(**shown),
        "Mean error of each kind of panel against its number of genes",
        "The grey band spans the random panels of each size; a panel under it beats them all.",
        "sizes",
        kind="lines",
        table=table.name,
        x="size",
        y=list(shown["errors"]),
        band=["random, best", "random, worst"],
        log=True,
        xlabel="genes in the panel",
        ylabel=ERROR,
    ), table


# ---------------------------------------------------------------- genes


def top_picture(panel: Sequence[Mapping[str, Any]]) -> Picture:
    """Return the scores of the first genes of the panel; `panel` as of `ranked`."""
    top = panel[:N_BARS]
    labels = [
        f"{row['gene_symbol']} ({row['gene']})"
        if row["gene_symbol"] not in ("", row["gene"])
        else str(row["gene"])
        for row in top
    ]
    forced = [" forced" if row["is_forced"] else "" for row in top]
    labels = [label + mark for label, mark in zip(labels, forced, strict=True)]
    return picture(
        figures.top_genes(labels, np.array([row["score"] for row in top])),
        f"Scores of the first {len(top)} genes of the panel",
        f"DeepLIFT scores of the first {len(top)} genes of the mined panel, in its order.",
        "top-genes",
        kind="bars",
        **OF_GENES,
        where={"is_landmark": True},
        most=N_BARS,
        x="score",
        y="gene",
        xlabel="DeepLIFT score",
    )


def score_pictures(landmarks: xr.Dataset) -> list[Picture]:
    """Return how scores are spread, and how they fall from best to worst."""
    scores, inside = landmarks["score"].values, landmarks["is_landmark"].values
    return [
        picture(
            figures.score_histogram(scores, inside),
            "How many genes have which score, in all and in the panel",
            "How the scores are spread over all genes, and over those of the mined panel.",
            "score-histogram",
            kind="histogram",
            **OF_GENES,
            x="score",
            inside="is_landmark",
            xlabel="DeepLIFT score",
            ylabel="genes",
        ),
        picture(
            figures.score_curve(scores, inside),
            "Scores of all genes from best to worst, those of the panel marked",
            "All genes from best to worst, the mined panel marked. A steep fall followed by a "
            "flat tail says that few genes matter; a smooth slope says that the scores alone "
            "draw no line.",
            "score-curve",
            kind="curve",
            **OF_GENES,
            x="score_rank",
            y="score",
            inside="is_landmark",
            xlabel="rank by score",
            ylabel="DeepLIFT score",
        ),
    ]


# ---------------------------------------------------------------- network


def learning_picture(history: History) -> tuple[Picture, Table]:
    """Return the learning curve, and its table."""
    columns: dict[str, Sequence[Any]] = {
        "epoch": history.epoch.tolist(),
        "training": history.loss.tolist(),
        "validation": history.val_loss.tolist(),
        "seconds": history.seconds.tolist(),
    }
    drawn = ["training", *(["validation"] if np.isfinite(history.val_loss).any() else [])]
    return picture(
        figures.learning_curve(
            history.epoch, history.loss, history.val_loss, best_epoch=history.best_epoch
        ),
        "Loss by epoch in training and validation",
        f"{history.last_epoch} epochs in {history.seconds.sum():,.0f} seconds. Both curves should "
        "fall and level out. Validation rising while training falls means over-fitting. Training "
        "can lie above validation, because dropout disturbs only training.",
        "learning",
        kind="lines",
        table="learning",
        x="epoch",
        y=drawn,
        rule=history.best_epoch,
        rulelabel=f"kept: epoch {history.best_epoch}",
        xlabel="epoch",
        ylabel="loss (mean absolute error, z)",
    ), Table("learning", "Loss by epoch", columns)


def rival_table(details: Mapping[str, Any]) -> Table | None:
    """Return the error of the network beside components and the mean, None where not measured."""
    rivals = {name: found for name, found in (details.get("rivals") or {}).items() if found}
    if not rivals:
        return None
    first = next(iter(rivals.values()))
    rows = [("network", first["network"], math.nan, math.nan, math.nan)]
    for name, found in rivals.items():
        called = f"{found['n']} principal components" if name == "components" else "mean of a gene"
        ends = (found["difference"], found["low"], found["high"])
        rows.append((called, found["mae"], *(math.nan if v is None else v for v in ends)))
    names = ("who", "error", "network_less", "low", "high")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return Table(
        "network", "Error of the network, of principal components and of the mean", columns
    )


def rival_picture(table: Table) -> Picture:
    """Return the errors of `rival_table` as bars."""
    errors = np.array(table.columns["error"], dtype=np.float64)
    return picture(
        figures.bars(list(table.columns["who"]), errors, xlabel=ERROR),
        "Error of held-out samples rebuilt by the network, by components and by the mean",
        "How well held-out samples are rebuilt. A network that is not better than as many "
        "principal components tells no more here than a linear method would.",
        "network",
        kind="bars",
        table=table.name,
        x="error",
        y="who",
        xlabel=ERROR,
    )


# ---------------------------------------------------------------- samples


def spread_picture(table: Table) -> Picture:
    """Return the quantiles of samples before and after normalization; `table` of `spread_table`."""
    stages = {
        stage: {
            name: np.array(table.columns[f"{stage}_{name}"], dtype=np.float64)
            for name in ("q01", "q25", "median", "q75", "q99")
        }
        for stage in ("before", "after")
    }
    return picture(
        figures.spreads(stages),
        "Median and quantiles of expression, sample by sample, before and after normalization",
        f"{table.n_rows:,} samples, evenly spaced in the order of the sources: the median, half of "
        "all genes about it (dark), and 98 % of them (light). Steps before are sources that differ "
        "in level or width; what still differs after is not brought to one distribution.",
        "normalization",
        kind="ranges",
        table=table.name,
        stages=["before", "after"],
        label="sample",
        sublabel="source",
        ylabel="expression (log2)",
    )


def distance_picture(table: Table, threshold: float | None) -> Picture:
    """Return how near left out samples are to another; `table` of `duplicate_table`."""
    found = np.array(table.columns["distance"], dtype=np.float64)
    return picture(
        figures.distances(found[np.isfinite(found)], threshold),
        "How many near-duplicates lie at which distance from another sample",
        "Distance of each sample that is left out to the nearest other. A heap near 0 are copies; "
        "values close to the threshold may be replicates.",
        "duplicates",
        kind="histogram",
        table=table.name,
        x="distance",
        label="sample",
        sublabel="repeats",
        rule=threshold,
        rulelabel="threshold",
        xlabel="distance to the nearest sample",
        ylabel="samples",
    )


def map_picture(table: Table) -> Picture:
    """Return samples on the directions of largest variance; `table` of `map_table`."""
    first, second = (
        np.array(table.columns[name], dtype=np.float64) for name in ("first", "second")
    )
    return picture(
        figures.sample_map(first, second, list(table.columns["series"])),
        "Samples on the two directions of largest variance, coloured by series",
        f"{table.n_rows:,} samples after normalization. Series that lie apart differ in biology, "
        "or in how they were made or measured: what a panel learns may be either.",
        "samples",
        kind="scatter",
        table=table.name,
        x="first",
        y="second",
        label="sample",
        sublabel="series",
        color="series",
        xlabel="first direction (log2)",
        ylabel="second direction (log2)",
    )


# ---------------------------------------------------------------- the paper's


def paper_picture(figure: PaperFigure) -> Picture:
    """Return a figure of the paper, alive where a table holds what it shows."""
    chart: dict[str, Any] = {}
    genes = {"label": "gene_symbol", "sublabel": "gene", "kind": "scatter", "table": GENES}
    axes = {"xlabel": "mean absolute error of a gene (z)", "ylabel": "correlation of a gene"}
    if figure.name.startswith("figure-2a"):
        chart = {**genes, **axes, "x": "reconstruction_mae", "y": "reconstruction_pcc"}
    elif figure.name.startswith("figure-4"):
        number = figure.name.split("-")[2]
        chart = {**genes, **axes, "x": f"error_cohort_{number}", "y": f"pcc_cohort_{number}"}
    elif figure.name.startswith("figure-5"):
        chart = {
            "kind": "terms",
            "table": "terms",
            "x": "share",
            "y": "name",
            "label": "name",
            "size": "n_hits",
            "color": "strength",
            "inside": "is_enriched",
            "hits": "hits",
            "xlabel": "share of the panel's annotated genes",
        }
    return picture(figure.drawing.svg, figure.alt, figure.caption, figure.name, **chart)
