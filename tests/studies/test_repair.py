"""A lost manifest is never replaced by a new one; repair writes it by the lineage of segments."""

import shutil

import pytest

from dglzarr.errors import StoreError
from dglzarr.storage.study import MANIFEST, create_study, open_study, planned_study
from dglzarr.studies.repair import repair
from tests.builders import older_study


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A study of two segments, the second grown."""
    return older_study(tmp_path_factory.mktemp("older"))


@pytest.fixture
def study(original, tmp_path):
    return shutil.copytree(original, tmp_path / "study")


def test_repair__a_grown_study_that_lost_its_manifest(study):
    segments = open_study(str(study)).segments
    (study / MANIFEST).unlink()
    for refused in (open_study, planned_study, create_study):
        with pytest.raises(StoreError, match=r"study\.json is missing, but .* 'dglzarr repair"):
            refused(str(study))
    assert not (study / MANIFEST).exists()
    assert repair(str(study)).segments == segments == ("0000", "0001")
    assert open_study(str(study)).segments == segments


DAMAGED = [
    "",
    '{"study_version": 1, "segm',
    "{}",
    '{"segments": ["../../x"]}',
    '{"study_version": 1, "segments": ["0000", "0000"]}',
    '{"study_version": 1, "segments": ["9999"]}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_repair__a_damaged_manifest(study, text):
    (study / MANIFEST).write_text(text)
    with pytest.raises(StoreError):
        open_study(str(study))
    assert repair(str(study)).segments == ("0000", "0001")


def test_repair__an_unfinished_segment_is_not_listed(study):
    (study / MANIFEST).unlink()
    shutil.rmtree(study / "segments" / "0001" / "contributions.zarr")
    assert repair(str(study)).segments == ("0000",)


def test_repair__a_whole_manifest_stays(study):
    before = (study / MANIFEST).read_bytes()
    repair(str(study))
    assert (study / MANIFEST).read_bytes() == before


def test_repair__nothing_to_list(tmp_path):
    with pytest.raises(StoreError, match="expected segments to list, got none"):
        repair(str(tmp_path))


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "", 7])
def test_open_study__names_that_are_no_segments(tmp_path, name):
    listed = f'"{name}"' if isinstance(name, str) else name
    (tmp_path / MANIFEST).write_text(f'{{"study_version": 1, "segments": [{listed}]}}')
    with pytest.raises(StoreError, match="expected segments named by letters, digits"):
        open_study(str(tmp_path))


def test_open_study__every_changed_byte_is_refused(tmp_path):
    create_study(str(tmp_path))
    path = tmp_path / MANIFEST
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(StoreError):
            open_study(str(tmp_path))
