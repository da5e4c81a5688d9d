"""Which stores there are, what stands in each, and each as a lazy Dataset."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.query.lazy import open_parts, readable
from dglzarr.storage.declare import text_array
from dglzarr.storage.files import place_of, store_nbytes
from dglzarr.storage.finished import is_whole, read_finished
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import missing_regions, open_store, read_attributes, regions
from dglzarr.storage.study import (
    MANIFEST,
    OPTIONAL,
    SEGMENTED,
    WHOLE,
    list_segments,
    open_study,
    studies_in,
)
from dglzarr.storage.together import other_inputs, root_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


def open(uri: str) -> xr.Dataset:  # noqa: A001  (dglzarr.open, as in xarray and zarr)
    """Return any dglzarr store as a validated, lazy Dataset.

    A warning tells of one that was made from another store than stands in its study.

    Parameters
    ----------
    uri
        A store; or a study's root and the name of a store, as in ``"study#normalized"``.

    Raises
    ------
    StoreError
        When there is no store, it is foreign, or it is not complete.
    SchemaError
        When it does not match its schema.
    """
    with readable(uri):
        uris = resolve(uri)
        found = open_parts(uris)
    root = root_of(uris[0])
    if root and is_study(root):
        for place, problem in other_inputs(root, uris).items():
            logger.warning("%s: %s", place, problem)
    return found


def gene_keys(ds: xr.Dataset) -> NDArray[Any]:
    """Return what gene each feature measures: its gene ID, else symbol, else its own label."""
    keys = text_array(ds["gene"].values)
    for name in ("gene_symbol", "gene_id"):
        if name in ds:
            known = ds[name].values != ""
            keys[known] = ds[name].values[known]
    return keys


def describe(uri: str) -> dict[str, Any]:
    """Return schema, sizes, lineage and completeness of a store, complete or not.

    Raises
    ------
    StoreError
        When there is no dglzarr store.
    """
    with readable(uri):
        found = read_finished(uri)
        attributes = found.attributes if found else read_attributes(uri) or {}
    if attributes.get("dglzarr_schema") not in SPECS:
        open(uri)
    spec = SPECS[attributes["dglzarr_schema"]]
    complete = bool(attributes.get("complete"))
    if found is not None and is_whole(found):
        sizes, nbytes = found.sizes, found.nbytes
        length = attributes["region_length"] if spec.region_arrays else 0
        n_regions, n_missing = -(-sizes["sample"] // length) if length else 0, 0
    else:
        sizes, nbytes = _sizes(uri) if complete else {}, store_nbytes(uri)
        n_regions = len(regions(uri)) if spec.region_arrays else 0
        n_missing = len(missing_regions(uri)) if spec.region_arrays else 0
    return {
        "uri": uri,
        "schema": f"{spec.name} version {attributes.get('dglzarr_schema_version')}",
        "description": spec.description,
        "complete": complete,
        "regions": f"{n_regions - n_missing} of {n_regions}" if n_regions else "-",
        "sizes": sizes,
        "nbytes": nbytes,
        "store_id": attributes.get("store_id"),
        "created": attributes.get("created"),
        "dglzarr_version": attributes.get("dglzarr_version"),
        "inputs": attributes.get("inputs", []),
        "parameters": attributes.get("parameters", {}),
        "details": attributes.get("details", {}),
    }


def describe_study(root: str) -> list[dict[str, Any]]:
    """Return what stands in a study: ``describe`` of each store, and its ``"problem"`` if any.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    found = []
    for uri in stores(root):
        try:
            found.append({**describe(uri), "problem": ""})
        except DglzarrError as error:
            found.append(
                {
                    "uri": uri,
                    "complete": False,
                    "regions": "-",
                    "sizes": {},
                    "nbytes": store_nbytes(uri),
                    "problem": str(error),
                }
            )
    return found


def _sizes(uri: str) -> dict[str, int]:
    with readable(uri):
        return {str(k): int(v) for k, v in open_store(uri, whole=False).sizes.items()}


def resolve(name: str) -> list[str]:
    """Return the URIs that a store name stands for: itself, or the segments of STUDY#NAME.

    Raises
    ------
    StoreError
        When there is no such study, or ``name`` is a study and not one of its stores.
    """
    root, found, schema = name.partition("#")
    if found:
        return open_study(root).uris(schema)
    if is_study(name):
        known = ", ".join((*SEGMENTED, *WHOLE, *OPTIONAL))
        raise StoreError(f"{name}: expected a store, got a study. Choose {name}#NAME of {known}.")
    return [name]


def is_study(name: str) -> bool:
    """Return whether a study is meant: at ``name``, without its manifest too, or right in it."""
    is_there = place_of(name, MANIFEST).is_file() or bool(list_segments(name))
    return is_there or bool(studies_in(name))


def stores(name: str) -> list[str]:
    """Return the URIs of the stores of a study that exist, in the order they are made.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    study = open_study(name)
    made = [uri for schema in (*SEGMENTED, *WHOLE, *OPTIONAL) for uri in study.uris(schema)]
    return study.raws() + [uri for uri in made if place_of(uri, "zarr.json").exists()]
