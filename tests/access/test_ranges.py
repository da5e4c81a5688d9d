"""Some samples of a remote ARCHS4 file, by ranges of bytes: what a local one gives, and faults."""

import io
import os
import re
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.mirror import serving
from dglzarr.access import ranges
from dglzarr.access.http import Client, RefusedError
from dglzarr.access.lock import read_lock
from dglzarr.access.options import FetchOptions
from dglzarr.cli import app
from dglzarr.errors import ConfigError
from dglzarr.settings import load_settings
from dglzarr.sources import read_source
from dglzarr.studies.fetch import fetch
from dglzarr.studies.plan import Plan
from tests.access.scripted import scripted

N, G = 900, 1600
NAME = "human_gene_v2.5.h5"
CHOICES = {
    "series": 'only_series = ["GSE3", "GSE40"]',
    "text": 'only_matching = "^liver$"\nonly_series = ["GSE3", "GSE9", "GSE21"]',
}


@cache
def archs4(version, chunks, seed):
    """A file of 4 MB that cannot be packed: 90 series, of which each third is of liver."""
    counts = np.random.default_rng(seed).integers(0, 2**24, (G, N), dtype=np.uint32)
    text = h5py.string_dtype()
    prefix = "meta/samples/" if version == 2 else "meta/Sample_"
    with h5py.File(content := io.BytesIO(), "w") as file:
        values, packed = counts if version == 2 else counts.T, "gzip" if chunks else None
        file.create_dataset("data/expression", data=values, chunks=chunks, compression=packed)
        labels = {
            "geo_accession": [f"GSM{i}" for i in range(N)],
            "series_id": [f"GSE{i // 10}" for i in range(N)],
            "title": [f"sample {i}" for i in range(N)],
            "characteristics_ch1": [
                f"tissue: {['liver', 'skin', 'lung'][i % 3]}" for i in range(N)
            ],
        }
        for name, cells in labels.items():
            file.create_dataset(prefix + name, data=cells, dtype=text)
        if version == 2:
            file["meta/samples/singlecellprobability"] = np.where(np.arange(N) % 7 == 3, 0.8, 0.1)
        genes = "meta/genes/symbol" if version == 2 else "meta/genes"
        file.create_dataset(genes, data=[f"GENE{i}" for i in range(G)], dtype=text)
    return content.getvalue()


def write_archs4(path, *, version=2, chunks=(G, 8), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archs4(version, chunks, seed))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("DGLZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DGLZARR_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


@pytest.fixture
def mirror(place):
    with serving(place / "served") as server:
        yield server


def write(place, mirror, choice=CHOICES["series"]):
    (place / "study.toml").write_text(
        f'root = "study"\n[[sources]]\nuri = "{mirror.address}/{NAME}"\nunit = "counts"\n'
        f"by_ranges = true\n{choice}\n[fetch]\nrequests_per_second = 10.0\nfirst_wait = 0.05\n"
        "attempts = 2\n[select]\nn_landmarks = 5\n",
        encoding="utf-8",
    )
    return load_settings(place / "study.toml")


def only(outcomes):
    (outcome,) = outcomes
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "chunks", "choice"),
    [(2, (G, 8), "series"), (2, (200, 100), "text"), (1, (1, G), "series"), (1, (64, 64), "text")],
)
def test_by_ranges__reads_what_the_whole_file_gives(
    place, mirror, monkeypatch, version, chunks, choice
):
    monkeypatch.setattr(ranges, "MOST_GAP", 1 << 12)  # as the file is some MB long
    monkeypatch.setattr(ranges, "_BLOCK", 1 << 16)
    monkeypatch.setattr(ranges, "_FIRST", 1 << 16)
    served = write_archs4(place / "served" / NAME, version=version, chunks=chunks)
    settings = write(place, mirror, CHOICES[choice])
    outcome = only(fetch(settings))
    assert outcome.state == "fetched", outcome.told
    (source,) = Plan.of(settings).sources
    reading = source.options.reading()
    found, wanted = read_source(source.path, reading=reading), read_source(served, reading=reading)
    assert found.series.startswith(f"{wanted.series}-")
    for name in ("samples", "genes", "gene_symbol", "sample_series", "labels"):
        assert getattr(found, name) == getattr(wanted, name), name
    n = len(wanted.samples)
    assert np.array_equal(found.read(0, n), wanted.read(0, n))
    told = re.fullmatch(
        rf"{n} of {N} samples: read ([\d.]+) of ([\d.]+) MB in (\d+) requests", outcome.told
    )
    assert float(told[1]) < 0.75 * float(told[2])
    assert int(told[3]) == len(mirror.asked)
    assert all(asked for _, _, asked in mirror.asked), "never the whole"


