"""ARCHS4 and h5ad: both layouts, what is left out, each chunk unpacked once, what is wrong."""

import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from dglzarr.errors import SourceError
from dglzarr.kernels.slices import iter_slices
from dglzarr.settings import build_settings
from dglzarr.sources import Reading, chunked, read_source
from dglzarr.sources.chunked import Chunked
from dglzarr.sources.peek import peek_cost, peek_size
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import open_store
from dglzarr.studies.forecast import estimate

N, G = 60, 40
SAMPLES = [f"GSM{i}" for i in range(N)]
GENES = [f"ENSG{i:011}" for i in range(G)]
SYMBOLS = [f"GENE{i}" for i in range(G - 1)] + ["GENE0"]
SERIES = [f"GSE{i // 10}" if i % 10 else f"GSE{i // 10}\tGSE99" for i in range(N)]
SINGLE = np.where(np.arange(N) % 6 == 5, 0.9, 0.1)
TISSUES = ["liver", "lung", "skin"]


@pytest.fixture
def counts(rng):
    found = rng.poisson(20, (N, G)).astype(np.uint32)
    found[:, 0] = 0
    return found


def write_archs4(path, counts, *, version=2, chunks=(8, 8), gene_names=("symbol", "ensembl_gene")):
    text = h5py.string_dtype()
    prefix = "meta/samples/" if version == 2 else "meta/Sample_"
    with h5py.File(path, "w") as file:
        values = counts.T if version == 2 else counts
        file.create_dataset("data/expression", data=values, chunks=chunks, compression="gzip")
        for name, cells in (
            ("geo_accession", SAMPLES),
            ("series_id", SERIES),
            ("title", [f"sample {i}" for i in range(N)]),
            ("source_name_ch1", [TISSUES[i % 3] for i in range(N)]),
            ("characteristics_ch1", [f"age: {i},Tissue: {TISSUES[i % 3]}" for i in range(N)]),
        ):
            file.create_dataset(prefix + name, data=cells, dtype=text)
        if version == 2:
            file["meta/samples/singlecellprobability"] = SINGLE
        for name in gene_names:
            cells = GENES if name.startswith("ensembl") else SYMBOLS
            place = "meta/genes" if version == 1 else f"meta/genes/{name}"
            file.create_dataset(place, data=cells, dtype=text)
    return path


BULK = np.flatnonzero(SINGLE < 0.5)


@pytest.mark.parametrize("symbol", ["symbol", "gene_symbol"])
def test_read_archs4__version_2(tmp_path, counts, symbol):
    path = write_archs4(tmp_path / "human.h5", counts, gene_names=(symbol, "ensembl_gene"))
    source = read_source(path)
    assert (source.format, source.genes, source.gene_symbol) == ("archs4", GENES, SYMBOLS)
    assert source.samples == [SAMPLES[i] for i in BULK]
    assert source.sample_series[:2] == ["GSE0,GSE99", "GSE0"]
    assert source.labels["tissue"] == [TISSUES[i % 3] for i in BULK]
    assert np.array_equal(source.read(0, len(BULK)), counts[BULK])
    assert np.array_equal(source.read(7, 21), counts[BULK[7:21]])
    (told,) = map(str, source.left_out)
    assert told.startswith("10 samples left out: probability over 0.5 to be of single cells")
    assert source.notes[0].startswith("1 symbols of genes come again")
    assert peek_size(path) == (50, G)
    every = read_source(path, reading=Reading(max_single_cell=0.95))
    assert every.samples == SAMPLES
    assert every.left_out == ()


def test_read_archs4__version_1_and_symbols_alone(tmp_path, counts):
    path = write_archs4(tmp_path / "human.h5", counts, version=1, gene_names=("genes",))
    source = read_source(path)
    assert (source.samples, source.genes) == (SAMPLES, [*SYMBOLS[:-1], "GENE0#2"])
    assert source.gene_symbol == SYMBOLS
    assert source.sample_series[0] == "GSE0,GSE99"
    assert np.array_equal(source.read(0, N), counts)


