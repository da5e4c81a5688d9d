"""New series for a study: found by its [discover], and added to the list that a source names."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dglzarr.access.discover import discover
from dglzarr.access.http import Client, RefusedError
from dglzarr.errors import ConfigError, SourceError
from dglzarr.storage.files import put, told
from dglzarr.studies.fetch import wanted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dglzarr.access.discover import SeriesFound
    from dglzarr.settings import Settings
    from dglzarr.storage.options import Progress

COLUMNS = ("accession", "samples", "organism", "platforms", "published", "title")


def series_rows(found: Iterable[SeriesFound]) -> str:
    """Return series as rows of a table, tabs between the cells."""
    rows = ([str(cell) for cell in asdict(one).values()] for one in found)
    return "".join("\t".join(row) + "\n" for row in rows)


def discover_more(
    settings: Settings, *, on_progress: Progress | None = None
) -> tuple[list[SeriesFound], int]:
    """Search as a study's ``[discover]`` says, and add new series to its list, the oldest first.

    So of two series that share samples the older is taken.

    Returns
    -------
    tuple
        The series that the settings did not name before, the newest first; and how many were found.

    Raises
    ------
    ConfigError
        When nothing is looked for, or no source takes the list.
    SourceError
        When the search is refused.
    """
    options, path = settings.discover, Path(settings.discover.list)
    try:
        options.search().term()
    except RefusedError as error:
        raise ConfigError(f"discover: {error}.") from error
    if not any(str(path) in source.accessions for source in settings.sources):
        raise ConfigError(
            f"discover.list: expected a source that takes it, got none. Add [[sources]] with geo = "
            f'"{path.name}".'
        )
    header = "\t".join(COLUMNS) + "\n"
    with told(str(path), remedy="Choose a writable place as discover.list."):
        if not path.is_file():
            put(path, header.encode())
        before = path.read_text(encoding="utf-8-sig")
    known = {one.name for one in wanted(settings)}
    try:
        found = discover(Client(settings.fetch), options.search(), on_progress=on_progress)
    except RefusedError as error:
        raise SourceError(f"discover: {error}.") from error
    new = [one for one in found if one.accession not in known]
    if new:
        text = before if before.endswith("\n") else f"{before}\n"
        with told(str(path), remedy="Choose a writable place as discover.list."):
            put(path, (text + series_rows(reversed(new))).encode())
    return new, len(found)


def discovered_lines(new: list[SeriesFound], n_found: int) -> list[str]:
    """Return what a search found, in words: a line, and one for each new series."""
    shown = [f"  {one.accession}: {one.n_samples} samples, {one.title}" for one in new]
    return [f"Found {n_found} series, {len(new)} of them new.", *shown]
