"""The leaderboard: panels of 50 to 943 genes by every selector, on held-out series of real data.

    python benchmarks/leaderboard.py --folder ../shared/data --root leaderboard

Five folds of whole series. In each, normalization, network, scores, penalties and panels come of
its training series alone. Ridge regression, its penalty chosen on the fold's validation series,
predicts the genes of the series that are held out, of 4,096 drawn ones those that no panel of the
size measures; of random panels each gene counts in those that do not measure it. Prints the mean
error of each selector, its difference to the mean of random panels with a 95 % interval over
series, and the seconds and memory of selecting the largest panel; then what true scores gain over
permuted ones. Draws the differences. Rivals of other packages run in a Python of their own
(``--rivals``, see benchmarks/rivals.py). Panels and their errors are kept in the root, so that a
killed run goes on; a panel that is not there is no row.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import scipy.linalg
from common import KONG2021, peak_rss_mb, reset_peak, say, show_row
from gated import gated_panels
from panel_sizes import (
    ALPHAS,
    N_JUDGED,
    Fold,
    Judge,
    asked_settings,
    difference,
    made_fold,
    parser_of,
    read_fold,
)
from stable import STABLE, drawn_sketch, stable_panels

from dglzarr.cli import guarded
from dglzarr.evaluation.panels import PanelOptions, Rules, read_lists, with_penalties
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.deeplift import aggregate_contributions
from dglzarr.kernels.medoids import peel_off
from dglzarr.kernels.panels import CONSTANT, SELECTORS, principal_axes, select_panel
from dglzarr.kernels.penalties import Stretch
from dglzarr.models.files import load_model
from dglzarr.stages.train import TrainOptions
from dglzarr.storage.files import put
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.sketch import GeneSketch
    from dglzarr.settings import Settings
    from dglzarr.studies.plan import Plan

    Index = NDArray[np.int64]

mpl.use("Agg")
PICTURE = Path(__file__).parent.parent / "docs" / "leaderboard.svg"
RIVALS = Path(__file__).with_name("rivals.py")
SIZES = {"small": (5, 10), "full": (50, 100, 200, 470, 943)}
N_PERMUTED = 2
N_EXPLAINED = 128
"""Outputs, and training samples, that scores of outputs are the mean over."""

N_PEELED, N_TRIALS = 4096, 20
"""Genes that what would take too long chooses from, and k-means runs a round of peel-off
(L1000's 100)."""

LIMIT_S = 1800
"""Of a rival's panel."""


class Way(NamedTuple):
    """How a panel is made: a selector or rival, whose scores, and whether permuted.

    Scores are of the latent units of a network, or of the ``outputs`` of the default one. A rival
    may choose from drawn genes alone.
    """

    selector: str
    scores: str = ""
    n_permuted: int = 0
    rival: bool = False
    is_drawn: bool = False


NETWORKS: dict[str, dict[str, Any]] = {"default": {}, "paper": KONG2021}
SMALL: dict[str, Any] = {"hidden": 8, "n_latent": 3, "epochs": 2}
WAYS: dict[str, Way] = {
    "greedy, penalty chosen": Way("greedy"),
    "greedy, one penalty": Way("one-penalty"),
    "medoids": Way("medoids"),
    "column-pivoted QR": Way("qr"),
    "leverage": Way("leverage"),
    "variance": Way("variance"),
    "L1000 landmarks": Way("l1000"),
    "deeplift-greedy": Way("deeplift-greedy", "default"),
    "deeplift-greedy, permuted": Way("deeplift-greedy", "default", N_PERMUTED),
    "top-score": Way("top-score", "default"),
    "top-score, permuted": Way("top-score", "default", N_PERMUTED),
    "deeplift-greedy, paper's network": Way("deeplift-greedy", "paper"),
    "deeplift-greedy, paper's, permuted": Way("deeplift-greedy", "paper", N_PERMUTED),
    "top-score, paper's network": Way("top-score", "paper"),
    "deeplift-greedy, of outputs": Way("deeplift-greedy", "outputs"),
    "top-score, of outputs": Way("top-score", "outputs"),
    "trained gates": Way("gates"),
    "one penalty, of 4,096 genes": Way("one-penalty-drawn"),
    "most often chosen, of 4,096 genes": Way("stable"),
    "peel-off, of 4,096 genes": Way("peel-off"),
    "CUR (skmatter), of 4,096 genes": Way("cur", rival=True, is_drawn=True),
    "farthest points (skmatter), of 4,096 genes": Way("farthest", rival=True, is_drawn=True),
    "PCA loadings (Spapros)": Way("spapros-pca", rival=True),
}


# ---------------------------------------------------------------- panels


class Maker:
    """Makes and keeps the panels of one fold: a file a way, in order where the way is nested."""

    def __init__(self, fold: Plan, sizes: Sequence[int], networks: Mapping[str, Any]) -> None:
        self._fold, self._sizes, self._networks = fold, sizes, networks
        self.uris = fold.uri("normalized"), fold.uri("samples")
        self.kept = Path(fold.study.root, "panels")
        nothing = np.full(read_array(self.uris[1], "gene_std").size, np.nan)
        self.sketch = sketch_training(*self.uris, nothing, seed=0)

    def panels(self, name: str, rivals: str) -> list[dict[str, Any]]:
        """Return the panels of a way: of each its genes by size, seconds and MB; or none."""
        kept = self.kept / f"{name}-{self._sizes[-1]}.json"
        if not kept.exists():
            made = list(self._made(WAYS[name], rivals))
            if not made:
                return []
            for size in self._sizes:
                self.kept.joinpath(f"{name}-{size}.npy").unlink(missing_ok=True)
            put(str(kept), json.dumps(made).encode())
        found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        return found

    def _made(self, way: Way, rivals: str) -> Iterator[dict[str, Any]]:
        if way.rival:
            if rivals:
                yield self._by_rival(way, rivals)
            return
        if way.selector == "l1000":
            yield from self._listed()
            return
        sketch = replace(self.sketch, score=self._scores(way.scores)) if way.scores else self.sketch
        if way.selector in STABLE:
            yield self._stable(way.selector)
            return
        for draw in range(max(1, way.n_permuted)):
            if way.n_permuted:
                shuffled = np.random.default_rng([0, draw]).permutation(sketch.score)
                yield self._selected(way, replace(sketch, score=shuffled))
            else:
                yield self._selected(way, sketch)

    def _selected(self, way: Way, sketch: GeneSketch) -> dict[str, Any]:
        """Return the panels of one of the package's selectors, or of QR."""
        path: Sequence[Stretch] = CONSTANT
        n, more = self._sizes[-1], (0.0, 0.0)
        if way.selector in SELECTORS and SELECTORS[way.selector].is_greedy:
            path, more = self._penalties()
        before, start = reset_peak(), time.perf_counter()
        if way.selector == "gates":
            panels = self._gated()
            return _kept_panel(panels, time.perf_counter() - start, peak_rss_mb() - before)
        own = {"qr": pivoted, "peel-off": peeled_off}
        choose = own[way.selector] if way.selector in own else _of_package(way.selector, path)
        largest = choose(sketch, n)
        seconds, peak = time.perf_counter() - start, peak_rss_mb()
        panels = {n: largest}
        is_nested = way.selector not in SELECTORS or SELECTORS[way.selector].nested
        for size in self._sizes[:-1]:
            panels[size] = largest[:size] if is_nested else choose(sketch, size)
        return _kept_panel(panels, seconds + more[0], max(peak - before, more[1]))

    def _penalties(self) -> tuple[Sequence[Stretch], tuple[float, float]]:
        """Return the penalties of greedy panels, chosen on inner folds, and the seconds and MB."""
        kept = self.kept / f"penalties-{self._sizes[-1]}.json"
        if not kept.exists():
            before, start = reset_peak(), time.perf_counter()
            free, n = Rules([], []), self._sizes[-1]
            asked = PanelOptions()
            path = with_penalties(free, self.sketch, asked, selectors=["greedy"], n=n, seed=0).path
            told = [time.perf_counter() - start, peak_rss_mb() - before]
            put(str(kept), json.dumps([path, told]).encode())
        path, (seconds, mb) = json.loads(kept.read_text(encoding="utf-8"))
        return [Stretch(*stretch) for stretch in path], (seconds, mb)

    def _stable(self, selector: str) -> dict[str, Any]:
        """Return panels of the drawn genes that greedy panels of subsamples hold most often."""
        before, start = reset_peak(), time.perf_counter()
        genes = drawn_genes(self.sketch)
        sketch = drawn_sketch(self.sketch, genes)
        panels = stable_panels(sketch, self._sizes, selector)
        panels = {size: genes[panel] for size, panel in panels.items()}
        return _kept_panel(panels, time.perf_counter() - start, peak_rss_mb() - before)

    def _gated(self) -> dict[int, Index]:
        """Return panels by trained gates; all sizes come of one training."""
        open_ = np.flatnonzero(self.sketch.varies)
        panels = gated_panels(self.sketch.rows[:, open_], self._sizes)
        return {size: open_[panel] for size, panel in panels.items()}

    def _scores(self, network: str) -> NDArray[np.float64]:
        """Return the scores of a network that is trained on the fold's training samples."""
        if network == "outputs":
            self._scores("default")
            return scores_of_outputs(f"{self._fold.study.root}/default/model", self.sketch)
        root = f"{self._fold.study.root}/{network}"
        places = {name: self._fold.uri(name) for name in ("normalized", "samples")}
        plan = self._fold.variant(
            root=root,
            places={**places, "model": f"{root}/model"},
            train=TrainOptions(**self._networks[network]),
        )
        for step in plan.scoring():
            step()
        return np.asarray(read_array(plan.uri("scores"), "score"), dtype=np.float64)

    def _listed(self) -> Iterator[dict[str, Any]]:
        """Yield a published list whole, at the size nearest to its own."""
        lists = self._fold.settings.evaluate.panels
        for listed in read_lists(open_store(self.uris[0]), lists).values():
            genes = listed.genes[self.sketch.varies[listed.genes]]
            size = min(self._sizes, key=lambda n: abs(n - genes.size))
            yield _kept_panel({size: genes}, 0.0, 0.0)

    def _by_rival(self, way: Way, python: str) -> dict[str, Any]:
        """Return what a rival selects in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            rows, out = Path(folder, "rows.npy"), Path(folder, "panel.json")
            varying = np.flatnonzero(self.sketch.varies)
            open_ = drawn_genes(self.sketch) if way.is_drawn else varying
            np.save(rows, self.sketch.rows[:, open_])
            command = [python, str(RIVALS), way.selector, str(rows), str(self._sizes[-1]), str(out)]
            subprocess.run(command, check=True, timeout=LIMIT_S)
            told = json.loads(out.read_text(encoding="utf-8"))
        genes = open_[np.array(told["panel"], dtype=np.int64)]
        panels = {size: genes[:size] for size in self._sizes}
        return _kept_panel(panels, told["seconds"], told["peak_mb"] - told["start_mb"])


def _of_package(name: str, path: Sequence[Stretch]) -> Callable[[GeneSketch, int], Index]:
    called = "greedy" if name == "one-penalty" else name
    return lambda sketch, n: select_panel(called, sketch, n, path=path)


def _kept_panel(panels: Mapping[int, Index], seconds: float, mb: float) -> dict[str, Any]:
    genes = {str(size): panel.tolist() for size, panel in panels.items()}
    return {"panels": genes, "seconds": seconds, "mb": mb}


def drawn_genes(sketch: GeneSketch) -> Index:
    """Return the genes that ways choose from which take too long with all, ascending."""
    rng = np.random.default_rng(0)
    return np.sort(rng.permutation(np.flatnonzero(sketch.varies))[:N_PEELED])


def peeled_off(sketch: GeneSketch, n: int) -> Index:
    """Return L1000's panel of some drawn genes: of all of them it takes hours."""
    genes, rng = drawn_genes(sketch), np.random.default_rng(0)
    axes, length = principal_axes(sketch.rows)
    points = np.ascontiguousarray(axes[:, genes].T * length.astype(np.float32))
    return np.asarray(genes[peel_off(points, n, rng, n_trials=N_TRIALS)])


def scores_of_outputs(model: str, sketch: GeneSketch) -> NDArray[np.float64]:
    """Return the mean absolute contribution of each gene to outputs of other genes, (gene,)."""
    rng = np.random.default_rng(0)
    outputs = rng.permutation(np.flatnonzero(sketch.varies))[:N_EXPLAINED]
    some = rng.permutation(len(sketch.rows))[:N_EXPLAINED]
    layers = load_model(Path(model)).layers
    kernel, bias, activation = layers[-1]
    layers[-1] = (kernel[:, outputs], bias[outputs], activation)
    rows = sketch.rows[some]
    found = aggregate_contributions(layers, rows, np.zeros(rows.shape[1], rows.dtype))
    found.latent_total[np.arange(outputs.size), outputs] = 0
    return np.asarray(found.latent_total.mean(axis=0) / len(rows))


def pivoted(sketch: GeneSketch, n: int) -> Index:
    """Return the first n columns of a QR decomposition that pivots; begun anew where rows end."""
    left = np.flatnonzero(sketch.varies)
    panel: list[int] = []
    while len(panel) < n:
        _, order = scipy.linalg.qr(sketch.rows[:, left], mode="r", pivoting=True)
        first = order[: len(sketch.rows)]
        panel += left[first].tolist()
        left = np.delete(left, first)
    return np.array(panel[:n], dtype=np.int64)


# ---------------------------------------------------------------- errors


class Errors:
    """Absolute errors of a fold's panels, (sample, judged gene), kept beside the panels."""

    def __init__(self, maker: Maker, n_random: int) -> None:
        self.fold = read_fold(*maker.uris)
        varying = np.flatnonzero(self.fold.varies)
        some = np.random.default_rng(0).permutation(varying)[:N_JUDGED]
        self.judge = Judge(self.fold, ALPHAS, np.sort(some))
        self._draws = [np.random.default_rng([0, i]).permutation(varying) for i in range(n_random)]
        self._kept = maker.kept

    def of(self, name: str, size: int, panels: Sequence[Index]) -> NDArray[np.float32]:
        """Return the mean errors of some panels."""
        return self._made(f"{name}-{size}", lambda: self._mean(panels))

    def by_chance(self, size: int) -> NDArray[np.float32]:
        """Return those of random panels: gene by gene of those that do not measure it, or NaN."""
        return self._made(f"{len(self._draws)} random-{size}", lambda: self._of_random(size))

    def _mean(self, panels: Sequence[Index]) -> NDArray[np.float32]:
        return np.asarray(np.mean([self.judge.errors(genes) for genes in panels], axis=0))

    def _of_random(self, size: int) -> NDArray[np.float32]:
        total = np.zeros((len(self.fold.held), self.judge.genes.size))
        n = np.zeros(self.judge.genes.size)
        for draw in self._draws:
            is_free = ~measures(self.judge, self.fold, draw[:size])
            total += self.judge.errors(draw[:size]) * is_free
            n += is_free
        return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)

    def _made(self, name: str, work: Callable[[], NDArray[Any]]) -> NDArray[np.float32]:
        path = self._kept / f"{name}.npy"
        if not path.exists():
            with io.BytesIO() as file:
                np.save(file, work().astype(np.float32))
                put(str(path), file.getvalue())
            say(f"  judged {name}")
        return np.asarray(np.load(path))


