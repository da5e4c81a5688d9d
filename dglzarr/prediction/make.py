"""Makes a bundle of a finished study: its panel, or another, fitted, calibrated and judged.

Reads the study's ``normalized.zarr``, ``samples.zarr`` and ``landmarks.zarr``; writes one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError, SourceError, hint
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.evaluation.order import Conditions, PanelMaker
from dglzarr.evaluation.panels import feature_names, stored_panels
from dglzarr.kernels.intervals import MIN_GUARANTEED
from dglzarr.kernels.panel_space import PANEL_SCALES
from dglzarr.prediction.bundle import FOLDER, check_output, load_bundle, pack
from dglzarr.prediction.fit import Training, fit_panel
from dglzarr.prediction.judge import judge
from dglzarr.prediction.levels import training_levels
from dglzarr.sources.identifiers import find_genes, read_gene_list
from dglzarr.storage.declare import text_array
from dglzarr.storage.files import file_sha256
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import BUNDLE, LANDMARKS, NORMALIZED
from dglzarr.storage.store import (
    check_claim,
    check_matrices,
    create_store,
    finish,
    open_store,
    take_claim,
)
from dglzarr.storage.study import open_study
from dglzarr.storage.together import check_together

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.prediction.fit import Fitted
    from dglzarr.prediction.judge import Judged

    Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bundled:
    """A bundle that was made: where, of what, how good, and what should be known."""

    output: str
    sha256: str
    nbytes: int
    details: dict[str, Any]
    notes: list[str]


def make_bundle(
    study: str,
    output: str | Path,
    *,
    panel: str = "mined",
    size: int | None = None,
    overwrite: bool = False,
    run: Run = Run(),
) -> Bundled:
    """Write a bundle of a study's panel and return what it is.

    Parameters
    ----------
    study
        Folder of a study; of a grown one the first segment is fitted on.
    output
        The file, ``.zip``.
    panel
        Name of a panel of the study; or a file: an order sheet of ``dglzarr panel``, or a list of
        genes.
    size
        Choose a greedy panel of that many genes instead.
    overwrite
        Replace a file that exists.
    run
        Who is told of the progress.

    Raises
    ------
    ConfigError
        When there is no such panel, or the file exists.
    SourceError
        When a gene of a file is not of the study.
    StoreError
        When a store is absent or not as it was written, or the disk refuses.
    """
    place = Path(output)
    check_output(place, overwrite=overwrite)
    found = open_study(study)
    source, samples = found.uris("normalized")[0], found.uris("samples")[0]
    ds = open_store(source, NORMALIZED)
    if by := ds.attrs["details"].get("center_by"):
        raise ConfigError(
            f"{study}: expected a study whose batches are as measured, since a sample that is "
            f"predicted alone has no mean to be centred by, got ingest.center_by = {by!r}. Bundle "
            "a study without it."
        )
    check_together(study, (source, samples, found.uri("landmarks")))
    check_matrices(source, on_progress=run.on_progress)  # else damage gets digests of its own
    genes, name = _panel(study, found.uri("landmarks"), ds, panel, size)
    std = read_array(samples, "gene_std")
    targets = np.setdiff1d(np.flatnonzero(std > 0), genes).astype(np.int64)
    if not targets.size:
        raise ConfigError("--panel: expected genes that are not on it, got none. Choose fewer.")
    data = Training(source, samples, genes, targets)
    fitted = fit_panel(data, on_progress=run.on_progress)
    judged = judge(data, fitted)
    chosen = np.flatnonzero(kept_samples(source, samples)).astype(np.int64)
    details = _details(ds, data, fitted, judged, name)
    details["measured"] = training_levels(found.uris("expression")[0], chosen, genes)
    _write(place, data, ds, fitted, details)
    sha256, nbytes = file_sha256(str(place)), place.stat().st_size
    return Bundled(str(place), sha256, nbytes, details, _notes(details))


# ---------------------------------------------------------------- the panel


def _panel(
    study: str, landmarks: str, ds: xr.Dataset, panel: str, size: int | None
) -> tuple[Index, str]:
    """Return the genes of a panel, and what it is called."""
    if size is not None:
        if panel != "mined":
            raise ConfigError("--size: expected no --panel beside it, which has its own size.")
        table = PanelMaker(study).order(Conditions(size)).table
        found = ds.indexes["gene"].get_indexer(pd.Index(table["gene"]))
        return found.astype(np.int64), f"greedy, {size} genes"
    if Path(panel).is_file():
        return _listed(ds, panel), Path(panel).name
    stored = {
        p.name: p for p in stored_panels(open_store(landmarks, LANDMARKS), ds.indexes["gene"])
    }
    if panel not in stored:
        shown = ", ".join(list(stored)[:8])
        raise ConfigError(
            f"--panel: expected a file, or a panel of {study} ({shown}), got {panel!r}"
            f"{hint(panel, stored)}."
        )
    return stored[panel].genes, panel


def _listed(ds: xr.Dataset, file: str) -> Index:
    """Return the genes of an order sheet or a list, all of which must be of the study."""
    names = read_gene_list(file)
    found = find_genes(names, **feature_names(ds))
    if unknown := [n for n, features in zip(names, found, strict=True) if not features]:
        raise SourceError(
            f"{Path(file).name}: expected genes of the study, got {unknown[:5]!r} among "
            f"{len(names)}. Correct or remove them."
        )
    chosen = np.array([features[0] for features in found], dtype=np.int64)
    if len(set(chosen.tolist())) < chosen.size:
        repeated = [n for n, g in zip(names, chosen, strict=True) if (chosen == g).sum() > 1]
        raise SourceError(
            f"{Path(file).name}: expected each gene once, got the same as {repeated[:5]!r}. "
            "Drop the repeats."
        )
    return chosen


# ---------------------------------------------------------------- what is written


_LEFT_OUT = ("landmark_mse", "explained", "factor", "error", "novelty_usual", "novelty_limit")
"""What a bundle takes of a `Calibration` as it is."""


def _write(
    place: Path, data: Training, ds: xr.Dataset, fitted: Fitted, details: dict[str, Any]
) -> None:
    mean, std = data.moments
    names, left_out = feature_names(ds), fitted.left_out
    landmarks, targets = data.landmarks, data.targets
    unit = std[targets]
    with TemporaryDirectory(prefix="dglzarr-bundle-", ignore_cleanup_errors=True) as parent:
        folder = Path(parent, FOLDER)
        asked = check_claim(
            str(folder),
            [BUNDLE],
            inputs={"normalized": data.source, "samples": data.samples},
            parameters={"panel": details["panel"]},
        )
        claim = take_claim(asked)
        coords = {
            f"{dim}{end}": text_array([names[key][i] for i in genes])
            for dim, genes in (("landmark", landmarks), ("gene", targets))
            for end, key in (("", "genes"), ("_symbol", "symbols"), ("_id", "gene_ids"))
        }
        coords |= {"other": coords["landmark"], "scale": text_array(PANEL_SCALES)}
        coords["quantile"] = np.arange(landmarks.size, dtype=np.int32)
        create_store(claim, coords)
        arrays: dict[str, NDArray[Any]] = {
            "landmark_mean": mean[landmarks],
            "landmark_std": std[landmarks],
            "landmark_low": fitted.low,
            "landmark_high": fitted.high,
            "correlation": fitted.correlation.astype(np.float32),
            "panel_reference": fitted.reference,
            "gene_mean": mean[targets],
            "gene_std": unit,
            "coefficient": fitted.coefficient,
            "intercept": fitted.intercept,
            "half_width": left_out.half_width * unit,
            "mean_half_width": left_out.mean_half_width * unit,
            **{name: getattr(left_out, name) for name in _LEFT_OUT},
        }
        finish(claim, arrays=arrays, details=details)
        load_bundle(folder)
        pack(folder, place)


def _details(
    ds: xr.Dataset, data: Training, fitted: Fitted, judged: list[Judged], name: str
) -> dict[str, Any]:
    kind = ds.attrs["parameters"].get("method", "")
    return {
        "panel": name,
        "n_landmarks": int(data.landmarks.size),
        "n_targets": int(data.targets.size),
        "n_constant": int(ds.sizes["gene"] - data.landmarks.size - data.targets.size),
        "normalization": kind,
        "platforms": sorted({str(p) for p in ds["platform"].values} - {""}),
        "alpha": fitted.alpha,
        "n_samples": fitted.n_samples,
        "n_groups": fitted.n_groups,
        "left_out": "series" if fitted.are_series else "samples",
        "error": dict(zip(PANEL_SCALES, map(float, fitted.left_out.error), strict=True)),
        "mean_error": fitted.left_out.mean_error,
        "judged": {one.scale: one.told() for one in judged},
    }


def _notes(details: dict[str, Any]) -> list[str]:
    """Return what should be known of a bundle."""
    notes = []
    n = details["n_groups"]
    if details["left_out"] == "samples":
        notes.append(
            "All training samples are of one series: intervals are calibrated by sample and are "
            "too narrow for another series. Add series."
        )
    elif n < MIN_GUARANTEED:
        notes.append(
            f"Intervals are calibrated on {n} series; under {MIN_GUARANTEED} nothing guarantees "
            "95 % for the next one."
        )
    best = min(details["error"], key=details["error"].get)
    usual = details["error"][PANEL_SCALES[0]]
    if best == "shift" and usual > 1.01 * details["error"]["shift"]:
        notes.append(
            f"Of values that one constant brings to the study's, --scale shift is better: error "
            f"{details['error']['shift']:.3f} against {usual:.3f} by quantiles."
        )
    if details["error"][PANEL_SCALES[0]] >= details["mean_error"]:
        notes.append("The panel predicts left-out series no better than the training mean does.")
    if not details["judged"]:
        notes.append("The study holds no test samples out: nothing but left-out series is told.")
    if details["n_constant"]:
        notes.append(f"{details['n_constant']} genes do not vary in training; none is predicted.")
    return notes
