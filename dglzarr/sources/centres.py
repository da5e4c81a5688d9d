"""What brings batches to one mean: the offset of each group of samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.kernels.centring import GroupSums, grand_mean, group_offsets, merge_groups, sum_groups
from dglzarr.sources.grouped import grouping
from dglzarr.sources.joined import Parts, joined_rows
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import Region, reduce_regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.options import Run


_N_SHOWN = 5
_FEW = 3
_LARGEST_CENTRES = 1 << 25


@dataclass(frozen=True)
class Centres:
    """The group of each sample, and what brings each group to one mean ``(group, gene)``."""

    group: NDArray[np.int64]
    offset: NDArray[np.float32]


def find_centres(
    target: str, parts: Parts, like: Sequence[str], by: str, run: Run
) -> tuple[Centres, dict[str, Any]]:
    """Return what centres the groups of a label, and what a user should know of it.

    The mean of a group is that of its training samples; a group without any, such as a series
    that is held out or added later, has its own. All are brought to the mean of the training
    samples of the study, of a grown one those of its first segment.

    Raises
    ------
    ConfigError
        When there is no such label, or it has too many groups.
    """
    keys = grouping(target, by, "ingest.center_by")
    names, group = np.unique(np.array(keys, dtype=object), return_inverse=True)
    n_genes = read_array(target, "gene").size
    if names.size * n_genes > _LARGEST_CENTRES:
        raise ConfigError(
            f"ingest.center_by: expected at most {_LARGEST_CENTRES // n_genes} groups of "
            f"{n_genes} genes, got {names.size} of {by!r}. Choose a label of fewer."
        )
    is_train = read_array(target, "split") == 0
    has_train = np.unique(group[is_train])
    used = is_train | ~np.isin(group, has_train)
    sums = reduce(
        merge_groups,
        reduce_regions(
            _sum_region,
            target,
            parts=parts,
            group=group,
            used=used,
            what="finding centres",
            on_progress=run.on_progress,
        ),
    )
    grand = grand_mean(sums, has_train) if not like else _study_mean(like[0], run)
    sizes = np.bincount(group[used], minlength=names.size)
    details = {
        "n_centred": int(names.size),
        "n_centred_by_own": int(names.size - has_train.size),
        "notes": _centring_notes([str(name) for name in names[sizes < _FEW]], by),
    }
    return Centres(group.astype(np.int64), group_offsets(sums, grand, names.size)), details


def _centring_notes(small: Sequence[str], by: str) -> list[str]:
    """Return a note on groups of so few samples that little is left of them."""
    if not small:
        return []
    shown = ", ".join(small[:_N_SHOWN]) + ", ..." * (len(small) > _N_SHOWN)
    told = (
        f"ingest.center_by {by!r}: {len(small)} of its groups have under {_FEW} samples ({shown}): "
        "little is left of these once they are centred"
    )
    return [told]


def _sum_region(
    uri: str, region: Region, *, parts: Parts, group: NDArray[np.int64], used: NDArray[np.bool_]
) -> GroupSums:
    del uri
    rows = used[region.rows]
    return sum_groups(joined_rows(region, parts)[rows], group[region.rows][rows])


def _study_mean(expression: str, run: Run) -> NDArray[np.float64]:
    """Return the mean of the training samples of a study that was joined before."""
    partials = reduce_regions(
        _sum_training, expression, what="reading the mean", on_progress=run.on_progress
    )
    return grand_mean(reduce(merge_groups, partials), [0])


def _sum_training(uri: str, region: Region) -> GroupSums:
    split, rows = read_array(uri, "split"), Rows(uri)
    found = [
        sum_groups(rows[window], np.minimum(split[window], 1).astype(np.int64))
        for window in region.windows()
    ]
    return reduce(merge_groups, found)
