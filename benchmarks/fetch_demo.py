"""Mine a study from accessions alone, fetched from a server of this machine that misbehaves.

    python benchmarks/fetch_demo.py --root fetched --data ../shared/data

Twelve simulated series stand under their real paths beside twelve that cannot be had; one cohort
is GTEx's, one is RNA-seq with NCBI's counts, one is a series of an ARCHS4-shaped file, read by
ranges. What went wrong, and what was told, is printed as a table; then the study is mined without
those that were refused, the server gone. With --data the real GSE55235 and GSE4107 and the tables
of their two platforms are served under their real paths, and three sets of RNA-seq beside them: all
five are fetched and mined in one space of genes, donors of the RNA-seq held out, and the panel is
judged on these and on two studies that it never saw. Exit status 1 when anything is told or mined
otherwise than it should be.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from mirror import Fault, Mirror, series_folder, serving

from dglzarr.sources import read_source
from dglzarr.sources.identifiers import read_annotation_table
from dglzarr.studies.fetch import Outcome
from dglzarr.testing import write_series_matrix, write_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PROGRAM = Path(sys.executable).with_name("dglzarr")
N_SERIES = 12
PASSING: tuple[tuple[str, list[Fault]], ...] = (
    ("the connection breaks off twice", ["short", "short", ""]),
    ("429, and to wait a second", ["busy", ""]),
    ("500, then fine", ["broken", ""]),
    ("cut off, served as if whole", ["cut", ""]),
    ("a web page, then fine", ["html", ""]),
    ("changed between two ranges", ["short", "changed", ""]),
    ("knows no ranges", ["short", "no-range"]),
    ("no answer for seconds, then fine", ["hang", ""]),
)
STAYING: tuple[tuple[str, Fault], ...] = (
    ("always cut off", "cut"), ("always a web page", "html"), ("always 500", "broken"),
    ("sends to another host", "elsewhere"), ("a byte at a time", "slow"),
)  # fmt: skip
RNA_SEQ = "GSE990000"
COUNTS = f"{RNA_SEQ}_raw_counts_GRCh38.p13_NCBI.tsv.gz"
ARCHS4 = "archs4/human_gene_v2.5.h5"
ARCHS4_FAULTS: tuple[str, list[Fault]] = ("a range is cut short", ["", "short", ""])
FAST = """
[fetch]
requests_per_second = 10.0
first_wait = 0.2
time_out = 2.0
attempts = 3
"""


def path_of(accession: str) -> str:
    """Return where the matrix of a series is, below what is served."""
    return f"{series_folder(accession)}/{accession}_series_matrix.txt.gz"


def place_series(served: Path, drafts: Path) -> list[str]:
    """Move simulated series to their real paths; return their accessions."""
    names = []
    for file in sorted((drafts / "data").glob("*_series_matrix.txt.gz"))[:N_SERIES]:
        accession = file.name.partition("_")[0]
        target = served / path_of(accession)
        target.parent.mkdir(parents=True)
        file.rename(target)
        names.append(accession)
    return names


def place_cohorts(served: Path, drafts: Path) -> None:
    """Serve the simulated counts as GTEx v10, some as NCBI's of a series and in an ARCHS4 file."""
    file = next((drafts / "data").glob("GTEx_*.gct.gz"))
    cohort = read_source(file)
    n = len(cohort.samples) // 2
    gtex = served / "adult-gtex"
    target = gtex / "bulk-gex/v10/rna-seq/GTEx_Analysis_v10_RNASeQCv2.4.2_gene_reads.gct.gz"
    target.parent.mkdir(parents=True)
    shutil.copy(file, target)
    sheet = gtex / "annotations/v10/metadata-files"
    sheet.mkdir(parents=True)
    rows = ["SAMPID\tSMTS", *(f"{sample}\tSimulated" for sample in cohort.samples)]
    (sheet / "GTEx_Analysis_v10_Annotations_SampleAttributesDS.txt").write_text("\n".join(rows))
    samples = [f"GSM99{place:05d}" for place in range(n)]
    series = served / path_of(RNA_SEQ)
    write_series_matrix(
        series, cohort.read(0, n)[:, :1], samples=samples, genes=["x"], series=RNA_SEQ,
        platform="GPL24676",
    )  # fmt: skip
    text = gzip.decompress(series.read_bytes()).decode().splitlines()
    series.write_bytes(gzip.compress("\n".join(x for x in text if x[:3] != '"x"').encode()))
    place = served / "counts" / RNA_SEQ
    place.mkdir(parents=True)
    values = cohort.read(0, n).T.astype(int).tolist()
    lines = ["\t".join(["GeneID", *samples])]
    lines += ["\t".join(map(str, [1000 + i, *row])) for i, row in enumerate(values)]
    (place / COUNTS).write_bytes(gzip.compress("\n".join(lines).encode()))
    names = ["GeneID\tSymbol\tDescription"]
    symbols = cohort.gene_symbol or cohort.genes
    names += [f"{1000 + i}\t{symbol}\tsimulated" for i, symbol in enumerate(symbols)]
    place_archs4(served / ARCHS4, cohort.read(n, 2 * n), symbols)
    (place / "Human.GRCh38.p13.annot.tsv.gz").write_bytes(gzip.compress("\n".join(names).encode()))


