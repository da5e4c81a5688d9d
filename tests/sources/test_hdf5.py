"""HDF5 files as they come: what HDF5 itself would not survive is refused before it is asked."""

import h5py
import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources.hdf5 import check_chunk, check_heaps


def written(path, **how):
    with h5py.File(path, "w") as file:
        names = np.array([f"GSM{i}" for i in range(40)], object)
        file.create_dataset("names", data=names, dtype=h5py.string_dtype(), **how)
    return path


def test_check_heaps__zeros_within(tmp_path):
    """HDF5 1.14.6 never returns from reading a text of such a file."""
    path = written(tmp_path / "a.h5")
    check_heaps(path)
    raw = path.read_bytes()
    at = raw.index(b"GSM7") - 16
    path.write_bytes(raw[:at] + bytes(16) + raw[at + 16 :])
    with pytest.raises(SourceError, match=r"^a\.h5: .*zeros in the texts at byte \d+"):
        check_heaps(path)


def test_check_heaps__a_length_that_leads_nowhere(tmp_path):
    path = written(tmp_path / "a.h5")
    raw = path.read_bytes()
    at = raw.index(b"GSM7") - 8
    path.write_bytes(raw[:at] + (2**64 - 16).to_bytes(8, "little") + raw[at + 8 :])
    with pytest.raises(SourceError, match="zeros in the texts"):
        check_heaps(path)


@pytest.mark.parametrize("how", [{"chunks": (7,)}, {"chunks": (40,), "compression": "gzip"}])
def test_check_chunk__text_of_any_length(tmp_path, how):
    """It is a place elsewhere: 16 bytes in the file, 8 in memory."""
    with h5py.File(written(tmp_path / "a.h5", **how)) as file:
        check_chunk(file["names"])
