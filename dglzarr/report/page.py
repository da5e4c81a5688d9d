"""The report of a study: one HTML file that needs nothing else, tables and figures beside it.

Reads finished stores of every schema and the model's folder; writes ``report.html``, the tables
``landmarks.tsv``, ``sorted_genes.csv``, ``panels.tsv`` and ``overlaps.tsv``, and the folders
``figures`` and ``report_data``. Labels come from foreign files, so everything is escaped: what is
text by the template, what the page's script reads by `tables.for_script`.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2
from markupsafe import Markup

from dglzarr.report import sections
from dglzarr.report.cautions import cautions, nothing_against
from dglzarr.report.genes import ranked
from dglzarr.report.lineage import uris_of
from dglzarr.report.multiqc import multiqc_files
from dglzarr.report.panels import CHANCE, PanelRow, panel_rows
from dglzarr.report.sections import Shown, history_of
from dglzarr.report.tables import (
    FOLDER,
    cell,
    for_script,
    formatted,
    interval,
    separated,
    write,
    write_tables,
)
from dglzarr.report.text import without_old_replicates
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import open_store
from dglzarr.storage.together import check_together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from dglzarr.report.lineage import Stores
    from dglzarr.report.paper import PaperFigure

REQUIRED = ("expression", "samples", "scores", "landmarks", "evaluation")
OPTIONAL = ("reconstruction", "groups", "enrichment")
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "report.js")


def write_report(
    target: str,
    *,
    stores: Stores,
    model: str,
    sources: Sequence[str],
    title: str = "Mined landmark genes",
) -> str:
    """Return the URI of the HTML report written to `target`.

    Tables and the paper's figures are written beside it, and the page itself last. The same stores
    give the same bytes.

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
        When a store is missing or incomplete, two do not belong together, or the target cannot be
        written.
    """
    if missing := [name for name in REQUIRED if name not in stores]:
        raise ValueError(f"stores: expected {', '.join(REQUIRED)}, got no {missing[0]!r}.")
    stores = without_old_replicates(stores)
    known = (*REQUIRED, *(name for name in OPTIONAL if name in stores))
    opened = {name: open_store(stores[name], SPECS[name]) for name in known}
    check_together(target.rpartition("/")[0] or ".", [u for n in known for u in uris_of(stores[n])])
    rows = panel_rows(opened["evaluation"], opened["landmarks"])
    shown = Shown()
    paper, drawn = sections.paper_sections(opened, shown)
    context = {
        "title": title,
        "cautions": cautions(opened, rows, history_of(model)),
        "nothing_against": nothing_against(opened, rows),
        **sections.head(opened, uris_of(stores["evaluation"])[0]),
        **sections.panel_sections(opened, rows, shown),
        **sections.sample_sections(opened, stores, sources, shown),
        **sections.training_section(opened, stores, model, shown),
        **sections.gene_sections(opened, shown),
        "comparison": sections.size_section(stores, shown),
        **paper,
        **sections.lineage_sections(opened, stores, model, sources, shown),
    }
    page = _rendered(context, shown)
    _write_beside(target.rpartition("/")[0] or ".", opened, rows, drawn, shown)
    write(target, page)
    return target


def _rendered(context: Mapping[str, object], shown: Shown) -> str:
    """Return the page with its script, its style and the data that it draws."""
    package = files("dglzarr.report")
    own = {
        "style": Markup(package.joinpath("report.css").read_text(encoding="utf-8")),  # noqa: S704
        "scripts": [
            Markup(package.joinpath(name).read_text(encoding="utf-8"))  # noqa: S704
            for name in SCRIPTS
        ],
        "data": Markup(for_script(shown.embedded())),  # noqa: S704
    }
    return _environment().get_template("report.html").render(**context, **own)


def _write_beside(
    folder: str,
    opened: Mapping[str, xr.Dataset],
    rows: Sequence[PanelRow],
    drawn: Sequence[PaperFigure],
    shown: Shown,
) -> None:
    """Write the tables and figures that stand beside the page."""
    for figure in drawn:
        write(f"{folder}/figures/{figure.name}.svg", figure.drawing.svg)
        write(f"{folder}/figures/{figure.name}.png", figure.drawing.png)
    for name in ("landmarks.tsv", "sorted_genes.csv"):
        write(f"{folder}/{name}", _landmark_text(opened["landmarks"], name))
    names = [field.name for field in fields(PanelRow)]
    told = (asdict(row).values() for row in rows if row.panel != CHANCE)
    write(f"{folder}/panels.tsv", separated(names, (map(cell, row) for row in told)))
    shared = next(table for table in shown.tables if table.name == "overlaps")
    write(f"{folder}/overlaps.tsv", shared.text())
    write_tables(f"{folder}/{FOLDER}", shown.tables, multiqc_files(shown.tables))


def _landmark_text(landmarks: xr.Dataset, name: str) -> str:
    header = ["rank", "gene", "gene_symbol", "gene_id", "score", "gain", "is_landmark", "is_forced"]
    rows = ([cell(row[key]) for key in header] for row in ranked(landmarks))
    return separated(header, rows, separator="," if name.endswith(".csv") else "\t")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dglzarr", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": partial(formatted, form=",.0f"),
        "number": lambda value, digits=4: formatted(value, f".{digits}f"),
        "percent": partial(formatted, form=".1%"),
        "share": partial(formatted, form=".2%"),
        "small": lambda value, digits=2: formatted(value, f".{digits}g"),
        "interval": interval,
    }
    return environment
