"""Gene labels: lists of ids, probe annotation, published panels, and matching across studies.

Reads small text files whole; writes no store. Whether a study is of probes or of genes is a
setting of ingest.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError

FeatureKind = Literal["probe", "gene"]
"""What a study's genes are: features by label, or gene symbols, by which platforms are joined."""

SYMBOL_COLUMNS = ("symbol", "genesymbol", "genesym", "hgncsymbol", "prgenesymbol")
"""Headers of a column of gene symbols: lower case, letters and digits only."""

GENE_ID_COLUMNS = (
    "geneid",
    "entrezgeneid",
    "entrezgene",
    "entrezid",
    "entrez",
    "ensembl",
    "ensemblgeneid",
    "prgeneid",
)
"""Headers of a column of Entrez or Ensembl gene ids, in the same form."""

_PANEL_HEADERS = frozenset(
    (
        *SYMBOL_COLUMNS,
        *GENE_ID_COLUMNS,
        "id",
        "idref",
        "gene",
        "probe",
        "probeid",
        "probeset",
        "name",
    )
)
_ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*\d+)\.\d+(_PAR_Y)?$")
_MULTIPLE = re.compile(r"\s*/{2,}\s*")


def strip_version(gene_id: str) -> str:
    """Return an Ensembl id without its version; other ids as they are.

    Examples
    --------
    >>> strip_version("ENSG00000223972.4"), strip_version("AC012345.1")
    ('ENSG00000223972', 'AC012345.1')
    """
    return _ENSEMBL_VERSION.sub(r"\1", gene_id)


def first_symbol(symbols: str) -> str:
    """Return the first of several symbols joined by `///`; "" for none.

    Examples
    --------
    >>> first_symbol("DDR1 /// MIR4640"), first_symbol("---")
    ('DDR1', '')
    """
    first = _MULTIPLE.split(symbols.strip(), maxsplit=1)[0].strip()
    return "" if first in ("---", "NA", "-666") else first


def read_gene_list(path: str | Path) -> list[str]:
    """Return the ids of a file with one id a line; blank lines and # comments are left out.

    Raises
    ------
    SourceError
        If the file is missing, empty, has several columns or repeats an id.
    """
    path = Path(path)
    line_of: dict[str, int] = {}
    for line, text in _lines(path):
        name = re.sub(r"(^|\s)#.*", "", text).strip().strip('"')
        if not name:
            continue
        if "\t" in name:
            raise SourceError(
                f"{path.name}, line {line}: expected one id a line, got several cells."
            )
        if name in line_of:
            raise SourceError(
                f"{path.name}, line {line}: expected each id once, got {name!r} of line "
                f"{line_of[name]} again. Drop the repeat."
            )
        line_of[name] = line
    if not line_of:
        raise SourceError(f"{path.name}: expected at least one id, got none.")
    return list(line_of)


@dataclass(frozen=True)
class Annotation:
    """What probes measure: gene symbol and gene id by probe, "" where none."""

    symbol: dict[str, str]
    gene_id: dict[str, str]


def read_annotation_table(path: str | Path) -> Annotation:
    """Return gene symbols and gene ids by probe from a table with a header.

    The first column holds the probe ids. Of several symbols (`A /// B`) the first is taken; of
    several rows of a probe the first that says something. GEO platform files (GPL, `.annot`)
    are read between their table markers.

    Raises
    ------
    SourceError
        If the file is missing, no table, or has neither column; names the columns found.
    """
    path = Path(path)
    rows = _platform_rows(path)
    line, header = next(rows, (1, []))
    names = [_plain(name) for name in header]
    key = 1 if names[:1] == [""] and "id" in "".join(names[1:2]) else 0
    symbol = _find(names, SYMBOL_COLUMNS, key)
    gene_id = _find(names, GENE_ID_COLUMNS, key)
    if symbol is None and gene_id is None:
        raise SourceError(
            f"{path.name}, line {line}: expected a column 'Gene Symbol' or 'Gene ID', got "
            f"{', '.join(map(repr, header[:5]))}. Give a table with a header."
        )
    annotation = Annotation({}, {})
    for _, row in rows:
        cells = row + [""] * (len(header) - len(row))
        for place, target in ((symbol, annotation.symbol), (gene_id, annotation.gene_id)):
            if place is not None and not target.get(cells[key]):
                target[cells[key]] = first_symbol(cells[place])
    return annotation


