"""A file by its address: https, or a public object of s3 or gs by the https address it has."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from dglzarr.access.cache import check_name
from dglzarr.access.fetch import entry_of
from dglzarr.access.http import RefusedError, check_address, split_address

if TYPE_CHECKING:
    from dglzarr.access.fetch import Fetcher
    from dglzarr.access.lock import Entry


def public_address(uri: str) -> str:
    """Return the https address of a public object.

    Raises
    ------
    RefusedError
        When it is of another kind, or has credentials in it.

    Examples
    --------
    >>> public_address("gs://adult-gtex/a.gct.gz")
    'https://storage.googleapis.com/adult-gtex/a.gct.gz'
    >>> public_address("s3://recount-opendata/a/b.gz")
    'https://recount-opendata.s3.amazonaws.com/a/b.gz'
    """
    parts = split_address(uri)
    path = quote(unquote(parts.path))
    if parts.scheme in ("gs", "s3") and ("@" in parts.netloc or parts.query):
        raise RefusedError(
            f"expected a bucket and a name in it, got more at {parts.scheme}://{parts.hostname}: a "
            "user or a query. Name a public object, or download it and name the file"
        )
    if parts.scheme == "gs":
        return f"https://storage.googleapis.com/{parts.netloc}{path}"
    if parts.scheme == "s3":
        return f"https://{parts.netloc}.s3.amazonaws.com{path}"
    if parts.scheme not in ("http", "https"):
        raise RefusedError(
            f"expected an https, s3 or gs address, got {parts.scheme}://. Correct it"
        )
    return check_address(uri)


def address_name(address: str) -> str:
    """Return what a file at an address is called.

    Raises
    ------
    RefusedError
        When that is no plain name.
    """
    name = unquote(urlsplit(address).path).rpartition("/")[2]
    if not name:
        raise RefusedError(
            "expected an address that ends in a file's name, got a folder. Correct it"
        )
    return check_name(name)


def fetch_address(fetcher: Fetcher, uri: str) -> list[Entry]:
    """Return one file, in the cache.

    Raises
    ------
    RefusedError
        When it cannot be had, or is no data.
    """
    address = public_address(uri)
    name = address_name(address)
    is_matrix = name.endswith(("_series_matrix.txt", "_series_matrix.txt.gz"))
    found = fetcher.get(address, name, is_matrix=is_matrix, is_gzip=name.endswith(".gz"))
    return [entry_of(f"uri:{uri}", "data", address, found)]
