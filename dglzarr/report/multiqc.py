"""Tables of a report as custom content of MultiQC, which shows them beside other tools' results.

https://docs.seqera.io/multiqc/custom_content: a TSV whose comment lines are YAML, and whose name
ends in ``_mqc``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dglzarr.report.tables import cell, separated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dglzarr.report.tables import Table

PARENT = {
    "parent_id": "dglzarr",
    "parent_name": "dglzarr",
    "parent_description": "mines landmark genes from expression compendia and judges the panel.",
}


def multiqc_files(tables: Sequence[Table]) -> dict[str, str]:
    """Return the text of each file by its name: panels, sources, series and the learning curve."""
    named = {table.name: table for table in tables}
    made = {
        "panels": _panels(named["panels"]),
        "sources": _table(
            named["sources"],
            "Sources and how their scale was decided",
            {"source": "Source"},
            ("n_samples", "n_genes", "scale", "coverage", "value_median", "value_q99", "role"),
        ),
        "series": _table(
            named["series"],
            "Samples of each series by use",
            {"series": "Series"},
            ("train", "validation", "test"),
        ),
        "learning": _lines(named["learning"]),
    }
    return {f"dglzarr_{name}_mqc.tsv": text for name, text in made.items()}


def _header(name: str, title: str, description: str, plot: str, **config: Any) -> str:  # noqa: ANN401
    """Return comment lines of YAML; a JSON value is YAML too, and quotes whatever is in it."""
    told = {
        "id": f"dglzarr_{name}",
        "section_name": title,
        "description": description,
        **PARENT,
        "plot_type": plot,
        "pconfig": {"id": f"dglzarr_{name}_plot", "title": f"dglzarr: {title}", **config},
    }
    return "".join(f"# {key}: {json.dumps(value)}\n" for key, value in told.items())


def _panels(table: Table) -> str:
    columns = ("mean_mae", "low", "high", "versus_mined", "median_pcc", "n_genes", "n_missing")
    names = _unique(
        f"{panel} ({cohort}, {predictor})"
        for panel, cohort, predictor in zip(
            *(table.columns[name] for name in ("panel", "cohort", "predictor")), strict=True
        )
    )
    header = _header(
        "panels",
        "Panels",
        "Mean absolute error of target genes in z units, lower is better, by panel and cohort.",
        "table",
        col1_header="Panel",
    )
    return header + _body("Panel", names, table, columns)


def _table(table: Table, title: str, key: Mapping[str, str], columns: Sequence[str]) -> str:
    ((name, shown),) = key.items()
    header = _header(table.name, title, table.title, "table", col1_header=shown)
    return header + _body(shown, _unique(map(str, table.columns[name])), table, columns)


def _lines(table: Table) -> str:
    """Return the learning curve: a line a row, an epoch a column."""
    header = _header(
        "learning",
        "Training",
        "Loss by epoch: mean absolute error in z units.",
        "linegraph",
        xlab="epoch",
        ylab="loss",
    )
    rows = [[name, *map(cell, table.columns[name])] for name in ("training", "validation")]
    return header + separated(["line", *map(str, table.columns["epoch"])], rows)


def _body(first: str, names: Sequence[str], table: Table, columns: Sequence[str]) -> str:
    rows = zip(names, *(table.columns[name] for name in columns), strict=True)
    clean = ([cell("" if value is None else value) for value in row] for row in rows)
    return separated([first, *columns], clean)


def _unique(names: Any) -> list[str]:  # noqa: ANN401
    """Return names in one line each, those that come again with a number."""
    seen: dict[str, int] = {}
    found = []
    for name in (" ".join(name.split()) or "-" for name in names):
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return found
