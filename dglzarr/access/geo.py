"""A series of GEO by its accession: the matrices that its folder lists, or NCBI's own counts.

Names come from listings, never from a guess: a series of several platforms has several files, and
the release of the genome in the name of a table of counts changes.
"""

from __future__ import annotations

import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from dglzarr.access.fetch import entry_of
from dglzarr.access.http import AbsentError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.access.download import Fetched
    from dglzarr.access.fetch import Fetcher
    from dglzarr.access.lock import Entry

ACCESSION = re.compile(r"GSE\d{1,8}", re.IGNORECASE)
PLATFORM = re.compile(r"GPL\d{1,8}")
_ANNOTATION = re.compile(r"[A-Za-z]+\.[\w.-]+\.annot\.tsv\.gz")
_SUPER = "SuperSeries of: "


class _Links(HTMLParser):
    """The links of a page, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def links(page: str) -> list[str]:
    """Return where the links of an HTML page lead, as they are written.

    Examples
    --------
    >>> links('<a href="../">Up</a> <A HREF="a.gz">a</A>')
    ['../', 'a.gz']
    """
    parser = _Links()
    parser.feed(page)
    return parser.found


def folder_of(accession: str) -> str:
    """Return the folder of a series or platform below that of GEO.

    Examples
    --------
    >>> folder_of("GSE10072"), folder_of("GPL96")
    ('series/GSE10nnn/GSE10072', 'platforms/GPLnnn/GPL96')
    """
    kind, number = accession[:3], accession[3:]
    of = {"GSE": "series", "GPL": "platforms"}[kind]
    return f"{of}/{kind}{number[:-3]}nnn/{accession}"


class _Matrix(NamedTuple):
    name: str
    address: str
    platform: str
    found: Fetched


def fetch_series(fetcher: Fetcher, accession: str, *, platforms: Sequence[str] = ()) -> list[Entry]:
    """Return the files of a series, in the cache.

    Parameters
    ----------
    fetcher
        Who fetches.
    accession
        As in ``GSE10072``.
    platforms
        Which of several to take, as in ``GPL96``; or ``any``. Without it there must be one.

    Returns
    -------
    list of Entry
        Of kind ``matrix``, or ``labels`` where its table is empty; then there are ``counts`` and
        ``annotation``, too.

    Raises
    ------
    RefusedError
        When it is absent, of other platforms, a superseries, or has no values.
    """
    found = []
    for name, address in _choose(fetcher, _listed(fetcher, accession), platforms):
        file = fetcher.get(address, name, is_matrix=True, is_gzip=True)
        _check_matrix(accession, file, platforms)
        found.append(_Matrix(name, address, ",".join(_platforms(file)), file))
    entries = [
        entry_of(
            f"geo:{accession}",
            "labels" if one.found.head.is_empty else "matrix",
            one.address,
            one.found,
            platform=one.platform,
            organism=",".join(one.found.head.values("Sample_organism_ch1")),
        )
        for one in found
    ]
    if any(one.found.head.is_empty for one in found):
        entries += _fetch_counts(fetcher, accession)
    return entries


def _listed(fetcher: Fetcher, accession: str) -> dict[str, str]:
    """Return the series matrices that a series' folder lists, by name their address."""
    folder = f"{fetcher.options.address('geo')}/{folder_of(accession)}/matrix/"
    about = f"https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc={accession}"
    wanted = re.compile(rf"{accession}(-GPL\d+)?_series_matrix\.txt\.gz")
    try:
        listed = links(fetcher.text(folder))
    except AbsentError as error:
        raise AbsentError(
            f"expected a public series, got none: it is private, withdrawn or never was. Look at "
            f"{about}, and remove it"
        ) from error
    names = _files(listed, wanted)
    if not names:
        raise AbsentError(
            f"expected a series matrix in {folder}, got none among {len(listed)} links: it may be "
            f"private, withdrawn or not ready. Look at {about}, and remove it"
        )
    return {name: urljoin(folder, name) for name in names}


