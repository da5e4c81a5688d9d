"""Owns names of genes that a spreadsheet made dates of, such as 5-Mar of MARCH5.

References
----------
Ziemann, Eren and El-Osta (2016), doi 10.1186/s13059-016-1044-7: how common they are.
Bruford et al. (2020), doi 10.1038/s41588-020-0669-3: the symbols that replaced such names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MONTHS = {
    **{name: number for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )},
    "m\u00e4r": 3, "mrz": 3, "mai": 5, "okt": 10, "dez": 12,
}  # fmt: skip
_MONTH = "|".join(_MONTHS)
_DAY_MONTH = re.compile(rf"(\d{{1,2}})[-.]({_MONTH})([-.]\d{{2,4}})?", re.IGNORECASE)
_MONTH_DAY = re.compile(rf"({_MONTH})-(\d{{1,2}})", re.IGNORECASE)
_ISO = re.compile(r"(?:19|20)\d\d-(\d\d)-(\d\d)( 00:00:00)?")
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/(?:19|20)?\d\d")
_LOST = re.compile(r"[?.]*\?[?.]*-(\d{1,2})")
"""A month whose letters another encoding lost, as in GEO's table of GPL96."""

_JOINTS = frozenset("-./")
"""Every date has one of them, and most names have none."""

N_SHOWN = 5


class Renamed(NamedTuple):
    """A gene that a date may stand for: its symbol then, and now."""

    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.now} (once {self.before})"


def excel_dates(names: Iterable[str]) -> list[str]:
    """Return the names that a spreadsheet made dates of.

    Examples
    --------
    >>> excel_dates(["TP53", "1-Mar", "Sep-02", "2001-12-01", "??.?.-05"])
    ['1-Mar', 'Sep-02', '2001-12-01', '??.?.-05']
    """
    patterns = (_DAY_MONTH, _MONTH_DAY, _ISO, _SLASHES, _LOST)
    return [
        name
        for name in names
        if not _JOINTS.isdisjoint(name)
        if name[:1].isalnum() or name[:1] in ("?", ".")
        if any(pattern.fullmatch(name) for pattern in patterns)
    ]


def genes_of_date(name: str) -> list[Renamed]:
    """Return the human genes whose names a spreadsheet makes this date of; none where unknown.

    Examples
    --------
    >>> [str(gene) for gene in genes_of_date("Mar-05")]
    ['MARCHF5 (once MARCH5)']
    >>> [gene.now for gene in genes_of_date("1-Mar")], genes_of_date("3-May")
    (['MARCHF1', 'MTARC1'], [])
    >>> [gene.now for gene in genes_of_date("??.?.-15")]
    ['SELENOF']
    """
    return list(dict.fromkeys(gene for month, n in _readings(name) for gene in _named(month, n)))


def _readings(name: str) -> list[tuple[int, int]]:
    """Return the months and numbers that a date may be of."""
    if found := _DAY_MONTH.fullmatch(name):
        return [(_MONTHS[found[2].lower()], int(found[1]))]
    if found := _MONTH_DAY.fullmatch(name):
        return [(_MONTHS[found[1].lower()], int(found[2]))]
    if found := _ISO.fullmatch(name):
        return [(int(found[1]), int(found[2]))]
    if found := _SLASHES.fullmatch(name):
        first, second = int(found[1]), int(found[2])
        return [(first, second), (second, first)]
    if found := _LOST.fullmatch(name):
        return [(month, int(found[1])) for month in (3, 9, 12)]
    return []


def _named(month: int, number: int) -> list[Renamed]:
    """Return the genes that are named as a month and a number."""
    genes = []
    if month == 3 and 1 <= number <= 11:
        genes.append(Renamed(f"MARCH{number}", f"MARCHF{number}"))
    if month == 3 and number in (1, 2):
        genes.append(Renamed(f"MARC{number}", f"MTARC{number}"))
    if month == 9 and (1 <= number <= 12 or number == 14):
        genes.append(Renamed(f"SEPT{number}", f"SEPTIN{number}"))
    if month == 9 and number == 13:
        genes.append(Renamed("SEPT13", "SEPTIN7P2"))
    if month == 9 and number == 15:
        genes.append(Renamed("SEP15", "SELENOF"))
    if month == 12 and number == 1:
        genes.append(Renamed("DEC1", "DELEC1"))
    return genes


def told_dates(names: Sequence[str]) -> str:
    """Return what some dates may stand for, in words; the first few of many.

    Examples
    --------
    >>> told_dates(["Mar-05", "1-Mar", "3-May"])
    "'Mar-05' is MARCHF5, '1-Mar' MARCHF1 or MTARC1, '3-May' no known gene"
    """
    parts: list[str] = []
    for name in names[:N_SHOWN]:
        genes = " or ".join(gene.now for gene in genes_of_date(name))
        parts.append(f"{name!r} {'' if parts else 'is '}{genes or 'no known gene'}")
    more = f" and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else ""
    return ", ".join(parts) + more
