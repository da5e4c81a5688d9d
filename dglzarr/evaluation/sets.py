"""Gene sets that a panel must hold some of: their members in a study, and room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.kernels.limits import Limits, cover
from dglzarr.sources.identifiers import find_genes
from dglzarr.sources.terms import read_gmt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Float64 = NDArray[np.float64]

_SHOWN = 3


def hold_sets(
    limits: Limits,
    file: str,
    least: int,
    names: Mapping[str, Sequence[str]],
    *,
    first: Index,
    allowed: Mask,
) -> list[str]:
    """Have a panel hold so many genes of each set of a GMT file.

    Parameters
    ----------
    limits
        Of the panel; gets the sets, and the genes that it keeps room for.
    file, least
        The sets, and how many genes of each.
    names
        Labels, symbols and IDs of the study's genes.
    first, allowed
        Genes that the panel has already, and which others may be chosen.

    Returns
    -------
    notes
        Which sets the study has less than half of.

    Raises
    ------
    ConfigError
        When sets have too few genes, or the genes that hold them do not fit: by how much, and
        which sets.
    SourceError
        When the file is none of sets.
    """
    terms = read_gmt(file)
    limits.member = np.zeros((len(terms.ids), limits.cost.size), dtype=np.uint16)
    limits.least = least
    able = allowed.copy()
    able[first] = True
    poor, few = [], []
    for row, name, genes in zip(limits.member, terms.ids, terms.genes, strict=True):
        for number, of in enumerate(find_genes(sorted(genes), **names), start=1):
            row[of] = number
        n_measured = np.unique(row[row > 0]).size
        if 2 * n_measured < len(genes):
            few.append(f"{name!r} ({n_measured} of its {len(genes)})")
        n_able = np.unique(row[able & (row > 0)]).size
        if n_able < least:
            poor.append(f"{name!r} ({n_able} of its {len(genes)})")
    if poor:
        raise ConfigError(
            f"--sets: expected {least} genes of each set that can be chosen, got fewer of "
            f"{len(poor)} of {len(terms.ids)} sets: {_first(poor)}. Leave them out."
        )
    limits.kept = cover(limits.member, least, first=first, allowed=allowed, cost=limits.cost)
    limits.prune(first)
    _check_room(limits, terms.ids, first)
    if not few:
        return []
    have = "has under half of its" if len(few) == 1 else "have under half of their"
    return [
        f"--sets: {len(few)} of {len(terms.ids)} sets {have} genes in the study: {_first(few)}."
    ]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _check_room(limits: Limits, ids: Sequence[str], first: Index) -> None:
    """Refuse a panel that cannot hold what is kept room for.

    Raises
    ------
    ConfigError
        Saying what would do, and which sets stay short.
    """
    n_needed, room = first.size + limits.kept.size, max(0, limits.size - first.size)
    needed = float(limits.cost[first].sum() + limits.cost[limits.kept].sum())
    what = f"the genes found that hold {limits.least} of each of {len(ids)} sets"
    if first.size <= limits.size < n_needed:
        short = np.flatnonzero(limits.lacks(np.concatenate([first, limits.kept[:room]])))
        shown = _first([repr(ids[place]) for place in short.tolist()])
        raise ConfigError(
            f"--sets: expected a --size of {n_needed}, {what}, got {limits.size}, with which "
            f"{short.size} stay short ({shown}). Ask for more genes, fewer of each set, or "
            "leave sets out."
        )
    if needed > limits.budget:
        raise ConfigError(
            f"--sets: expected a --budget of {needed:g}, which {what} cost, got "
            f"{limits.budget:g}. Raise it, ask for fewer of each set, or leave sets out."
        )
