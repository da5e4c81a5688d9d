"""Which tables and features name the genes of a study, for `dglzarr genes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dglzarr import query
from dglzarr.errors import ConfigError, StoreError
from dglzarr.query.genes import names_of
from dglzarr.query.named import read_known
from dglzarr.studies.fetch import fetched_files, is_remote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.query.named import Names
    from dglzarr.settings import Settings

STORE = "landmarks"


def names_for(
    settings: Settings | None, annotations: Sequence[str], aliases: str = ""
) -> tuple[Names, list[str]]:
    """Return the names of tables and of a study, and what a user should know of them.

    Parameters
    ----------
    settings
        A study: its annotation tables, fetched ones too, and its genes where it is mined.
    annotations, aliases
        Further tables; the annotations are asked before the study's.

    Raises
    ------
    SourceError
        When a table is none.
    """
    paths, study, notes = list(annotations), None, []
    if settings is not None:
        paths += _tables(settings)
        try:
            study = names_of(query.open(f"{settings.root}#{STORE}"))
        except StoreError:
            notes.append(
                f"{settings.root}: not mined yet, so that nothing is said of its features."
            )
    known = read_known(paths, aliases, study)
    if known.is_empty:
        notes.append(
            "No table of names: ids are told by their looks alone. Give --annotation, --aliases "
            "or the settings of a study."
        )
    return known, notes


def _tables(settings: Settings) -> list[str]:
    """Return the annotation tables that settings name, and those that came with fetched files."""
    found = [settings.ingest.annotation, *(source.annotation for source in settings.sources)]
    for number, source in enumerate(settings.sources):
        if not is_remote(source):
            continue
        try:
            files = fetched_files(settings, f"sources.{number}")
        except ConfigError:
            continue  # not fetched yet: `dglzarr fetch` tells
        found += [file.options.get("annotation") for file in files]
    return [path for path in found if path]
