"""HDF5 files as they come: what HDF5 itself would not survive is refused before it is asked."""

import os

import h5py
import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import hdf5
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
    os.utime(path, ns=(0, 0))  # changed within a tick of the clock
    with pytest.raises(SourceError, match=r"^a\.h5: .*zeros in the texts at byte \d+"):
        check_heaps(path)


def test_check_heaps__a_length_that_leads_nowhere(tmp_path):
    path = written(tmp_path / "a.h5")
    raw = path.read_bytes()
    at = raw.index(b"GSM7") - 8
    path.write_bytes(raw[:at] + (2**64 - 16).to_bytes(8, "little") + raw[at + 8 :])
    with pytest.raises(SourceError, match="zeros in the texts"):
        check_heaps(path)


@pytest.mark.parametrize("nbytes", [4, 8])
def test_check_heaps__far_behind_and_with_short_lengths(tmp_path, monkeypatch, nbytes):
    monkeypatch.setattr(hdf5, "_PIECE_NBYTES", 70_000)  # a heap is up to 65536 long
    made = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    made.set_sizes(8, nbytes)
    path = tmp_path / "a.h5"
    with h5py.File(h5py.h5f.create(bytes(path), fcpl=made)) as file:
        names = np.array([f"GSM{i:05d}" for i in range(30_000)], object)
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
    check_heaps(path)
    raw = path.read_bytes()
    at = raw.index(b"GSM25000") - 16
    path.write_bytes(raw[:at] + bytes(16) + raw[at + 16 :])
    os.utime(path, ns=(0, 0))  # changed within a tick of the clock
    with pytest.raises(SourceError, match=r"zeros in the texts .* written anew with h5repack\.$"):
        check_heaps(path)


def test_check_heaps__once(tmp_path, monkeypatch):
    path = written(tmp_path / "a.h5")
    check_heaps(path)
    monkeypatch.setattr(hdf5, "_is_stuck", lambda *_: True)
    check_heaps(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceError, match="zeros"):
        check_heaps(path)


@pytest.mark.parametrize("how", [{"chunks": (7,)}, {"chunks": (40,), "compression": "gzip"}])
def test_check_chunk__text_of_any_length(tmp_path, how):
    """It is a place elsewhere: 16 bytes in the file, 8 in memory."""
    with h5py.File(written(tmp_path / "a.h5", **how)) as file:
        check_chunk(file["names"])
