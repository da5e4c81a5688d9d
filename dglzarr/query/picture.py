"""Expression of genes by a label of samples as a picture: no pyplot, the same bytes each time."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from dglzarr.query.written import printable

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

Format = Literal["png", "svg", "pdf"]

POINTS, INK, LINE = "#c2410c", "#1f2933", "#8b939e"
N_POINTS = 300
"""Samples of a group that are drawn at most; box and whiskers are of all."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "dglzarr",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
"""Of all figures."""


def draw_groups(values: xr.DataArray, group: NDArray[Any], label: str, *, most: int) -> Figure:
    """Return a picture of genes by group: one under the other, a box and points a group.

    Groups stand by their median of the first gene, highest on top. Whiskers end at the last sample
    within 1.5 times the box.

    Parameters
    ----------
    values
        (sample, gene), with ``gene_symbol`` where that is known.
    group
        Which group a sample is of, (sample,).
    label
        What the groups are by.
    most
        Groups that are drawn: the largest. The picture says how many are left out.
    """
    groups, counts = np.unique(group, return_counts=True)
    names = groups.astype(str)[np.argsort(-counts, kind="stable")]
    left_out = max(0, names.size - most)
    parts = {name: values.values[group.astype(str) == name] for name in names[:most]}
    parts = dict(sorted(parts.items(), key=lambda part: _median(part[1][:, 0])))
    genes = _titles(values)
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, len(genes) * (0.9 + 0.26 * len(parts))), layout="constrained")
        for axes, title, column in zip(
            np.ravel(figure.subplots(len(genes))), genes, range(len(genes)), strict=True
        ):
            _draw(axes, {name: part[:, column] for name, part in parts.items()})
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_ylabel(_short(label))
        axes.set_xlabel(
            "normalized expression, log2"
            + (f"; {left_out} smaller groups are not drawn" if left_out else "")
        )
    return figure


def written(figure: Figure, form: Format) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = io.BytesIO()
    undated = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    undated["pdf"] = {"CreationDate": None, "Creator": None, "Producer": None}
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", category=UserWarning)  # a box stands for it
        figure.savefig(buffer, format=form, metadata=undated[form])
    return buffer.getvalue()


def _draw(axes: Axes, parts: dict[str, NDArray[np.float32]]) -> None:
    """Draw a box and points for each group, the first at the bottom."""
    known = [part[~np.isnan(part)] for part in parts.values()]
    rows = range(1, len(known) + 1)
    rng = np.random.default_rng(0)
    for row, part in zip(rows, known, strict=True):
        some = part[np.linspace(0, part.size - 1, min(N_POINTS, part.size)).astype(np.int64)]
        at = row + rng.uniform(-0.25, 0.25, some.size)
        axes.plot(some, at, "o", color=POINTS, alpha=0.45, markersize=2.5, markeredgewidth=0)
    line = {"color": INK, "linewidth": 0.9}
    lines: dict[str, Any] = {f"{part}props": line for part in ("box", "whisker", "cap")}
    lines["medianprops"] = {**line, "linewidth": 2}
    axes.boxplot(known, orientation="horizontal", showfliers=False, widths=0.6, **lines)
    axes.set_yticks(
        rows, [f"{_short(name)} ({part.size})" for name, part in zip(parts, known, strict=True)]
    )


def _median(values: NDArray[np.float32]) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else -np.inf


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 40 else f"{name[:39]}…"


def _titles(values: xr.DataArray) -> list[str]:
    labels = [printable(str(label)) for label in values["gene"].values]
    if "gene_symbol" not in values.coords:
        return labels
    symbols = (printable(str(symbol)) for symbol in values["gene_symbol"].values)
    return [
        f"{symbol} ({label})" if symbol not in ("", label) else label
        for symbol, label in zip(symbols, labels, strict=True)
    ]
