"""Owns what a panel may cost and must hold: so many genes of each set, kept room for."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(eq=False)
class Limits:
    """What one panel may cost, and what it must hold.

    ``size`` is that of the whole panel; ``cost (gene,)`` is over 0, ``budget`` what all its genes
    may cost together. ``member (set, gene)`` numbers what a set holds from 1, features of one gene
    alike, and is 0 elsewhere; ``least`` numbers of each set are on the panel at least. ``kept`` are
    genes that see to that, as `cover` finds them: they have room on the panel until genes that are
    chosen do what they are for. ``needed`` are genes that were chosen where no other room was left.
    """

    size: int
    cost: Float64
    budget: float
    member: NDArray[np.uint16]
    least: int
    kept: Index = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    needed: list[int] = field(default_factory=list)
    _n_seen: int = 0

    def lacks(self, panel: Index, sets: Index | None = None) -> Index:
        """Return how many more of each set, or of some sets, a panel must hold, (set,)."""
        some = np.arange(len(self.member)) if sets is None else sets
        held = np.sort(self.member[np.ix_(some, panel)], axis=1)
        is_new = np.diff(held, axis=1, prepend=np.uint16(0)) > 0
        return np.asarray(np.maximum(self.least - is_new.sum(axis=1), 0), dtype=np.int64)

    def choose(self, gain: Float64, is_open: Mask, panel: Index) -> int:
        """Return the gene to add to a panel: that of most gain per cost; -1 where none can be.

        Where the genes that are kept room for would no longer fit beside it, it is one of them or
        does what one of them is for. The panel only grows from call to call.
        """
        self.prune(panel)
        left = self.budget - self.cost[panel].sum() - self.cost[self.kept].sum()
        able = is_open & (self.cost <= left) & (panel.size + self.kept.size < self.size)
        is_roomy = able.copy()
        for place in range(self.kept.size if not able[is_open].all() else 0):
            gene, others = self.kept[place], np.delete(self.kept, place)
            does = self._does(gene, np.concatenate([panel, others]))
            able |= is_open & does & (self.cost <= left + self.cost[gene])
        if not able.any():
            return -1
        best = int(np.where(able, gain / self.cost, -np.inf).argmax())
        if not is_roomy[best]:
            self.needed.append(best)
        return best

    def stand_ins(self, panel: Index) -> Mask:
        """Return which genes may take the place of each of a panel's, (panel, gene).

        They give each set what it would lack, and the panel remains within the budget.
        """
        left = self.budget - self.cost[panel].sum()
        able = np.empty((panel.size, self.cost.size), dtype=bool)
        for place, gene in enumerate(panel):
            does = self._does(gene, np.delete(panel, place))
            able[place] = does & (self.cost <= left + self.cost[gene])
        return able

    def prune(self, panel: Index) -> None:
        """Keep no more room for genes that a panel has, or that nothing lacks beside it."""
        kept = [gene for gene in self.kept.tolist() if gene not in panel]
        told = np.asarray(self.member[:, panel[self._n_seen :]].any(axis=1))
        for gene in kept[::-1]:
            sets = np.flatnonzero(self.member[:, gene])
            if self._n_seen and not told[sets].any():
                continue
            others = np.concatenate([panel, [g for g in kept if g != gene]]).astype(np.int64)
            if not self.lacks(others, sets).any():
                kept.remove(gene)
        self.kept, self._n_seen = np.array(kept, dtype=np.int64), panel.size

    def _does(self, gene: np.int64, others: Index) -> Mask:
        """Return which genes give all that the others lack of the sets of a gene, (gene,)."""
        sets = np.flatnonzero(self.member[:, gene])
        does = np.ones(self.cost.size, dtype=bool)
        for of in self.member[sets[self.lacks(others, sets) > 0]]:
            held = of[others]
            does &= (of > 0) & ~np.isin(of, held[held > 0])
        return does


def cover(
    member: NDArray[np.uint16], least: int, *, first: Index, allowed: Mask, cost: Float64
) -> Index:
    """Return genes that hold, with the first ones, so many of each set: the most for their cost.

    Each is, among those allowed, the gene of the most sets that still lack it, over its cost; it
    ends where no set lacks, or no gene helps. There may be fewer genes that do.

    Parameters
    ----------
    member : (set, gene), as in `Limits`
    least : how many of each set
    first : genes that are on the panel already
    allowed : (gene,), which genes may be chosen
    cost : (gene,), over 0

    Examples
    --------
    >>> member = np.array([[1, 2, 0, 0], [0, 1, 2, 0], [0, 0, 1, 2]], dtype=np.uint16)
    >>> none, every = np.empty(0, dtype=np.int64), np.ones(4, dtype=bool)
    >>> cover(member, 1, first=none, allowed=every, cost=np.ones(4))
    array([1, 2])
    """
    able = allowed.copy()
    able[first] = True
    is_new = (member > 0) & able
    lacks = np.full(len(member), least)
    n_helped = is_new.sum(axis=0)

    def take(gene: int) -> None:
        for row in np.flatnonzero(is_new[:, gene]):
            gone = is_new[row].copy()
            lacks[row] -= 1
            if lacks[row]:
                gone &= member[row] == member[row, gene]
            n_helped[gone] -= 1
            is_new[row, gone] = False

    for gene in first:
        take(gene)
    chosen: list[int] = []
    while (worth := np.where(allowed, n_helped / cost, 0)).max(initial=0) > 0:
        chosen.append(int(worth.argmax()))
        take(chosen[-1])
    return np.array(chosen, dtype=np.int64)
