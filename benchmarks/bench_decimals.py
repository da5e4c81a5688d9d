"""Decimals: the parser of wide tables beside pandas' C parser, NumPy and ``float``.

Real lines are read where the real data stand beside the repository (`DGLZARR_DATA` names another
folder): each file's cells one after another, as the reader gives them to the parser.
"""

from __future__ import annotations

import gzip
import io
import os
import re
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from common import Bench, Case, Timed, main, run_here, simulated_rows

from dglzarr.kernels.decimals import parse_decimals
from dglzarr.kernels.slices import iter_slices
from dglzarr.sources.matrix import NA_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

SIZES = {"tiny": (96, 200), "small": (64, 22268), "full": (64, 22268)}  # cells at most
CELLS_AT_ONCE = 2**15  # as the reader does
MIN_COLUMNS = 6
DATA = Path(os.environ.get("DGLZARR_DATA", Path(__file__).parents[2] / "shared" / "data"))
FILES = [
    "geo/GSE4107_series_matrix.txt.gz",
    "geo/GSE55235_series_matrix.txt.gz",
    "more/files/GSE103227_series_matrix.txt.gz",
    "more/files/GSE42872_series_matrix.txt.gz",
    "gctx/Leukemia_hgu95av2.gct",
    "gctx/test_l1000.gct",
    "more/files/P53_hgu95av2.gct.gz",
    "gtex/GTEx_v6_skin_n20_gene_reads.gct.gz",
    "tables/GSE2034_first300probes.txt",
    "more/genelevel/DLBCL_chop_3833_expr.tsv.gz",
]
_CELL = re.compile(rb"-?\d*\.?\d+([eE][+-]?\d+)?|NA|NaN|null|")


@cache
def real_cells(case: Case, name: str) -> list[bytes]:
    """Return the numbers of a file, as text."""
    path = DATA / name
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        lines = file.read().replace(b"\r", b"").split(b"\n")
    cells: list[bytes] = []
    for line in lines:
        row = line.split(b"\t")[1:]
        texts = [place for place, cell in enumerate(row) if not _CELL.fullmatch(cell)]
        row = row[texts[-1] + 1 :] if texts else row  # after what describes a gene
        if len(row) >= MIN_COLUMNS:
            cells += row
        if len(cells) >= case.n_samples * case.n_genes:
            break
    return cells[: case.n_samples * case.n_genes]


@cache
def simulated_cells(case: Case, n_decimals: int) -> list[bytes]:
    """Return numbers of some decimals, as text."""
    rows = simulated_rows(0, case.n_samples, case.n_genes)
    return [f"{value:.{n_decimals}f}".encode() for value in rows.ravel().tolist()]


def with_dglzarr(text: bytes) -> Numbers:
    """Return the numbers of cells as the reader does: pandas reads what is not plain."""
    numbers = parse_decimals(text, b"\t")
    return with_pandas(text) if numbers is None else numbers


def with_pandas(text: bytes) -> Numbers:
    """Return the numbers by pandas' C parser."""
    options: dict[str, Any] = {"header": None, "names": ["value"], "index_col": False}
    options |= {"keep_default_na": False, "na_values": list(NA_TOKENS), "low_memory": False}
    table = pd.read_csv(
        io.BytesIO(text), sep="\n", lineterminator="\t", dtype=np.float64,
        skip_blank_lines=False, **options,
    )  # fmt: skip
    return table["value"].to_numpy()


def with_numpy(text: bytes) -> Numbers:
    """Return the numbers by NumPy, which knows no missing ones; by ``float`` where some are."""
    try:
        return np.fromstring(text, sep="\t")
    except ValueError:
        return with_float(text)


def with_float(text: bytes) -> Numbers:
    """Return the numbers by ``float``."""
    missing = {token.encode(): "nan" for token in NA_TOKENS}
    return np.array([float(missing.get(cell, cell)) for cell in text[:-1].split(b"\t")])


def with_nothing(text: bytes) -> int:
    """Return the number of separators."""
    return text.count(b"\t")


def parsing(
    case: Case, cells: Callable[[Case], list[bytes]], parse: Callable[[bytes], object]
) -> Timed:
    """Time a parser on the cells, a column at once as the reader does."""
    found = cells(case)
    slices = iter_slices(len(found), 1, limit_nbytes=CELLS_AT_ONCE)
    columns = [b"\t".join(found[some]) + b"\t" for some in slices]
    n_samples = -(-len(found) // case.n_genes)
    return run_here(case, lambda: [parse(column) for column in columns], n_samples=n_samples)


PARSERS: dict[str, Callable[[bytes], object]] = {
    "dglzarr": with_dglzarr,
    "pandas": with_pandas,
    "numpy.fromstring": with_numpy,
    "float": with_float,
    "limit: separators counted": with_nothing,
}


def bench(name: str, cells: Callable[[Case], list[bytes]]) -> Bench:
    """Return the comparison on the cells of a source."""
    engines = {
        engine: partial(parsing, cells=cells, parse=parse) for engine, parse in PARSERS.items()
    }
    stage = f"decimals-{name}"
    return Bench(stage, lambda _: None, engines, packages=["pandas"], sizes=SIZES, is_quick=True)


BENCHES = [
    *(
        bench(f"{n} decimals", partial(simulated_cells, n_decimals=n))
        for n in (0, 2, 5, 9)
    ),
    *(bench(name, partial(real_cells, name=name)) for name in FILES if (DATA / name).exists()),
]  # fmt: skip

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
