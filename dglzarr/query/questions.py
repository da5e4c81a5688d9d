"""The accessor ``.dgl``: questions to a study (`StudyQuestions`) and to a store (`StoreQuestions`).

Everything is read when it is asked for, and a matrix only when its values are.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dglzarr.errors import ConfigError, SourceError, StoreError, hint
from dglzarr.query.answers import Groups, LatentUnit, Likeness, likeness_of, nearest
from dglzarr.query.genes import GeneNames, a_name, a_number, names_of
from dglzarr.query.labels import SampleLabels
from dglzarr.query.lazy import aligned, genes_of, open_parts, with_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_FACTS = {
    "landmarks": {n: n for n in ("rank", "score", "gain", "is_landmark")},
    "scores": {"score": "score", "latent_score": "latent_score", "group_score": "group_score"},
    "reconstruction": {
        "mae": "reconstruction_mae",
        "pcc": "reconstruction_pcc",
        "null_fraction": "null_fraction",
    },
    "samples": {"gene_mean": "gene_mean", "gene_std": "gene_std"},
}
"""Which variables of which store tell of a gene, and what they are called in an answer."""

_DIMS = ("sample", "gene")
_NUMBERS = ("min_mean", "max_mean", "min_detected", "at_least", "budget")


class _Questions(ABC):
    """What both accessors can be asked."""

    @property
    @abstractmethod
    def names(self) -> GeneNames:
        """The names that genes are found by."""

    @property
    @abstractmethod
    def labels(self) -> SampleLabels:
        """What is known of the samples."""

    @property
    @abstractmethod
    def _matrix(self) -> xr.DataArray:
        """The expression, (sample, gene)."""

    def by(self, label: str, **labels: object) -> Groups:
        """Return the samples grouped by a label, near-duplicates left out: see `Groups`.

        Parameters
        ----------
        label
            A sample label, or ``series``, ``platform``, ``source``, ``split``, ``cluster``,
            ``keep``.
        labels
            Only samples of these, as for `samples`: ``keep=[True, False]`` counts all.

        Raises
        ------
        ConfigError
            When there is no such label, or no sample has it.

        Examples
        --------
        >>> tissues = open_study(study).dgl.by("tissue")
        >>> int(tissues.sizes().sum()), list(tissues.gene("SIM1").dims)
        (118, ['group', 'gene'])
        >>> int(open_study(study).dgl.by("tissue", split="test").sizes().sum()) < 120
        True
        """
        groups = Groups(a_name(label, "by"), self._matrix, self.labels, self.names)
        return groups.of(self.labels.counted(label, labels))

    def expression(self, *genes: str) -> xr.DataArray:
        """Return the expression of genes in every sample, (sample, gene), lazy.

        Raises
        ------
        ConfigError
            When a gene is not known; with the names most like it.

        Examples
        --------
        >>> open_study(study).dgl.expression("sim1").shape
        (120, 1)
        """
        return genes_of(self._matrix, self.names.find_all(genes))

    def samples(self, series: str | Sequence[str] = (), **labels: object) -> xr.Dataset:
        """Return what is known of samples, a variable a label: all, or those of some labels.

        Parameters
        ----------
        series
            One or several series.
        labels
            Other labels and their value, or several of them, as in ``tissue="liver"`` or
            ``cluster=[3, 4]``.

        Raises
        ------
        ConfigError
            When there is no such label, or no sample has such a value.

        Examples
        --------
        >>> found = open_study(study).dgl.samples(series="GSE900003")
        >>> found.sizes["sample"], sorted(set(found.split.values.tolist()))
        (6, ['train'])
        """
        wanted = dict(labels) if np.size(series) == 0 else {**labels, "series": series}
        return self.labels.table(self.labels.find(wanted))


@xr.register_datatree_accessor("dgl")  # type: ignore[no-untyped-call]
class StudyQuestions(_Questions):
    """Questions to a study: ``dglzarr.open_study(root).dgl``.

    Parameters
    ----------
    tree
        What `open_study` returns, or a node of it.

    Raises
    ------
    ConfigError
        When it is no study.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        known = [node for node in (tree, *tree.parents) if {"root", "segments"} <= {*node.attrs}]
        if not known:
            raise ConfigError(
                "dgl: expected a study, got another DataTree. Open it with dglzarr.open_study."
            )
        self._tree = known[0]

    @property
    def root(self) -> str:
        """The folder of the study."""
        return str(self._tree.attrs["root"])

    @cached_property
    def names(self) -> GeneNames:
        """The names that genes are found by."""
        return names_of(self._labelled(), str(self._tree.attrs.get("aliases", "")))

    @cached_property
    def labels(self) -> SampleLabels:
        """What is known of the samples."""
        ds, found = self._store("normalized"), self._get("samples")
        return SampleLabels(
            ds, None if found is None else aligned(found, "sample", ds["sample"].values)
        )

    def top(self, n: int = 20) -> xr.Dataset:
        """Return the first genes by rank, and what is known of each: the panel, then by score.

        Without ``landmarks`` they are the genes of the highest scores.

        Raises
        ------
        ConfigError
            When the study has no scores.

        Examples
        --------
        >>> open_study(study).dgl.top(3)["rank"].values.tolist()
        [1, 2, 3]
        """
        n = a_number(n, "top")
        ranked, scored = self._get("landmarks"), self._get("scores")
        if ranked is not None:
            order = np.argsort(ranked["rank"].values, kind="stable")
        elif scored is not None:
            order = np.argsort(-scored["score"].values, kind="stable")
        else:
            raise ConfigError(f"{self.root}: expected ranks or scores, got none. Run 'score'.")
        labels = (ranked if ranked is not None else scored)["gene"].values  # type: ignore[index]
        return self.facts(self.places(labels[order[:n]]))

    def gene(self, *names: str) -> xr.Dataset:
        """Return all that is known of genes, with their expression in every sample, lazy.

        Rank, score, ``latent_score`` by latent unit, ``on_panel`` by panel, how well the network
        rebuilds them, mean and spread; of every feature that measures them.

        Parameters
        ----------
        names
            Label, symbol, Entrez or Ensembl ID, or alias (`open_study` says how): in any letter
            case. A name of several features or genes stands for all of them.

        Raises
        ------
        ConfigError
            When a gene is not known; with the names most like it.

        Examples
        --------
        >>> found = open_study(study).dgl.gene("sim1", "200005_at")
        >>> found.gene_symbol.values.tolist(), found.expression.dims
        (['SIM1', 'SIM5'], ('sample', 'gene'))
        """
        places = self.names.find_all(names)
        facts = self.facts(places)
        if self._get("normalized") is None:
            return facts
        return facts.assign(expression=self._matrix[:, places])

    def latent(self, unit: int) -> LatentUnit:
        """Return a latent unit: the genes that move it, and its activation in samples.

        Raises
        ------
        ConfigError
            When the study has no such unit, or no scores.

        Examples
        --------
        >>> unit = open_study(study).dgl.latent(0)
        >>> unit.top(2).sizes["gene"], unit.activation.dims
        (2, ('sample',))
        """
        scores, latent = self._store("scores"), self._get("latent")
        n_units = scores.sizes["latent"]
        a_number(unit, "latent", most=n_units - 1)
        genes = self.facts(self.places(scores["gene"].values)).isel(latent=unit)
        activation = None if latent is None else latent["latent"].isel(latent_unit=unit)
        return LatentUnit(unit, genes, activation)

    def neighbours(self, gene: str, n: int = 10) -> xr.Dataset:
        """Return the genes most like a gene: by Pearson's r, of either sign, largest first.

        Over kept training samples of the first segment, at most 2048 of them, evenly taken; they
        are read once and stay in memory (8 kB a gene). Of a name of several features it is the
        best ranked, as in ``attrs["of"]``; ``attrs["note"]`` tells of the others, which are told as
        any other gene. None where it does not vary.

        Raises
        ------
        ConfigError
            When the gene is not known, or the name is an alias of several.

        Examples
        --------
        >>> near = open_study(study).dgl.neighbours("SIM1", 3)
        >>> near.r.shape, bool((np.diff(np.abs(near.r)) <= 0).all()), near.attrs["of"]
        ((3,), True, '200001_at')
        """
        n = a_number(n, "neighbours")
        found = self._best_first(self.names.find(self.names.official(a_name(gene, "neighbours"))))
        place = int(found[0])
        r = self.likeness.correlations(place)
        order = nearest(r, place, n)
        of, *others = (self.names.labels[place] for place in found)
        attributes = {
            "of": of,
            "n_samples": self.likeness.n_samples,
            "note": _told(gene, of, others),
        }
        facts = self.facts(order).assign(r=("gene", r[order]))
        return facts.assign_attrs(attributes)

    def _best_first(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return features by their score, as pages do; as they stand in a study without."""
        if "score" not in self._known:
            return places
        score = self._known["score"].values[places]
        return places[np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")]

    @cached_property
    def likeness(self) -> Likeness:
        """How alike the genes are."""
        ds, found = self._whole("neighbours"), self._store("samples")
        first = json.loads(ds.attrs["segments"])[0]["uri"]
        return likeness_of(first, (ds["split"].values == 0) & found["keep"].values)

    def panel(
        self,
        size: int,
        *,
        include: Sequence[str] | str = (),
        exclude: Sequence[str] | str = (),
        **conditions: Any,  # noqa: ANN401
    ) -> xr.Dataset:
        """Return a panel chosen anew within conditions, a row a gene, in order.

        What `dglzarr panel` does: why each gene is on it, what it serves and what can be had
        instead. ``attrs`` tell the error on held-out samples (z units), that of a panel without
        conditions, and the difference with its 95 % interval over series.

        Parameters
        ----------
        size
            Genes.
        include, exclude
            Genes that it holds, and that it must not hold: names, or a file of them.
        conditions
            Others by name, as `dglzarr.evaluation.order.Conditions` has them.

        Raises
        ------
        ConfigError
            When a gene is not known, or the conditions leave too few.

        Examples
        --------
        >>> panel = open_study(study).dgl.panel(4, include=["SIM1"])
        >>> panel.gene_symbol.values[0], panel.sizes["position"]
        ('SIM1', 4)
        """
        from dglzarr.evaluation.order import Conditions  # noqa: PLC0415  (as for `_maker`)

        a_number(size, "panel")
        known = [one.name for one in fields(Conditions)][3:]  # size and lists aside
        for name, value in conditions.items():
            _refuse_condition(name, value, known)
        asked = Conditions(int(size), self._listed(include), self._listed(exclude), **conditions)
        self._whole("panel")
        try:
            made = self._maker.order(asked)
        except (ConfigError, SourceError) as error:
            raise type(error)(_in_python(str(error))) from None
        price = made.price["all"]
        found = xr.Dataset.from_dataframe(made.table.set_index("position"))
        return found.assign_attrs(
            error=price.error,
            error_without_conditions=price.free,
            difference=price.difference,
            interval=[price.low, price.high],
            notes="\n".join(map(_in_python, made.notes)),
        )

    def why(self, *names: str) -> list[str]:
        """Return in words where genes stand and why: rank, panels, what they do on the mined one.

        Of a gene that is not on it, the gene that is and is most like it.

        Raises
        ------
        ConfigError
            When a gene is not known, or the study has no panel.

        Examples
        --------
        >>> open_study(study).dgl.why("SIM1")[0].split(",")[0]
        'SIM1 (200001_at): rank 127 of 154'
        """
        from dglzarr.query.why import why  # noqa: PLC0415  (as for `_maker`)

        self._whole("why")
        places = self.names.find_all(names)
        every = self.facts(np.arange(len(self.names.labels)))
        return why(every, places, self._maker, root=self.root)

    @cached_property
    def _maker(self) -> Any:  # noqa: ANN401
        from dglzarr.evaluation.order import PanelMaker  # noqa: PLC0415  (scikit-learn, a second)

        return PanelMaker(self.root)

    def _listed(self, genes: Sequence[str] | str) -> Sequence[str] | str:
        """Return genes as `select` knows them: an alias becomes its symbol."""
        if isinstance(genes, str) and Path(genes).is_file():
            return genes
        if isinstance(genes, str) or not isinstance(genes, Iterable):
            genes = [genes]
        return [self.names.official(a_name(name, "panel")) for name in genes]

    # ------------------------------------------------------------ stores

    @property
    def _matrix(self) -> xr.DataArray:
        return aligned(self._store("normalized")["expression"], "gene", self.names.labels)

    def _get(self, name: str) -> xr.Dataset | None:
        if name not in self._tree.children:
            return None
        found = self._tree[name].to_dataset()
        if "problem" in found.attrs:
            raise StoreError(str(found.attrs["problem"]))
        return found

    def _is_sound(self, name: str) -> bool:
        """Return whether a store is there and of this study."""
        return name in self._tree.children and "problem" not in self._tree[name].attrs

    def _store(self, name: str) -> xr.Dataset:
        found = self._get(name)
        if found is None:
            raise ConfigError(
                f"{self.root}: expected a study with {name!r}, got one without. Run its stage."
            )
        return found

    def _whole(self, question: str) -> xr.Dataset:
        """Return the normalized expression where it is all of it: its store is read by place.

        So are the names of the genes, and which samples are kept.
        """
        ds = self._store("normalized")
        whole = open_parts([one["uri"] for one in json.loads(ds.attrs["segments"])])
        (n, m), got = (whole.sizes[d] for d in _DIMS), tuple(ds.sizes[d] for d in _DIMS)
        remedy = "Ask what dglzarr.open_study returns, and choose afterwards."
        if got != (n, m):
            raise ConfigError(
                f"{question}: expected the whole study, {n} samples x {m} genes, got "
                f"{got[0]} x {got[1]}. {remedy}"
            )
        found = self._get("samples")
        parts = {"sample": [ds, *([] if found is None else [found])], "gene": [ds]}
        for dim in _DIMS:
            known = [list(map(str, part[dim].values)) for part in parts[dim]]
            known += [self.names.labels] if dim == "gene" else []
            if any(labels != list(map(str, whole[dim].values)) for labels in known):
                raise ConfigError(
                    f"{question}: expected the {dim}s in the order of the study, got others, or "
                    f"another order. {remedy}"
                )
        return ds

    def _labelled(self) -> xr.Dataset:
        """Return a store with the names of all genes: the first that there is."""
        for name in ("landmarks", "scores", "normalized", "expression"):
            if (ds := self._get(name)) is not None:
                return ds
        raise ConfigError(
            f"{self.root}: expected a study with genes, got none. Run 'dglzarr mine'."
        )

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.names.labels)}

    def places(self, labels: Iterable[Any]) -> NDArray[np.int64]:
        """Return where genes of some labels stand, in their order."""
        return np.array([self._place_of[str(label)] for label in labels], dtype=np.int64)

    @cached_property
    def _known(self) -> xr.Dataset:
        """All that is known of every gene, in the order of the names, in memory."""
        ds = self._labelled()
        labels = {n: ds[n].variable for n in ("gene", "gene_symbol", "gene_id") if n in ds.coords}
        found = xr.Dataset(coords=labels)
        for store, told in _FACTS.items():
            if store == "reconstruction" and not self._is_sound(store):
                continue  # one column, and of a refit that goes on; a warning told of it
            if (part := self._get(store)) is None:
                continue
            index = part.indexes["gene"].get_indexer(ds.indexes["gene"])
            for name, called in told.items():
                if name in part and called not in found:
                    found[called] = part[name].isel(gene=index).variable
                    others = {d: part[d].variable for d in part[name].dims if d != "gene"}
                    found = found.assign_coords(others)
        return found.load()

    def facts(self, places: NDArray[np.int64]) -> xr.Dataset:
        """Return what is known of some genes."""
        found = self._known.isel(gene=places)
        ranked = self._get("landmarks")
        if ranked is None:
            return found
        genes = ranked["panel_gene"].values
        asked = found["gene"].values.astype(str)
        on = np.stack([np.isin(asked, row.astype(str)) for row in genes])
        return found.assign(on_panel=(("panel", "gene"), on)).assign_coords(
            panel=ranked["panel"].variable
        )


def _refuse_condition(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse what is no condition of a panel, or no number where one is meant."""
    if name not in known:
        raise ConfigError(
            f"panel: expected some of {', '.join(known)}, got {name!r}{hint(name, known)}."
        )
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if name in _NUMBERS and value is not None and not is_number:
        raise ConfigError(f"panel: expected a number as {name}, got {repr(value)[:60]}.")


def _in_python(text: str) -> str:
    """Return a line about options as Python calls them.

    Examples
    --------
    >>> _in_python("--min-mean, --size: expected 1 - 5.")
    'min_mean, size: expected 1 - 5.'
    """
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), text)


