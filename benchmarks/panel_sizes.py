"""Judge greedy panels of 50 to 943 genes beside random ones, on held-out series of several data.

    python benchmarks/panel_sizes.py --folder ../shared/data --root sizes

For each fold of whole series the study's own stages make the data; panels are selected on its kept
training samples: greedy with one penalty for all sizes, greedy with penalties chosen on inner folds
of these samples, medoids where asked for, and random ones. Ridge regression, its penalty chosen on
the fold's validation series, predicts the genes of the series that are held out. Differences are
paired, sample by sample, over the genes that none of the compared panels measures; intervals are
95 %, over series. ``genome`` is the error over all genes, a panel's own counting as measured
exactly. Errors of a fold, and its penalties, are kept in the root, so that a killed run goes on.
Panels are selected among all genes, and judged on all or on 4096 drawn ones.
The grid of ridge regression's penalties is of half decades: with the decades of `evaluate`, the
validation series of one fold move the error of one panel by as much as there is to tell.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg
from common import say, show_row

from dglzarr.cli import guarded
from dglzarr.evaluation.panels import PanelOptions, Rules, with_penalties
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.comparison import bootstrap_interval
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.panels import CONSTANT, select_panel
from dglzarr.kernels.penalties import Stretch
from dglzarr.kernels.split import SPLITS
from dglzarr.query import gene_keys
from dglzarr.settings import Settings, load_settings
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import NORMALIZED, SAMPLES
from dglzarr.storage.store import open_store
from dglzarr.storage.study import FIRST_SEGMENTS, Study, create_study
from dglzarr.studies.cross_validate import fold_plan
from dglzarr.studies.plan import Plan
from dglzarr.testing import simulate_expression, write_gctx

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]

REAL = Path(__file__).parents[1] / "deploy" / "settings" / "real.toml"
DATA = ("real", "genes", "rnaseq", "simulated")
ALPHAS = tuple(float(10 ** (half / 2)) for half in range(9))
N_JUDGED = 4096
LOSS = 0.003
"""What the interval of a panel's loss to random ones must exclude."""

GENE_LEVEL = (
    "CRCL18_mrna", "GSE16873_entrez", "GSE27544", "GSE37317", "GSE4045", "GSE45270", "GSE5287",
)  # fmt: skip
RNASEQ = (
    "GTEx_ERSSA_heart_muscle", "LCL_montgomery", "LCL_pickrell", "TCGA_COADREAD_CMScaller",
    "TCGA_CHOL_rnaseqv2", "TCGA_DLBC_rnaseqv2", "TCGA_STAD_rnaseqv2", "TCGA_UVM_rnaseqv2",
)  # fmt: skip


# ---------------------------------------------------------------- the data


def settings_of(name: str, folder: Path, root: Path) -> Settings:
    """Return the settings of a study of one of the data sets."""
    place = root / name
    place.mkdir(parents=True, exist_ok=True)
    if name == "real":
        return load_settings(REAL, [f"root={place}"], folder=folder)
    if name == "simulated":
        return simulated(place)
    files = (
        [(f"more/genelevel/{n}_expr.tsv.gz", f"more/genelevel/{n}_samples.tsv") for n in GENE_LEVEL]
        if name == "genes"
        else [(f"more/rnaseq/{n}.tsv.gz", f"more/rnaseq/{n}_samples.tsv") for n in RNASEQ]
    )
    more = {} if name == "genes" else {"unit": "counts"}
    annotation = place / "annotation.tsv"
    _write_annotation(folder, annotation)
    sources = [
        {"uri": str(folder / uri), "sample_sheet": str(folder / sheet), **more}
        for uri, sheet in files
    ]
    ingest = {"feature_kind": "gene", "annotation": str(annotation)}
    return Settings.model_validate({"root": str(place), "sources": sources, "ingest": ingest})


