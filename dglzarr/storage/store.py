"""The only writer of Zarr.

A store is written in three steps: ``create_store`` (metadata and labels, ``complete = false``),
``map_regions`` (one task per region of whole shards that does not exist yet), ``finish`` (merged
results, validation, ``complete = true``). A shard that exists is a shard that is done, so an
interrupted stage resumes by running again. Readers refuse what is not complete, and what is not as
it was written: ``objects`` records each object.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from dglzarr.errors import SchemaError, StoreError
from dglzarr.storage.buckets import is_bucket
from dglzarr.storage.claims import Claim, Difference, State, as_now, compare_lineages
from dglzarr.storage.dataset import joined
from dglzarr.storage.declare import CHUNK_SAMPLES, fill_value, layout, validate
from dglzarr.storage.files import (
    file_input,
    has_other_files,
    open_filesystem,
    put,
    staged,
    store_nbytes,
    sweep_partial_files,
    told,
)
from dglzarr.storage.finished import Finished, is_whole, read_finished
from dglzarr.storage.matrices import open_matrix
from dglzarr.storage.objects import (
    GROUP,
    Object,
    Record,
    array_metadata,
    array_of,
    as_arrays,
    as_tables,
    changed,
    damaged,
    known_so_far,
    list_objects,
    measure,
    measured,
    mismatch,
    object_of,
    open_checked,
    open_plain,
    read_group,
    read_record,
    set_attributes,
    write_part,
    write_record,
)
from dglzarr.storage.rows import array_shape
from dglzarr.storage.schemas import BEGUN_FILE, MODEL, MODEL_FILE, SPECS
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.declare import ArraySpec, StoreSpec
    from dglzarr.storage.tasks import Progress

    Arrays = Mapping[str, NDArray[Any]]

logger = logging.getLogger(__name__)

_PACKED = BloscCodec(cname="lz4", shuffle="shuffle")
_NUMPY_TEXT = np.dtypes.StringDType()


@dataclass(frozen=True)
class Region:
    """Samples ``start`` to ``stop``: one shard, one task, one writer.

    ``store_id`` is that of the store it was listed for, "" for any: a task that outlived its run
    must not write into a store that replaced its own.
    """

    start: int
    stop: int
    index: int
    store_id: str = field(default="", compare=False)

    @property
    def rows(self) -> slice:
        """The region as a slice of samples."""
        return slice(self.start, self.stop)

    def windows(self) -> Iterator[slice]:
        """Yield slices of whole chunks, so that a task holds little of its region."""
        for start in range(self.start, self.stop, CHUNK_SAMPLES):
            yield slice(start, min(start + CHUNK_SAMPLES, self.stop))


@dataclass(frozen=True)
class StoreSummary:
    """What a stage returns: which store, whether it had to be written, and its size."""

    uri: str
    schema: str
    state: State
    sizes: Mapping[str, int]
    seconds: float
    nbytes: int
    details: Mapping[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------- files


def read_attributes(uri: str) -> dict[str, Any] | None:
    """Return the attributes of the store, or the record of the model, at ``uri``; None without."""
    filesystem, path = open_filesystem(uri)
    for file, attributes_of in _RECORDS.items():
        try:
            return attributes_of(filesystem.cat_file(f"{path}/{file}"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, AttributeError, TypeError) as error:
            raise StoreError(f"{uri}: cannot be read: {file}: {error}.{_REMOVE}") from error
    return None


def _of_model(written: bytes) -> dict[str, Any]:
    """Return what ``model.json`` tells, as a store's attributes would."""
    content = json.loads(written)
    parameters = {**content.get("config", {}), **content.get("parameters", {})}
    made = {key: value for key, value in parameters.items() if key not in _FOUND_IN_TRAINING}
    return {
        "dglzarr_schema": MODEL.name,
        "dglzarr_schema_version": content.get("format_version"),
        "store_id": content.get("model_id"),
        "inputs": content.get("inputs", []),
        "parameters": made,
        "created": "by training",
        "complete": True,
    }


def _of_training(written: bytes) -> dict[str, Any]:
    """Return what ``training.json`` tells; 0.1.0 wrote choices and identities of inputs alone."""
    content: dict[str, Any] = json.loads(written)
    if "dglzarr_schema" in content:
        return content
    return {
        "dglzarr_schema": MODEL.name,
        "dglzarr_schema_version": MODEL.version,
        "store_id": "",
        "inputs": [{"uri": name, "store_id": name} for name in content.pop("inputs", [])],
        "parameters": content,
        "created": "begun",
        "complete": False,
    }


