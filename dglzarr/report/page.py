"""The report of a study: one HTML file that needs nothing else, tables and figures beside it.

Reads finished stores of every schema and the model's folder; writes ``report.html``, the tables
``landmarks.tsv``, ``sorted_genes.csv``, ``panels.tsv`` and ``overlaps.tsv``, and the folder
``figures``. Labels come from foreign files, so everything is escaped.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from dglzarr.errors import StoreError
from dglzarr.kernels.split import SPLITS
from dglzarr.models.files import MODEL, read_history
from dglzarr.report import figures
from dglzarr.report.cautions import cautions
from dglzarr.report.comparison import (
    COLUMNS,
    by_size,
    cells,
    comparison_rows,
    comparison_verdict,
)
from dglzarr.report.panels import CHANCE, PanelRow, cohorts, panel_rows, shown_rows, texts, verdict
from dglzarr.report.paper import Overlap, group_rows, overlaps, paper_figures, term_rows
from dglzarr.report.text import UNITS, reconstruction_line, stability_lines, without_old_replicates
from dglzarr.storage.files import put, told
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import open_store, read_attributes
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import xarray as xr

    from dglzarr.models.files import History

    Stores = Mapping[str, str | Sequence[str]]

REQUIRED = ("expression", "samples", "scores", "landmarks", "evaluation")
OPTIONAL = ("reconstruction", "groups", "enrichment")
N_TABLE, N_BARS, N_SERIES = 50, 30, 40
LONGEST_VALUE = 300
SOURCE_FIELDS = (
    "source", "series", "n_samples", "n_genes", "role", "format", "scale", "unit", "n_negative",
    "coverage", "n_missing_genes", "quantiles",
)  # fmt: skip
QUANTILES = ("min", "median", "q99", "max")


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page: its data URI, what it shows, and how to read it."""

    uri: str
    alt: str
    caption: str


def write_report(
    target: str,
    *,
    stores: Stores,
    model: str,
    sources: Sequence[str],
    title: str = "Mined landmark genes",
) -> str:
    """Return the URI of the HTML report written to `target`.

    Tables and the paper's figures are written beside it. The same stores give the same bytes.

    Parameters
    ----------
    target
        The HTML file, replaced if it exists.
    stores
        Schema name to the URI of a store, or to those of its segments.
    model
        The model's folder.
    sources
        The raw stores.
    title
        Headline of the page.

    Raises
    ------
    ValueError
        When a store that the page needs is not named.
    StoreError
        When a store is missing or incomplete, or the target cannot be written.
    """
    if missing := [name for name in REQUIRED if name not in stores]:
        raise ValueError(f"stores: expected {', '.join(REQUIRED)}, got no {missing[0]!r}.")
    stores = without_old_replicates(stores)
    known = (*REQUIRED, *(name for name in OPTIONAL if name in stores))
    opened = {name: open_store(stores[name], SPECS[name]) for name in known}
    folder = target.rpartition("/")[0] or "."
    history = _history(model)
    learning, model_lineage = _learning_picture(history), _model_lineage(model)
    rows = panel_rows(opened["evaluation"], opened["landmarks"])
    context = {
        "title": title,
        "cautions": cautions(opened, rows, history),
        **_made(opened["evaluation"], _uris(stores["evaluation"])[0]),
        "units": UNITS,
        "headline": _headline(opened),
        "cohorts": [
            _cohort(name, predictor, rows, opened["evaluation"])
            for name in cohorts(opened["evaluation"])
            for predictor in texts(opened["evaluation"], "predictor")
        ],
        "panel_pictures": _panel_pictures(rows, opened["evaluation"]),
        "comparison": _comparison(stores),
        **_landmark_context(opened["landmarks"]),
        "paper": _paper_context(opened, folder),
        "learning": learning,
        "reconstruction": _lines_of(
            stores, "reconstruction", lambda uri: [reconstruction_line(uri)]
        ),
        "stability": _lines_of(stores, "stability", stability_lines),
        **_data_context(opened, sources),
        "lineage": [*_lineage(stores), model_lineage, *_lineage({"raw": sources})],
        "max_delta_error": _details(opened["scores"]).get("max_delta_error"),
    }
    for table in ("landmarks.tsv", "sorted_genes.csv"):
        write_landmark_table(f"{folder}/{table}", _uris(stores["landmarks"])[0])
    names = [field.name for field in fields(PanelRow)]
    told = (asdict(row).values() for row in rows if row.panel != CHANCE)
    _write(f"{folder}/panels.tsv", _tsv(names, (map(_cell, row) for row in told)))
    _write(target, _environment().get_template("report.html").render(context))
    return target