def _write_annotation(folder: Path, path: Path) -> None:
    """Write the symbols of Entrez and Ensembl IDs, from tables of the data folder."""
    symbol: dict[str, str] = {}
    with (folder / "l1000" / "GSE92742_Broad_LINCS_gene_info.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            symbol.setdefault(row["pr_gene_id"], row["pr_gene_symbol"])
    with gzip.open(folder / "gtex" / "GTEx_yarn_skin_genes.tsv.gz", "rt") as file:
        for cells in csv.reader(file, delimiter="\t"):
            if cells[1].startswith("ENSG") and cells[2] not in ("", "NA"):
                symbol.setdefault(cells[1], cells[2])
    with gzip.open(folder / "more" / "rnaseq" / "TCGA_UVM_rnaseqv2.tsv.gz", "rt") as file:
        for line in file:
            label = line.split("\t", 1)[0]
            name, _, entrez = label.partition("|")
            if entrez and name != "?":
                symbol.setdefault(label, name)
                symbol.setdefault(entrez, name)
    lines = ["probe\tsymbol", *(f"{label}\t{name}" for label, name in symbol.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def simulated(place: Path, *, n_samples: int = 1024, n_genes: int = 8192) -> Settings:
    """Return the settings of a simulated compendium of 16 series with 100 planted hubs."""
    path = place / "compendium.gctx"
    if not path.exists():
        n_hubs = min(100, n_genes // 8)
        found = simulate_expression(
            n_samples, n_genes, n_hubs=n_hubs, n_programs=n_hubs // 5, n_series=16
        )
        labels = {"series_id": found.series}
        write_gctx(path, found.expression, samples=found.samples, genes=found.genes, labels=labels)
    return Settings.model_validate({"root": str(place), "sources": [{"uri": str(path)}]})


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of where the real data are, or that a small simulated set will do."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(), help="with the real data")
    parser.add_argument("--root", type=Path, required=True, help="of the folds")
    parser.add_argument(
        "--size", choices=("small", "full"), default="full", help="small: simulated"
    )
    return parser


def asked_settings(asked: argparse.Namespace) -> Settings:
    """Return the settings of the study that was asked for by `parser_of`."""
    root = asked.root.absolute()
    if asked.size == "small":
        return simulated(root, n_samples=96, n_genes=200)
    return settings_of("real", asked.folder.absolute(), root)


@dataclass(frozen=True)
class Fold:
    """Samples of a fold in z units: to fit on, to tune on, and held out."""

    fit: Matrix
    tune: Matrix
    held: Matrix
    fit_series: NDArray[Any]
    tune_series: NDArray[Any]
    series: NDArray[Any]
    keys: NDArray[Any]
    varies: NDArray[np.bool_]


def read_fold(normalized: str, samples: str) -> Fold:
    """Return the kept samples of a fold's stores; without validation ones every tenth tunes."""
    ds, mask = open_store(normalized, NORMALIZED), open_store(samples, SAMPLES)
    std, split = mask["gene_std"].values, np.where(mask["keep"].values, ds["split"].values, -1)
    z = standardize(Rows(normalized)[:], mask["gene_mean"].values, std)
    z = np.nan_to_num(z)
    if not (split == SPLITS.index("validation")).any():
        split[np.flatnonzero(split == 0)[::10]] = SPLITS.index("validation")
    parts, series = [split == k for k in range(3)], ds["series"].values.astype(object)
    labels = gene_keys(ds).astype(object)
    return Fold(*(z[part] for part in parts), *(series[part] for part in parts), labels, std > 0)


# ---------------------------------------------------------------- panels and their errors


class Judge:
    """Predicts all genes of the held-out samples by ridge regression, solved over samples."""

    def __init__(self, fold: Fold, alphas: Sequence[float], genes: Index | None = None) -> None:
        self._fold, self._alphas = fold, alphas
        self.genes = np.arange(fold.varies.size) if genes is None else genes
        self._mean = fold.fit.mean(axis=0)
        self._centred = fold.fit - self._mean

    def errors(self, panel: Index) -> Matrix:
        """Return the absolute errors, (sample, judged gene)."""
        x, fold = self._centred[:, panel], self._fold
        spread, axes = scipy.linalg.eigh((x @ x.T).astype(np.float64))
        judged = self.genes
        turned = axes.T.astype(np.float32) @ self._centred[:, judged]
        tune, held = (
            ((part[:, panel] - self._mean[panel]) @ x.T) @ axes.astype(np.float32)
            for part in (fold.tune, fold.held)
        )

        def predicted(rows: Matrix, alpha: float) -> Matrix:
            shrunk = rows / (np.maximum(spread, 0) + alpha).astype(np.float32)
            return np.asarray(shrunk @ turned + self._mean[judged])

        truth = fold.tune[:, judged]
        found = [np.abs(predicted(tune, alpha) - truth).mean() for alpha in self._alphas]
        best = self._alphas[int(np.argmin(found))]
        return np.abs(predicted(held, best) - fold.held[:, judged])


def select_panels(
    normalized: str, samples: str, sizes: Sequence[int], n_random: int, others: Sequence[str]
) -> tuple[dict[str, list[Index]], list[Any]]:
    """Return the panels of every way at the largest size, or of each; and the penalties chosen."""
    n_genes = read_array(samples, "gene_std").size
    sketch = sketch_training(normalized, samples, np.full(n_genes, np.nan), seed=0)
    n, kept = max(sizes), Path(normalized).parent / f"penalties-{max(sizes)}.json"
    rules = Rules([], [])
    if kept.exists():
        path = json.loads(kept.read_text(encoding="utf-8"))
        rules = rules._replace(path=[Stretch(*stretch) for stretch in path])
    else:
        rules = with_penalties(rules, sketch, PanelOptions(), selectors=["greedy"], n=n, seed=0)
        kept.write_text(json.dumps([list(s) for s in rules.path]), encoding="utf-8")
    panels = {
        "old": [select_panel("greedy", sketch, n, path=CONSTANT)],
        "greedy": [select_panel("greedy", sketch, n, path=rules.path)],
    }
    for name in others:
        panels[name] = [select_panel(name, sketch, size) for size in sizes]
    order = np.flatnonzero(sketch.varies)
    draws = (np.random.default_rng([0, i]).permutation(order) for i in range(n_random))
    panels["random"] = list(draws)
    return panels, [list(stretch) for stretch in rules.path]


def judge_fold(
    normalized: str,
    samples: str,
    sizes: Sequence[int],
    n_random: int,
    others: Sequence[str],
    alphas: Sequence[float],
) -> dict[str, Any]:
    """Return errors of a fold: (sample,) by way, size and what it is compared over."""
    fold = read_fold(normalized, samples)
    panels, penalties = select_panels(normalized, samples, sizes, n_random, others)
    some = np.random.default_rng(0).permutation(np.flatnonzero(fold.varies))[:N_JUDGED]
    judge = Judge(fold, alphas, np.sort(some))
    found: dict[str, Any] = {"series": [str(s) for s in fold.series], "penalties": penalties}
    doubled = {size: 2 * size for size in sizes if size <= 200}
    ways = [name for name in panels if name != "random"]
    kept: dict[tuple[str, int], Matrix] = {}
    used: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for size in sorted({*sizes, *doubled.values()}):
        draws = [p[:size] for p in panels["random"]]
        total = np.zeros((len(fold.held), judge.genes.size), dtype=np.float32)
        genome = np.zeros(len(fold.held))
        for panel in draws:
            errors = judge.errors(panel)
            total += errors
            errors[:, np.isin(judge.genes, panel)] = 0
            genome += errors.mean(axis=1)
        kept["random", size] = total / len(draws)
        used["random", size] = _measured(fold, judge, np.unique(np.concatenate(draws)))
        found[f"random/{size}/genome"] = (genome / len(draws)).tolist()
        say(f"random panels of {size}")
    for way in ways:
        for i, size in enumerate(sizes):
            panel = panels[way][i] if len(panels[way]) > 1 else panels[way][0][:size]
            kept[way, size] = judge.errors(panel)
            used[way, size] = _measured(fold, judge, panel)
            own = kept[way, size].copy()
            own[:, np.isin(judge.genes, panel)] = 0
            found[f"{way}/{size}/genome"] = own.mean(axis=1).tolist()
    for size in sizes:
        is_target = ~used["random", size]
        for way in ways:
            is_target &= ~used[way, size]
        for way in (*ways, "random"):
            found[f"{way}/{size}"] = kept[way, size][:, is_target].mean(axis=1).tolist()
        found[f"n_targets/{size}"] = int(is_target.sum())
        if size in doubled:
            both = ~used["random", doubled[size]] & ~used["greedy", size]
            for way, n in (("greedy", size), ("random", doubled[size])):
                found[f"{way}/{size}/doubled"] = kept[way, n][:, both].mean(axis=1).tolist()
    return found


def _measured(fold: Fold, judge: Judge, panel: Index) -> NDArray[np.bool_]:
    """Return which judged features measure a gene of a panel."""
    measured = set(fold.keys[panel])
    return np.array([key in measured for key in fold.keys[judge.genes]])


# ---------------------------------------------------------------- the table


def difference(
    folds: Sequence[Mapping[str, Any]], one: str, other: str
) -> tuple[float, float, float]:
    """Return the mean of the paired differences over samples, and its interval over series."""
    series = np.concatenate([np.array(fold["series"], dtype=object) for fold in folds])
    errors = np.concatenate([np.subtract(fold[one], fold[other]) for fold in folds])
    low, high = bootstrap_interval(errors[None], series, seed=0)[0]
    return float(errors.mean()), float(low), float(high)


def show(name: str, folds: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> None:
    """Print a row a size and way."""
    ways = [key.partition("/")[0] for key in folds[0] if key.endswith(f"/{sizes[0]}/genome")]
    for size in sizes:
        for way in (w for w in ways if w != "random"):
            mean, low, high = difference(folds, f"{way}/{size}", f"random/{size}")
            told = [f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}", "yes" if high < LOSS else "no"]
            genome = difference(folds, f"{way}/{size}/genome", f"random/{size}/genome")
            told += [f"{genome[0]:+.4f}", f"{genome[1]:+.4f} to {genome[2]:+.4f}"]
            twice = "", ""
            if way == "greedy" and f"greedy/{size}/doubled" in folds[0]:
                mean, low, high = difference(
                    folds, f"greedy/{size}/doubled", f"random/{size}/doubled"
                )
                twice = f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}"
            errors = [_mean(folds, f"{w}/{size}") for w in (way, "random")]
            show_row(name, size, way, *(f"{e:.4f}" for e in errors), *told, *twice)
    for k, fold in enumerate(folds):
        path = ", ".join(f"{penalty:.1f} to {end}" for end, penalty in fold["penalties"])
        sys.stdout.write(f"{name}, fold {k}: {len(fold['series'])} samples; penalties {path}\n")


def _mean(folds: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.concatenate([fold[key] for fold in folds]).mean())


def made_fold(settings: Settings, k: int, n_folds: int) -> Plan:
    """Return the plan of a fold of a study, its samples normalized."""
    asked = settings.compare.model_copy(update={"selectors": ("greedy",), "n_folds": n_folds})
    settings = settings.model_copy(update={"compare": asked})
    create_study(settings.root)
    fold = fold_plan(Plan.of(settings, study=Study(settings.root, FIRST_SEGMENTS)), k)
    create_study(fold.study.root)
    for name in ("ingest", "join", "normalize", "dedup"):
        fold[name]()
    return fold


def judge_data(
    settings: Settings,
    sizes: Sequence[int],
    *,
    n_random: int,
    others: Sequence[str],
    alphas: Sequence[float],
    n_folds: int,
    only: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """Return the errors of all folds of a study; those that stand there already are read."""
    found = []
    for k in only or range(n_folds):
        what = hashlib.sha256(repr((sizes, n_random, others, alphas)).encode()).hexdigest()[:8]
        kept = Path(settings.root) / f"errors-{k}-{what}.json"
        if not kept.exists():
            fold = made_fold(settings, k, n_folds)
            uris = fold.uri("normalized"), fold.uri("samples")
            errors = judge_fold(*uris, sizes, n_random, others, alphas)
            kept.write_text(json.dumps(errors), encoding="utf-8")
            say(f"{settings.root}: fold {k + 1} of {n_folds}")
        found.append(json.loads(kept.read_text(encoding="utf-8")))
    return found


def main() -> None:
    """Judge panels on every data set, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="with the real data")
    parser.add_argument("--root", type=Path, required=True, help="of the studies")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 100, 200, 470, 943])
    parser.add_argument("--others", nargs="*", default=[], help="further selectors: medoids")
    parser.add_argument("--n-random", type=int, default=20)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="+", default=[], help="folds: make, show none")
    parser.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS))
    asked = parser.parse_args()
    titles = ("MAE", "random", "minus random", "95 %", "bar", "genome", "95 %")
    show_row("data", "size", "panel", *titles, "minus random of twice", "95 %")
    for name in asked.data:
        settings = settings_of(name, asked.folder.absolute(), asked.root.absolute())
        folds = judge_data(
            settings,
            asked.sizes,
            n_random=asked.n_random,
            others=asked.others,
            alphas=asked.alphas,
            n_folds=asked.folds,
            only=asked.only,
        )
        if not asked.only:
            show(name, folds, asked.sizes)


if __name__ == "__main__":
    sys.exit(guarded(main))
