"""Wide matrices, whatever file they come in: what names of genes say, and which way they lie.

TCGA writes ``TP53|7157`` and DepMap ``TP53 (7157)``; the latter has samples in rows, with columns
of text before the genes. Reads no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.base import LeftOut, Reading, Values
from dglzarr.sources.columns import reserved_row
from dglzarr.sources.identifiers import first_symbol, split_pair
from dglzarr.sources.turned import is_gene

_MOST = 0.9
_FEWEST_PAIRS = 20
_YES = ("yes", "true", "1")
_DEFAULT_ENTRIES = (
    ("IsDefaultEntryForModel", "ModelID"),
    ("IsDefaultEntryForMC", "ModelConditionID"),
)
"""DepMap's marks of the profile that stands for a model, and the id it then has."""


@dataclass(frozen=True)
class Picked:
    """Some rows of a matrix, in ascending order, read by runs of neighbours."""

    values: Values
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples and of genes."""
        return (self.rows.size, *self.values.shape[1:])

    def __getitem__(self, samples: slice, /) -> NDArray[np.floating]:
        """Return the rows of a slice of samples."""
        rows = self.rows[samples]
        pick = getattr(self.values, "pick", None)
        if pick is not None:
            return np.asarray(pick(rows))
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        parts = [self.values[int(run[0]) : int(run[-1]) + 1] for run in runs if run.size]
        if not parts:
            return self.values[0:0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class SampleRows(NamedTuple):
    """Samples that stand in rows: their ids, which rows they are, labels, what is left out."""

    samples: list[str]
    rows: NDArray[np.int64]
    labels: dict[str, list[str]]
    left_out: tuple[LeftOut, ...]


def pair_symbols(names: Sequence[str]) -> list[str] | None:
    """Return the symbols in names that pair them with ids, None where most names do not.

    Examples
    --------
    >>> pair_symbols(["TP53 (7157)", "?|653553"]), pair_symbols(["1007_s_at"])
    (['TP53', ''], None)
    """
    pairs = [split_pair(name) for name in names]
    if sum(map(bool, pairs)) < _MOST * len(names):
        return None
    return [first_symbol(p[0] if p else name) for name, p in zip(names, pairs, strict=True)]


def has_samples_in_rows(columns: Sequence[str], reading: Reading) -> bool:
    """Return whether samples stand in rows: as stated, or because the columns are genes.

    Parameters
    ----------
    columns
        The header, its first name aside.
    reading
        Says where samples are, or nothing.

    Examples
    --------
    >>> has_samples_in_rows([f"GENE{i} ({i})" for i in range(30)], Reading())
    True
    >>> has_samples_in_rows([f"liver ({i})" for i in range(30)], Reading())
    False
    """
    if reading.samples_in is not None:
        return reading.samples_in == "rows"
    pairs = [pair for pair in map(split_pair, columns) if pair]
    if len(pairs) < max(_FEWEST_PAIRS, 0.8 * len(columns)):  # some are labels
        return False
    return len({symbol for symbol, _ in pairs}) >= _MOST * len(pairs)


def gene_columns(
    name: str, columns: Sequence[str], first_row: Sequence[str], reading: Reading
) -> list[int]:
    """Return which columns of a matrix with samples in rows are genes: the others are labels.

    They are those that value_columns say, else those that pair symbols with ids, else those whose
    first cell is a number or missing, without facts about samples before and after them; never the
    first column.

    Raises
    ------
    SourceError
        If there is none.
    """
    places = range(1, len(columns))
    if reading.value_columns:
        found = [
            p for p in places if any(fnmatchcase(columns[p], w) for w in reading.value_columns)
        ]
    else:
        found = [p for p in places if split_pair(columns[p])]
        if 2 * len(found) < len(columns):
            found = [p for p in places if p < len(first_row) and _is_numeric(first_row[p])]
            found = _without_facts(columns, found)
    if not found:
        raise SourceError(
            f"{name}: expected columns of genes behind the first, as samples_in = 'rows' says, got "
            "none of numbers. Correct the setting, or name the genes as value_columns."
        )
    return found


def _without_facts(columns: Sequence[str], places: list[int]) -> list[int]:
    """Return columns without those before and after the genes that are called as no gene is.

    Where half are known genes: words with small letters and without digits, such as ``stage``;
    where most are, all others.

    Examples
    --------
    >>> _without_facts(["id", "bmi", "os_months", "TP53", "KRAS", "MYC"], [1, 2, 3, 4, 5])
    [3, 4, 5]
    """
    share = sum(is_gene(columns[p]) for p in places) / max(1, len(places))
    if share < 0.5:
        return places
    able = [
        i
        for i, p in enumerate(places)
        if (is_gene(columns[p]) if share >= _MOST else not _is_fact(columns[p]))
    ]
    return places[able[0] : able[-1] + 1]


def _is_fact(column: str) -> bool:
    is_word = not any(map(str.isdigit, column)) and column != column.upper()
    return bool(reserved_row(column)) or (is_word and not is_gene(column))


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell in ("", "NA", "N/A", "null", "NULL")
    return True


def sort_rows(name: str, header: Sequence[str], text: Sequence[Sequence[str]]) -> SampleRows:
    """Return the samples of a matrix that has them in rows, by its columns of text.

    Ids are the first column without a repeat, better one of no whole numbers. Of DepMap's files
    the default profile of each model is kept, under the model's id.

    Parameters
    ----------
    name
        The file, which an error names.
    header, text
        Names and cells of the columns that are no genes.

    Raises
    ------
    SourceError
        If no column names the samples, or none is a default profile.
    """
    known = {column.lower(): list(cells) for column, cells in zip(header, text, strict=True)}
    rows = np.arange(len(text[0]))
    order = list(range(len(header)))
    left_out: tuple[LeftOut, ...] = ()
    for mark, own in _DEFAULT_ENTRIES:
        if mark.lower() in known and own.lower() in known:
            rows, left_out = _default_rows(name, mark, known[mark.lower()], text[0])
            at = [column.lower() for column in header].index(own.lower())
            order = [at, *(place for place in order if place != at)]
            break
    kept = [[cells[row] for row in rows.tolist()] for cells in text]
    able = [place for place in order if _are_ids(kept[place])]
    ids = next((p for p in able if not all(map(str.isdecimal, kept[p]))), next(iter(able), None))
    if ids is None:
        shown = ", ".join(map(repr, header[:5]))
        raise SourceError(
            f"{name}: expected a column of sample ids without repeats, got {shown}. Add one as the "
            "first column."
        )
    labels = {
        column: cells
        for place, (column, cells) in enumerate(zip(header, kept, strict=True))
        if place != ids and column
    }
    return SampleRows(kept[ids], rows, labels, left_out)


def _default_rows(
    name: str, mark: str, cells: Sequence[str], ids: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[LeftOut, ...]]:
    """Return the rows that are marked as the default, and what is said of the others."""
    is_kept = np.array([cell.strip().lower() in _YES for cell in cells], np.bool_)
    if not is_kept.any():
        raise SourceError(f"{name}: expected 'Yes' for some samples in {mark!r}, got none.")
    others = [
        (f"not marked as default in {mark!r}", ids[i]) for i in np.flatnonzero(~is_kept).tolist()
    ]
    return np.flatnonzero(is_kept), LeftOut.group("samples", others)


def _are_ids(cells: Sequence[str]) -> bool:
    """Return whether cells name samples: none is empty or repeated."""
    return len(set(cells)) == len(cells) and "" not in cells
