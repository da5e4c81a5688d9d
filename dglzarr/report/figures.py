"""The report's figures as SVG text: arrays in, text out.

No pyplot: figures are plain objects, and the same input gives the same bytes.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dglzarr.query.picture import STYLE, written

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MINED, PUBLISHED, RANDOM, INK = "#c2410c", "#1d5fa8", "#8b939e", "#1f2933"
MARKERS = "sD^vP"
LONGEST = 24


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Axes, io.StringIO]]:
    """Yield the axes of a new figure and the text it is written to at the end, sizes in inches."""
    svg = io.StringIO()
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(), svg
        svg.write(written(figure, "svg").decode())


def panel_strip(mined: float, published: Mapping[str, float], random: NDArray[np.float64]) -> str:
    """Return dots of the mean error of each panel: mined, published lists, random panels."""
    names = ["mined", *published, f"random ({random.size})"]
    with _axes(4.8, 1.1 + 0.34 * len(names)) as (axes, svg):
        axes.axvline(mined, color=MINED, linewidth=0.8, linestyle=":")
        axes.plot([mined], [0], "o", color=MINED, markersize=9)
        axes.annotate(f"{mined:.4f}", (mined, 0), (8, -3), textcoords="offset points")
        for row, mae in enumerate(published.values(), start=1):
            marker = MARKERS[(row - 1) % len(MARKERS)]
            axes.plot([mae], [row], marker, color=PUBLISHED, markersize=7)
            axes.annotate(f"{mae:.4f}", (mae, row), (8, -3), textcoords="offset points")
        spread = np.random.default_rng(0).uniform(-0.18, 0.18, random.size)
        axes.plot(random, len(names) - 1 + spread, "o", color=RANDOM, markersize=5, alpha=0.75)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.margins(x=0.18)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("mean absolute error (z), lower is better")
    return svg.getvalue()


def gene_scatter(mined: NDArray[np.float32], other: NDArray[np.float32], *, other_name: str) -> str:
    """Return each target gene's error with the mined panel against another panel's."""
    with _axes(4.8, 4.4) as (axes, svg):
        axes.plot(other, mined, ".", color=MINED, alpha=0.35, markersize=3, rasterized=True)
        top = float(max(mined.max(), other.max())) * 1.05 if mined.size else 1.0
        axes.plot([0, top], [0, top], color=INK, linewidth=0.8)
        axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
        axes.set_xlabel(f"error with {other_name} (z)")
        axes.set_ylabel("error with mined (z)")
        axes.text(0.03, 0.95, f"{other_name} better", transform=axes.transAxes, color=PUBLISHED)
        axes.text(0.97, 0.05, "mined better", transform=axes.transAxes, color=MINED, ha="right")
    return svg.getvalue()


def top_genes(labels: Sequence[str], scores: NDArray[np.float64]) -> str:
    """Return bars of the best scores, best on top."""
    with _axes(4.8, 0.6 + 0.19 * len(labels)) as (axes, svg):
        axes.barh(range(len(labels)), scores, color=MINED, height=0.72)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("DeepLIFT score")
    return svg.getvalue()


def score_histogram(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> str:
    """Return how many genes have which score, in all and in the panel."""
    with _axes(4.8, 3.2) as (axes, svg):
        _, edges, _ = axes.hist(scores, bins=60, color=RANDOM, label="all genes")
        axes.hist(scores[inside], bins=edges.tolist(), color=MINED, label="mined panel")
        axes.set(xlabel="DeepLIFT score", ylabel="genes")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.legend(loc="upper right")
    return svg.getvalue()


def score_curve(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> str:
    """Return the scores from best to worst, the panel's genes marked."""
    order = np.argsort(-scores, kind="stable")
    with _axes(4.8, 3.2) as (axes, svg):
        rank, ranked = np.arange(1, scores.size + 1), scores[order]
        axes.plot(rank, ranked, color=INK, linewidth=1.2)
        axes.vlines(
            rank[inside[order]],
            0,
            ranked[inside[order]],
            color=MINED,
            alpha=0.4,
            linewidth=0.5,
            label="mined panel",
            rasterized=True,
        )
        axes.set(xlabel="rank by score", ylabel="DeepLIFT score")
        axes.set_ylim(bottom=min(0.0, float(ranked.min(initial=0.0))))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="upper right")
    return svg.getvalue()


