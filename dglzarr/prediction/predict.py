"""All other genes from a measured panel, with an interval each, and what is not to be trusted.

Needs a bundle and what was measured, no study and no TensorFlow. Samples are taken block by block,
so that memory does not grow with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError, SourceError
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.panel_space import PANEL_SCALES, patterns, to_study_scale
from dglzarr.prediction.bundle import Bundle, load_bundle
from dglzarr.prediction.levels import apart_note, are_apart, levels_of
from dglzarr.prediction.measured import MAX_MISSING, Measured, read_measured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from dglzarr.kernels.panel_space import PanelScale
    from dglzarr.kernels.scale import Unit
    from dglzarr.sources.base import SamplesIn

    Matrix = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Float64 = NDArray[np.float64]

BLOCK = 256
_FEWEST_TO_TELL = 3
MAX_OUT = 0.1
"""Share of the panel's genes beyond their training range up to which a sample is trusted."""


class Block(NamedTuple):
    """Predictions of some samples: matrices (sample, gene) in log2, and what is told of each."""

    predicted: Matrix
    lower: Matrix
    upper: Matrix
    novelty: Float64
    n_imputed: NDArray[np.int64]
    n_out_of_range: NDArray[np.int64]
    trusted: Mask
    out_of_range: NDArray[np.int64]


class _Seen(NamedTuple):
    """What a file has of each panel gene, (landmark,), and whether any sample has enough."""

    has_value: Mask
    constant: Mask
    out_mostly: Mask
    has_enough: bool


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted genes of measured samples.

    Attributes
    ----------
    predicted, lower, upper
        In log2, samples in rows and genes in columns; NaN of a sample with too little measured.
    genes
        A row a gene: symbol, ID, half the width of its interval, share of its variance that is
        explained on left-out series, and whether it is predicted better than by the training mean.
    samples
        A row a sample: novelty (over 1: less like training than 99 % of left-out samples), panel
        genes that others stand in for, panel genes out of range, whether its values lie elsewhere
        than those of training did, or of the others of the file, and whether it is to be trusted:
        it has enough genes, is like training, and does not lie elsewhere.
    notes
        What should be known, a line each.
    """

    predicted: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    genes: pd.DataFrame
    samples: pd.DataFrame
    notes: list[str]


def predict(
    bundle: str | Path | Bundle,
    measured: str | Path | pd.DataFrame,
    *,
    scale: PanelScale = "quantile",
    unit: Unit | None = None,
    max_missing: float = MAX_MISSING,
    samples_in: SamplesIn | None = None,
) -> Prediction:
    """Return all other genes from a measured panel, with 95 % intervals.

    Parameters
    ----------
    bundle
        A file of ``dglzarr bundle``, or one that is loaded.
    measured
        An expression file, or a frame with samples in rows and genes in columns, in log2. Genes
        are found by label, symbol, Entrez or Ensembl ID.
    scale
        How values become those of the study: ``"quantile"``, by the ranks of a sample's panel
        genes; ``"shift"``, by one constant a sample; ``"given"``, they are the study's already.
    unit
        What the values are where they are not log2: ``"counts"``, ``"intensity"``, ``"tpm"``,
        ``"rpkm"``, ``"fpkm"``.
    max_missing
        Share of the panel that may be missing; the other panel genes stand in for it, and
        intervals widen by what that costs.
    samples_in
        ``"rows"`` for a file with samples in rows, ``"columns"`` for a frame with samples in
        columns.

    Raises
    ------
    SourceError
        When the measured values are not what they should be, or lack too much of the panel.
    StoreError, SchemaError
        When the bundle is none, or not as it was written.

    Examples
    --------
    >>> import dglzarr
    >>> found = dglzarr.predict("bundle.zip", frame)  # doctest: +SKIP
    >>> found.predicted.loc["patient 7", "TP53"]  # doctest: +SKIP
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    run = Predictor(loaded, scale=scale, max_missing=max_missing)
    data = read_measured(
        measured, loaded, unit=unit, max_missing=max_missing, samples_in=samples_in
    )
    run.begin(data)
    blocks = list(run.blocks(data))
    index = pd.Index(data.samples, name="sample")
    columns = pd.Index(loaded.targets.genes, name="gene")

    def frame(values: list[Matrix]) -> pd.DataFrame:
        return pd.DataFrame(np.concatenate(values), index=index, columns=columns)

    return Prediction(
        frame([block.predicted for block in blocks]),
        frame([block.lower for block in blocks]),
        frame([block.upper for block in blocks]),
        run.genes(),
        run.samples(data),
        [*data.notes, *run.notes(data)],
    )


