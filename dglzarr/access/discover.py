"""Series of GEO that are there to be had, by NCBI's E-utilities: a search, then its pages.

The search stays on NCBI's history server; a key goes in the body of requests alone, so that it is
in no address, log or record.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from dglzarr.access.geo import ACCESSION, PLATFORM
from dglzarr.access.http import RefusedError, StatusError
from dglzarr.access.options import API_KEY
from dglzarr.errors import one_line
from dglzarr.storage.options import Options, choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dglzarr.access.http import Client
    from dglzarr.storage.options import Progress

PAGE = 500
EMAIL = "NCBI_EMAIL"
_DAY = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_FOREVER = "3000"


@dataclass(frozen=True)
class SeriesFound:
    """A series as NCBI describes it."""

    accession: str
    n_samples: int
    organism: str
    platforms: str
    published: str
    title: str


@dataclass(frozen=True)
class Search:
    """Which series are looked for.

    Attributes
    ----------
    platforms
        As in ``GPL96``; any of them.
    organism
        As in ``Homo sapiens``; "" for any.
    since
        The first day of publication, as in ``2026-01-01``; "" for any.
    min_samples
        How many samples a series has at least.
    rna_seq
        Only series of which NCBI has counts.
    """

    platforms: Sequence[str] = ()
    organism: str = ""
    since: str = ""
    min_samples: int = 1
    rna_seq: bool = False

    def term(self) -> str:
        """Return it as a search of E-utilities.

        Raises
        ------
        RefusedError
            When a part of it is not what it should be.

        Examples
        --------
        >>> Search(["gpl96"], "Homo sapiens", "2026-01-01", 20).term()
        'gse[ETYP] AND (GPL96[ACCN]) AND "Homo sapiens"[ORGN] AND 2026/01/01:3000[PDAT] AND \
20:1000000[NSAM]'
        """
        self._check()
        parts = ["gse[ETYP]"]
        if self.platforms:
            parts.append(f"({' OR '.join(f'{p.upper()}[ACCN]' for p in self.platforms)})")
        if self.organism:
            parts.append(f'"{self.organism}"[ORGN]')
        if self.since:
            parts.append(f"{self.since.replace('-', '/')}:{_FOREVER}[PDAT]")
        if self.min_samples > 1:
            parts.append(f"{self.min_samples}:1000000[NSAM]")
        if self.rna_seq:
            parts.append('"rnaseq counts"[Filter]')
        return " AND ".join(parts)

    def _check(self) -> None:
        if not (self.platforms or self.organism or self.since):
            raise RefusedError("expected a platform, an organism or a first day, got none of them")
        for platform in self.platforms:
            if not PLATFORM.fullmatch(platform.upper()):
                raise RefusedError(f"platform: expected one such as GPL96, got {platform!r}")
        if self.since and not _is_day(self.since):
            raise RefusedError(f"since: expected a day such as 2026-01-01, got {self.since!r}")
        if '"' in self.organism or "[" in self.organism:
            raise RefusedError(f"organism: expected a name, got {self.organism!r}")


def _is_day(text: str) -> bool:
    """Return whether text is a year, a month or a day that there is.

    Examples
    --------
    >>> _is_day("2026"), _is_day("2026-02"), _is_day("2026-02-30")
    (True, True, False)
    """
    if not _DAY.fullmatch(text):
        return False
    try:
        date(*map(int, [*text.split("-"), "1", "1"][:3]))
    except ValueError:
        return False
    return True


class DiscoverOptions(Options):
    """Which series of GEO a study looks for, and the list they are added to."""

    section = "discover"

    platforms: tuple[str, ...] = choice(
        (), "platforms, as in GPL96; any of them", is_recorded=False, strict=False
    )
    organism: str = choice("", "as in Homo sapiens; empty for any", is_recorded=False)
    since: str = choice(
        "", "first day of publication, as in 2026-01-01; empty for any", is_recorded=False
    )
    min_samples: int = choice(1, "samples of a series, at least", is_recorded=False, ge=1)
    rna_seq: bool = choice(False, "only series of which NCBI has counts", is_recorded=False)
    list: str = choice(
        "discovered.tsv",
        "table of series found so far, which a source names as its geo; new ones are added to it",
        is_path=True,
        is_recorded=False,
        min_length=1,
    )

    def files(self) -> dict[str, str]:
        """Return no file: the list need not be there before the first search."""
        return {}

    def search(self) -> Search:
        """Return them as a search."""
        return Search(self.platforms, self.organism, self.since, self.min_samples, self.rna_seq)


def discover(
    client: Client, search: Search, *, on_progress: Progress | None = None
) -> list[SeriesFound]:
    """Return the series that a search finds, the newest first.

    Raises
    ------
    RefusedError
        When the search is none, or NCBI does not answer it.
    """
    term = search.term()
    asked = {"db": "gds", "term": term, "usehistory": "y", "retmax": "0"}
    said = _of(_ask(client, "esearch", asked), "esearchresult")
    problem = said.get("ERROR") or _of(said, "errorlist").get("phrasesnotfound")
    problem = problem or _of(said, "warninglist").get("quotedphrasesnotfound")
    count = str(said.get("count", ""))
    is_there = count.isdecimal() and (count == "0" or (said.get("webenv") and said.get("querykey")))
    if problem or not is_there:
        raise RefusedError(
            f"expected NCBI to search for {term}, got {one_line(str(problem or said))[:100]}. "
            "Correct the search, or run again later"
        )
    total = int(count)
    found: list[SeriesFound] = []
    for start in range(0, total, PAGE):
        if on_progress is not None:
            on_progress("looking at series", start, total)
        found += _page(client, said, start, min(PAGE, total - start))
    if on_progress is not None and total:
        on_progress("looking at series", total, total)
    fit = [one for one in found if one.n_samples >= search.min_samples]
    return sorted(fit, key=lambda one: (one.published, one.accession), reverse=True)


def _page(client: Client, said: dict[str, Any], start: int, size: int) -> Iterator[SeriesFound]:
    """Yield the series of one page of a search."""
    asked = {
        "db": "gds",
        "query_key": str(said["querykey"]),
        "WebEnv": str(said["webenv"]),
        "retstart": str(start),
        "retmax": str(size),
    }
    result = _of(_ask(client, "esummary", asked), "result")
    uids = result.get("uids")
    n_found = len(uids) if isinstance(uids, list) else 0
    if not isinstance(uids, list) or n_found != size:
        raise RefusedError(
            f"expected series {start + 1} to {start + size} of what was found, got {n_found} of "
            "them. Run again later"
        )
    for uid in map(str, uids):
        one = _of(result, uid)
        accession, n_samples = str(one.get("accession", "")), str(one.get("n_samples") or 0)
        if not ACCESSION.fullmatch(accession) or not n_samples.isdecimal():
            raise RefusedError(
                f"expected a series and how many samples it has, got {accession!r} and "
                f"{n_samples[:20]!r} for {one_line(uid)[:20]}. Run again later"
            )
        platforms = [f"GPL{number}" for number in str(one.get("gpl", "")).split(";") if number]
        yield SeriesFound(
            accession,
            int(n_samples),
            one_line(str(one.get("taxon") or "")),
            ",".join(platforms),
            one_line(str(one.get("pdat") or "")).replace("/", "-"),
            one_line(str(one.get("title") or "")),
        )


def _of(content: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object of an answer; empty where it is none."""
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _ask(client: Client, verb: str, asked: dict[str, str]) -> dict[str, Any]:
    """Return what E-utilities answer to a form."""
    form = {**asked, "retmode": "json", "tool": "dglzarr"}
    for name, variable in (("api_key", API_KEY), ("email", EMAIL)):
        if value := os.environ.get(variable):
            form[name] = value
    try:
        text = client.text(f"{client.options.address('eutils')}/{verb}.fcgi", form=form)
    except StatusError as error:
        if error.status != 400 or "api_key" not in form:
            raise
        raise RefusedError(
            f"expected {verb} to take the key of {API_KEY}, got status 400. Correct or unset it"
        ) from error
    text = text.replace(form.get("api_key", "\0"), "...")  # some answers repeat it
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RefusedError(
            f"expected JSON of {verb}, got {text[:60]!r}. Run again later"
        ) from error
    if not isinstance(found, dict):
        raise RefusedError(f"expected an object of {verb}, got {text[:60]!r}. Run again later")
    if said := found.get("error"):
        raise RefusedError(
            f"expected an answer of {verb}, got {one_line(str(said))[:100]!r}. Run again later"
        )
    return found
