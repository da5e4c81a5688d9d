import gzip
import pickle
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dglzarr.errors import SourceError
from dglzarr.sources import read_source

NAN = float("nan")
HEADER = "Name\tDescription\tS1\tS2\tS3\n"
OLD = f"#1.2\n2\t3\n{HEADER}E1.4\tDDR1\t1\t2\t3\nE2.1\tPAX8\t4\tNA\t6\n"
NEW = (
    "#1.3\n2\t3\t2\t1\n"
    "id\tpr_gene_id\tpr_gene_symbol\tS1\tS2\tS3\n"
    "cell\tna\tna\tA375\t-666\tMCF7\n"
    "p1\t780\tDDR1\t1\t2\t3\n"
    "p2\t7849\t-666\t4\t5\t6\n"
)


def write(tmp_path, content, name="a.gct"):
    raw = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.gct", "a.gct.gz", "a.gctx", "a.txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_read_gct__version_1_2(tmp_path, name, end):
    source = read_source(write(tmp_path, OLD.replace("\n", end), name))
    assert source.format == "gct"
    assert (source.samples, source.genes) == (["S1", "S2", "S3"], ["E1.4", "E2.1"])
    assert source.gene_symbol == ["DDR1", "PAX8"]
    assert (source.series, source.platform, source.labels) == ("a", ["", "", ""], {})
    np.testing.assert_array_equal(source.read(0, 3), [[1, 4], [2, NAN], [3, 6]])


def test_read_gct__version_1_3(tmp_path):
    source = read_source(write(tmp_path, NEW))
    assert (source.samples, source.genes) == (["S1", "S2", "S3"], ["p1", "p2"])
    assert source.gene_symbol == ["DDR1", ""]
    assert source.labels == {"cell": ["A375", "", "MCF7"]}
    np.testing.assert_array_equal(source.read(1, 3), [[2, 5], [3, 6]])


def test_read_gct__padding_tabs(tmp_path):
    padded = OLD.replace("#1.2\n", "#1.2\t\t\t\t\n").replace("2\t3\n", "2\t3\t\t\t\n", 1)
    padded = padded.replace("S3\n", "S3\t\t\n").replace("\t6\n", "\t6\t\n")
    source = read_source(write(tmp_path, padded))
    np.testing.assert_array_equal(source.read(0, 3), [[1, 4], [2, NAN], [3, 6]])


def test_read_gct__without_symbols(tmp_path):
    assert (
        read_source(write(tmp_path, OLD.replace("DDR1", "").replace("PAX8", ""))).gene_symbol
        is None
    )
    repeats_ids = OLD.replace("DDR1", "E1.4").replace("PAX8", "E2.1")
    assert read_source(write(tmp_path, repeats_ids)).gene_symbol is None
    assert read_source(write(tmp_path, NEW.replace("pr_gene_symbol", "note"))).gene_symbol is None


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (OLD, "#1.2", "#1.1", r"^a\.gct, line 1: expected GCT version .*, got '#1\.1'"),
        (OLD, "2\t3\n", "2\n", r"line 2: expected 2 dimensions, got '2'\."),
        (OLD, "2\t3\n", "two\t3\n", r"line 2: expected 2 dimensions, got 'two\\t3'\."),
        (OLD, "2\t3\n", "2\t4\n", r"line 3: expected 6 columns as line 2 says, got 5\."),
        (OLD, "2\t3\n", "2\t2\n", r"line 3: expected 4 columns as line 2 says, got 5\."),
        (OLD, "2\t3\n", "3\t3\n", r"line 6: expected 3 rows as line 2 says, got 2\."),
        (OLD, "2\t3\n", "1\t3\n", r"expected 1 rows as line 2 says, got 2\."),
        (OLD, f"2\t3\n{HEADER}", "2\t0\nName\tDescription\n", r"line 3: expected at least one"),
        (OLD, "S2", "S1", r"line 3: expected each sample once, got 'S1' again"),
        (OLD, "E2.1", "E1.4", r"line 5: expected each id once, got 'E1\.4' again"),
        (OLD, "NA", "x", r"line 5: expected a number, got 'x' in column 'S2'\."),
        (OLD, "\t4", "", r"line 5: expected 5 columns, got 4\."),
        (OLD, OLD[OLD.index("E1.4") :], "", r"line 4: expected rows of values, got an empty table"),
        (NEW, "2\t3\t2\t1\n", "2\t3\n", r"line 2: expected 4 dimensions, got '2\\t3'\."),
        (NEW, "A375\t", "", r"line 4: expected 6 columns, got 5\."),
        (NEW, "MCF7", "MCF7\tx", r"line 4: expected 6 columns, got 7\."),
        (NEW, "2\t3\t2\t1\n", "2\t3\t2\t0\n", r"line 4: expected a number, got 'A375'"),
    ],
    ids=[
        "version", "one-dimension", "word-dimension", "few-samples", "many-samples", "few-rows",
        "many-rows", "no-samples", "repeated-sample", "repeated-gene", "word", "short-row", "empty",
        "old-dimensions", "short-metadata", "long-metadata", "undeclared-metadata",
    ],
)  # fmt: skip
def test_read_gct__refuses(tmp_path, text, old, new, message):
    assert old in text
    with pytest.raises(SourceError, match=message):
        read_source(write(tmp_path, text.replace(old, new, 1)))


