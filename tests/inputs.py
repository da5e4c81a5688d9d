"""Read every file of a folder of real inputs; print what came of each, a line a file.

``python tests/inputs.py --folder ../shared`` writes the table of docs/reproduce.md. A file is taken
for expression; one that is none is tried as what else a study reads: an annotation, a list of
genes, gene sets, or the sample sheet of the file beside it. Nothing but the package's readers says
what came; `tests/test_inputs.py` says what is right.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from dglzarr.errors import SourceError
from dglzarr.sources import read_source
from dglzarr.sources.identifiers import (
    check_coverage,
    read_annotation_table,
    read_gene_list,
    read_panel,
)
from dglzarr.sources.scaled import find_scale
from dglzarr.sources.terms import read_gmt

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs" / "reproduce.md"
BEGIN, END = "<!-- tests/inputs.py -->", "<!-- end of tests/inputs.py -->"
FOLDERS = ("cases", "data")
NO_INPUTS = ("README", "INDEX.md")
PROBES = Path("data", "annotation", "probes_22268.txt")
MIN_COVERAGE = 0.9
SHEET = re.compile(r"_(samples|pheno)\.")


class Outcome(NamedTuple):
    """What a file was taken for, and what came: sizes and scale, or the line of a refusal."""

    taken_for: str
    came: str


def inputs_of(folder: Path) -> list[Path]:
    """Return the files below a folder that are inputs, also hidden ones, but no settings."""
    found = (path for part in FOLDERS for path in (folder / part).rglob("*"))
    return sorted(
        p for p in found if p.is_file() and p.name not in NO_INPUTS and p.suffix != ".toml"
    )


def outcome_of(path: Path, listed: list[str]) -> Outcome:
    """Return what comes of a file; ``listed`` are the probes of a study of HG-U133A arrays."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _expression(path, listed, scratch)
    except SourceError as error:
        return _something_else(path, listed) or Outcome("nothing", f"refused: {_line(path, error)}")


def _line(path: Path, error: SourceError) -> str:
    """Return the line of an error without the name that the table gives already."""
    return str(error).removeprefix(path.name).lstrip(":, ")


def _expression(path: Path, listed: list[str], scratch: str) -> Outcome:
    source = read_source(path, scratch=scratch)
    sizes = f"{len(source.samples):,} x {len(source.genes):,}"
    try:
        scaled = find_scale(source, None)
    except SourceError as error:
        return Outcome(source.format, f"{sizes}, refused: {_line(path, error)}")
    unit = f" ({scaled.unit})" if scaled.unit and scaled.unit != scaled.scale else ""
    told = [f"{sizes}, {scaled.scale}{unit}"]
    told += [*map(str, source.left_out), *source.notes, *scaled.notes]
    n_listed = len(set(listed) & set(source.genes))
    if n_listed:
        told.append(f"{n_listed:,} of the {len(listed):,} probes")
    try:
        check_coverage([path.name], [source.genes], listed, MIN_COVERAGE)
    except SourceError:
        told.append("no part of a study of HG-U133A arrays")
    return Outcome(source.format, "; ".join(told))


def _something_else(path: Path, listed: list[str]) -> Outcome | None:
    """Return what comes of a file that is no expression, None where it is nothing else either."""
    if sheet := _sheet(path):
        return sheet
    if ".gmt" in path.suffixes:
        return Outcome("gene sets", f"{len(read_gmt(path).ids):,} sets")
    try:
        table = read_annotation_table(path)
    except SourceError:
        pass
    else:
        named = [name for name in table.symbol.values() if name]
        ids = [name for name in table.gene_id.values() if name]
        told = f"{len({*table.symbol, *table.gene_id}):,} features, {len(named):,} with a symbol"
        told += f", {len(ids):,} with a gene ID" if ids else ""
        dates = len(table.dates)
        return Outcome("annotation", told + (f"; {dates} symbols are dates" if dates else ""))
    try:
        return Outcome("list of genes", f"{len(read_gene_list(path)):,} entries")
    except SourceError:
        pass
    try:
        match = read_panel(path, genes=listed)
    except SourceError:
        return None
    n = len(match.genes) + len(match.missing)
    return Outcome("list of genes", f"{len(match.genes):,} of {n:,} entries among the probes")


def _sheet(path: Path) -> Outcome | None:
    """Return what a sample sheet says of the file that it belongs to, None where it is none."""
    if not SHEET.search(path.name):
        return None
    stem = SHEET.split(path.name)[0]
    others = [p for p in path.parent.iterdir() if p.is_file() and not SHEET.search(p.name)]
    for beside in sorted(others, key=lambda p: (not p.name.startswith(stem), p.name)):
        try:
            source = read_source(beside, sample_sheet=path)
        except SourceError:
            continue
        told = ", ".join(sorted(source.labels))
        return Outcome(f"sheet of {beside.name}", f"{len(source.samples):,} samples: {told}")
    return None


def markdown(folder: Path) -> str:
    """Return the table of all inputs of a folder."""
    listed = read_gene_list(folder / PROBES)
    alike: dict[tuple[Path, Outcome], list[Path]] = {}
    for path in inputs_of(folder):
        found = outcome_of(path, listed)
        alike.setdefault((path.parent, found), []).append(path.relative_to(folder))
    lines = ["| File | Taken for | What came: samples x features, scale |", "| --- | --- | --- |"]
    for (_, found), (first, *more) in alike.items():
        name = f"`{first}`" + (f" and {len(more)} like it" if more else "")
        cells = (cell.replace("|", "\\|") for cell in (name, *found))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table; with ``--write`` put it into docs/reproduce.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=REPO.parent / "shared")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    table = markdown(options.folder)
    sys.stdout.write(f"{table}\n")
    if options.write:
        head, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
        _, _, tail = rest.partition(END)
        DOCS.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
