"""The paper's figures 2 to 5 for any study, each as SVG and PNG: arrays in, drawings out.

Colours are told apart by colour-blind readers too, and never alone: lines differ in style, groups
have a legend in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Wedge
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from dglzarr.query.picture import STYLE, written
from dglzarr.report.figures import INK, MINED, PUBLISHED, RANDOM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Values = NDArray[np.floating]

MAE_LABEL, PCC_LABEL = "MAE of a gene (z)", "PCC of a gene"
LINES = ((MINED, "-"), (PUBLISHED, "--"), (INK, ":"), (RANDOM, "-."))
GROUP_COLORS = (
    "#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#999933",
    "#aa4499", "#111111",
)  # fmt: skip
OTHER = "#bbbbbb"
LONGEST_TERM = 52
HEADROOM = 1.28
RING = (1.03, 1.13)
CENTRE = 0.12


@dataclass(frozen=True)
class Drawing:
    """One figure in both forms."""

    svg: str
    png: bytes


def _drawn(figure: Figure) -> Drawing:
    return Drawing(written(figure, "svg").decode(), written(figure, "png"))


def _density(axes: Axes, values: Mapping[str, Values], label: str, ends: Sequence[float]) -> None:
    """Draw how each set of values is spread, with its mean; ends are those of the scale."""
    for (name, found), (color, line) in zip(values.items(), LINES, strict=False):
        known = np.asarray(found[np.isfinite(found)], dtype=np.float64)
        told = f"mean {known.mean():.4f}" if known.size else "no gene known"
        text = f"{name}: {told}" if name else told
        if known.size > 2 and np.ptp(known) > 0:
            room = 0.1 * np.ptp(known)
            x = np.linspace(max(ends[0], known.min() - room), min(ends[1], known.max() + room), 300)
            y = gaussian_kde(known)(x)
            axes.plot(x, y, line, color=color, linewidth=1.6, label=text)
            axes.fill_between(x, y, color=color, alpha=0.15, linewidth=0)
        else:
            axes.plot([], [], line, color=color, label=text)
        if known.size:
            axes.axvline(
                known.mean(), ymax=1 / HEADROOM, color=color, linestyle=line, linewidth=0.8
            )
    axes.set_ylim(bottom=0, top=HEADROOM * axes.get_ylim()[1])
    axes.set(xlabel=label, ylabel="density of genes")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.legend(loc="upper left", fontsize=8)


def error_and_correlation(mae: Mapping[str, Values], pcc: Mapping[str, Values]) -> Drawing:
    """Return the densities of error and correlation over genes: figures 2A and 4.

    Parameters
    ----------
    mae, pcc
        Name of a line (may be empty) to one value a gene, NaN where unknown; four lines at most.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        _density(left, mae, MAE_LABEL, (0, np.inf))
        _density(right, pcc, PCC_LABEL, (-1, 1))
        return _drawn(figure)


