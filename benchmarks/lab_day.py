"""A lab's day on real series: order, bundle, what held-out samples would have measured, contrasts.

    python benchmarks/lab_day.py --root real

Needs the study of ``make real``, its duplicates at least. A panel of 200 holds 12 genes and none of
30 that cannot be made; the bundle is made of its order sheet; what is measured are the panel's
values of the held-out series before normalization. Prints, for each contrast of two groups of a
held-out series, how log2 fold changes of genes that were not measured are found again: beside the
training mean, which predicts none, and beside random panels of the same size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from common import show_row

from dglzarr.cli import guarded
from dglzarr.evaluation.order import Conditions, PanelMaker, write_sheet
from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.make import make_bundle
from dglzarr.prediction.predict import predict
from dglzarr.prediction.told import bundle_lines
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE, N_FORCED, N_IMPOSSIBLE = 200, 12, 30


class Contrast(NamedTuple):
    """Two groups of a series, by a label."""

    series: str
    label: str
    case: str
    control: str


CONTRASTS = (
    Contrast("GSE14924", "Group", "d", "c"),
    Contrast("GSE6481", "label", "myxoid liposarcoma", "malignant fibrous histiocytoma"),
)


class Held:
    """Held-out samples of a study: as measured, and as normalized."""

    def __init__(self, root: str) -> None:
        self._segment = f"{root}/segments/0000"
        uri = f"{self._segment}/normalized.zarr"
        self._ds = open_store(uri, NORMALIZED)
        self.genes = [str(g) for g in self._ds["gene"].values]
        self.index = np.flatnonzero(self._ds["split"].values == 2)
        self.normalized = Rows(uri).take(self.index)
        self._raw = Rows(f"{self._segment}/expression.zarr").take(self.index)

    def measured(self, panel: list[str]) -> pd.DataFrame:
        """Return what a lab would measure of a panel, samples in rows, before normalization."""
        at = [self.genes.index(gene) for gene in panel]
        return pd.DataFrame(self._raw[:, at], columns=panel)

    def groups(self, of: Contrast) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which held-out samples are of the case, and which of the control."""
        labels = [str(name) for name in self._ds["label"].values]
        values = read_array(f"{self._segment}/normalized.zarr", "sample_label")[self.index]
        value = values[:, labels.index(of.label)].astype(object)
        is_of = self._ds["series"].values[self.index].astype(object) == of.series
        return is_of & (value == of.case), is_of & (value == of.control)


def fold_change(
    values: NDArray[np.floating], groups: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> NDArray[np.floating]:
    """Return the difference of the groups' means, (gene,)."""
    case, control = (np.nanmean(values[of], axis=0) for of in groups)
    return np.asarray(case - control)


def show(held: Held, bundle: str, name: str) -> None:
    """Print what a bundle says of the held-out samples."""
    loaded = load_bundle(bundle)
    found = predict(loaded, held.measured(loaded.panel.genes))
    at = [held.genes.index(gene) for gene in loaded.targets.genes]
    truth = held.normalized[:, at]
    inside = (found.lower <= truth) & (truth <= found.upper)
    trusted = found.genes["trusted"].to_numpy()
    show_row(
        name, "all held-out samples", len(held.index), f"{inside.to_numpy().mean():.1%}", "", ""
    )
    for of in CONTRASTS:
        groups = held.groups(of)
        real = fold_change(truth, groups)
        said = fold_change(found.predicted.to_numpy(), groups)
        strong = np.abs(real) >= np.sort(np.abs(real))[-500]
        show_row(
            name,
            f"{of.series}: {of.case} against {of.control}",
            f"{groups[0].sum()} + {groups[1].sum()}",
            f"{inside.to_numpy()[groups[0] | groups[1]].mean():.1%}",
            f"{np.corrcoef(real, said)[0, 1]:.2f}, "
            f"{np.corrcoef(real[trusted], said[trusted])[0, 1]:.2f}",
            f"{(np.sign(real) == np.sign(said))[strong].mean():.1%}",
        )


def day(root: str, folder: Path, n_random: int) -> None:
    """Order, bundle, measure, predict."""
    held, rng = Held(root), np.random.default_rng(0)
    drawn = rng.permutation(len(held.genes))
    wanted, impossible = (
        tuple(held.genes[i] for i in some)
        for some in (drawn[:N_FORCED], drawn[N_FORCED : N_FORCED + N_IMPOSSIBLE])
    )
    maker = PanelMaker(root)
    asked = Conditions(SIZE, include=wanted, exclude=impossible, exclude_controls=True)
    made = maker.order(asked)
    write_sheet(made, folder / "order.tsv")
    price = made.price["all"]
    print(f"Panel of {SIZE}: error {price.error:.4f}, without conditions {price.free:.4f}.")
    bundled = make_bundle(root, folder / "panel.zip", panel=str(folder / "order.tsv"))
    print("\n".join(bundle_lines(bundled)[:-1]))
    show_row(
        "panel", "samples", "n", "within 95 %", "r of fold changes: all, trusted", "sign of 500"
    )
    show_row(*["---"] * 6)
    show(held, bundled.output, "ordered")
    for k in range(n_random):
        genes = [held.genes[i] for i in rng.permutation(len(held.genes))[:SIZE]]
        (folder / "random.txt").write_text("\n".join(genes), encoding="utf-8")
        random = make_bundle(root, folder / f"{k}.zip", panel=str(folder / "random.txt"))
        show(held, random.output, f"random {k}")


def main() -> None:
    """Show the day on the real data."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", required=True, help="of the study of make real")
    parser.add_argument("--n-random", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lab-day-") as folder:
        day(asked.root, Path(folder), asked.n_random)


if __name__ == "__main__":
    sys.exit(guarded(main))
