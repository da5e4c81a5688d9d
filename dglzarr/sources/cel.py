"""CEL files: intensities of every spot of one array, which are no expression of genes yet."""

import gzip
import zlib
from pathlib import Path

from dglzarr.errors import SourceError
from dglzarr.sources.text import GZIP_MAGIC

_CEL = (b"[CEL]", b"\x40\x00\x00\x00\x04\x00\x00\x00", b"\x3b\x01\x00\x00")
"""How versions 3 and 4, and those of the Command Console, begin."""

_TAR_AT, _TAR = 257, b"ustar"
_REMEDY = (
    "Make a matrix of all of them in R first: affy::rma(affy::ReadAffy()) or affy::justRMA() for "
    "older 3' arrays, oligo::rma(oligo::read.celfiles(...)) for newer ones, then write.exprs(); or "
    "take the series matrix of GEO"
)


def refuse_cel(path: Path) -> None:
    """Refuse a CEL file, plain or gzip, and an archive as GEO packs them in.

    Raises
    ------
    SourceError
        Naming what makes a matrix of them.
    """
    head = _head(path)
    if head.startswith(_CEL):
        raise SourceError(
            f"{path.name}: expected a matrix of expression, got a CEL file, the spots of an array. "
            f"{_REMEDY}."
        )
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise SourceError(
            f"{path.name}: expected a matrix of expression, got a tar archive. Unpack it; where it "
            f"holds CEL files: {_REMEDY[0].lower()}{_REMEDY[1:]}."
        )


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, unpacked; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head[: len(GZIP_MAGIC)] == GZIP_MAGIC:
            with gzip.open(path) as unpacked:
                head = unpacked.read(512)
    except (OSError, EOFError, zlib.error):
        return b""  # which the reader of text tells of
    return head
