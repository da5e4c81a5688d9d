"""Owns the split of samples: a pure function of a label and a seed, so that a study can grow."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitRule:
    """How samples are split: as a study of its own, as a fold of one, or as added to one.

    ``instead`` is what an error offers to split by.
    """

    split_by: str
    test: float
    validation: float
    seed: int
    fold: tuple[int, int] | None = None
    is_added: bool = False
    instead: str = "sample"

    def assign(self, labels: Sequence[str]) -> NDArray[np.int8]:
        """Return 0 (train), 1 (validation) or 2 (test) for each label.

        Raises
        ------
        ConfigError
            When train or test would be empty, or there are more folds than labels.
        """
        validation, seed = self.validation, self.seed
        if self.fold is not None:
            k, n_folds = self.fold
            return fold_split(labels, fold=k, n_folds=n_folds, validation=validation, seed=seed)
        if self.is_added:
            return hashed_split(labels, test=self.test, validation=validation, seed=seed)
        return assign_split(
            labels,
            self.split_by,
            test=self.test,
            validation=validation,
            seed=seed,
            instead=self.instead,
        )


def assign_split(
    labels: Sequence[str],
    split_by: str,
    *,
    test: float,
    validation: float,
    seed: int,
    instead: str = "sample",
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
                f", or ingest.split_by = {instead!r}." if split_by != "sample" else "."
            )
            break
    else:
        remedy = (
            f"Add sources of another series, or set ingest.split_by = {instead!r}."
            if split_by != "sample"
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


def split_units(keys: Sequence[Sequence[str]]) -> list[str]:
    """Return what each sample is split by: a key that it shares with all it is bound to.

    Samples with a key in common are bound together, and so are those that a chain of such binds.
    A unit is called by the first of its keys in the order of text.

    Parameters
    ----------
    keys
        The keys of each sample, such as the series that it belongs to.

    Examples
    --------
    >>> split_units([["GSE1"], ["GSE2", "GSE1"], ["GSE2"], ["GSE3"]])
    ['GSE1', 'GSE1', 'GSE1', 'GSE3']
    """
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for own in keys:
        for key in own[1:]:
            first, second = sorted((find(own[0]), find(key)))
            root[second] = first
    return [find(own[0]) for own in keys]


def fold_split(
    labels: Sequence[str], *, fold: int, n_folds: int, validation: float, seed: int
) -> NDArray[np.int8]:
    """Return 0 (train), 1 (validation) or 2 (test) for each label in one fold of several.

    Every label is tested in exactly one fold, with all its samples; folds are of nearly equal
    size. Of the others about a share ``validation``, whole labels, is put aside for validation.

    Raises
    ------
    ConfigError
        When there are more folds than labels, or fewer than two.

    Examples
    --------
    >>> fold_split(["a", "b", "b", "c"], fold=0, n_folds=3, validation=0.0, seed=0)
    array([0, 2, 2, 0], dtype=int8)
    """
    counts = Counter(labels)
    if not 2 <= n_folds <= len(counts):
        raise ConfigError(
            f"folds: expected 2 to {len(counts)}, the number of series (or samples) that are kept "
            f"together, got {n_folds}. Choose fewer folds."
        )
    pile = _deal(counts, n_folds, seed)
    rest = {label: n for label, n in counts.items() if pile[label] != fold}
    aside: set[str] = set()
    is_most = validation > 0 and round(1 / validation) < 2  # all piles but one
    share = 1 - validation if is_most else validation
    n_piles = min(len(rest), round(1 / share)) if share else 0
    if n_piles > 1:
        dealt = _deal(rest, n_piles, seed)
        aside = {label for label, at in dealt.items() if (at == n_piles - 1) != is_most}
    return np.array(
        [2 if pile[label] == fold else 1 if label in aside else 0 for label in labels], np.int8
    )


def inner_folds(labels: Sequence[str], *, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the inner fold of each sample, by the label that keeps samples together, (sample,).

    Folds are of nearly equal size, and as many as there are labels at most. Of a single label,
    which no fold can leave out, the samples are dealt one by one.

    Examples
    --------
    >>> inner_folds(["a", "b", "b", "c"], n_folds=2, seed=0)
    array([1, 0, 0, 1])
    >>> inner_folds(["a", "a", "a"], n_folds=2, seed=0)
    array([0, 1, 0])
    """
    counts = Counter(labels)
    if len(counts) < 2:
        return np.arange(len(labels)) % n_folds
    pile = _deal(counts, min(n_folds, len(counts)), seed)
    return np.array([pile[label] for label in labels], dtype=np.int64)


def _deal(counts: Mapping[str, int], n_piles: int, seed: int) -> dict[str, int]:
    """Return a pile for each label, the largest labels first, each to the smallest pile."""

    def key(label: str) -> tuple[int, str]:
        return -counts[label], hashlib.sha256(f"{seed}:{label}".encode()).hexdigest()

    size, pile = [0] * n_piles, {}
    for label in sorted(counts, key=key):
        pile[label] = size.index(min(size))
        size[pile[label]] += counts[label]
    return pile


def hold_back(series: NDArray[np.generic], share: float, *, seed: int) -> NDArray[np.bool_]:
    """Return which samples (sample,) to hold back: about a share of them, in whole series.

    Series come in an order that a seed fixes and are taken until the share is reached, none that
    would make it over half. Samples of a single series are drawn one by one.

    Examples
    --------
    >>> hold_back(np.array(["a", "b", "b", "b"], dtype=object), 0.1, seed=0).tolist()
    [True, False, False, False]
    >>> int(hold_back(np.array(["a"] * 20, dtype=object), 0.1, seed=0).sum())
    2
    """
    n, counts = len(series), Counter(series.tolist())
    wanted = max(1, round(share * n)) if share > 0 and n > 1 else 0
    if len(counts) == 1:
        chosen = np.random.default_rng(seed).permutation(n)[:wanted]
        return np.asarray(np.isin(np.arange(n), chosen))
    held: list[str] = []
    for label in sorted(counts, key=lambda one: hashlib.sha256(f"{seed}:{one}".encode()).digest()):
        n_held = sum(counts[one] for one in held)
        if n_held < wanted and n_held + counts[label] <= n / 2:
            held.append(label)
    return np.array([label in held for label in series.tolist()], dtype=bool)
