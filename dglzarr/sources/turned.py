"""Whether a matrix lies the other way: genes as columns, samples in rows, as its names tell.

The symbols it knows are those of human genes that the arrays GPL96 and GPL570 measure, of NCBI
Gene. Names of cell lines, tissues and treatments are hardly ever among them.
"""

import gzip
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from dglzarr.errors import SourceError

_SYMBOLS = Path(__file__).with_name("symbols.txt.gz")
_GENE_ID = re.compile(
    r"(ENS[A-Z]*\d{8,}(\.\d+)?|\S*\d\S*_at|ILMN_\d+|[NX][MR]_\d+(\.\d+)?|A_\d+_P\d+"
    r"|TC\w{6,}\.\w\w\.\d+|AT[1-5CM]G\d{5}|FBgn\d{7}|WBGene\d{8}|Y[A-P][LR]\d{3}[CW])"
)
_ACCESSION = r"GSM\d+|[SED]RR\d+|TCGA-\w\w-\w{4}.*|GTEX-.+|ACH-\d{6}"
_SAMPLE_ID = re.compile(
    rf"({_ACCESSION}"
    r"|(sample|patient|subject|donor|individual|control|case|tumou?r|normal)[ ._-]*\d+)",
    re.IGNORECASE,
)
_SAMPLE_WORD = re.compile(
    r"(sample|patient|subject|donor|individual|participant|specimen|barcode|case|cell|depmap)"
    r"[a-z]*([ ._-]?(id|ids|name|names|line|lines))?|geo_accession|gsm|id|run",
    re.IGNORECASE,
)
_MOST, _HALF, _FEW = 0.9, 0.5, 0.1
_ENOUGH = 3
_LOOKED_AT = 1000


@lru_cache(maxsize=1)
def known_symbols() -> frozenset[str]:
    """Return the symbols of human genes that are known, in capitals."""
    return frozenset(gzip.decompress(_SYMBOLS.read_bytes()).decode().split())


def is_gene(name: str) -> bool:
    """Return whether a name is that of a human gene that is known, or an id of another.

    Examples
    --------
    >>> is_gene("TP53"), is_gene("ENSG00000141510.18"), is_gene("stage")
    (True, True, False)
    """
    return name.upper() in known_symbols() or _GENE_ID.fullmatch(name) is not None


def is_accession(sample: str) -> bool:
    """Return whether a sample is called as repositories call it, so that it is one everywhere."""
    return re.fullmatch(_ACCESSION, sample) is not None


def names_samples(column: str) -> bool:
    """Return whether a column is called as those of sample ids are.

    Examples
    --------
    >>> names_samples("sample_id"), names_samples("geo_accession"), names_samples("matched_normal")
    (True, True, False)
    """
    return column == "" or _SAMPLE_WORD.fullmatch(column) is not None


def are_turned(ids: Sequence[str], columns: Sequence[str], corner: str = "") -> bool:
    """Return whether samples stand in rows, by the names of rows and columns.

    They do where most rows are called as samples are, or half of the columns as genes and hardly
    any row. Numbers are no names of genes but where the ``corner`` says that rows are samples.

    Parameters
    ----------
    ids, columns
        Names of the rows, and of the columns of values.
    corner
        Name of the column of ids.

    Examples
    --------
    >>> are_turned(["S1", "S2"], ["CCL5", "DDR1", "RFC2"])
    True
    >>> are_turned(["CCL5", "DDR1", "HAP1"], ["MCF7", "A549", "HAP1"])
    False
    >>> are_turned(["S1", "S2"], ["780", "5982"], "sample"), are_turned(["g"], ["780", "5982"])
    (True, False)
    >>> are_turned(["780", "5982"], ["TP53", "MYC", "KRAS"])  # knock-downs; of numbered rows True
    False
    """
    if _share(_SAMPLE_ID, ids) >= _MOST:
        return True
    are_numbers = all(map(str.isdecimal, columns))
    says_samples = _SAMPLE_WORD.fullmatch(corner) is not None
    if are_numbers and not says_samples:
        return False
    share = 1.0 if are_numbers else _share_of_genes(columns)
    is_enough = share * len(columns) >= _ENOUGH or (says_samples and share == 1)
    are_entrez = not says_samples and all(map(str.isdecimal, ids)) and not _counts(ids)
    return is_enough and share >= _HALF and not are_entrez and _share_of_genes(ids) <= _FEW


def refuse_turned(
    name: str,
    ids: Sequence[str],
    columns: Sequence[str],
    *,
    corner: str = "",
    remedy: str = "State samples_in = 'rows'",
) -> None:
    """Refuse a matrix with samples in rows.

    Parameters
    ----------
    name
        The file, which an error names.
    ids, columns, corner
        As those of `are_turned`.
    remedy
        What to do where it is so.

    Raises
    ------
    SourceError
        If its names say so.
    """
    if are_turned(ids, columns, corner):
        raise SourceError(
            f"{name}: expected genes in rows and samples in columns, got a column {columns[0]!r} "
            f"and samples in rows, such as {ids[0]!r}. {remedy}. Where the columns are samples as "
            "they are, state samples_in = 'columns'."
        )


def refuse_gene_ids(name: str, columns: Sequence[str]) -> None:
    """Refuse columns that are ids of genes, before any row is read.

    Raises
    ------
    SourceError
        If most are.
    """
    if _share(_GENE_ID, columns) >= _MOST:
        raise SourceError(
            f"{name}: expected genes in rows and samples in columns, got a column {columns[0]!r} "
            "and samples in rows. State samples_in = 'rows'. Where the columns are samples as they "
            "are, state samples_in = 'columns'."
        )


def _counts(ids: Sequence[str]) -> bool:
    """Return whether names are 0, 1, 2 and so on, or begin at 1, as rows are numbered."""
    return [*map(int, ids)] in ([*range(len(ids))], [*range(1, len(ids) + 1)])


def _share_of_genes(names: Sequence[str]) -> float:
    """Return which part of names are those of genes."""
    looked_at = _some(names)
    n_found = sum(map(is_gene, looked_at))
    return n_found / len(looked_at) if looked_at else 0.0


def _share(pattern: re.Pattern[str], names: Sequence[str]) -> float:
    looked_at = _some(names)
    n_found = sum(pattern.fullmatch(name) is not None for name in looked_at)
    return n_found / len(looked_at) if looked_at else 0.0


def _some(names: Sequence[str]) -> Sequence[str]:
    """Return about a thousand of many names."""
    return names[:: max(1, len(names) // _LOOKED_AT)]
