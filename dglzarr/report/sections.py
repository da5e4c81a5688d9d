"""What each section of the page shows, from finished stores; fits nothing.

Each function returns values for the template and leaves its tables and pictures with `Shown`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import StoreError
from dglzarr.kernels.split import SPLITS
from dglzarr.models.files import HISTORY, read_history
from dglzarr.report import pictures, samples
from dglzarr.report.comparison import COLUMNS, by_size, cells, comparison_rows, comparison_verdict
from dglzarr.report.genes import gene_table, ranked
from dglzarr.report.lineage import lineage, lineage_table, model_lineage, settings_table, uris_of
from dglzarr.report.panels import cohorts, shown_rows, texts, verdict
from dglzarr.report.paper import (
    Overlap,
    enrichment_words,
    group_rows,
    overlaps,
    paper_figures,
    term_rows,
    term_table,
)
from dglzarr.report.tables import Table, of_rows
from dglzarr.report.text import (
    UNITS,
    list_lines,
    reconstruction_line,
    source_notes,
    stability_lines,
)
from dglzarr.storage.files import place_of
from dglzarr.storage.store import open_store, read_attributes
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from dglzarr.models.files import History
    from dglzarr.report.lineage import Stores
    from dglzarr.report.panels import PanelRow
    from dglzarr.report.paper import PaperFigure
    from dglzarr.report.pictures import Picture

N_TABLE, N_SERIES, N_DUPLICATES = 50, 40, 100


@dataclass
class Shown:
    """The tables and pictures of a page, in its order."""

    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def draw(self, picture: Picture, *tables: Table) -> Picture:
        """Keep a picture and tables, and return the picture."""
        self.tables += tables
        self.pictures.append(picture)
        return picture

    def embedded(self) -> dict[str, Any]:
        """Return what the page's script reads: charts by name, and the tables that they draw."""
        charts = {one.name: {**one.chart, "alt": one.alt} for one in self.pictures if one.chart}
        used = {chart["table"] for chart in charts.values()} | {"genes"}
        return {
            "charts": charts,
            "tables": {table.name: table.embedded() for table in self.tables if table.name in used},
        }


def details(ds: xr.Dataset) -> dict[str, Any]:
    """Return what a store tells of itself, nothing where it does not."""
    return dict(ds.attrs.get("details") or {})


def head(opened: Mapping[str, xr.Dataset], uri: str) -> dict[str, object]:
    """Return the name of the study, when and by which version it was judged, and its counts."""
    expression, landmarks, evaluation = (
        opened[name] for name in ("expression", "landmarks", "evaluation")
    )
    split = expression["split"].values
    return {
        "study": "/".join(Path(uri.removeprefix("file://")).resolve().parts[-3:-1]),
        "date": str(evaluation.attrs.get("created", "")).partition("T")[0],
        "version": str(evaluation.attrs.get("dglzarr_version", "")),
        "headline": {
            "n_samples": int(split.size),
            "splits": {name: int((split == code).sum()) for code, name in enumerate(SPLITS)},
            "n_genes": int(expression.sizes["gene"]),
            "n_series": len(set(texts(expression, "series"))),
            "n_landmarks": int(landmarks["is_landmark"].values.sum()),
            "n_distinct_genes": details(landmarks).get("n_distinct_genes"),
        },
    }


# ---------------------------------------------------------------- panels


def panel_sections(
    opened: Mapping[str, xr.Dataset], rows: Sequence[PanelRow], shown: Shown
) -> dict[str, object]:
    """Return each cohort with its table, verdict and pictures, and the genes that panels share."""
    evaluation = opened["evaluation"]
    shown.tables.append(pictures.panel_table(rows))
    found = [
        _cohort(name, predictor, rows, evaluation)
        for name in cohorts(evaluation)
        for predictor in texts(evaluation, "predictor")
    ]
    for number, cohort in enumerate(found[1:], start=1):
        key = (str(cohort["name"]), str(cohort["predictor"]))
        strip = pictures.panel_strip(rows, *key, f"panels-{number}")
        cohort["picture"] = shown.draw(strip) if strip else None
    shared = overlaps(opened["landmarks"])
    names = [one.name for one in fields(Overlap)]
    columns = {name: [asdict(row)[name] for row in shared] for name in names}
    shown.tables.append(Table("overlaps", "Genes that two panels share", columns))
    return {
        "held_out": [one for one in found if one["name"] == found[0]["name"]],
        "external": [one for one in found if one["name"] != found[0]["name"]],
        "panel_pictures": [shown.draw(one) for one in pictures.panel_pictures(rows, evaluation)],
        "overlaps": shared,
    }