_RECORDS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    GROUP: lambda written: read_group(written)[0],
    MODEL_FILE: _of_model,
    BEGUN_FILE: _of_training,
}
_FOUND_IN_TRAINING = ("n_genes", "trained_on")
_REMOVE = " Remove it and run its stage again."


def is_complete(uri: str) -> bool:
    """Return whether a finished dglzarr store stands at ``uri``, one that can be read."""
    try:
        return bool((read_attributes(uri) or {}).get("complete"))
    except StoreError:
        return False


# ---------------------------------------------------------------- create


def check_claim(
    uri: str,
    specs: Sequence[StoreSpec],
    *,
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    files: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    damage: Callable[[str], str] | None = None,
) -> Claim:
    """Return what a call would find at a target; nothing is changed.

    Parameters
    ----------
    uri
        The target: a store, or the folder of a model.
    specs
        What may be made there.
    inputs
        Stores, models and files by their role, as in ``{"source": uri}``.
    parameters
        Every recorded choice, and whatever else decides what is made.
    files
        Other inputs by their role, of which it is known that they are files.
    names
        What the settings call a parameter or a file, as in ``ingest.annotation``.
    damage
        Returns what is wrong with a complete target, "" where nothing is; by default whether labels
        or results are damaged, for lost regions are made again. A record that cannot be read is
        damage too.

    Raises
    ------
    StoreError
        When something that is not dglzarr's stands there, or an input is no complete store.
    SchemaError
        When a newer version of this package has written what stands there.
    SourceError
        When a file is absent or cannot be read.
    """
    find = partial(_lineage, inputs=inputs, files=files or {}, parameters=parameters)
    try:
        found = read_attributes(uri)
    except StoreError as error:
        told_alone = str(error).removesuffix(_REMOVE)
        known, reasons = {"created": "before"}, (Difference(told_alone, is_damage=True),)
        return Claim(uri, tuple(specs), "refused", partial(find, known={}), reasons, known=known)
    filesystem, path = open_filesystem(uri)
    if found is None and has_other_files(filesystem, path):
        raise StoreError(
            f"{uri}: expected a dglzarr store or nothing, got other files. Remove that folder, or "
            "use another root."
        )
    if found is not None and "dglzarr_schema" not in found:
        raise StoreError(
            f"{uri}: expected a dglzarr store, got a foreign Zarr group. Use another root."
        )
    known = found or {}
    for spec in specs:
        if spec.name == known.get("dglzarr_schema"):
            _check_age(uri, known, spec)
    claim = Claim(uri, tuple(specs), "new", partial(find, known=known), known=known)
    if not known.get("created"):  # nothing, or killed half-way through its creation or removal
        return claim
    readable = claim.spec.upgrades if known["complete"] else ()
    differences = compare_lineages(known, claim.lineage, names or {}, readable)
    if not differences and known["complete"] and (wrong := (damage or _damage)(uri)):
        differences = (Difference(wrong, is_damage=True),)
    if differences:
        return replace(claim, state="refused", differences=differences)
    is_whole = known["complete"] and not _lost_regions(uri)
    return replace(claim, state="unchanged" if is_whole else "resumed")


def take_claim(claim: Claim, *, overwrite: bool = False) -> Claim:
    """Return a claim that may be acted on: ``"new"``, ``"resumed"`` or ``"unchanged"``.

    ``"unchanged"``: complete, from the same inputs and choices, so nothing is to be done.
    ``"resumed"``: begun by an earlier call with the same inputs and choices.
    ``"new"``: call ``create_store``, which removes what is to be replaced, so that it still stands
    when an input turns out to be wrong.

    Raises
    ------
    StoreError
        When something else stands there and ``overwrite`` is false.
    """
    filesystem, path = open_filesystem(claim.uri)
    sweep_partial_files(filesystem, path)
    if claim.state == "refused" and not overwrite:
        raise StoreError(claim.refusal())
    if claim.state in ("new", "refused"):
        return replace(claim, state="new")
    if claim.state == "resumed" and claim.known["complete"]:
        set_attributes(claim.uri, complete=False)
    return claim