@pytest.mark.slow
def test_by_ranges__is_recorded_and_found_again_offline(place, mirror):
    write_archs4(place / "served" / NAME)
    settings = write(place, mirror)
    fetch(settings)
    (entry,) = read_lock(place / "sources.lock")
    assert entry.kind == "part"
    assert re.fullmatch(r"human_gene_v2\.5-\w{12}\.h5", entry.name)
    n_asked = len(mirror.asked)
    assert only(fetch(settings)).state == "kept"
    assert len(mirror.asked) == n_asked
    for path in (place / "cache").rglob("*.h5"):
        path.unlink()
    assert only(fetch(settings)).state == "fetched"
    assert read_lock(place / "sources.lock") == [entry], "made again, the same bytes"
    other = write(place, mirror, 'only_series = ["GSE5"]')
    assert only(fetch(other)).state == "fetched", "other samples"
    assert only(fetch(other, check=True)).state == "kept"
    assert {Path(s.path).name for s in Plan.of(other).sources} != {entry.name}, "two are no one"


@pytest.mark.slow
def test_by_ranges__a_part_is_not_taken_for_the_whole_file(place, mirror):
    served = write_archs4(place / "served" / NAME)
    fetch(write(place, mirror))
    text = (place / "study.toml").read_text("utf-8").replace("by_ranges = true\n", "")
    (place / "study.toml").write_text(text, "utf-8")
    settings = load_settings(place / "study.toml")
    assert only(fetch(settings)).state == "fetched"
    (source,) = Plan.of(settings).sources
    assert Path(source.path).read_bytes() == served.read_bytes()


@pytest.mark.slow
def test_by_ranges__goes_on_where_it_was(place, mirror, monkeypatch):
    monkeypatch.setattr(ranges, "MOST_GAP", 0)
    write_archs4(place / "served" / NAME, chunks=(400, 8))
    settings = write(place, mirror, 'only_matching = "^sample [26]0$"')

    def stretches():
        return list((place / "cache" / "partial").rglob("*-*"))

    with monkeypatch.context() as faulty:
        faulty.setattr(mirror, "fault", lambda *_: "gone" if len(stretches()) > 2 else "")
        refused = only(fetch(settings))
    assert refused.state == "refused"
    assert "expected a file at" in refused.told
    assert not (place / "sources.lock").exists()
    n_kept = len(stretches())
    assert n_kept > 2
    resumed, sha256 = fetched(place, mirror, settings)
    (place / "sources.lock").unlink()
    anew, sha256_anew = fetched(place, mirror, settings)
    assert (anew - resumed, sha256_anew) == (n_kept, sha256)
    assert not stretches()


