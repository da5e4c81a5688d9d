import gzip

import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import text
from dglzarr.sources.text import TextStream, decode, header_cells, split_cells, unquote


def lines_of(path):
    with TextStream(path) as stream:
        found = []
        while (line := stream.readline()) is not None:
            found.append(line)
        return found


@pytest.mark.parametrize(
    "end", [b"\n", b"\r\n", b"\r", b"\r\r\n"], ids=["lf", "crlf", "cr", "crcrlf"]
)
@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "open"])
def test_readline__line_ends(tmp_path, end, is_ended):
    path = tmp_path / "a.txt"
    path.write_bytes(end.join([b"one", b"two", b"three"]) + end * is_ended)
    assert lines_of(path) == ["one", "two", "three"]


def test_readline__carriage_return_within_a_line_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\rmore\ntwo\n")
    assert lines_of(path) == ["one\rmore", "two"]


def test_readline__line_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_NBYTES", 4)
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nlonger line\n\nz")
    assert lines_of(path) == ["a", "longer line", "", "z"]


def test_readline__gzip_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(gzip.compress("\ufeffname\tµ\n".encode()))
    assert lines_of(path) == ["name\tµ"]


def test_readline__latin_1_where_not_utf_8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"Charit\xe9\nCharit\xc3\xa9\n")
    assert lines_of(path) == ["Charité", "Charité"]


@pytest.mark.parametrize("block_nbytes", [3, 7, 1000])
@pytest.mark.parametrize("stop", [(), (b"!",)], ids=["whole", "stop"])
def test_blocks__give_whole_lines_once(tmp_path, monkeypatch, block_nbytes, stop):
    monkeypatch.setattr(text, "BLOCK_NBYTES", block_nbytes)
    path = tmp_path / "a.txt"
    path.write_bytes(b"head\nab\ncdefgh\ni\n!end\nx\n!last")
    with TextStream(path) as stream:
        stream.readline()
        blocks = list(stream.blocks(stop))
        rest = stream.readline()
        line = stream.line
    assert all(block.endswith(b"\n") for _, block in blocks)
    joined = b"".join(block for _, block in blocks)
    assert joined == (b"ab\ncdefgh\ni\n" if stop else b"ab\ncdefgh\ni\n!end\nx\n!last\n")
    assert (rest, line) == (("!end", 6) if stop else (None, 8))
    counted = 2
    for first_line, block in blocks:
        assert first_line == counted
        counted += block.count(b"\n")


@pytest.mark.parametrize(
    ("block_nbytes", "shortest", "expected"), [(16, 1, 107), (1 << 20, 1, 101), (1 << 20, 40, 21)]
)
def test_expect_lines__of_a_regular_file(tmp_path, monkeypatch, block_nbytes, shortest, expected):
    monkeypatch.setattr(text, "BLOCK_NBYTES", block_nbytes)
    lines = ["head" * 100, "0", *["1234567"] * 100]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    with TextStream(tmp_path / "a.txt") as stream:
        stream.readline()
        assert stream.expect_lines(shortest=shortest) == pytest.approx(expected, abs=1)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"1\n2\n"))
    with TextStream(tmp_path / "b.txt.gz") as stream:
        assert stream.expect_lines(shortest=1) == 0


def test_blocks__stop_line_comes_first(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"!end\n")
    with TextStream(path) as stream:
        assert list(stream.blocks((b"!",))) == []
        assert stream.readline() == "!end"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.txt: expected a table, got an empty file\."),
        (b" \n\n", r"a\.txt: expected a table, got an empty file\."),
        (gzip.compress(b"", mtime=0), r"a\.txt: expected a table, got an empty file\."),
        (b"PK\x03\x04zip", r"a\.txt: expected plain or gzip text, got a zip archive\."),
        (b"BZh91AY", r"got a bzip2 file\. Unpack or convert it\."),
        (b"\xff\xfea\0", r"got UTF-16 text\."),
        (gzip.compress(b"\x89HDF\r\n\x1a\n"), r"got HDF5 inside gzip\."),
        (b"ab\0\0cd", r"a\.txt: expected plain or gzip text, got binary data\."),
        (
            gzip.compress(b"x\n" * 9000)[:-20],
            r"a\.txt, line 1: expected a complete gzip file, got a tru",
        ),
        (gzip.compress(b"x\n" * 9)[:-8] + b"\0" * 8, r"got a truncated or damaged one \(CRC check"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3\xff\xff\xff", r"got a truncated or damaged one"),
    ],
    ids=[
        "empty",
        "blank",
        "empty-gz",
        "zip",
        "bz2",
        "utf16",
        "h5gz",
        "nul",
        "cut",
        "crc",
        "deflate",
    ],
)
def test_text_stream__refuses(tmp_path, content, message):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        lines_of(path)


def test_text_stream__damage_is_found_where_reading_reaches_it(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_NBYTES", 100)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % i for i in range(9999)))[:-100])
    with pytest.raises(
        SourceError, match=r"a\.txt\.gz, line \d{3,}: expected a complete gzip file"
    ):
        lines_of(path)


def test_text_stream__missing_file(tmp_path):
    with pytest.raises(SourceError, match="expected a readable file, got No such file"):
        TextStream(tmp_path / "none.txt")


def test_text_stream__refuses_a_gzip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MIN_EXPANDED_NBYTES", 1 << 16)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"0\t0\n" * 2_000_000))
    with pytest.raises(SourceError, match="expected at most 200 bytes of text per byte of gzip"):
        lines_of(path)


def test_text_stream__small_text_may_expand(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"0\t0\n" * 100_000))
    assert len(lines_of(path)) == 100_000


def test_text_stream__refuses_an_endless_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_NBYTES", 1 << 10)
    monkeypatch.setattr(text, "MAX_LINE_NBYTES", 1 << 12)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" + b"x" * 10_000)
    with pytest.raises(
        SourceError, match="line 2: expected a line of at most 4096 bytes, got a lon"
    ):
        lines_of(path)


def test_drain__verifies_the_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "BLOCK_NBYTES", 10)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"first line\n" + b"x\n" * 100)[:-8] + b"\0" * 8)
    with TextStream(path) as stream:
        assert stream.readline() == "first line"
        with pytest.raises(SourceError, match="CRC check failed"):
            stream.drain()


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('"1007_s_at"', "1007_s_at"),
        (' "a ""b""" ', 'a "b"'),
        ("plain", "plain"),
        ('"', '"'),
        ('5"', '5"'),
        ('""', ""),
    ],
)
def test_unquote__cases(cell, expected):
    assert unquote(cell) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('"a,b",c', ["a,b", "c"]),
        ("a, b ,", ["a", "b", ""]),
        ('a,"b\rc"', ["a", "b c"]),
        ('"' + "x" * 200_000 + ",y", ['"' + "x" * 200_000, "y"]),
    ],
    ids=["quoted-separator", "blanks", "carriage-return", "unbalanced"],
)
def test_split_cells__cases(line, expected):
    assert split_cells(line, ",") == expected


def test_header_cells__drop_the_padding():
    assert header_cells("a\t\tb\t\t", "\t") == ["a", "", "b"]


def test_decode__bytes():
    assert decode(b"\xb5") == decode("µ".encode()) == "µ"


def test_readline__two_byte_order_marks(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfname\tvalue\n")
    assert lines_of(path) == ["name\tvalue"]
