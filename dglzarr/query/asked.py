"""One question in words of the command line, and its answer as a table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError, hint
from dglzarr.query.answers import MOST_DRAWN, gene_table
from dglzarr.query.stores import is_study, open  # noqa: A004  (dglzarr.open)
from dglzarr.query.tables import table
from dglzarr.query.tree import open_study

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Mapping, Sequence

    import xarray as xr
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from dglzarr.query.answers import Groups
    from dglzarr.query.questions import StoreQuestions, StudyQuestions

TOP = 20


@dataclass(frozen=True)
class Asked:
    """A question: what is left out is not asked.

    Attributes
    ----------
    genes, samples
        Names of genes, and labels of samples.
    top
        How many genes, first by rank; of a latent unit or of neighbours, best first. Of ``by``:
        how many groups, the largest.
    latent
        A latent unit: which genes move it.
    neighbours
        A gene: which genes are like it.
    by
        A label: genes by it, or the sizes of its groups.
    lists_samples
        Samples, and what is known of them; with genes, also their expression.
    labels
        Only samples of these labels, name and values; they are listed, or grouped ``by`` one.
    aliases
        A table of other names of genes, as for `open_study`.
    """

    genes: Sequence[str] = ()
    samples: Sequence[str] = ()
    top: int | None = None
    latent: int | None = None
    neighbours: str = ""
    by: str = ""
    lists_samples: bool = False
    labels: Mapping[str, Sequence[str]] | None = None
    aliases: str = ""

    def __post_init__(self) -> None:
        """Refuse questions that exclude each other."""
        given = {
            "--latent": self.latent is not None,
            "--neighbours": bool(self.neighbours),
            "--by": bool(self.by),
            "--samples": self.lists_samples,
        }
        if len(both := [name for name, is_given in given.items() if is_given]) > 1:
            raise ConfigError(f"{both[0]}: expected one question, got {both[1]} too. Ask twice.")
        label = "--series" if "series" in (self.labels or ()) else "--label"
        filters = {"--gene": self.genes, "--sample": self.samples, label: self.labels}
        for name, given_too in filters.items():
            if given_too and both and both[0] in ("--latent", "--neighbours"):
                raise ConfigError(f"{name}: expected without {both[0]}. Ask twice.")
        lists = {"--gene": self.genes, "--samples": self.lists_samples, label: self.labels}
        listed = next((name for name, is_given in lists.items() if is_given), "")
        if self.top is not None and listed and not self.by:
            raise ConfigError(f"--top: expected without {listed}, which lists all. Leave it out.")


def answer(place: str, asked: Asked) -> pd.DataFrame:
    """Return the answer of a study, or of one of its stores, as a table; every column is named.

    Parameters
    ----------
    place
        The folder of a study; or a store, as for `dglzarr.open`.

    Raises
    ------
    ConfigError
        When a name is not known, or the store cannot answer such a question.
    """
    if is_study(place):
        return _of_study(open_study(place, aliases=asked.aliases).dgl, asked)
    if asked.latent is not None or asked.neighbours or asked.aliases:
        raise ConfigError(f"{place}: expected the folder of a study for such a question.")
    if asked.by or asked.lists_samples or asked.labels:
        return _of_samples(open(place).dgl, asked)
    frame = table(place, genes=asked.genes, samples=asked.samples, top=asked.top or TOP)
    return frame.reset_index()


def _of_study(ask: StudyQuestions, asked: Asked) -> pd.DataFrame:
    n = asked.top or TOP
    if asked.latent is not None:
        return gene_table(ask.latent(asked.latent).top(n))
    if asked.neighbours:
        near = ask.neighbours(asked.neighbours, n)
        if not near.sizes["gene"]:
            raise ConfigError(
                f"--neighbours: expected a gene that varies over the kept training samples, got "
                f"{asked.neighbours[:60]!r}, which no gene is like. Ask for another."
            )
        frame = gene_table(near).assign(of=near.attrs["of"])
        frame.attrs["note"] = near.attrs["note"]
        return frame
    if asked.by or asked.lists_samples or asked.labels or asked.samples:
        return _of_samples(ask, asked)
    if asked.genes:
        return gene_table(ask.gene(*asked.genes))
    return gene_table(ask.top(n))


def _of_samples(ask: StudyQuestions | StoreQuestions, asked: Asked) -> pd.DataFrame:
    """Return samples, or their groups, with the expression of genes where any are asked for."""
    if asked.by:
        return _of_groups(*_groups(ask, asked), asked)
    places = _places(ask, asked)
    frame = ask.labels.table(places).to_dataframe().reset_index()
    if not asked.genes:
        return frame
    values = ask.expression(*asked.genes).isel(sample=places)
    shown = _headers(values, frame.columns)
    return frame.assign(**dict(zip(shown, np.asarray(values.values).T, strict=True)))


def _places(ask: StudyQuestions | StoreQuestions, asked: Asked) -> NDArray[np.int64]:
    """Return where the samples stand that are asked for; of groups, those that are counted."""
    wanted = asked.labels or {}
    if not asked.samples:
        return ask.labels.counted(asked.by, wanted) if asked.by else ask.labels.find(wanted)
    named = ask.labels.places(asked.samples)
    return named[np.isin(named, ask.labels.find(wanted))]


def _groups(ask: StudyQuestions | StoreQuestions, asked: Asked) -> tuple[Groups, str]:
    """Return the groups that are asked for, and in words which samples they leave out."""
    places = _places(ask, asked)
    groups = ask.by(asked.by).of(places)
    n = 0 if asked.samples else ask.labels.find(asked.labels or {}).size - places.size
    counts = "--label keep=True --label keep=False counts them"
    told = f"{n:,} near-duplicates are left out; {counts}." if n else ""
    return groups, " ".join(filter(None, (told, groups.without())))


def _of_groups(groups: Groups, note: str, asked: Asked) -> pd.DataFrame:
    """Return genes by group, or the sizes of the groups; the largest where so many are wanted."""
    sizes = groups.sizes()
    largest = np.sort(np.argsort(-sizes.values, kind="stable")[: asked.top])
    if asked.genes:
        found = groups.gene(*asked.genes).isel(group=largest).transpose("gene", "group")
        called = _free(asked.by, found.variables)
        frame = found.to_dataframe().reset_index().rename(columns={"group": called})
        first = ["gene", "gene_symbol", called]
        frame = frame[[c for c in first if c in frame] + [*map(str, found.data_vars)]]
    else:
        n = sizes.isel(group=largest).to_series()
        frame = pd.DataFrame({_free(asked.by, ["n"]): n.index, "n": n.to_numpy()})
    left_out = sizes.size - largest.size
    more = f"{left_out:,} smaller groups are left out." if left_out else ""
    frame.attrs["note"] = " ".join(filter(None, (note, more)))
    return frame


def draw(place: str, asked: Asked) -> tuple[Figure, str]:
    """Return the picture of genes by a label, and what is to be said of it, '' for nothing.

    Raises
    ------
    ConfigError
        When the question is another, or a name is not known.
    """
    if not (asked.by and asked.genes):
        raise ConfigError(
            "--format: expected --gene and --by for a picture, as in --gene GAPDH --by tissue, got "
            "another question. Choose table, tsv, csv, json or parquet for it."
        )
    ask = open_study(place, aliases=asked.aliases).dgl if is_study(place) else open(place).dgl
    groups, note = _groups(ask, asked)
    return groups.plot(*asked.genes, most=asked.top or MOST_DRAWN), note


def _free(label: str, taken: Container[Hashable]) -> str:
    """Return what the column of a label is called beside others."""
    return f"{label}_label" if label in taken else label


def _headers(values: xr.DataArray, taken: Container[Hashable]) -> list[str]:
    """Return what columns of genes are called: symbols, with the label where that is taken."""
    labels = [str(label) for label in values["gene"].values]
    symbols = (
        [str(s) for s in values["gene_symbol"].values] if "gene_symbol" in values.coords else labels
    )
    return [
        f"{name} ({label})" if symbols.count(name) > 1 or name in taken else name
        for name, label in ((s or label, label) for s, label in zip(symbols, labels, strict=True))
    ]


def choose_columns(frame: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Return some columns of a table in the order of their names; all where none is named.

    Parameters
    ----------
    columns
        Their names, joined by commas; one that has commas in quotes, or alone.

    Raises
    ------
    ConfigError
        When there is no such column.

    Examples
    --------
    >>> frame = pd.DataFrame({"sample": ["a"], "age, years": [7]})
    >>> [[*choose_columns(frame, text)] for text in ('age, years', 'sample, "age, years"')]
    [['age, years'], ['sample', 'age, years']]
    """
    known = [str(name) for name in frame.columns]
    parts = next(csv.reader([columns], skipinitialspace=True), [])
    names = [columns] if columns in known else [part.strip() for part in parts if part.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--columns: expected some of {', '.join(known[:20])}, got {name[:60]!r}"
                f"{hint(name, known)}."
            )
    return frame[names] if names else frame
