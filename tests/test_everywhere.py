"""What tests/everywhere.py says of two studies; its places have tests beside what they start."""

import subprocess

import pytest

from tests.everywhere import OF_MAKE, Demo, compared
from tests.release import FailedError


def study(root, **changed):
    objects = {"landmarks": b"panel", "scores": b"scores", "models": b"weights", "latent": b"x"}
    for name, content in {**objects, **changed}.items():
        place = root / (name if name == "models" else f"{name}.zarr") / "c" / "0"
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        place.with_name("zarr.json").write_text(f"of {root}")
    return root


def test_compared__metadata_may_differ_and_no_other_byte(tmp_path):
    known = study(tmp_path / "known")
    assert compared(study(tmp_path / "same"), known) == (["equal (1)"] * 4, True)
    told, is_same = compared(study(tmp_path / "scored", scores=b"Scores"), known)
    assert (told[1], is_same) == ("1 of 1 differ: scores.zarr/c/0", False)
    told, is_same = compared(study(tmp_path / "trained", models=b"Weights"), known)
    assert (told[2], is_same) == ("1 of 1 differ: models/c/0", False)
    told, is_same = compared(study(tmp_path / "encoded", latent=b"X"), known)
    assert (told[3], is_same) == ("1 of 1 differ: latent.zarr/c/0", False)


def test_compared__no_panel_is_not_equal(tmp_path):
    told, is_same = compared(tmp_path / "none", tmp_path / "neither")
    assert (told, is_same) == (["0 of 0 differ"] * 4, False)


@pytest.mark.parametrize(
    "error",
    [
        FailedError("pip:\n no wheel"),
        AssertionError("SLURM\n does not start"),
        FileNotFoundError("git"),
        subprocess.TimeoutExpired("sinfo", 30),
    ],
)
def test_row__a_place_that_fails_is_a_row(tmp_path, error):
    def fails(_place):
        raise error

    demo = Demo(tmp_path, is_small=True)
    demo.places["wheel"] = fails
    line, is_same = demo.row("wheel", tmp_path)
    assert line.startswith("| wheel | failed: ")
    assert str(error).split()[-1] in line
    assert "\n" not in line
    assert not is_same


def test_call__make_of_the_clone_takes_its_own_environment(tmp_path, monkeypatch):
    for name in OF_MAKE:
        monkeypatch.setenv(name, "of another make")
    demo = Demo(tmp_path, is_small=True)
    demo.call(["sh", "-c", "env > seen"], tmp_path)
    assert "of another make" not in (tmp_path / "seen").read_text()
