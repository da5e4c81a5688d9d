"""Other names of genes: former symbols, aliases, Entrez and Ensembl IDs, from a public table.

Reads HGNC's complete set (``hgnc_complete_set.txt``), NCBI's ``gene_info`` or any table with a
header that has a column of symbols and one of other names.

References
----------
https://www.genenames.org/download/archive/ and https://ftp.ncbi.nlm.nih.gov/gene/DATA/README
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dglzarr.errors import SourceError
from dglzarr.sources.identifiers import (
    GENE_ID_COLUMNS,
    clean_id,
    find_column,
    has_name,
    plain,
    strip_version,
)
from dglzarr.sources.text import TextStream, read_rows

_SYMBOLS = ("symbol", "approvedsymbol", "genesymbol")
_KINDS = {
    **dict.fromkeys(("prevsymbol", "previoussymbol", "previoussymbols"), "former symbol"),
    **dict.fromkeys(("aliassymbol", "aliassymbols", "alias", "aliases", "synonyms"), "alias"),
    **dict.fromkeys(("synonym",), "alias"),
    **dict.fromkeys(("dbxrefs", *GENE_ID_COLUMNS), "id"),
}
"""What a column of other names holds, by its header."""


@dataclass(frozen=True)
class NameTable:
    """Approved symbols and other names of genes, by `lookup_key`.

    Attributes
    ----------
    symbols
        Each approved symbol as the table writes it.
    others
        What each other name is (former symbol, alias, id) of each symbol that it may stand for.
    """

    symbols: dict[str, str]
    others: dict[str, dict[str, str]]


def lookup_key(name: str) -> str:
    """Return a name as names are compared: upper case, no Ensembl version, no decimals.

    Examples
    --------
    >>> lookup_key("tp53"), lookup_key("ENSG00000141510.18"), lookup_key("7157.0")
    ('TP53', 'ENSG00000141510', '7157')
    """
    if name[:1].isdigit() and ("." in name or "e" in name.lower()):
        name = clean_id(name)
    return (strip_version(name.upper()) if name[:3].upper() == "ENS" else name).upper()


def read_aliases(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the symbols that each other name of a gene may stand for, by its `lookup_key`.

    Raises
    ------
    SourceError
        As `read_names`.
    """
    return {key: tuple(symbols) for key, symbols in read_names(path).others.items()}


def read_names(path: str | Path) -> NameTable:
    """Return the symbols of a table of genes, and their other names.

    Several names in a cell are joined by ``|`` or a comma; NCBI's cross references
    (``Ensembl:ENSG...``) lose what is before the last colon; of these only Ensembl's are taken,
    since the numbers of others look as Entrez IDs do. A name that is both a former symbol
    and an alias is a former symbol.

    Raises
    ------
    SourceError
        When the file is missing, or has no column of symbols or none of other names.
    """
    path = Path(path)
    with TextStream(path) as stream:
        rows = read_rows(path.name, list(stream.lines()))
        line, header = next(rows, (1, []))
        names = [plain(cell) for cell in header]
        symbol = find_column(names, _SYMBOLS, skip=-1)
        others = [i for i, name in enumerate(names) if name in _KINDS and i != symbol]
        if symbol is None or not others:
            raise SourceError(
                f"{path.name}, line {line}: expected columns of symbols and of aliases (HGNC's "
                f"complete set, or NCBI's gene_info), got {', '.join(map(repr, header[:5]))}."
            )
        others.sort(key=lambda place: _KINDS[names[place]] != "former symbol")
        found = NameTable({}, {})
        for _, row in rows:
            if not has_name(row[symbol] if symbol < len(row) else ""):
                continue
            found.symbols.setdefault(lookup_key(row[symbol]), row[symbol])
            for place in others:
                for name in _names(row[place] if place < len(row) else ""):
                    is_other = names[place] == "dbxrefs" and not name.startswith("ENS")
                    if name.upper() != row[symbol].upper() and not is_other:
                        of = found.others.setdefault(lookup_key(name), {})
                        of.setdefault(row[symbol], _KINDS[names[place]])
    return found


def _names(cell: str) -> list[str]:
    """Return the names in a cell."""
    parts = (part.strip().strip('"').rpartition(":")[2] for part in re.split(r"[|,]", cell))
    return [part for part in parts if has_name(part)]