def place_archs4(path: Path, counts: NDArray[np.float32], symbols: Sequence[str]) -> None:
    """Serve a file in ARCHS4's layout, a chunk a sample: series GSE1000 holds these counts."""
    n, n_all = len(counts), 8000
    place = slice(n_all // 2, n_all // 2 + n)
    values = np.random.default_rng(0).integers(0, 1 << 24, (len(symbols), n_all), dtype=np.uint32)
    values[:, place] = counts.T
    series = np.array([f"GSE{2000 + i // 20}" for i in range(n_all)], "S8")
    series[place] = b"GSE1000"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data/expression", data=values, chunks=(len(symbols), 1), compression="gzip"
        )
        file["meta/samples/geo_accession"] = np.array([f"GSM{i + 1}" for i in range(n_all)], "S9")
        file["meta/samples/series_id"] = series
        file["meta/genes/symbol"] = np.array(symbols, "S")


def place_refused(served: Path, like: str) -> dict[str, str]:
    """Serve series that cannot be had; return what is wrong with each."""
    whole = gzip.decompress((served / path_of(like)).read_bytes()).decode()

    def place(accession: str, text: str, name: str = "") -> None:
        target = served / series_folder(accession) / (name or Path(path_of(accession)).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(text.replace(like, accession).encode()))

    wrong = {"GSE980000": "withdrawn: 404"}
    (served / series_folder("GSE980001")).mkdir(parents=True)
    wrong["GSE980001"] = "private: an empty folder"
    place("GSE980002", f'!Series_relation\t"SuperSeries of: GSE1"\n{whole}')
    wrong["GSE980002"] = "a superseries"
    for platform in ("GPL96", "GPL97"):
        place("GSE980003", whole, f"GSE980003-{platform}_series_matrix.txt.gz")
    wrong["GSE980003"] = "two platforms"
    place("GSE980004", whole.replace("Homo sapiens", "Mus musculus"))
    wrong["GSE980004"] = "another species"
    place("GSE980005", "\0" * (1 << 27))
    wrong["GSE980005"] = "a gzip bomb"
    place("GSE980006", whole.replace(like, "GSE1"))
    wrong["GSE980006"] = "another series' file"
    for number, (what, _) in enumerate(STAYING, start=7):
        place(f"GSE98{number:04d}", whole)
        wrong[f"GSE98{number:04d}"] = what
    return wrong


