"""Whatever a user can get wrong ends in one clear line on stderr and an exit status, no more."""

import contextlib
import gzip
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dglzarr.cli import main
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import is_complete
from dglzarr.storage.study import create_study
from dglzarr.testing import write_gct, write_gctx, write_series_matrix, write_soft, write_table
from tests.builders import digests

PROGRESS = re.compile(r"^[\w ,-]+ \(\d+\)$")
GENES = [f"{i:02d}_at" for i in range(12)]
SETTINGS = {"ingest.split_by": "sample", "select.n_landmarks": 3, "cluster.kind": "none"}


class Run:
    """What a command printed and returned."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def complaint(self):
        """The one line on stderr that is no progress."""
        lines = [line for line in self.err.splitlines() if line and not PROGRESS.match(line)]
        assert len(lines) == 1, self.err
        return lines[0]


class Study:
    """A study of two series of eight samples, to be spoiled."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self.root = folder, folder / "study"
        self.settings = dict(SETTINGS)
        self.sources = [{"uri": "GSE*"}]
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.values = np.random.default_rng(0).uniform(4, 14, (16, 12)).astype(np.float32)
        for name, rows in (("GSE1", slice(0, 8)), ("GSE2", slice(8, 16))):
            self.write(name, self.values[rows])

    def write(self, name, values, genes=None):
        path = self.folder / f"{name}_series_matrix.txt"
        return write_series_matrix(
            path, np.asarray(values), genes=genes or GENES[: np.shape(values)[1]],
            samples=[f"{name}-{i}" for i in range(len(values))], series=name, platform="GPL96",
        )  # fmt: skip

    def edit(self, name, old, new, count=1):
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    def replace(self, text, name="GSE1_series_matrix.txt"):
        (self.folder / name).write_text(text)

    def toml(self):
        lines = [f"root = {json.dumps(str(self.root))}"]
        for key, value in self.settings.items():
            lines.append(f"{key} = {value if key.startswith('raw ') else json.dumps(value)}")
        for source in self.sources:
            lines.append("[[sources]]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in source.items()]
        path = self.folder / "study.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def run(self, verb="ingest", *options):
        return self.call(verb, str(self.toml()), *options)

    def call(self, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["dglzarr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Run(ended.value.code, *self.capsys.readouterr())

    @property
    def complete(self):
        """The stores that look complete, but for the raw ones."""
        stores = [path for path in self.root.rglob("*.zarr") if is_complete(str(path))]
        return [str(p.relative_to(self.root)) for p in stores if p.parent.name != "raw"]

    def expect(self, status, pattern, verb="ingest", *options):
        run = self.run(verb, *options)
        assert run.status == status
        assert re.search(pattern, run.complaint), run.complaint
        assert "Traceback" not in run.err
        assert self.complete == []
        return run


@pytest.fixture
def study(tmp_path, capsys, monkeypatch):
    return Study(tmp_path, capsys, monkeypatch)


def test_a_good_study_passes(study):
    assert study.run().status == 0
    assert study.complete == ["segments/0000/expression.zarr"]


# ---------------------------------------------------------------- sources


def not_there(study):
    study.sources = [{"uri": "absent.txt"}]


def truncated_gz(study):
    text = (study.folder / "GSE1_series_matrix.txt").read_bytes()
    (study.folder / "GSE1_series_matrix.txt").unlink()
    packed = gzip.compress(text)
    (study.folder / "GSE1_series_matrix.txt.gz").write_bytes(packed[: len(packed) // 2])


def damaged_gz(study):
    text = (study.folder / "GSE1_series_matrix.txt").read_bytes()
    (study.folder / "GSE1_series_matrix.txt").unlink()
    packed = bytearray(gzip.compress(text))
    packed[len(packed) // 2] ^= 255
    (study.folder / "GSE1_series_matrix.txt.gz").write_bytes(packed)


def truncated_text(study):
    path = study.folder / "GSE1_series_matrix.txt"
    path.write_text(path.read_text()[:-60])


def empty_file(study):
    study.replace("")


def empty_table(study):
    lines = (study.folder / "GSE1_series_matrix.txt").read_text().splitlines(keepends=True)
    study.replace("".join(line for line in lines if "_at" not in line))


def header_alone(study):
    study.replace("ID_REF\ta\tb\n")


def repeated_probe(study):
    study.edit("GSE1_series_matrix.txt", '"03_at"', '"02_at"')


def repeated_sample(study):
    study.edit("GSE1_series_matrix.txt", '"GSE1-3"', '"GSE1-2"', 99)


def sample_of_another_series(study):
    study.edit("GSE2_series_matrix.txt", '"GSE2-3"', '"GSE1-2"', 99)


def word_among_numbers(study):
    study.edit("GSE1_series_matrix.txt", f"{study.values[0, 3]:.5f}", "high")


def infinite_value(study):
    study.edit("GSE1_series_matrix.txt", f"{study.values[0, 3]:.5f}", "inf")


def short_row(study):
    study.edit("GSE1_series_matrix.txt", f"\t{study.values[0, 3]:.5f}", "")


def centred_values(study):
    study.write("GSE1", study.values[:8] - np.median(study.values[:8]))


def missing_values_alone(study):
    study.write("GSE1", np.full((8, 12), np.nan))


def spreadsheet(study):
    (study.folder / "GSE1_series_matrix.txt").write_bytes(b"PK\x03\x04\x14\x00\x06\x00" * 40)


def prose(study):
    study.replace("This series is not available.\nAsk the authors.\n")


def gctx_in_name_alone(study):
    (study.folder / "GSE3_x.gctx").write_text("#1.3\n3\t2\n")


def gctx_of_other_content(study):
    import h5py

    with h5py.File(study.folder / "GSE3_x.gctx", "w") as file:
        file["something"] = [1, 2]


def no_common_probes(study):
    study.write("GSE2", study.values[:8], [f"ILMN_{i}" for i in range(12)])


def unknown_platform(study):
    study.write("GSE3", study.values[:8])
    study.edit("GSE3_series_matrix.txt", "_at", "_chip", 999)


def unlisted_platform(study):
    (study.folder / "probes.txt").write_text("\n".join(f"ILMN_{i}" for i in range(9)))
    study.settings["ingest.probes"] = "probes.txt"


def sheet_of_other_samples(study):
    (study.folder / "sheet.tsv").write_text("Sample\tdisease\nx\tno\n")
    study.sources = [{"uri": "GSE*", "sample_sheet": "sheet.tsv"}]


def sheet_not_there(study):
    study.sources = [{"uri": "GSE*", "sample_sheet": "{stem}.tsv"}]


@pytest.mark.parametrize(
    ("spoil", "status", "pattern"),
    [
        (not_there, 2, r"sources\.0\.uri: no such file: .*absent\.txt"),
        (truncated_gz, 1, r"GSE1_series_matrix\.txt\.gz.*(truncated|incomplete|ended|download)"),
        (damaged_gz, 1, r"GSE1_series_matrix\.txt\.gz"),
        (truncated_text, 1, r"GSE1_series_matrix\.txt, line \d+: expected"),
        (empty_file, 1, r"GSE1_series_matrix\.txt.*empty|GSE1_series_matrix\.txt.*got"),
        (empty_table, 1, r"GSE1_series_matrix\.txt.*expected"),
        (header_alone, 1, r"GSE1_series_matrix\.txt.*expected"),
        (repeated_probe, 1, r"GSE1_series_matrix\.txt, line \d+: .*'02_at'"),
        (repeated_sample, 1, r"GSE1_series_matrix\.txt, line \d+: .*'GSE1-2'"),
        (sample_of_another_series, 1, r"GSE2: 1 samples are in GSE1 too, for example 'GSE1-2'"),
        (word_among_numbers, 1, r"GSE1_series_matrix\.txt, line \d+: .*'high'"),
        (infinite_value, 1, r"GSE1_series_matrix\.txt.*inf"),
        (short_row, 1, r"GSE1_series_matrix\.txt, line \d+: expected 9 columns, got 8"),
        (centred_values, 1, r"GSE1_series_matrix\.txt: .*median-centred.*before centring"),
        (missing_values_alone, 1, r"GSE1_series_matrix\.txt: .*only missing values"),
        (spreadsheet, 1, r"GSE1_series_matrix\.txt"),
        (prose, 1, r"GSE1_series_matrix\.txt, line 1: expected a series matrix, SOFT, GCT"),
        (gctx_in_name_alone, 1, r"GSE3_x\.gctx"),
        (gctx_of_other_content, 1, r"GSE3_x\.gctx"),
        (no_common_probes, 1, r"GSE\d: shares 0 probes .*role = 'cohort'"),
        (unknown_platform, 1, r"GSE3: shares 0 probes .*Unknown platform"),
        (unlisted_platform, 1, r"GSE1: expected at least 90% of the 9 listed probes, got 0"),
        (sheet_of_other_samples, 1, r"sheet\.tsv: expected a column with all 8 samples"),
        (sheet_not_there, 1, r"GSE\d\.tsv: no such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_source(study, spoil, status, pattern):
    spoil(study)
    run = study.expect(status, pattern)
    bad = re.search(r"GSE\d", pattern)
    if status == 1 and bad and "shares" not in pattern and "samples are" not in pattern:
        raw = [p for p in study.root.glob(f"raw/{bad.group()}*.zarr") if is_complete(str(p))]
        assert raw == [] or "listed" in pattern, run.err


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, **matrix: write_gct(folder / "GSE1_x.gct", **matrix),
        lambda folder, **matrix: write_gctx(folder / "GSE1_x.gctx", **matrix),
        lambda folder, **matrix: write_table(folder / "GSE1_x.csv", **matrix),
        lambda folder, **matrix: write_soft(
            folder / "GSE1_x.soft", series="GSE1", platform="GPL96", **matrix
        ),
    ],
    ids=["gct", "gctx", "csv", "soft"],
)
@pytest.mark.parametrize("fault", ["half the file", "repeated probe"])
def test_source__any_format(study, write, fault):
    (study.folder / "GSE1_series_matrix.txt").unlink()
    genes = list(GENES)
    if fault == "repeated probe":
        genes[3] = genes[2]
    samples = [f"x{i}" for i in range(8)]
    path = write(study.folder, expression=study.values[:8], samples=samples, genes=genes)
    if fault == "half the file":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    study.expect(1, rf"{path.name}|GSE1_x", "ingest")


@pytest.mark.data
def test_source__wrong_extension(study, data_dir):
    """GCT text named .gctx is told by its content, and these values are z-scores."""
    study.sources = [{"uri": str(data_dir / "gctx" / "test_l1000.gctx")}]
    study.expect(1, r"test_l1000\.gctx: .*median-centred.*before centring")


# ---------------------------------------------------------------- odd values


def in_first_series(study, sample, gene, value):
    values = study.values[:8].copy()
    values[sample, gene] = value
    study.write("GSE1", values)


@pytest.mark.parametrize("value", [3e38, 900.0, -900.0])
def test_value__huge_among_log2_values(study, value):
    large(study)
    names = [f"{i:03d}_at" for i in range(400)]
    values = np.random.default_rng(1).uniform(4, 14, (32, 400))
    values[2, 3] = value
    study.write("GSE1", values, names)
    study.expect(1, r"GSE1_series_matrix\.txt: .*one scale, got log2 .*Take the outliers out")
    assert not is_complete(str(study.root / "raw" / "GSE1.zarr"))


@pytest.mark.parametrize("value", [3e38, -900.0])
def test_value__huge_where_the_scale_is_not_looked_at(study, value):
    """Of a large file a few windows tell the scale; the value stands between two of them."""
    values = np.tile(study.values[:8], (75, 1))
    values[34, 3] = value
    names = [f"x{i}" for i in range(600)]
    write_gctx(study.folder / "GSE3_x.gctx", values, samples=names, genes=GENES)
    study.expect(1, r"sample 'x34', gene '03_at': expected a log2 value, got -?[39]")


def test_value__a_little_below_zero_is_a_log2_value(study):
    in_first_series(study, 2, 3, -0.5)
    assert study.run().status == 0
    assert read_array(f"{study.root}/segments/0000/expression.zarr", "expression").min() == -0.5


def test_sample__without_values(study):
    in_first_series(study, 2, slice(None), np.nan)
    study.expect(1, r"sample 'GSE1-2': expected values, got none for any gene of the study")


def test_sample__constant_gets_the_middle_of_the_reference(study):
    in_first_series(study, 2, slice(None), 8.0)
    assert study.run().status == study.run("normalize").status == study.run("dedup").status == 0
    store = f"{study.root}/segments/0000/normalized.zarr"
    reference = read_array(store, "quantile_reference")
    found = read_array(store, "expression")[2]
    np.testing.assert_array_equal(found, np.float32((reference[5] + reference[6]) / 2))


@pytest.mark.slow
def test_gene__without_values(study):
    """It stays missing, its score is 0 and its rank the last."""
    study.values[:, 3] = np.nan
    study.write("GSE1", study.values[:8])
    study.write("GSE2", study.values[8:])
    study.settings |= {"train.hidden": 6, "train.n_latent": 2, "train.epochs": 2}
    study.settings["select.n_random"] = 1
    assert study.run("mine").status == 0
    for name in ("expression", "normalized"):
        values = read_array(f"{study.root}/segments/0000/{name}.zarr", "expression")
        np.testing.assert_array_equal(np.isnan(values).all(axis=0), np.arange(12) == 3)
    contribution = read_array(f"{study.root}/segments/0000/contributions.zarr", "contribution")
    np.testing.assert_array_equal(np.isnan(contribution).all(axis=0), np.arange(12) == 3)
    assert read_array(f"{study.root}/scores.zarr", "score")[3] == 0
    assert read_array(f"{study.root}/landmarks.zarr", "rank")[3] == 12


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("key", "value", "pattern"),
    [
        ("select.n_landmark", 3, r"study\.toml: select\.n_landmark"),
        ("selection.n_landmarks", 3, r"study\.toml: selection"),
        ("select.n_landmarks", 0, r"study\.toml: select\.n_landmarks.*0"),
        ("select.n_landmarks", "many", r"study\.toml: select\.n_landmarks.*many"),
        ("normalize.ties", "mean", r"study\.toml: normalize\.ties.*midrank"),
        ("ingest.test_fraction", 1.2, r"study\.toml: ingest\.test_fraction"),
        ("ingest.validation_fraction", 0.9, r"study\.toml: .*validation_fraction"),
        ("train.dropout", 1, r"study\.toml: train\.dropout"),
        ("ingest.probes", "absent.txt", r"ingest\.probes: no such file: .*absent\.txt"),
        ("ingest.annotation", "absent.txt", r"ingest\.annotation: no such file: .*absent\.txt"),
        ("enrich.gene_sets", "absent.gmt", r"enrich\.gene_sets: no such file: .*absent\.gmt"),
        ("evaluate.panels.l", "absent.txt", r"evaluate\.panels\.l: no such file: .*absent\.txt"),
    ],
)  # fmt: skip
def test_setting(study, key, value, pattern):
    study.settings[key] = value
    study.expect(2, pattern)
    assert not study.root.exists()


def test_setting__panel_larger_than_the_genes(study):
    study.settings["select.n_landmarks"] = 12
    run = study.run("mine")
    assert run.status == 2
    assert re.search(r"select\.n_landmarks: expected 1 to 11, .*got 12", run.complaint)
    assert study.complete == ["segments/0000/expression.zarr"]
    study.settings["select.n_landmarks"] = 943
    assert "got 943" in study.run("mine").complaint


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("absent.toml", None, r"absent\.toml: cannot be read: No such file"),
        ("x.toml", "root = [", r"x\.toml: expected TOML"),
        ("x.toml", "", r"x\.toml: .*root"),
        ("x.toml", 'root = "r"\nsources = []\n', r"x\.toml: sources"),
        ("x.toml", b"\xff\xfe\x00", r"x\.toml: expected text in UTF-8"),
    ],
)
def test_settings_file(study, name, content, pattern):
    path = study.folder / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run = study.call("mine", str(path))
    assert run.status == 2
    assert re.search(pattern, run.complaint), run.complaint


@pytest.mark.parametrize("option", ["n_landmarks", "select.n_landmark=3", "root.x=1", "=3"])
def test_override(study, option):
    run = study.run("ingest", "--set", option)
    assert run.status == 2
    assert run.complaint
    assert not study.root.exists()


@pytest.mark.parametrize("arguments", [("nonsense",), ("mine",), ("mine", "a", "--nonsense")])
def test_arguments(study, arguments):
    run = study.call(*arguments)
    assert run.status == 2
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("split_by", "remedy"), [("series", "split_by = 'sample'"), ("sample", "Add samples")]
)
def test_too_few_samples_for_a_split(study, split_by, remedy):
    (study.folder / "GSE2_series_matrix.txt").unlink()
    study.write("GSE1", study.values[:1])
    study.settings["ingest.split_by"] = split_by
    study.expect(2, rf"ingest\.split_by '{split_by}': expected train and test.*{remedy}")


def test_stage_before_its_input(study):
    for verb, wanted in (
        ("normalize", "expression"),
        ("dedup", "normalized"),
        ("select", "scores"),
    ):
        study.expect(1, rf"{wanted}\.zarr: no such store. Run the stage that writes it", verb)


def test_names_that_are_taken(study):
    (study.folder / "list.txt").write_text("\n".join(GENES[:3]))
    study.sources.append({"uri": "list.txt", "role": "cohort"})
    (study.folder / "GSE1_expr.tsv").write_text("ID_REF\ta\n")
    study.expect(2, r"GSE1_series_matrix\.txt and .*GSE1_expr\.tsv are both named 'GSE1'")


# ---------------------------------------------------------------- stores


@pytest.mark.parametrize("verb", ["info", "verify", "query"])
@pytest.mark.parametrize(
    ("store", "pattern"),
    [
        ("absent.zarr", r"absent\.zarr: no such store"),
        ("absent#normalized", r"absent: no study here"),
        ("study#nonsense", r"expected a store of expression, .*'nonsense'"),
        ("foreign", r"foreign: expected a dglzarr store, got a foreign Zarr group"),
    ],
)
def test_store(study, verb, store, pattern):
    import zarr

    study.run()
    zarr.open_group(str(study.folder / "foreign"), mode="w")
    study.monkeypatch.chdir(study.folder)
    run = study.call(verb, store)
    assert run.status in (1, 2)
    assert re.search(pattern, run.complaint), run.complaint


@pytest.mark.parametrize(
    "option", [("--gene", "nobody"), ("--sample", "nobody", "--gene", "01_at")]
)
def test_query__unknown_label(study, option):
    study.run()
    run = study.call("query", f"{study.root}#expression", *option)
    assert run.status in (1, 2)
    assert re.search(r"nobody", run.complaint), run.complaint


def test_store__other_files_in_its_place(study):
    create_study(str(study.root))
    place = study.root / "segments/0000/expression.zarr"
    place.mkdir(parents=True)
    (place / "diary.txt").write_text("mine")
    study.expect(1, r"expression\.zarr: expected a dglzarr store or nothing, got other files")
    assert (place / "diary.txt").read_text() == "mine"


def test_store__made_with_other_settings(study):
    study.run()
    study.settings["seed"] = 5
    run = study.run()
    assert run.status == 1
    assert re.search(r"expression\.zarr: .*seed: 0 -> 5.*--overwrite", run.complaint)
    assert study.run("ingest", "--overwrite").status == 0


# ---------------------------------------------------------------- places that cannot be written


@pytest.mark.parametrize("place", ["file/study", "/proc/dglzarr/study"])
@pytest.mark.parametrize("verb", ["ingest", "mine"])
def test_root__unwritable(study, place, verb):
    (study.folder / "file").write_text("")
    study.root = study.folder / place
    run = study.run(verb)
    assert run.status == 1
    assert re.search(r"study: cannot be written: .*Choose a writable root", run.complaint)


AS_ROOT = ["/usr/bin/env", *(() if os.geteuid() == 0 else ("sudo", "-n"))]


@contextlib.contextmanager
def disk(place, options):
    place.mkdir()
    options = f"{options},uid={os.geteuid()},mode=700"
    made = subprocess.run(
        [*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "umount", str(place)], check=True)


def resize(place, kib):
    subprocess.run([*AS_ROOT, "mount", "-o", f"remount,size={kib}k", str(place)], check=True)


def test_root__read_only(study):
    with disk(study.folder / "disk", "ro"):
        study.root = study.folder / "disk" / "study"
        study.expect(1, r"disk/study: cannot be written: .*Read-only.*Choose a writable root")


def large(study):
    """Let the study fill some hundred KiB, in several regions."""
    values = np.random.default_rng(1).uniform(4, 14, (64, 400)).astype(np.float32)
    names = [f"{i:03d}_at" for i in range(400)]
    for name, rows in (("GSE1", slice(0, 32)), ("GSE2", slice(32, 64))):
        study.write(name, values[rows], names)
    study.settings["ingest.shard_samples"] = 16


def stores(root):
    """Digests of the stores and of the weights."""
    found = digests(root)
    return {n: d for n, d in found.items() if ".zarr/" in n or n.endswith("weights.npz")}


NO_SPACE = r"disk/study.*No space left|No space left.*disk/study"


@pytest.mark.parametrize("kib", [4, 60, 140, 200, 260])
def test_disk_full(study, kib):
    large(study)
    place = study.folder / "disk"
    with disk(place, f"size={kib}k"):
        study.root = place / "study"
        study.expect(1, NO_SPACE)
        resize(place, 16384)
        assert study.run().status == 0
        assert study.complete == ["segments/0000/expression.zarr"]


WRITES = {
    "ingest": "raw|expression",
    "normalize": "normalized",
    "dedup": "samples",
    "train": "models",
    "encode": "latent|reconstruction",
    "score": "contributions|scores",
    "select": "landmarks",
    "evaluate": "evaluation",
    "report": "report|landmarks|panels",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_disk_full__in_every_stage(study):
    """Each stage finds 16 KiB; the disk grows a little whenever it is full, until it is through."""
    large(study)
    study.settings |= {"train.hidden": 24, "train.n_latent": 4, "train.epochs": 3}
    place = study.folder / "disk"
    with disk(place, "size=16k"):
        study.root = place / "study"
        for verb, names in WRITES.items():
            complaints = []
            resize(place, shutil.disk_usage(place).used // 1024 + 16)
            while (run := study.run(verb)).status:
                assert run.status == 1, run.err
                assert re.search(NO_SPACE, run.complaint), run.complaint
                complaints.append(run.complaint)
                resize(place, shutil.disk_usage(place).total // 1024 + 1024)
            assert complaints, f"{verb} fits into 16 KiB"
            assert re.search(rf"disk/study/.*({names})", "\n".join(complaints)), complaints
        assert len(study.complete) == 9
        found = stores(study.root)
    study.root = study.folder / "undisturbed"
    assert study.run("mine").status == 0
    assert found == stores(study.root)


# ---------------------------------------------------------------- with workers, from outside


@pytest.mark.slow
def test_workers_add_nothing_to_the_line(study):
    word_among_numbers(study)
    study.settings["cluster.kind"] = "local"
    environment = {**os.environ, "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", "from dglzarr.cli import main; main()", "ingest", study.toml()],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    run = Run(done.returncode, done.stdout, done.stderr)
    assert run.status == 1
    assert re.search(r"GSE1_series_matrix\.txt, line \d+: .*'high'", run.complaint)
    assert study.complete == []
