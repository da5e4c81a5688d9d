"""Answers that can be asked further: groups of samples, a latent unit, likeness of genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from dglzarr.errors import ConfigError, shown
from dglzarr.query.genes import a_number
from dglzarr.query.lazy import genes_of
from dglzarr.storage.rows import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dglzarr.query.genes import GeneNames
    from dglzarr.query.labels import SampleLabels

N_COMPARED = 2048
"""Samples at most that genes are compared over."""

MOST_DRAWN = 30
"""Groups of a picture, unless told."""

_MOST_GENES = 12
_UNITS = 3
_STATISTICS = {"min": 0.0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1.0}


@dataclass(frozen=True, eq=False)
class Groups:
    """Expression by a label of the samples: what ``.dgl.by(label)`` returns.

    Attributes
    ----------
    label
        Name of the label.
    """

    label: str
    _matrix: xr.DataArray
    _labels: SampleLabels
    _names: GeneNames
    _chosen: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse a label that no sample has."""
        if self._at.size:
            return
        own = self._labels.own
        some = [shown(name) for name in own if has_label(self._labels.column(name)).any()]
        raise ConfigError(
            f"by: expected a label that some sample has ({', '.join(some[:8])}), got "
            f"{self.label[:60]!r}, which all {'' if self._chosen is None else 'of these '}lack."
        )

    def of(self, places: NDArray[np.int64]) -> Groups:
        """Return the groups of the samples alone that stand at some places.

        Raises
        ------
        ConfigError
            When none of them has the label.
        """
        return replace(self, _chosen=places)

    def sizes(self) -> xr.DataArray:
        """Return how many samples each group has, (group,); samples without the label are none."""
        values, counts = np.unique(self._known(), return_counts=True)
        return xr.DataArray(
            counts, {"group": _plain(values)}, ("group",), "n", {"label": self.label}
        )

    def values(self, *genes: str) -> xr.DataArray:
        """Return the expression of genes in every sample that has the label, (sample, gene), lazy.

        The coordinate of the label's name says which group a sample is of: what a picture takes.

        Raises
        ------
        ConfigError
            When a gene is not known.
        """
        chosen = genes_of(self._matrix, self._names.find_all(genes)).isel(sample=self._at)
        return chosen.assign_coords({self._name(): ("sample", self._known())})

    def gene(self, *genes: str) -> xr.Dataset:
        """Return how genes are expressed in each group: n, mean, std and quartiles, (group, gene).

        Missing values are left out; the std is that of a sample (n - 1), NaN of one.

        Raises
        ------
        ConfigError
            When a gene is not known.
        """
        chosen = self.values(*genes)
        frame = pd.DataFrame(chosen.values.astype(np.float64), columns=np.arange(chosen.shape[1]))
        grouped = frame.groupby(self._known())
        tables = {"n": grouped.count(), "mean": grouped.mean(), "std": grouped.std()}
        tables |= {name: grouped.quantile(q) for name, q in _STATISTICS.items()}
        labels = {n: chosen[n] for n in ("gene", "gene_symbol", "gene_id") if n in chosen.coords}
        groups = _plain(np.asarray(tables["n"].index))
        found = {n: (("group", "gene"), t.to_numpy()) for n, t in tables.items()}
        return xr.Dataset(found, {"group": groups, **labels}, {"label": self.label})

    def plot(self, *genes: str, most: int = MOST_DRAWN) -> Figure:
        """Return a picture of genes: a row of boxes and points a gene, a box a group.

        A notebook shows it; ``.savefig("tp53.svg")`` writes it.

        Parameters
        ----------
        most
            Groups that are drawn: the largest.

        Raises
        ------
        ConfigError
            When a gene is not known, none or more than 12 features are asked for, or no groups.

        Examples
        --------
        >>> len(open_study(study).dgl.by("tissue").plot("SIM1", "SIM5").axes)
        2
        """
        from dglzarr.query.picture import draw_groups  # noqa: PLC0415  (matplotlib takes a second)

        if not a_number(most, "most"):
            raise ConfigError("most: expected 1 or more groups, got 0.")
        values = self.values(*genes)
        if not genes:
            raise ConfigError("plot: expected genes, got none. Name one.")
        if values.sizes["gene"] > _MOST_GENES:
            raise ConfigError(
                f"plot: expected at most {_MOST_GENES} genes, got {values.sizes['gene']} features. "
                "Ask for fewer, or twice."
            )
        return draw_groups(values, self._known(), self.label, most=most)

    def without(self) -> str:
        """Return in words how many samples have no such label, '' where all have it."""
        chosen = np.arange(self._matrix.sizes["sample"]) if self._chosen is None else self._chosen
        n, total = self._at.size, chosen.size
        if n == total:
            return ""
        told = f"{total - n:,} of {total:,} samples have no {self.label!r} and are left out."
        columns = {name: self._labels.column(name)[chosen] for name in self._labels.own}
        sizes = {name: int(has_label(column).sum()) for name, column in columns.items()}
        more = sorted((name for name in sizes if sizes[name] > n), key=lambda name: -sizes[name])
        some = ", ".join(f"{name[:40]!r} ({sizes[name]:,})" for name in more[:4])
        return f"{told} More samples have {some}." if some else told

    def grouped(self) -> Any:  # noqa: ANN401
        """Return xarray's own groupby of the lazy matrix (sample, gene), for any other question.

        Its groups stand along a dim of the label's name; NAME_label where the matrix has that.
        """
        chosen = self._matrix.isel(sample=self._at)
        return chosen.groupby(xr.DataArray(self._known(), dims="sample", name=self._name()))

    def _name(self) -> str:
        """Return what a coordinate by sample of the label is called beside those of genes."""
        coords = self._matrix.coords
        is_taken = self.label in coords and "gene" in coords[self.label].dims
        return f"{self.label}_label" if is_taken or self.label == "sample" else self.label

    @cached_property
    def _at(self) -> NDArray[np.int64]:
        """Where the samples stand that have the label, of those chosen."""
        known = np.flatnonzero(has_label(self._labels.column(self.label)))
        return known if self._chosen is None else self._chosen[np.isin(self._chosen, known)]

    def _known(self) -> NDArray[Any]:
        column: NDArray[Any] = self._labels.column(self.label)
        return column[self._at]


