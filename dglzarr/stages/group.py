"""Group: whether samples of known groups stay together in the model's latent units.

Reads ``normalized.zarr``, ``samples.zarr``, ``landmarks.zarr`` and the model; writes
``groups.zarr``. The latent units stand beside as many principal components, all genes, and the
genes of every panel, random ones too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from dglzarr.errors import ConfigError, hint
from dglzarr.evaluation.cohorts import MIN_SHARE, External, kept_samples, measured_genes
from dglzarr.evaluation.panels import stored_panels
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.grouping import Grouping, Linkage, group_samples, principal_components
from dglzarr.kernels.moments import standardize
from dglzarr.models.files import encoder_layers, load_model
from dglzarr.storage.declare import text_array
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import GROUPS, LANDMARKS, NORMALIZED, RAW
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.models.files import SavedModel
    from dglzarr.storage.claims import Claim

MAX_SAMPLES = 4096
N_FITTED = 2048


class GroupOptions(Options):
    """Samples of known groups that the latent units should keep apart. No label: no test."""

    section = "group"

    label: str = choice("", "sample label that tells the groups; samples without it are left out")
    series: Annotated[tuple[str, ...], Field(strict=False)] = choice(
        (), "only samples of these studies; none: of all"
    )
    linkage: Linkage = choice("ward", "how the distance of two clusters is taken")


class Labelled(NamedTuple):
    """Samples of known groups: which rows of which stores, and what is known of each sample."""

    rows: list[NDArray[np.int64]]
    sample: NDArray[Any]
    series: NDArray[Any]
    group: NDArray[Any]


@stage(
    GROUPS,
    reads=("source", "samples", "landmarks", "model", "cohorts"),
    constants={"n_fitted": N_FITTED},
)
def group(  # noqa: PLR0913  (8 are given by a caller)
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    samples: str,
    landmarks: str,
    model: str,
    cohorts: Sequence[str] = (),
    options: GroupOptions = GroupOptions(),
    run: Run = Run(),  # noqa: ARG001  (the stage acts on it)
) -> StoreSummary:
    """Write how labelled samples cluster in each representation, and summarize it.

    Parameters
    ----------
    source, samples, landmarks
        URIs of the normalized, samples and landmarks stores.
    target
        URI of the groups store.
    model
        Folder of the model.
    cohorts
        Raw stores of cohorts, whose samples may be labelled too.
    options, run
        Its choices, and how it is run.

    Raises
    ------
    ConfigError
        When no sample has the label, fewer than 3 or too many do, one has it twice, or is of a
        cohort that measures under a fifth of the study's genes.
    StoreError, SchemaError
        When an input cannot be used, or the model is of other genes.

    Notes
    -----
    The components are those of at most 2,048 kept training samples, evenly spaced. Missing values
    stand at the training mean.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5: Figure 2B.
    """
    ds = open_store(source, NORMALIZED)
    saved = load_model(place_of(model), genes=[str(g) for g in ds["gene"].values])
    parts = [ds, *(open_store(uri, RAW) for uri in cohorts)]
    labelled = find_labelled(parts, options.label, options.series)
    _check_measured(source, cohorts, labelled.rows[1:])
    is_fitted = kept_samples(source, samples)
    z = np.concatenate(
        [
            _standardized(Rows(source), labelled.rows[0], saved),
            *(
                _external(uri, source, samples, index)
                for uri, index in zip(cohorts, labelled.rows[1:], strict=True)
            ),
        ]
    )  # (labelled sample, gene)
    fitted = _standardized(Rows(source), _spaced(is_fitted), saved)  # (fitted sample, gene)
    shown = _representations(z, fitted, saved)
    kinds = dict.fromkeys(shown, "")
    for panel in stored_panels(open_store(landmarks, LANDMARKS), ds.indexes["gene"]):
        shown[f"panel {panel.name}"] = z[:, panel.genes]
        kinds[f"panel {panel.name}"] = panel.kind
    names, groups = np.unique(labelled.group.astype(str), return_inverse=True)
    found = {name: group_samples(v, groups, method=options.linkage) for name, v in shown.items()}
    is_trained_on = np.zeros(len(z), dtype=bool)
    is_trained_on[: len(labelled.rows[0])] = is_fitted[labelled.rows[0]]
    arrays = _labels(labelled, is_trained_on, kinds) | _arrays(found)
    details = {
        "n_samples": len(z),
        "groups": dict(zip(names.tolist(), np.bincount(groups).tolist(), strict=True)),
        "n_trained_on": int(is_trained_on.sum()),
        "n_components": int(shown["pca"].shape[1]),
    }
    return write_store(claim, arrays, details=details)


def find_labelled(parts: Sequence[xr.Dataset], label: str, series: Sequence[str]) -> Labelled:
    """Return the samples that have a label, of the series asked for.

    Raises
    ------
    ConfigError
        When there are fewer than 3, or more than a tree can be shown of.
    """
    known = sorted({str(name) for ds in parts for name in ds["label"].values})
    if label not in known:
        raise ConfigError(
            f"group.label: expected a label of the samples, one of {known[:12]!r}, got {label!r}"
            f"{hint(label, known)}. "
            "Give it, or a sample sheet that has it."
        )
    of = {str(name) for ds in parts for name in ds["series"].values}
    if unknown := [s for s in series if s not in of]:
        raise ConfigError(
            f"group.series: expected series of the study, got {unknown!r}{hint(unknown[0], of)}."
        )
    rows = [_rows(ds, label, series) for ds in parts]
    n = sum(map(len, rows))
    if not 3 <= n <= MAX_SAMPLES:
        raise ConfigError(
            f"group.label: expected 3 to {MAX_SAMPLES} samples with a label {label!r}, got "
            f"{n}. Choose another label or group.series."
        )
    columns = zip(
        *((ds["sample"].values, ds["series"].values, _values(ds, label)) for ds in parts),
        strict=True,
    )
    sample, study, value = (
        np.concatenate([v.astype(object)[r] for v, r in zip(values, rows, strict=True)])
        for values in columns
    )
    names, counts = np.unique(sample.astype(str), return_counts=True)
    if (counts > 1).any():
        raise ConfigError(
            f"group.series: expected each labelled sample once, got {str(names[counts > 1][0])!r} "
            "of two sources. Name the series of one of them."
        )
    return Labelled(rows, sample, study, value)


def _check_measured(source: str, cohorts: Sequence[str], rows: Sequence[NDArray[np.int64]]) -> None:
    """Refuse labelled samples of cohorts that measure too few of the study's genes."""
    for cohort in (uri for uri, index in zip(cohorts, rows, strict=True) if index.size):
        if (share := float(measured_genes(cohort, source).mean())) < MIN_SHARE:
            raise ConfigError(
                f"group.series: expected cohorts that measure {MIN_SHARE:.0%} of the genes, got "
                f"{share:.0%} of {raw_name(cohort)}. Name other series, or give "
                "ingest.annotation."
            )