def feature_symbols(
    labels: Sequence[str], symbols: Sequence[str], annotation: Annotation | None = None
) -> list[str]:
    """Return the gene symbol of each feature of a source, "" where it is unknown.

    The annotation's by label; else the source's own; else the annotation's by Ensembl or Entrez
    id. A source of which no symbol is known has its labels taken for symbols.

    Parameters
    ----------
    labels, symbols
        Label and own symbol ("" none) of each feature.
    annotation
        What probes measure.

    Examples
    --------
    >>> feature_symbols(["1007_s_at", "x_at"], ["DDR1 /// MIR4640", ""])
    ['DDR1', '']
    >>> feature_symbols(["TP53", "MYC"], ["", ""])
    ['TP53', 'MYC']
    """
    known = annotation or Annotation({}, {})
    by_id = {_key(i): known.symbol.get(p, "") for p, i in known.gene_id.items() if i}
    found = [
        known.symbol.get(label) or first_symbol(own) or by_id.get(_key(label), "")
        for label, own in zip(labels, symbols, strict=True)
    ]
    return found if any(found) else [first_symbol(label) for label in labels]


def same_spelling(*lists: Sequence[str]) -> list[list[str]]:
    """Return lists of symbols in which a symbol is written as where it comes first.

    Examples
    --------
    >>> same_spelling(["C1orf112"], ["TP53", "C1ORF112"])
    [['C1orf112'], ['TP53', 'C1orf112']]
    """
    first: dict[str, str] = {}
    return [[first.setdefault(name.upper(), name) for name in names] for names in lists]


def check_coverage(
    names: Sequence[str],
    genes_of: Sequence[Sequence[str]],
    listed: Sequence[str],
    min_coverage: float,
) -> None:
    """Refuse a source that measures too few of the listed genes.

    Raises
    ------
    SourceError
        Naming the source, and how many it measures.
    """
    for name, genes in zip(names, genes_of, strict=True):
        found = len(set(listed).intersection(genes))
        if found < min_coverage * len(listed):
            raise SourceError(
                f"{name}: expected at least {min_coverage:.0%} of the {len(listed)} "
                f"listed probes, got {found} (first probes: {', '.join(genes[:3])}). Its "
                "platform is not the list's: remove it, or give it role = 'cohort'."
            )


def refuse_outlier(names: Sequence[str], genes_of: Sequence[Sequence[str]]) -> None:
    """Refuse the source without which the others share most, where that is twice as much.

    Raises
    ------
    SourceError
        Naming the source and what it shares with the others.
    """
    sets = [set(genes) for genes in genes_of]
    n_common = len(set.intersection(*sets))
    without = [len(set.intersection(*sets[:i], *sets[i + 1 :])) for i in range(len(sets))]
    possible = [min(n, len(genes)) for n, genes in zip(without, sets, strict=True)]
    worst = int(np.argmax(possible))
    if n_common and n_common >= 0.5 * possible[worst]:
        return
    raise SourceError(
        f"{names[worst]}: shares {n_common} probes with all the other training sources "
        f"together, which share {without[worst]} among themselves (first probes: "
        f"{', '.join(genes_of[worst][:3])}). Unknown platform: remove it, give it "
        "role = 'cohort', list the probes to use (ingest.probes), or join sources by gene "
        "(ingest.feature_kind = 'gene', with ingest.annotation)."
    )


