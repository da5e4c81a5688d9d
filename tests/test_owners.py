"""Exports, opened by their owners' tools: whichever is on this machine, or in DGLZARR_OWNERS.

`make owners` makes the environments of all of them, and opens every export.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests import owners

pytestmark = pytest.mark.slow
KNOWN = {tool.name: tool for tool in owners.TOOLS}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owners")
    return folder, owners.write_exports(folder)


@pytest.mark.parametrize("name", KNOWN)
def test_owners__read_what_the_stores_hold(name, exports, tmp_path):
    tool, (folder, studies) = KNOWN[name], exports
    environments = Path(os.environ.get("DGLZARR_OWNERS", tmp_path))
    if tool.kind != "R" and not (environments / tool.name / ".ready").exists():
        pytest.skip(f"{tool.name} is not here: make owners OWNERS=FOLDER, then DGLZARR_OWNERS")
    try:
        rows = owners.opened(tool, studies, folder, environments)
    except owners.AbsentError as reason:
        pytest.skip(str(reason))
    assert len(rows) == len(tool.opens)


def test_owners__a_value_or_label_that_differs_is_told(exports, tmp_path):
    tool, (folder, studies) = KNOWN["R (read.delim)"], exports
    text = (folder / "hostile.tsv").read_text("utf-8")
    for name, spoiled in {"value": text.replace("-12345.6", "-12354.6"), "label": text.replace(
        "it's", "its")}.items():  # fmt: skip
        assert spoiled != text
        place = tmp_path / f"{name}.tsv"
        place.write_text(spoiled, encoding="utf-8")
        try:
            with pytest.raises(AssertionError):
                owners.compare(tool, studies["hostile"], place, tmp_path)
        except owners.AbsentError as reason:
            pytest.skip(str(reason))


def test_ready__what_was_installed_in_part_is_installed_anew(tmp_path, monkeypatch):
    calls = []

    def call(words, _cwd):
        calls.append(words)
        if len(calls) == 1:
            raise RuntimeError("pip: no route to host")

    monkeypatch.setattr(owners.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(owners, "_call", call)
    with pytest.raises(RuntimeError):
        owners.ready(KNOWN["polars"], tmp_path)
    for _ in range(2):
        owners.ready(KNOWN["polars"], tmp_path)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (subprocess.CalledProcessError(3, ["ensurepip"]), "exit status 3"),
        (StopIteration(), "StopIteration"),
        (ValueError("cannot reshape"), "cannot reshape"),
    ],
)
def test_main__what_fails_is_a_row_and_a_status(error, said, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.setattr(owners, "write_exports", lambda _: {})
    monkeypatch.setattr(owners, "opened", fails)
    monkeypatch.setattr("sys.argv", ["owners", "--only", "polars", "scanpy"])
    assert owners.main() == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(rows) == 2
    assert all(said in row for row in rows)
