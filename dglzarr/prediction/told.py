"""What a bundle and its predictions are, in lines for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.kernels.panel_space import PANEL_SCALES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from dglzarr.prediction.contrast import Contrasted
    from dglzarr.prediction.make import Bundled
    from dglzarr.prediction.output import Written


def bundle_lines(made: Bundled) -> list[str]:
    """Return what a bundle is, how good it is, and what should be known."""
    of = made.details
    head = (
        f"Panel {of['panel']!r}: {of['n_landmarks']} genes predict {of['n_targets']}, fitted on "
        f"{of['n_samples']} samples."
    )
    left_out = (
        f"Left-out {of['left_out']} ({of['n_groups']} parts): error "
        f"{of['error'][PANEL_SCALES[0]]:.3f} z units, training mean {of['mean_error']:.3f}."
    )
    judged = _judged_lines(of["judged"][PANEL_SCALES[0]]) if of["judged"] else []
    size = f"{made.nbytes / 1e6:.1f} MB, SHA-256 {made.sha256}"
    return [head, left_out, *judged, *made.notes, f"Written: {made.output}, {size}"]


def _judged_lines(of: dict[str, Any]) -> list[str]:
    error = (
        f"Test samples ({of['n_samples']} of {of['n_series']} series): error "
        f"{_with_interval(of['error'], '.3f')}, training mean {of['mean_error']['mean']:.3f}."
    )
    coverage = (
        f"Their values within 95 % intervals: {_with_interval(of['coverage'], '.1%')}; mean width "
        f"{of['width']:.2f}, around the training mean {of['mean_width']:.2f} (z units)."
    )
    return [error, coverage]


def _with_interval(value: dict[str, float], form: str) -> str:
    low, high = value["low"], value["high"]
    if not np.isfinite(low):
        return f"{value['mean']:{form}} (fewer than 3 series: no interval)"
    return f"{value['mean']:{form}} (95 % over series {low:{form}} to {high:{form}})"


def prediction_lines(written: Written) -> list[str]:
    """Return what was predicted, what should be known, and where it is."""
    n_trusted = int(written.samples["trusted"].sum())
    head = (
        f"{written.n_genes} genes of {written.n_samples} samples predicted with 95 % intervals; "
        f"{n_trusted} samples are like training."
    )
    return [head, *written.notes, f"Written: {', '.join(written.places)}"]


CONTRAST = ("panel", "r of changes", "found again", "same sign", "r of sets", "ARI")


def contrast_lines(found: Contrasted) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield a heading for each series, and a row a panel, as ``CONTRAST`` names the columns."""
    for series, rows in found.table.groupby("series", sort=False):
        first = rows.iloc[0]
        heading = (
            f"{series}: {first['n_case']} + {first['n_control']} held-out samples, "
            f"{first['n_called']} of {found.n_targets} genes that no panel measures differ."
        )
        yield heading, [_contrast_cells(row, found.n_panels) for _, row in rows.iterrows()]


def _contrast_cells(row: pd.Series[Any], n_random: int) -> list[str]:
    is_many = row["kind"] == "random"
    cells = [f"{n_random} random" if is_many else str(row["panel"])]
    for name in ("r", "recovered", "sign", "r_sets", "ari"):
        value = "" if np.isnan(row[name]) else f"{row[name]:.2f}"
        if value and is_many:
            value += f" ({row[f'{name}_low']:.2f} to {row[f'{name}_high']:.2f})"
        cells.append(value)
    return cells
