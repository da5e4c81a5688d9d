"""What the commands tell of sources: nothing that was left out is passed over in silence."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import xarray as xr

from dglzarr import cli
from dglzarr.report import text as report_text
from tests.builders import older_study

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"


def test_ingest__tells_what_it_left_out(tmp_path, capsys):
    shutil.copytree(CASES / "entrez-column", tmp_path / "case")
    study = tmp_path / "case" / "study.toml"
    study.write_text(
        'root = "study"\n[[sources]]\nuri = "GSE1_rsem.txt"\n[ingest]\nsplit_by = "sample"\n'
        '[select]\nn_landmarks = 5\n[cluster]\nkind = "none"\n'
    )
    for _ in range(2):  # also of a store that stands
        assert cli.guarded(partial(cli.app, ["ingest", str(study)], standalone_mode=False)) == 0
        said = capsys.readouterr().out
        assert "1 column left out: identifiers of genes ('Entrez_Gene_Id')" in said
        assert "16 samples" in said
        assert "raw -> log2(x + 1)" in said


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"mean_mae": None, "mean_pcc": None}, "Reconstruction: no test samples to judge it on"),
        (
            {"mean_mae": 1.25, "mean_pcc": None},
            (
                "Reconstruction of 3 held-out samples: mean absolute error 1.2500 (z units); no "
                "gene has enough values in them for a correlation"
            ),
        ),
        (
            {"mean_mae": 1.25, "mean_pcc": 0.5},
            (
                "Reconstruction of 3 held-out samples: mean absolute error 1.2500 (z units), mean "
                "correlation 0.5000; 2 of 4 genes pass the permutation test"
            ),
        ),
    ],
)
def test_reconstruction_line__says_what_is_not_known(monkeypatch, found, line):
    details = {"n_test": 3, "n_significant": 2, **found}
    ds = xr.Dataset(coords={"gene": range(4)}, attrs={"details": details})
    monkeypatch.setattr(report_text, "open_store", lambda _: ds)
    assert report_text.reconstruction_line("reconstruction.zarr") == line


def test_source_lines__a_source_that_was_refused_after_it_was_read(tmp_path):
    """Its raw store stays, so that it is not read again; it is no source of the study."""
    root = older_study(tmp_path)
    before = report_text.source_lines(str(root))
    raw = min((root / "raw").glob("*.zarr"))
    assert any(raw.stem in line for line in before)
    shutil.copytree(raw, raw.with_name("GSE999999.zarr"))
    assert report_text.source_lines(str(root)) == before
