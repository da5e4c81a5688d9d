"""What a panel tells of the difference of two groups of held-out samples, within a study.

Reads ``normalized.zarr``, ``samples.zarr`` and ``landmarks.zarr``; writes nothing. Genes that no
panel measures are predicted by ridge regression, fitted on training samples alone, and set beside
their measured values: fold changes, genes called different, scores of gene sets, clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from dglzarr.errors import ConfigError, hint
from dglzarr.evaluation.cohorts import HeldOut
from dglzarr.evaluation.panels import BASELINE, RANDOM, Panel, feature_names, stored_panels
from dglzarr.evaluation.predictors import TEST, fit_predictors, training_of
from dglzarr.kernels.grouping import group_samples
from dglzarr.kernels.moderated import MIN_SAMPLES, Moderated, moderated_t
from dglzarr.sources.identifiers import find_genes
from dglzarr.sources.terms import read_gmt
from dglzarr.stages.evaluate import EvaluateOptions, common_targets, fit_and_test
from dglzarr.storage.schemas import LANDMARKS, NORMALIZED, SAMPLES
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study
from dglzarr.storage.together import check_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.options import Progress

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]

FDR = 0.05
MIN_GENES = 5
"""Of a gene set among the targets, for a score."""

MEASURES = ("r", "recovered", "sign", "r_sets", "ari")


@dataclass(frozen=True)
class Asked:
    """Two groups of samples: values of a label; only of some series, where they are named.

    ``gene_sets`` is a GMT file, or "".
    """

    label: str
    case: str
    control: str
    series: Sequence[str] = ()
    gene_sets: str = ""


@dataclass(frozen=True, eq=False)
class Contrasted:
    """How well panels tell contrasts.

    Attributes
    ----------
    table
        A row a series and panel, random panels as one: ``r`` of the log2 fold changes of targets
        with the measured ones; ``recovered``, the share of the genes called different that are
        among as many of the largest moderated t of the prediction, and ``sign``, the share of
        them that change the same way; ``r_sets`` of the changes of gene set scores; ``ari`` of
        two clusters with the groups. NaN where there is nothing to tell.
    n_targets, n_sets
        Genes that no panel measures and that vary, and gene sets with enough of them.
    n_panels
        Random panels that their rows are the mean of.
    """

    table: pd.DataFrame
    n_targets: int
    n_sets: int
    n_panels: int


@dataclass(frozen=True, eq=False)
class _Groups:
    """Two groups of a series, as places among the held-out samples, and what is measured."""

    series: str
    case: Index
    control: Index
    truth: Moderated
    called: Mask


def contrast(root: str, asked: Asked, *, on_progress: Progress | None = None) -> Contrasted:
    """Return how well each panel of a study tells two groups of its held-out samples apart.

    Parameters
    ----------
    root
        Folder of a study with panels.
    asked
        The groups.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When there is no such label or value, or no held-out series has two samples of each group.
    StoreError, SourceError
        When a store or the file of gene sets cannot be used.

    Notes
    -----
    Values are those of the normalized store, log2. Memory: all targets of the held-out samples
    twice, and landmarks x targets in float64.
    """
    study = open_study(root)
    source, samples = study.uris("normalized")[0], study.uris("samples")[0]
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    check_together(root, (source, samples, study.uri("landmarks")))
    panels = stored_panels(open_store(study.uri("landmarks"), LANDMARKS), ds.indexes["gene"])
    nothing = Panel(BASELINE, "baseline", BASELINE, np.empty(0, dtype=np.int64))
    fold = fit_and_test(ds["split"].values, mask["keep"].values)
    places = list(_places(ds, fold == TEST, asked))
    held = HeldOut(source, samples, fold == TEST)
    targets = np.flatnonzero(common_targets(ds, [nothing, *panels], "gene"))
    targets = targets[mask["gene_std"].values[targets] > 0]
    z = held.columns(targets)
    used = np.concatenate([index for _, *both in places for index in both])
    is_known = ~np.isnan(z[used]).any(axis=0)
    z, targets = z[:, is_known], targets[is_known]
    if not targets.size:
        raise ConfigError(
            "contrast: expected genes that no panel measures and every sample of the groups has, "
            "got none. Name a series that has them, with --series."
        )
    std = mask["gene_std"].values[targets].astype(np.float32)
    sets = _sets(asked.gene_sets, ds, targets)
    groups = [_measured(name, z, std, case, control) for name, case, control in places]
    training = training_of(source, samples, fold)
    rows = [_row("all targets", "measured", of, z, z, std, sets) for of in groups]
    for done, panel in enumerate([*panels, nothing]):
        if on_progress is not None:
            on_progress("predicting contrasts", done, len(panels))
        fitted = fit_predictors(
            ["ridge"], panel.genes, targets, training, alphas=EvaluateOptions().alphas, neighbors=()
        )
        x = np.nan_to_num(held.columns(panel.genes))
        predicted = fitted["ridge"].predict(x, slice(0, targets.size))
        name = panel.family if panel.kind in (RANDOM, BASELINE) else panel.name
        rows += [_row(name, panel.kind, of, z, predicted, std, sets) for of in groups]
    table = pd.DataFrame(rows)
    n_random = sum(panel.kind == RANDOM for panel in panels)
    return Contrasted(_together(table), targets.size, len(sets), n_random)


def _places(ds: xr.Dataset, is_held: Mask, asked: Asked) -> Iterator[tuple[str, Index, Index]]:
    """Yield each series with both groups, and where they stand among the held-out samples."""
    labels = [str(name) for name in ds["label"].values]
    if asked.label not in labels:
        raise ConfigError(
            f"--label: expected a label of the samples, one of {labels[:12]!r}, got "
            f"{asked.label!r}{hint(asked.label, labels)}."
        )
    if asked.case == asked.control:
        raise ConfigError(f"--case, --control: expected two values, got {asked.case!r} twice.")
    value = ds["sample_label"].values[is_held, labels.index(asked.label)].astype(object)
    series = ds["series"].values[is_held].astype(object)
    if unknown := sorted({*asked.series} - {*series.tolist()}):
        raise ConfigError(
            f"--series: expected series of held-out samples, got {unknown!r}"
            f"{hint(unknown[0], series.tolist())}."
        )
    found = False
    for name in asked.series or dict.fromkeys(series.tolist()):
        case, control = (
            np.flatnonzero((series == name) & (value == group))
            for group in (asked.case, asked.control)
        )
        if min(case.size, control.size) >= MIN_SAMPLES:
            found = True
            yield name, case, control
    if not found:
        known: dict[str, set[str]] = {}
        for name, group in zip(series.tolist(), value.tolist(), strict=True):
            if group:
                known.setdefault(name, set()).add(group)
        shown = "; ".join(f"{name}: {', '.join(sorted(of)[:6])}" for name, of in known.items())
        raise ConfigError(
            f"--case, --control: expected {MIN_SAMPLES} held-out samples or more of both "
            f"{asked.case!r} and {asked.control!r} in one series, got none. Held-out values of "
            f"{asked.label!r} are {shown or 'none'}."
        )


def _measured(
    name: str, z: Matrix, std: NDArray[np.float32], case: Index, control: Index
) -> _Groups:
    truth = moderated_t(z[case] * std, z[control] * std)
    return _Groups(name, case, control, truth, _called(truth))


def _called(found: Moderated) -> Mask:
    """Return which genes are called different."""
    called = np.zeros(found.t.size, dtype=bool)
    known = ~np.isnan(found.pvalue)
    called[known] = false_discovery_control(found.pvalue[known]) < FDR
    return called


def _sets(path: str, ds: xr.Dataset, targets: Index) -> list[Index]:
    """Return the targets of each gene set that has enough of them, as places among the targets."""
    if not path:
        return []
    place = {int(gene): i for i, gene in enumerate(targets)}
    names = feature_names(ds)
    found = []
    for genes in read_gmt(path).genes:
        features = {i for of in find_genes(sorted(genes), **names) for i in of}
        own = sorted(place[i] for i in features if i in place)
        if len(own) >= MIN_GENES:
            found.append(np.array(own, dtype=np.int64))
    return found


def _row(
    family: str,
    kind: str,
    of: _Groups,
    z: Matrix,
    predicted: Matrix,
    std: NDArray[np.float32],
    sets: Sequence[Index],
) -> dict[str, Any]:
    """Return what a prediction of all held-out samples tells of two groups."""
    found = moderated_t(predicted[of.case] * std, predicted[of.control] * std)
    n_called = int(of.called.sum())
    size = np.nan_to_num(np.abs(found.t))
    recovered = sign = np.nan
    if n_called:
        is_constant = not size.any()  # nothing is predicted to differ: chance
        best = np.argsort(-size, kind="stable")[:n_called]
        recovered = n_called / of.called.size if is_constant else of.called[best].mean()
        same = np.sign(found.change) == np.sign(of.truth.change)
        sign = np.nan if is_constant else same[of.called].mean()
    index = np.concatenate([of.case, of.control])
    group = np.repeat([0, 1], [of.case.size, of.control.size])
    is_flat = not np.ptp(predicted[index], axis=0).any()
    return {
        "series": of.series,
        "n_case": of.case.size,
        "n_control": of.control.size,
        "n_called": n_called,
        "panel": family,
        "kind": kind,
        "r": _r(of.truth.change, found.change),
        "recovered": recovered,
        "sign": sign,
        "r_sets": _r(_changes(z, of, sets), _changes(predicted, of, sets)),
        "ari": np.nan if is_flat else group_samples(predicted[index], group).ari,
    }


def _changes(z: Matrix, of: _Groups, sets: Sequence[Index]) -> NDArray[np.float64]:
    """Return by how much the mean z of each gene set differs between the groups, (set,)."""
    change = z[of.case].mean(axis=0, dtype=np.float64) - z[of.control].mean(
        axis=0, dtype=np.float64
    )
    return np.array([change[own].mean() for own in sets])


def _r(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the correlation of changes; NaN where one of them does not vary."""
    if one.size < 3 or not (np.ptp(one) and np.ptp(other)):
        return np.nan
    return float(np.corrcoef(one, other)[0, 1])


def _together(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a series and panel: of random panels the mean, with the lowest and highest."""
    by = ["series", "n_case", "n_control", "n_called", "panel", "kind"]
    grouped = table.groupby(by, sort=False)[list(MEASURES)]
    found = grouped.mean()
    for bound, values in (("low", grouped.min()), ("high", grouped.max())):
        found = found.join(values.add_suffix(f"_{bound}"))
    order = list(dict.fromkeys(table["series"]))
    found = found.reset_index()
    return found.sort_values("series", key=lambda s: s.map(order.index), kind="stable")
