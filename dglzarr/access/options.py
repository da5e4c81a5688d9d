"""How files are fetched: places, addresses, and how patiently; declared once.

What is not set is taken from the environment when it is asked for, never at import.
"""

from __future__ import annotations

import os
from pathlib import Path

from dglzarr.storage.options import Options, choice

PUBLIC = {
    "geo": "https://ftp.ncbi.nlm.nih.gov/geo",
    "ncbi": "https://www.ncbi.nlm.nih.gov",
    "eutils": "https://eutils.ncbi.nlm.nih.gov/entrez/eutils",
    "gtex": "https://storage.googleapis.com/adult-gtex",
}
"""Where each service is; another place by setting, or by DGLZARR_GEO_URL and the like."""

API_KEY = "NCBI_API_KEY"
_RATE, _RATE_WITH_KEY = 3.0, 10.0


class FetchOptions(Options):
    """Where files of accessions come from and go to, and how patiently they are asked for."""

    section = "fetch"

    cache: str | None = choice(
        None,
        "folder of fetched files, shared by studies; without it DGLZARR_CACHE of the environment, "
        "else dglzarr in the user's folder of caches",
        is_path=True,
        is_recorded=False,
        min_length=1,
    )
    lock: str = choice(
        "sources.lock",
        "file that records what was fetched, so that it is the same next time",
        is_path=True,
        is_recorded=False,
        min_length=1,
    )
    geo: str | None = choice(
        None, "address of GEO's files; without it DGLZARR_GEO_URL, else NCBI's", is_recorded=False
    )
    ncbi: str | None = choice(
        None, "address of NCBI's pages; without it DGLZARR_NCBI_URL, else NCBI's", is_recorded=False
    )
    eutils: str | None = choice(
        None,
        "address of the E-utilities; without it DGLZARR_EUTILS_URL, else NCBI's",
        is_recorded=False,
    )
    gtex: str | None = choice(
        None, "address of GTEx's files; without it DGLZARR_GTEX_URL, else GTEx's", is_recorded=False
    )
    hosts: tuple[str, ...] = choice(
        (),
        "patterns of further hosts that a server may send to, such as *.example.org",
        is_recorded=False,
        strict=False,
    )
    requests_per_second: float | None = choice(
        None,
        f"most requests a second; without it {_RATE:g}, or {_RATE_WITH_KEY:g} with {API_KEY} in "
        "the environment, as NCBI asks",
        is_recorded=False,
        gt=0,
        le=10,
    )
    at_once: int = choice(3, "sources that are fetched side by side", is_recorded=False, ge=1, le=4)
    attempts: int = choice(
        6, "how often a request is tried while nothing comes", is_recorded=False, ge=1, le=20
    )
    first_wait: float = choice(
        1.0,
        "seconds before it is tried again; they double up to a minute, with jitter",
        is_recorded=False,
        gt=0,
        le=60,
    )
    time_out: float = choice(
        60.0,
        "seconds in which at least 1000 bytes a second must come",
        is_recorded=False,
        gt=0,
        le=3600,
    )

    max_refused: float = choice(
        0.02,
        "largest share of a study's sources that may be refused while it grows by the others; mine "
        "takes all or none",
        is_recorded=False,
        ge=0,
        lt=1,
    )

    def files(self) -> dict[str, str]:
        """Return no file: cache and lock need not be there, and are no input."""
        return {}

    def address(self, service: str) -> str:
        """Return the address of a service: as set, by the environment, or the public one."""
        chosen = getattr(self, service) or os.environ.get(f"DGLZARR_{service.upper()}_URL")
        return str(chosen or PUBLIC[service]).rstrip("/")

    def cache_folder(self) -> Path:
        """Return where fetched files are: as set, by the environment, or the user's cache."""
        if chosen := self.cache or os.environ.get("DGLZARR_CACHE"):
            return Path(chosen).expanduser().absolute()
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        return Path(base, "dglzarr").absolute()

    def rate(self) -> float:
        """Return the most requests a second."""
        known = _RATE_WITH_KEY if os.environ.get(API_KEY) else _RATE
        return self.requests_per_second or known
