"""A copy of a study goes where there is none, and nowhere else."""

import pytest

from dglzarr.errors import StoreError
from dglzarr.studies.copy import copy_study
from tests.builders import write_manifest


@pytest.mark.parametrize("inner", ["sub", "segments/0001", "./../study/a/b"])
def test_copy__into_itself_is_refused(tmp_path, inner):
    (tmp_path / "study").mkdir()
    write_manifest(tmp_path / "study", ["0000"])
    with pytest.raises(StoreError, match=r"expected a place outside .*study\. Choose another"):
        copy_study(str(tmp_path / "study"), f"{tmp_path}/study/{inner}")
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["study.json"]
