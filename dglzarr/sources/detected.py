"""In how many training samples of a group each gene is detected."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.kernels.detection import (
    DetectionCounts,
    count_detected,
    detection_rate,
    merge_detected,
)
from dglzarr.sources.grouped import GROUPED_BY, label_values
from dglzarr.sources.identifiers import is_told
from dglzarr.sources.joined import Parts, joined_rows
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import Region, open_labels, reduce_regions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.options import Run


_MOST_GROUPS = 1000
LEAST_DETECTED = {"counts": 10.0, "tpm": 1.0, "rpkm": 1.0, "fpkm": 1.0}
"""What is detected, by unit (Chen et al. 2016, doi 10.12688/f1000research.8987.2, of counts)."""
_LOW, _OFTEN = 0.1, 0.5


def detection_groups(labels: Mapping[str, NDArray[Any]], like: Sequence[str], by: str) -> list[str]:
    """Return the groups that detection is told of: all, then the label's values; as a study has."""
    if like:
        return [str(name) for name in read_array(like[0], "detection_group")]
    values = sorted(set(filter(is_told, label_values(labels, by, "ingest.detection"))))
    if len(values) > _MOST_GROUPS:
        raise ConfigError(
            f"ingest.detection: expected a label of at most {_MOST_GROUPS} values, got "
            f"{len(values)} of {by!r}. Choose another."
        )
    return ["all", *values]


def detect(
    target: str, parts: Parts, like: Sequence[str], by: str, run: Run
) -> dict[str, NDArray[Any]]:
    """Return the detection rates of the training samples; of a grown study its first segment's."""
    if like:
        return {name: read_array(like[0], name) for name in ("detection_rate", "n_detection")}
    groups = {str(name): n for n, name in enumerate(read_array(target, "detection_group"))}
    labels = {name: read_array(target, name) for name in GROUPED_BY}
    cells = label_values(labels, by, "ingest.detection")
    group = np.array([groups[c] if is_told(c) else 0 for c in cells], np.int64)
    least = np.concatenate([_least(raw, parts) for raw, _ in parts.raws])
    least[read_array(target, "split") != 0] = np.nan
    partials = reduce_regions(
        _count_region,
        target,
        parts=parts,
        group=group,
        least=least,
        n_groups=len(groups),
        what="counting what is detected",
        on_progress=run.on_progress,
    )
    told = ~np.isnan(least)
    n_told = np.bincount(group[told], minlength=len(groups))
    n_told[0] = told.sum()
    return {
        "detection_rate": detection_rate(reduce(merge_detected, partials)),
        "n_detection": n_told.astype(np.int32),
    }


def _least(raw: str, parts: Parts) -> NDArray[np.float32]:
    """Return the least log2 value of a detected gene, for each sample of a source; NaN for none."""
    table = open_labels(raw)
    unit = str(table.attrs["details"].get("unit"))
    least = (
        LEAST_DETECTED["tpm"]
        if parts.counts and unit == "counts"
        else LEAST_DETECTED.get(unit, np.nan)
    )
    return np.full(table.sizes["sample"], np.log2(least + 1), np.float32)


def _count_region(
    uri: str,
    region: Region,
    *,
    parts: Parts,
    group: NDArray[np.int64],
    least: NDArray[np.float32],
    n_groups: int,
) -> DetectionCounts:
    del uri
    rows = region.rows
    return count_detected(joined_rows(region, parts), least[rows], group[rows], n_groups)


def detection_notes(rate: NDArray[np.float32], by: str) -> list[str]:
    """Return how many genes are hardly ever detected, in words."""
    if np.isnan(rate).all():
        return [f"ingest.detection {by!r}: no source is of a unit that tells what is detected"]
    best = np.where(np.isnan(rate), -1, rate).max(axis=0)
    n_low, n_often = int(((best >= 0) & (best < _LOW)).sum()), int((best >= _OFTEN).sum())
    told = (
        f"ingest.detection {by!r}: {n_low} of {best.size} genes are detected in under {_LOW:.0%} "
        f"of the training samples of every group, {n_often} in at least {_OFTEN:.0%} of one"
    )
    return [told]