def fetched(place, mirror, settings):
    """How many requests it took, and what came."""
    n_before = len(mirror.asked)
    assert only(fetch(settings)).state == "fetched"
    return len(mirror.asked) - n_before, read_lock(place / "sources.lock")[0].sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "told"),
    [
        (["no-range"], "expected a server that gives ranges of bytes, got all of the file"),
        (["", "changed"], "got another: it changed while it was read. Run again"),
        (["", "no-range"], "got another: it changed while it was read. Run again"),
        (["", "short", "short"], "expected a whole file of 127.*, 2 times in a row"),
        (["gone"], "expected a file at .*, got none"),
        (["busy", "drop", ""], ""),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_by_ranges__faults(place, mirror, faults, told):
    write_archs4(place / "served" / NAME)
    mirror.faults[f"/{NAME}"] = faults
    settings = write(place, mirror)
    if "busy" in faults:
        settings = settings.model_copy(
            update={"fetch": settings.fetch.model_copy(update={"attempts": 4})}
        )
    outcome = only(fetch(settings))
    if not told:
        assert outcome.state == "fetched"
        return
    assert outcome.state == "refused"
    assert re.search(told, outcome.told), outcome.told
    assert not (place / "sources.lock").exists()
    assert not (place / "cache" / "files").exists()


@pytest.mark.slow
def test_by_ranges__changed_upstream_is_told_and_taken_when_wanted(place, mirror):
    served = write_archs4(place / "served" / NAME)
    settings = write(place, mirror)
    fetch(settings)
    write_archs4(served, seed=1)
    os.utime(served, (1e9, 1e9))
    assert only(fetch(settings)).state == "kept"
    checked = only(fetch(settings, check=True))
    assert checked.state == "changed"
    for path in (place / "cache").rglob("*.h5"):
        path.unlink()
    lost = only(fetch(settings))
    assert lost.state == "changed"
    assert "expected a file as of" in lost.told
    assert only(fetch(settings, update=True)).state == "fetched"
    (source,) = Plan.of(settings).sources
    wanted = read_source(served, reading=source.options.reading())
    assert np.array_equal(read_source(source.path).read(0, 5), wanted.read(0, 5))


@pytest.mark.slow
def test_by_ranges__another_file_and_samples_that_are_not_there(place, mirror):
    served = write_archs4(place / "served" / NAME)
    outcome = only(fetch(write(place, mirror, 'only_series = ["GSE3", "GSE99999"]')))
    assert "expected samples of series 'GSE99999', got none" in outcome.told
    served.write_bytes(b"no HDF5" * 1000)
    outcome = only(fetch(write(place, mirror)))
    assert f"{NAME}: expected a complete HDF5 file, got a damaged one" in outcome.told
    with h5py.File(served, "w") as file:
        file["X"] = np.ones(3)
    outcome = only(fetch(write(place, mirror)))
    assert (
        "expected an ARCHS4 file to read by ranges, got another. Remove by_ranges" in outcome.told
    )
    write_archs4(served, chunks=None)
    outcome = only(fetch(write(place, mirror)))
    assert "expected values in chunks to read by ranges, got one piece" in outcome.told
    damaged = bytearray(write_archs4(served).read_bytes())
    with h5py.File(served) as file:
        chunk = file["data/expression"].id.get_chunk_info_by_coord((0, 32))
    damaged[chunk.byte_offset + 100 : chunk.byte_offset + 4000] = bytes(3900)
    served.write_bytes(damaged)
    outcome = only(fetch(write(place, mirror)))
    assert "expected a readable matrix, got a damaged one" in outcome.told
    assert not list((place / "cache").rglob("*-*")), "what is damaged is not kept"


@pytest.mark.slow
def test_by_ranges__a_far_chunk_is_found_without_walking_to_it(place, mirror, monkeypatch):
    """Of 100,000 samples in chunks of one, the last: HDF5 would read the whole index for it."""
    monkeypatch.setattr(ranges, "_BLOCK", 1 << 12)
    monkeypatch.setattr(ranges, "_FIRST", 1 << 14)
    n, path = 100_000, place / "served" / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data/expression", (8, n), "u4", chunks=(8, 1))
        for start in range(0, n, 1000):
            data[:, start : start + 1000] = np.arange(start, start + 1000)
        file["meta/samples/geo_accession"] = np.array([f"GSM{i}" for i in range(n)], "S9")
        file["meta/samples/series_id"] = np.array([f"GSE{i // 1000}" for i in range(n)], "S7")
        file["meta/genes/symbol"] = np.array([f"GENE{i}" for i in range(8)], "S5")
    (place / "ids.txt").write_text(f"GSM{n - 1}\nGSM{n // 2}\n")
    settings = write(place, mirror, 'only_samples = "ids.txt"')
    outcome = only(fetch(settings))
    assert outcome.state == "fetched", outcome.told
    (source,) = Plan.of(settings).sources
    assert read_source(source.path).read(0, 2)[:, 0].tolist() == [n // 2, n - 1]
    assert len(mirror.asked) < 60, "of 1,600 nodes of its index"


@pytest.mark.slow
def test_command__tells_what_was_read(place, mirror, monkeypatch):
    write_archs4(place / "served" / NAME)
    write(place, mirror)
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["fetch", "study.toml"])
    assert done.exit_code == 0
    assert re.search(rf"{NAME}: 16 of {N} samples: read .* MB in \d+ requests", done.output)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('uri = "human.h5"\nonly_series = ["GSE1"]', "by_ranges: expected an address as uri"),
        ('geo = "GSE1"\nonly_series = ["GSE1"]', "by_ranges: expected an address as uri"),
        ('uri = "https://a.org/human.h5"', "by_ranges: expected only_series, only_matching or"),
    ],
)
def test_settings__by_ranges_of_what(tmp_path, lines, told):
    (tmp_path / "study.toml").write_text(f'root = "s"\n[[sources]]\nby_ranges = true\n{lines}\n')
    with pytest.raises(ConfigError, match=told):
        load_settings(tmp_path / "study.toml")


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("etag", "is_read"), [('"a"', True), ('W/"a"', False)])
def test_by_ranges__times_are_compared_where_there_is_no_strong_tag(etag, is_read):
    days = iter(range(10, 20))

    def answer(handler):
        at, stop = map(int, handler.headers["Range"][6:].split("-"))
        said = {"Content-Range": f"bytes {at}-{stop}/{1 << 24}", "ETag": etag}
        return 206, {**said, "Last-Modified": f"{next(days)}"}, bytes(stop + 1 - at)

    with scripted({"/a": answer}) as (server, _):
        file = ranges.Ranged(Client(FetchOptions(requests_per_second=10.0)), f"{server}/a")
        file.seek(1 << 23)
        with nullcontext() if is_read else pytest.raises(RefusedError, match="it changed"):
            assert file.read(4) == bytes(4)