def judge(
    maker: Maker, names: Sequence[str], sizes: Sequence[int], n_random: int, rivals: str
) -> dict[str, Any]:
    """Return the mean errors of a fold's samples, (sample,), by way and size; and what it took.

    Of a size the targets are the drawn genes that no way's panel measures, the same for all.
    """
    errors = Errors(maker, n_random)
    fold, judged = errors.fold, errors.judge
    made = {name: maker.panels(name, rivals) for name in names}
    found: dict[str, Any] = {"series": [str(s) for s in fold.series], "targets": []}
    for size in sizes:
        panels = {
            name: [np.array(one["panels"][str(size)]) for one in of if str(size) in one["panels"]]
            for name, of in made.items()
        }
        chance = errors.by_chance(size)
        is_target = ~np.isnan(chance[0])
        is_target &= ~measures(
            judged, fold, np.concatenate([p for of in panels.values() for p in of])
        )
        found["targets"].append(int(is_target.sum()))
        found[f"random/{size}"] = chance[:, is_target].mean(axis=1).tolist()
        truth = fold.held[:, judged.genes[is_target]]
        found[f"mean/{size}"] = np.abs(truth).mean(axis=1).tolist()
        for name in (name for name, of in panels.items() if of):
            one = errors.of(name, size, panels[name])
            found[f"{name}/{size}"] = one[:, is_target].mean(axis=1).tolist()
    for name in (name for name, of in made.items() if of):
        costs = [[one[k] for k in ("seconds", "mb")] for one in made[name]]
        found[f"{name}/cost"] = np.mean(costs, axis=0).tolist()
    return found


