"""Owns the split of samples: a pure function of a label and a seed, so that a study can grow."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from dglzarr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SplitBy = Literal["series", "sample"]

SPLITS = ("train", "validation", "test")


def assign_split(
    labels: Sequence[str], split_by: SplitBy, *, test: float, validation: float, seed: int
) -> NDArray[np.int8]:
    """Return 0 (train), 1 (validation) or 2 (test) for each label, a pure function of both.

    A label's use depends on nothing but the label and the seed, so a study that grows keeps it.

    Raises
    ------
    ConfigError
        When train or test would be empty; it names what to change.

    Examples
    --------
    >>> assign_split(["GSE1", "GSE1", "GSE2"], "series", test=0.4, validation=0.1, seed=0)
    array([0, 0, 2], dtype=int8)
    """
    split = hashed_split(labels, test=test, validation=validation, seed=seed)
    if {0, 2} <= set(split.tolist()):
        return split
    for other in range(1000):
        if {0, 2} <= set(
            hashed_split(labels, test=test, validation=validation, seed=other).tolist()
        ):
            remedy = f"Set seed = {other}" + (
                ", or ingest.split_by = 'sample'." if split_by == "series" else "."
            )
            break
    else:
        remedy = (
            "Add sources of another series, or set ingest.split_by = 'sample'."
            if split_by == "series"
            else "Add samples."
        )
    counts = Counter(SPLITS[i] for i in split.tolist())
    shown = ", ".join(f"{counts[name]} {name}" for name in SPLITS)
    raise ConfigError(
        f"ingest.split_by {split_by!r}: expected train and test samples, got {shown} samples "
        f"in {len(set(labels))} {split_by} labels. {remedy}"
    )


def hashed_split(
    labels: Sequence[str], *, test: float, validation: float, seed: int
) -> NDArray[np.int8]:
    """Return 0 (train), 1 (validation) or 2 (test) for each label, whatever the shares become."""

    def place(label: str) -> int:
        digest = hashlib.sha256(f"{seed}:{label}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        return 2 if share < test else 1 if share < test + validation else 0

    known: Mapping[str, int] = {label: place(label) for label in set(labels)}
    return np.array([known[label] for label in labels], dtype=np.int8)