def _plain(groups: NDArray[Any]) -> NDArray[Any]:
    """Return names of groups as netCDF and plots take them: yes and no as text."""
    return groups if groups.dtype.kind in "iuf" else groups.astype(str)


def has_label(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which samples have a label."""
    return np.asarray(column != "") if column.dtype == object else np.ones(column.shape, np.bool_)


@dataclass(frozen=True, eq=False)
class LatentUnit:
    """One latent unit of the network: what ``.dgl.latent(k)`` returns.

    Attributes
    ----------
    unit
        Its number, from 0.
    genes
        Every gene, what is known of it, and its ``latent_score``: the mean over kept training
        samples of its absolute contribution to the unit.
    activation
        The unit's activation in every sample, (sample,), lazy; None of a study without ``latent``.
    """

    unit: int
    genes: xr.Dataset
    activation: xr.DataArray | None

    def top(self, n: int = 20) -> xr.Dataset:
        """Return the genes that move the unit most, best first."""
        n = a_number(n, "top")
        score = np.abs(self.genes["latent_score"].values)
        return self.genes.isel(gene=np.argsort(-score, kind="stable")[:n])


def likeness_of(uri: str, chosen: NDArray[np.bool_]) -> Likeness:
    """Return how alike genes are over samples of a store: `N_COMPARED` of those chosen, evenly."""
    rows = Rows(uri)
    kept = np.flatnonzero(chosen[: len(rows)])
    step = np.linspace(0, kept.size - 1, min(kept.size, N_COMPARED)).round().astype(int)
    return Likeness(rows.take(kept[step]))


def nearest(r: NDArray[np.float64], gene: int, n: int) -> NDArray[np.int64]:
    """Return where the genes most like one stand, best first: neither itself nor those without r.

    Parameters
    ----------
    r
        As `Likeness.correlations` returns it, (gene,).
    """
    order = np.argsort(-np.abs(np.nan_to_num(r)), kind="stable")
    return np.asarray(order[(order != gene) & ~np.isnan(r[order])][:n])


class Likeness:
    """How alike genes are: Pearson's r over samples, missing values standing at the gene's mean.

    Parameters
    ----------
    values
        (sample, gene), missing = NaN; is changed.

    Examples
    --------
    >>> like = Likeness(np.array([[1, 2, 5], [2, 4, 5], [3, 7, 5]], dtype=np.float32))
    >>> like.correlations(0).round(2).tolist()
    [1.0, 0.99, nan]
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.n_samples = len(values)
        mean = np.nansum(values, axis=0, dtype=np.float64)
        mean /= np.maximum(np.isfinite(values).sum(axis=0), 1)
        values -= mean.astype(np.float32)
        np.nan_to_num(values, copy=False)
        norm = np.sqrt(np.einsum("sg,sg->g", values, values, dtype=np.float64))
        self._is_flat = norm <= 1e-6 * np.sqrt(self.n_samples)
        values /= np.where(self._is_flat, np.inf, norm).astype(np.float32)
        self._unit = values

    def correlations(self, gene: int) -> NDArray[np.float64]:
        """Return the correlation of a gene with every gene, (gene,); NaN of one without spread."""
        if self._is_flat[gene]:
            return np.full(self._is_flat.size, np.nan)
        r = (self._unit[:, gene] @ self._unit).astype(np.float64)
        r[self._is_flat] = np.nan
        return np.asarray(np.clip(r, -1, 1))


def gene_table(found: xr.Dataset) -> pd.DataFrame:
    """Return what is known of genes, a line a gene: panels and leading latent units in one cell.

    Parameters
    ----------
    found
        An answer with a dim ``gene``; what else is in it by sample is left out.
    """
    columns = {"gene": found["gene"].values}
    for name in ("gene_symbol", "gene_id", "r", "latent_score", "rank", *map(str, found.data_vars)):
        if name in found.variables and found[name].dims == ("gene",):
            columns[name] = found[name].values
    if "on_panel" in found:
        names, on = found["panel"].values, found["on_panel"].transpose("gene", "panel").values
        columns["panels"] = np.array(["; ".join(map(str, names[row])) for row in on], dtype=object)
    if "latent" in found.dims and "latent_score" in found:
        score = found["latent_score"].transpose("gene", "latent").values
        columns["latent_units"] = np.array([_leading(row) for row in score], dtype=object)
    return pd.DataFrame(columns)


def _leading(score: np.ndarray) -> str:
    """Return the latent units that a gene moves most, with its score."""
    best = np.argsort(-np.abs(score), kind="stable")[:_UNITS]
    return "; ".join(f"{unit}: {score[unit]:.3g}" for unit in best)
