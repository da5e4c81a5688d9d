"""Open every export in the tool of its owner, and compare all values and labels: `make owners`.

    python tests/owners.py                      # all tools, in new environments
    python tests/owners.py --only cmapPy R      # some
    python tests/owners.py --keep FOLDER        # environments stay there, for the next time

Each tool has an environment of its own (pip or npm), or is on the machine (R); what is not there is
said. Exported are a study with hostile names and missing values, and one with all that a study
knows; each tool writes what it read as plain numbers and lines, which are compared with the stores.
Prints a table; exit status 1 when a tool reads anything else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.export import export_study
from dglzarr.export.selected import select
from dglzarr.storage.schemas import NORMALIZED

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

from tests.builders import write_manifest, write_matrix  # noqa: E402  (the path)
from tests.example import write_example  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOLD = """
import sys, numpy as np
from pathlib import Path
source, folder = sys.argv[1], Path(sys.argv[2])
def is_missing(v):
    return v is None or v != v or str(v) in ("nan", "NaN", "<NA>")
def lines(name, values):
    texts = ("" if is_missing(v) else str(v) for v in values)
    made = "\\n".join(t.replace("\\n", "\\\\n") for t in texts) + "\\n"
    (folder / name).write_text(made, encoding="utf-8")
def tell(values, frames, version):
    np.ascontiguousarray(values, dtype="<f8").tofile(folder / "values")
    (folder / "version").write_text(version)
    for kind, (labels, columns) in frames.items():
        lines(kind, labels)
        for i, (name, cells) in enumerate(columns):
            lines(f"{kind}-{i}", [name, *cells])
"""
"""What a tool read, written by Python: values by samples, and a file a column."""

SCANPY = """
import scanpy, warnings
study = scanpy.read_h5ad(source)
def columns(frame):
    return [(name, frame[name].astype(object).tolist()) for name in frame]
tell(study.X, {"sample": (study.obs_names, columns(study.obs)),
               "gene": (study.var_names, columns(study.var))}, scanpy.__version__)
if "X_latent" in study.obsm:
    scanpy.pp.neighbors(study, use_rep="X_latent")
    scanpy.tl.umap(study)
    assert study.obsm["X_umap"].shape == (study.n_obs, 2)
"""
CMAPPY = """
from importlib.metadata import version
from cmapPy.pandasGEXpress.parse import parse
study = parse(source)
def columns(frame):
    return [(name, frame[name].astype(object).tolist()) for name in frame]
tell(study.data_df.T.to_numpy(),
     {"sample": (study.data_df.columns, columns(study.col_metadata_df.loc[study.data_df.columns])),
      "gene": (study.data_df.index, columns(study.row_metadata_df.loc[study.data_df.index]))},
     version("cmapPy"))
"""
POLARS = """
import polars
study = polars.read_parquet(source)
genes = [line.rstrip("\\n") for line in open(sys.argv[3], encoding="utf-8")]
known = [name for name in study.columns if name not in set(genes)]
assert study.columns == known + genes
tell(study.select(genes).to_numpy(),
     {"sample": (study[known[0]], [(n, study[n].to_list()) for n in known[1:]]),
      "gene": (genes, [])}, polars.__version__)