def run(mirror: Mirror, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run dglzarr against the server, with a cache below the root."""
    environment = {**os.environ, **mirror.environment(), "DGLZARR_CACHE": str(root / "cache")}
    print(f"$ dglzarr {' '.join(words)}", flush=True)
    return subprocess.run(
        [PROGRAM, *words], cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )


def show(outcomes: list[Outcome], wrong: dict[str, str]) -> int:
    """Print what was wrong with each source and what was told; return how many differ from it."""
    rows = [("source", "what is wrong", "state", "what was told")]
    rows += [(o.name, wrong.get(o.name, ""), o.state, o.told.partition(": ")[2]) for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print(
            "  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        )
    return sum(outcome.is_wrong != outcome.name.startswith("GSE98") for outcome in outcomes)


def simulated(root: Path, served: Path) -> int:
    """Fetch and mine simulated series; return how much is otherwise than it should be."""
    with tempfile.TemporaryDirectory() as scratch:
        drafts = Path(scratch)
        write_study(drafts, n_samples=600, n_genes=400)
        names = place_series(served, drafts)
        place_cohorts(served, drafts)
        shutil.copy(drafts / "data" / "annotation.txt", root)
    wrong = place_refused(served, names[0])
    faults = {
        f"/{path_of(name)}": list(those) for name, (_, those) in zip(names, PASSING, strict=False)
    }
    wrong |= {name: what for name, (what, _) in zip(names, PASSING, strict=False)}
    faults |= {
        f"/{path_of(f'GSE98{number:04d}')}": [fault] for number, (_, fault) in enumerate(STAYING, 7)
    }
    refused = [name for name in wrong if name.startswith("GSE98")]
    wrong_of_archs4, faults[f"/{ARCHS4}"] = ARCHS4_FAULTS
    with serving(served, faults) as mirror:
        wrong[f"{mirror.address}/{ARCHS4}"] = wrong_of_archs4
        (root / "study.toml").write_text(settings_text(mirror.address, [*names, *refused]))
        done = run(mirror, root, "fetch", "study.toml", "--json")
        n_wrong = show([Outcome(**one) for one in json.loads(done.stdout)], wrong)
        n_wrong += done.returncode != 1
        (root / "study.toml").write_text(settings_text(mirror.address, names))
        n_wrong += run(mirror, root, "fetch", "study.toml").returncode
    done = run(mirror, root, "mine", "study.toml")  # the server is gone
    print(done.stdout)
    return n_wrong + done.returncode


def settings_text(address: str, accessions: list[str]) -> str:
    """Return settings of accessions, and of GTEx, RNA-seq and ARCHS4 as cohorts."""
    return f"""\
root = "study"
[[sources]]
geo = {json.dumps(accessions)}
[[sources]]
gtex = "v10"
gtex_values = "reads"
role = "cohort"
[[sources]]
geo = "{RNA_SEQ}"
role = "cohort"
[[sources]]
uri = "{address}/{ARCHS4}"
unit = "counts"
by_ranges = true
only_series = ["GSE1000"]
role = "cohort"
[ingest]
annotation = "annotation.txt"
test_fraction = 0.3
[dedup]
n_clusters = 10
[train]
epochs = 40
hidden = 64
n_latent = 16
batch_size = 64
[select]
n_landmarks = 12
{FAST}"""


ARRAYS = ("GSE55235", "GSE4107")
"""Real series of arrays, of two platforms."""

PLATFORMS = {"GPL96": "GPL96.txt", "GPL570": "GPL570_bioc.tsv"}
"""Tables that name their probes."""

RNA_SEQ_SETS = {
    "LCL_pickrell": "counts", "GTEx_ERSSA_heart_muscle": "counts", "TCGA_CHOL_rnaseqv2": "intensity"
}  # fmt: skip
"""Real RNA-seq of lymphoblastoid lines, heart and muscle, and bile duct, and their units."""

COHORTS = {"more/rnaseq/TCGA_STAD_rnaseqv2": "intensity", "tables/GSE3585_expr": "log2"}
"""Real studies of stomach (RNA-seq) and heart (arrays) that are judged on alone."""


def place_table(served: Path, platform: str, table: Path) -> None:
    """Serve a table of probes as GEO has it."""
    target = served / f"geo/platforms/GPLnnn/{platform}/annot/{platform}.annot.gz"
    target.parent.mkdir(parents=True)
    lines = ["^Annotation", f"!Annotation_platform = {platform}", "#ID = of the platform's table"]
    lines += ["!platform_table_begin", "ID\tGene title\tGene symbol"]
    symbols = read_annotation_table(table).symbol
    lines += [f"{probe}\t\t{symbol}" for probe, symbol in symbols.items()]
    target.write_bytes(gzip.compress("\n".join([*lines, "!platform_table_end", ""]).encode()))


def real(root: Path, served: Path, data: Path) -> int:
    """Mine two real array series and three sets of RNA-seq together; return 0 for a panel."""
    for accession in ARRAYS:
        target = served / path_of(accession)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / "geo" / target.name, target)
    for platform, table in PLATFORMS.items():
        place_table(served, platform, data / "annotation" / table)
    (served / "files").mkdir()
    for name in RNA_SEQ_SETS:
        shutil.copy(data / "more" / "rnaseq" / f"{name}.tsv.gz", served / "files")
    with serving(served) as mirror:
        (root / "real.toml").write_text(real_settings(mirror.address, data))
        done = run(mirror, root, "fetch", "real.toml")
        print(done.stdout)
        n_wrong = done.returncode
    done = run(mirror, root, "mine", "real.toml")  # the server is gone
    print(done.stdout)
    n_wrong += done.returncode
    done = run(mirror, root, "query", "real#landmarks", "--top", "10")
    print(done.stdout)
    return n_wrong + done.returncode


def real_settings(address: str, data: Path) -> str:
    """Return settings that join real arrays and RNA-seq by symbol."""
    data = data.resolve()
    genes = data / "gtex" / "GTEx_yarn_skin_genes.tsv.gz"
    sources: list[dict[str, object]] = [{"geo": ARRAYS, "platform_table": True}]
    sources += [
        {
            "uri": f"{address}/files/{name}.tsv.gz",
            "unit": unit,
            "sample_sheet": str(data / "more" / "rnaseq" / f"{name}_samples.tsv"),
            "annotation": str(genes),
        }
        for name, unit in RNA_SEQ_SETS.items()
    ]
    for name, unit in COHORTS.items():
        file = data / f"{name}.tsv.gz"
        sheet = file.with_name(file.name.replace("_expr", "").replace(".tsv.gz", "_samples.tsv"))
        table = str(data / "annotation" / "GPL96.txt") if unit == "log2" else str(genes)
        sources.append(
            {
                "uri": str(file),
                "unit": unit,
                "sample_sheet": str(sheet),
                "annotation": table,
                "role": "cohort",
            }
        )
    entries = "".join(
        "[[sources]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in one.items())
        for one in sources
    )
    return f"""\
root = "real"
{entries}
[ingest]
feature_kind = "gene"
split_by = "donor"
test_fraction = 0.3
[dedup]
n_clusters = 10
[train]
epochs = 10
hidden = 256
n_latent = 32
[select]
n_landmarks = 100
n_random = 5
{FAST}"""


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of settings and results")
    parser.add_argument("--data", type=Path, help="folder with geo/*_series_matrix.txt.gz")
    asked = parser.parse_args()
    root, data = asked.root.resolve(), asked.data
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        n_wrong = simulated(root, Path(folder))
    if data is not None and (data / "geo").is_dir():
        with tempfile.TemporaryDirectory() as folder:
            n_wrong += real(root, Path(folder), data)
    print(f"Otherwise than it should be: {n_wrong}.")
    sys.exit(min(n_wrong, 1))


if __name__ == "__main__":
    main()
