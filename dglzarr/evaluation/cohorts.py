"""Cohorts: the samples kept of a split, and those that an evaluation is reported on, in z units.

Reads ``normalized.zarr``, ``samples.zarr`` and the raw stores of cohorts; writes nothing. A cohort
gives its values gene by gene, so that nobody holds more than a slice of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from dglzarr.kernels.centring import group_offsets, sum_groups
from dglzarr.kernels.moments import chunk_moments, finish_moments, standardize
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.kernels.scale import to_log2
from dglzarr.kernels.split import SPLITS
from dglzarr.sources.identifiers import match_genes
from dglzarr.storage.rows import Rows, read_array, read_arrays
from dglzarr.storage.schemas import RAW
from dglzarr.storage.store import open_store, read_attributes, store_input

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.sources.identifiers import GeneMatch

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]

CohortScale = Literal["train", "cohort"]

MIN_SHARE = 0.2
HELD_OUT = "test"


class Cohort(Protocol):
    """Samples that predictors are evaluated on."""

    @property
    def series(self) -> NDArray[np.generic]:
        """The study of each sample."""
        ...

    def columns(self, genes: Index) -> NDArray[np.float32]:
        """Return some of the study's genes in z units, (sample, gene), NaN where unknown."""
        ...


class HeldOut:
    """Samples of the study itself; a gene without spread in training has no z units: NaN."""

    def __init__(self, source: str, samples: str, chosen: Mask) -> None:
        self._rows, self._index = Rows(source), np.flatnonzero(chosen)
        self._mean, self._std = read_arrays(samples, "gene_mean", "gene_std")
        self.series = read_array(source, "series")[self._index].astype(object)

    def columns(self, genes: Index) -> NDArray[np.float32]:
        """Return some genes in z units, (sample, gene), NaN where unknown."""
        block = self._rows.take(self._index, genes)
        return _z(block, self._mean[genes], self._std[genes])


class External:
    """An external cohort, of another platform or study, whole in memory.

    Its genes are matched to the study's; those that it measures are mapped onto the frozen
    quantile reference by their percentiles.
    """

    def __init__(self, cohort: str, source: str, samples: str, scale: CohortScale) -> None:
        ids = tuple(store_input(uri)["store_id"] for uri in (cohort, source, samples))
        self._z = _external_z(cohort, source, samples, scale, ids)
        self.series = read_array(cohort, "series").astype(object)

    def columns(self, genes: Index) -> NDArray[np.float32]:
        """Return some genes in z units, (sample, gene), NaN where unknown."""
        return self._z[:, genes]


def kept_samples(
    source: str, samples: str, part: Literal["train", "validation", "test"] = "train"
) -> Mask:
    """Return which samples of a part of the split are no near-duplicates."""
    of_part = read_array(source, "split") == SPLITS.index(part)
    return np.asarray(of_part & read_array(samples, "keep"))


def measured_genes(cohort: str, source: str) -> Mask:
    """Return which genes of the study a cohort measures."""
    return _match(cohort, source).found


@lru_cache(maxsize=4)
def _external_z(
    cohort: str,
    source: str,
    samples: str,
    scale: CohortScale,
    ids: tuple[str, ...],  # noqa: ARG001  (make the cache see a replaced store)
) -> NDArray[np.float32]:
    table = open_store(cohort, RAW)
    details, rows = table.attrs["details"], Rows(cohort)[0 : table.sizes["sample"]]
    block, _ = to_log2(rows, details["scale"], pseudocount=details.get("pseudocount"))
    match = _match(cohort, source)
    aligned = match.apply(block)
    if match.found.mean() < MIN_SHARE:
        return np.full_like(aligned, np.nan)
    ties = (read_attributes(source) or {})["parameters"].get("ties", "midrank")
    normalized = apply_quantile(aligned, read_array(source, "quantile_reference"), ties=ties)
    if by := (read_attributes(source) or {})["details"].get("center_by"):
        normalized = _centred(normalized, cohort, by, read_array(samples, "gene_mean"))
    if scale == "cohort":
        return _z(normalized, *finish_moments(chunk_moments(normalized)))
    return _z(normalized, *read_arrays(samples, "gene_mean", "gene_std"))


def _centred(
    normalized: NDArray[np.floating], cohort: str, by: str, mean: NDArray[np.float64]
) -> NDArray[np.floating]:
    """Return a cohort of which each series, or platform, is brought to the mean of the training."""
    keys = read_array(cohort, "platform" if by == "platform" else "series").astype(object)
    names, group = np.unique(keys, return_inverse=True)
    offsets = group_offsets(sum_groups(normalized, group), mean, names.size)
    return np.asarray(normalized + offsets[group], normalized.dtype)


def _z(
    block: NDArray[np.floating], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    z = standardize(block, mean, std)
    z[np.isnan(block) | ~(std > 0)] = np.nan
    return z


def _match(cohort: str, source: str) -> GeneMatch:
    """Return which genes of a cohort measure which genes of the study."""
    return match_genes(
        *([str(one) for one in found] for found in read_arrays(cohort, "gene", "gene_symbol")),
        *([str(one) for one in found] for found in read_arrays(source, "gene", "gene_symbol")),
        gene_ids=[str(i) for i in read_array(source, "gene_id")],
    )