def learning_curve(
    epoch: NDArray[np.int64],
    loss: NDArray[np.float64],
    val_loss: NDArray[np.float64],
    *,
    best_epoch: int,
) -> str:
    """Return training and validation loss by epoch, with the epoch that was kept."""
    with _axes(4.8, 3.2) as (axes, svg):
        marker = "o" if epoch.size < 3 else ""
        axes.plot(epoch, loss, color=RANDOM, marker=marker, label="training")
        if np.isfinite(val_loss).any():
            axes.plot(epoch, val_loss, color=PUBLISHED, marker=marker, label="validation")
        axes.axvline(best_epoch, color=MINED, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set(xlabel="epoch", ylabel="loss (mean absolute error, z)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.legend(loc="upper right")
    return svg.getvalue()


def accuracy_by_size(
    sizes: NDArray[np.int64],
    errors: Mapping[str, NDArray[np.float64]],
    *,
    kinds: Mapping[str, str],
    best: NDArray[np.float64],
    worst: NDArray[np.float64],
) -> str:
    """Return the mean error of each family of panels against panel size.

    ``errors`` holds an error a size for each family, NaN where there is none, ``kinds`` its kind;
    the band spans the best and the worst random panel.
    """
    with _axes(6.4, 4.2) as (axes, svg):
        axes.fill_between(sizes, best, worst, color=RANDOM, alpha=0.3, linewidth=0)
        for i, (name, values) in enumerate(errors.items()):
            known = np.isfinite(values)
            is_drawn = kinds[name] in ("random", "subset")
            of_list = PUBLISHED if is_drawn else f"C{i % 10}"
            axes.plot(
                sizes[known],
                values[known],
                color=RANDOM if kinds[name] == "random" else of_list,
                linestyle="--" if is_drawn else "-",
                marker="" if is_drawn else MARKERS[i % len(MARKERS)],
                markersize=4,
                linewidth=1.2,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set(xlabel="genes in the panel", ylabel="mean absolute error (z), lower is better")
        axes.legend(loc="upper right", ncols=2, fontsize=8)
    return svg.getvalue()


def bars(labels: Sequence[str], values: NDArray[np.float64], *, xlabel: str) -> str:
    """Return one bar a label, the first on top."""
    with _axes(4.8, 0.9 + 0.34 * len(labels)) as (axes, svg):
        axes.barh(range(len(labels)), values, color=PUBLISHED, height=0.62)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        for row, value in enumerate(values.tolist()):
            axes.annotate(f"{value:.4f}", (value, row), (4, -3), textcoords="offset points")
        axes.margins(x=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(xlabel)
    return svg.getvalue()


def spreads(stages: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> str:
    """Return quantiles of samples side by side, a panel a stage.

    ``stages`` maps its title to q01, q25, median, q75 and q99 of each sample.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        grid = figure.subplots(1, len(stages), sharey=True, squeeze=False)[0]
        for axes, (title, found) in zip(grid, stages.items(), strict=True):
            at = np.arange(found["median"].size)
            axes.vlines(at, found["q01"], found["q99"], color=RANDOM, linewidth=0.7)
            axes.vlines(at, found["q25"], found["q75"], color=PUBLISHED, linewidth=1.6)
            axes.plot(at, found["median"], ".", color=MINED, markersize=3)
            axes.set(title=title, xlabel="sample")
        grid[0].set_ylabel("expression (log2)")
    return written(figure, "svg").decode()


def distances(values: NDArray[np.float64], threshold: float | None) -> str:
    """Return how many samples lie at which distance, and the threshold where there is one."""
    with _axes(4.8, 3.0) as (axes, svg):
        axes.hist(values, bins=30, color=PUBLISHED)
        if threshold is not None:
            axes.axvline(threshold, color=MINED, linestyle=":", label=f"threshold {threshold:g}")
            axes.legend(loc="upper left")
        axes.set(xlabel="distance to the nearest sample", ylabel="samples")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return svg.getvalue()


def sample_map(
    first: NDArray[np.float64], second: NDArray[np.float64], groups: Sequence[str]
) -> str:
    """Return samples as dots, those of the ten largest groups in colours of their own."""
    names, counts = np.unique(np.array(groups, dtype=object).astype(str), return_counts=True)
    largest = [str(names[i]) for i in np.argsort(-counts, kind="stable")[:10]]
    of = np.array(groups, dtype=object).astype(str)
    with _axes(6.4, 4.4) as (axes, svg):
        rest = ~np.isin(of, largest)
        axes.plot(first[rest], second[rest], ".", color=RANDOM, markersize=3, rasterized=True)
        for number, name in enumerate(largest):
            here = of == name
            axes.plot(
                first[here],
                second[here],
                MARKERS[number % len(MARKERS)],
                color=f"C{number}",
                markersize=3,
                alpha=0.7,
                label=name if len(name) <= LONGEST else f"{name[:LONGEST]}...",
                rasterized=True,
            )
        axes.set(xlabel="first direction (log2)", ylabel="second direction (log2)")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return svg.getvalue()