def write_gctx(path, matrix, *, samples, genes, row=None, column=None):
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file["0/DATA/0/matrix"] = matrix
        file["0/META/ROW/id"] = genes
        file["0/META/COL/id"] = samples
        for axis, fields in (("ROW", row or {}), ("COL", column or {})):
            for name, values in fields.items():
                file[f"0/META/{axis}/{name}"] = values
    return path


MATRIX = np.array([[1.0, 4.0], [2.0, NAN], [3.0, 6.0]], np.float32)
SAMPLES = [b"S1", b"S2", b"S3"]
GENES = [b"p1", b"p2"]


def test_read_gctx__hand_worked(tmp_path):
    path = write_gctx(
        tmp_path / "GSE92742_x.gctx",
        MATRIX,
        samples=SAMPLES,
        genes=GENES,
        row={"pr_gene_symbol": [b"DDR1", b"-666"], "pr_gene_id": [780, 7849]},
        column={
            "cell": [b"A375", b"-666", b"\xb5"],
            "dose": [-666.0, 10.0, 0.5],
            "n": [1, 2, -666],
        },
    )
    source = read_source(path)
    assert (source.format, source.series) == ("gctx", "GSE92742")
    assert (source.samples, source.genes) == (["S1", "S2", "S3"], ["p1", "p2"])
    assert source.gene_symbol == ["DDR1", ""]
    assert source.labels == {
        "cell": ["A375", "", "µ"],
        "dose": ["", "10", "0.5"],
        "n": ["1", "2", ""],
    }
    assert source.values.shape == (3, 2)
    np.testing.assert_array_equal(source.read(0, 3), MATRIX)
    np.testing.assert_array_equal(source.read(1, 2), MATRIX[1:2])


@pytest.mark.parametrize(
    ("genes", "expected"),
    [([780, 7849], ["780", "7849"]), ([780.0, 7849.0], ["780", "7849"]), (["a", "µ"], ["a", "µ"])],
    ids=["int", "float", "text"],
)
def test_read_gctx__ids_of_any_type(tmp_path, genes, expected):
    path = write_gctx(tmp_path / "a.gctx", MATRIX, samples=SAMPLES, genes=genes)
    source = read_source(path)
    assert source.genes == expected
    assert source.gene_symbol is None


