"""A bundle is read as it was written or not at all."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dglzarr.cli import app, guarded
from dglzarr.errors import SchemaError, StoreError
from dglzarr.prediction.bundle import FOLDER, load_bundle
from tests.builders import set_attributes


def test_load_bundle__unpacked_is_the_same(made, bundle, tmp_path):
    with zipfile.ZipFile(made.output) as file:
        assert file.testzip() is None
        file.extractall(tmp_path)
    for place in (tmp_path, tmp_path / FOLDER):
        found = load_bundle(place)
        assert found.panel == bundle.panel
        np.testing.assert_array_equal(found["coefficient"], bundle["coefficient"])


def test_load_bundle__holds_no_code(made):
    with zipfile.ZipFile(made.output) as file:
        names = file.namelist()
        assert all(n.startswith(f"{FOLDER}/") and not n.endswith((".pkl", ".py")) for n in names)
        head = b"".join(file.read(name)[:2] for name in names)
    assert b"\x80\x04" not in head


def test_load_bundle__lineage(bundle, root):
    roles = {entry["role"]: entry["uri"] for entry in bundle.attributes["inputs"]}
    assert roles == {
        name: f"{root}/segments/0000/{name}.zarr" for name in ("normalized", "samples")
    }
    assert bundle.attributes["dglzarr_version"]
    assert bundle.details["judged"]["given"]["n_series"] == 3


def test_describe_bundle__is_what_info_prints(made, tmp_path, capsys):
    assert guarded(lambda: app(["info", made.output, "--json"], standalone_mode=False)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "bundle version 1"
    assert found["uri"] == made.output
    assert found["details"]["judged"]["given"]["n_series"] == 3
    assert guarded(lambda: app(["info", str(tmp_path / "no.zip")], standalone_mode=False)) == 1
    assert "no such bundle" in capsys.readouterr().err


@pytest.mark.slow
def test_load_bundle__any_byte_changed_is_told(made, tmp_path):
    """A byte of values, of labels, of metadata, of the directory: one line, or the same content."""
    whole = Path(made.output).read_bytes()
    reference = load_bundle(made.output)
    rng = np.random.default_rng(0)
    refused = []
    for place in rng.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.integers(0, 8)
        file = tmp_path / "x.zip"
        file.write_bytes(changed)
        try:
            found = load_bundle(file)
        except (StoreError, SchemaError) as error:
            refused.append(str(error))
            continue
        for name in reference.arrays:
            np.testing.assert_array_equal(found[name], reference[name])
    assert len(refused) > 30
    assert all("\n" not in line and str(file) in line for line in refused)


def rezip(made, target, change):
    """Pack a bundle anew whose unpacked folder was changed."""
    folder = target / "unpacked"
    with zipfile.ZipFile(made.output) as file:
        file.extractall(folder)
    change(folder / FOLDER)
    output = target / "changed.zip"
    with zipfile.ZipFile(output, "w") as file:
        for path in folder.rglob("*"):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return output


def flip(folder):
    path = folder / "coefficient" / "c" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-9] + b"dglzarr!!")


def rename(folder):
    path = folder / "zarr.json"
    text = path.read_text(encoding="utf-8")
    assert "alpha" in text
    path.write_text(text.replace("alpha", "alphb"), encoding="utf-8")


def remove(folder):
    shutil.rmtree(folder / "half_width")


@pytest.mark.parametrize("change", [flip, rename, remove])
def test_load_bundle__changed_and_packed_anew(made, tmp_path, change):
    output = rezip(made, tmp_path, change)
    match = rf"{re.escape(str(output))}: is no bundle as it was written: .* Get it anew"
    with pytest.raises(StoreError, match=match) as told:
        load_bundle(output)
    assert "\n" not in str(told.value)


def test_load_bundle__of_another_version(made, tmp_path):
    def change(folder):
        set_attributes(str(folder), dglzarr_schema_version=99)

    newer = r"changed\.zip: was written by .*: expected schema 'bundle' version 1 at most, got 99\."
    with pytest.raises(SchemaError, match=newer):
        load_bundle(rezip(made, tmp_path, change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"gene\ta\nTP53\t1\n"])
def test_load_bundle__of_another_kind(tmp_path, content):
    file = tmp_path / "x.zip"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.zip: is no bundle as it was written: "):
        load_bundle(file)


def test_load_bundle__cut_or_absent_or_another_zip(made, tmp_path):
    file = tmp_path / "x.zip"
    file.write_bytes(Path(made.output).read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"x\.zip: is no bundle as it was written: "):
        load_bundle(file)
    with pytest.raises(StoreError, match=r"no\.zip: no such bundle\. Make one"):
        load_bundle(tmp_path / "no.zip")
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("a.txt", "x")
    with pytest.raises(StoreError, match="expected a bundle, got a zip of other files"):
        load_bundle(file)


def test_predict__loads_no_tensorflow(made):
    code = (
        "import sys, dglzarr; from dglzarr.prediction.bundle import load_bundle\n"
        f"load_bundle({made.output!r}); dglzarr.predict\n"
        "print([n for n in ('tensorflow', 'keras', 'numba', 'prefect') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
