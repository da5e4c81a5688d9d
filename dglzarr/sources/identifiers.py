"""Gene labels: lists of ids, probe annotation, published panels, and matching across studies.

Reads small text files whole; writes no store. Whether a study is of probes or of genes is a
setting of ingest.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.dates import excel_dates, genes_of_date
from dglzarr.sources.text import TextStream, find_separator, read_rows, refuse_surplus
from dglzarr.sources.turned import known_symbols

FeatureKind = Literal["probe", "gene"]
"""What a study's genes are: features by label, or gene symbols, by which platforms are joined."""

SYMBOL_COLUMNS = (
    "genesymbol",
    "symbol",
    "hgncsymbol",
    "hugosymbol",
    "approvedsymbol",
    "prgenesymbol",
    "genesym",
    "symbols",
    "identifier",
    "geneshortname",
    "externalgenename",
    "genename",
    "gene",
)
"""Headers of a column of gene symbols, the surest first: lower case, letters and digits only."""

GENE_ID_COLUMNS = (
    "geneid",
    "entrezgeneid",
    "entrezgene",
    "entrezid",
    "entrez",
    "ncbigeneid",
    "ncbigeneformerlyentrezgeneid",
    "locuslinkid",
    "ensembl",
    "ensemblid",
    "ensemblgene",
    "ensemblgeneid",
    "genestableid",
    "genestableidversion",
    "prgeneid",
)
"""Headers of a column of Entrez or Ensembl gene ids, in the same form."""

ASSIGNMENT_COLUMN = "geneassignment"
"""Header of Affymetrix' column of `accession // symbol // title // band // Entrez id`."""

NO_NAME = frozenset(
    (
        *("", "-", "--", "---", "?", ".", "na", "n/a", "nan", "null", "none", "-666", "-666.0"),
        *("#n/a", "#name?", "#ref!", "#value!", "#div/0!", "#num!", "#null!"),
        *("unknown", "not available", "not applicable", "unnamed", "no symbol", "no match"),
        *("not found", "not assigned", "unassigned", "unannotated", "undefined"),
    )
)
"""Words, in lower case, that mean a feature has no symbol or id."""

_NO_VALUE = frozenset(("", "na", "n/a", "<na>", "nan", "null", "#n/a", "-666", "-666.0"))

_FEWEST_OTHERS, _MOST_ID = 10, 1e12

_LIST_HEADERS = frozenset(
    (
        *SYMBOL_COLUMNS,
        *GENE_ID_COLUMNS,
        *("id", "ids", "idref", "name", "names", "genes", "landmark", "landmarks"),
        *("probe", "probes", "probeid", "probeids", "probeset", "probesetid", "feature"),
    )
)
_ENSEMBL = re.compile(r"(ENS[A-Z]*?)(R?)(\d+)(\.\d+)?(_PAR_Y)?")
_WHOLE = re.compile(r"^(\d+)\.0+$")
_POWER = re.compile(r"^\d(\.\d+)?[eE]\+?(\d{1,2})$")
_PAIR = re.compile(r"(\S.*?)\s*(?:\((\d+|ENS[A-Z]*\d+(?:\.\d+)?)\)|\|(\d+|ENS[A-Z]*\d+(?:\.\d+)?))")
_SHEET = re.compile(r'"?position"?([\t,])"?gene"?\1"?gene_symbol\b')
"""How an order sheet of ``dglzarr panel`` begins."""
_MULTIPLE = re.compile(r"\s*(?:/{2,}|[;|])\s*")
_JOINTS = frozenset("/;|")
"""What joins symbols has one of them, and most symbols have none."""


def strip_version(gene_id: str) -> str:
    """Return an Ensembl id without its version and mark of chromosome Y; other ids as they are.

    Examples
    --------
    >>> strip_version("ENSG00000223972.4"), strip_version("AC012345.1")
    ('ENSG00000223972', 'AC012345.1')
    >>> strip_version("ENSG00000182378.8_PAR_Y"), strip_version("ENSGR0000182378.8")
    ('ENSG00000182378', 'ENSG00000182378')
    """
    found = _ENSEMBL.fullmatch(gene_id)
    if found is None:
        return gene_id
    prefix, is_copy, digits, *_ = found.groups()
    return f"{prefix}0{digits}" if is_copy else prefix + digits


