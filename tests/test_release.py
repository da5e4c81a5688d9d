"""What tests/release.py keeps of what a command says; its checks run in `make release-check`."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.release import FailedError, call

REPO = Path(__file__).resolve().parents[1]

SAYS = "import sys; print('one', flush=True); sys.stderr.write('two\\n'); sys.exit({})"


def test_call__a_log_has_all_that_was_said(tmp_path):
    log = tmp_path / "dist" / "lowest.log"
    assert call(sys.executable, "-c", SAYS.format(0), log=log) == "one\ntwo\n" == log.read_text()
    assert call(sys.executable, "-c", SAYS.format(0)) == "one\n"


@pytest.mark.parametrize("is_kept", [True, False])
def test_call__a_failure_tells_its_last_lines(tmp_path, is_kept):
    log = tmp_path / "lowest.log" if is_kept else None
    with pytest.raises(FailedError, match=r"failed:\n    one\n    two$"):
        call(sys.executable, "-c", SAYS.format(3), cwd=tmp_path, log=log)
    assert log is None or log.read_text() == "one\ntwo\n"


def test_versions_of_python__tried_are_those_that_it_installs_on():
    """By continuous integration, and as README and operate.md name them."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    first, end = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    supported = [f"3.{minor}" for minor in range(int(first), int(end))]
    workflow = yaml.safe_load((REPO / ".github/workflows/ci.yml").read_text("utf-8"))
    assert workflow["jobs"]["ci"]["strategy"]["matrix"]["python"] == supported
    for page in ("README.md", "docs/operate.md"):
        text = (REPO / page).read_text("utf-8")
        assert set(re.findall(r"\b3\.1\d\b(?!\.)", text)) >= set(supported)