@pytest.mark.parametrize(
    ("reading", "kept"),
    [
        (Reading(only_series=("GSE2",)), [i for i in BULK if i // 10 == 2]),
        (Reading(only_series=("GSE99", "GSE3")), [i for i in BULK if i % 10 == 0 or i // 10 == 3]),
        (Reading(only_matching="^LIVER$"), [i for i in BULK if i % 3 == 0]),
        (Reading(only_matching="sample 1[0-4]"), [10, 12, 13, 14]),
    ],
    ids=["series", "two series, one beside another", "tissue", "title"],
)
def test_read_archs4__samples_that_are_asked_for(tmp_path, counts, reading, kept):
    path = write_archs4(tmp_path / "human.h5", counts)
    source = read_source(path, reading=reading)
    assert source.samples == [SAMPLES[i] for i in kept]
    assert np.array_equal(source.read(0, len(kept)), counts[kept])
    assert peek_size(path, reading) == (len(kept), G)
    assert source.left_out[-1].reason == "not asked for"


def test_read_source__samples_of_a_list(tmp_path, counts):
    path, listed = write_archs4(tmp_path / "human.h5", counts), tmp_path / "wanted.txt"
    listed.write_text("GSM9\nGSM3\nGSM5\nGSM1000\n")
    source = read_source(path, reading=Reading(only_samples=str(listed)))
    assert source.samples == ["GSM3", "GSM9"]
    assert "2 of 4 samples of only_samples are not in the file" in source.notes
    listed.write_text("GSM1000\n")
    with pytest.raises(SourceError, match=r"expected samples of only_samples such as 'GSM1000'"):
        read_source(path, reading=Reading(only_samples=str(listed)))
    with pytest.raises(
        SourceError, match=r"expected samples of series 'GSE77', got none\. Correct"
    ):
        read_source(path, reading=Reading(only_series=("GSE1", "GSE77")))
    with pytest.raises(SourceError, match=r"expected samples to keep, got none: .*single cells.*"):
        read_source(path, reading=Reading(only_matching="kidney"))
    with pytest.raises(SourceError, match="only_matching: expected text or a regular expression"):
        read_source(path, reading=Reading(only_matching="(liver"))


def test_read_source__settings_of_other_formats(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("id\tS1\tS2\nx\t1\t2\n")
    with pytest.raises(SourceError, match="expected an ARCHS4 file to choose max_single_cell of"):
        read_source(path, reading=Reading(max_single_cell=0.0))
    with pytest.raises(SourceError, match="expected an h5ad to choose layer of, got table"):
        read_source(path, reading=Reading(layer="raw"))


def damage(path, how):
    with h5py.File(path, "r+") as file:
        how(file)


def replace_data(file, name, cells):
    del file[name]
    if cells is not None:
        file.create_dataset(name, data=cells)


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("meta/samples/geo_accession", None, "'/meta/samples/geo_accession' of ARCHS4, got none"),
        ("meta/genes", None, "expected 'meta/genes/symbol', 'meta/genes/gene_symbol' or"),
        ("data/expression", None, "expected a dataset '/0/DATA/0/matrix' of GCTX"),
        ("meta/samples/geo_accession", ["GSM0"] * N, "expected each sample once, got 'GSM0'"),
        ("meta/genes/ensembl_gene", GENES[:1] * G, "expected each gene once"),
        ("meta/samples/geo_accession", SAMPLES[1:], "a matrix of 40 genes and 59 samples, got"),
        ("meta/genes/symbol", SYMBOLS[1:], "as many symbols as ids of genes, got 39 and 40"),
    ],
    ids=["no samples", "no genes", "no matrix", "repeat", "gene repeat", "short", "symbols"],
)
def test_read_archs4__refuses(tmp_path, counts, name, cells, message):
    path = write_archs4(tmp_path / "human.h5", counts)
    damage(path, lambda file: replace_data(file, name, cells))
    with pytest.raises(SourceError, match=rf"human\.h5: .*{message}"):
        read_source(path)


@pytest.mark.parametrize("version", [1, 2])
def test_read_archs4__as_many_samples_as_genes(tmp_path, counts, version):
    names, lead = (("genes",), "Sample_") if version == 1 else (("symbol",), "samples/")
    path = write_archs4(tmp_path / "a.h5", counts, version=version, gene_names=names)
    square = counts[:G]
    damage(path, lambda f: replace_data(f, f"meta/{lead}geo_accession", SAMPLES[:G]))
    damage(path, lambda f: replace_data(f, "data/expression", square.T if version == 2 else square))
    assert np.array_equal(read_source(path).read(0, G), square)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (h5py.SoftLink("/none"), "nothing behind /meta/samples/singlecellprobability"),
        (SINGLE * 1j, "singlecellprobability of complex128"),
    ],
    ids=["lost", "complex"],
)
def test_read_archs4__probabilities_that_cannot_be_read(tmp_path, counts, cells, message):
    """They say which samples are left out: without them single cells would be taken."""
    path = write_archs4(tmp_path / "human.h5", counts)
    with h5py.File(path, "r+") as file:
        del file["meta/samples/singlecellprobability"]
        file["meta/samples/singlecellprobability"] = cells
    with pytest.raises(SourceError, match=rf"human\.h5: .*{message}"):
        read_source(path)


def test_chunked__damaged_values_are_told(tmp_path, counts):
    path = write_archs4(tmp_path / "human.h5", counts)
    source = read_source(path)
    with h5py.File(path, "r+") as file:
        place = file["data/expression"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 40)
    with pytest.raises(SourceError, match=r"human\.h5: expected a readable matrix, got a damaged"):
        source.read(0, 50)


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize("is_turned", [True, False])
@pytest.mark.parametrize("chunks", [(7, 9), (1, 60), (40, 1), (40, 16), (3, 60), None])
def test_chunked__reads_what_h5py_does(tmp_path, rng, is_turned, chunks, monkeypatch):
    monkeypatch.setattr(chunked, "_KEPT_NBYTES", 4 * 20 * 40)
    monkeypatch.setattr(chunked, "_BLOCK_NBYTES", 500)
    values = rng.random((60, 40)).astype(np.float32)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        own = chunks and (chunks if is_turned else chunks[::-1])
        data = file.create_dataset("x", data=values.T if is_turned else values, chunks=own)
        matrix = Chunked.of(path, data, is_turned=is_turned)
    assert matrix.shape == (60, 40)
    for start, stop in ((0, 60), (0, 13), (13, 47), (59, 60), (5, 5)):
        assert np.array_equal(matrix[start:stop], values[start:stop])
    rows = np.sort(rng.permutation(60)[:23])
    assert np.array_equal(matrix.pick(rows), values[rows])


@pytest.mark.parametrize("width", [4, 16, 20])
def test_chunked__unpacks_each_chunk_once(tmp_path, rng, width, monkeypatch):
    """Regions cut chunks, and half of the samples are wanted: still each is read once."""
    values = rng.random((100, 30)).astype(np.float32)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=values.T, chunks=(10, width), compression="gzip")
        matrix = Chunked.of(path, data, is_turned=True)
    read = []
    plain = Chunked._block

    def counted(self, dataset, samples, genes):
        assert genes.start % 10 == 0
        read.extend((a // width, b // 10) for a in range(samples.start, samples.stop)
                    for b in range(genes.start, genes.stop, 10) if a % width == 0)  # fmt: skip
        return plain(self, dataset, samples, genes)

    monkeypatch.setattr(Chunked, "_block", counted)
    rows = np.flatnonzero(rng.random(100) < 0.5)
    for wanted in (np.arange(100), rows):
        read.clear()
        chunked._kept.clear()
        found = [matrix.pick(wanted[part]) for part in iter_slices(wanted.size, 1, limit_nbytes=23)]
        assert np.array_equal(np.concatenate(found), values[wanted])
        assert len(read) == len(set(read))


def test_dry_run__tells_chunks_that_are_unpacked_often(tmp_path, counts, monkeypatch):
    monkeypatch.setattr(chunked, "_KEPT_NBYTES", 10)
    path = write_archs4(tmp_path / "wide.h5", counts, chunks=(1, N))
    assert peek_cost(path, Reading(), 2048) == ""
    told = peek_cost(path, Reading(), 16)
    assert told.startswith("a chunk holds 60 samples, a region 16: each is unpacked about 4 times")
    content = {
        "root": "study",
        "sources": [{"uri": "wide.h5"}],
        "ingest": {"shard_samples": 16},
        "select": {"n_landmarks": 5},
    }
    lines = {
        line.name: line for line in estimate(build_settings(content, name="x", folder=tmp_path))
    }
    assert lines["join"].notes == (f"wide: {told}",)
    assert lines["normalize"].notes == ()


# ---------------------------------------------------------------- AnnData


def write_h5ad(path, values, *, layer=None, compression=None):
    with pd.option_context("future.infer_string", False):  # which anndata 0.12 cannot write
        return _write_h5ad(path, values, layer, compression)


def _write_h5ad(path, values, layer, compression):
    obs = pd.DataFrame(
        {
            "tissue": pd.Categorical([TISSUES[i % 3] if i else None for i in range(N)]),
            "batch": [f"b{i % 2}" for i in range(N)],
            "age": np.arange(N),
        },
        index=SAMPLES,
    )
    var = pd.DataFrame({"gene_symbols": SYMBOLS, "symbol": SYMBOLS}, index=GENES)
    data = anndata.AnnData(values, obs=obs, var=var)
    if layer is not None:
        data.layers["counts"] = layer
    data.write_h5ad(path, compression=compression)
    return path


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_read_h5ad__dense_and_sparse(tmp_path, counts, kind, monkeypatch):
    monkeypatch.setattr("dglzarr.sources.compendia._VALUES_AT_ONCE", 37)
    values = counts.astype(np.float32)
    path = write_h5ad(tmp_path / "a.h5ad", kind(values), layer=kind(values * 2))
    source = read_source(path)
    assert (source.format, source.samples, source.genes) == ("h5ad", SAMPLES, GENES)
    assert source.gene_symbol == SYMBOLS
    assert source.labels["tissue"] == ["", *(TISSUES[i % 3] for i in range(1, N))]
    assert source.labels["batch"][:3] == ["b0", "b1", "b0"]
    assert source.labels["age"][:3] == ["0", "1", "2"]
    assert np.array_equal(source.read(0, N), counts)
    assert np.array_equal(source.read(17, 29), counts[17:29])
    assert np.array_equal(
        read_source(path, reading=Reading(layer="counts")).read(3, 9), 2 * counts[3:9]
    )
    assert ("csc" in peek_cost(path, Reading(), 16)) == (kind is scipy.sparse.csc_matrix)
    with pytest.raises(SourceError, match=r"a\.h5ad: expected a layer 'x', got 'counts'"):
        read_source(path, reading=Reading(layer="x"))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_read_h5ad__text_in_packed_chunks(tmp_path, counts):
    path = write_h5ad(tmp_path / "a.h5ad", counts.astype(np.float32), compression="gzip")
    source = read_source(path)
    assert (source.samples, source.genes) == (SAMPLES, GENES)
    assert source.labels["batch"][:3] == ["b0", "b1", "b0"]
    assert np.array_equal(source.read(0, N), counts)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
def test_read_h5ad__places_as_r_writes_them(tmp_path, counts, kind):
    path = write_h5ad(tmp_path / "a.h5ad", kind(counts.astype(np.float32)))
    with h5py.File(path, "r+") as file:
        for name in ("X/indices", "X/indptr"):
            replace_data(file, name, file[name][()].astype(np.float64))
    assert np.array_equal(read_source(path).read(0, N), counts)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_read_h5ad__categories_as_anndata_0_7_writes_them(tmp_path, counts):
    path = write_h5ad(tmp_path / "a.h5ad", counts.astype(np.float32))
    expected = read_source(path).labels
    with h5py.File(path, "r+") as file:
        codes = file["obs/tissue/codes"][()]
        file.move("obs/tissue/categories", "obs/__categories/tissue")
        del file["obs/tissue"]
        file["obs/tissue"] = codes
        file["obs/tissue"].attrs["categories"] = file["obs/__categories/tissue"].ref
    assert read_source(path).labels == expected


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda f: f["X/indices"].__setitem__(5, 99), "an index of 99 of 40"),
        (lambda f: f["X/indptr"].__setitem__(5, 10**9), "indptr"),
        (lambda f: f["X/indptr"].__setitem__(0, 2), "indptr that does not rise from 0"),
        (lambda f: f["X/indptr"].__setitem__(-1, 10**6), "indptr that does not rise from 0"),
        (lambda f: replace_data(f, "X/indptr", np.zeros(9, np.int32)), "indptr of shape"),
        (lambda f: replace_data(f, "X/indices", f["X/indices"][()][:, None]), "indices of 2 dim"),
        (lambda f: replace_data(f, "X/indices", f["X/indices"][()] + 0.5), "indices', got frac"),
        (lambda f: replace_data(f, "X/indptr", f["X/indptr"][()] + np.inf), "indptr', got fract"),
        (lambda f: replace_data(f, "X/data", f["X/data"][()] * 1j), "data of complex"),
        (lambda f: f["X/data"].__setitem__(5, np.inf), "expected finite values, got an infinite"),
        (lambda f: f["X"].attrs.__setitem__("encoding-type", "coo"), "csr or csc, got 'coo'"),
        (lambda f: f["X"].attrs.__setitem__("shape", [N, 7]), "60 samples x 40 genes .* .60, 7"),
        (lambda f: f["obs"].attrs.__setitem__("_index", "none"), "an index 'obs/none', got none"),
    ],
)  # fmt: skip
def test_read_h5ad__refuses(tmp_path, counts, how, message):
    values = scipy.sparse.csr_matrix(counts.astype(np.float32))
    path = write_h5ad(tmp_path / "a.h5ad", values)
    damage(path, how)
    with pytest.raises(SourceError, match=rf"a\.h5ad: .*{message}"):
        read_source(path).read(0, N)


