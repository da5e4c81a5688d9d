"""One file, one raw store: as published, named in the lineage by its digest, read once."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import SourceError, StoreError
from dglzarr.sources.scaled import find_scale
from dglzarr.stages import ingest as stage
from dglzarr.stages.ingest import (
    SourceFile,
    SourceOptions,
    ingest,
    ingest_all,
    ingest_claims,
)
from dglzarr.storage import files
from dglzarr.storage.options import Run
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import is_complete, open_store, read_attributes
from dglzarr.testing import write_gct, write_table
from tests.builders import (
    Breaks,
    BrokenError,
    digests,
    draw,
    printed,
    remove_regions,
    times,
    write_gctx_source,
    write_source,
)


@pytest.fixture
def hashes(monkeypatch):
    """The files that are hashed from now on, those of before not remembered."""
    files._digest.cache_clear()
    read, sha256 = [], files.file_sha256
    monkeypatch.setattr(files, "file_sha256", lambda path: read.append(path) or sha256(path))
    return read


def claim_of(source):
    (claim,) = ingest_claims([source])
    return claim


# ---------------------------------------------------------------- values and labels


def test_ingest__raw_store_is_the_file(sources, simulated):
    ingest_all(sources)
    raw = open_store(sources[1].raw)
    rows = np.array(simulated.series) == raw["series"].values[0]
    np.testing.assert_array_equal(raw["expression"].values, printed(simulated.expression[rows]))
    np.testing.assert_array_equal(raw["gene"].values, simulated.genes)
    assert raw.attrs["details"]["scale"] == "log2"
    assert raw.attrs["details"]["format"] == "series-matrix"


def test_ingest__what_is_recorded(tmp_path, rng):
    source = write_source(tmp_path, "GSE1", draw(rng), unit="log2")
    ingest(source.path, source.raw, options=source.options)
    found = read_attributes(source.raw)
    (entry,) = found["inputs"]
    assert (entry["role"], entry["uri"]) == ("source", source.path)
    assert entry["store_id"] == files.file_sha256(source.path)
    stated = {name: value for name, value in found["parameters"].items() if value is not None}
    assert stated == {"role": "train", "unit": "log2"}
    assert set(found["parameters"]) == set(SourceOptions.model_fields)


def test_ingest__a_matrix_too_large_for_memory_goes_by_a_scratch_file(
    tmp_path, monkeypatch, sources
):
    new = tmp_path / "new"
    apart = [SourceFile(s.path, str(new / Path(s.raw).name)) for s in sources]
    ingest_all(sources)
    monkeypatch.setattr("dglzarr.sources.matrix.SHARD_SAMPLES", 2)
    ingest_all(apart)
    for one, other in zip(sources, apart, strict=True):
        np.testing.assert_array_equal(Rows(one.raw)[0:99], Rows(other.raw)[0:99])
    assert sorted(p.suffix for p in new.iterdir()) == [".zarr"] * len(sources)


def test_ingest__a_cohort_keeps_its_genes(tmp_path, rng):
    path = write_gct(
        tmp_path / "skin.gct", 100 * draw(rng), samples=list("abcdefgh"), genes=list("ABCDEFGHIJKL")
    )
    ingest(str(path), target := str(tmp_path / "skin.zarr"), options=SourceOptions(role="cohort"))
    raw = open_store(target)
    assert list(raw["gene"].values) == list("ABCDEFGHIJKL")
    assert raw.attrs["parameters"]["role"] == "cohort"
    assert raw.attrs["details"]["role"] == "cohort"


def test_ingest__sample_sheet(tmp_path, rng):
    names = [f"s{i}" for i in range(8)]
    sheet = tmp_path / "sheet.tsv"
    table = write_table(
        tmp_path / "GSE9_expr.tsv",
        draw(rng),
        samples=names,
        genes=[f"{i}_at" for i in range(12)],
        sample_sheet=sheet,
        labels={"disease": [f"d{i % 3}" for i in range(8)]},
    )
    target, options = str(tmp_path / "GSE9.zarr"), SourceOptions(sample_sheet=str(sheet))
    ingest(str(table), target, options=options)
    ds = open_store(target)
    assert list(ds["label"].values) == ["disease"]
    assert [str(v) for v in ds["sample_label"].values[:, 0]] == [f"d{i % 3}" for i in range(8)]
    sheet.write_text("Sample\tdisease\n")
    changed = r"other inputs: sources\.sample_sheet: sheet.tsv was changed\."
    with pytest.raises(StoreError, match=changed):
        ingest(str(table), target, options=options)
    with pytest.raises(StoreError, match=r"sources\.sample_sheet: sheet.tsv -> none\."):
        ingest(str(table), target)
    sheet.unlink()
    with pytest.raises(SourceError, match=r"sheet.tsv: no such file"):
        ingest(str(table), target, options=options)


@pytest.mark.parametrize("scale", ["log2", "raw"])
def test_ingest__gctx_is_opened_once_and_not_at_all_when_unchanged(
    tmp_path, rng, monkeypatch, scale
):
    opened = []
    monkeypatch.setattr(
        stage, "find_scale", lambda *a, **k: opened.append(a) or find_scale(*a, **k)
    )
    values = rng.uniform(4, 14, (40, 12))
    source = write_gctx_source(tmp_path, "GSE1", values if scale == "log2" else 2.0**values)
    for state in ("new", "unchanged"):
        assert ingest_all([source]).state == state
        assert len(opened) == 1
    schema = "raw-link" if scale == "log2" else "raw"
    assert read_attributes(source.raw)["dglzarr_schema"] == schema


def test_ingest__a_cohort_in_a_gctx_is_copied(tmp_path, rng):
    source = write_gctx_source(tmp_path, "GSE1", draw(rng))
    summary = ingest(source.path, source.raw, options=SourceOptions(role="cohort"))
    assert summary.schema == "raw"


def test_ingest__infinite_value_in_a_gctx(tmp_path, rng):
    values = rng.uniform(4, 14, (30, 12))
    values[16, 3] = np.inf
    source = write_gctx_source(tmp_path, "GSE1", values)
    with pytest.raises(SourceError, match=r"GSE1_x\.gctx.*inf"):
        ingest(source.path, source.raw)
    assert not is_complete(source.raw)


# ---------------------------------------------------------------- refusals


def test_ingest__centred_values(tmp_path, rng):
    source = write_source(tmp_path, "GSE1", rng.normal(0, 1, (8, 12)))
    with pytest.raises(SourceError, match=r"GSE1_series_matrix.txt.gz: .*median-centred"):
        ingest(source.path, source.raw)
    assert not is_complete(source.raw)


def test_ingest__only_missing_values(tmp_path):
    source = write_source(tmp_path, "GSE1", np.full((8, 12), np.nan))
    with pytest.raises(SourceError, match=r"GSE1_series_matrix.txt.gz: .*only missing values"):
        ingest(source.path, source.raw)
    assert not is_complete(source.raw)


def test_ingest__missing_file(tmp_path, rng):
    absent = str(tmp_path / "absent.txt")
    with pytest.raises(SourceError, match=r"absent.txt: no such file\.$"):
        ingest(absent, str(tmp_path / "raw/absent.zarr"))
    source = write_source(tmp_path, "GSE1", draw(rng))
    with pytest.raises(SourceError, match=r"absent.txt: no such file\.$"):
        ingest(source.path, source.raw, options=SourceOptions(sample_sheet=absent))
    assert not Path(source.raw).exists()


def test_ingest__a_file_that_is_gone(tmp_path, rng):
    source = write_source(tmp_path, "GSE1", draw(rng))
    ingest(source.path, source.raw)
    Path(source.path).unlink()
    for ask in (ingest, ingest.claim):
        with pytest.raises(SourceError, match=r"GSE1_series_matrix.txt.gz: no such file\.$"):
            ask(source.path, source.raw)


def test_ingest__a_file_that_cannot_be_read(tmp_path, rng, monkeypatch):
    source = write_source(tmp_path, "GSE1", draw(rng))

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(files, "file_sha256", refuse)
    files._digest.cache_clear()
    with pytest.raises(SourceError, match=r"matrix.txt.gz: cannot be read: Permission denied\.$"):
        ingest(source.path, source.raw)
    monkeypatch.undo()
    monkeypatch.setattr(stage, "read_source", lambda path, **_: refuse(path))
    with pytest.raises(SourceError, match=r"matrix.txt.gz: cannot be read: Permission denied\.$"):
        ingest(source.path, source.raw)


def test_ingest__a_source_that_fails_is_not_complete(sources, tmp_path):
    broken = tmp_path / "GSE5_series_matrix.txt"
    broken.write_text(Path(sources[0].path).read_text()[:-400])
    bad = SourceFile(str(broken), str(tmp_path / "raw/GSE5.zarr"))
    with pytest.raises(SourceError, match=r"GSE5_series_matrix.txt"):
        ingest_all([*sources, bad])
    assert not is_complete(bad.raw)
    ingest_all(sources)
    assert all(is_complete(source.raw) for source in sources)


# ---------------------------------------------------------------- again


def test_ingest__second_run_touches_nothing(tmp_path, sources):
    first = ingest_all(sources)
    before = times(tmp_path)
    second = ingest_all(sources)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


def test_ingest__resumes_with_the_same_bytes(sources):
    ingest_all(sources)
    before = [digests(source.raw) for source in sources]
    remove_regions(sources[1].raw, ["expression"], [0])
    states = [claim.state for claim in ingest_claims(sources)]
    assert states == ["unchanged", "resumed", "unchanged"]
    assert ingest_all(sources).state == "resumed"
    assert [digests(source.raw) for source in sources] == before
    assert is_complete(sources[1].raw)


def test_ingest__fails_half_way_and_goes_on(tmp_path, sources, monkeypatch):
    source, whole = sources[0], str(tmp_path / "whole.zarr")
    ingest(source.path, whole)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "write_region", Breaks(stage.write_region, 0))
        with pytest.raises(BrokenError):
            ingest(source.path, source.raw)
    assert not is_complete(source.raw)
    assert ingest(source.path, source.raw).state == "resumed"
    assert digests(source.raw) == digests(whole)


def test_ingest__other_options(tmp_path, rng):
    source = write_source(tmp_path, "GSE1", draw(rng))
    ingest(source.path, source.raw)
    before = digests(source.raw)
    for name, value in {"role": "cohort", "unit": "log2", "join_column": "Sample"}.items():
        options = SourceOptions(**{name: value})
        with pytest.raises(StoreError, match=f"other parameters: sources.{name}: .* -> '{value}'"):
            ingest(source.path, source.raw, options=options)
    assert digests(source.raw) == before


def test_ingest__a_changed_file_is_another_input(tmp_path, rng):
    """One cell of it is another: that is told before anything is done, and by the file's name."""
    values = draw(rng)
    source = write_source(tmp_path, "GSE1", values)
    ingest(source.path, source.raw)
    assert claim_of(source).state == "unchanged"
    values[3, 4] += 1
    write_source(tmp_path, "GSE1", values)
    before = times(tmp_path)
    claim = claim_of(source)
    changed = "sources: GSE1_series_matrix.txt.gz was changed"
    assert (claim.state, [str(d) for d in claim.differences]) == ("refused", [changed])
    with pytest.raises(StoreError, match=f"GSE1.zarr: was made from other inputs: {changed}"):
        ingest(source.path, source.raw)
    assert times(tmp_path) == before
    assert ingest(source.path, source.raw, run=Run(overwrite=True)).state == "new"
    np.testing.assert_array_equal(Rows(source.raw)[0:8], printed(values))
    assert claim_of(source).state == "unchanged"