def _choose(
    fetcher: Fetcher, listed: dict[str, str], platforms: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the files of the platforms that are asked for; of several one must be chosen.

    Of RNA-seq all are taken: they hold labels alone, and one table of counts has all samples.
    """
    of = {name: m[0] if (m := PLATFORM.search(name)) else "" for name in listed}
    if len(listed) == 1 or "any" in platforms:
        return list(listed.items())

    def is_empty(one: tuple[str, str]) -> bool:
        return fetcher.get(one[1], one[0], is_matrix=True, is_gzip=True).head.is_empty

    chosen = [(name, address) for name, address in listed.items() if of[name] in platforms]
    if is_empty((chosen or list(listed.items()))[0]):
        empty = [one for one in listed.items() if is_empty(one)]
        if platforms or len(empty) == len(listed):
            return empty
    if not platforms:
        raise RefusedError(
            f"expected one platform, got {' and '.join(sorted(of.values()))}. Choose with platform "
            f'= "{min(of.values())}" at its source; "any" takes all, for ingest.feature_kind = '
            '"gene"'
        )
    if not chosen:
        raise _other_platform(sorted(of.values()), platforms)
    return chosen


def _other_platform(got: Sequence[str], wanted: Sequence[str]) -> RefusedError:
    return RefusedError(
        f"expected platform {' or '.join(wanted)}, got {' and '.join(got)}. Remove it, or "
        "correct platform at its source"
    )


def _platforms(file: Fetched) -> tuple[str, ...]:
    head = file.head
    return head.values("Sample_platform_id") or head.values("Series_platform_id")


def _check_matrix(accession: str, file: Fetched, platforms: Sequence[str]) -> None:
    """Refuse a matrix of another series or platform, and that of a superseries."""
    name, own = file.path.name, file.head.values("Series_geo_accession")
    if own and own[0] != accession:
        raise RefusedError(f"expected {name} to be of {accession}, got {own[0]}. Tell GEO")
    relations = file.head.values("Series_relation")
    parts = [text.removeprefix(_SUPER) for text in relations if text.startswith(_SUPER)]
    if parts:
        raise RefusedError(
            f"expected a series, got a superseries: its samples belong to {', '.join(parts)}. "
            "Name those of them that you want instead"
        )
    got = _platforms(file)
    is_asked = platforms and "any" not in platforms and not file.head.is_empty
    if is_asked and got and not set(got) & set(platforms):
        raise _other_platform(got, platforms)


def fetch_tables(fetcher: Fetcher, entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Return GEO's tables of the platforms of some matrices, in the cache, and platforms without.

    Raises
    ------
    RefusedError
        When one that is listed cannot be had.
    """
    tables, without = [], []
    matrices = [entry for entry in entries if entry.kind == "matrix"]
    named = {one for entry in matrices for one in entry.platform.split(",")}
    for platform in sorted(filter(PLATFORM.fullmatch, named)):
        folder = f"{fetcher.options.address('geo')}/{folder_of(platform)}/annot/"
        name = f"{platform}.annot.gz"
        if not _files(links(fetcher.shared_text(folder)), re.compile(re.escape(name))):
            without.append(platform)
            continue
        address = urljoin(folder, name)
        found = fetcher.get(address, name, is_gzip=True)
        tables.append(entry_of(matrices[0].source, "platform", address, found, platform=platform))
    return tables, without


def _fetch_counts(fetcher: Fetcher, accession: str) -> list[Entry]:
    """Return NCBI's counts of an RNA-seq series and the annotation of its genes."""
    page = f"{fetcher.options.address('ncbi')}/geo/download/?acc={accession}"
    try:
        listed = links(fetcher.text(page))
    except AbsentError:
        listed = []
    counts = re.compile(rf"{accession}_raw_counts_[\w.-]+_NCBI\.tsv\.gz")
    entries = []
    for kind, pattern in (("counts", counts), ("annotation", _ANNOTATION)):
        found = _files(listed, pattern)
        if kind == "counts" and len(found) != 1:
            got = " and ".join(found) or "none"
            raise RefusedError(
                f"expected values, got an empty series matrix, as RNA-seq has, and of NCBI's own "
                f"counts {got} at {page}. Remove it, or download a table of its supplement and "
                "name the file"
            )
        for name, link in found.items():
            address = fetcher.client.led_to(page, page, link)
            file = fetcher.get(address, name, is_gzip=True)
            entries.append(entry_of(f"geo:{accession}", kind, address, file))
    return entries


def _files(listed: Sequence[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Return links to files whose name is as it should be, by name."""
    found = {}
    for link in listed:
        with suppress(ValueError):  # of what is no address
            parts = urlsplit(link)
            last = unquote(parts.path).rpartition("/")[2]
            name = (parse_qs(parts.query).get("file") or [last])[0]
            if pattern.fullmatch(name):
                found[name] = link
    return found
