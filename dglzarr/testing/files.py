"""Writers of the expression file formats that people have; same values, same bytes.

Owns the text of the files; reads nothing and writes no store.
"""

import gzip
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TextIO

import h5py
import numpy as np
from numpy.typing import NDArray

FileScale = Literal["log2", "raw"]


@contextmanager
def text_writer(path: Path) -> Iterator[TextIO]:
    """Yield a text file, compressed when the name ends .gz; same text, same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw:
        if path.suffix != ".gz":
            with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as file:
                yield file
            return
        with (
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as zipped,
            io.TextIOWrapper(zipped, encoding="utf-8", newline="\n") as file,
        ):
            yield file


def _check_shape(
    expression: NDArray[np.floating], samples: Sequence[str], genes: Sequence[str]
) -> None:
    if expression.shape != (len(samples), len(genes)):
        message = (
            f"expression: expected shape (sample, gene) = {(len(samples), len(genes))!r}, "
            f"got {expression.shape!r}. Pass one label a sample and one a gene."
        )
        raise ValueError(message)


def _gene_lines(
    expression: NDArray[np.floating], *, number: str, missing: str, scale: FileScale = "log2"
) -> Iterator[str]:
    """Yield the tab-joined values of each gene, reading the matrix by blocks of genes."""
    for start in range(0, expression.shape[1], 1024):
        block = np.asarray(expression[:, start : start + 1024], np.float64).T
        values = np.exp2(block) - 1 if scale == "raw" else block
        for row in values.tolist():
            yield "\t".join(missing if math.isnan(v) else number % v for v in row)


def _geo_number(scale: FileScale) -> str:
    if scale not in ("log2", "raw"):
        message = f"scale: expected 'log2' or 'raw', got {scale!r}. Choose one of them."
        raise ValueError(message)
    return "%.2f" if scale == "raw" else "%.5f"


def _processing(scale: FileScale) -> str:
    return "MAS5-like signal" if scale == "raw" else "RMA-like log2 signal"


def write_series_matrix(
    path: str | Path,
    expression: NDArray[np.floating],
    *,
    samples: Sequence[str],
    genes: Sequence[str],
    series: str,
    platform: str,
    scale: FileScale = "log2",
    tissue: Sequence[str] | None = None,
) -> Path:
    """Return the path of a GEO series matrix written from (sample, gene) log2 values.

    Compressed when the name ends .gz. With scale "raw" the file holds 2**x - 1. Missing is "null".

    Raises
    ------
    ValueError
        When shape and labels disagree, or the scale is unknown.
    """
    _check_shape(expression, samples, genes)
    path, number = Path(path), _geo_number(scale)
    tissue = tissue or ["not stated"] * len(samples)
    per_sample: dict[str, Iterable[str]] = {
        "title": [f"Simulated profile {name}" for name in samples],
        "geo_accession": samples,
        "type": ["RNA"] * len(samples),
        "organism_ch1": ["Homo sapiens"] * len(samples),
        "characteristics_ch1": [f"tissue: {name}" for name in tissue],
        "data_processing": [_processing(scale)] * len(samples),
        "platform_id": [platform] * len(samples),
        "data_row_count": [str(len(genes))] * len(samples),
    }
    with text_writer(path) as file:
        file.write(f'!Series_title\t"Simulated series {series}"\n')
        file.write(f'!Series_geo_accession\t"{series}"\n')
        file.write('!Series_type\t"Expression profiling by array"\n')
        file.write(f'!Series_sample_id\t"{" ".join(samples)} "\n')
        file.write(f'!Series_platform_id\t"{platform}"\n\n')
        for key, values in per_sample.items():
            file.write("\t".join([f"!Sample_{key}", *(f'"{v}"' for v in values)]) + "\n")
        file.write("!series_matrix_table_begin\n")
        file.write("\t".join(f'"{v}"' for v in ("ID_REF", *samples)) + "\n")
        rows = _gene_lines(expression, number=number, missing="null", scale=scale)
        file.writelines(f'"{gene}"\t{row}\n' for gene, row in zip(genes, rows, strict=True))
        file.write("!series_matrix_table_end\n")
    return path


def write_soft(
    path: str | Path,
    expression: NDArray[np.floating],
    *,
    samples: Sequence[str],
    genes: Sequence[str],
    series: str,
    platform: str,
    scale: FileScale = "log2",
) -> Path:
    """Return the path of a GEO SOFT family file written from (sample, gene) log2 values.

    Raises
    ------
    ValueError
        When shape and labels disagree, or the scale is unknown.
    """
    _check_shape(expression, samples, genes)
    path, number = Path(path), _geo_number(scale)
    with text_writer(path) as file:
        file.write(f"^SERIES = {series}\n!Series_geo_accession = {series}\n")
        file.writelines(f"!Series_sample_id = {name}\n" for name in samples)
        file.write(f"^PLATFORM = {platform}\n!Platform_geo_accession = {platform}\n")
        for i, name in enumerate(samples):
            file.write(f"^SAMPLE = {name}\n!Sample_title = Simulated profile {name}\n")
            file.write(f"!Sample_geo_accession = {name}\n!Sample_type = RNA\n")
            file.write(f"!Sample_data_processing = {_processing(scale)}\n")
            file.write(f"!Sample_platform_id = {platform}\n!Sample_series_id = {series}\n")
            file.write(f"!Sample_data_row_count = {len(genes)}\n")
            file.write("#ID_REF = \n#VALUE = signal\n!sample_table_begin\nID_REF\tVALUE\n")
            rows = _gene_lines(expression[i : i + 1], number=number, missing="null", scale=scale)
            file.writelines(f"{gene}\t{row}\n" for gene, row in zip(genes, rows, strict=True))
            file.write("!sample_table_end\n")
    return path


def write_gct(
    path: str | Path,
    expression: NDArray[np.floating],
    *,
    samples: Sequence[str],
    genes: Sequence[str],
    descriptions: Sequence[str] | None = None,
) -> Path:
    """Return the path of a GCT 1.2 file of (sample, gene) values, written as they are.

    Raises
    ------
    ValueError
        When shape and labels disagree.
    """
    _check_shape(expression, samples, genes)
    path = Path(path)
    rows = _gene_lines(expression, number="%.7g", missing="NaN")
    with text_writer(path) as file:
        file.write(f"#1.2\n{len(genes)}\t{len(samples)}\n")
        file.write("\t".join(["Name", "Description", *samples]) + "\n")
        for gene, text, row in zip(genes, descriptions or genes, rows, strict=True):
            file.write(f"{gene}\t{text}\t{row}\n")
    return path


def write_gctx(
    path: str | Path,
    expression: NDArray[np.floating],
    *,
    samples: Sequence[str],
    genes: Sequence[str],
    gene_symbol: Sequence[str] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Return the path of a GCTX 1.0 file of (sample, gene) values, written as they are by blocks.

    `labels` are further columns of the sample metadata.

    Raises
    ------
    ValueError
        When shape and labels disagree.
    """
    _check_shape(expression, samples, genes)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Sequence[str]] = {"COL/id": samples, "ROW/id": genes}
    columns |= {f"COL/{name}": values for name, values in (labels or {}).items()}
    columns |= {"ROW/pr_gene_symbol": gene_symbol} if gene_symbol is not None else {}
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file.attrs["src"] = path.name
        for name, values in columns.items():
            file[f"0/META/{name}"] = np.array([v.encode() for v in values], "S")
        matrix = file.create_dataset(
            "0/DATA/0/matrix",
            shape=expression.shape,
            dtype="f4",
            chunks=(min(256, len(samples)), min(1024, len(genes))),
            compression="gzip",
            compression_opts=4,
        )
        for start in range(0, len(samples), 256):
            matrix[start : start + 256] = expression[start : start + 256]
    return path


