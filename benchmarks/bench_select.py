"""Select beside pivoted QR in memory, and beside one read and the products of the greedy steps."""

from __future__ import annotations

import shutil
from typing import Literal

import scipy.linalg
from common import (
    Bench,
    Case,
    Timed,
    main,
    product_seconds,
    run_here,
    run_stage,
    seconds_of,
    simulated_matrix,
    write_normalized_and_samples,
    write_scores,
)
from threadpoolctl import threadpool_limits

from dglzarr.evaluation.sketch import SKETCH_ROWS
from dglzarr.kernels.moments import standardize
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import regions

N_LANDMARKS = {"tiny": 10, "small": 943, "full": 943}


def prepare(case: Case) -> None:
    """Write a normalized store, a samples store, and random scores."""
    write_normalized_and_samples(case)
    write_scores(case)


def with_dglzarr(case: Case, penalty: float | Literal["chosen"] = 3.0) -> Timed:
    """Time the stage with the greedy selector and a random panel, from store to store."""
    target = case.path("landmarks.zarr")
    shutil.rmtree(target, ignore_errors=True)
    options = SelectOptions(
        selector="greedy",
        selectors=(),
        n_random=1,
        n_landmarks=N_LANDMARKS[case.size],
        penalty=penalty,
    )
    timed = run_stage(
        case,
        select,
        case.path("scores.zarr"),
        target,
        normalized=case.path("normalized.zarr"),
        samples=case.path("samples.zarr"),
        options=options,
    )
    more = {**timed.more, "n_landmarks": N_LANDMARKS[case.size]}
    return Timed(timed.seconds, timed.n_samples, timed.start_rss_mb, timed.peak_rss_mb, more)


def with_chosen(case: Case) -> Timed:
    """Time the stage when the penalties are chosen on inner folds, as it is unless told."""
    return with_dglzarr(case, "chosen")


def with_pivoted_qr(case: Case) -> Timed:
    """Time SciPy's QR with column pivoting on as many samples as the sketch has rows.

    It chooses genes by what the chosen ones leave of them, not by what they tell of others.
    """
    uri = case.path("samples.zarr")
    mean, std = read_array(uri, "gene_mean"), read_array(uri, "gene_std")
    z = standardize(simulated_matrix(case.n_samples, case.n_genes)[:SKETCH_ROWS], mean, std)
    return run_here(case, lambda: scipy.linalg.qr(z, mode="r", pivoting=True))


def with_limit(case: Case) -> Timed:
    """Time one read of the store, the products of samples, and those of all steps, in float32."""
    uri, n_rows = case.path("normalized.zarr"), min(SKETCH_ROWS, case.n_samples * 8 // 10)
    rows = Rows(uri)
    with threadpool_limits(max(1, case.workers)):
        parts = {
            "read": seconds_of(lambda: [rows[region.rows] for region in regions(uri)]),
            "products of samples": product_seconds([(n_rows, case.n_genes, n_rows)]),
            "steps": product_seconds([(2, n_rows, case.n_genes)]) * N_LANDMARKS[case.size],
        }
    more = {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}}
    return Timed(sum(parts.values()), case.n_samples, more=more)


ENGINES = {
    "dglzarr": with_dglzarr,
    "dglzarr, penalties chosen": with_chosen,
    "scipy pivoted QR, in memory": with_pivoted_qr,
    "limit: one read, float32 products of the steps": with_limit,
}
BENCHES = [Bench("select", prepare, ENGINES, packages=["scipy"])]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
