"""Write study-VERSION.tar.xz: a tiny study by one version of dglzarr, and what it reads from it.

Run it with that version and no other: later versions open or migrate what it made. The archive
holds a folder ``study``: ``settings.toml``, the files of ``data/`` and the study ``mined/``, which
was mined from four series, cross-validated, compared with replicates, and then grown by a fifth.
``study-VERSION.json`` holds values of it, read through ``dglzarr.open`` and ``dglzarr.query``.

The study is made in ``/study``, which is removed again, so that no store names a folder of the
machine it was made on. Values are the same whenever this is run; the identities of stores, their
dates and the seconds that stages took are not. Left out of the archive: the report, which ``mine``
writes anew, and the folds and replicates, which are studies and stores like the others.
"""

import json
import lzma
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import dglzarr
from dglzarr.query import table
from dglzarr.testing import simulate_expression, write_annotation, write_gct, write_series_matrix

VERSION = "0.2.0"
FOLDER = Path("/study")
STUDY = FOLDER / "mined"
TARGET = Path(__file__).with_name(f"study-{VERSION}.tar.xz")
LEFT_OUT = (
    "report.html", "report_data", "figures", "landmarks.tsv", "overlaps.tsv", "panels.tsv",
    "sorted_genes.csv", "folds", "stability", "seed-7", "study.lock",
)  # fmt: skip
STORES = (
    "expression", "normalized", "samples", "latent", "contributions", "reconstruction", "scores",
    "landmarks", "evaluation", "groups", "enrichment", "comparison", "stability",
)  # fmt: skip
SETTINGS = """\
title = "A tiny study"
root = "mined"
seed = 6

[[sources]]
uri = "data/GSE*_series_matrix.txt"
[[sources]]
uri = "data/cohort.gct"
role = "cohort"

[ingest]
annotation = "data/annotation.txt"
shard_samples = 16
test_fraction = 0.25
validation_fraction = 0.25

[dedup]
n_clusters = 2

[train]
epochs = 2
batch_size = 8
hidden = 4
n_latent = 2

[score]
group_by = "tissue"

[select]
n_landmarks = 5
selectors = ["top-score"]
n_random = 1

[evaluate]
panels = { published = "data/published.txt" }

[group]
label = "tissue"

[enrich]
gene_sets = "data/sets.gmt"
min_size = 2

[cluster]
kind = "none"
"""


def write_sources() -> Path:
    """Write settings and sources below FOLDER; return the series that is to come later."""
    n_samples, n_genes, n_series = 25, 24, 5
    simulated = simulate_expression(
        n_samples, n_genes, n_hubs=4, n_programs=2, n_series=n_series, n_duplicates=3,
        missing_fraction=0.01,
    )  # fmt: skip
    series, data = np.array(simulated.series), FOLDER / "data"
    values = simulated.expression.round(2)
    for accession in sorted(set(simulated.series)):
        rows = np.flatnonzero(series == accession)
        path = write_series_matrix(
            data / f"{accession}_series_matrix.txt",
            values[rows],
            samples=[simulated.samples[i] for i in rows],
            genes=simulated.genes,
            series=accession,
            platform="GPL96",
            tissue=[simulated.tissue[i] for i in rows],
        )
    counts = np.random.default_rng(1).poisson(np.exp2(np.nan_to_num(values[:6], nan=8.0) - 2))
    write_gct(
        data / "cohort.gct",
        counts.astype(float),
        samples=[f"C{i}" for i in range(len(counts))],
        genes=simulated.genes,
    )
    write_annotation(data / "annotation.txt", simulated.genes, simulated.gene_symbol)
    symbols = [symbol for symbol in simulated.gene_symbol if symbol]
    (data / "published.txt").write_text("\n".join(symbols[::6]) + "\n", encoding="utf-8")
    sets = [["SET1", "even", *symbols[::2]], ["SET2", "of three", *symbols[1::3]]]
    text = "".join("\t".join(line) + "\n" for line in sets)
    (data / "sets.gmt").write_text(text, encoding="utf-8")
    (FOLDER / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    return path


def run(command: str, *options: str) -> None:
    """Run a command of dglzarr on the settings."""
    program = Path(sys.executable).with_name("dglzarr")
    subprocess.run([program, command, FOLDER / "settings.toml", *options], check=True)


def make_study() -> None:
    """Mine and compare the study, then let it grow by its last series."""
    later = write_sources()
    aside = shutil.move(later, FOLDER / later.name)
    run("mine")
    run("compare", "--sizes", "3,6", "--folds", "2")
    run("stability", "--seeds", "2", "--halves", "1")
    shutil.move(aside, later)
    run("grow")


def read_values() -> dict[str, dict[str, object]]:
    """Return what later versions must read as well."""
    opened = {name: dglzarr.open(f"{STUDY}#{name}") for name in STORES}
    chosen = {name: table(f"{STUDY}#{name}", top=3).iloc[:3] for name in STORES}
    del chosen["latent"]  # of no genes
    chosen["samples"] = table(
        f"{STUDY}#samples", samples=opened["samples"]["sample"].values[-5:].tolist()
    )
    landmarks = opened["landmarks"].sortby("rank")
    panels = zip(landmarks["panel"].values, landmarks["panel_gene"].values, strict=True)
    error = opened["evaluation"]["mean_mae"].squeeze("predictor").to_pandas()
    return {
        "study": {
            "segments": json.loads((STUDY / "study.json").read_text(encoding="utf-8"))["segments"],
            "ranked": landmarks["gene"].values.tolist(),
        },
        "sizes": {name: dict(ds.sizes) for name, ds in opened.items()},
        "missing": {
            name: int(opened[name][array].isnull().sum())
            for name, array in [
                ("expression", "expression"),
                ("normalized", "expression"),
                ("contributions", "contribution"),
            ]
        },
        "latent": {
            str(sample): values.astype(float).tolist()
            for sample, values in zip(
                opened["latent"]["sample"].values, opened["latent"]["latent"].values, strict=True
            )
        },
        "panels": {str(name): [str(g) for g in genes if g] for name, genes in panels},
        "errors": {str(panel): dict(row) for panel, row in error.iterrows()},
        "tables": {
            name: json.loads(frame[sorted(frame)].to_json(orient="split", double_precision=15))
            for name, frame in chosen.items()
        },
    }


def write_values(values: dict[str, dict[str, object]]) -> None:
    """Write them as JSON, a value a line."""
    parts = []
    for key, found in values.items():
        lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
        parts.append(f"{json.dumps(key)}: {{\n{lines}\n}}")
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    TARGET.with_name(f"study-{VERSION}.json").write_text(text, encoding="utf-8")


def pack() -> None:
    """Write the archive: files alone, like ones together, of nobody and of no time."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    small = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}
    with (
        lzma.open(TARGET, "w", filters=[small]) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(files, key=lambda path: (path.name, path)):
            name = path.relative_to(FOLDER.parent)
            if set(name.parts) & set(LEFT_OUT):
                continue
            entry = archive.gettarinfo(path, str(name))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            with path.open("rb") as file:
                archive.addfile(entry, file)


def main() -> None:
    """Make the study, read it, pack it, remove it."""
    if version("dglzarr") != VERSION:
        sys.exit(f"dglzarr: expected version {VERSION}, got {version('dglzarr')}.")
    FOLDER.mkdir()
    try:
        make_study()
        write_values(read_values())
        pack()
    finally:
        shutil.rmtree(FOLDER)


if __name__ == "__main__":
    main()