def clean_id(gene_id: str) -> str:
    """Return a gene id without what a table of floats made of it, "" where it lost digits of it.

    Examples
    --------
    >>> clean_id("7157.0"), clean_id("1e+05"), clean_id("AC012345.1"), clean_id("3.5e38")
    ('7157', '100000', 'AC012345.1', '3.5e38')
    >>> clean_id("1.00130e+05"), clean_id("1.00E+08")  # as Excel writes 100130520
    ('100130', '')
    """
    if not gene_id[:1].isdigit():
        return gene_id
    if found := _WHOLE.match(gene_id):
        return found.group(1)
    found = _POWER.match(gene_id)
    if found and (number := float(gene_id)).is_integer() and number < _MOST_ID:
        has_all = not found[1] or len(found[1]) > int(found[2])
        return str(int(number)) if has_all else ""
    return gene_id


def split_pair(name: str) -> tuple[str, str] | None:
    """Return symbol and id of a name that pairs them, None of any other.

    Examples
    --------
    >>> split_pair("TP53 (7157)"), split_pair("TP53|7157"), split_pair("TP53")
    (('TP53', '7157'), ('TP53', '7157'), None)
    """
    found = _PAIR.fullmatch(name) if name[-1:] == ")" or "|" in name else None
    return None if found is None else (found[1], found[2] or found[3])


def has_name(name: str) -> bool:
    """Return whether a cell names something, instead of saying that nothing is known.

    Examples
    --------
    >>> has_name("TP53"), has_name("NULL"), has_name("n/a")
    (True, False, False)
    """
    return name.strip().lower() not in NO_NAME


def is_told(cell: str) -> bool:
    """Return whether a cell of a label says something: `none`, `-` and `unknown` do.

    Examples
    --------
    >>> is_told("none"), is_told("NA"), is_told("nan")
    (True, False, False)
    """
    return cell.strip().lower() not in _NO_VALUE


def first_symbol(symbols: str) -> str:
    """Return the first of several symbols joined by `///`, `;` or `|`; "" for none and for a date.

    Examples
    --------
    >>> first_symbol("DDR1 /// MIR4640"), first_symbol("---"), first_symbol("A1BG|1")
    ('DDR1', '', 'A1BG')
    """
    first = symbols.strip()
    if not _JOINTS.isdisjoint(first):
        first = _MULTIPLE.split(first, maxsplit=1)[0]
    return "" if not has_name(first) or excel_dates((first,)) else first


def second_copies(labels: Sequence[str]) -> set[int]:
    """Return where copies of genes on chromosome Y stand whose first copy is there too.

    Genes of the pseudoautosomal regions have a copy, counted as 0, in GENCODE's lists.

    Examples
    --------
    >>> second_copies(["ENSG00000182378.8", "ENSG00000182378.8_PAR_Y", "ENSGR0000178605.8"])
    {1}
    """
    copies = [place for place, label in enumerate(labels) if _is_second_copy(label)]
    if not copies:
        return set()
    first = {_key(label) for label in labels if not _is_second_copy(label)}
    return {place for place in copies if _key(labels[place]) in first}


def _is_second_copy(label: str) -> bool:
    """Return whether an Ensembl id is that of a copy on chromosome Y, in GENCODE's ways."""
    found = label.startswith("ENS") and _ENSEMBL.fullmatch(label)
    return bool(found and (found[2] or found[5]))


def read_gene_list(path: str | Path) -> list[str]:
    """Return the ids of a file with one id a line; blank lines and # comments are left out.

    A first line that only says what the others are (`probe`, `gene symbol`, R's `x`) is no id. An
    order sheet of ``dglzarr panel`` is the list of its genes.

    Raises
    ------
    SourceError
        If the file is missing, empty, has several columns or repeats an id.
    """
    path = Path(path)
    line_of: dict[str, int] = {}
    is_first = True
    for line, text in _list_lines(path):
        name = re.sub(r"(^|\s)#.*", "", text).strip().strip('"')
        if not name:
            continue
        if text.startswith(("^", "!")):
            raise SourceError(
                f"{path.name}, line {line}: expected one id a line, got a file of GEO: "
                f"{name[:40]!r}. Give a list of ids."
            )
        if "\t" in name or '","' in name:
            raise SourceError(
                f"{path.name}, line {line}: expected one id a line, got several cells. Keep the "
                "column of ids."
            )
        if is_first and _is_header([name]):
            name = ""
        is_first = False
        if name in line_of:
            raise SourceError(
                f"{path.name}, line {line}: expected each id once, got {name!r} of line "
                f"{line_of[name]} again. Drop the repeat."
            )
        if name:
            line_of[name] = line
    if not line_of:
        raise SourceError(f"{path.name}: expected at least one id, got none.")
    return list(line_of)