def write_landmark_table(target: str, landmarks: str) -> None:
    """Write every gene by rank as separated text, so that the panel can be used elsewhere.

    A name that ends in ``.csv`` is written with commas, any other with tabs.

    Raises
    ------
    StoreError
        When the store is missing or incomplete, or the target cannot be written.
    """
    ds = open_store(landmarks, SPECS["landmarks"])
    header = ["rank", "gene", "gene_symbol", "gene_id", "score", "is_landmark", "is_forced"]
    rows = ([_cell(row[name]) for name in header] for row in _ranked(ds))
    _write(target, _tsv(header, rows, separator="," if target.endswith(".csv") else "\t"))


# ---------------------------------------------------------------- parts of the page


def _lines_of(stores: Stores, name: str, tell: Callable[[str], list[str]]) -> list[str]:
    """Return what a store has to tell, nothing where the study has none."""
    return tell(_uris(stores[name])[0]) if name in stores else []


def _made(evaluation: xr.Dataset, uri: str) -> dict[str, str]:
    """Return the name of the study, and when and by which version it was judged."""
    return {
        "study": "/".join(Path(uri.removeprefix("file://")).resolve().parts[-3:-1]),
        "date": str(evaluation.attrs.get("created", "")).partition("T")[0],
        "version": str(evaluation.attrs.get("dglzarr_version", "")),
    }


def _headline(opened: Mapping[str, xr.Dataset]) -> dict[str, object]:
    expression, landmarks = opened["expression"], opened["landmarks"]
    split = expression["split"].values
    return {
        "n_samples": int(split.size),
        "splits": {name: int((split == code).sum()) for code, name in enumerate(SPLITS)},
        "n_genes": int(expression.sizes["gene"]),
        "n_series": len(set(texts(expression, "series"))),
        "n_landmarks": int(landmarks["is_landmark"].values.sum()),
        "n_distinct_genes": _details(landmarks).get("n_distinct_genes"),
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
    }


def _panel_pictures(rows: Sequence[PanelRow], evaluation: xr.Dataset) -> list[Picture]:
    """Return the pictures of the held-out samples, where the mined panel could be evaluated."""
    held_out, predictor = cohorts(evaluation)[0], texts(evaluation, "predictor")[0]
    rows = [row for row in rows if row.predictor == predictor]
    maes = {row.panel: row.mean_mae for row in rows if row.cohort == held_out}
    by_kind = {
        kind: {
            row.panel: row.mean_mae
            for row in rows
            if row.cohort == held_out and row.kind == kind and math.isfinite(row.mean_mae)
        }
        for kind in ("mined", "selector", "published", "random")
    }
    if not by_kind["mined"]:
        return []
    strip = figures.panel_strip(
        maes["mined"],
        by_kind["selector"] | by_kind["published"],
        np.array([*by_kind["random"].values()]),
    )
    pictures = [
        _picture(
            strip,
            "Mean error of the mined panel, other selectors, published lists and random panels",
            "Each dot is one panel of landmark genes, judged on held-out samples. Further left is "
            "better. If the mined panel lies among the grey dots, a random draw does as well.",
        )
    ]
    rivals = by_kind["published"] or by_kind["random"]
    if not rivals:
        return pictures
    rival = min(rivals, key=rivals.__getitem__) if by_kind["published"] else next(iter(rivals))
    return [*pictures, _gene_picture(evaluation, held_out, rival)]


