import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dglzarr.errors import SourceError, StoreError
from dglzarr.sources import matrix, read_source, text
from dglzarr.sources.matrix import Layout, check_samples, read_matrix, require_rows
from dglzarr.sources.text import TextStream

NAN = float("nan")
FINITE = st.floats(width=32, allow_nan=True, allow_infinity=False)


def layout_of(n_values, separator="\t"):
    columns = ["ID_REF", *(f"GSM{i}" for i in range(n_values))]
    return Layout(columns, separator, (0,), range(1, n_values + 1))


def parse(tmp_path, rows, layout, **kwargs):
    path = tmp_path / "GSE1.txt"
    path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    with TextStream(path) as stream:
        return read_matrix(stream, layout, **kwargs)


@pytest.fixture(params=["frame", "wide"])
def parser(request, monkeypatch):
    """Take every block either column by column or as one long column."""
    monkeypatch.setattr(matrix, "WIDE_COLUMNS", 1 if request.param == "wide" else 10**9)
    return request.param


@pytest.mark.usefixtures("parser")
def test_read_matrix__hand_worked(tmp_path):
    table = parse(tmp_path, "p1\t1\t-2.5\np2\t1e3\t.5\n", layout_of(2))
    assert table.text == [["p1", "p2"]]
    np.testing.assert_array_equal(table.values, [[1, 1000], [-2.5, 0.5]])
    assert table.values.dtype == np.float32
    assert table.values.T.flags.c_contiguous


@pytest.mark.parametrize("token", ["", "NA", "NaN", "nan", "null", "NULL", "N/A", " NA "])
@pytest.mark.usefixtures("parser")
def test_read_matrix__missing_cells(tmp_path, token):
    table = parse(tmp_path, f"p1\t{token}\t2\np2\t3\t{token}\n", layout_of(2))
    np.testing.assert_array_equal(table.values, [[NAN, 3], [2, NAN]])


