"""Finds genes by any of their names: label of the feature, symbol, Entrez or Ensembl ID."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

from dglzarr.query.genes import GeneNames
from dglzarr.sources.aliases import lookup_key
from dglzarr.sources.identifiers import first_symbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Aliases = Mapping[str, Sequence[str]]

N_NEAR = 5
LONGEST_NAME = 200
"""Characters of a name that is looked for."""


class GeneIndex:
    """The names of a study's features, each of which may be asked for in any case of letters.

    Parameters
    ----------
    labels, symbols, ids
        Of each feature; "" where it has none.
    rank
        Of each feature, lower first among those that a name finds.
    aliases
        Symbols that other names stand for, as `read_aliases` returns them.
    """

    def __init__(
        self,
        labels: Sequence[str],
        symbols: Sequence[str],
        ids: Sequence[str],
        rank: Sequence[int],
        aliases: Aliases | None = None,
    ) -> None:
        self.labels, self.symbols, self.ids, self.rank = labels, symbols, ids, rank
        self._names = GeneNames(labels, symbols, ids, aliases)
        self.official = self._names.official
        self._plain = [
            "\n".join((label, symbol, gene_id)).upper()
            for label, symbol, gene_id in zip(labels, symbols, ids, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.labels)

    def find(self, name: str) -> list[int]:
        """Return the features of a name, by rank: of a label, else symbol, else ID, else alias."""
        return sorted(self._names.places(name), key=self._by_rank)

    def search(self, text: str) -> list[int]:
        """Return the features that a text may mean: of that name, then beginning so, then with it.

        Features that are equally good come by rank. "" means all.
        """
        wanted = " ".join(text.split()).upper()
        exact = self.find(text) if wanted else []
        begin: list[int] = []
        within: list[int] = []
        for place, plain in enumerate(self._plain):
            if wanted in plain:
                begins = plain.startswith(wanted) or f"\n{wanted}" in plain
                (begin if begins else within).append(place)
        ordered = (*exact, *sorted(begin, key=self._by_rank), *sorted(within, key=self._by_rank))
        return list(dict.fromkeys(ordered))

    def near(self, name: str) -> list[str]:
        """Return names that are much like one that is not known, as the study spells them."""
        key = lookup_key(name.strip()[:LONGEST_NAME])
        alike = [k for k in self._by_first.get(key[:1], ()) if abs(len(k) - len(key)) <= 2]
        return self._names.spelled(get_close_matches(key, alike, n=N_NEAR, cutoff=0.6))

    def called(self, place: int) -> str:
        """Return how people call a feature: its symbol, else its label."""
        return first_symbol(self.symbols[place]) or self.labels[place]

    def _by_rank(self, place: int) -> tuple[int, int]:
        return int(self.rank[place]), place

    @cached_property
    def _by_first(self) -> dict[str, list[str]]:
        by_first: dict[str, list[str]] = {}
        for key in self._names.keys:
            by_first.setdefault(key[:1], []).append(key)
        return by_first
