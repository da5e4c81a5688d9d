"""Compare panels on a simulated compendium whose best landmarks are known.

    python benchmarks/compare_simulated.py --folder simulated

200 planted hubs carry 22,268 genes of 16,384 samples in 32 series; decoys that vary most carry
nothing. The hubs take part as a published list, whole and in random subsets. Prints the table of
``dglzarr compare`` and how many hubs the first genes of each selector are. Finished work is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import say_progress

from dglzarr.cli import guarded
from dglzarr.report.comparison import COLUMNS, cells, comparison_rows, comparison_verdict
from dglzarr.settings import Settings
from dglzarr.storage.options import Run
from dglzarr.storage.store import open_store
from dglzarr.studies.cross_validate import comparison_uri, cross_validate
from dglzarr.testing import simulate_expression, write_gctx

N_SERIES = 32


def write_compendium(folder: Path, *, n_samples: int, n_genes: int, n_hubs: int) -> None:
    """Write ``compendium.gctx`` and ``hubs.txt``, which is written last."""
    if (folder / "hubs.txt").exists():
        return
    simulated = simulate_expression(
        n_samples, n_genes, n_hubs=n_hubs, n_programs=n_hubs // 5, n_series=N_SERIES,
        n_duplicates=n_samples // 60,
    )  # fmt: skip
    write_gctx(
        folder / "compendium.gctx",
        simulated.expression,
        samples=simulated.samples,
        genes=simulated.genes,
        labels={"series_id": simulated.series},
    )
    (folder / "hubs.txt").write_text("\n".join(simulated.hubs), encoding="utf-8")


def hubs_found(root: str, n_folds: int, hubs: set[str]) -> dict[str, list[int]]:
    """Return how many genes of each selector's panels are hubs, one number a fold."""
    found: dict[str, list[int]] = {}
    for k in range(n_folds):
        ds = open_store(f"{root}/folds/{k}/candidates.zarr")
        columns = (ds[name].values for name in ("panel", "kind", "panel_gene"))
        for panel, kind, genes in zip(*columns, strict=True):
            if kind not in ("random", "subset"):
                found.setdefault(str(panel), []).append(len(hubs & set(map(str, genes))))
    return found


def main() -> None:
    """Write the compendium, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="of the data and the study")
    parser.add_argument("--n-samples", type=int, default=16_384)
    parser.add_argument("--n-genes", type=int, default=22_268)
    parser.add_argument("--n-hubs", type=int, default=200)
    parser.add_argument("--panels", default="greedy,medoids,variance")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--n-random", type=int, default=20)
    parser.add_argument("--folds", type=int, default=2)
    asked = parser.parse_args()
    write_compendium(
        asked.folder, n_samples=asked.n_samples, n_genes=asked.n_genes, n_hubs=asked.n_hubs
    )
    settings = Settings.model_validate(
        {
            "root": str(asked.folder / "study"),
            "sources": [{"uri": str(asked.folder / "compendium.gctx")}],
            "select": {"n_random": asked.n_random},
            "evaluate": {"panels": {"hubs": str(asked.folder / "hubs.txt")}},
            "cluster": {"kind": "local", "n_workers": 2},
            "compare": {
                "selectors": asked.panels.split(","),
                "sizes": asked.sizes,
                "n_folds": asked.folds,
            },
        }
    )
    cross_validate(settings, run=Run(on_progress=say_progress))
    rows = comparison_rows(comparison_uri(settings.root))
    hubs = set((asked.folder / "hubs.txt").read_text(encoding="utf-8").split())
    lines = ["\t".join(COLUMNS), *("\t".join(cells(row)) for row in rows)]
    lines += comparison_verdict(rows)
    for panel, numbers in hubs_found(settings.root, asked.folds, hubs).items():
        lines.append(f"{panel}: {np.mean(numbers):.0f} hubs ({min(numbers)} to {max(numbers)})")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
