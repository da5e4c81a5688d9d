"""GCT 1.3, and tables of samples by genes as TSV and Parquet.

References
----------
https://clue.io/connectopedia/gct_format
"""

from __future__ import annotations

import importlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.query.written import need_parquet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from dglzarr.export.selected import Selected

_ROWS_NBYTES = 2**28
"""Of a row group of Parquet."""


def write_gct(path: Path, chosen: Selected) -> None:
    """Write a GCT 1.3: a line a gene, with what is known of genes and samples; seven digits."""
    n_samples, n_genes = chosen.shape
    genes, samples = _texts(chosen.genes), _texts(chosen.samples)
    of_genes, of_samples = list(genes)[1:], list(samples)[1:]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"#1.3\n{n_genes}\t{n_samples}\t{len(of_genes)}\t{len(of_samples)}\n")
        file.write(_line(["id", *of_genes, *samples["sample"]]))
        for name in of_samples:
            file.write(_line([name, *["NA"] * len(of_genes), *_known(samples[name])]))
        form = "%.7g\t" * (n_samples - 1) + "%.7g\n"
        for part, block in chosen.gene_blocks():
            for place, values in zip(range(part.start, part.stop), block.T, strict=True):
                told = [genes["gene"][place], *_known(genes[n][place] for n in of_genes)]
                file.write("\t".join(told) + "\t" + _numbers(form, values, missing="NaN"))


def write_tsv(path: Path, chosen: Selected) -> None:
    """Write a line a sample: its name, its labels, its expression by gene label; seven digits.

    Raises
    ------
    ConfigError
        When a label is called as a gene is.
    """
    samples = _texts(chosen.samples)
    genes = chosen.genes["gene"].tolist()
    _refuse_shared(genes, samples)
    form = "%.7g\t" * (len(genes) - 1) + "%.7g\n"
    labels = list(zip(*samples.values(), strict=True))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(_line([*samples, *map(_plain, genes)]))
        for part, block in chosen.blocks():
            for told, values in zip(labels[part], block, strict=True):
                file.write("\t".join(told) + "\t" + _numbers(form, values, missing="NA"))


def write_parquet(path: Path, chosen: Selected) -> None:
    """Write a row a sample: its name, its labels, its expression by gene label, float32.

    The metadata of a gene's column hold what is known of it; those of the file the lineage.

    Raises
    ------
    ConfigError
        Without pyarrow, or when a label is called as a gene is.
    """
    need_parquet()
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    labels = arrow.Table.from_pandas(chosen.samples, preserve_index=False).replace_schema_metadata()
    genes = _texts(chosen.genes)
    _refuse_shared(genes["gene"], map(str, chosen.samples.columns))
    fields = [
        arrow.field(gene, arrow.float32(), metadata={n: genes[n][i] for n in list(genes)[1:]})
        for i, gene in enumerate(genes["gene"])
    ]
    told = {"dglzarr": json.dumps(chosen.attributes)}
    schema = arrow.schema([*labels.schema, *fields], metadata=told)
    with parquet.ParquetWriter(path, schema, compression="zstd", write_statistics=False) as writer:
        for part, block in chosen.blocks(limit_nbytes=_ROWS_NBYTES):
            known = labels.slice(part.start, part.stop - part.start).columns
            values = [arrow.array(column) for column in np.ascontiguousarray(block.T)]
            writer.write_table(
                arrow.Table.from_arrays([*known, *values], schema=schema),
                row_group_size=part.stop - part.start,
            )


def _refuse_shared(genes: Iterable[str], labels: Iterable[str]) -> None:
    """Refuse a label of samples that is called as a gene is: two columns would have one name."""
    if both := set(genes) & set(labels):
        raise ConfigError(f"--format: {min(both)!r} is a label and a gene. Export as h5ad.")


def _line(cells: Iterable[str]) -> str:
    return "\t".join(cells) + "\n"


def _texts(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the cells of a table as text that stays in its cell, by column, each another one."""
    found: dict[str, list[str]] = {}
    for name in frame.columns:
        called = _plain(str(name))
        while called in found:
            called += "_"
        found[called] = [_plain(_cell(v)) for v in frame[name].tolist()]
    return found


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.7g}"
    return str(value)


def _plain(text: str) -> str:
    """Return text without what would end its cell or its line."""
    return re.sub(r"\s", " ", text).replace('"', "'") if text else text


def _known(cells: Iterable[str]) -> Iterator[str]:
    return (cell or "NA" for cell in cells)


def _numbers(form: str, values: NDArray[np.float32], *, missing: str) -> str:
    text = form % tuple(values.tolist())
    return text.replace("nan", missing) if np.isnan(values).any() else text
