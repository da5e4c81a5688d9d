"""Some samples of a remote ARCHS4 file, fetched by ranges of bytes into the cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dglzarr.access.address import address_name, public_address
from dglzarr.access.content import Head
from dglzarr.access.download import Fetched
from dglzarr.access.fetch import entry_of
from dglzarr.access.http import RefusedError
from dglzarr.access.ranges import Stretches, stretches
from dglzarr.errors import SourceError
from dglzarr.sources.hdf5 import Guarded, told
from dglzarr.sources.part import Part
from dglzarr.storage.files import file_sha256, put

if TYPE_CHECKING:
    from dglzarr.access.fetch import Fetcher
    from dglzarr.access.lock import Entry
    from dglzarr.access.ranges import Ranged
    from dglzarr.sources import Reading

_OF = "of.json"


def fetch_part(fetcher: Fetcher, source: str, uri: str, reading: Reading) -> tuple[Entry, str]:
    """Return a smaller ARCHS4 file of some samples, in the cache, and what it took, in words.

    What has come stays until all is there, so that a killed run goes on where it was.

    Parameters
    ----------
    fetcher
        Who fetches, and where to.
    source, uri
        What the lock calls it, and where it is.
    reading
        Which samples.

    Raises
    ------
    RefusedError
        When it cannot be had, the server gives no ranges, or it changed.
    SourceError
        When it is no ARCHS4 file, or has no such samples.
    OSError
        When the disk refuses.
    """
    address = public_address(uri)
    name = address_name(address)
    stem, dot, suffix = name.rpartition(".")
    called = f"{stem}-{source.rpartition('#')[2]}{dot}{suffix}"  # two parts of a file are no one
    with fetcher.cache.partial(f"{address}#{source}") as place:
        ranged = fetcher.ranged(address)
        _keep_only(ranged, place)
        packed, made = place / "packed", place / "made"
        try:
            with (
                ranged.telling(),
                told(Path(name), "a complete HDF5 file"),
                (guarded := Guarded(ranged)).opened() as file,
            ):
                part = Part(name, guarded, file, reading)
                asked = stretches((chunk.offset, chunk.nbytes) for chunk in part.chunks)
                _check_space(place, 2 * sum(stop - start for start, stop in asked) + part.nbytes)
                ranged.save(asked, place, at_once=fetcher.options.at_once)
                part.pack(Stretches(place, asked), packed)
            part.write(packed, made)
        except SourceError:  # what came is no use
            fetcher.cache.forget(place)
            raise
        sha256, size = file_sha256(str(made)), made.stat().st_size
        path = fetcher.cache.take(made, sha256, called)
        fetcher.cache.forget(place)
    found = Fetched(path, sha256, size, ranged.etag, ranged.modified, Head())
    return entry_of(source, "part", address, found), (
        f"{part.rows.size} of {part.n_samples} samples: read {ranged.n_bytes / 1e6:.1f} of "
        f"{ranged.size / 1e6:.1f} MB in {ranged.n_requests} requests"
    )


def _keep_only(ranged: Ranged, place: Path) -> None:
    """Keep what a killed run left where it is of the same file."""
    now = json.dumps([ranged.size, ranged.etag, ranged.modified]).encode()
    mark = place / _OF
    if not mark.exists() or mark.read_bytes() != now:
        for path in place.glob("*-*"):
            path.unlink()
        put(mark, now)


def _check_space(place: Path, nbytes: int) -> None:
    free = shutil.disk_usage(place).free
    if nbytes > free:
        raise RefusedError(
            f"expected {nbytes >> 20} MiB free at {place.parent.parent}, got {free >> 20}. Free "
            "space or set another fetch.cache, choose fewer samples, and run again"
        )