def choose_genes(
    names: Sequence[str],
    genes_of: Sequence[Sequence[str]],
    listed: list[str] | None,
    min_coverage: float,
) -> list[str]:
    """Return the genes of a study: the listed ones, else those common to all sources, sorted.

    Parameters
    ----------
    names, genes_of
        Each source's name, and what it measures.
    listed
        The study's genes, where they are given.
    min_coverage
        Smallest share of them that a source must measure.

    Raises
    ------
    SourceError
        When a source measures too few of the listed genes, or shares too few with the others.

    Examples
    --------
    >>> choose_genes(["GSE1", "GSE2"], [["b", "a", "c"], ["c", "b"]], None, 0.9)
    ['b', 'c']
    """
    if listed is not None:
        check_coverage(names, genes_of, listed, min_coverage)
        return listed
    if len(names) > 1:
        refuse_outlier(names, genes_of)
    return sorted(set(genes_of[0]).intersection(*genes_of[1:]))


def name_genes(
    genes: list[str],
    kind: FeatureKind,
    annotation: Annotation | None,
    sources: Iterable[tuple[Iterable[str], Iterable[str]]],
) -> tuple[list[str], list[str]]:
    """Return symbol and ID of each gene of a study, "" where unknown.

    Parameters
    ----------
    genes
        The genes: symbols already where ``kind`` is ``"gene"``.
    kind
        What they are.
    annotation
        What probes measure: asked first, and alone where it is given.
    sources
        Labels and own symbols of each source's features; of two symbols the last counts.

    Examples
    --------
    >>> name_genes(["1_at", "2_at"], "probe", None, [(["2_at", "1_at"], ["MYC", ""])])
    (['', 'MYC'], ['', ''])
    """
    if kind == "gene":
        known = annotation or Annotation({}, {})
        id_of = {s.upper(): known.gene_id.get(p, "") for p, s in known.symbol.items()}
        return genes, [id_of.get(gene.upper(), "") for gene in genes]
    if annotation is not None:
        symbol, gene_id = annotation.symbol, annotation.gene_id
        return [symbol.get(g, "") for g in genes], [gene_id.get(g, "") for g in genes]
    symbols: dict[str, str] = {}
    for labels, own in sources:
        symbols |= {str(g): str(s) for g, s in zip(labels, own, strict=True) if s}
    return [symbols.get(g, "") for g in genes], [""] * len(genes)


@dataclass(frozen=True)
class PanelMatch:
    """A published panel in a study: labels found, in the file's order, and entries missing."""

    genes: list[str]
    missing: list[str]


def read_panel(
    path: str | Path,
    *,
    genes: Sequence[str],
    symbols: Sequence[str] | None = None,
    gene_ids: Sequence[str] | None = None,
) -> PanelMatch:
    """Return the study's labels for a published list of genes.

    Parameters
    ----------
    path
        TSV or CSV, with or without a header; every column is tried and the one that finds most
        entries is taken. A cell of a TSV may join several ids with commas.
    genes
        Labels of the study: tried first.
    symbols
        Gene symbol of each label: tried where labels find less.
    gene_ids
        Entrez or Ensembl id of each label, versions ignored: tried last.

    Returns
    -------
    PanelMatch
        An entry measured by several labels stands for the first of them.

    Raises
    ------
    SourceError
        If the file is missing or no column names a gene of the study.
    """
    path = Path(path)
    rows = [row for _, row in _rows(path)]
    if rows and any(_plain(cell) in _PANEL_HEADERS for cell in rows[0]):
        rows = rows[1:]
    lookups = [_first_label(names, genes) for names in (genes, symbols, gene_ids) if names]
    best: tuple[int, list[str], dict[str, str]] = (0, [], {})
    columns = range(max(map(len, rows), default=0))
    entries_of = [list(dict.fromkeys(_entries(rows, column))) for column in columns]
    for lookup, entries in product(lookups, entries_of):
        n_found = sum(_key(entry) in lookup for entry in entries)
        if n_found > best[0]:
            best = (n_found, entries, lookup)
    _, entries, lookup = best
    if not entries:
        example = ", ".join(map(repr, (rows[0] if rows else [])[:5]))
        raise SourceError(
            f"{path.name}: expected ids or symbols of the study's genes such as {genes[0]!r}, got "
            f"{example or 'no rows'}. Give ingest.annotation to match by symbol."
        )
    found = dict.fromkeys(lookup[_key(entry)] for entry in entries if _key(entry) in lookup)
    return PanelMatch(list(found), [entry for entry in entries if _key(entry) not in lookup])