# ---------------------------------------------------------------- a study


def test_join__straight_from_an_archs4_file(tmp_path, counts):
    """Samples are chosen once; regions of the join come from the file, by gene symbols too."""
    path = write_archs4(tmp_path / "human.h5", counts)
    raw, target = str(tmp_path / "raw" / "human.zarr"), str(tmp_path / "joined.zarr")
    options = SourceOptions(unit="counts", only_matching="liver|lung")
    ingest_all([SourceFile(str(path), raw, options)])
    found = open_store(raw)
    assert found.attrs["dglzarr_schema"] == "raw-link"
    kept = [i for i in BULK if i % 3 < 2]
    assert [str(s) for s in found["sample"].values] == [SAMPLES[i] for i in kept]
    rule = JoinOptions(feature_kind="gene", split_by="sample", shard_samples=16)
    join([raw], target, options=rule, seed=1)
    expected = np.log2(counts[kept].astype(np.float32) + 1)
    place = {str(gene): i for i, gene in enumerate(read_array(target, "gene"))}
    joined = Rows(target)[0 : len(kept)]
    assert np.allclose(joined[:, place["GENE7"]], expected[:, 7], atol=1e-6)
    both = (expected[:, 0] + expected[:, -1]) / 2
    assert np.allclose(joined[:, place["GENE0"]], both, atol=1e-6)


def test_join__an_archs4_file_that_lost_samples(tmp_path, counts):
    path = write_archs4(tmp_path / "human.h5", counts)
    raw = str(tmp_path / "raw" / "human.zarr")
    ingest_all([SourceFile(str(path), raw)])
    shutil.copy(path, tmp_path / "other.h5")
    damage(path, lambda f: f["meta/samples/geo_accession"].__setitem__(0, "GSM777"))
    with pytest.raises(SourceError, match=r"human\.h5: expected sample 'GSM0', which it had"):
        join([raw], str(tmp_path / "x.zarr"), options=JoinOptions(split_by="sample"), seed=1)