def _told(gene: str, of: str, others: Sequence[str]) -> str:
    """Return a line that names the feature which a name of several was taken for, else ''."""
    if not others:
        return ""
    some = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    count = len(others) + 1
    return f"{gene[:60]!r} has {count} features: these are of {of}, best ranked; also {some}."


@xr.register_dataset_accessor("dgl")  # type: ignore[no-untyped-call]
class StoreQuestions(_Questions):
    """Questions to one store: ``dglzarr.open(uri).dgl``.

    Parameters
    ----------
    ds
        What `dglzarr.open` or ``xarray.open_zarr`` returns, or a part of it.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = with_objects(ds)

    @cached_property
    def names(self) -> GeneNames:
        """The names that genes are found by."""
        self._needs("gene", "genes")
        return names_of(self._ds)

    @cached_property
    def labels(self) -> SampleLabels:
        """What is known of the samples."""
        self._needs("sample", "samples")
        return SampleLabels(self._ds, self._ds)

    def top(self, n: int = 20) -> xr.Dataset:
        """Return the part of the store of its first genes: by rank, else by score.

        Raises
        ------
        ConfigError
            When it has neither.

        Examples
        --------
        >>> import dglzarr
        >>> dglzarr.open(f"{study}#scores").dgl.top(2).sizes["gene"]
        2
        """
        n = a_number(n, "top")
        for name, sign in (("rank", 1), ("score", -1)):
            if name in self._ds and self._ds[name].dims == ("gene",):
                return self._ds.isel(gene=np.argsort(sign * self._ds[name].values)[:n])
        raise ConfigError(
            f"{self._called}: expected ranks or scores of genes, got none. Ask landmarks or scores."
        )

    def gene(self, *names: str) -> xr.Dataset:
        """Return the part of the store of some genes, by any of their names.

        Raises
        ------
        ConfigError
            When the store has no genes, or no such gene; with the names most like it.

        Examples
        --------
        >>> import dglzarr
        >>> dglzarr.open(f"{study}#normalized").dgl.gene("SIM1").expression.shape
        (120, 1)
        """
        return self._ds.isel(gene=self.names.find_all(names))

    @property
    def _called(self) -> str:
        return str(self._ds.attrs.get("uri", "dgl"))

    @property
    def _matrix(self) -> xr.DataArray:
        for array in self._ds.data_vars.values():
            if array.dims == ("sample", "gene"):
                return array
        raise ConfigError(
            f"{self._called}: expected values (sample, gene), got none. Ask normalized."
        )

    def _needs(self, dim: str, what: str) -> None:
        if dim not in self._ds.coords:
            raise ConfigError(f"{self._called}: expected a store of {what}, got one without.")
