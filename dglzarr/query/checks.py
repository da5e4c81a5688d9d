"""Whether a store is as it was written, its values are what they should be, and a study is whole.

What may rightly be gone is not asked for: the folds of a comparison and the replicates of a
stability, with their models, are partial results of the stores that tell of them, and groups,
enrichment, comparison and stability are stores that a study need not have.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.models.files import MODEL, WEIGHTS, compared_files, load_model
from dglzarr.query.lazy import readable
from dglzarr.query.stores import stores
from dglzarr.storage.files import Place, open_filesystem, place_of, store_nbytes
from dglzarr.storage.objects import (
    GROUP,
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
from dglzarr.storage.store import checked_attributes, missing_regions, open_store, regions
from dglzarr.storage.study import OPTIONAL, SEGMENTED, WHOLE, open_study
from dglzarr.storage.together import again, identity_of, inputs_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.declare import StoreSpec
    from dglzarr.storage.objects import Record
    from dglzarr.storage.options import Progress
    from dglzarr.storage.store import Region


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
    with readable(uri):
        attributes = checked_attributes(uri)
        record = read_record(uri, attributes, is_fresh=True)
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
    if any(name.endswith(f"/{GROUP}") for name in wrong):  # values mean nothing without metadata
        return found
    try:
        with readable(uri):
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


def verify_study(root: str, *, on_progress: Progress | None = None) -> list[dict[str, Any]]:
    """Return ``verify`` of every store and model of a study; what cannot be opened is a problem.

    So is a store that is gone, or is another than the one that others were made from: see
    `lineage_problems`, which tells what may be gone. ``on_progress`` is called with what is done,
    how many MB were read, and of how many.

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
            found.append(_unread(uri, [str(error)]))
    folders = {
        path.parent for name in (MODEL, WEIGHTS) for path in place_of(root).glob(f"models/*/{name}")
    }
    found += [_verify_model(folder) for folder in sorted(folders, key=str)]
    known = {line["uri"]: line for line in found}
    for uri, problems in lineage_problems(root, names).items():
        if uri not in known:
            found.append(_unread(uri, problems))
        elif not known[uri]["problems"]:
            known[uri]["problems"] = problems
    return found


def _unread(uri: str, problems: list[str]) -> dict[str, Any]:
    nothing = {"uri": uri, "schema": "?", "objects": "-", "n_missing": 0}
    return {**nothing, "problems": problems}


def _verify_model(folder: Place) -> dict[str, Any]:
    """Return what `verify` does, of a model: its files are as saved, its weights finite."""
    found: dict[str, Any] = {"uri": str(folder), "schema": "model", "n_missing": 0, "problems": []}
    found["objects"] = "2 compared"
    try:
        beside = compared_files(folder)
        found["objects"] = f"{2 + len(beside)} compared"
        saved = load_model(folder)
    except DglzarrError as error:
        return {**found, "problems": [str(error)]}
    arrays = [part for layer in saved.layers for part in layer[:2]] + [*saved.weights]
    if not all(np.isfinite(part).all() for part in arrays):
        found["problems"] = ["weights that are not finite"]
    found["problems"] += [
        f"{name}: expected it as training left it, got a missing or changed file. "
        "Train the model again"
        for name, is_same in beside.items()
        if not is_same
    ]
    return found


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
            with readable(str(name)):
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


def lineage_problems(root: str, uris: Sequence[str]) -> dict[str, list[str]]:
    """Return what is wrong with a study's stores as a whole, by the store that is not right.

    A store that others were made from must stand in the study with the identity that they
    recorded, wherever the study stood then; so must each store of every segment but the first, and
    all that a run makes where there is a report.

    Parameters
    ----------
    root
        Folder of the study.
    uris
        The stores that stand there.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    found: dict[str, list[str]] = {}
    wanted = {uri: "" for uri in _finished(root) if uri not in uris}
    for uri in uris:
        for place, identity in _inputs(root, uri):
            standing = identity_of(place)
            if standing is None:
                wanted[place] = wanted.get(place) or place_of(uri).name
            elif standing not in ("", identity):
                what = f"was made from another {place_of(place).name} than stands in the study"
                found.setdefault(uri, []).append(f"{what}. {again(root)}")
    for place, user in wanted.items():
        kind, record = ("model", MODEL) if "/models/" in place else ("store", "zarr.json")
        of = f", of which {user} was made" if user else ""
        got = f"no {record} in it" if place_of(place).exists() else "none"
        found[place] = [f"expected a {kind}{of}, got {got}. {again(root)}"]
    return found


def _finished(root: str) -> Iterable[str]:
    """Return the stores that a study must have whatever was made from them, or has begun."""
    study = open_study(root)
    every = (uri for name in (*SEGMENTED, *WHOLE, *OPTIONAL) for uri in study.uris(name))
    yield from (uri for uri in every if place_of(uri).exists())
    is_done = place_of(study.report).is_file() or len(study.segments) > 1
    first = 0 if is_done else 1
    yield from (uri for name in SEGMENTED for uri in study.uris(name)[first:])
    if is_done:
        yield from (study.uri(name) for name in WHOLE)


def _inputs(root: str, uri: str) -> Iterable[tuple[str, str]]:
    """Yield where each input of a store must stand, and its identity; none of one not readable."""
    try:
        attributes = checked_attributes(uri)
    except DglzarrError:  # which verify tells of
        return
    yield from inputs_of(root, attributes)
