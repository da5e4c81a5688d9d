"""Owns the penalty of greedy selection: along a panel larger ones are tried on held-out series.

The more genes a panel has, the less of what they leave is more than noise: a small penalty is best
for the first genes and overfits the later ones. So the penalty belongs to a stretch of the panel,
and is chosen there on rows of series that had no part in selecting the genes.

References
----------
Stone (1974), doi 10.1111/j.2517-6161.1974.tb00994.x: choice by cross-validation.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dglzarr.kernels.greedy import Products, greedy_order, ordered_gain
from dglzarr.kernels.linear import predict_ridge, ridge_partial, ridge_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.limits import Limits
    from dglzarr.kernels.sketch import GeneSketch

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Float64 = NDArray[np.float64]

ENDS = (50, 100, 200, 470, 943)
"""Sizes of a panel at which its penalty may grow; from the last on, every doubling of it."""

TRIED = (1.0, 2.0, 4.0)
"""Penalties of the first stretch, in numbers of samples; later ones grow as the root of the size:
docs/reproduce.md says why."""

DEFAULT = 1
"""Which of them is kept unless another is better by more than one standard error over folds."""

ALPHAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Penalties of the ridge regression by which panels are judged, in numbers of samples."""

N_GENES, N_TARGETS = 4096, 1024
"""Genes at most that inner folds choose from, and that their panels are judged on."""


class Stretch(NamedTuple):
    """A part of a panel: the size up to which it goes, and the penalty in numbers of samples."""

    end: int
    penalty: float


def stretch_ends(n: int) -> list[int]:
    """Return where the stretches of a panel of n genes end; the last may be beyond n.

    Examples
    --------
    >>> stretch_ends(60), stretch_ends(1000)
    ([50, 100], [50, 100, 200, 470, 943, 1886])
    """
    ends = list(ENDS)
    while ends[-1] < n:
        ends.append(2 * ends[-1])
    return ends[: 1 + next(i for i, end in enumerate(ends) if end >= n)]


def greedy_path(
    sketch: GeneSketch,
    n: int,
    path: Sequence[Stretch],
    *,
    forced: Index,
    allowed: Mask,
    importance: Float64 | None = None,
    limits: Limits | None = None,
) -> Index:
    """Return a panel of n genes, forced ones first, each stretch selected with its penalty.

    Parameters
    ----------
    sketch : of the samples to select on
    n : genes of the panel, forced ones counted
    path : its stretches; the last penalty holds beyond its end, too
    forced : genes that stand first, in order
    allowed : (gene,), which genes may be selected
    importance : (gene,), weights of the genes as targets
    limits : what the panel may cost and must hold; it may end early then

    Raises
    ------
    ValueError
        If fewer genes are allowed, or a penalty is not over 0.
    """
    panel = np.asarray(forced, dtype=np.int64)
    products = sketch.products if importance is None else Products.of(sketch.rows, importance)
    for i, (end, penalty) in enumerate(path):
        stop = n if i == len(path) - 1 else min(n, end)
        if stop > panel.size:
            more = greedy_order(
                sketch.rows,
                stop - panel.size,
                ridge=penalty * sketch.n_samples,
                forced=panel,
                allowed=allowed,
                products=products,
                limits=limits,
            )
            if more.size < stop - panel.size:
                return np.concatenate([panel, more])
            panel = np.concatenate([panel, more])
    return panel


def panel_gain(sketch: GeneSketch, panel: Index, path: Sequence[Stretch]) -> Float64:
    """Return what each gene of a panel added when it joined, as a share of all genes' squares.

    Parameters
    ----------
    sketch : of the samples that the panel was selected on
    panel : genes in order, by whatever selector
    path : its stretches; a gene counts with the penalty of the stretch it stands in

    Returns
    -------
    share : (panel,), by how much the gene lowered the ridge error of all genes, those before it
        known; 0 to 1
    """
    share = np.zeros(panel.size)
    total = float(np.einsum("rg,rg->", sketch.rows, sketch.rows, dtype=np.float64))
    begin = 0
    for i, (end, penalty) in enumerate(path):
        stop = panel.size if i == len(path) - 1 else min(panel.size, end)
        if stop > begin and total:
            ridge = penalty * sketch.n_samples
            gain = ordered_gain(sketch.rows, panel[:stop], ridge=ridge, begin=begin)
            share[begin:stop] = gain / total
            begin = stop
    return share


def penalty_at(path: Sequence[Stretch], size: int) -> float:
    """Return the penalty of the stretch that a panel of some genes ends in.

    Examples
    --------
    >>> [penalty_at([Stretch(50, 1.0), Stretch(100, 4.0)], size) for size in (50, 51, 200)]
    [1.0, 4.0, 4.0]
    """
    return next((s.penalty for s in path if s.end >= size), path[-1].penalty)


