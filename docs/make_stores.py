"""Writes docs/stores.md from the store specs; a test checks that the file is current."""

from pathlib import Path

from dglzarr.storage.declare import ArraySpec, StoreSpec
from dglzarr.storage.schemas import SPECS

TARGET = Path(__file__).with_name("stores.md")
WHEN = {"create": "labels", "region": "regions", "finish": "result"}
HEADER = """\
# The stores

Generated from `dglzarr/storage/schemas.py` by `make docs`; edit the specs, not this file.

Each store is one Zarr 3 group that opens as one xarray Dataset. Names marked · are coordinates.
Written: `labels` when the store is created, `regions` by one task per region of whole shards,
`result` when the stage finishes. Missing numbers are NaN, missing text is empty. Matrices (sample,
gene) are sharded and not compressed.

Every store carries the attributes `dglzarr_schema`, `dglzarr_schema_version`, `dglzarr_version`,
`store_id`, `inputs` (address and identity of what it was made from), `parameters`, `created` and
`complete`.
"""


def stores_markdown() -> str:
    """Return the page: a section with a table for each store."""
    return "\n".join([HEADER, *(_section(spec) for spec in SPECS.values())])


def _section(spec: StoreSpec) -> str:
    head = [
        f"## {spec.name} (version {spec.version})",
        "",
        " ".join([spec.description, *map(_is_read, spec.upgrades)]),
        "",
        "| Array | Dims | Type | Unit | Written | Meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(_row(array) for array in spec.arrays), ""])


def _is_read(version: int) -> str:
    return f"Version {version} is read too."


def _row(array: ArraySpec) -> str:
    name = f"`{array.name}`{' ·' if array.is_coord else ''}"
    attributes = "".join(f"; `{key}` {value}" for key, value in array.attrs.items())
    cells = [
        name,
        ", ".join(array.dims),
        array.dtype,
        array.units or "",
        WHEN[array.written] + ("" if array.required else ", optional"),
        array.description + attributes,
    ]
    return "| " + " | ".join(cells).replace("  ", " ") + " |"


if __name__ == "__main__":
    TARGET.write_text(stores_markdown(), encoding="utf-8")
