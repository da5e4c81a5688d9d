"""Every line of settings that docs/data.md shows is one that the settings take."""

import re
import tomllib
from pathlib import Path

import pytest

from dglzarr.settings import load_settings

DATA = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
FILES = DATA[DATA.index("## Files that people have") :]
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", DATA, re.DOTALL | re.MULTILINE)
ROWS = {
    cells[1].strip(): re.findall(r"`(\w+ = [^`]+)`", cells[2])
    for line in FILES.splitlines()
    if line.startswith("| ") and "`uri = " in line
    for cells in [re.split(r"(?<!\\)\|", line)]
}
OF_A_STAGE = sorted(set(re.findall(r"`(\w+\.\w+ = [^`]+)`", DATA)))
OF_A_SOURCE = sorted(set(re.findall(r"`((?:only_\w+|samples_in|max_\w+) = [^`]+)`", DATA)))


def loaded(folder, text):
    (folder / "study.toml").write_text(text, encoding="utf-8")
    (folder / "accessions.txt").write_text("GSE1\n")
    (folder / "discovered.tsv").write_text("accession\nGSE1\n")
    return load_settings(folder / "study.toml")


def taken(source, line):
    ((key, value),) = tomllib.loads(line).items()
    found = source.model_dump()[key]
    return Path(found).name if key in ("uri", "sample_sheet", "only_samples") else found, value


def test_docs__has_a_row_of_each_kind_of_file():
    assert len(ROWS) == 9
    assert len(OF_A_STAGE) >= 9
    assert len(OF_A_SOURCE) >= 5


@pytest.mark.parametrize("block", BLOCKS)
def test_docs__blocks_of_settings(tmp_path, block):
    root = "" if "root = " in block else 'root = "study"\n'
    assert loaded(tmp_path, root + block).sources


@pytest.mark.parametrize("row", ROWS)
def test_docs__rows_of_files(tmp_path, row):
    lines = [line for line in ROWS[row] if not line.startswith("by_ranges")]
    text = 'root = "study"\n[[sources]]\n' + "\n".join(lines)
    (source,) = loaded(tmp_path, text).sources
    for line in lines:
        found, value = taken(source, line)
        assert found == value
    if len(lines) < len(ROWS[row]):
        lines = ['uri = "https://example.org/human.h5"', "by_ranges = true", *lines[1:]]
        (source,) = loaded(tmp_path, 'root = "study"\n[[sources]]\n' + "\n".join(lines)).sources
        assert source.by_ranges


@pytest.mark.parametrize("line", OF_A_SOURCE)
def test_docs__lines_of_a_source(tmp_path, line):
    text = f'root = "study"\n[[sources]]\nuri = "a.tsv"\n{line}\n'
    found, value = taken(loaded(tmp_path, text).sources[0], line)
    assert list(found) == list(value) if isinstance(value, list) else found == value


@pytest.mark.parametrize("line", OF_A_STAGE)
def test_docs__lines_of_a_stage(tmp_path, line):
    ((stage, given),) = tomllib.loads(line).items()
    settings = loaded(tmp_path, f'root = "study"\n{line}\n[[sources]]\nuri = "a.tsv"\n')
    ((key, value),) = given.items()
    found = getattr(getattr(settings, stage), key)
    assert found == value or Path(str(found)).name == value
