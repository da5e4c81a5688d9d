"""What a bundle and its predictions are, in lines for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.kernels.panel_space import PANEL_SCALES

if TYPE_CHECKING:
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