def read_gene_values(path: str | Path) -> dict[str, str]:
    """Return what a file says of each gene: two cells a line, joined by a tab or a comma.

    Blank lines, # comments and a header are left out.

    Raises
    ------
    SourceError
        If the file is missing, says nothing, has a line of other cells or repeats a gene.
    """
    path, found = Path(path), dict[str, str]()
    for line, text in _lines(path):
        cells = [cell.strip().strip('"') for cell in re.split(r"[\t,]", text)]
        if not text.strip() or text.startswith("#") or (not found and _is_header(cells)):
            continue
        if len(cells) != 2 or not all(cells):
            raise SourceError(
                f"{path.name}, line {line}: expected a gene and a value, got {text[:60]!r}."
            )
        if cells[0] in found:
            raise SourceError(
                f"{path.name}, line {line}: expected each gene once, got {cells[0]!r} again."
            )
        found[cells[0]] = cells[1]
    if not found:
        raise SourceError(f"{path.name}: expected a gene and a value a line, got none.")
    return found


@dataclass(frozen=True)
class Annotation:
    """What probes measure: gene symbol and gene id by probe, "" where none.

    ``dates`` holds the symbols that a spreadsheet made dates of, by probe; they count as none.
    """

    symbol: dict[str, str]
    gene_id: dict[str, str]
    dates: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _probe_of(self) -> dict[str, str]:
        """The probe of each key, the first where several share one."""
        return {_key(probe): probe for probe in reversed([*self.gene_id, *self.symbol])}

    def symbol_of(self, label: str) -> str:
        """Return the symbol of a probe, an Ensembl id of whatever version; "" for none."""
        return self.symbol.get(label) or self.symbol.get(self._probe_of.get(_key(label), ""), "")

    def gene_id_of(self, label: str) -> str:
        """Return the gene id of a probe, an Ensembl id of whatever version; "" for none."""
        return self.gene_id.get(label) or self.gene_id.get(self._probe_of.get(_key(label), ""), "")


def read_annotation_table(path: str | Path) -> Annotation:
    """Return gene symbols and gene ids by probe from a table with a header.

    The first column holds the probe ids; where its header says that they are gene ids and there
    is no other column of those, they are these too. Of several symbols (`A /// B`) the first is
    taken; of several rows of a probe the first that says something. GEO platform files (GPL,
    `.annot`) are read between their table markers.

    Raises
    ------
    SourceError
        If the file is missing, no table, has neither column, or a row has more cells than the
        header; names file and line.
    """
    path = Path(path)
    rows = list(_platform_rows(path))
    line, header = rows[0] if rows else (1, [])
    if len(rows) > 1 and len(rows[1][1]) == len(header) + 1 and rows[1][1][-1]:
        header = ["", *header]  # as R writes row names
    places = _find_columns(path, line, header)
    annotation = Annotation({}, {})
    for line, row in rows[1:]:
        if any(row[len(header) :]):
            raise SourceError(
                f"{path.name}, line {line}: expected {len(header)} cells as in the header, got "
                f"{len(row)}. Correct the line."
            )
        cells = row + [""] * (len(header) - len(row))
        _add_names(annotation, cells, places)
    named = annotation.symbol.values()
    if named and not annotation.gene_id and all(map(str.isdecimal, named)):
        annotation = Annotation({}, annotation.symbol, annotation.dates)
    elif 2 * sum(" " in name for name in named) > len(named):  # titles: tumor protein p53
        annotation = Annotation({}, annotation.gene_id, annotation.dates)
    if not (annotation.symbol or annotation.gene_id or annotation.dates):
        raise SourceError(
            f"{path.name}: expected symbols or ids of genes, got none in {len(rows) - 1} rows. "
            "Give a table with a header and a row a probe."
        )
    return annotation


@dataclass(frozen=True)
class _Places:
    """Where an annotation table has the probe and what it measures."""

    key: int
    symbol: int | None
    gene_id: int | None
    assignment: int | None