def _gene_picture(evaluation: xr.Dataset, cohort: str, rival: str) -> Picture:
    panels = texts(evaluation, "panel")
    at = texts(evaluation, "cohort").index(cohort)
    mae = evaluation["mae"].isel(cohort=at, predictor=0).values
    mined, other = mae[panels.index("mined")], mae[panels.index(rival)]
    known = np.isfinite(mined) & np.isfinite(other)
    n_better = int((mined[known] < other[known]).sum())
    return _picture(
        figures.gene_scatter(mined[known], other[known], other_name=rival),
        f"Error of every target gene with the mined panel against {rival}",
        f"Each dot is one target gene. Below the line the mined panel predicts it better than "
        f"{rival}: {n_better:,} of {int(known.sum()):,} genes.",
    )


def _comparison(stores: Stores) -> dict[str, object] | None:
    """Return table, sentences and picture of the cross-validated comparison, where there is one."""
    if "comparison" not in stores:
        return None
    rows = comparison_rows(_uris(stores["comparison"])[0])
    shown = by_size(rows)
    picture = shown and _picture(
        figures.accuracy_by_size(**shown),
        "Mean error of each kind of panel against its number of genes",
        "The grey band spans the random panels of each size; a panel under it beats them all.",
    )
    return {
        "columns": COLUMNS,
        "rows": [cells(row) for row in rows],
        "verdict": comparison_verdict(rows),
        "picture": picture,
    }


def _landmark_context(landmarks: xr.Dataset) -> dict[str, object]:
    panel = [row for row in _ranked(landmarks) if row["is_landmark"]]
    top = panel[:N_BARS]
    scores = landmarks["score"].values
    inside = landmarks["is_landmark"].values
    labels = [
        f"{row['gene_symbol']} ({row['gene']})"
        if row["gene_symbol"] not in ("", row["gene"])
        else str(row["gene"])
        for row in top
    ]
    return {
        "top": panel[:N_TABLE],
        "n_panel": len(panel),
        "has_forced": any(row["is_forced"] for row in panel),
        "top_picture": _picture(
            figures.top_genes(labels, np.array([row["score"] for row in top])),
            f"Scores of the first {len(top)} genes of the panel",
            f"DeepLIFT scores of the first {len(top)} genes of the mined panel, in its order.",
        ),
        "score_pictures": [
            _picture(
                figures.score_histogram(scores, inside),
                "How many genes have which score, in all and in the panel",
                "How the scores are spread over all genes, and over those of the mined panel.",
            ),
            _picture(
                figures.score_curve(scores, inside),
                "Scores of all genes from best to worst, those of the panel marked",
                "All genes from best to worst, the mined panel marked. A steep fall followed by a "
                "flat tail says that few genes matter; a smooth slope says that the scores alone "
                "draw no line.",
            ),
        ],
    }


def _paper_context(opened: Mapping[str, xr.Dataset], folder: str) -> dict[str, object]:
    """Write the paper's figures and the overlap of panels; return what the page shows of them."""
    pictures = []
    for figure in paper_figures(opened):
        _write(f"{folder}/figures/{figure.name}.svg", figure.drawing.svg)
        _write(f"{folder}/figures/{figure.name}.png", figure.drawing.png)
        picture = _picture(figure.drawing.svg, figure.alt, figure.caption)
        pictures.append((figure.title, picture))
    shared = overlaps(opened["landmarks"])
    names = [field.name for field in fields(Overlap)]
    _write(f"{folder}/overlaps.tsv", _tsv(names, (asdict(row).values() for row in shared)))
    return {
        "pictures": pictures,
        "overlaps": shared,
        "groups": group_rows(opened["groups"]) if "groups" in opened else [],
        "terms": term_rows(opened["enrichment"]) if "enrichment" in opened else [],
        "n_query": _details(opened["enrichment"])["panels"]["mined"]["n_query"]
        if "enrichment" in opened
        else None,
    }


