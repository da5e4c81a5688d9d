"""HDF5 files as they come: what HDF5 itself would not survive is refused before it is asked."""

import os

import h5py
import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import hdf5
from dglzarr.sources.hdf5 import Guarded, check_chunk, check_heaps, strings


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


def test_guarded__zeros_within_are_told_as_they_are_read(tmp_path):
    """By ranges no file can be looked through beforehand."""
    path = written(tmp_path / "a.h5")
    with path.open("rb", buffering=0) as raw, Guarded(raw).opened() as file:
        assert file["names"].asstr()[7] == "GSM7"
    content = path.read_bytes()
    at = content.index(b"GSM7") - 16
    path.write_bytes(content[:at] + bytes(16) + content[at + 16 :])
    with (
        path.open("rb", buffering=0) as raw,
        Guarded(raw).opened() as file,
        pytest.raises(ValueError, match=r"zeros in the texts at byte \d+"),
    ):
        file["names"][()]


_PLACE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
_LAYOUTS = [
    {},
    {"chunks": (7,)},
    {"chunks": (40,), "compression": "gzip", "shuffle": True},
]


@pytest.mark.parametrize("how", _LAYOUTS)
@pytest.mark.parametrize("is_ranged", [False, True])
@pytest.mark.parametrize("userblock_size", [0, 512])
def test_strings__whole(tmp_path, how, is_ranged, userblock_size):
    path = tmp_path / "a.h5"
    names = [f"GSM{i}" * (i % 3) for i in range(20_000)]  # every third is empty
    with h5py.File(path, "w", userblock_size=userblock_size) as file:
        file.create_dataset("names", data=names, dtype=h5py.string_dtype(), **how)
    with path.open("rb", buffering=0) as raw:
        opened = Guarded(raw).opened() if is_ranged else h5py.File(path)
        with opened as file:
            assert strings(file["names"]) == names


@pytest.mark.parametrize("how", _LAYOUTS)
@pytest.mark.parametrize("is_ranged", [False, True])
@pytest.mark.parametrize(
    ("field", "value"), [("length", 2**31), ("length", 3), ("heap", 16), ("number", 9999)]
)
def test_strings__a_place_that_leads_nowhere(tmp_path, how, is_ranged, field, value):
    """HDF5 1.14.6 would read 2 GiB, or write behind the end of what it made room for."""
    path = written(tmp_path / "a.h5", **how)
    with h5py.File(path, "r+") as file:
        names = file["names"]
        if names.chunks is None:
            at, raw = names.id.get_offset(), path.read_bytes()
            places = np.frombuffer(raw, _PLACE, 40, at).copy()
        else:
            places = np.frombuffer(hdf5._unpacked(names, (0,)), _PLACE).copy()
        places[3][field] = value
        if names.chunks is not None:
            names.id.write_direct_chunk((0,), places.tobytes(), filter_mask=0b11)
    if not how:
        path.write_bytes(raw[:at] + places.tobytes() + raw[at + places.nbytes :])
    with path.open("rb", buffering=0) as raw:
        opened = Guarded(raw).opened() if is_ranged else h5py.File(path)
        with opened as file, pytest.raises(ValueError, match=r"a text of \d+ bytes that is lost"):
            strings(file["names"])


def test_strings__lists(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        names = file.create_dataset("names", (2,), h5py.vlen_dtype("u1"))
        with pytest.raises(TypeError, match="/names with lists for texts"):
            strings(names)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_guarded__a_chunk_is_found_as_hdf5_finds_it(tmp_path, version):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        data = file.create_dataset("x", (90, 70), "u4", chunks=(10, 10), compression="gzip")
        data[:40, :70] = np.arange(40 * 70).reshape(40, 70)
    with path.open("rb", buffering=0) as raw, (guarded := Guarded(raw)).opened() as file:
        for place in np.ndindex(9, 7):
            at = (10 * place[0], 10 * place[1])
            told = file["x"].id.get_chunk_info_by_coord(at)
            found = guarded.find_chunk(file["x"], at)
            if told.byte_offset is None:
                assert found is None
            else:
                assert found == (at, told.filter_mask, told.byte_offset, told.size)
        assert np.array_equal(file["x"][:40], np.arange(40 * 70).reshape(40, 70))


def test_check_chunk__one_shorter_than_its_checksum(tmp_path):
    """HDF5 1.14.6 would read far behind it, whichever chunk it is."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        ds = file.create_dataset("x", (4,), "f4", chunks=(1,), fletcher32=True)
        ds[:] = 1.5
        check_chunk(ds)
        ds.id.write_direct_chunk((2,), b"ab")
        with pytest.raises(ValueError, match="a chunk of 2 bytes, 4 at least expected"):
            check_chunk(ds)


def test_check_heaps__once(tmp_path, monkeypatch):
    path = written(tmp_path / "a.h5")
    check_heaps(path)
    monkeypatch.setattr(hdf5, "_heap", lambda *_: None)
    check_heaps(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceError, match="zeros"):
        check_heaps(path)


@pytest.mark.parametrize("how", [{"chunks": (7,)}, {"chunks": (40,), "compression": "gzip"}])
def test_check_chunk__text_of_any_length(tmp_path, how):
    """It is a place elsewhere: 16 bytes in the file, 8 in memory."""
    with h5py.File(written(tmp_path / "a.h5", **how)) as file:
        check_chunk(file["names"])