@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ('"p1"\t1\t2\n"p2"\t3\t4\n', ["p1", "p2"]),
        ("7157\t1\t2\n007\t3\t4\n", ["7157", "007"]),
        ("NA\t1\t2\nnull\t3\t4\n", ["NA", "null"]),
        ("p1\t1\t2\r\np2\t3\t4\r\n", ["p1", "p2"]),
        ("p1\t1\t2\r\r\np2\t3\t4\r\n", ["p1", "p2"]),
        ("p1\r1\t2\n".replace("\r1", "\t1") + "p2\t3\t4", ["p1", "p2"]),
        ("p1\t1\t2\rp2\t3\t4\r", ["p1", "p2"]),
        ("p1\t1\t2\t\t\np2\t3\t4\t\n", ["p1", "p2"]),
        ("p1\t1\t2\n\np2\t3\t4\n  \n\n", ["p1", "p2"]),
        ("p1\t 1 \t2\n p2\t3\t4 \n", ["p1", "p2"]),
        (b"\xb51\t1\t2\np2\t3\t4\n", ["µ1", "p2"]),
        ("µ1\t1\t2\np2\t3\t4\n", ["µ1", "p2"]),
        ('"a\tb"\t1\t2\np2\t3\t4\n', ["a\tb", "p2"]),
        ('"p1"\t"1"\t"2"\n"p2"\t"3"\t"4"\n', ["p1", "p2"]),
        ("5'-x\t1\t2\n3\"\t3\t4\n", ["5'-x", '3"']),
    ],
    ids=[
        "quoted", "numeric-ids", "na-ids", "crlf", "crcrlf", "open-end", "cr", "trailing-tabs",
        "blank-lines", "blanks", "latin-1", "utf-8", "quoted-tab", "all-quoted", "prime",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("parser")
def test_read_matrix__harmless_variants(tmp_path, rows, ids):
    table = parse(tmp_path, rows, layout_of(2))
    assert table.text == [ids]
    np.testing.assert_array_equal(table.values, [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p2\t3", r"^GSE1\.txt, line 2: expected 3 columns, got 2\.$"),
        ("p2\t3\t4\t5", r"line 2: expected 3 columns, got 4\."),
        ("p2\t3\tabc", r"line 2: expected a number, got 'abc' in column 'GSM1'\."),
        ("p2\t1,5\t4", r"expected a number with a decimal point, got '1,5' in column 'GSM0'\."),
        ("p2\t1_0\t4", r"expected a number, got '1_0' in column 'GSM0'\."),
        ("p2\t0x1F\t4", r"expected a number, got '0x1F'"),
        ("p2\tTrue\t4", r"expected a number, got 'True'"),
        ("p2\t--\t4", r"expected a number, got '--'"),
        ("p2\t1 2\t4", r"expected a number, got '1 2'"),
        ("p2\t3\r.5\t4", r"line 2: expected a number, got '3\\r\.5' in column 'GSM0'\."),
        ("p2\tinf\t4", r"line 2: expected a finite number, got 'inf' in column 'GSM0'\."),
        ("p2\t3\t-Infinity", r"expected a finite number, got '-Infinity' in column 'GSM1'\."),
        ("p2\t3\t1e39", r"expected a finite number, got '1e39' in column 'GSM1'\."),
        ("p2\t3\t1e999", r"expected a finite number, got '1e999' in column 'GSM1'\."),
        ("\t3\t4", r"line 2: expected an id, got ''\."),
        ("p1\t3\t4", r"line 2: expected each id once, got 'p1' again\. Average or drop"),
        ('"p2\t3\t4', r"line 2: expected 3 columns, got 1\."),
    ],
    ids=[
        "short", "long", "word", "decimal-comma", "underscore", "hex", "bool", "dashes",
        "two-numbers", "carriage-return", "inf", "infinity", "overflow", "huge", "no-id",
        "repeat", "open-quote",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("parser")
def test_read_matrix__refuses(tmp_path, row, message):
    with pytest.raises(SourceError, match=message):
        parse(tmp_path, f"p1\t1\t2\n{row}\np3\t5\t6\n", layout_of(2))


@pytest.mark.parametrize("block_nbytes", [8, 64])
@pytest.mark.usefixtures("parser")
def test_read_matrix__line_is_named_in_a_later_block(tmp_path, monkeypatch, block_nbytes):
    monkeypatch.setattr(text, "BLOCK_NBYTES", block_nbytes)
    rows = [f"p{i}\t{i}\t{i}\n" for i in range(99)]
    with pytest.raises(SourceError, match=r"GSE1\.txt, line 80: expected a number, got 'x'"):
        parse(tmp_path, "".join([*rows[:79], "q\tx\t1\n", *rows[79:]]), layout_of(2))
    with pytest.raises(SourceError, match=r"GSE1\.txt, line 80: expected each id once, got 'p3'"):
        parse(tmp_path, "".join([*rows[:79], "p3\t1\t1\n", *rows[79:]]), layout_of(2))


@pytest.mark.usefixtures("parser")
def test_read_matrix__short_and_long_lines_do_not_cancel(tmp_path):
    with pytest.raises(SourceError, match=r"line 1: expected 3 columns, got 2\."):
        parse(tmp_path, "p1\t1\np2\t1\t2\t3\n", layout_of(2))


@pytest.mark.usefixtures("parser")
def test_read_matrix__line_is_named_after_blank_lines(tmp_path):
    with pytest.raises(SourceError, match=r"line 4: expected each id once, got 'p1'"):
        parse(tmp_path, "p1\t1\t2\n\n\np1\t1\t2\n", layout_of(2))


@pytest.mark.usefixtures("parser")
def test_read_matrix__regular_blocks_are_parsed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "_parse_lines", None)
    table = parse(tmp_path, '"p1"\tNA\t-2.5\r\np2\t1e3\t\r\n', layout_of(2))
    np.testing.assert_array_equal(table.values, [[NAN, 1000], [-2.5, NAN]])


@given(data=st.data(), n_values=st.integers(1, 5), block_nbytes=st.sampled_from([16, 100, 1 << 20]))
@pytest.mark.parametrize("wide_columns", [1, 3, 10**9])
@pytest.mark.parametrize("separator", ["\t", ","])
def test_read_matrix__written_values_come_back(
    tmp_path_factory, data, n_values, block_nbytes, wide_columns, separator
):
    values = data.draw(
        hnp.arrays(np.float32, (data.draw(st.integers(0, 20)), n_values), elements=FINITE)
    )
    ids = [f"p{i}" for i in range(len(values))]
    path = tmp_path_factory.mktemp("matrix") / "a.txt"
    frame = pd.DataFrame(values.astype(object), index=ids)
    body = frame.to_csv(sep=separator, header=False, na_rep="NA")
    path.write_text(f"header\n{body}")
    with pytest.MonkeyPatch.context() as patch, TextStream(path) as stream:
        patch.setattr(matrix, "WIDE_COLUMNS", wide_columns)
        patch.setattr(text, "BLOCK_NBYTES", block_nbytes)
        stream.readline()
        table = read_matrix(stream, layout_of(n_values, separator))
    assert table.text == [ids]
    np.testing.assert_array_equal(table.values, values.T)


@pytest.mark.usefixtures("parser")
def test_read_matrix__text_and_left_out_columns(tmp_path):
    columns = ["id", "note", "symbol", "a", "b"]
    layout = Layout(columns, "\t", (0, 2), range(3, 5))
    table = parse(tmp_path, "p1\tx\tDDR1\t1\t2\np2\ty\t\t3\tNA\n", layout)
    assert table.text == [["p1", "p2"], ["DDR1", ""]]
    np.testing.assert_array_equal(table.values, [[1, 3], [2, NAN]])


@pytest.mark.usefixtures("parser")
def test_read_matrix__one_value_column_among_others(tmp_path):
    layout = Layout(["ID_REF", "VALUE", "CALL"], "\t", (0,), range(1, 2))
    table = parse(tmp_path, "p1\t1\tP\np2\t2\tabc\n", layout)
    np.testing.assert_array_equal(table.values, [[1, 2]])
    with pytest.raises(SourceError, match="line 2: expected 3 columns, got 2"):
        parse(tmp_path, "p1\t1\tP\np2\t2\n", layout)


@pytest.mark.parametrize("block_nbytes", [64, 1 << 20])
def test_read_matrix__many_samples_go_to_scratch(tmp_path, monkeypatch, rng, block_nbytes):
    monkeypatch.setattr(matrix, "SHARD_SAMPLES", 3)
    monkeypatch.setattr(text, "BLOCK_NBYTES", block_nbytes)
    values = rng.normal(size=(30, 4)).astype(np.float32)
    rows = "".join(f"p{i}\t" + "\t".join(map(str, row)) + "\n" for i, row in enumerate(values))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    table = parse(tmp_path, rows, layout_of(4), scratch=scratch)
    assert isinstance(table.values, np.memmap)
    np.testing.assert_array_equal(table.values, values.T)
    assert list(scratch.iterdir()) == []
    in_memory = parse(tmp_path, rows, layout_of(4))
    assert not isinstance(in_memory.values, np.memmap)


def test_read_matrix__scratch_without_room(tmp_path, monkeypatch):
    class FullFile:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            self.is_closed = True

    file = FullFile()
    monkeypatch.setattr(matrix, "SHARD_SAMPLES", 1)
    monkeypatch.setattr(matrix.tempfile, "TemporaryFile", lambda **_: file)
    with pytest.raises(StoreError, match="expected room for more rows, got No space left"):
        parse(tmp_path, "p1\t1\t2\n", layout_of(2), scratch=tmp_path)
    assert file.is_closed


@pytest.mark.parametrize("missing", ["folder", "file"])
def test_read_matrix__scratch_that_is_no_folder(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(matrix, "SHARD_SAMPLES", 1)
    place = tmp_path / "none" if missing == "folder" else tmp_path / "a"
    (tmp_path / "a").touch()
    with pytest.raises(StoreError, match="expected a folder for a scratch matrix, got"):
        parse(tmp_path, "p1\t1\t2\n", layout_of(2), scratch=place)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], r"line 7: expected at least one sample column, got none\."),
        (["a", "", "b"], r"line 7: expected a sample id, got '' as sample 2\."),
        (["a", "b", "c", "b"], r"line 7: expected each sample once, got 'b' again\."),
    ],
    ids=["none", "empty", "repeat"],
)
def test_check_samples__refuses(tmp_path, samples, message):
    (tmp_path / "a.txt").write_text("x\n")
    with TextStream(tmp_path / "a.txt") as stream, pytest.raises(SourceError, match=message):
        check_samples(stream, samples, line=7)


