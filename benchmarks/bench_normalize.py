"""Normalize, Zarr to Zarr, beside qnorm in memory and beside its own reads, sorts and writes."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import qnorm
from common import (
    Bench,
    Case,
    Timed,
    main,
    run_here,
    run_parts,
    run_stage,
    seconds_of,
    simulated_matrix,
    write_expression,
)

from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import Region, regions, write_region

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prepare(case: Case) -> None:
    """Write the expression store, and a copy of it for the limit to write to."""
    write_expression(case)
    shutil.copytree(case.path("expression.zarr"), case.path("copy.zarr"))


def with_dglzarr(case: Case) -> Timed:
    """Time the stage, fitted on every sample as qnorm does."""
    target = case.path("normalized.zarr")
    shutil.rmtree(target, ignore_errors=True)
    return run_stage(
        case,
        normalize,
        case.path("expression.zarr"),
        target,
        options=NormalizeOptions(fit_on="all"),
    )


def with_qnorm(case: Case) -> Timed:
    """Time qnorm on the array in memory."""
    matrix = simulated_matrix(case.n_samples, case.n_genes)
    threads = max(1, case.workers)
    return run_here(case, lambda: qnorm.quantile_normalize(matrix, axis=0, ncpus=threads))


def with_limit(case: Case) -> Timed:
    """Time two reads, a sort, a sort of 64-bit keys and a write, each alone."""
    source, copy = case.path("expression.zarr"), case.path("copy.zarr")
    return run_parts(case, region_parts, [(source, copy, region) for region in regions(source)])


def region_parts(source: str, copy: str, region: Region) -> dict[str, float]:
    """Return the seconds of each part over one region."""
    started = time.perf_counter()
    block = Rows(source)[region.rows]
    read = time.perf_counter() - started
    arrays = {"expression": block, "n_missing": np.zeros(len(block), np.int32)}
    return {
        "read twice": 2 * read,
        "sort": seconds_of(lambda: [np.sort(row) for row in block]),
        "rank": seconds_of(lambda: rank(block)),
        "write": seconds_of(lambda: write_region(copy, region, arrays)),
    }


def rank(block: NDArray[np.float32]) -> None:
    """Sort, for each sample, the bits of a value above its index."""
    index = np.arange(block.shape[1], dtype=np.uint64)
    keys: NDArray[Any] = np.empty(block.shape[1], np.uint64)
    for row in block:
        np.copyto(keys, row.view(np.uint32))
        keys <<= np.uint64(32)
        keys |= index
        keys.sort()


ENGINES = {
    "dglzarr": with_dglzarr,
    "qnorm, in memory": with_qnorm,
    "limit: read twice + sort + rank + write": with_limit,
}
BENCHES = [Bench("normalize", prepare, ENGINES, packages=["qnorm"])]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
