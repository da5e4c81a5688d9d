"""Makes one store of several segments: their samples in order, bit for bit."""

from __future__ import annotations

from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.errors import StoreError
from dglzarr.storage.claims import Claim, as_now
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import (
    check_matrices,
    checked_attributes,
    create_store,
    finish,
    lineage_of,
    map_regions,
    open_labels,
    read_attributes,
    reduce_regions,
    write_region,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.declare import ArraySpec, StoreSpec
    from dglzarr.storage.options import Run
    from dglzarr.storage.store import Region, StoreSummary


class Parts(NamedTuple):
    """What a merged store is made of.

    Attributes
    ----------
    uris
        The segments, in order.
    starts
        The first sample of each in the merged store, and one past the last.
    partials
        By region of the merged store, the regions of segments whose first samples are in it: URI
        and number.
    """

    uris: tuple[str, ...]
    starts: tuple[int, ...]
    partials: tuple[tuple[tuple[str, int], ...], ...]


def merge(
    uris: Sequence[str],
    target: str,
    *,
    region_length: int,
    replaced: Mapping[str, str],
    run: Run,
) -> StoreSummary:
    """Write the samples of several segments as one store, compare them, and summarize it.

    The sums of a region are those of the segments' regions that begin in it: all of them together
    are what they were.

    Parameters
    ----------
    uris
        Segments of one store, in order.
    target
        Where the merged store is written; what stands there is replaced.
    region_length
        Samples of a region.
    replaced
        Inputs that are merged too, by their identity: the merged store, or "" while there is none.
    run
        Who is told of the progress.

    Raises
    ------
    StoreError
        When a segment is damaged, segments were made with different choices, or the merged store
        is not what they are.
    """
    for uri in uris:
        check_matrices(uri, on_progress=run.on_progress)
    known = [as_now(checked_attributes(uri)) for uri in uris]
    spec = SPECS[known[0]["dglzarr_schema"]]
    if any(found["parameters"] != known[0]["parameters"] for found in known):
        raise StoreError(
            f"{uris[0]}: expected segments that were made with the same choices, got others in "
            f"one of {list(uris[1:6])!r}. Run 'dglzarr refit'."
        )
    ds = open_labels(uris)
    parts = _parts(uris, spec, region_length)
    claim = Claim(
        target,
        (spec,),
        "new",
        partial(_lineage, known=known, replaced=replaced),
        known=read_attributes(target) or {},
    )
    labels = {a.name: _values(ds, a, parts) for a in _present(ds, spec) if a.written == "create"}
    create_store(claim, labels, region_length=region_length if spec.region_arrays else None)
    if spec.region_arrays:
        map_regions(
            _copy_region, target, parts=parts, what="merging segments", on_progress=run.on_progress
        )
    results = {a.name: ds[a.name].values for a in _present(ds, spec) if a.written == "finish"}
    summary = finish(claim, arrays=results, details=_details(known, uris))
    compare(target, parts, ds, run)
    return summary


def compare(target: str, parts: Parts, known: xr.Dataset, run: Run) -> None:
    """Refuse a merged store that is not, bit for bit, what its segments are.

    Raises
    ------
    StoreError
        Naming the first array that differs.
    """
    made = open_labels(target)
    for name in known.variables:
        if "region" not in known[name].dims and not _same(made[name].values, known[name].values):
            raise _differs(target, str(name))
    if any(array.is_matrix for array in SPECS[made.attrs["dglzarr_schema"]].region_arrays):
        reduce_regions(
            _compare_region, target, parts=parts, what="comparing", on_progress=run.on_progress
        )


def _parts(uris: Sequence[str], spec: StoreSpec, region_length: int) -> Parts:
    """Return which samples and sums of segments become which of the merged store."""
    sizes = [read_array(uri, "sample").size for uri in uris]
    starts = tuple(accumulate(sizes, initial=0))
    n_regions = -(-starts[-1] // region_length)
    partials: list[list[tuple[str, int]]] = [[] for _ in range(n_regions)]
    if any(array.dims[0] == "region" for array in spec.region_arrays):
        for uri, start in zip(uris, starts, strict=False):
            length = int((read_attributes(uri) or {})["region_length"])
            for number in range(read_array(uri, "region").size):
                partials[(start + number * length) // region_length].append((uri, number))
    return Parts(tuple(uris), starts, tuple(map(tuple, partials)))


def _present(ds: xr.Dataset, spec: StoreSpec) -> list[ArraySpec]:
    """Return the arrays that are written with the labels or at the end, and are there."""
    return [a for a in spec.arrays if a.written != "region" and (a.name in ds or a.dims == _REGION)]


_REGION = ("region",)


def _values(ds: xr.Dataset, array: ArraySpec, parts: Parts) -> NDArray[Any]:
    if array.dims == _REGION:
        return np.arange(len(parts.partials), dtype=array.dtype)
    values: NDArray[Any] = ds[array.name].values
    return values


def _copy_region(uri: str, region: Region, *, parts: Parts) -> None:
    """Write one region: rows of the segments, and sums of their regions that begin in it."""
    spec = SPECS[(read_attributes(uri) or {})["dglzarr_schema"]]
    arrays: dict[str, NDArray[Any] | Iterator[NDArray[Any]]] = {}
    for array in spec.region_arrays:
        if array.is_matrix:
            rows = Rows(parts.uris, array.name)
            arrays[array.name] = (rows[window] for window in region.windows())
        elif array.dims[0] == "region":
            arrays[array.name] = _sum(array, uri, parts.partials[region.index])
        else:
            arrays[array.name] = _samples(array.name, parts, region.rows)
    write_region(uri, region, arrays)


def _sum(array: ArraySpec, uri: str, partials: Sequence[tuple[str, int]]) -> NDArray[Any]:
    """Return the sum of some regions' partial results, in order `(1, ...)`."""
    sizes = {dim: read_array(uri, dim).size for dim in array.dims[1:]}
    total = np.zeros([sizes[dim] for dim in array.dims[1:]], dtype=array.dtype)
    for segment, number in partials:
        total += read_array(segment, array.name)[number]
    return total[np.newaxis]


def _samples(name: str, parts: Parts, rows: slice) -> NDArray[Any]:
    """Return some samples of an array that has no genes."""
    return np.concatenate(
        [
            read_array(uri, name)[max(rows.start - start, 0) : rows.stop - start]
            for uri, (start, stop) in zip(parts.uris, pairwise(parts.starts), strict=True)
            if start < rows.stop and stop > rows.start
        ]
    )


def _compare_region(uri: str, region: Region, *, parts: Parts) -> None:
    spec = SPECS[(read_attributes(uri) or {})["dglzarr_schema"]]
    for array in spec.region_arrays:
        if array.is_matrix:
            made, known = Rows(uri, array.name), Rows(parts.uris, array.name)
            for window in region.windows():
                if not _same(made[window], known[window]):
                    raise _differs(uri, array.name)


def _same(made: NDArray[Any], known: NDArray[Any]) -> bool:
    """Return whether two arrays are the same to the last bit; text is compared as text."""
    if made.shape != known.shape:
        return False
    if made.dtype.kind in "OTU":
        return bool((made == known).all())
    return made.dtype == known.dtype and made.tobytes() == known.tobytes()


def _differs(uri: str, name: str) -> StoreError:
    return StoreError(
        f"{uri}: expected {name} as in the segments, got other values. The study is as it was; "
        "run again, and look at the disk ('dglzarr verify')."
    )


# ---------------------------------------------------------------- lineage


def _lineage(
    spec: StoreSpec, *, known: Sequence[Mapping[str, Any]], replaced: Mapping[str, str]
) -> dict[str, Any]:
    """Return the lineage of the segments in one: their inputs but for those that are merged too."""
    inputs: dict[tuple[str, str], dict[str, Any]] = {}
    for found in known:
        for entry in found["inputs"]:
            if (target := replaced.get(entry["store_id"])) is None:
                inputs.setdefault((entry["uri"], entry["store_id"]), dict(entry))
            elif target:
                made = checked_attributes(target)
                inputs[target, ""] = {**entry, "uri": target, "store_id": made["store_id"]}
    return lineage_of(spec, list(inputs.values()), known[0]["parameters"])


def _details(known: Sequence[Mapping[str, Any]], uris: Sequence[str]) -> dict[str, Any]:
    """Return what was told of the segments, in one, and which they were."""
    told = [found.get("details", {}) for found in known]
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for details in told for name in details):
        values = [details[name] for details in told if name in details]
        merged[name] = _TOLD[name](values) if name in _TOLD else values[0]
    merged["compacted"] = [
        *(one for details in told for one in details.get("compacted", ())),
        *(
            {"uri": uri, "store_id": found["store_id"], "created": found["created"]}
            for uri, found in zip(uris, known, strict=True)
            if "compacted" not in found.get("details", {})
        ),
    ]
    return merged


def _all(values: Sequence[Sequence[Any]]) -> list[Any]:
    return [one for some in values for one in some]


def _counts(values: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(some[name] for some in values) for name in values[0]}


_TOLD: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("n_missing", "n_dropped"), sum),
    **dict.fromkeys(("drift_rms", "drift_largest", "largest_norm", "max_delta_error"), max),
    **dict.fromkeys(("n_unmeasured",), min),
    **dict.fromkeys(("per_source", "notes"), _all),
    "split_counts": _counts,
}
"""How what was told of several segments is told of all of them; else as of the first."""
