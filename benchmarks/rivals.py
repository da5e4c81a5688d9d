"""Select a panel by a package that is not part of this project's environment.

    python3 -m venv rivals && rivals/bin/pip install skmatter spapros
    rivals/bin/python benchmarks/rivals.py NAME ROWS.npy N OUT.json

ROWS are training samples in z units, (sample, gene). Writes the columns selected, in order, with
the seconds and memory that took. benchmarks/leaderboard.py calls it. Nothing of dglzarr is needed.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]
    Select = Callable[[Matrix, int], Index]


def cur() -> Select:
    """Return in turn the gene of the highest leverage on the first axis of what is left."""
    selector = import_module("skmatter.feature_selection").CUR
    return lambda rows, n: selector(n_to_select=n, recompute_every=1).fit(rows).selected_idx_


def farthest() -> Select:
    """Return in turn the gene farthest from all that are selected."""
    selector = import_module("skmatter.feature_selection").FPS
    return lambda rows, n: selector(n_to_select=n, initialize=0).fit(rows).selected_idx_


def spapros_pca() -> Select:
    """Return the genes of the largest sums of loadings on the first principal components."""
    select, samples = import_module("spapros").se.select_pca_genes, import_module("anndata").AnnData

    def chosen(rows: Matrix, n: int) -> Index:
        table = select(samples(rows), n, inplace=False)
        return np.argsort(-table["selection_score"].to_numpy(), kind="stable")[:n]

    return chosen


NAMES = {"cur": cur, "farthest": farthest, "spapros-pca": spapros_pca}


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    name, source, n, out = sys.argv[1:]
    rows = np.load(source)
    select = NAMES[name]()
    before, start = peak_mb(), time.perf_counter()
    panel = [int(gene) for gene in select(rows, int(n))]
    told = {"panel": panel, "seconds": time.perf_counter() - start}
    told |= {"start_mb": before, "peak_mb": peak_mb()}
    Path(out).write_text(json.dumps(told), encoding="utf-8")
