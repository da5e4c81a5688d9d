"""A few hundred mutated files over all readers: each is read clean or refused in one line."""

import h5py
import numpy as np
import pytest

from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.sources import read_source
from dglzarr.sources.terms import read_ontology
from tests import fuzz, fuzz_parsers

N_TRIALS = 300


def test_fuzz__every_file_is_clean_or_refused(tmp_path):
    results = [fuzz.try_seed(seed, tmp_path) for seed in range(N_TRIALS)]
    assert [result for result in results if result.outcome == "fault"] == []
    seen = {result.outcome for result in results}
    assert {"refused", "equal"} <= seen


def test_fuzz__a_wrong_value_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_parsers, "number", lambda _: 1.0)
    results = [fuzz.try_seed(seed, tmp_path) for seed in range(40)]
    assert any(result.outcome == "fault" for result in results)


def test_fuzz__ids_without_a_dataspace(tmp_path):
    path = tmp_path / "GSE1.gctx"
    with h5py.File(path, "w") as file:
        file["0/META/COL/id"] = h5py.Empty("S4")
        file["0/META/ROW/id"] = np.array([b"1_at"])
        file["0/DATA/0/matrix"] = np.ones((1, 1), np.float32)
    with pytest.raises(SourceError, match=r"^GSE1\.gctx: expected "):
        read_source(path)


def test_fuzz__a_platform_name_with_a_line_end_within(tmp_path):
    path = tmp_path / "GSE1_family.soft"
    text = "^SAMPLE = GSM{n}\n!Sample_platform_id = GPL{n}\rx\n!sample_table_begin\nID_REF\tVALUE\n"
    parts = [f"{text.format(n=n)}1_at\t2.5\n!sample_table_end\n" for n in (1, 2)]
    path.write_bytes("".join(parts).encode())
    with pytest.raises(SourceError, match=r"of one platform, got GPL1 x, GPL2 x\. Give") as caught:
        read_source(path)
    assert len(str(caught.value).splitlines()) == 1


def test_fuzz__a_dimension_of_5000_digits(tmp_path):
    path = tmp_path / "GSE1.gct"
    path.write_text(f"#1.2\n{'9' * 5000}\t1\nName\tDescription\tGSM1\n1_at\tTP53\t2.5\n")
    with pytest.raises(SourceError, match=r"^GSE1\.gct, line 2: expected 2 dimensions"):
        read_source(path)


def test_fuzz__a_relationship_to_nothing(tmp_path):
    stanza = "[Term]\nid: GO:1\nname: a\nnamespace: molecular_function\nrelationship: part_of\n"
    (tmp_path / "a.obo").write_text(stanza)
    cells = ["UniProtKB", "P1", "TP53", "enables", "GO:1", *[""] * 12]
    (tmp_path / "a.gaf").write_text("\t".join(cells) + "\n")
    assert read_ontology(tmp_path / "a.obo", tmp_path / "a.gaf").ids == ["GO:1"]


def test_fuzz__settings_with_a_number_of_5000_digits(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(f"seed = {'9' * 5000}\n")
    with pytest.raises(ConfigError, match=r"study\.toml: expected TOML, got "):
        load_settings(path)
