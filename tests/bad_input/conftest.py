"""A study to be spoiled."""

import pytest

from tests.bad_input.spoiled import Study


@pytest.fixture
def study(tmp_path, capsys, monkeypatch):
    return Study(tmp_path, capsys, monkeypatch)
