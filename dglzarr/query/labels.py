"""What is known of each sample: labels, series, platform, split, and whether it was kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from dglzarr.errors import ConfigError, hint, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COORDS = ("series", "platform", "source", "split")
_FOUND = ("keep", "duplicate_of", "cluster")
_DUPLICATES = {"keep", "duplicate_of"}


def labels_told(ds: xr.Dataset, found: xr.Dataset | None) -> dict[str, xr.Dataset]:
    """Return the labels of samples that this package tells, and the store that each stands in."""
    told = {name: ds for name in _COORDS if name in ds.coords}
    return told if found is None else told | {name: found for name in _FOUND if name in found}


def called(own: Sequence[str], taken: set[str]) -> dict[str, int]:
    """Return what labels of files are called beside those of this package, and where they stand.

    Examples
    --------
    >>> called(["sample", "sample_label", "split", "age"], {"sample", "split"})
    {'sample_label_': 0, 'sample_label': 1, 'split_label': 2, 'age': 3}
    """
    free = {*own} - taken
    names: dict[str, int] = {}
    for place, name in enumerate(own):
        known = f"{name}_label" if name in taken else name
        while name in taken and (known in free or known in taken):
            known += "_"
        names[known] = place
    return names


def _values(name: str, wanted: object) -> list[str]:
    """Return one value or several as text."""
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str | Mapping)
    found = [*wanted] if several else [wanted]  # type: ignore[misc]
    if none := [v for v in found if not isinstance(v, str | int | float | np.generic)]:
        raise ConfigError(
            f"{shown(name)}: expected a value or several of them, got {repr(none[0])[:60]}."
        )
    return [str(v) for v in found]


class SampleLabels:
    """What is known of each sample, read column by column.

    A label of the files that is called as one of these here is NAME_label.

    Parameters
    ----------
    ds
        A store with ``sample`` labels, as ``normalized``.
    found
        The ``samples`` store of the same samples, where there is one.
    """

    def __init__(self, ds: xr.Dataset, found: xr.Dataset | None = None) -> None:
        self._ds = ds
        self._columns: dict[str, NDArray[Any]] = {}
        self._files = [str(n) for n in ds["label"].values] if "label" in ds.coords else []
        self._stores = labels_told(ds, found)
        self.own = called(self._files, {"sample", *self._stores})
        """Where the labels of the files stand, by what they are called here."""
        self.names = [*self._stores, *self.own]

    def column(self, name: str) -> NDArray[Any]:
        """Return one label of every sample, (sample,); '' where a sample has none.

        Raises
        ------
        ConfigError
            When no sample has such a label.
        """
        if name not in self._columns:
            found = self._read(name)  # xarray before 2026.9 calls text objects, and reads text
            self._columns[name] = found.astype(object) if found.dtype.kind == "T" else found
        return self._columns[name]

    def _read(self, name: str) -> NDArray[Any]:
        if name == "sample" and name in self._files:  # as files call it
            name = next(own for own, at in self.own.items() if self._files[at] == name)
        if name not in self.names:
            raise ConfigError(
                f"label: expected one of {', '.join(self.names) or 'none'}, got "
                f"{name[:60]!r}{hint(name, self.names)}."
            )
        if name not in self._stores:
            return np.asarray(self._ds["sample_label"].values[:, self.own[name]])
        values = self._stores[name][name]
        if "flag_meanings" in values.attrs:
            meanings = np.array(str(values.attrs["flag_meanings"]).split(), dtype=object)
            return np.asarray(meanings[values.values])
        return np.asarray(values.values)

    def find(self, wanted: Mapping[str, object]) -> NDArray[np.int64]:
        """Return where the samples stand that have every label wanted: of several values, any.

        Raises
        ------
        ConfigError
            When there is no such label, no sample has such a value, or it is none: '' stands for
            the samples without the label.
        """
        chosen = np.ones(self._ds.sizes["sample"], dtype=bool)
        for name, value in wanted.items():
            column = self.column(name).astype(str)
            values = _values(name, value)
            found = set(column.tolist())
            if unknown := [v for v in values if v not in found]:
                raise ConfigError(
                    f"{shown(name)}: expected a value that a sample has, got "
                    f"{unknown[0][:60]!r}{hint(unknown[0], found)}."
                )
            chosen &= np.isin(column, values)
        return np.flatnonzero(chosen)

    def counted(self, label: str, wanted: Mapping[str, object]) -> NDArray[np.int64]:
        """Return where the samples stand that are counted by a label: those of every label wanted.

        Without near-duplicates, unless a label that tells of these is asked for.

        Raises
        ------
        ConfigError
            As `find`.
        """
        places = self.find(wanted)
        is_told = not _DUPLICATES.isdisjoint([label, *wanted])
        return (
            places if is_told or "keep" not in self._stores else places[self.column("keep")[places]]
        )

    def places(self, names: Sequence[str], *, place: str = "sample") -> NDArray[np.int64]:
        """Return where samples of some names stand, in their order.

        Raises
        ------
        ConfigError
            When one of them is not there.
        """
        found = self._ds.indexes["sample"].get_indexer(pd.Index(list(names)))
        unknown = [name for name, at in zip(names, found, strict=True) if at < 0]
        if unknown:
            raise ConfigError(
                f"{place}: expected samples of the store, got {unknown[:5]!r}"
                f"{hint(unknown[0], map(str, self._ds['sample'].values))}."
            )
        return np.asarray(found, dtype=np.int64)

    def table(self, places: NDArray[np.int64]) -> xr.Dataset:
        """Return all that is known of some samples, a variable a label."""
        columns = {name: ("sample", self.column(name)[places]) for name in self.names}
        return xr.Dataset(columns, {"sample": self._ds["sample"].values[places]})