class Predictor:
    """A bundle at work on one file: its predictions block by block, then what should be known.

    Parameters
    ----------
    bundle
        The bundle.
    scale, max_missing
        As in `predict`.

    Raises
    ------
    ConfigError
        When the scale is unknown, or the share is none.
    """

    def __init__(self, bundle: Bundle, *, scale: PanelScale, max_missing: float) -> None:
        if scale not in PANEL_SCALES:
            raise ConfigError(f"scale: expected one of {PANEL_SCALES}, got {scale!r}.")
        if not 0 <= max_missing < 1:
            raise ConfigError(f"max_missing: expected 0 up to under 1, got {max_missing!r}.")
        self.bundle, self.scale, self._max_missing = bundle, scale, max_missing
        self._half = bundle.of("half_width", scale).astype(np.float64)
        self._limit = float(bundle.of("novelty_limit", scale))
        self._unit = bundle["gene_std"].astype(np.float32)
        self._center = bundle["gene_mean"].astype(np.float32)
        self._usual = bundle.details.get("measured")
        self._widths: dict[bytes, Matrix] = {}

    def begin(self, data: Measured) -> None:
        """Take up a file, which is read once or twice: what it lacks widens all its intervals.

        A panel gene counts as missing where the file has no value of it, where it is the same in
        all samples while others vary, or where it is out of its training range in most of three or
        more; the last only as long as the file has enough of the panel without it.

        Raises
        ------
        SourceError
            When a value is infinite or cannot be negative, the file lacks too much of the panel, or
            no sample has enough of it.
        """
        n_samples, n_panel = len(data.samples), len(self.bundle.panel)
        most = self._max_missing * n_panel
        self._constant = self._out_mostly = np.zeros(n_panel, dtype=bool)
        seen = self._survey(data)
        if seen.constant.any():
            self._constant = seen.constant
            seen = self._survey(data)
        lacking = ~seen.has_value
        if lacking.sum() > most:
            raise SourceError(
                f"{data.name}: expected at most {100 * self._max_missing:g} % of the {n_panel} "
                f"panel genes without values or the same in all samples, got {lacking.sum()}: "
                f"{self.bundle.panel.called(np.flatnonzero(lacking))}. Measure them, make a bundle "
                "without them, or raise --max-missing."
            )
        if not seen.has_enough:
            raise SourceError(
                f"{data.name}: expected samples with at most {100 * self._max_missing:g} % of the "
                f"panel missing, got none of {n_samples}. Measure more, or raise --max-missing."
            )
        if (lacking | seen.out_mostly).sum() <= most:
            self._out_mostly = seen.out_mostly
        self._found = ~lacking & ~self._out_mostly
        self._width = self._wide(self._found)
        self._told = {
            "novelty": np.full(n_samples, np.nan),
            "n_imputed": np.zeros(n_samples, dtype=np.int64),
            "n_out_of_range": np.zeros(n_samples, dtype=np.int64),
            "lies_elsewhere": are_apart(self._levels, self._usual) & (self.scale != "given"),
            "trusted": np.zeros(n_samples, dtype=bool),
        }
        self._out = np.zeros(n_panel, dtype=np.int64)

    def _survey(self, data: Measured) -> _Seen:
        """Read a file once, and say what there is of each panel gene."""
        n_samples, n_panel = len(data.samples), len(self.bundle.panel)
        n_known, n_out = np.zeros((2, n_panel), dtype=np.int64)
        low, high = np.full(n_panel, np.inf), np.full(n_panel, -np.inf)
        self._n_negative, has_enough = 0, False
        self._levels = np.empty((2, n_samples))
        for start in range(0, n_samples, BLOCK):
            values, n_negative = self._read(data, start, start + BLOCK)
            self._n_negative += n_negative
            missing = np.isnan(values)
            enough = missing.mean(axis=1) <= self._max_missing
            has_enough |= bool(enough.any())
            levels = np.where(enough, levels_of(values), np.nan)  # others are not predicted
            self._levels[:, start : start + BLOCK] = levels
            n_known += (~missing).sum(axis=0)
            low = np.fmin(low, np.fmin.reduce(values, axis=0))
            high = np.fmax(high, np.fmax.reduce(values, axis=0))
            n_out += self._is_out(self._on_scale(values)).sum(axis=0)
        constant = (n_known > 1) & (low == high)
        if constant[n_known > 1].all():  # one sample, or the same one again and again
            constant[:] = False
        is_out = (n_known >= _FEWEST_TO_TELL) & (n_out > 0.5 * n_known)
        return _Seen(n_known > 0, constant, is_out, has_enough)

    def _read(self, data: Measured, start: int, stop: int) -> tuple[Matrix, int]:
        """Return values of some samples in log2, NaN of genes that are not to be trusted."""
        values, n_negative = data.read(start, stop)
        failed = self._constant | self._out_mostly
        if failed.any():
            values = np.where(failed, np.float32(np.nan), values)
        return values, n_negative

    def _on_scale(self, values: Matrix) -> Matrix:
        mean, reference = self.bundle["landmark_mean"], self.bundle["panel_reference"]
        return to_study_scale(values, self.scale, mean=mean, reference=reference)

    def _is_out(self, on_scale: Matrix) -> Mask:
        low, high = self.bundle["landmark_low"], self.bundle["landmark_high"]
        return np.asarray((on_scale < low) | (on_scale > high))

    def blocks(self, data: Measured, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Yield the predictions of samples from start up to stop, a few at a time."""
        end = len(data.samples) if stop is None else stop
        for first in range(start, end, BLOCK):
            last = min(first + BLOCK, end)
            block = self._block(self._read(data, first, last)[0])
            elsewhere = self._told["lies_elsewhere"][first:last]
            elsewhere &= block.n_imputed <= self._max_missing * len(self.bundle.panel)
            block.trusted[elsewhere] = False
            for name in ("novelty", "n_imputed", "n_out_of_range", "trusted"):
                self._told[name][first:last] = getattr(block, name)
            self._out += block.out_of_range
            yield block

    def _block(self, values: Matrix) -> Block:
        bundle = self.bundle
        mean, std = bundle["landmark_mean"], bundle["landmark_std"]
        on_scale = self._on_scale(values)
        missing = np.isnan(on_scale)
        z = standardize(on_scale, mean, std)
        z[missing] = np.nan
        enough = missing.mean(axis=1) <= self._max_missing
        filled = self.bundle.space.fill(z).astype(np.float32) if missing.any() else z
        predicted = filled @ bundle["coefficient"]
        predicted += bundle["intercept"]
        predicted *= self._unit
        predicted += self._center
        predicted[~enough] = np.nan
        lower, upper = np.empty_like(predicted), np.empty_like(predicted)
        for rows, known in patterns(missing):
            width = self._wide(known)
            lower[rows], upper[rows] = predicted[rows] - width, predicted[rows] + width
        out = self._is_out(on_scale)
        novelty = bundle.space.novelty(z) / self._limit
        n_out = out.sum(axis=1)
        n_known = (~missing).sum(axis=1)
        trusted = enough & (novelty <= 1) & (n_out <= MAX_OUT * n_known)
        return Block(
            predicted, lower, upper, novelty, missing.sum(axis=1), n_out, trusted, out.sum(axis=0)
        )

    def _wide(self, known: Mask) -> Matrix:
        """Return half the width of every gene's interval where only some of the panel is known.

        A gene that others stand in for is off by as much as in left-out series; its coefficients
        carry that to the targets. Genes that are missing together are off together, by what the
        rest of the panel leaves of them in training, where that is more.
        """
        key = known.tobytes()
        if key not in self._widths:
            lacking = np.flatnonzero(~known)
            weight = self.bundle["coefficient"][lacking].astype(np.float64)
            precision = self.bundle.space.precision
            joint = np.linalg.inv(precision[np.ix_(lacking, lacking)])
            alone = self.bundle["landmark_mse"][lacking] @ weight**2
            extra = np.maximum(alone, (weight * (joint @ weight)).sum(axis=0))
            extra *= (self.bundle.of("factor", self.scale) * self.bundle["gene_std"]) ** 2
            if len(self._widths) > BLOCK:
                self._widths.clear()
            self._widths[key] = np.sqrt(self._half**2 + extra).astype(np.float32)
        return self._widths[key]

    # ------------------------------------------------------------ what is told

    @property
    def gene_trusted(self) -> Mask:
        """Which genes are predicted better than by the training mean, on left-out series."""
        return np.asarray(self.bundle.of("explained", self.scale) > 0)

    @property
    def half_width(self) -> Matrix:
        """Half the width of every gene's interval, with the genes that the file has."""
        return self._width

    def told(self, name: str) -> NDArray[np.generic]:
        """Return what is told of every sample, a column of `samples`."""
        return self._told[name]

    def genes(self) -> pd.DataFrame:
        """Return what is told of every predicted gene."""
        names = self.bundle.targets
        return pd.DataFrame(
            {
                "gene_symbol": names.symbols,
                "gene_id": names.gene_ids,
                "half_width": self._width,
                "explained": self.bundle.of("explained", self.scale),
                "trusted": self.gene_trusted,
            },
            index=pd.Index(names.genes, name="gene"),
        )

    def samples(self, data: Measured) -> pd.DataFrame:
        """Return what is told of every sample."""
        return pd.DataFrame(self._told, index=pd.Index(data.samples, name="sample"))

    def notes(self, data: Measured) -> list[str]:
        """Return what should be known of the predictions; call it when all blocks are made."""
        n_samples, panel = len(data.samples), self.bundle.panel
        enough = self._told["n_imputed"] <= self._max_missing * len(panel)
        notes = self._missing_notes()
        if self._n_negative:
            notes.append(f"{self._n_negative} negative values are taken as 0.")
        if not enough.all():
            shown = ", ".join(data.samples[i] for i in np.flatnonzero(~enough)[:3])
            notes.append(
                f"{(~enough).sum()} of {n_samples} samples lack too much of the panel: not "
                f"predicted ({shown})."
            )
        usual = np.flatnonzero(self._out > 0.5 * n_samples)
        if usual.size:
            notes.append(
                f"{usual.size} panel genes are out of their training range in most samples "
                f"({panel.called(usual)}): another platform, unit or kind of sample?"
            )
        apart, by_ranks = self._told["lies_elsewhere"], self.scale == "quantile"
        if apart.any():
            notes.append(
                apart_note(data.samples, self._levels, apart, self._usual, by_ranks=by_ranks)
            )
        doubted = enough & ~self._told["trusted"] & ~apart
        if doubted.any():
            shown = ", ".join(data.samples[i] for i in np.flatnonzero(doubted)[:3])
            notes.append(
                f"{doubted.sum()} of {n_samples} samples are unlike training, so that their "
                f"intervals are not to be trusted ({shown})."
            )
        n_poor = int((~self.gene_trusted).sum())
        if n_poor:
            notes.append(
                f"{n_poor} of {self.gene_trusted.size} genes are predicted no better than by the "
                "training mean."
            )
        return notes

    def _missing_notes(self) -> list[str]:
        """Return what missing genes cost: expected error of a sample with what the file has."""
        panel, lacking = self.bundle.panel, np.flatnonzero(~self._found)
        if not lacking.size:
            return []
        notes = []
        for failed, what in (
            (self._constant, "the same in all samples, as of a failed probe"),
            (self._out_mostly, "out of their training range in most samples"),
        ):
            if failed.any():
                called = panel.called(np.flatnonzero(failed))
                notes.append(f"{failed.sum()} panel genes are {what} ({called}): taken as missing.")
        before = float(self.bundle.of("error", self.scale))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.nanmean(self._width / self._half)
        told = (
            f"{lacking.size} of {len(panel)} panel genes are missing "
            f"({panel.called(lacking)}): the others stand in for them; expected error "
            f"{before:.3f} -> {before * ratio:.3f} (z units)."
        )
        return [*notes, told]