def write_table(
    path: str | Path,
    expression: NDArray[np.floating],
    *,
    samples: Sequence[str],
    genes: Sequence[str],
    sample_sheet: str | Path | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Return the path of a table of (sample, gene) values, a gene a line, a sample a column.

    Comma-separated when the name holds .csv, else tab-separated. With `sample_sheet`, a second
    table of the same kind lists the samples (column "Sample") and their labels.

    Raises
    ------
    ValueError
        When shape and labels disagree.
    """
    _check_shape(expression, samples, genes)
    path = Path(path)
    mark = "," if ".csv" in path.name else "\t"
    rows = _gene_lines(expression, number="%.6g", missing="")
    with text_writer(path) as file:
        file.write(mark.join(["ID_REF", *samples]) + "\n")
        for gene, row in zip(genes, rows, strict=True):
            file.write(mark.join([gene, *row.split("\t")]) + "\n")
    if sample_sheet is not None:
        columns = labels or {}
        with text_writer(Path(sample_sheet)) as file:
            file.write(mark.join(["Sample", *columns]) + "\n")
            lines = zip(samples, *columns.values(), strict=True)
            file.writelines(mark.join(line) + "\n" for line in lines)
    return path


def write_annotation(path: str | Path, genes: Sequence[str], symbols: Sequence[str]) -> Path:
    """Return the path of a probe to gene symbol table, as GEO prints it."""
    path = Path(path)
    with text_writer(path) as file:
        file.write("ID_REF\tGene symbol\n")
        file.writelines(f"{g}\t{s}\n" for g, s in zip(genes, symbols, strict=True))
    return path