def test_require_rows__empty_table(tmp_path):
    (tmp_path / "a.txt").write_text("head\n")
    with TextStream(tmp_path / "a.txt") as stream:
        stream.readline()
        table = read_matrix(stream, layout_of(2))
        assert table.values.shape == (2, 0)
        with pytest.raises(
            SourceError, match=r"a\.txt, line 2: expected rows.*empty table\. Help\."
        ):
            require_rows(stream, table, "Help.")


@pytest.mark.parametrize("n_expected", [0, 7, 51, 500])
def test_rows__growing_keeps_what_is_there(rng, n_expected):
    rows = matrix._Rows(3, None, n_expected=n_expected)
    blocks = [rng.normal(size=(n, 3)).astype(np.float32) for n in (1, 5, 2, 40, 0, 3)]
    for block, n_rows in zip(blocks, itertools.accumulate(map(len, blocks)), strict=True):
        rows.append(block)
        assert rows.n_rows == n_rows
    np.testing.assert_array_equal(rows.finish(), np.concatenate(blocks).T)


@pytest.mark.parametrize("n_samples", [2, matrix.WIDE_COLUMNS])
@pytest.mark.parametrize("word", ["True", "false"])
def test_read_matrix__words_that_pandas_takes_for_numbers(tmp_path, n_samples, word):
    path = tmp_path / "a.tsv"
    names = [f"GSM{i}" for i in range(n_samples)]
    path.write_text("\t".join(["id", *names]) + "\n" + "\t".join(["a", *[word] * n_samples]) + "\n")
    with pytest.raises(SourceError, match=rf"line 2: expected a number, got '{word}' in column"):
        read_source(path)