def create_store(
    claim: Claim,
    arrays: Arrays,
    *,
    spec: StoreSpec | None = None,
    region_length: int | None = None,
) -> None:
    """Write metadata and labels of a claimed store in place of what stands there.

    ``complete`` stays false. ``arrays`` holds every array that is written at creation; their sizes
    fix all shapes. ``spec`` is the one chosen where the claim leaves a choice.

    Raises
    ------
    StoreError
        When the place cannot be written.
    """
    chosen = spec or claim.spec
    lineage = {**claim.lineage, **_schema_of(chosen)}
    _clear(claim)
    with told(claim.uri, "created", remedy="Choose a writable root with free space."):
        if is_bucket(claim.uri):  # killed before the rest is there, it is half-created
            _put_begun(claim.uri, chosen.name)
        with staged(claim.uri) as place:
            _write_metadata(place, chosen, arrays, lineage, region_length)
            if place != claim.uri:
                group = Path(place, GROUP).read_bytes()
                Path(place, GROUP).unlink()
        if place != claim.uri:
            put(f"{claim.uri}/{GROUP}", group)


def _put_begun(uri: str, schema: str) -> None:
    """Write the metadata of a store that is half-created, or half-removed."""
    begun = {"dglzarr_schema": schema, "created": "", "complete": False}
    nothing = {"zarr_format": 3, "node_type": "group", "attributes": begun}
    put(f"{uri}/{GROUP}", json.dumps(nothing).encode())


def _schema_of(spec: StoreSpec) -> dict[str, Any]:
    return {"dglzarr_schema": spec.name, "dglzarr_schema_version": spec.version}


