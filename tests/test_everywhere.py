"""What tests/everywhere.py says of two studies; its places have tests beside what they start."""

from tests.everywhere import compared


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
    assert (told[2], is_same) == ("1 of 1 differ: models/c/0", True)


def test_compared__no_panel_is_not_equal(tmp_path):
    told, is_same = compared(tmp_path / "none", tmp_path / "neither")
    assert (told, is_same) == (["0 of 0 differ"] * 4, False)