def test_ingest__overwriting_a_link_with_a_copy(tmp_path, rng):
    values = draw(rng)
    source = write_gctx_source(tmp_path, "GSE1", values)
    assert ingest(source.path, source.raw).schema == "raw-link"
    write_gctx_source(tmp_path, "GSE1", 2**values)
    assert ingest(source.path, source.raw, run=Run(overwrite=True)).schema == "raw"
    np.testing.assert_array_equal(Rows(source.raw)[0:8], 2**values)


def test_ingest__claim_on_nothing_reads_and_writes_nothing(tmp_path, sources, hashes):
    before = times(tmp_path)
    assert {claim.state for claim in ingest_claims(sources)} == {"new"}
    assert (hashes, times(tmp_path)) == ([], before)
    ingest_all(sources)
    assert sorted(hashes) == sorted(source.path for source in sources)


def test_ingest__a_known_file_is_not_read_again(tmp_path, sources, hashes):
    ingest_all(sources)
    files._digest.cache_clear()
    hashes.clear()
    before = times(tmp_path)
    assert {claim.state for claim in ingest_claims(sources)} == {"unchanged"}
    assert ingest_all(sources).state == "unchanged"
    assert (hashes, times(tmp_path)) == ([], before)
    Path(sources[0].path).touch()
    assert claim_of(sources[0]).state == "unchanged"
    assert hashes == [sources[0].path]