"""
R_TOLD = """
words <- commandArgs(trailingOnly = TRUE)
source <- words[1]; folder <- words[2]
lines <- function(name, values) {
  texts <- ifelse(is.na(values), "", as.character(values))
  file <- file(file.path(folder, name), open = "wb")
  writeLines(enc2utf8(texts), file, useBytes = TRUE)
  close(file)
}
tell <- function(values, samples, genes, of_samples, of_genes) {
  file <- file(file.path(folder, "values"), open = "wb")
  writeBin(as.double(t(values)), file, endian = "little")  # R holds columns
  close(file)
  lines("version", paste(R.version$major, R.version$minor, sep = "."))
  lines("sample", samples); lines("gene", genes)
  for (i in seq_along(of_samples))
    lines(sprintf("sample-%d", i - 1), c(names(of_samples)[i], as.character(of_samples[[i]])))
  for (i in seq_along(of_genes))
    lines(sprintf("gene-%d", i - 1), c(names(of_genes)[i], as.character(of_genes[[i]])))
}
"""
R_TSV = """
study <- read.delim(source, check.names = FALSE, encoding = "UTF-8")
genes <- readLines(words[3], encoding = "UTF-8")
stopifnot(all(genes %in% names(study)))
known <- study[, !(names(study) %in% genes), drop = FALSE]
tell(as.matrix(study[, genes]), known[[1]], genes, known[, -1, drop = FALSE], list())
"""
R_GCT = """
# The rules of the format, by another hand: https://clue.io/connectopedia/gct_format
text <- readLines(source, encoding = "UTF-8")
stopifnot(text[1] == "#1.3")
n <- as.integer(strsplit(text[2], "\\t", fixed = TRUE)[[1]])
stopifnot(length(n) == 4, length(text) == 3 + n[4] + n[1])
text <- paste0(text[-(1:2)], "\\t.")  # or what is empty at the end would be dropped
cells <- strsplit(text, "\\t", fixed = TRUE)
stopifnot(lengths(cells) == 1 + n[3] + n[2] + 1, unlist(cells) != "")
cells <- do.call(rbind, cells)[, seq_len(1 + n[3] + n[2]), drop = FALSE]
stopifnot(cells[1, 1] == "id", !anyDuplicated(cells[1, ]), !anyDuplicated(cells[, 1]))
at_samples <- 1 + n[3] + seq_len(n[2]); at_genes <- 1 + n[4] + seq_len(n[1])
part <- function(rows, columns) {
  found <- cells[rows, columns, drop = FALSE]
  found[found == "NA"] <- NA
  found
}
of_samples <- setNames(asplit(part(1 + seq_len(n[4]), at_samples), 1), cells[1 + seq_len(n[4]), 1])
of_genes <- setNames(asplit(part(at_genes, 1 + seq_len(n[3])), 2), cells[1, 1 + seq_len(n[3])])
values <- cells[at_genes, at_samples, drop = FALSE]
stopifnot(!any(is.na(suppressWarnings(as.double(values))) & values != "NaN"))
values <- matrix(as.double(values), nrow = n[1])
tell(t(values), cells[1, at_samples], cells[at_genes, 1], of_samples, of_genes)
"""
ZARRITA = """
import { readFileSync, writeFileSync } from "node:fs";
import * as zarr from "zarrita";
import { FileSystemStore } from "@zarrita/storage";
const [source, folder] = process.argv.slice(2);
const { metadata } = JSON.parse(readFileSync(`${source}/zarr.json`)).consolidated_metadata;
const root = zarr.root(new FileSystemStore(source));
const read = async name => zarr.get(await zarr.open(root.resolve(name), { kind: "array" }));
const text = v => v === null || Number.isNaN(v) ? "" :
  v === true ? "True" : v === false ? "False" : String(v).replaceAll("\\n", "\\\\n");
const lines = (name, cells) =>
  writeFileSync(`${folder}/${name}`, [...cells].map(text).join("\\n") + "\\n");
const { data, shape: [n, m] } = await read("expression");
const isByGene = metadata.expression.dimension_names[0] === "gene";
const values = Float64Array.from({ length: n * m },
  (_, i) => isByGene ? data[(i % n) * m + Math.floor(i / n)] : data[i]);
