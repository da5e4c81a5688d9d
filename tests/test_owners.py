"""Exports, opened by their owners' tools: whichever is on this machine, or in DGLZARR_OWNERS.

`make owners` makes the environments of all of them, and opens every export.
"""

import os
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
    if tool.kind != "R" and not (environments / tool.name).exists():
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