# ---------------------------------------------------------------- many files


def test_ingest_all__summary(tmp_path, sources, simulated):
    ingest(sources[0].path, sources[0].raw)
    said = []
    summary = ingest_all(sources, run=Run(on_progress=lambda *told: said.append(told)))
    assert (summary.uri, summary.schema, summary.state) == (str(tmp_path / "raw"), "raw", "new")
    assert summary.sizes == {"source": len(sources), "sample": len(simulated.samples)}
    assert summary.nbytes == sum(files.store_nbytes(source.raw) for source in sources)
    assert summary.details["states"][sources[0].name] == "unchanged"
    assert said[0] == ("reading sources", 0, len(sources))
    assert said[-1] == ("reading sources", len(sources), len(sources))


def test_ingest_all__a_task_can_be_sent(sources, monkeypatch):
    """Whatever shows progress stays here: it may hold what no other process can take."""

    def send(func, tasks, *, run, **_):
        sent, tasks, run = pickle.loads(pickle.dumps((func, tasks, run)))  # noqa: S301
        assert run == Run(overwrite=True)
        return [sent(*task, run=run) for task in tasks]

    monkeypatch.setattr(stage, "run_tasks", send)
    run = Run(overwrite=True, on_progress=lambda *_: None)
    assert ingest_all(sources, run=run).state == "new"


def test_source_file__is_plain_data():
    source = SourceFile("a", "raw/b.zarr")
    assert (source.name, source.options) == ("b", SourceOptions())
    assert source == pickle.loads(pickle.dumps(source))  # noqa: S301
    stated = source.options.model_dump()
    assert stated.pop("role") == "train"
    assert set(stated.values()) == {None}
