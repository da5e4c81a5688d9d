"""What a study was made from and with: a row for each store, and one for each parameter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dglzarr.errors import StoreError
from dglzarr.models.files import MODEL
from dglzarr.report.tables import Table
from dglzarr.storage.files import place_of
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import open_store, read_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Stores = Mapping[str, str | Sequence[str]]

LONGEST_VALUE = 300


def uris_of(value: str | Sequence[str]) -> list[str]:
    """Return one or more URIs as a list."""
    return [value] if isinstance(value, str) else list(value)


def lineage(stores: Stores) -> list[dict[str, Any]]:
    """Return a row for each store, in the order of the stages."""
    rows = []
    for uri in (uri for name in SPECS if name in stores for uri in uris_of(stores[name])):
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


def model_lineage(model: str) -> dict[str, Any]:
    """Return the row of a model's folder.

    Raises
    ------
    StoreError
        When the model cannot be read.
    """
    path = place_of(model, MODEL)
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


def settings_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return every parameter of every store: what a study was made with, in one table."""
    found = [
        (row["schema"], row["name"], name, value)
        for row in rows
        for name, value in row["parameters"].items()
    ]
    names = ("made", "store", "parameter", "value")
    return Table(
        "settings",
        "Parameters of every store",
        {name: [one[i] for one in found] for i, name in enumerate(names)},
    )


def lineage_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the inputs of every store: place and identity."""
    found = [
        (row["schema"], row["name"], row["id"], row["created"], i.get("uri"), i.get("store_id"))
        for row in rows
        for i in (row["inputs"] or [{}])
    ]
    names = ("made", "store", "id", "created", "input", "input_id")
    columns = {name: [one[i] or "" for one in found] for i, name in enumerate(names)}
    return Table("lineage", "Stores, and what each was made from", columns)
