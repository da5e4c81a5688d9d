"""Judges a fitted panel on the study's test samples: error, coverage and width, by series.

Nothing of these samples was fitted on. Beside each stands what the training mean gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.comparison import bootstrap_interval
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.panel_space import PANEL_SCALES, PanelSpace, to_study_scale
from dglzarr.storage.rows import read_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.kernels.panel_space import PanelScale
    from dglzarr.prediction.fit import Fitted, Training

    Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """What one way of measuring gets on held-out samples; all (sample,), z units.

    Attributes
    ----------
    scale
        The way.
    series
        The study of each sample.
    error, mean_error
        Mean absolute error over genes, and that of the training mean.
    coverage, mean_coverage
        Share of genes within their interval, and within that around the training mean.
    novelty
        Over 1: less like training than 99 % of left-out samples.
    width, mean_width
        Mean width of the intervals over genes, the same for every sample.
    """

    scale: PanelScale
    series: NDArray[np.object_]
    error: Float64
    mean_error: Float64
    coverage: Float64
    mean_coverage: Float64
    novelty: Float64
    width: float
    mean_width: float

    def told(self) -> dict[str, Any]:
        """Return means over samples with their 95 % intervals over series, NaN under three."""
        found: dict[str, Any] = {
            "n_samples": self.error.size,
            "n_series": len(set(self.series)),
            "width": self.width,
            "mean_width": self.mean_width,
        }
        for name in ("error", "mean_error", "coverage", "mean_coverage"):
            values: Float64 = getattr(self, name)
            ends = bootstrap_interval(values[None], self.series)[0]
            low, high = np.clip(ends, 0.0, 1.0 if "coverage" in name else None)
            found[name] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
        return found


def judge(data: Training, fitted: Fitted) -> list[Judged]:
    """Return what the test samples of the study say, for each scale; none without such samples."""
    chosen = np.flatnonzero(kept_samples(data.source, data.samples, "test")).astype(np.int64)
    if not chosen.size:
        return []
    series = read_array(data.source, "series")[chosen].astype(object)
    mean, std = (values[data.landmarks] for values in data.moments)
    space = PanelSpace.of(fitted.correlation, fitted.alpha / fitted.n_samples)
    of, found = fitted.left_out, np.zeros((len(PANEL_SCALES), 5, chosen.size))
    for at, panel, y in data.blocks(chosen, data.targets):
        null, width = np.abs(y), of.mean_half_width.astype(np.float32)
        known = ~np.isnan(y)
        of_mean = np.nanmean(null, axis=1), (null <= width).sum(axis=1) / known.sum(axis=1)
        for s, scale in enumerate(PANEL_SCALES):
            values = to_study_scale(panel, scale, mean=mean, reference=fitted.reference)
            z = standardize(values, mean, std)
            error = np.abs(z @ fitted.coefficient + fitted.intercept - y)
            inside = (error <= of.half_width[s].astype(np.float32)).sum(axis=1)
            told = (np.nanmean(error, axis=1), inside / known.sum(axis=1))
            novelty = space.novelty(z) / of.novelty_limit[s]
            found[s][:, at] = np.stack([told[0], of_mean[0], told[1], of_mean[1], novelty])
    return [
        Judged(
            scale=scale,
            series=series,
            error=found[s][0],
            mean_error=found[s][1],
            coverage=found[s][2],
            mean_coverage=found[s][3],
            novelty=found[s][4],
            width=2 * float(of.half_width[s].mean()),
            mean_width=2 * float(of.mean_half_width.mean()),
        )
        for s, scale in enumerate(PANEL_SCALES)
    ]