def _history(model: str) -> History:
    path = Path(model) / "history.csv"
    try:
        return read_history(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}. Train the model again.") from error


def _learning_picture(history: History) -> Picture:
    return _picture(
        figures.learning_curve(
            history.epoch, history.loss, history.val_loss, best_epoch=history.best_epoch
        ),
        "Loss by epoch in training and validation",
        f"{history.last_epoch} epochs in {history.seconds.sum():,.0f} seconds. Both curves should "
        "fall and level out. Validation rising while training falls means over-fitting. Training "
        "can lie above validation, because dropout disturbs only training.",
    )


def _data_context(opened: Mapping[str, xr.Dataset], sources: Sequence[str]) -> dict[str, object]:
    expression, samples = opened["expression"], opened["samples"]
    split = [SPLITS[code] for code in expression["split"].values]
    series: dict[str, dict[str, int]] = {}
    for name, part in zip(texts(expression, "series"), split, strict=True):
        series.setdefault(name, dict.fromkeys(SPLITS, 0))[part] += 1
    ordered = sorted(series.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return {
        "sources": _source_rows(_details(expression).get("per_source") or [], sources),
        "series": ordered[:N_SERIES],
        "n_more_series": max(0, len(ordered) - N_SERIES),
        "n_missing": int(expression["n_missing"].values.sum()),
        "n_dropped": int((~samples["keep"].values).sum()),
        "n_clusters": samples.sizes["cluster_index"],
        "within_clusters": samples.attrs["parameters"].get("rule") == "dgex",
        "threshold": _details(samples).get("threshold"),
    }


def _source_rows(
    per_source: Sequence[Mapping[str, Any]], sources: Sequence[str]
) -> list[dict[str, Any]]:
    """Return what is known of each source, from its raw store and from the joined one."""
    rows: dict[str, dict[str, Any]] = {}
    for uri in sources:
        raw, name = open_store(uri), raw_name(uri)
        rows[name] = {
            "source": name,
            "series": sorted(set(texts(raw, "series"))),
            "n_samples": raw.sizes["sample"],
            "n_genes": raw.sizes["gene"],
            **_details(raw),
        }
    for entry in per_source:
        name = str(entry.get("source"))
        rows[name] = {**entry, **rows.get(name, {})}
    return [_source_row(row) for row in rows.values()]


def _source_row(known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with every field, None where nothing is known."""
    row = {name: known.get(name) for name in SOURCE_FIELDS}
    quantiles = row["quantiles"] or {}
    return row | {
        "series": _list(_uris(row["series"] or [])),
        "quantiles": {name: quantiles.get(name) for name in QUANTILES},
    }


# ---------------------------------------------------------------- lineage


def _lineage(stores: Stores) -> list[dict[str, object]]:
    """Return a row for each store, in the order of the stages."""
    rows = []
    for uri in (uri for name in SPECS if name in stores for uri in _uris(stores[name])):
        found = read_attributes(uri) or {}
        rows.append(
            {
                "name": uri.rstrip("/").rpartition("/")[2],
                "uri": uri,
                "schema": found.get("dglzarr_schema"),
                "version": found.get("dglzarr_schema_version"),
                "id": found.get("store_id"),
                "created": found.get("created"),
                "dglzarr_version": found.get("dglzarr_version"),
                "sizes": _sizes(uri, str(found["dglzarr_schema"])),
                "inputs": found.get("inputs", []),
                "parameters": _shown_values(found.get("parameters", {})),
            }
        )
    return rows


def _sizes(uri: str, schema: str) -> str:
    """Return the sizes of a store in the order its spec names the dims."""
    sizes = open_store(uri).sizes
    dims = dict.fromkeys(dim for array in SPECS[schema].arrays for dim in array.dims)
    return ", ".join(f"{sizes[dim]:,} {dim}" for dim in dims if dim in sizes)


def _model_lineage(model: str) -> dict[str, object]:
    path = Path(model) / MODEL
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}. Train the model again.") from error
    return {
        "name": path.parent.name,
        "uri": model,
        "schema": "model",
        "version": found.get("format_version"),
        "id": found.get("model_id"),
        "created": None,
        "dglzarr_version": None,
        "sizes": f"{len(found.get('genes', [])):,} gene",
        "inputs": found.get("inputs", []),
        "parameters": _shown_values({**found.get("config", {}), **found.get("parameters", {})}),
    }


def _shown_values(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as short JSON, by name."""
    shown = {}
    for name, value in sorted(parameters.items()):
        text = json.dumps(value, sort_keys=True)
        is_long = len(text) > LONGEST_VALUE
        shown[name] = f"{text[:LONGEST_VALUE]}... ({len(text):,} characters)" if is_long else text
    return shown


# ---------------------------------------------------------------- helpers


def _uris(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _details(ds: xr.Dataset) -> dict[str, Any]:
    return dict(ds.attrs.get("details") or {})


def _list(values: Sequence[str], n_most: int = 3) -> str:
    """Return the first values in one line, and how many more there are."""
    more = f" and {len(values) - n_most:,} more" if len(values) > n_most else ""
    return ", ".join(values[:n_most]) + more


def _ranked(landmarks: xr.Dataset) -> list[dict[str, Any]]:
    """Return one row for each gene, best first."""
    rank = landmarks["rank"].values
    columns = {name: texts(landmarks, name) for name in ("gene", "gene_symbol", "gene_id")}
    score = landmarks["score"].values.tolist()
    inside = landmarks["is_landmark"].values.tolist()
    n_forced = int(_details(landmarks).get("n_forced") or 0)  # they stand first
    return [
        {
            "rank": int(rank[i]),
            **{name: values[i] for name, values in columns.items()},
            "score": score[i],
            "is_landmark": inside[i],
            "is_forced": inside[i] and int(rank[i]) <= n_forced,
        }
        for i in np.argsort(rank, kind="stable").tolist()
    ]


def _cell(value: object) -> object:
    """Return a value of a table, nothing where a number is unknown."""
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _picture(svg: str, alt: str, caption: str) -> Picture:
    encoded = base64.b64encode(svg.encode()).decode()
    return Picture(f"data:image/svg+xml;base64,{encoded}", alt, caption)


def _tsv(header: Sequence[str], rows: Iterable[Iterable[object]], *, separator: str = "\t") -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _write(target: str, content: str | bytes) -> None:
    """Write a file, making its folder."""
    with told(target, remedy="Choose a writable root with free space."):
        put(target, content.encode() if isinstance(content, str) else content)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dglzarr", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "number": _number,
        "percent": _percent,
        "small": _small,
        "interval": _interval,
    }
    return environment


def _count(value: float | None) -> str:
    """Return a number of things, '-' where unknown."""
    return _formatted(value, ",.0f")


def _number(value: float | None, digits: int = 4) -> str:
    """Return a measured value, '-' where unknown."""
    return _formatted(value, f".{digits}f")


def _percent(value: float | None) -> str:
    """Return a share, '-' where unknown."""
    return _formatted(value, ".1%")


def _small(value: float | None, digits: int = 2) -> str:
    """Return a p-value or a score in as many digits, '-' where unknown."""
    return _formatted(value, f".{digits}g")


def _interval(ends: tuple[float, float], form: str = ".4f") -> str:
    """Return both ends of an interval, '-' where it is unknown."""
    return "-" if not all(map(math.isfinite, ends)) else f"{ends[0]:{form}} to {ends[1]:{form}}"


def _formatted(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)