def test_read_gctx__source_travels_to_a_worker(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", MATRIX, samples=SAMPLES, genes=GENES)
    source = pickle.loads(pickle.dumps(read_source(path)))  # noqa: S301, our own bytes
    np.testing.assert_array_equal(source.read(0, 3), MATRIX)


def test_read_gctx__wrong_extension_is_no_matter(tmp_path):
    path = write_gctx(tmp_path / "a.txt.gz", MATRIX, samples=SAMPLES, genes=GENES)
    assert read_source(path).format == "gctx"


@pytest.mark.parametrize(
    ("matrix", "samples", "genes", "message"),
    [
        (
            MATRIX.T,
            SAMPLES,
            GENES,
            r"expected a numeric matrix of 3 samples x 2 genes, got float32 \(2, 3\)",
        ),
        (
            MATRIX.astype("S4"),
            SAMPLES,
            GENES,
            r"expected a numeric matrix of 3 samples x 2 genes, got \|S4",
        ),
        (MATRIX, [b"S1", b"S2", b"S1"], GENES, r"expected each sample once, got 'S1' again"),
        (MATRIX, SAMPLES, [b"p1", b"p1"], r"expected each gene once, got 'p1' again"),
        (MATRIX, SAMPLES, [b"p1", b""], r"expected a gene id, got ''\."),
        (
            np.empty((0, 2), "f4"),
            np.empty(0, "S1"),
            GENES,
            r"expected at least one sample, got none",
        ),
        (
            np.empty((3, 0), "f4"),
            SAMPLES,
            np.empty(0, "S1"),
            r"expected at least one gene, got none",
        ),
    ],
    ids=[
        "turned",
        "text",
        "repeated-sample",
        "repeated-gene",
        "empty-gene",
        "no-samples",
        "no-genes",
    ],
)
def test_read_gctx__refuses(tmp_path, matrix, samples, genes, message):
    path = write_gctx(tmp_path / "a.gctx", matrix, samples=samples, genes=genes)
    with pytest.raises(SourceError, match=r"a\.gctx: " + message):
        read_source(path)


@pytest.mark.parametrize("part", ["0/DATA/0/matrix", "0/META/ROW/id", "0/META/COL/id"])
def test_read_gctx__other_hdf5(tmp_path, part):
    path = write_gctx(tmp_path / "a.gctx", MATRIX, samples=SAMPLES, genes=GENES)
    with h5py.File(path, "a") as file:
        del file[part]
    with pytest.raises(
        SourceError, match=f"a.gctx: expected a dataset '/{part}' of GCTX 1.0, got none"
    ):
        read_source(path)


def test_read_gctx__truncated(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", MATRIX, samples=SAMPLES, genes=GENES)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(
        SourceError, match=r"a\.gctx: expected a complete HDF5 file, got a damaged one"
    ):
        read_source(path)


def test_read_gctx__file_lost_after_opening(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", MATRIX, samples=SAMPLES, genes=GENES)
    source = read_source(path)
    path.unlink()
    with pytest.raises(SourceError, match=r"a\.gctx: expected a readable GCTX matrix, got"):
        source.read(0, 1)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e300], ids=["inf", "minus-inf", "overflow"])
def test_read_gctx__refuses_infinite_values_when_read(tmp_path, bad):
    matrix = MATRIX.astype(np.float64)
    matrix[2, 1] = bad
    source = read_source(write_gctx(tmp_path / "a.gctx", matrix, samples=SAMPLES, genes=GENES))
    np.testing.assert_array_equal(source.read(0, 2), MATRIX[:2])
    with pytest.raises(
        SourceError, match=r"a\.gctx: expected finite values, got .* in sample 2, gene 1"
    ):
        source.read(1, 3)