writeFileSync(`${folder}/values`, values);
const { version } = JSON.parse(readFileSync("node_modules/zarrita/package.json"));
writeFileSync(`${folder}/version`, version);
for (const dim of ["sample", "gene"]) {
  lines(dim, (await read(dim)).data);
  const names = Object.keys(metadata).filter(
    name => name !== dim && metadata[name].dimension_names.join() === dim);
  for (const [i, name] of names.entries()) lines(`${dim}-${i}`, [name, ...(await read(name)).data]);
}
"""


@dataclass(frozen=True)
class Tool:
    """A program that opens exports: how it is installed, and what it runs on which of them."""

    name: str
    kind: str
    needs: tuple[str, ...]
    opens: tuple[str, ...]
    code: str
    is_text: bool = False
    knows_genes: bool = True


TOOLS = (
    Tool("scanpy", "pip", ("scanpy",), ("h5ad",), TOLD + SCANPY),
    Tool("cmapPy", "pip", ("cmapPy", "pandas<3", "numpy<2"), ("gct",), TOLD + CMAPPY, is_text=True),
    Tool("R (rules of GCT)", "R", (), ("gct",), R_TOLD + R_GCT, is_text=True),
    Tool("R (read.delim)", "R", (), ("tsv",), R_TOLD + R_TSV, True, False),
    Tool("polars", "pip", ("polars", "numpy"), ("parquet",), TOLD + POLARS, knows_genes=False),
    Tool("zarrita", "npm", ("zarrita", "@zarrita/storage"), ("zarr", "by-gene.zarr"), ZARRITA),
)
FAULTS = (
    AssertionError, RuntimeError, subprocess.CalledProcessError, StopIteration, ValueError, OSError,
)  # fmt: skip
"""What a tool that cannot be installed, or reads or writes anything else, ends with."""
_ENDS = {"pip": ".py", "R": ".R", "npm": ".mjs"}


class AbsentError(Exception):
    """A tool cannot be had here; its text says why."""


# ---------------------------------------------------------------- what is exported


def write_hostile(root: Path) -> str:
    """Return the root of a study with missing values, and names that files of text dislike."""
    rng = np.random.default_rng(3)
    values = rng.normal(8, 3, (300, 7)).astype(np.float32)
    values[5, 2] = values[299, 6] = np.nan
    values[0, :3] = 1e-12, -12345.678, 0
    tissues = [
        'a "b"\tc',
        "",
        "<script>",
        "x\ny",
        "it's",
        "#7",
        "=1+1",
        "Ä 東京",
        "long " * 30,
        "0",
    ]
    cells = [[tissues[i % 10], str(i), "1.50"] for i in range(len(values))]
    write_manifest(root, ["0000"])
    write_matrix(
        root / "segments" / "0000" / "normalized.zarr", NORMALIZED, values, shard=256,
        genes=["g,1", "g 2", "1g", "#g", "ü", "g/6", "'7'"], tissues=cells,
        called=["tissue", "donor's no.", "dose (µM)"],
    )  # fmt: skip
    return str(root)


def write_exports(folder: Path) -> dict[str, str]:
    """Return the roots of two studies below a folder, by name, exported in every format."""
    studies = {"example": write_example(folder), "hostile": write_hostile(folder / "hostile")}
    for name, root in studies.items():
        for form in ("h5ad", "gct", "tsv", "parquet", "zarr"):
            export_study(root, folder / f"{name}.{form}", form)
        export_study(root, folder / f"{name}.by-gene.zarr", "zarr", by_gene=True)
    return studies


# ---------------------------------------------------------------- where tools are


def ready(tool: Tool, folder: Path) -> tuple[list[str], Path]:
    """Return what runs a file for a tool, and where such a file must be; made where it is absent.

    Raises
    ------
    AbsentError
        When the machine lacks what the tool runs in.
    """
    place = folder / tool.name.partition(" ")[0]
    place.mkdir(parents=True, exist_ok=True)
    mark = place / ".ready"  # what was installed in part is installed anew
    if tool.kind == "R":
        return [_there("Rscript", "r-base-core"), "--vanilla"], place
    if tool.kind == "npm":
        node, npm = _there("node", "nodejs"), _there("npm", "npm")
        if not mark.exists():
            _call([npm, "install", "--silent", "--prefix", str(place), *tool.needs], place)
            mark.touch()
        return [node], place
    python = place / "bin" / "python"
    if not mark.exists():
        venv.create(place, with_pip=True, clear=True)
        _call([str(python), "-m", "pip", "install", "--quiet", *tool.needs], place)
        mark.touch()
    return [str(python), "-W", "ignore"], place


def _there(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise AbsentError(f"{program} is not installed (apt: {package})")
    return found


def _call(words: Sequence[str], cwd: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": ""}
    done = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()[-4:]
        raise RuntimeError(f"{Path(words[0]).name}: {' | '.join(said)}")


# ---------------------------------------------------------------- what they read


def read(tool: Tool, export: Path, environments: Path, genes: Sequence[str]) -> Path:
    """Return the folder with what a tool read of an export."""
    words, place = ready(tool, environments)
    code = place / f"open{_ENDS[tool.kind]}"
    code.write_text(tool.code, encoding="utf-8")
    seen = export.with_name(f"{tool.name}-{export.name}")
    seen.mkdir()
    listed = seen / "genes"
    listed.write_text("".join(f"{gene}\n" for gene in genes), encoding="utf-8")
    _call([*words, str(code), str(export), str(seen), str(listed)], place)
    return seen


def compare(tool: Tool, root: str, export: Path, environments: Path) -> tuple[str, str]:
    """Return the version of a tool, and what is the same in an export as in its study.

    Raises
    ------
    AssertionError
        When something is not.
    """
    chosen = select(root)
    genes = [told(gene, tool.is_text) for gene in chosen.genes["gene"]]
    seen = read(tool, export, environments, genes)
    values = np.fromfile(seen / "values", "<f8").reshape(chosen.shape)
    truth = np.concatenate([np.array(block) for _, block in chosen.blocks()])
    np.testing.assert_allclose(values, truth, rtol=1e-6 if tool.is_text else 0, atol=0)
    n_columns = 0
    for kind, frame in {"sample": chosen.samples, "gene": chosen.genes}.items():
        assert _lines(seen / kind) == [told(v, tool.is_text) for v in frame[kind]], kind
        if kind == "gene" and not tool.knows_genes:
            continue
        found = dict(_columns(seen, kind))
        assert len(found) == frame.shape[1] - 1, (kind, list(found))
        for name, cells in found.items():
            column = next(c for c in frame.columns if _called(c) == _called(name))
            for cell, value in zip(cells, frame[column], strict=True):
                assert is_same(cell, told(value, tool.is_text)), (kind, name, cell, value)
        n_columns += len(found)
    version = (seen / "version").read_text("utf-8").strip()
    return version, f"{values.size:,} values, {n_columns} columns of labels"


def _called(name: str) -> str:
    """Return a name as all formats may hold it."""
    return name.replace("/", "_").split("_of_")[0]


def _columns(seen: Path, kind: str) -> Iterator[tuple[str, list[str]]]:
    i = 0
    while (place := seen / f"{kind}-{i}").exists():
        name, *cells = _lines(place)
        yield name, cells
        i += 1


def _lines(place: Path) -> list[str]:
    return place.read_text("utf-8").split("\n")[:-1]


def told(value: object, is_text: bool) -> str:
    """Return a cell as tools tell it; formats of text have no tabs, lines and double quotes."""
    if isinstance(value, float) and np.isnan(value):
        return ""
    text = str(value)
    if is_text:
        return "".join(" " if c.isspace() else c for c in text).replace('"', "'")
    return text.replace("\n", "\\n")


def is_same(cell: str, expected: str) -> bool:
    """Return whether two cells say the same: numbers to seven digits, truth in any case."""
    if cell == expected or cell.lower() == expected.lower() in ("true", "false"):
        return True
    try:
        return bool(np.isclose(float(cell), float(expected), rtol=1e-6, atol=0))
    except ValueError:
        return False


def opened(tool: Tool, studies: dict[str, str], folder: Path, environments: Path) -> list[str]:
    """Return rows of the table: what a tool read of each export that is for it."""
    rows = []
    for form in tool.opens:
        same = []
        for name, root in studies.items():
            version, one = compare(tool, root, folder / f"{name}.{form}", environments)
            same.append(f"{name}: {one}")
        rows.append(f"| `{form}` | {tool.name} {version} | {'; '.join(same)} |")
    return rows


def main() -> int:
    """Open all exports in all tools asked for; print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [tool.name.partition(" ")[0] for tool in TOOLS]
    parser.add_argument("--only", nargs="+", choices=sorted(set(names)), default=names)
    parser.add_argument(
        "--keep", type=Path, help="folder of the environments; without it a new one"
    )
    asked = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory(prefix="owners-") as scratch:
        folder = Path(scratch)
        studies = write_exports(folder)
        sys.stdout.write(
            "| Export | opened by | the same as in the stores |\n| --- | --- | --- |\n"
        )
        for tool, name in zip(TOOLS, names, strict=True):
            if name not in asked.only:
                continue
            try:
                rows = opened(tool, studies, folder, (asked.keep or folder / "tools").resolve())
            except AbsentError as reason:
                rows = [f"| {', '.join(tool.opens)} | {tool.name} | NOT DONE: {reason} |"]
            except FAULTS as error:
                status = 1
                said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                rows = [f"| {', '.join(tool.opens)} | {tool.name} | FAILED: {said} |"]
            sys.stdout.write("\n".join(rows) + "\n")
            sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