def choose_path(
    sketch: GeneSketch,
    n: int,
    *,
    forced: Index,
    allowed: Mask,
    default: float,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Stretch]:
    """Return the stretches of a panel of n genes, their penalties chosen on inner folds.

    Parameters
    ----------
    sketch : of the samples to select on, with the inner fold of each row
    n : genes of the panel, forced ones counted
    forced : genes that every panel holds
    allowed : (gene,), which genes may be selected
    default : penalty where inner folds cannot tell: fewer than two, or too few genes
    seed : of the genes that are drawn where there are many
    on_progress : called with (what, done, total)

    Notes
    -----
    For each stretch in turn, each inner fold's panel is extended on the rows of all other folds
    with each of ``TRIED`` times the root of ``end / 50``, and each of these panels predicts the
    fold's rows by ridge regression. The penalty of the lowest mean absolute error over the genes
    that none of these panels holds is kept, where it is lower than that of the middle one by more
    than a standard error over folds. What is tried grows from stretch to stretch; what is kept may
    be smaller than before, where the largest had been kept. A path for fewer genes is the beginning
    of one for more. Cost: about ``3 x folds`` greedy selections among 4096 genes at most.
    """
    ends = stretch_ends(n)
    group = sketch.group
    genes = _drawn_genes(allowed, forced, seed)
    if group is None or np.unique(group).size < 2:
        return [Stretch(ends[-1], default)]
    folds = [_Fold(sketch, group == k, genes, forced, allowed) for k in np.unique(group)]
    targets = np.random.default_rng([seed, 1]).permutation(genes.size)
    path: list[Stretch] = []
    for done, end in enumerate(ends):
        if on_progress is not None:
            on_progress("choosing penalties", done, len(ends))
        if end <= len(forced):
            continue
        tried = [penalty * sqrt(end / ENDS[0]) for penalty in TRIED]
        best = None
        if 2 * end <= genes.size:
            best = _best_of(folds, end, tried, targets)
        if best is None:
            return [*path, Stretch(ends[-1], path[-1].penalty if path else default)]
        path.append(Stretch(end, tried[best]))
    return path or [Stretch(ends[-1], default)]


def _drawn_genes(allowed: Mask, forced: Index, seed: int) -> Index:
    """Return the genes that inner folds see: the forced ones, and as many others as they may."""
    genes = np.setdiff1d(np.flatnonzero(allowed), forced)
    if genes.size > N_GENES:
        genes = np.sort(np.random.default_rng(seed).permutation(genes)[:N_GENES])
    return np.concatenate([np.asarray(forced, dtype=np.int64), genes])


class _Fold:
    """An inner fold: the rows that it holds out, the others, and its panel so far."""

    def __init__(
        self, sketch: GeneSketch, held: Mask, genes: Index, forced: Index, allowed: Mask
    ) -> None:
        self._held, rows = sketch.rows[held][:, genes], sketch.rows[~held][:, genes]
        n_samples = sketch.n_samples * len(rows) // len(sketch.rows)
        nothing = np.empty(genes.size)
        self._own = type(sketch)(rows, nothing, nothing, max(1, n_samples))
        self._allowed = allowed[genes]
        self.n_held = len(self._held)
        self.panel = np.arange(len(forced))

    def extended(self, end: int, penalties: Sequence[float]) -> Iterator[Index]:
        """Yield its panel extended with each penalty."""
        for penalty in penalties:
            path = [Stretch(end, penalty)]
            yield greedy_path(self._own, end, path, forced=self.panel, allowed=self._allowed)

    def errors(self, panel: Index, targets: Index) -> Float64:
        """Return the summed absolute errors of the held-out rows, for each of ``ALPHAS``."""
        fitted = ridge_path(ridge_partial(self._own.rows[:, panel], self._own.rows[:, targets]))
        alphas = [alpha * self._own.n_samples for alpha in ALPHAS]
        truth = self._held[:, targets]
        predicted = predict_ridge(fitted, self._held[:, panel], alphas)
        return np.array([np.abs(p - truth).sum(dtype=np.float64) for p in predicted])


def _best_of(folds: Sequence[_Fold], end: int, tried: Sequence[float], order: Index) -> int | None:
    """Extend the panel of every fold by the best of some penalties, and return which that is.

    None where no gene is left to judge on.
    """
    panels = [list(fold.extended(end, tried)) for fold in folds]
    errors, n_rows = np.zeros((len(folds), len(tried), len(ALPHAS))), np.zeros(len(folds))
    for k, (fold, own) in enumerate(zip(folds, panels, strict=True)):
        targets = order[~np.isin(order, np.concatenate(own))][:N_TARGETS]
        if not targets.size:
            return None
        errors[k] = [fold.errors(panel, targets) / targets.size for panel in own]
        n_rows[k] = fold.n_held
    alpha = errors.sum(axis=0).argmin(axis=1)
    per_row = errors[:, np.arange(len(tried)), alpha] / n_rows[:, None]
    best = best_unless_alike(per_row, n_rows, DEFAULT)
    for fold, own in zip(folds, panels, strict=True):
        fold.panel = own[best]
    return best


def best_unless_alike(errors: Float64, weight: Float64, default: int) -> int:
    """Return the column of the lowest weighted mean; the default within one standard error of it.

    Parameters
    ----------
    errors : (fold, column)
    weight : (fold,), how much a fold counts
    default : the column that is kept unless another is better by more

    Examples
    --------
    >>> errors = np.array([[0.8, 1.0, 0.9], [0.8, 1.0, 1.1], [0.8, 1.0, 1.0]])
    >>> best_unless_alike(errors, np.ones(3), 1), best_unless_alike(errors[:, 1:], np.ones(3), 0)
    (0, 0)
    """
    share = weight / weight.sum()
    best = int((share @ errors).argmin())
    more = errors[:, default] - errors[:, best]
    mean = float(share @ more)
    deviation = np.sqrt(share @ (more - mean) ** 2 / max(1, len(errors) - 1))
    return default if mean <= deviation else best
