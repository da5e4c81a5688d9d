"""Score: the contributions of every gene, averaged over kept training samples into one score.

Reads ``contributions.zarr``, ``normalized.zarr`` and ``samples.zarr``; writes ``scores.zarr``, for
groups of samples too where they are asked for. Sums of all regions are merged in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError, hint
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import CONTRIBUTIONS, NORMALIZED, SCORES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import Region, StoreSummary, open_labels, reduce_regions, write_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim

_COLUMNS = ("series", "platform", "source")


class ScoreOptions(Options):
    """What is scored beside all samples together."""

    section = "score"

    group_by: str | None = choice(
        None, "also score each series, platform, source or value of this sample label"
    )


@stage(SCORES)  # the contributions' own inputs are the normalized store and the samples
def score(
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    normalized: str,
    samples: str,
    options: ScoreOptions = ScoreOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write the score of every gene, and summarize the scores.

    Parameters
    ----------
    source, target
        URIs of the contributions store and of the scores store.
    normalized, samples
        URIs of the normalized store and of the samples store that were explained.
    options, run
        Its choices, and how it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used.
    ConfigError
        When there is no such label to group by.

    Notes
    -----
    A missing contribution adds nothing to a gene's score.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    check_group_by([open_labels(normalized, NORMALIZED)], options.group_by)
    parts, genes = open_labels(source, CONTRIBUTIONS), open_labels(normalized, NORMALIZED)
    n_scored = int(parts["n_scored"].sum())
    latent_total = np.zeros((parts.sizes["latent"], parts.sizes["gene"]))
    gene_total = np.zeros(parts.sizes["gene"])
    for region in range(parts.sizes["region"]):
        latent_total += parts["latent_total"][region].values
        gene_total += parts["gene_total"][region].values
    arrays = {
        "score": np.abs(gene_total / n_scored),
        "latent_score": latent_total / n_scored,
    }
    names = ("gene", "gene_id", "gene_symbol")
    labels = {**{n: genes[n].values for n in names}, "latent": parts["latent"].values}
    if options.group_by is not None:
        group = _group_of(normalized, options.group_by)
        groups, more = _group_scores(source, group, kept_samples(normalized, samples), run)
        labels["group"] = groups
        arrays |= more
    worst = parts.attrs["details"]["max_delta_error"]
    details = {"n_scored": n_scored, "max_delta_error": worst}
    return write_store(claim, labels | arrays, details=details)


def check_group_by(parts: Sequence[xr.Dataset], group_by: str | None) -> None:
    """Refuse a label to group by that the samples do not have.

    Parameters
    ----------
    parts
        Labels of the samples, of one store or of several that are joined.
    group_by
        The label; None is none.

    Raises
    ------
    ConfigError
        Naming the labels there are.
    """
    if group_by is None or group_by in _COLUMNS:
        return
    named = sorted({str(name) for ds in parts for name in ds["label"].values})
    if group_by not in named:
        known = [*_COLUMNS, *named]
        raise ConfigError(
            f"score.group_by: expected one of {', '.join(known)}, got {group_by!r}"
            f"{hint(group_by, known)}."
        )


def _group_of(normalized: str, group_by: str) -> NDArray[Any]:
    """Return the value of a label of every sample, '' where it is absent, (sample,)."""
    ds = open_labels(normalized, NORMALIZED)
    named = [str(name) for name in ds["label"].values]
    if group_by in _COLUMNS:
        return np.asarray(ds[group_by].values)
    return np.asarray(ds["sample_label"].values[:, named.index(group_by)])


def _group_scores(
    contributions: str, group: NDArray[Any], averaged: NDArray[np.bool_], run: Run
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the groups of kept training samples, and their scores and sizes."""
    is_grouped = averaged & (group != "")
    groups, inverse = np.unique(np.array([str(g) for g in group[is_grouped]]), return_inverse=True)
    code = np.full(len(group), -1)
    code[is_grouped] = inverse
    found = reduce_regions(
        _sum_groups, contributions, what="groups", on_progress=run.on_progress, code=code
    )
    total = np.zeros((len(groups), read_array(contributions, "gene").size))
    for sums in found:
        for index, part in sums.items():
            total[index] += part
    n_grouped = np.bincount(code[is_grouped], minlength=len(groups))
    return (
        text_array(groups),
        {"group_score": np.abs(total / n_grouped[:, np.newaxis]), "n_grouped": n_grouped},
    )


def _sum_groups(
    uri: str, region: Region, *, code: NDArray[np.int64]
) -> dict[int, NDArray[np.float64]]:
    """Return the sum of the contributions of the samples of each group in a region, (gene,)."""
    rows = Rows(uri, "contribution")
    total: dict[int, NDArray[np.float64]] = {}
    for window in region.windows():
        codes, block = code[window], np.nan_to_num(rows[window], copy=False)
        for index in np.unique(codes[codes >= 0]).tolist():
            part = block[codes == index].sum(axis=0, dtype=np.float64)
            total[index] = part + total.get(index, 0.0)
    return total