def find_genes(
    names: Sequence[str],
    *,
    genes: Sequence[str],
    symbols: Sequence[str],
    gene_ids: Sequence[str],
) -> list[list[int]]:
    """Return where each name's features stand: those of that label, else symbol, else gene id.

    Parameters
    ----------
    names
        Labels, symbols, Entrez or Ensembl ids; letter case and Ensembl versions are ignored.
    genes, symbols, gene_ids
        Label, symbol and id of every feature.

    Examples
    --------
    >>> find_genes(["B", "2", "c"], genes=["a", "b"], symbols=["C", "C"], gene_ids=["1", "2"])
    [[1], [1], [0, 1]]
    """
    places = [_places([first_symbol(n) for n in of], _key) for of in (genes, symbols, gene_ids)]
    return [next((p[_key(name)] for p in places if _key(name) in p), []) for name in names]


@dataclass(frozen=True)
class GeneMatch:
    """Which genes of a cohort measure which genes of a study.

    Pair `i` says that cohort gene `query[i]` measures study gene `study[i]`; `study` ascends and
    repeats where several cohort genes measure one.
    """

    study: NDArray[np.int64]
    query: NDArray[np.int64]
    n_study: int

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether each study gene is measured `(gene,)`."""
        return np.isin(np.arange(self.n_study), self.study)

    @property
    def _is_identity(self) -> bool:
        every = np.arange(self.n_study)
        return np.array_equal(self.study, every) and np.array_equal(self.query, every)

    def apply(self, block: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return a cohort's block in the study's genes `(sample, gene)`.

        Several cohort genes of one study gene are averaged, missing values aside; a study gene
        that the cohort lacks is NaN.

        Examples
        --------
        >>> match = match_genes(["X", "Y", "Z"], None, ["a", "b"], ["Y", "W"])
        >>> match.apply(np.array([[1.0, 2.0, 3.0]]))
        array([[ 2., nan]], dtype=float32)
        """
        if block.shape[1] == self.n_study and self._is_identity:
            return np.asarray(block, np.float32)
        matched = np.full((len(block), self.n_study), np.nan, np.float32)
        if (np.diff(self.study) > 0).all():
            matched[:, self.study] = block[:, self.query]
        else:
            picked = np.asarray(block, np.float64)[:, self.query]
            known = ~np.isnan(picked)
            genes, starts = np.unique(self.study, return_index=True)
            total = np.add.reduceat(np.where(known, picked, 0.0), starts, axis=1)
            count = np.add.reduceat(known, starts, axis=1, dtype=np.int64)
            with np.errstate(invalid="ignore"):
                matched[:, genes] = total / count
        return matched


def match_labels(labels: Sequence[str], genes: Sequence[str]) -> GeneMatch:
    """Return which features of a source measure which genes of a study, by equal labels alone.

    Examples
    --------
    >>> match_labels(["c", "a"], ["a", "b", "c"]).query
    array([1, 0])
    """
    place = {label: i for i, label in enumerate(labels)}
    index = np.array([place.get(gene, -1) for gene in genes], np.int64)
    return GeneMatch(np.flatnonzero(index >= 0), index[index >= 0], len(genes))


