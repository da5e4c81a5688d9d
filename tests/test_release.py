"""What tests/release.py keeps of what a command says; its checks run in `make release-check`."""

import sys

import pytest

from tests.release import FailedError, call

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