@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(width=32, allow_infinity=False),
    )
)
def test_read_source__gct_and_gctx_written_alike_read_alike(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("gct")
    samples = [f"S{i}" for i in range(len(values))]
    genes = [f"g{i}" for i in range(values.shape[1])]
    rows = [[gene, "", *map(str, column)] for gene, column in zip(genes, values.T, strict=True)]
    head = f"#1.2\n{len(genes)}\t{len(samples)}\n"
    body = "\n".join("\t".join(row) for row in [["Name", "Description", *samples], *rows])
    from_text = read_source(write(folder, head + body))
    from_hdf = read_source(write_gctx(folder / "a.gctx", values, samples=samples, genes=genes))
    for source in (from_text, from_hdf):
        assert (source.samples, source.genes) == (samples, genes)
        np.testing.assert_array_equal(source.read(0, len(samples)), values)


def test_read_gct__real_heads(repo_data):
    old = read_source(repo_data / "older_version_v1_2.gct")
    assert old.values.shape == (3, 5)
    padded = read_source(repo_data / "test_v1point2_n5x10.gct")
    assert (padded.values.shape, padded.gene_symbol[0]) == ((5, 10), "PSME1")
    assert padded.read(4, 5)[0, 9] == np.float32(8.1654)
    text = read_source(repo_data / "mini_gctoo_for_testing.gct")
    hdf = read_source(repo_data / "mini_gctoo_for_testing.gctx")
    assert (text.samples, text.genes) == (hdf.samples, hdf.genes)
    assert text.labels == hdf.labels
    np.testing.assert_array_equal(text.read(0, 6), hdf.read(0, 6))
    gtex = read_source(repo_data / "GTEx_v6_skin_n20_gene_reads.gct.gz")
    assert (gtex.values.shape, gtex.genes[0]) == ((20, 50), "ENSG00000223972.4")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("gctx/Leukemia_hgu95av2.gct", "gct", (48, 12564)),
        ("gctx/mini_gctoo_for_testing.gct", "gct", (6, 6)),
        ("gctx/mini_gctoo_for_testing.gctx", "gctx", (6, 6)),
        ("gctx/mini_gctx_with_metadata_n2x3.gctx", "gctx", (2, 3)),
        ("gctx/older_version_v1_2.gct", "gct", (3, 5)),
        ("gctx/test_l1000.gct", "gct", (377, 978)),
        ("gctx/test_l1000.gctx", "gct", (377, 978)),
        ("gctx/test_l1000_highprecision.gctx", "gctx", (377, 978)),
        ("gctx/test_p100.gct", "gct", (96, 96)),
        ("gctx/test_v1point2_n5x10.gct", "gct", (5, 10)),
        ("gtex/GTEx_v6_skin_n20_gene_reads.gct.gz", "gct", (20, 40824)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_read_source__real_gct_files(data_dir, name, kind, shape):
    source = read_source(data_dir / name)
    assert (source.format, source.values.shape) == (kind, shape)
    values = source.read(0, shape[0])
    assert not np.isinf(values).any()
    assert np.isnan(values).sum() == (name == "gctx/test_p100.gct")


@pytest.mark.data
def test_read_gct__real_file_equals_a_plain_parse(data_dir):
    path = data_dir / "gctx/test_l1000.gct"
    rows = [line.split("\t") for line in path.read_text().splitlines()[3 + 35 :]]
    expected = np.array([row[12:] for row in rows], np.float32).T
    source = read_source(path)
    np.testing.assert_array_equal(source.read(0, 377), expected)
    assert source.genes == [row[0] for row in rows]
    assert source.gene_symbol == [row[7] for row in rows]


@pytest.mark.parametrize("name", ["0/META/COL/id", "0/DATA/0/matrix"])
@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
@pytest.mark.parametrize("packing", ["gzip", None])
def test_read_gctx__a_chunk_of_another_size_than_its_header_says(tmp_path, name, change, packing):
    path = tmp_path / "a.gctx"
    parts = {
        "0/META/COL/id": np.array([b"s1", b"s2"]),
        "0/META/ROW/id": np.array([b"g1", b"g2", b"g3"]),
        "0/DATA/0/matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    for n_more in (0, change):
        with h5py.File(path, "w") as file:
            for part, values in parts.items():
                options = {"chunks": values.shape, "compression": packing, "dtype": values.dtype}
                file.create_dataset(part, values.shape, **options)
                if part != name:
                    file[part][...] = values
            raw = (parts[name].tobytes() + b" ")[: parts[name].nbytes + n_more]
            raw = zlib.compress(raw) if packing else raw
            file[name].id.write_direct_chunk((0,) * parts[name].ndim, raw)
        if not n_more:
            assert read_source(path).read(0, 2).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(SourceError, match=r"^a\.gctx: .* in chunks of \d+ bytes, \d+ expected"):
        read_source(path)
