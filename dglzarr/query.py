"""Read-only questions to finished stores: open any of them, rows and columns by label.

Writes nothing. ``open`` returns the validated lazy Dataset of a store, or of the concatenated
segments of a study's store.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.errors import DglzarrError, StoreError, hint
from dglzarr.models.files import MODEL, WEIGHTS, load_model
from dglzarr.storage.files import open_filesystem, store_nbytes
from dglzarr.storage.objects import (
    array_of,
    changed,
    list_objects,
    measure,
    mismatch,
    object_of,
    read_record,
)
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import (
    Region,
    checked_attributes,
    missing_regions,
    open_store,
    read_attributes,
    regions,
)
from dglzarr.storage.study import MANIFEST, OPTIONAL, SEGMENTED, WHOLE, open_study

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.declare import StoreSpec
    from dglzarr.storage.objects import Record
    from dglzarr.storage.options import Progress


LINES = ("gene", "term", "representation")
"""What a line of a table is, where no samples are asked for: the first of these in a store."""


def open(uri: str) -> xr.Dataset:  # noqa: A001  (dglzarr.open, as in xarray and zarr)
    """Return any dglzarr store as a validated, lazy Dataset.

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
    with _readable(uri):
        return open_store(resolve(uri))


def gene_keys(ds: xr.Dataset) -> NDArray[Any]:
    """Return what gene each feature measures: its gene ID, else symbol, else its own label."""
    keys = np.array(ds["gene"].values, dtype=np.dtypes.StringDType())
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
    with _readable(uri):
        attributes = read_attributes(uri) or {}
    if attributes.get("dglzarr_schema") not in SPECS:
        open(uri)
    spec = SPECS[attributes["dglzarr_schema"]]
    n_regions = len(regions(uri)) if spec.region_arrays else 0
    n_missing = len(missing_regions(uri)) if spec.region_arrays else 0
    complete = bool(attributes.get("complete"))
    return {
        "uri": uri,
        "schema": f"{spec.name} version {attributes.get('dglzarr_schema_version')}",
        "description": spec.description,
        "complete": complete,
        "regions": f"{n_regions - n_missing} of {n_regions}" if n_regions else "-",
        "sizes": _sizes(uri) if complete else {},
        "nbytes": store_nbytes(uri),
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


def verify(uri: str, *, on_progress: Progress | None = None) -> dict[str, Any]:
    """Return what a full read of a store found; problems are listed under ``"problems"``.

    Compares every object with the CRC-32C that was recorded when it was written. Checks metadata
    against the schema, that every region exists and can be read, that no value is
    infinite, that the missing values of a sample are as many as were counted, that a quantile
    reference ascends and every sample normalized by it stays within it, that no contribution but a
    signed mean is negative, and that ranks are a permutation of the genes.

    Raises
    ------
    StoreError, SchemaError
        When the store cannot be opened at all.
    """
    return _verify(uri, _Told(store_nbytes(uri), on_progress))


class _Told:
    """Tells how many bytes were read, of all that there are to read."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total, self._done, self._on_progress = total, 0, on_progress

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        if self._on_progress:
            done, total = (math.ceil(n / 1e6) for n in (self._done, self._total))
            self._on_progress("verifying, MB", min(done, total), total)


def _verify(uri: str, told: _Told) -> dict[str, Any]:
    with _readable(uri):
        attributes = checked_attributes(uri)
        record = read_record(uri, attributes)
    spec = SPECS[attributes["dglzarr_schema"]]
    problems: list[str] = []
    with suppress(StoreError):  # where labels are damaged the objects tell
        if spec.region_arrays and (missing := missing_regions(uri)):
            shown = ", ".join(str(r.index) for r in missing[:5])
            problems.append(f"{len(missing)} regions are missing: {shown}. Run its stage again")
    wrong = _object_problems(uri, spec, record, told)
    by = attributes["dglzarr_version"]
    found: dict[str, Any] = {
        "uri": uri,
        "schema": spec.name,
        "objects": f"no digests recorded by {by}" if record is None else f"{len(record)} compared",
        "n_missing": 0,
        "problems": [*problems, *wrong.values()],
    }
    try:
        with _readable(uri):
            ds = open_store(uri, whole=False)
    except DglzarrError:
        if not found["problems"]:
            raise
        return found
    found["n_missing"], of_values = _value_problems(uri, ds, spec, wrong)
    found["problems"] += of_values
    return found


def _object_problems(
    uri: str, spec: StoreSpec, record: Record | None, told: _Told
) -> dict[str, str]:
    """Return what is wrong with objects of a store, by object: all are read."""
    found = list_objects(uri)
    if record is None:
        told(sum(found.values()))
        return {}
    filesystem, path = open_filesystem(uri)
    where: dict[str, str] = {}
    with suppress(StoreError):
        where = {
            object_of(array, region.index): f"{array.name}, samples {region.start}:{region.stop}"
            for array in spec.region_arrays
            for region in regions(uri)
        }
    wrong = changed(record, found)
    for name, wanted in record.items():
        if name not in wrong and (got := measure(filesystem, f"{path}/{name}")) != wanted:
            wrong[name] = mismatch(name, wanted, got)
        told(wanted.nbytes)
    wrong |= {name: f"{name} was added" for name in found if name not in record}
    return {
        name: f"{where.get(name, array_of(name))}: {what}. Remove "
        f"{'it' if name in where else 'the store'} and run its stage again"
        for name, what in wrong.items()
    }


def _value_problems(
    uri: str, ds: xr.Dataset, spec: StoreSpec, wrong: Collection[str]
) -> tuple[int, list[str]]:
    """Return how many values are missing, and what is wrong with values whose objects are not."""
    problems: list[str] = []
    n_missing = 0
    sound = ds.drop_vars({name for name in map(array_of, wrong) if name in ds.variables})
    for array in (array for array in spec.arrays if array.is_matrix):
        name = array.name
        rows = Rows(uri, name)
        for region in regions(uri):
            if object_of(array, region.index) in wrong:
                continue
            where = f"{name}, samples {region.start}:{region.stop}"
            try:
                block = rows[region.rows]
            except (StoreError, OSError, RuntimeError, ValueError) as error:
                problems.append(f"{where}: {error}")
                continue
            n_missing += int(np.isnan(block).sum())
            problems += _block_problems(sound, name, block, region)
    return n_missing, problems + _vector_problems(sound)


def _sizes(uri: str) -> dict[str, int]:
    with _readable(uri):
        return {str(k): int(v) for k, v in open_store(uri, whole=False).sizes.items()}


def verify_study(root: str, *, on_progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return ``verify`` of every store and model of a study; what cannot be opened is a problem.

    ``on_progress`` is called with what is done, how many MB were read, and of how many.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    found, names = [], stores(root)
    told = _Told(sum(map(store_nbytes, names)), on_progress)
    for uri in names:
        try:
            found.append(_verify(uri, told))
        except DglzarrError as error:
            nothing = {"uri": uri, "schema": "?", "objects": "-", "n_missing": 0}
            found.append({**nothing, "problems": [str(error)]})
    folders = {
        path.parent for name in (MODEL, WEIGHTS) for path in Path(root).glob(f"models/*/{name}")
    }
    return found + [_verify_model(folder) for folder in sorted(folders)]


def _verify_model(folder: Path) -> dict[str, Any]:
    """Return what `verify` does, of a model: it is as it was saved, and its weights are finite."""
    found: dict[str, Any] = {"uri": str(folder), "schema": "model", "n_missing": 0, "problems": []}
    found["objects"] = "2 compared"
    try:
        saved = load_model(folder)
    except DglzarrError as error:
        return {**found, "problems": [str(error)]}
    arrays = [part for layer in saved.layers for part in layer[:2]] + [*saved.weights]
    if not all(np.isfinite(part).all() for part in arrays):
        found["problems"] = ["weights that are not finite"]
    return found


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn what Zarr and its codecs raise on a damaged object into one error."""
    try:
        yield
    except DglzarrError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(
            f"{place}: cannot be read: {error}. Remove the store and run its stage again."
        ) from error


def _block_problems(
    ds: xr.Dataset, name: str, block: NDArray[np.floating[Any]], region: Region
) -> list[str]:
    missing, parameters = np.isnan(block), ds.attrs["parameters"]
    found = {
        "no values at all": bool(missing.all()),
        "infinite values": bool(np.isinf(block).any()),
    }
    if "n_missing" in ds:
        counted = ds["n_missing"].values[region.rows]
        found["other missing values than counted"] = bool((missing.sum(axis=1) != counted).any())
    if "quantile_reference" in ds and parameters.get("method") != "none":
        low, high = ds["quantile_reference"].values[[0, -1]].astype(np.float32)
        outside = bool(((block < low) | (block > high)).any())
        found["values outside the quantile reference"] = outside
    if name == "contribution" and parameters.get("aggregation") != "mean":
        found["negative values"] = bool((block < 0).any())
    where = f"{name}, samples {region.start}:{region.stop}"
    return [f"{where}: {what}" for what, is_so in found.items() if is_so]


def _vector_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    for name, array in ds.variables.items():
        if array.dims == ("sample", "gene"):
            continue
        try:
            with _readable(str(name)):
                values = array.values
        except StoreError as error:
            problems.append(str(error))
            continue
        if values.dtype.kind == "f" and np.isinf(values).any():
            problems.append(f"{name}: infinite values")
        if name == "quantile_reference" and (np.diff(values) < 0).any():
            problems.append(f"{name}: does not ascend")
        if name == "rank" and (np.sort(values) != 1 + np.arange(values.shape[-1])).any():
            problems.append(f"{name}: not a permutation")
    return problems


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
    """Return whether a study's manifest stands at ``name``."""
    return (Path(name) / MANIFEST).is_file()


def stores(name: str) -> list[str]:
    """Return the URIs of the stores of a study that exist, in the order they are made.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    study = open_study(name)
    made = [uri for schema in (*SEGMENTED, *WHOLE, *OPTIONAL) for uri in study.uris(schema)]
    return study.raws() + [uri for uri in made if Path(uri, "zarr.json").exists()]


def table(
    name: str, *, genes: Sequence[str] = (), samples: Sequence[str] = (), top: int = 20
) -> pd.DataFrame:
    """Return chosen values of a store as a table: samples by genes, or a line a gene or sample.

    Parameters
    ----------
    name
        A store, or ``"study#name"``.
    genes
        Labels or symbols; a symbol stands for every feature that measures it.
    samples
        Sample labels; all samples when none is given.
    top
        Without genes: how many of the best-ranked (or first) genes; of enrichment, of the mined
        panel's terms of lowest p; of groups, of the representations.

    Raises
    ------
    ValueError
        When a gene or sample is not in the store.
    """
    ds = open(name)
    matrix = next((str(n) for n, v in ds.data_vars.items() if v.dims == ("sample", "gene")), None)
    rows = _sample_index(ds, name, samples)
    if matrix is None:
        dim = "sample" if samples else next(d for d in LINES if d in ds.dims)
        if dim == "term":
            ds = ds.sel(panel="mined").sortby("p_value")
        if genes and dim != "gene":
            raise ValueError(f"{name}: has no genes to choose from. Leave them out.")
        first: Any = slice(top) if dim != "gene" else _gene_index(ds, name, genes, top)
        index = rows if samples else first
        columns = [str(n) for n, v in ds.variables.items() if v.dims == (dim,)]
        return ds[columns].isel({dim: index}).to_dataframe()
    chosen = ds[matrix].isel(sample=rows, gene=_gene_index(ds, name, genes, top))
    with _readable(name):
        values = chosen.values
    index = pd.Index(chosen["sample"].values, name="sample")
    return pd.DataFrame(values, index=index, columns=chosen["gene"].values)


def _sample_index(ds: xr.Dataset, name: str, samples: Sequence[str]) -> Any:  # noqa: ANN401
    """Return the places of samples, all of them when none is named."""
    if not samples:
        return slice(None)
    if "sample" not in ds.indexes:
        raise ValueError(f"{name}: has no samples to choose from. Leave them out.")
    found = ds.indexes["sample"].get_indexer(pd.Index(samples))
    unknown = [s for s, at in zip(samples, found, strict=True) if at < 0]
    if unknown:
        raise ValueError(
            f"{name}: expected samples of the store, got {unknown[:5]!r}"
            f"{hint(unknown[0], map(str, ds['sample'].values))}."
        )
    return found


def _gene_index(ds: xr.Dataset, name: str, genes: Sequence[str], top: int) -> NDArray[np.int64]:
    if not genes:
        is_ranked = "rank" in ds and ds["rank"].dims == ("gene",)
        order = np.argsort(ds["rank"].values) if is_ranked else np.arange(ds.sizes["gene"])
        return order[:top].astype(np.int64)
    labels = ds["gene"].values.astype(object)
    symbols = ds["gene_symbol"].values.astype(object) if "gene_symbol" in ds else labels
    found = [np.flatnonzero((labels == g) | (symbols == g)) for g in genes]
    unknown = [g for g, at in zip(genes, found, strict=True) if not at.size]
    if unknown:
        raise ValueError(
            f"{name}: expected genes or symbols of the store, got {unknown[:5]!r}"
            f"{hint(unknown[0], map(str, [*labels, *symbols]))}."
        )
    return np.concatenate(found).astype(np.int64)