def _find_columns(path: Path, line: int, header: Sequence[str]) -> _Places:
    """Return where an annotation table has its columns, or refuse one that has none."""
    names = [plain(name) for name in header]
    second = "".join(names[1:2])
    is_numbered = names[:1] in ([""], ["x"], ["unnamed0"]) and ("id" in second or "probe" in second)
    key = 1 if is_numbered else 0
    symbol = find_column(names, SYMBOL_COLUMNS, skip=key)
    gene_id = find_column(names, GENE_ID_COLUMNS, skip=key)
    assignment = find_column(names, (ASSIGNMENT_COLUMN,), skip=key)
    if symbol is None and gene_id is None and assignment is None:
        raise SourceError(
            f"{path.name}, line {line}: expected a column 'Gene Symbol' or 'Gene ID', got "
            f"{', '.join(map(repr, header[:5])) or 'no rows'}. Give a table with a header."
        )
    if gene_id is None and assignment is None and names[key] in GENE_ID_COLUMNS:
        gene_id = key
    return _Places(key, symbol, gene_id, assignment)


def _add_names(annotation: Annotation, cells: Sequence[str], places: _Places) -> None:
    """Take in what one row says of its probe, where no row before has said it."""
    probe = cells[places.key]
    assigned = ["", ""]
    if places.assignment is not None:
        first = re.split(r"\s+///\s+", cells[places.assignment])[0]
        parts = [*re.split(r"\s+//\s+", first), *[""] * 5]
        assigned = [parts[1], parts[4]]
    symbol = cells[places.symbol] if places.symbol is not None else assigned[0]
    gene_id = cells[places.gene_id] if places.gene_id is not None else assigned[1]
    if dates := excel_dates(_MULTIPLE.split(symbol.strip(), maxsplit=1)[:1]):
        annotation.dates.setdefault(probe, dates[0])
    for told, value, target in (
        (places.symbol, first_symbol(symbol), annotation.symbol),
        (places.gene_id, clean_id(first_symbol(gene_id)), annotation.gene_id),
    ):
        is_told = told is not None or places.assignment is not None
        if is_told and not target.get(probe):
            target[probe] = value


def feature_symbols(
    labels: Sequence[str], symbols: Sequence[str], annotation: Annotation | None = None
) -> list[str]:
    """Return the gene symbol of each feature of a source, "" where it is unknown.

    The annotation's by label, Ensembl versions ignored; else the source's own; else the
    annotation's by Ensembl or Entrez id. A source of which no symbol is known has its labels taken
    for symbols. A gene's second copy on chromosome Y has none.

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
        known.symbol_of(label) or first_symbol(own) or by_id.get(_key(label), "")
        for label, own in zip(labels, symbols, strict=True)
    ]
    if not any(found):
        found = [first_symbol(label) for label in labels]
    for place in second_copies(labels):
        found[place] = ""
    return found


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

    Raises
    ------
    SourceError
        When sources have other symbols for most of the same labels, as for numbers of rows.

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
        named = list(map(annotation.symbol_of, genes)), list(map(annotation.gene_id_of, genes))
        if not any(map(any, named)):
            other = next(iter([*annotation.symbol, *annotation.gene_id]), "")
            raise SourceError(
                f"ingest.annotation: expected names of the study's features such as {genes[0]!r}, "
                f"got those of {other!r} and the like. Give the table of their platform."
            )
        return named
    symbols: dict[str, str] = {}
    for labels, own in sources:
        found = {str(g): str(s) for g, s in zip(labels, own, strict=True) if s}
        _refuse_other_symbols(symbols, found)
        symbols |= found
    if not symbols and sum(gene.upper() in known_symbols() for gene in genes) > 0.5 * len(genes):
        return list(map(first_symbol, genes)), [""] * len(genes)
    return [symbols.get(g, "") for g in genes], [""] * len(genes)


def _refuse_other_symbols(known: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Refuse a source that has another symbol for most of the labels that have one already."""
    both = known.keys() & found.keys()
    others = sorted(label for label in both if known[label].upper() != found[label].upper())
    if len(others) < _FEWEST_OTHERS or 2 * len(others) < len(both):
        return
    raise SourceError(
        f"gene_symbol: expected one symbol a label, got others in two sources for {len(others)} "
        f"of {len(both)} labels, such as {known[others[0]]!r} and {found[others[0]]!r} for "
        f"{others[0]!r}. Are they numbers of rows? Give each file a first column of gene ids, or "
        "state ingest.feature_kind = 'gene'."
    )


