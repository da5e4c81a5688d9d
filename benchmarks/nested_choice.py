"""Choose a selector inside the training series of every fold; judge the choice on the fold's own.

    python benchmarks/nested_choice.py --folder ../shared/data --root real

Needs the comparison that ``make compare`` leaves in the root. The training series of each of its
folds become a study of their own under ``ROOT/nested``, which is cross-validated in turn: the
selector with the lowest mean error over the sizes is the fold's choice. What that costs on the
series that had no part in the choice is printed beside what random panels cost there. Finished work
is kept.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import say_progress, show_row
from grow_real import SETTINGS, without

from dglzarr.cli import guarded
from dglzarr.errors import ConfigError
from dglzarr.evaluation.panels import RANDOM
from dglzarr.kernels.split import SPLITS
from dglzarr.settings import Settings, load_settings
from dglzarr.stages.compare import CompareOptions
from dglzarr.storage.options import Run
from dglzarr.storage.store import open_store
from dglzarr.storage.study import planned_study
from dglzarr.studies.cross_validate import comparison_uri, cross_validate
from dglzarr.studies.plan import source_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def fold_errors(uri: str, sizes: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return the mean error of each family of panels, (size, fold), of a comparison by ridge."""
    ds = open_store(uri).sel(predictor="ridge").load()
    family, size = ds["family"].values, ds["size"].values
    found = {}
    for name in dict.fromkeys(family.tolist()):
        of_size = [ds["fold_mae"].values[(family == name) & (size == n)] for n in sizes]
        if all(map(len, of_size)):
            found[name] = np.stack([errors.mean(axis=0) for errors in of_size])
    return found


def inside(settings: Settings, k: int, asked: CompareOptions) -> Settings:
    """Return the settings of a study of the training series of a fold alone."""
    fold = open_store(f"{settings.root}/folds/{k}/segments/0000/normalized.zarr")
    held = set(fold["source"].values[fold["split"].values == SPLITS.index("test")].tolist())
    names = [
        file.name
        for file in source_files(settings, planned_study(settings.root))
        if file.options.role == "cohort" or file.name in held
    ]
    return without(settings, names).model_copy(
        update={
            "root": f"{settings.root}/nested/{k}",
            "select": settings.select.model_copy(update={"n_random": 1}),
            "evaluate": settings.evaluate.model_copy(update={"panels": {}}),
            "compare": asked,
        }
    )


def show_choices(
    settings: Settings, names: Sequence[str], sizes: Sequence[int], *, inner_folds: int
) -> None:
    """Compare inside every fold, choose, print a row a fold."""
    outer = fold_errors(comparison_uri(settings.root), sizes)
    if absent := [name for name in names if name not in outer]:
        raise ConfigError(
            f"--panels, --sizes: expected what {comparison_uri(settings.root)} holds, got "
            f"{absent!r} of {list(sizes)!r}. Compare them first."
        )
    show_row("fold", *(f"{name}, inside" for name in names), "choice", *_titles(sizes))
    chosen = []
    for k in range(outer[RANDOM].shape[1]):
        asked = CompareOptions(selectors=tuple(names), sizes=tuple(sizes), n_folds=inner_folds)
        inner = inside(settings, k, asked)
        cross_validate(inner, run=Run(on_progress=say_progress))
        found = fold_errors(comparison_uri(inner.root), sizes)
        errors = [float(found[name].mean()) for name in names]
        choice = names[int(np.argmin(errors))]
        chosen.append(outer[choice][:, k])
        show_row(k, *map(_short, errors), choice, *map(_pair, chosen[-1], outer[RANDOM][:, k]))
    outside = [_short(outer[name].mean()) for name in names]
    means = map(_pair, np.mean(chosen, axis=0), outer[RANDOM].mean(axis=1))
    show_row("mean", *outside, "errors outside", *means)


def main() -> None:
    """Show the choices on the real data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="with the real data")
    parser.add_argument("--root", required=True, help="of the study that make compare has compared")
    parser.add_argument("--panels", default="greedy,deeplift-greedy,medoids,top-score")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--inner-folds", type=int, default=4)
    asked = parser.parse_args()
    settings = load_settings(SETTINGS, [f"root={asked.root}"], folder=asked.folder)
    show_choices(settings, asked.panels.split(","), asked.sizes, inner_folds=asked.inner_folds)


def _titles(sizes: Sequence[int]) -> list[str]:
    return [f"{size} genes: chosen, random" for size in sizes]


def _pair(ours: float, random: float) -> str:
    return f"{ours:.4f}, {random:.4f}"


def _short(error: float) -> str:
    return f"{error:.4f}"


if __name__ == "__main__":
    sys.exit(guarded(main))