def _values(ds: xr.Dataset, label: str) -> NDArray[Any]:
    """Return the value of a label for each sample, "" where there is none."""
    names = [str(name) for name in ds["label"].values]
    if label not in names:
        return np.full(ds.sizes["sample"], "", dtype=object)
    return np.asarray(ds["sample_label"].values[:, names.index(label)].astype(object))


def _rows(ds: xr.Dataset, label: str, series: Sequence[str]) -> NDArray[np.int64]:
    is_asked_for = np.isin(ds["series"].values.astype(object), list(series)) if series else True
    return np.flatnonzero((_values(ds, label) != "") & is_asked_for)


def _standardized(rows: Rows, index: NDArray[np.int64], saved: SavedModel) -> NDArray[np.float32]:
    """Return samples in z units, missing values at the training mean."""
    return standardize(rows.take(index), saved.gene_mean, saved.gene_std)


def _external(
    cohort: str, source: str, samples: str, index: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return samples of a cohort in the study's genes and z units, 0 where unmeasured."""
    n_genes = Rows(source).shape[1]
    if not index.size:
        return np.empty((0, n_genes), dtype=np.float32)
    z = External(cohort, source, samples, "train").columns(np.arange(n_genes))
    return np.nan_to_num(z[index])


def _spaced(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where evenly spaced ones of the chosen samples stand."""
    index = np.flatnonzero(chosen)
    return index[np.linspace(0, len(index) - 1, min(N_FITTED, len(index))).astype(np.int64)]


def _representations(
    z: NDArray[np.float32], fitted: NDArray[np.float32], saved: SavedModel
) -> dict[str, NDArray[Any]]:
    latent = forward(encoder_layers(saved), z)[-1][1]
    components = principal_components(fitted, z, latent.shape[1])
    return {"latent": latent, "pca": components, "all genes": z}


def _labels(
    labelled: Labelled, is_trained_on: NDArray[np.bool_], kinds: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    return {
        **{name: text_array(getattr(labelled, name)) for name in ("sample", "series", "group")},
        "is_trained_on": is_trained_on,
        "representation": text_array(list(kinds)),
        "kind": text_array(list(kinds.values())),
        "merge": np.arange(len(is_trained_on) - 1, dtype=np.int32),
        "node": text_array(["left", "right", "distance", "samples"]),
    }


def _arrays(found: Mapping[str, Grouping]) -> dict[str, NDArray[Any]]:
    names = ("tree", "cluster", "ari", "nmi", "silhouette", "reason")
    return {name: np.array([getattr(f, name) for f in found.values()]) for name in names}
