"""Do the intervals of `dglzarr predict` hold? Each series is held out once, whole.

    python benchmarks/predict_coverage.py --folder ../shared/data --root real

The study is that of deploy/settings/real.toml. Its series are dealt into folds; each fold is a
study of its own under ``ROOT/folds``, normalized without the series that it is judged on. A panel
is chosen greedily, fitted and calibrated there, by `prediction.fit`, and judged on the fold's own
series as `dglzarr bundle` judges. Prints a table: the share of values within their 95 % intervals,
over all series and of the worst, the mean width beside that of intervals around the training mean,
the error beside the mean's, and how novelty goes with error from sample to sample. Finished stores
are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from grow_real import SETTINGS
from scipy.stats import spearmanr

from dglzarr.cli import guarded
from dglzarr.evaluation.order import Conditions, PanelMaker
from dglzarr.kernels.comparison import bootstrap_interval
from dglzarr.prediction.fit import Training, fit_panel
from dglzarr.prediction.judge import judge
from dglzarr.settings import load_settings
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import open_store
from dglzarr.storage.study import FIRST_SEGMENTS, Study, create_study
from dglzarr.studies.cross_validate import fold_plan
from dglzarr.studies.plan import Plan, on_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dglzarr.prediction.judge import Judged
    from dglzarr.settings import Settings

STEPS = ("ingest", "join", "normalize", "dedup")


def fold_roots(settings: Settings) -> Iterator[str]:
    """Make the folds one by one, up to duplicates, and yield their folders."""
    study = Plan.of(settings, study=Study(settings.root, FIRST_SEGMENTS))
    for k in range(settings.compare.n_folds):
        fold = fold_plan(study, k)
        create_study(fold.study.root)
        with on_cluster(settings, [fold[name] for name in STEPS]):
            for name in STEPS:
                fold[name](Run())
        yield fold.study.root


def by_series(of: Judged) -> dict[str, dict[str, float]]:
    """Return error, coverage and novelty of each series, and how many samples it has."""
    names = ("error", "mean_error", "coverage", "mean_coverage", "novelty")
    found = {}
    for one in sorted(set(of.series)):
        here = of.series == one
        means = {name: float(getattr(of, name)[here].mean()) for name in names}
        found[str(one)] = {"n": int(here.sum()), **means}
    return found


def judged_fold(root: str, size: int) -> list[Judged]:
    """Return what a greedy panel of a fold gets on the series that the fold holds out."""
    segment = f"{root}/segments/0000"
    source, samples = f"{segment}/normalized.zarr", f"{segment}/samples.zarr"
    table = PanelMaker(root).order(Conditions(size)).table
    genes = open_store(source).indexes["gene"].get_indexer(table["gene"]).astype(np.int64)
    varies = np.flatnonzero(read_array(samples, "gene_std") > 0)
    data = Training(source, samples, genes, np.setdiff1d(varies, genes).astype(np.int64))
    return judge(data, fit_panel(data))


def row(size: int, folds: Sequence[Judged]) -> dict[str, Any]:
    """Return a row of the table: one size and scale over all folds."""
    series = np.concatenate([of.series for of in folds])

    def joined(name: str) -> Any:  # noqa: ANN401
        return np.concatenate([getattr(of, name) for of in folds])

    error, coverage = joined("error"), joined("coverage")
    by_series = [coverage[series == one].mean() for one in np.unique(series)]
    low, high = bootstrap_interval(coverage[None], series)[0]
    counts = [of.error.size for of in folds]
    width, mean_width = (
        np.average([getattr(of, n) for of in folds], weights=counts)
        for n in ("width", "mean_width")
    )
    return {
        "genes": size,
        "scale": folds[0].scale,
        "samples": int(series.size),
        "series": int(np.unique(series).size),
        "coverage": float(coverage.mean()),
        "coverage_low": float(low),
        "coverage_high": float(high),
        "coverage_by_series": float(np.mean(by_series)),
        "lowest_series": float(np.min(by_series)),
        "highest_series": float(np.max(by_series)),
        "mean_coverage": float(joined("mean_coverage").mean()),
        "width": float(width),
        "mean_width": float(mean_width),
        "error": float(error.mean()),
        "mean_error": float(joined("mean_error").mean()),
        "novelty_with_error": float(spearmanr(joined("novelty"), error).statistic),
        "unlike": float((joined("novelty") > 1).mean()),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    head = (
        "| Genes, scale | Within 95 % intervals | By series: mean, lowest to highest | Mean width "
        "| Around the mean: within, width | Error | Mean's error | Novelty with error |"
    )
    lines = [head, "| --- " * 8 + "|"]
    for of in rows:
        cells = (
            f"{of['genes']}, {of['scale']}",
            f"{of['coverage']:.1%} ({of['coverage_low']:.1%} to {of['coverage_high']:.1%})",
            (
                f"{of['coverage_by_series']:.1%}, {of['lowest_series']:.1%} to "
                f"{of['highest_series']:.1%}"
            ),
            f"{of['width']:.2f}",
            f"{of['mean_coverage']:.1%}, {of['mean_width']:.2f}",
            f"{of['error']:.3f}",
            f"{of['mean_error']:.3f}",
            f"{of['novelty_with_error']:+.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Judge panels of some sizes on every series of the real data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="with the real data")
    parser.add_argument("--root", required=True, help="folder of the study whose folds are made")
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 943])
    parser.add_argument("--folds", type=int, default=6)
    asked = parser.parse_args()
    settings = load_settings(
        asked.settings,
        [f"root={asked.root}", f"compare.n_folds={asked.folds}"],
        folder=asked.folder,
    )
    found: dict[int, list[list[Judged]]] = {size: [] for size in asked.sizes}
    for root in fold_roots(settings):
        for size, folds in found.items():
            folds.append(judged_fold(root, size))
            sys.stderr.write(f"{root}: {size} genes\n")
            for of in folds[-1]:
                sys.stderr.write(f"{json.dumps({of.scale: by_series(of)})}\n")
    rows = [row(n, of) for n, folds in found.items() for of in map(list, zip(*folds, strict=True))]
    sys.stdout.write(f"{table(rows)}\n")
    for of in rows:
        sys.stdout.write(f"{json.dumps(of)}\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
