"""Select beside pivoted QR in memory, and beside one read and the products of the greedy steps.

``select-panel`` is the command ``dglzarr panel`` on a finished study, from its start to its exit:
200 genes within conditions. ``processor_seconds`` is what it takes of all cores, which tells more
than the clock where the machine has other work.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import scipy.linalg
from common import (
    Bench,
    Case,
    Timed,
    labels,
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
from dglzarr.storage.study import create_study

N_LANDMARKS = {"tiny": 10, "small": 943, "full": 943}
N_ORDERED = {"tiny": 8, "small": 200, "full": 200}
STUDIES = {"tiny": (96, 200), "small": (571, 22268), "full": (16384, 22268)}
"""Samples and genes of the finished study; 571 are those of `make real`."""


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
    return _limit(case, case.path("normalized.zarr"), N_LANDMARKS[case.size])


def _limit(case: Case, uri: str, n_steps: int) -> Timed:
    n_rows, rows = min(SKETCH_ROWS, case.n_samples * 8 // 10), Rows(uri)
    with threadpool_limits(max(1, case.workers)):
        parts = {
            "read": seconds_of(lambda: [rows[region.rows] for region in regions(uri)]),
            "products of samples": product_seconds([(n_rows, case.n_genes, n_rows)]),
            "steps": product_seconds([(2, n_rows, case.n_genes)]) * n_steps,
        }
    more = {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}}
    return Timed(sum(parts.values()), case.n_samples, more=more)


ENGINES = {
    "dglzarr": with_dglzarr,
    "dglzarr, penalties chosen": with_chosen,
    "scipy pivoted QR, in memory": with_pivoted_qr,
    "limit: one read, float32 products of the steps": with_limit,
}


def prepare_study(case: Case) -> None:
    """Write a finished study, its own panel chosen greedily."""
    segment = replace(case, folder=case.path("study/segments/0000"))
    Path(segment.folder).mkdir(parents=True)
    create_study(case.path("study"))
    prepare(segment)
    options = SelectOptions(selectors=(), n_random=1, n_landmarks=N_LANDMARKS[case.size])
    select(
        segment.path("scores.zarr"),
        case.path("study/landmarks.zarr"),
        normalized=segment.path("normalized.zarr"),
        samples=segment.path("samples.zarr"),
        options=options.model_copy(update={"penalty": 3.0}),
    )


def with_command(case: Case) -> Timed:
    """Time the command with three genes included, one left out and a window of expression."""
    named, n = labels("g", case.n_genes), str(N_ORDERED[case.size])
    command = [sys.executable, "-c", "from dglzarr.cli import main; main()", "panel"]
    command += [case.path("study"), "--size", n, "--include", ",".join(named[:3])]
    command += ["--exclude", named[3], "--exclude-controls", "--min-mean", "-0.5"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    timed = run_here(case, lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    more = {"processor_seconds": round(used, 2)}
    return replace(timed, start_rss_mb=0.0, peak_rss_mb=after.ru_maxrss / 1024, more=more)


def with_panel_limit(case: Case) -> Timed:
    """Time one read of the study's samples, their products, and those of all steps, in float32."""
    return _limit(case, case.path("study/segments/0000/normalized.zarr"), N_ORDERED[case.size])


PANEL_ENGINES = {
    "dglzarr": with_command,
    "limit: one read, float32 products of the steps": with_panel_limit,
}
BENCHES = [
    Bench("select", prepare, ENGINES, packages=["scipy"]),
    Bench("select-panel", prepare_study, PANEL_ENGINES, sizes=STUDIES),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
