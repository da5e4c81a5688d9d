import gzip

import pytest

from dglzarr.errors import SourceError
from dglzarr.sources.peek import peek_size


def test_peek_size__rows_and_columns_of_a_packed_table(tmp_path):
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"id\ts1\ts2\n" + b"gene\t1.5\t2.5\n" * 50))
    n_samples, n_genes = peek_size(path)
    assert n_samples == 2
    assert abs(n_genes - 50) <= 5


@pytest.mark.parametrize(
    "raw", [b"\x1f\x8b", b"\x1f\x8b\x08", b"\x1f\x8bxxxx", gzip.compress(b"a\tb\n", mtime=0)[:-9]]
)
def test_peek_size__damaged_gzip(tmp_path, raw):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(raw)
    with pytest.raises(SourceError, match=r"^a\.txt\.gz: expected a complete gzip file"):
        peek_size(path)