def _cohort(
    name: str, predictor: str, rows: Sequence[PanelRow], evaluation: xr.Dataset
) -> dict[str, object]:
    here = evaluation.isel(cohort=texts(evaluation, "cohort").index(name))
    mine = [row for row in rows if (row.cohort, row.predictor) == (name, predictor)]
    return {
        "name": name,
        "predictor": predictor,
        "n_series": int(here["n_series"]),
        "reason": str(here["reason"].values),
        "n_samples": int(here["n_samples"]),
        "n_measured": int(here["n_measured"]),
        "n_targets": int(np.isfinite(here["mae"].values).any(axis=(0, 1)).sum()),
        "rows": shown_rows(mine),
        "verdict": verdict(mine),
        "picture": None,
    }


def size_section(stores: Stores, shown: Shown) -> dict[str, object] | None:
    """Return table, sentences and picture of the cross-validated comparison, where there is one."""
    if "comparison" not in stores:
        return None
    rows = comparison_rows(uris_of(stores["comparison"])[0])
    flat = [{k: v for k, v in asdict(row).items() if k != "versus_twice"} for row in rows]
    shown.tables.append(of_rows("comparison", "Panels of several sizes, cross-validated", flat))
    sizes = by_size(rows)
    return {
        "columns": COLUMNS,
        "rows": [cells(row) for row in rows],
        "verdict": comparison_verdict(rows),
        "picture": shown.draw(*pictures.size_picture(sizes)) if sizes else None,
    }


# ---------------------------------------------------------------- genes and network


def gene_sections(opened: Mapping[str, xr.Dataset], shown: Shown) -> dict[str, object]:
    """Return the panel's genes and how scores are spread; the table of all genes is left."""
    landmarks = opened["landmarks"]
    panel = [row for row in ranked(landmarks) if row["is_landmark"]]
    shown.tables.append(gene_table(opened))
    return {
        "top": panel[:N_TABLE],
        "n_panel": len(panel),
        "has_forced": any(row["is_forced"] for row in panel),
        "gain_of_all": sum(row["gain"] for row in panel) if "gain" in landmarks else None,
        "list_lines": list_lines(landmarks),
        "top_picture": shown.draw(pictures.top_picture(panel)),
        "score_pictures": [shown.draw(one) for one in pictures.score_pictures(landmarks)],
    }


def training_section(
    opened: Mapping[str, xr.Dataset], stores: Stores, model: str, shown: Shown
) -> dict[str, object]:
    """Return the learning curve, and the network beside principal components."""
    table = None
    if "reconstruction" in opened:
        table = pictures.rival_table(details(opened["reconstruction"]))
    return {
        "learning": shown.draw(*pictures.learning_picture(history_of(model))),
        "rivals": shown.draw(pictures.rival_picture(table), table) if table else None,
        "reconstruction": [
            reconstruction_line(uri) for uri in uris_of(stores.get("reconstruction", ()))[:1]
        ],
        "stability": stability_lines(uris_of(stores["stability"])[0])
        if "stability" in stores
        else [],
    }


def history_of(model: str) -> History:
    """Return the learning curve of a model's folder.

    Raises
    ------
    StoreError
        When it cannot be read.
    """
    path = place_of(model, HISTORY)
    try:
        return read_history(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}. Train the model again.") from error


# ---------------------------------------------------------------- samples


