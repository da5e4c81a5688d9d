"""Every real input: what it is taken for, its sizes and scale, or why it is refused.

`data/inputs.tsv` says what is right: the sizes that the files' own index gives, and the reason for
which a file is refused. Values are compared with what pandas and h5py read from the same files.
"""

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dglzarr.sources import read_source
from dglzarr.sources.identifiers import read_gene_list
from tests.fuzz_binary import compare_source
from tests.inputs import BEGIN, DOCS, END, PROBES, inputs_of, outcome_of

pytestmark = pytest.mark.data

with (Path(__file__).parent / "data" / "inputs.tsv").open(newline="", encoding="utf-8") as _stream:
    EXPECTED = {row["file"]: row for row in csv.DictReader(_stream, delimiter="\t")}
READ = {
    kind: sorted(name for name, row in EXPECTED.items() if row["taken_for"] == kind)
    for kind in ("table", "series-matrix", "gct", "gctx", "soft")
}
GCT_1_2 = [
    name for name in READ["gct"] if "hgu95av2" in name or "GTEx" in name or "_14samp" in name
]
BY_PANDAS = [*READ["table"], *READ["series-matrix"], *GCT_1_2]
BY_OTHERS = sorted({*READ["gct"], *READ["gctx"], *READ["soft"]} - {*GCT_1_2})


@pytest.fixture(scope="module")
def folder(data_dir):
    if not (data_dir.parent / "cases").is_dir():
        pytest.skip(f"real data: {data_dir.parent / 'cases'} is absent")
    return data_dir.parent


@pytest.fixture(scope="module")
def listed(folder):
    return read_gene_list(folder / PROBES)


def test_inputs__none_is_forgotten(folder):
    assert {str(path.relative_to(folder)) for path in inputs_of(folder)} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_inputs__outcome(folder, listed, name):
    row = EXPECTED[name]
    found = outcome_of(folder / name, listed)
    assert found.taken_for == row["taken_for"]
    assert found.came.startswith(row["came"]), found.came
    for part in filter(None, row["also"].split(" & ")):
        assert part in found.came
    assert "\n" not in found.came


def by_pandas(path, kind):
    """A matrix as pandas reads it: genes in rows."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    how = {"gct": {"skiprows": 2}, "series-matrix": {"comment": "!"}, "table": {}}[kind]
    how |= {} if b"\n" in raw else {"lineterminator": "\r"}
    names = {"keep_default_na": False, "na_values": ["NA", ""]}
    mark = "," if path.suffix == ".csv" else "\t"
    return pd.read_csv(path, sep=mark, index_col=0, dtype={0: str}, **names, **how)


@pytest.mark.parametrize("name", BY_PANDAS)
def test_inputs__values_are_those_of_pandas(folder, name):
    kind = EXPECTED[name]["taken_for"]
    source, frame = read_source(folder / name), by_pandas(folder / name, kind)
    assert set(source.samples) <= set(frame.columns)
    left_out = {one for group in source.left_out for one in group.names}
    rest = set(frame.columns) - set(source.samples) - left_out
    assert not any(pd.api.types.is_numeric_dtype(frame[column]) for column in rest)  # symbols
    frame.index = frame.index.astype(str)
    kept = ~frame.index.isin(list(left_out))
    assert source.genes == frame.index[kept].tolist()
    n = len(source.samples)
    for place in {0, n // 2, n - 1}:
        expected = frame[source.samples[place]].to_numpy(np.float64)[kept]
        found = source.read(place, place + 1)[0]
        np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2e-7)


@pytest.mark.parametrize("name", BY_OTHERS)
def test_inputs__values_are_those_of_another_parser(folder, name):
    compare_source(folder / name, read_source(folder / name))


def test_inputs__the_docs_hold_the_table():
    text = DOCS.read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0]
    told = table.count("\n| `") + sum(map(int, re.findall(r"` and (\d+) like it", table)))
    assert told == len(EXPECTED)
