"""What the commands tell of sources: nothing that was left out is passed over in silence."""

import shutil
from functools import partial
from pathlib import Path

from dglzarr import cli

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
