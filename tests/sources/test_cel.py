"""CEL files and archives of them are refused with what makes a matrix of them."""

import gzip
import io
import tarfile

import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import read_source

HEADS = {
    "version 3": b"[CEL]\nVersion=3\n\n[HEADER]\nCols=712\n",
    "version 4": (64).to_bytes(4, "little") + (4).to_bytes(4, "little") + bytes(400),
    "command console": b"\x3b\x01\x00\x00\x00\x01" + bytes(400),
}


@pytest.mark.parametrize("suffix", ["CEL", "CEL.gz"])
@pytest.mark.parametrize("kind", HEADS)
def test_read_source__cel(tmp_path, kind, suffix):
    path = tmp_path / f"GSM1.{suffix}"
    path.write_bytes(gzip.compress(HEADS[kind]) if suffix.endswith("gz") else HEADS[kind])
    with pytest.raises(SourceError, match=r"GSM1\..*got a CEL file.*justRMA.*oligo.*series matrix"):
        read_source(path)


def test_read_source__archive_of_cel(tmp_path):
    path = tmp_path / "GSE1_RAW.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("GSM1.CEL.gz")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(SourceError, match=r"GSE1_RAW\.tar: .*got a tar archive\. Unpack it.*affy"):
        read_source(path)