def sample_sections(
    opened: Mapping[str, xr.Dataset], stores: Stores, sources: Sequence[str], shown: Shown
) -> dict[str, object]:
    """Return sources, series, normalization, near-duplicates and the map of samples."""
    expression, mask = opened["expression"], opened["samples"]
    rows = samples.source_rows(details(expression).get("per_source") or [], sources)
    series, left_out = samples.series_table(expression), samples.duplicate_table(mask, expression)
    shown.tables += [samples.source_table(rows), series, left_out]
    spread, of_map = samples.spread_table(stores, expression), samples.map_table(mask, expression)
    threshold = details(mask).get("threshold")
    has_distance = np.isfinite(np.array(left_out.columns["distance"], dtype=np.float64)).any()
    return {
        "units": UNITS,
        "sources": rows,
        "notes": [
            *(
                f"{raw_name(uri)}: {note}"
                for uri in sources
                for note in source_notes(details(open_store(uri)))
            ),
            *details(expression).get("notes", ()),
        ],
        "series": list(zip(*(v[:N_SERIES] for v in series.columns.values()), strict=True)),
        "n_more_series": max(0, series.n_rows - N_SERIES),
        "n_missing": int(expression["n_missing"].values.sum()),
        "is_copied": _is_copied(stores),
        "spread": shown.draw(pictures.spread_picture(spread), spread) if spread else None,
        "n_dropped": left_out.n_rows,
        "left_out": list(zip(*(v[:N_DUPLICATES] for v in left_out.columns.values()), strict=True)),
        "n_more_left_out": max(0, left_out.n_rows - N_DUPLICATES),
        "distances": shown.draw(pictures.distance_picture(left_out, threshold))
        if has_distance
        else None,
        "sample_map": shown.draw(pictures.map_picture(of_map), of_map) if of_map else None,
        "n_clusters": mask.sizes["cluster_index"],
        "within_clusters": mask.attrs["parameters"].get("rule") == "dgex",
        "threshold": threshold,
    }


def _is_copied(stores: Stores) -> bool:
    """Return whether values were taken as normalized already."""
    if "normalized" not in stores:
        return False
    attributes = read_attributes(uris_of(stores["normalized"])[0]) or {}
    return dict(attributes.get("parameters") or {}).get("method") == "none"


# ---------------------------------------------------------------- the paper's, and lineage


def paper_sections(
    opened: Mapping[str, xr.Dataset], shown: Shown
) -> tuple[dict[str, object], list[PaperFigure]]:
    """Return the paper's figures by the section they stand in, with groups and terms; and them."""
    drawn = paper_figures(opened)
    terms: list[dict[str, object]] = []
    if "enrichment" in opened:
        terms = term_rows(opened["enrichment"])
        shown.tables.append(term_table(opened["enrichment"]))
    groups = group_rows(opened["groups"]) if "groups" in opened else []
    shown.tables += [of_rows("groups", "Known groups of samples", groups)] if groups else []
    by_section: dict[str, list[tuple[str, Picture]]] = {}
    for figure in drawn:
        number = figure.name.split("-")[1]
        made = shown.draw(pictures.paper_picture(figure))
        by_section.setdefault(number, []).append((figure.title, made))
    has_terms = "enrichment" in opened
    return {
        "paper": by_section,
        "groups": groups,
        "terms": terms,
        "enriched": enrichment_words(opened["enrichment"]) if has_terms else "",
        "n_query": details(opened["enrichment"])["panels"]["mined"]["n_query"]
        if has_terms
        else None,
    }, drawn


def lineage_sections(
    opened: Mapping[str, xr.Dataset],
    stores: Stores,
    model: str,
    sources: Sequence[str],
    shown: Shown,
) -> dict[str, object]:
    """Return every store with what it was made from, and every parameter in one table."""
    rows = [*lineage(stores), model_lineage(model), *lineage({"raw": sources})]
    settings = settings_table(rows)
    shown.tables += [settings, lineage_table(rows)]
    return {
        "lineage": rows,
        "settings": list(zip(*settings.columns.values(), strict=True)),
        "max_delta_error": details(opened["scores"]).get("max_delta_error"),
    }
