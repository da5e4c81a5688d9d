"""Settings that name what cannot be fetched."""

import pytest

from dglzarr.errors import ConfigError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import wanted


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('geo = "GSE1O072"', r"sources.0.geo: expected an accession such as GSE10072 or a file"),
        ('geo = ["GSE1", "gse1"]', r"sources.0.geo: GSE1 is named twice"),
        ('geo = "GSE1"\nuri = "a.txt"', r"sources.0: expected one of uri, geo and gtex, got uri"),
        ('role = "train"', r"sources.0: expected one of uri, geo and gtex, got none"),
        ('gtex = "v7"', r"sources.0.gtex: .*'v6', 'v8', 'v10' or 'v11', got 'v7'"),
        ('gtex = "v7"', r"got 'v7'\.$"),  # and not of a list without entries
        ('geo = "GSE1"\nplatform = "affy"', r"expected a platform such as GPL96, or any"),
        ('uri = "http://example.org/a.gz"', r"expected an https address, got 'http://example.org"),
        ('uri = "ftp://example.org/a.gz"', r"expected an https, s3 or gs address, got ftp://"),
        ('uri = "https://me:pw@example.org/a.gz"', r"without credentials, got one with them at"),
        ('uri = "https://example.org/a.gz?token=x"', r"expected an address without credentials"),
        ('uri = "https://[bad/x"', r"sources.0.uri: expected an address such as https://"),
        ('uri = "https:///x"', r"expected an address such as https://.*without a host"),
        ('uri = "https://example.org:99999/x"', r"expected an address such as https://"),
        ('uri = "https://example.org/"', r"that ends in a file's name, got a folder\. Correct it"),
        ('uri = "https://example.org/a%20b"', r"letters, digits and .*, got 'a b'\. Download it"),
        ('uri = "s3://me:pw@bucket/a.gz"', r"a bucket and a name in it, got more at s3://bucket:"),
        ('uri = "gs://bucket/a.gz?token=x"', r"got more at gs://bucket: a user or a query\. Name"),
    ],
)  # fmt: skip
def test_settings__what_cannot_be_fetched(tmp_path, source, told):
    (tmp_path / "study.toml").write_text(f'root = "study"\n[[sources]]\n{source}\n')
    with pytest.raises(ConfigError, match=told) as raised:
        wanted(load_settings(tmp_path / "study.toml"))
    assert "pw" not in str(raised.value)
    assert "token=x" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GSE1\nGPL96\n", r"line 2: expected an accession .*got 'GPL96'"),
        ("GES10072\nGSE3\n", r"line 1: expected an accession .*got 'GES10072'"),
        ("accession\nGSE 2\nGSE3\n", r"line 2: expected an accession .*got 'GSE 2'"),
        ("my series\nof lung\nGSE3\n", r"line 2: expected an accession .*got 'of lung'"),
        ("accession\n", r"expected accessions such as GSE10072, got none"),
    ],
)
def test_settings__a_file_of_accessions_with_a_wrong_line(tmp_path, text, told):
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "study.toml").write_text('root = "study"\n[[sources]]\ngeo = "list.txt"\n')
    with pytest.raises(ConfigError, match=rf"list.txt.*{told}"):
        wanted(load_settings(tmp_path / "study.toml"))