@dataclass(frozen=True)
class PanelMatch:
    """A published panel in a study: labels found, in the file's order, and entries missing.

    ``dates`` holds the entries that a spreadsheet made dates of, and the label that was found for
    each, "" where it may stand for several genes or for none that is measured.
    """

    genes: list[str]
    missing: list[str]
    dates: dict[str, str] = field(default_factory=dict)


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
        An entry measured by several labels stands for the first of them. A date that can be of one
        gene alone stands for it.

    Raises
    ------
    SourceError
        If the file is missing or no column names a gene of the study.
    """
    path = Path(path)
    lookups = [_first_label(names, genes) for names in (genes, symbols, gene_ids) if names]
    best: tuple[int, list[str], dict[str, str]] = (0, [], {})
    entries_of, example = read_columns(path)
    for lookup, entries in product(lookups, entries_of):
        n_found = sum(_key(entry) in lookup for entry in entries)
        if n_found > best[0]:
            best = (n_found, entries, lookup)
    _, entries, lookup = best
    if not entries:
        raise SourceError(
            f"{path.name}: expected ids or symbols of the study's genes such as {genes[0]!r}, got "
            f"{example or 'no rows'}. Give ingest.annotation to match by symbol."
        )
    dates = {entry: _dated(entry, lookup) for entry in excel_dates(entries)}
    labels = [lookup.get(_key(entry)) or dates.get(entry, "") for entry in entries]
    missing = [entry for entry, label in zip(entries, labels, strict=True) if not label]
    return PanelMatch(list(dict.fromkeys(filter(None, labels))), missing, dates)


def read_columns(path: str | Path) -> tuple[list[list[str]], str]:
    """Return the entries of each column of a list of genes, each once; and its first row in words.

    With or without a header; lines that begin with # are left out, and several ids in a cell of a
    TSV are joined by commas. An order sheet of ``dglzarr panel`` is the column of its genes.

    Raises
    ------
    SourceError
        If the file is missing, or a GCT.
    """
    path = Path(path)
    every = list(_list_lines(path))
    if every and re.fullmatch(r"#1\.[23]\s*", every[0][1]):
        raise SourceError(f"{path.name}: expected a list of genes, got a GCT of expression values.")
    lines = ((line, text) for line, text in every if not text.startswith("#"))
    rows = [row for _, row in read_rows(path.name, lines)]
    example = ", ".join(map(repr, (rows[0] if rows else [])[:5]))
    if len(rows) == 1 and len(rows[0]) >= _FEWEST_OTHERS:
        raise SourceError(
            f"{path.name}: expected one gene a line, got a line of {len(rows[0])} cells. Write "
            "each on a line of its own."
        )
    if rows and _is_header(rows[0]):
        rows = rows[1:]
    columns = range(max(map(len, rows), default=0))
    entries = [list(dict.fromkeys(_entries(rows, column))) for column in columns]
    counted = [_counts_from(one) for one in entries]
    if not all(counted):  # R and people number the lines
        entries = [one for one, is_count in zip(entries, counted, strict=True) if not is_count]
    return entries, example


def _counts_from(entries: Sequence[str]) -> bool:
    """Return whether entries are 0, 1, 2 and so on, or begin at 1; the first may be a header."""
    has_header = bool(entries) and not entries[0].isdecimal()
    numbers = list(entries[1:] if has_header else entries)
    if len(numbers) < 2 or numbers[0] not in ("0", "1"):
        return False
    first = int(numbers[0])
    return numbers == [str(first + place) for place in range(len(numbers))]


def _dated(date: str, lookup: dict[str, str]) -> str:
    """Return the label of the one gene that a date stands for, "" where there is none."""
    genes = genes_of_date(date)
    names = genes[0] if len(genes) == 1 else ()
    return next((lookup[_key(name)] for name in names if _key(name) in lookup), "")


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
    if not names:
        return []
    places = [_places_of(tuple(of)) for of in (genes, symbols, gene_ids)]
    return [list(next((p[_key(n)] for p in places if _key(n) in p), ())) for n in names]


@lru_cache(maxsize=6)  # one study is asked many times over
def _places_of(names: tuple[str, ...]) -> dict[str, list[int]]:
    """Return where each name stands, of several symbols the first, by its key."""
    return _places([first_symbol(name) for name in names], _key)


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
    symbols, or ids where the cohort has none. Letter case is ignored, and so is a gene's second
    copy on chromosome Y.

    Parameters
    ----------
    query_ids, query_symbols
        Ids and symbols of the cohort's genes.
    gene_labels, gene_symbols, gene_ids
        Labels, symbols and Entrez or Ensembl ids of the study's genes.
    """
    exact = _places(query_ids, str)
    copies = second_copies(query_ids)
    stripped = _places(query_ids, _key, without=copies)
    by_symbol = stripped
    if query_symbols is not None:
        by_symbol = _places([first_symbol(name) for name in query_symbols], _key, without=copies)
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