def match_genes(
    query_ids: Sequence[str],
    query_symbols: Sequence[str] | None,
    gene_labels: Sequence[str],
    gene_symbols: Sequence[str] | None = None,
    *,
    gene_ids: Sequence[str] | None = None,
) -> GeneMatch:
    """Return which of a cohort's genes measure which genes of a study.

    Each study gene takes the first of these that finds cohort genes: equal labels; labels equal
    without Ensembl versions; the study's gene id; its symbol (or label) among the cohort's
    symbols, or ids where the cohort has none. Letter case is ignored.

    Parameters
    ----------
    query_ids, query_symbols
        Ids and symbols of the cohort's genes.
    gene_labels, gene_symbols, gene_ids
        Labels, symbols and Entrez or Ensembl ids of the study's genes.
    """
    exact = _places(query_ids, str)
    stripped = _places(query_ids, _key)
    by_symbol = stripped
    if query_symbols is not None:
        by_symbol = _places([first_symbol(name) for name in query_symbols], _key)
    study: list[int] = []
    query: list[int] = []
    for place, label in enumerate(gene_labels):
        gene_id = gene_ids[place] if gene_ids is not None else ""
        symbol = first_symbol(gene_symbols[place]) if gene_symbols is not None else ""
        found = (
            exact.get(label)
            or stripped.get(_key(label))
            or stripped.get(_key(gene_id))
            or by_symbol.get(_key(symbol))
            or by_symbol.get(_key(label))
            or []
        )
        study.extend([place] * len(found))
        query.extend(found)
    return GeneMatch(np.array(study, np.int64), np.array(query, np.int64), len(gene_labels))


def _places(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    """Return where each non-empty name stands, by its key."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if first_symbol(name):
            places.setdefault(key(name), []).append(place)
    return places


def _first_label(names: Sequence[str], genes: Sequence[str]) -> dict[str, str]:
    """Return the first label of each non-empty name, by its key."""
    labels: dict[str, str] = {}
    for name, gene in zip(names, genes, strict=True):
        if first_symbol(name):
            labels.setdefault(_key(first_symbol(name)), gene)
    return labels


def _key(name: str) -> str:
    """Return a name as it is compared: no Ensembl version, upper case."""
    return strip_version(name).upper()


def _entries(rows: Iterable[Sequence[str]], column: int) -> Iterator[str]:
    """Yield the ids in a column, comma-joined ones apart."""
    for row in rows:
        if column < len(row):
            yield from filter(None, (part.strip() for part in row[column].split(",")))


def _find(names: Sequence[str], wanted: Sequence[str], key: int) -> int | None:
    """Return the place of the first wanted column beside the key, or None."""
    places = [names.index(name) for name in wanted if name in names]
    return next((place for place in places if place != key), None)


def _plain(name: str) -> str:
    """Return a header in lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _platform_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table; of a GEO platform file those between the markers."""
    rows = list(_rows(path))
    begin = [i for i, (_, row) in enumerate(rows) if row[0].lower() == "!platform_table_begin"]
    for line, row in rows[begin[0] + 1 if begin else 0 :]:
        if row[0].lower().startswith(("!platform_table_end", "!sample_table_end")):
            return
        if not row[0].startswith(("#", "!", "^")):
            yield line, row


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, cells) of the non-blank lines; tabs separate where any line has one."""
    lines = [(line, text) for line, text in _lines(path) if text.strip()]
    is_tab = any("\t" in text for _, text in lines)
    for line, text in lines:
        cells = text.split("\t") if is_tab else next(csv.reader([text]))
        yield line, [cell.strip().strip('"') for cell in cells]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines of a plain or gzip file, UTF-8 or else latin-1."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: expected a readable text file, got {error}.") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\0" in text[:4096]:
        raise SourceError(f"{path.name}: expected text, got binary data.")
    yield from enumerate(re.split(r"\r\n|\n|\r", text), start=1)