def measures(judged: Judge, fold: Fold, panel: Index) -> NDArray[np.bool_]:
    """Return which judged genes some genes measure, also by another probe."""
    measured = set(fold.keys[panel])
    return np.array([key in measured for key in fold.keys[judged.genes]])


# ---------------------------------------------------------------- table and picture


Row = tuple[str, dict[int, tuple[float, float, float, float]], list[float]]


def rows_of(folds: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> list[Row]:
    """Return error, difference to random and its interval of each way by size; the best first."""
    rows = []
    for name in (*WAYS, "random"):
        cells = {
            size: (
                mean_of(folds, f"{name}/{size}"),
                *difference(folds, f"{name}/{size}", f"random/{size}"),
            )
            for size in sizes
            if all(f"{name}/{size}" in fold for fold in folds)
        }
        costs = [fold[f"{name}/cost"] for fold in folds if f"{name}/cost" in fold]
        if cells:
            rows.append((name, cells, np.mean(costs, axis=0).tolist() if costs else []))
    return sorted(rows, key=lambda row: np.mean([cell[1] for cell in row[1].values()]))


def mean_of(folds: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the mean error over the samples of all folds."""
    return float(np.concatenate([fold[key] for fold in folds]).mean())


def show(rows: Sequence[Row], sizes: Sequence[int]) -> None:
    """Print a row a way; bold where the interval excludes random panels in its favour."""
    show_row("panel", *(f"{size} genes" for size in sizes), f"s of {sizes[-1]}", "MB")
    show_row(*["---"] * (len(sizes) + 3))
    for name, cells, cost in rows:
        shown = []
        for size in sizes:
            if size not in cells:
                shown.append("")
                continue
            error, mean, low, high = cells[size]
            told = f"{error:.4f}"
            if name != "random":
                told += f" ({mean:+.4f}; {low:+.4f} to {high:+.4f})"
            shown.append(f"**{told}**" if high < 0 else told)
        is_timed = bool(cost) and cost[0] > 0
        show_row(
            name, *shown, f"{cost[0]:.1f}" if is_timed else "", f"{cost[1]:.0f}" if is_timed else ""
        )


def show_scores(folds: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> None:
    """Print what true scores gain over permuted ones, and over none."""
    pairs = [
        ("deeplift-greedy", "deeplift-greedy, permuted"),
        ("deeplift-greedy", "greedy, penalty chosen"),
        ("top-score", "top-score, permuted"),
        ("deeplift-greedy, paper's network", "deeplift-greedy, paper's, permuted"),
        ("deeplift-greedy, paper's network", "greedy, penalty chosen"),
        ("top-score, paper's network", "top-score, permuted"),
        ("deeplift-greedy, of outputs", "deeplift-greedy"),
        ("deeplift-greedy, of outputs", "greedy, penalty chosen"),
        ("top-score, of outputs", "top-score"),
    ]
    show_row("true scores", "against", *(f"{size} genes" for size in sizes))
    show_row(*["---"] * (len(sizes) + 2))
    for one, other in pairs:
        if all(f"{name}/{sizes[0]}" in fold for name in (one, other) for fold in folds):
            told = (difference(folds, f"{one}/{n}", f"{other}/{n}") for n in sizes)
            show_row(
                one, other, *(f"{mean:+.4f}; {low:+.4f} to {high:+.4f}" for mean, low, high in told)
            )


def draw(rows: Sequence[Row], sizes: Sequence[int], path: Path) -> None:
    """Draw the differences to random panels with their intervals, a column a size."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  (after the backend is chosen)

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leaderboard"})
    shown = [row for row in rows if row[0] != "random"][::-1]
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(2.2 * len(sizes) + 2, 0.3 * len(shown) + 1.2), sharex=True,
        sharey=True, layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis, size in zip(axes[0], sizes, strict=True):
        axis.axvline(0, color="#999999", linewidth=0.8)
        for place, (_, cells, _) in enumerate(shown):
            if size in cells:
                _, mean, low, high = cells[size]
                color = "#0072b2" if high < 0 else "#d55e00" if low > 0 else "#666666"
                axis.plot([low, high], [place, place], color=color, linewidth=1.5)
                axis.plot(mean, place, "o", color=color, markersize=4)
        axis.set_title(f"{size} genes", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0][0].set_yticks(range(len(shown)), [name for name, _, _ in shown])
    figure.supxlabel(
        "mean absolute error minus random panels', z units, 95 %: left is better", fontsize=9
    )
    figure.savefig(path, metadata={"Date": None})


def made(
    settings: Settings,
    names: Sequence[str],
    sizes: Sequence[int],
    *,
    networks: Mapping[str, Any],
    n_folds: int,
    rivals: str,
) -> list[Maker]:
    """Return the folds with their panels made, way by way; those that stand there are kept."""
    makers = [Maker(made_fold(settings, k, n_folds), sizes, networks) for k in range(n_folds)]
    for name in names:
        for k, maker in enumerate(makers):
            maker.panels(name, rivals)
            say(f"{name}: fold {k + 1} of {n_folds}")
    return makers


def main() -> None:
    """Make the panels, print the tables, draw the picture."""
    parser = parser_of(__doc__)
    parser.add_argument("--panels", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rivals", default="", help="a Python that has the rivals' packages")
    parser.add_argument("--n-random", type=int, help="random panels of each size: 20")
    parser.add_argument("--make-only", action="store_true", help="make the panels, judge none")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    asked = parser.parse_args()
    is_small = asked.size == "small"
    sizes, (n_folds, n_random) = SIZES[asked.size], (3, 2) if is_small else (5, 20)
    n_random = asked.n_random or n_random
    settings = asked_settings(asked)
    networks = {name: {**of, **(SMALL if is_small else {})} for name, of in NETWORKS.items()}
    makers = made(
        settings, asked.panels, sizes, networks=networks, n_folds=n_folds, rivals=asked.rivals
    )
    if asked.make_only:
        return
    folds = [judge(maker, asked.panels, sizes, n_random, asked.rivals) for maker in makers]
    rows = rows_of(folds, sizes)
    show(rows, sizes)
    show_scores(folds, sizes)
    n_targets = [fold["targets"] for fold in folds]
    told = ", ".join(f"{mean_of(folds, f'mean/{size}'):.4f}" for size in sizes)
    say(f"mean of each gene by size {told}; targets by fold and size {n_targets}")
    draw(rows, sizes, asked.picture)


if __name__ == "__main__":
    sys.exit(guarded(main))