def _lineage(
    spec: StoreSpec,
    *,
    inputs: Mapping[str, str],
    files: Mapping[str, str],
    parameters: Mapping[str, Any],
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the lineage of what is to be made; files that ``known`` tells are not read again."""
    found = [
        *({**_find_input(uri, known), "role": role} for role, uri in inputs.items()),
        *({**file_input(path, known=known), "role": role} for role, path in files.items()),
    ]
    return lineage_of(spec, found, parameters)


def lineage_of(
    spec: StoreSpec, inputs: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the lineage of a store, whose inputs are known with identity and role."""
    return {
        **_schema_of(spec),
        "dglzarr_version": version("dglzarr"),
        "inputs": [dict(entry) for entry in inputs],
        "parameters": json.loads(json.dumps(dict(parameters), default=str)),
    }


def _find_input(uri: str, known: Mapping[str, Any]) -> dict[str, str]:
    filesystem, path = open_filesystem(uri)
    return file_input(uri, known=known) if filesystem.isfile(path) else store_input(uri)


def begin_model(claim: Claim) -> None:
    """Write what a claimed model is to be made from, so that a later call can go on with it.

    Raises
    ------
    StoreError
        When the place cannot be written.
    """
    begun = {**claim.lineage, "store_id": "", "created": "begun", "complete": False}
    if claim.state == "new":
        _clear(claim)
    with told(claim.uri, "created"):
        put(f"{claim.uri}/{BEGUN_FILE}", f"{json.dumps(begun, indent=1)}\n".encode())


def _clear(claim: Claim) -> None:
    """Remove what a claim is to replace."""
    assert claim.state == "new"
    if claim.known:
        _remove_store(claim.uri, *open_filesystem(claim.uri))


def _remove_store(uri: str, filesystem: Any, path: str) -> None:  # noqa: ANN401
    """Remove a store or model; killed half-way it is half-created, not a folder of other files."""
    record = "zarr.json" if filesystem.exists(f"{path}/zarr.json") else BEGUN_FILE
    if record == "zarr.json":  # which need not be readable
        _put_begun(uri, "")
    else:
        nothing = {"dglzarr_schema": MODEL.name, "created": ""}
        put(f"{uri}/{BEGUN_FILE}", json.dumps(nothing).encode())
        if filesystem.exists(f"{path}/{MODEL_FILE}"):
            filesystem.rm_file(f"{path}/{MODEL_FILE}")
    for name in filesystem.ls(path, detail=False):
        if not name.endswith(f"/{record}"):
            filesystem.rm(name, recursive=True)
    filesystem.rm(path, recursive=True)


def _write_metadata(
    uri: str,
    spec: StoreSpec,
    arrays: Arrays,
    lineage: Mapping[str, Any],
    region_length: int | None,
) -> None:
    sizes = _sizes(spec, arrays)
    begun: dict[str, Any] = {"dglzarr_schema": spec.name, "created": "", "complete": False}
    group = zarr.open_group(
        open_plain(uri, read_only=False), mode="w-", zarr_format=3, attributes=begun
    )
    for array in spec.arrays:
        if set(array.dims) <= set(sizes):
            _create_array(group, array, sizes, region_length)
    for name, values in arrays.items():
        group[name][...] = _as_stored(values)  # type: ignore[index]
    coordinates = [a.name for a in spec.arrays if a.is_coord and a.dims != (a.name,)]
    attributes: dict[str, Any] = dict(lineage)
    labels = measured(uri, list_objects(uri))
    attributes |= {
        "objects_sha256": write_record(uri, labels),
        "coordinates": " ".join(coordinates),
        "region_length": region_length or 0,
        "store_id": str(uuid.uuid4()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    set_attributes(uri, **attributes)


def _sizes(spec: StoreSpec, arrays: Arrays) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, values in arrays.items():
        for dim, size in zip(spec[name].dims, values.shape, strict=True):
            assert sizes.setdefault(dim, size) == size, f"{name}: {dim} {size} != {sizes[dim]}"
    return sizes


def _create_array(
    group: zarr.Group,
    array: ArraySpec,
    sizes: Mapping[str, int],
    region_length: int | None,
) -> None:
    shape = tuple(sizes[d] for d in array.dims)
    chunks, shards = layout(array, shape, region_length)
    compressors: Any = "auto" if array.dtype == "str" else _PACKED
    if array.is_matrix:  # a seventh of the size saved is not worth ten times the time
        compressors = None
    attributes: dict[str, Any] = {"description": array.description, **array.attrs}
    if array.units:
        attributes["units"] = array.units
    group.create_array(
        array.name,
        shape=shape,
        dtype="string" if array.dtype == "str" else array.dtype,
        chunks=chunks,
        shards=shards,
        fill_value=fill_value(array.dtype),
        compressors=compressors,
        dimension_names=array.dims,
        attributes=attributes,
    )


def _as_stored(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array as Zarr takes it; text it writes in memory order, whatever the strides."""
    return np.ascontiguousarray(values, dtype=_NUMPY_TEXT if values.dtype.kind in "UO" else None)


# ---------------------------------------------------------------- regions


def regions(uri: str) -> list[Region]:
    """Return the regions of a store, in order."""
    if (finished := read_finished(uri)) is not None:
        return _regions(uri, finished.attributes, finished.shape("sample")[0])
    return _regions(uri, read_attributes(uri) or {})


def _regions(uri: str, attributes: Mapping[str, Any], n_samples: int | None = None) -> list[Region]:
    length, store_id = int(attributes["region_length"]), str(attributes["store_id"])
    if n_samples is None:
        n_samples = array_shape(uri, "sample", is_begun=not attributes["complete"])[0]
    starts = range(0, n_samples, length)
    return [Region(s, min(s + length, n_samples), i, store_id) for i, s in enumerate(starts)]


def missing_regions(
    uri: str, found: Mapping[str, int] | None = None, known: Record | None = None
) -> list[Region]:
    """Return the regions for which an object of any region-written array is absent or cut.

    ``found`` is the listing of the store's objects and ``known`` what is recorded of them, where
    they are at hand.
    """
    attributes = read_attributes(uri) or {}
    spec, found = SPECS[attributes["dglzarr_schema"]], found or list_objects(uri)
    if known is None:
        is_done = attributes["complete"]
        known = (read_record(uri, attributes) or {}) if is_done else known_so_far(uri)

    def is_whole(name: str) -> bool:
        return name in found and (name not in known or known[name].nbytes == found[name])

    return [
        region
        for region in _regions(uri, attributes)
        if not all(is_whole(object_of(array, region.index)) for array in spec.region_arrays)
    ]


def write_region(
    uri: str, region: Region, arrays: Mapping[str, NDArray[Any] | Iterator[NDArray[Any]]]
) -> None:
    """Write one region: each array whole, partial results before the matrix.

    What was written is recorded before the matrix is put in its place.

    A matrix may also come as blocks of consecutive samples, one a window of the region, so that
    little of it is in memory.

    Raises
    ------
    StoreError
        When the region is not aligned with the store's shards, is another store's that stood
        there before, or the disk refuses.
    """
    group = zarr.open_group(open_plain(uri, read_only=False), mode="r+", zarr_format=3)
    if region.store_id not in ("", group.attrs["store_id"]):
        raise StoreError(
            f"{uri}: expected store {region.store_id}, got one that has replaced it. Another run "
            "is at work here; let it finish."
        )
    spec = SPECS[str(group.attrs["dglzarr_schema"])]
    length = int(group.attrs["region_length"])  # type: ignore[arg-type]
    n_samples = group["sample"].shape[0]  # type: ignore[union-attr]
    expected = Region(
        region.index * length, min((region.index + 1) * length, n_samples), region.index
    )
    if region != expected:
        raise StoreError(
            f"{uri}: region {region.start}:{region.stop} is not aligned with shards of "
            f"{length} samples. Use store.regions()."
        )
    names = {a.name for a in spec.region_arrays}
    assert set(arrays) == names, f"{sorted(arrays)} != {sorted(names)}"
    _write_arrays(uri, region, group, spec, arrays)


def _write_arrays(
    uri: str,
    region: Region,
    group: zarr.Group,
    spec: StoreSpec,
    arrays: Mapping[str, NDArray[Any] | Iterator[NDArray[Any]]],
) -> None:
    filesystem, path = open_filesystem(uri)
    written: Record = {}

    def note(name: str, *found: int) -> None:
        written[name] = Object(*found)
        write_part(uri, region.index, written)

    for array in sorted(spec.region_arrays, key=lambda a: a.is_matrix):
        values, name = arrays[array.name], object_of(array, region.index)
        blocks = [values] if isinstance(values, np.ndarray) else values
        with told(f"{uri}, region {region.index}"):
            if array.is_matrix and (matrix := open_matrix(uri, array.name)):
                matrix.write(region.index, blocks, before=partial(note, name))
            else:
                _write_whole(group[array.name], array, region, np.concatenate(list(blocks)))
                note(name, *measure(filesystem, f"{path}/{name}"))


def _write_whole(target: Any, array: ArraySpec, region: Region, values: NDArray[Any]) -> None:  # noqa: ANN401
    rows = slice(region.index, region.index + 1) if array.dims[0] == "region" else region.rows
    expected = (rows.stop - rows.start, *target.shape[1:])
    assert values.shape == expected, (array.name, values.shape)
    target.with_config({"write_empty_chunks": True})[rows] = values.astype(array.dtype, copy=False)


def map_regions(
    func: Callable[..., Any],
    uri: str,
    *,
    what: str,
    on_progress: Progress | None = None,
    **arguments: Any,  # noqa: ANN401
) -> list[Any]:
    """Run ``func(uri, region, **arguments)`` for every missing region; return what it returns."""
    todo, n_regions = missing_regions(uri), len(regions(uri))
    if len(todo) < n_regions:
        what = f"{what}, {n_regions - len(todo)} of {n_regions} regions kept"
    return run_tasks(
        func, [(uri, region) for region in todo], what=what, on_progress=on_progress, **arguments
    )


def reduce_regions(
    func: Callable[..., Any],
    uri: str,
    *,
    what: str,
    on_progress: Progress | None = None,
    **arguments: Any,  # noqa: ANN401
) -> list[Any]:
    """Run ``func(uri, region, **arguments)`` for every region; return partials in region order."""
    todo = [(uri, region) for region in regions(uri)]
    return run_tasks(func, todo, what=what, on_progress=on_progress, **arguments)


# ---------------------------------------------------------------- finish


def finish(
    claim: Claim,
    *,
    arrays: Arrays | None = None,
    details: Mapping[str, Any] | None = None,
) -> StoreSummary:
    """Return the summary of a store after writing merged results and marking it complete.

    Raises
    ------
    StoreError
        When regions are missing, or labels are no longer as they were written.
    SchemaError
        When the store does not match its spec.
    """
    assert claim.state != "refused"
    uri = claim.uri
    attributes = read_attributes(uri) or {}
    spec = SPECS[attributes["dglzarr_schema"]]
    found, recorded = list_objects(uri), known_so_far(uri)
    if spec.region_arrays and (missing := missing_regions(uri, found, recorded)):
        raise StoreError(
            f"{uri}: expected all regions, {len(missing)} are missing. Run the stage again."
        )
    texts = array_metadata(uri, found)
    recorded |= _write_merged(uri, spec, arrays or {}, texts)
    sweep_partial_files(*open_filesystem(uri))  # of a worker that died while others went on
    record, known = _all_objects(uri, spec, recorded, texts), as_arrays(texts)
    made = Finished(uri, attributes, known, record)
    is_known = "coordinates" in attributes  # which 0.1.0 did not write
    ds = joined([made], spec, in_regions=False) if is_known else None
    validate(_lazy_dataset(uri) if ds is None else ds, spec)
    told_details = json.loads(json.dumps(dict(details or {}), default=float))
    digest = write_record(uri, record)
    set_attributes(uri, texts, complete=True, details=told_details, objects_sha256=digest)
    seconds = time.monotonic() - claim.started
    nbytes = store_nbytes(uri)
    return StoreSummary(uri, spec.name, claim.state, made.sizes, seconds, nbytes, told_details)


def write_store(
    claim: Claim, arrays: Arrays, *, details: Mapping[str, Any] | None = None
) -> StoreSummary:
    """Return the summary of a store that no region tasks write, made of all its arrays at once.

    Raises
    ------
    StoreError, SchemaError
        As `create_store` and `finish` do.
    """
    of = {name: claim.spec[name].written for name in arrays}
    assert "region" not in of.values(), of
    if claim.state == "new":
        create_store(claim, {n: values for n, values in arrays.items() if of[n] == "create"})
    results = {n: values for n, values in arrays.items() if of[n] == "finish"}
    return finish(claim, arrays=results, details=details)


def _write_merged(uri: str, spec: StoreSpec, arrays: Arrays, texts: dict[str, bytes]) -> Record:
    """Write merged results of a store; return what their objects are, add their metadata."""
    if not arrays:
        return {}
    dims = [zip(a["dimension_names"], a["shape"], strict=True) for a in as_arrays(texts).values()]
    sizes = {dim: n for some in dims for dim, n in some} | _sizes(spec, arrays)
    with staged(uri) as place:
        mode: Any = "r+" if place == uri else "w"
        group = zarr.open_group(open_plain(place, read_only=False), mode=mode, zarr_format=3)
        for name, values in arrays.items():
            if name not in group:
                _create_array(group, spec[name], sizes, None)
            group[name][...] = _as_stored(np.asarray(values, dtype=_numpy_dtype(spec[name])))  # type: ignore[index]
        if place != uri:
            Path(place, GROUP).unlink()
        written = [name for name in list_objects(place) if array_of(name) in arrays]
        texts |= array_metadata(place, written)
        return measured(place, written)


def _all_objects(uri: str, spec: StoreSpec, recorded: Record, texts: Mapping[str, bytes]) -> Record:
    """Return every object of a store: as it was recorded when written, else measured.

    Raises
    ------
    StoreError
        When a label is no longer as it was written.
    """
    labels = {array.name for array in spec.arrays if array.written == "create"}
    found = list_objects(uri)
    new = [n for n in found if n not in recorded or recorded[n].nbytes != found[n]]
    asked = dict.fromkeys([*new, *(name for name in found if array_of(name) in labels)])
    got = measured(uri, asked, texts)
    for name in got:
        if name in recorded and got[name] != recorded[name]:
            raise damaged(uri, mismatch(name, recorded[name], got[name]))
    return {name: got[name] if name in got else recorded[name] for name in found}


def _numpy_dtype(array: ArraySpec) -> Any:  # noqa: ANN401
    return _NUMPY_TEXT if array.dtype == "str" else array.dtype


def summarize(claim: Claim) -> StoreSummary:
    """Return the summary of a complete store: what was done there, and how long it took."""
    assert claim.state != "refused"
    ds = open_labels(claim.uri)
    return StoreSummary(
        claim.uri,
        ds.attrs["dglzarr_schema"],
        claim.state,
        {str(k): int(v) for k, v in ds.sizes.items()},
        time.monotonic() - claim.started,
        store_nbytes(claim.uri),
        ds.attrs.get("details", {}),
    )


# ---------------------------------------------------------------- read


def _lost_regions(uri: str) -> list[Region]:
    """Return the regions whose objects a store has lost since, or not yet."""
    spec = SPECS.get((read_attributes(uri) or {})["dglzarr_schema"])  # none of a model
    return missing_regions(uri) if spec and spec.region_arrays else []


def _damage(uri: str) -> str:
    """Return what is wrong with labels and results of a complete store, "" where nothing is."""
    attributes = read_attributes(uri) or {}
    spec = SPECS.get(attributes["dglzarr_schema"], MODEL)
    try:
        record = read_record(uri, attributes) or {}
    except StoreError as error:
        return str(error)
    fixed = _without_regions(spec, record)
    wrong = [*changed(fixed, list_objects(uri)).values()]
    if not wrong:
        got = measured(uri, fixed)
        wrong = [mismatch(n, fixed[n], got[n]) for n in fixed if got[n] != fixed[n]]
    return f"{uri}: is damaged: {wrong[0]}." if wrong else ""


def check_matrices(uri: str, *, on_progress: Progress | None = None) -> None:
    """Compare what region tasks wrote of a complete store with its digests; others have none.

    Raises
    ------
    StoreError
        When an object is not as it was written.
    """
    filesystem, path = open_filesystem(uri)
    found = read_attributes(uri) if filesystem.exists(f"{path}/{GROUP}") else None
    if not found or found.get("dglzarr_schema") not in SPECS:  # a file, or a model
        return
    spec, record = SPECS[found["dglzarr_schema"]], read_record(uri, found) or {}
    _check_whole(uri, spec, found)
    fixed = _without_regions(spec, record)
    todo = [(uri, name, wanted) for name, wanted in record.items() if name not in fixed]
    if todo:
        what = f"checking {uri.rpartition('/')[2]}"
        run_tasks(_check_object, todo, what=what, on_progress=on_progress)


def _check_object(uri: str, name: str, wanted: Object) -> None:
    filesystem, path = open_filesystem(uri)
    if (got := measure(filesystem, f"{path}/{name}")) != wanted:
        raise StoreError(
            f"{uri}: is damaged: {mismatch(name, wanted, got)}. Remove that object and run its "
            "stage again."
        )


def _without_regions(spec: StoreSpec, record: Record) -> Record:
    """Return the objects of a record that are lost for good: region tasks do not write them."""
    written = tuple(f"{array.name}/c/" for array in spec.region_arrays)
    return {name: found for name, found in record.items() if not name.startswith(written)}


def open_store(
    uris: str | Sequence[str], spec: StoreSpec | None = None, *, whole: bool = True
) -> xr.Dataset:
    """Return a complete store as a validated, lazy Dataset; several segments are concatenated.

    ``whole=False`` opens also a finished store that has lost objects since, to look at what is
    left.

    Raises
    ------
    StoreError
        When there is no store, it is not a dglzarr store, not complete, or objects are lost.
    SchemaError
        When it does not match its spec, or segments have different genes.
    """
    return _open(uris, spec, whole=whole, in_regions=True)


def open_labels(uris: str | Sequence[str], spec: StoreSpec | None = None) -> xr.Dataset:
    """Return a complete store without its matrices, validated as `open_store` does.

    It is opened without Dask's arrays, which take a quarter of a second to import: for tasks.
    """
    ds = _open(uris, spec, whole=True, in_regions=False)
    return ds.drop_vars(_matrices(ds))


def _open(
    uris: str | Sequence[str], spec: StoreSpec | None, *, whole: bool, in_regions: bool
) -> xr.Dataset:
    several = [uris] if isinstance(uris, str) else list(uris)
    ds = _opened(several, spec, whole=whole, in_regions=in_regions)
    if ds is not None:
        return ds
    parts = [_open_by_zarr(uri, spec, whole=whole) for uri in several]
    told = [{"uri": u, **_told(p.attrs)} for u, p in zip(several, parts, strict=True)]
    parts = [_in_regions(p) if in_regions else p for p in parts]
    return _concatenate(parts, several).assign_attrs(segments=told)


def _told(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(attributes[name]) for name in ("store_id", "created")}


def _in_regions(ds: xr.Dataset) -> xr.Dataset:
    big, length = _matrices(ds), ds.attrs["region_length"]
    return ds.assign({name: ds[name].chunk({"sample": length}) for name in big}) if big else ds


def _opened(
    uris: Sequence[str],
    spec: StoreSpec | None,
    *,
    whole: bool,
    in_regions: bool,
) -> xr.Dataset | None:
    """Return complete stores joined and validated, None where Zarr and xarray have to."""
    stores = []
    for uri in uris:
        if (found := read_finished(uri)) is None:
            return None
        known = _check_attributes(uri, found.attributes, spec)
        if whole and not is_whole(found):
            _check_whole(uri, SPECS[known["dglzarr_schema"]], known)
        stores.append(found)
    chosen = SPECS[stores[0].attributes["dglzarr_schema"]]
    first = joined(stores[:1], chosen, in_regions=in_regions)
    if first is None:
        return None
    first = _validated(first, chosen)
    return first if len(stores) == 1 else joined(stores, chosen, in_regions=in_regions)


def _open_by_zarr(uri: str, spec: StoreSpec | None = None, *, whole: bool = True) -> xr.Dataset:
    """Return a complete store as a validated Dataset, its arrays read when they are looked at."""
    attributes = checked_attributes(uri, spec)
    spec = SPECS[attributes["dglzarr_schema"]]
    if whole:
        _check_whole(uri, spec, attributes)
    return _validated(_lazy_dataset(uri), spec)


def _validated(ds: xr.Dataset, spec: StoreSpec) -> xr.Dataset:
    if upgrade := spec.upgrades.get(ds.attrs["dglzarr_schema_version"]):
        ds = upgrade(ds).assign_attrs(dglzarr_schema_version=spec.version)
    validate(ds, spec)
    return ds


def _check_whole(uri: str, spec: StoreSpec, attributes: Mapping[str, Any]) -> None:
    """Refuse a complete store of which an object is absent or of another size."""
    found = list_objects(uri)
    if spec.region_arrays and (lost := missing_regions(uri, found)):
        raise StoreError(
            f"{uri}: {len(lost)} regions are missing, the first is {lost[0].index}. Run the stage "
            "that writes it again. Of a grown segment, 'dglzarr refit' alone does that."
        )
    if wrong := [*changed(read_record(uri, attributes) or {}, found).values()]:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise damaged(uri, f"{wrong[0]}{more}")


def _matrices(ds: xr.Dataset) -> list[str]:
    return [a.name for a in SPECS[ds.attrs["dglzarr_schema"]].arrays if a.is_matrix]


def _concatenate(parts: list[xr.Dataset], uris: Sequence[str]) -> xr.Dataset:
    """Return segments of one store as one Dataset, joined along samples.

    Raises
    ------
    SchemaError
        When they have different genes.
    """
    if len(parts) == 1:
        return parts[0]
    try:
        return xr.concat(
            _same_labels([part.drop_dims("region", errors="ignore") for part in parts]),
            "sample",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
        )
    except ValueError as error:
        raise SchemaError(
            f"{uris[0]}: expected segments that differ in samples only, got other genes or "
            f"parameters in one of {list(uris[1:6])!r}. Make the segments again."
        ) from error


def _same_labels(parts: list[xr.Dataset]) -> list[xr.Dataset]:
    """Return segments with the sample labels of them all, "" where one has no such label."""
    names = list(dict.fromkeys(str(n) for p in parts if "label" in p for n in p["label"].values))
    return [p.reindex(label=names, fill_value="") if "label" in p else p for p in parts]


def checked_attributes(uri: str, spec: StoreSpec | None = None) -> dict[str, Any]:
    """Return the attributes of a complete store that this version can read.

    Raises
    ------
    StoreError
        When there is no store, it is not a dglzarr store, damaged, or not complete.
    SchemaError
        When it is of another schema or version.
    """
    return _check_attributes(uri, read_attributes(uri), spec)


def _check_attributes(
    uri: str, found: dict[str, Any] | None, spec: StoreSpec | None
) -> dict[str, Any]:
    if found is None:
        raise StoreError(f"{uri}: no such store. Run the stage that writes it, or `dglzarr mine`.")
    name = found.get("dglzarr_schema")
    if name not in SPECS:
        raise StoreError(f"{uri}: expected a dglzarr store, got a foreign Zarr group.")
    if spec is not None and name != spec.name:
        raise SchemaError(f"{uri}: expected schema {spec.name!r}, got {name!r}.")
    if found.get("complete") is not True:
        raise StoreError(f"{uri}: not complete. Run the stage that writes it again.")
    got, expected = found["dglzarr_schema_version"], SPECS[name].version
    _check_age(uri, found, SPECS[name])
    if got != expected and got not in SPECS[name].upgrades:
        raise SchemaError(
            f"{uri}: expected schema {name!r} version {expected}, got version {got}. "
            "Run its stage again."
        )
    return found


def _check_age(uri: str, found: Mapping[str, Any], spec: StoreSpec) -> None:
    """Refuse what a newer version of this package has written; nobody here replaces it.

    Raises
    ------
    SchemaError
        Naming both versions.
    """
    got = found.get("dglzarr_schema_version")
    if isinstance(got, int) and got > spec.version:
        raise SchemaError(
            f"{uri}: was written by dglzarr {found.get('dglzarr_version', 'unknown')}, which is "
            f"newer than this {version('dglzarr')}: expected schema {spec.name!r} version "
            f"{spec.version} at most, got {got}. Upgrade this dglzarr, or use another root."
        )


def _lazy_dataset(uri: str) -> xr.Dataset:
    ds: xr.Dataset = xr.open_zarr(open_checked(uri), consolidated=False, chunks=None, zarr_format=3)
    ds.attrs = as_tables(ds.attrs)
    return ds


def recorded_parameters(uri: str) -> dict[str, Any]:
    """Return the parameters that a complete store was made with, named as they are now."""
    return dict(as_now(checked_attributes(uri))["parameters"])


def made_from(uri: str, role: str) -> str:
    """Return the identity of an input that a complete store was made from, "" without it."""
    inputs = as_now(checked_attributes(uri))["inputs"]
    return next((entry["store_id"] for entry in inputs if entry["role"] == role), "")


def store_input(uri: str) -> dict[str, str]:
    """Return the lineage entry of a complete input: a store, or the folder of a model."""
    found = read_attributes(uri) or {}
    if found.get("dglzarr_schema") != MODEL.name:
        found = _check_attributes(uri, found or None, None)
    elif not found.get("complete"):
        raise StoreError(f"{uri}: expected a complete model, got a begun one. Train it again.")
    return {"uri": uri, "store_id": str(found["store_id"])}