def _places(
    names: Sequence[str], key: Callable[[str], str], *, without: Iterable[int] = ()
) -> dict[str, list[int]]:
    """Return where each name stands, by its key; words for none have no place."""
    places: dict[str, list[int]] = {}
    skipped = set(without)
    for place, name in enumerate(names):
        if has_name(name) and place not in skipped:
            places.setdefault(key(name), []).append(place)
    return places


def _first_label(names: Sequence[str], genes: Sequence[str]) -> dict[str, str]:
    """Return the first label of each non-empty name, by its key."""
    labels: dict[str, str] = {}
    for name, gene in zip(names, genes, strict=True):
        if key := _key(first_symbol(name)):
            labels.setdefault(key, gene)
    return labels


def _key(name: str) -> str:
    """Return a name as it is compared: no Ensembl version, no decimals, upper case; the id alone.

    Of a symbol that is paired with an id, as in `TP53 (7157)`, the id counts.
    """
    pair = split_pair(name)
    return strip_version(clean_id(pair[1] if pair else name)).upper()


def _is_header(row: Sequence[str]) -> bool:
    """Return whether the first row of a list only says what the others are, as R's `x` does."""
    alone = [cell.lower() for cell in row if cell]
    return alone in (["x"], ["v1"]) or any(plain(cell) in _LIST_HEADERS for cell in row)


def _entries(rows: Iterable[Sequence[str]], column: int) -> Iterator[str]:
    """Yield the ids in a column, comma-joined ones apart."""
    for row in rows:
        if column < len(row):
            yield from filter(None, (part.strip() for part in row[column].split(",")))


def find_column(names: Sequence[str], wanted: Sequence[str], *, skip: int) -> int | None:
    """Return the place of the first wanted name beside that of the key, or None.

    Examples
    --------
    >>> find_column(["id", "gene", "symbol"], ["symbol", "gene"], skip=0)
    2
    """
    places = [names.index(name) for name in wanted if name in names]
    return next((place for place in places if place != skip), None)


def plain(name: str) -> str:
    """Return a header in lower case, letters and digits only.

    Examples
    --------
    >>> plain("Gene_Symbol ")
    'genesymbol'
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _platform_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table; of a GEO platform file those between the markers."""
    lines = list(_lines(path))
    marks = [text.strip().strip('"').lower() for _, text in lines if text[:2].strip('"') == "!"]
    is_open = "!platform_table_begin" not in marks
    kept = []
    for line, text in lines:
        bare = text.lstrip().lstrip('"')
        if bare.lower().startswith(("!platform_table_end", "!sample_table_end")) and is_open:
            break
        if is_open and not bare.startswith(("#", "!", "^")):
            kept.append((line, text))
        is_open = is_open or bare.lower().startswith("!platform_table_begin")
    separator = find_separator(next((text for _, text in kept if text.strip()), ""))
    rows = list(read_rows(path.name, kept, separator=separator))
    refuse_surplus(path.name, rows, separator)
    yield from rows


def _list_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines of a list of genes; of an order sheet its genes alone."""
    sheet = None
    for line, text in _lines(path):
        if line == 1 and (sheet := _SHEET.match(text)):
            continue
        yield line, text if sheet is None else _sheet_gene(text, sheet[1])


def _sheet_gene(text: str, separator: str) -> str:
    cells = next(csv.reader([text], delimiter=separator), [])
    return cells[1] if len(cells) > 1 else ""


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines of a plain or gzip file."""
    with TextStream(path) as stream:
        yield from stream.lines()
