"""Sources that a growing study leaves out: few are told and do not stop it, more do.

``refused.tsv`` in the study's folder lists them, until they are taken.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dglzarr.errors import SourceError
from dglzarr.storage.files import place_of, put, told

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

REFUSED = "refused.tsv"
_HEADER = "source\twhy\n"


def is_too_many(n_refused: int, n_sources: int, share: float) -> bool:
    """Return whether more sources were refused than a share of all.

    Examples
    --------
    >>> is_too_many(1, 50, 0.02), is_too_many(2, 50, 0.02), is_too_many(0, 1, 0.0)
    (False, True, False)
    """
    return n_refused > share * n_sources


def settle(root: str, refused: Mapping[str, str], n_sources: int, share: float) -> None:
    """Record and log what was refused, and stop where it is too much.

    Parameters
    ----------
    root
        The study's folder.
    refused
        Why, a line that names the source, by source.
    n_sources
        Of the study, with those refused.
    share
        The largest share that may be refused: ``fetch.max_refused``.

    Raises
    ------
    SourceError
        When more are refused; the list is written all the same.
    """
    rows = [f"{source}\t{' '.join(why.split())}\n" for source, why in sorted(refused.items())]
    path = place_of(root, REFUSED)
    with told(str(path), remedy="Make room for it."):
        if rows:
            put(path, "".join([_HEADER, *rows]).encode())
        else:
            path.unlink(missing_ok=True)
    for why in refused.values():
        logger.warning("left out: %s", why)
    if is_too_many(len(refused), n_sources, share):
        more = f" And {len(refused) - 1} more: see {path}." if len(refused) > 1 else ""
        raise SourceError(
            f"{next(iter(refused.values()))}{more} {len(refused)} of {n_sources} sources were "
            f"refused, over fetch.max_refused = {share:g}."
        )


def read_refused(root: str) -> dict[str, str]:
    """Return what a study left out when it last grew, and why, by source."""
    path = place_of(root, REFUSED)
    if not path.is_file():
        return {}
    with told(str(path)):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return {source: why for source, _, why in (line.partition("\t") for line in lines)}


def refusal_lines(root: str) -> list[str]:
    """Return what a study left out when it last grew, a line each."""
    found = read_refused(root)
    first = [f"Left out: {len(found)} sources ({REFUSED})."] if found else []
    return [*first, *found.values()]