def panel_against(
    mae: Mapping[str, Values], pcc: Mapping[str, Values], *, names: tuple[str, str]
) -> Drawing:
    """Return densities and scatter plots of two panels' errors and correlations: figure 3.

    Parameters
    ----------
    mae, pcc
        Name of each of the two panels to one value a target gene.
    names
        The panel that is to be better, and its rival.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 7.4), layout="constrained")
        grid = figure.subplots(2, 2)
        for row, values, label, ends in (
            (grid[0], mae, MAE_LABEL, (0, np.inf)),
            (grid[1], pcc, PCC_LABEL, (-1, 1)),
        ):
            _density(row[0], {n: values[n] for n in names}, label, ends)
            lower_is_better = values is mae
            _scatter(row[1], values, names, label, lower_is_better=lower_is_better)
        for letter, axes in zip("ABCD", grid.ravel(), strict=True):
            axes.set_title(letter, loc="left", fontweight="bold")
        return _drawn(figure)


def _scatter(
    axes: Axes,
    values: Mapping[str, Values],
    names: tuple[str, str],
    label: str,
    *,
    lower_is_better: bool,
) -> None:
    ours, theirs = (values[name] for name in names)
    known = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = ours[known], theirs[known]
    is_better = ours < theirs if lower_is_better else ours > theirs
    share = f"{is_better.mean():.1%}" if is_better.size else "-"
    for chosen, color, text in (
        (~is_better, RANDOM, f"{names[1]} as good or better"),
        (is_better, MINED, f"{names[0]} better: {share} of {is_better.size:,} genes"),
    ):
        axes.plot(
            theirs[chosen],
            ours[chosen],
            ".",
            color=color,
            alpha=0.35,
            markersize=3,
            rasterized=True,
        )
        axes.plot([], [], "o", color=color, markersize=5, label=text)
    both = np.concatenate([ours, theirs, [0.0, 1.0]])
    low, high = float(both.min()), float(both.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=0.8)
    axes.set(xlim=(low, high * 1.02), ylim=(low, high * 1.02), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(f"{label}, {names[1]}")
    axes.set_ylabel(f"{label}, {names[0]}")
    axes.legend(
        loc="upper left" if lower_is_better else "lower right", fontsize=8, handletextpad=0.2
    )


def circles(trees: Mapping[str, Values], groups: Sequence[str]) -> Drawing:
    """Return circular dendrograms of the same samples, coloured by group: figure 2B.

    Parameters
    ----------
    trees
        Title to a tree as of scipy's linkage `(sample - 1, 4)`.
    groups
        Group of each sample; beyond ten groups the smallest are drawn alike.
    """
    names, counts = np.unique(np.array(groups), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    color = {str(names[i]): OTHER for i in order}
    n_own = len(GROUP_COLORS) if len(names) <= len(GROUP_COLORS) else len(GROUP_COLORS) - 1
    color |= {str(names[i]): c for i, c in zip(order[:n_own], GROUP_COLORS, strict=False)}
    handles = [
        Patch(color=color[str(names[i])], label=f"{names[i]} ({counts[i]})") for i in order[:n_own]
    ]
    if len(names) > n_own:
        n_rest = int(counts[order[n_own:]].sum())
        handles.append(Patch(color=OTHER, label=f"{len(names) - n_own} other groups ({n_rest})"))
    n_columns = 2 if max(len(str(n)) for n in names) > 24 else 4
    n_lines = -(-len(handles) // n_columns)
    with rc_context(STYLE):
        size = 3.3
        figure = Figure(figsize=(size * len(trees), size + 0.5 + 0.19 * n_lines))
        top = 0.42 / figure.get_figheight()
        bottom = (0.19 * n_lines + 0.15) / figure.get_figheight()
        figure.subplots_adjust(left=0.01, right=0.99, top=1 - top, bottom=bottom, wspace=0.02)
        for axes, (title, tree) in zip(
            figure.subplots(1, len(trees), squeeze=False)[0], trees.items(), strict=True
        ):
            _circle(axes, tree, [color[str(g)] for g in groups])
            axes.set_title(title, fontsize=9)
        figure.legend(handles=handles, loc="lower center", ncols=n_columns, fontsize=8)
        return _drawn(figure)


def _circle(axes: Axes, tree: Values, colors: Sequence[str]) -> None:
    """Draw one tree, its root in the centre and its samples in a ring."""
    n = len(colors)
    joined = [(int(a), int(b)) for a, b in tree[:, :2]]
    angle, radius = np.zeros(2 * n - 1), np.ones(2 * n - 1)
    angle[_leaves(joined, n)] = (np.arange(n) + 0.5) * 2 * np.pi / n
    node_color = [*colors, *[""] * (n - 1)]
    highest = float(tree[-1, 2]) or 1.0
    lines, line_colors = [], []
    for i, (a, b) in enumerate(joined):
        node = n + i
        angle[node] = (angle[a] + angle[b]) / 2
        radius[node] = 1 - (1 - CENTRE) * float(tree[i, 2]) / highest
        node_color[node] = node_color[a] if node_color[a] == node_color[b] else RANDOM
        arc = np.linspace(angle[a], angle[b], max(2, int(abs(angle[a] - angle[b]) * 40)))
        lines += [_polar([angle[c]] * 2, [radius[c], radius[node]]) for c in (a, b)]
        lines.append(_polar(arc, np.full(arc.size, radius[node])))
        line_colors += [node_color[c] for c in (a, b)] + [node_color[node]]
    axes.add_collection(LineCollection(lines, colors=line_colors, linewidths=0.8))
    half, middle = 180 / n, np.degrees(angle[:n])
    ring = [Wedge((0, 0), RING[1], t - half, t + half, width=RING[1] - RING[0]) for t in middle]
    axes.add_collection(PatchCollection(ring, facecolors=list(colors), linewidths=0))
    axes.set(xlim=(-1.16, 1.16), ylim=(-1.16, 1.16), aspect="equal")
    axes.axis("off")


def _leaves(joined: Sequence[tuple[int, int]], n: int) -> list[int]:
    """Return the samples in the order they stand under the tree."""
    found, todo = [], [2 * n - 2]
    while todo:
        node = todo.pop()
        if node < n:
            found.append(node)
        else:
            todo += reversed(joined[node - n])
    return found


def _polar(angle: Sequence[float] | Values, radius: Sequence[float] | Values) -> Values:
    at, away = np.asarray(angle), np.asarray(radius)
    return np.column_stack([away * np.cos(at), away * np.sin(at)])


def enriched_terms(
    names: Sequence[str],
    share: Values,
    n_hits: NDArray[np.integer],
    p_adjusted: Values,
    *,
    is_enriched: NDArray[np.bool_],
) -> Drawing:
    """Return terms as dots, best on top: figure 5. Hollow dots are not enriched.

    Parameters
    ----------
    names
        The terms, best first.
    share, n_hits, p_adjusted, is_enriched
        Share of the panel's genes in the term, their number, adjusted p, and whether it counts.
    """
    row = np.arange(len(names))
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 1.5 + 0.24 * max(len(names), 4)), layout="constrained")
        axes = figure.subplots()
        strength = -np.log10(np.maximum(p_adjusted, 1e-300))
        sizes = 20 + 180 * n_hits / max(1, int(n_hits.max(initial=1)))
        shades = ListedColormap(colormaps["viridis_r"](np.linspace(0.25, 1, 256)))
        scale = ScalarMappable(Normalize(0, float(strength.max(initial=1.0))), shades)
        edge: Any = scale.to_rgba(strength)
        face = np.where(is_enriched[:, None], edge, (1.0, 1.0, 1.0, 1.0))
        axes.scatter(share, row, s=sizes, color=face, edgecolors=edge, linewidths=1.2, zorder=3)
        axes.set_yticks(row, [_short(name) for name in names], fontsize=8)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", color=RANDOM, alpha=0.25, linewidth=0.6)
        axes.set_xlim(0, 1.12 * float(share.max(initial=0.01)))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("share of the panel's annotated genes")
        _size_legend(axes, n_hits)
        bar = figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01)
        bar.set_label("-log10 adjusted p")
        return _drawn(figure)


def _size_legend(axes: Axes, n_hits: NDArray[np.integer]) -> None:
    largest = max(1, int(n_hits.max(initial=1)))
    for n in sorted({max(1, largest // 4), max(1, largest // 2), largest}):
        axes.scatter([], [], s=20 + 180 * n / largest, color=RANDOM, label=f"{n}")
    axes.legend(title="genes", loc="lower right", fontsize=8, labelspacing=0.9)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_TERM else f"{name[: LONGEST_TERM - 3].rstrip()}..."
