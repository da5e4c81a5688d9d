"""Genes by any of their names: label, symbol, Entrez or Ensembl ID, and aliases of a file."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.sources.aliases import lookup_key, read_aliases
from dglzarr.sources.identifiers import first_symbol, has_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

_JOINED = re.compile(r"[/;|]")
NEAR = 3
"""Names at most that an error offers for one that is not known."""


class GeneNames:
    """The names of the genes of a store.

    Parameters
    ----------
    genes, symbols, gene_ids
        Label, symbol and ID of each feature, "" where unknown.
    aliases
        Symbols that other names stand for, as `read_aliases` returns them.

    Examples
    --------
    >>> names = GeneNames(["7_at", "8_at", "9_at"], ["TP53", "TP53", "MYC"], ["7157", "7157", ""])
    >>> names.find("tp53"), names.find("9_at"), names.find("7157")
    (array([0, 1]), array([2]), array([0, 1]))
    """

    def __init__(
        self,
        genes: Sequence[str],
        symbols: Sequence[str] = (),
        gene_ids: Sequence[str] = (),
        aliases: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.labels, self._aliases = list(genes), aliases or {}
        self.symbols = list(symbols)
        self._places: dict[str, list[int]] = {}
        for names in (gene_ids, symbols, genes):  # a label goes before a symbol, that before an ID
            self._places |= _by_key(names)

    @property
    def keys(self) -> Iterable[str]:
        """Every name that finds a gene, as `lookup_key` makes it."""
        return self._places.keys()

    def places(self, name: str) -> list[int]:
        """Return where the features of a label, else symbol, else ID, else alias stand, if any."""
        key = lookup_key(name.strip())
        if key in self._places:
            return self._places[key]
        meant = (self._places.get(lookup_key(s), ()) for s in self._aliases.get(key, ()))
        return sorted(set().union(*meant))

    def find(self, name: str, *, place: str = "gene") -> NDArray[np.int64]:
        """Return where the features of a name stand, ascending.

        Those of that label, else of that symbol, else of that ID, else all that an alias may mean.
        Letter case and the version of an Ensembl ID do not matter.

        Raises
        ------
        ConfigError
            When there is no such gene; with the names most like it.
        """
        if found := self.places(a_name(name, place)):
            return np.array(found, dtype=np.int64)
        raise ConfigError(
            f"{place}: expected a gene of the study (label, symbol or ID), got {name[:60]!r}"
            f"{self._near(lookup_key(name.strip()))}."
        )

    def find_all(self, names: Iterable[str], *, place: str = "gene") -> NDArray[np.int64]:
        """Return where the features of several genes stand, in the order of the names, each once.

        Raises
        ------
        ConfigError
            When one of them is not known.
        """
        places = [index for name in names for index in self.find(name, place=place).tolist()]
        return np.array(list(dict.fromkeys(places)), dtype=np.int64)

    def official(self, name: str) -> str:
        """Return a name as the study knows it: of an alias its symbol, else the name itself.

        Raises
        ------
        ConfigError
            When it is an alias of several genes.
        """
        key = lookup_key(name.strip())
        if key in self._places or not (known := self._known(self._aliases.get(key, ()))):
            return name
        if len(known) > 1:
            raise ConfigError(
                f"gene: expected one gene, got {name[:60]!r}, an alias of {' and '.join(known)}. "
                "Ask for one of them."
            )
        return known[0]

    def _known(self, symbols: Iterable[str]) -> list[str]:
        """Return the symbols of an alias that the study has."""
        return [symbol for symbol in symbols if lookup_key(symbol) in self._places]

    def spelled(self, keys: Iterable[str]) -> list[str]:
        """Return names as the study writes them."""
        found = []
        for key in keys:
            places = self._places.get(key)
            names = [s for i in places or () for s in (*self.symbols[i : i + 1], self.labels[i])]
            found.append(next((name for name in names if lookup_key(name) == key), key))
        return found

    def _near(self, key: str) -> str:
        known = (k for k, names in self._aliases.items() if self._known(names))
        alike = [k for k in (*self._places, *known) if abs(len(k) - len(key)) <= 2]
        names = self.spelled(get_close_matches(key, alike, n=NEAR, cutoff=0.65))
        return f" (did you mean {' or '.join(map(repr, names))}?)" if names else ""


def a_name(given: object, place: str) -> str:
    """Return a name that is text.

    Raises
    ------
    ConfigError
        When it is something else.
    """
    if not isinstance(given, str):
        raise ConfigError(f"{place}: expected a name, got {repr(given)[:60]}, no text. Quote one.")
    return given


def a_number(given: object, place: str, most: int | None = None) -> int:
    """Return a whole number from 0, to the most there is.

    Raises
    ------
    ConfigError
        When it is something else.
    """
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        number = int(given)
        if number >= 0 and (most is None or number <= most):
            return number
    what = "whole number from 0" if most is None else f"unit from 0 to {most}"
    raise ConfigError(f"{place}: expected a {what}, got {repr(given)[:60]}.")


def _by_key(names: Iterable[str]) -> dict[str, list[int]]:
    """Return where each name stands, each of several joined by ``///`` and the first by ``|``."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        parts = (name, *name.split("///"), first_symbol(name)) if _JOINED.search(name) else (name,)
        for part in map(str.strip, parts):
            if has_name(part):
                known = found.setdefault(lookup_key(part), [])
                if place not in known[-1:]:
                    known.append(place)
    return found


def names_of(ds: xr.Dataset, aliases: str = "") -> GeneNames:
    """Return the names of the genes of a Dataset.

    Raises
    ------
    SourceError
        When the file of aliases is not one.
    """
    label, symbol, gene_id = (
        [str(value) for value in ds[name].values] if name in ds.coords else []
        for name in ("gene", "gene_symbol", "gene_id")
    )
    return GeneNames(label, symbol, gene_id, _aliases(aliases) if aliases else None)


@lru_cache(maxsize=4)
def _aliases(path: str) -> dict[str, tuple[str, ...]]:
    return read_aliases(path)
