"""Small Parquet and Feather files, some with columns that are not as they should be.

Owns the bytes, as `fuzz_files` does; a seeded `random.Random` draws them. Knows no reader.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz_files import GENES, ODD_CELLS, sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_PANDAS: list[Any] = [
    *({"index_columns": ["gene"]}, {"index_columns": ["GSM1"]}, {"index_columns": []}),
    *({"index_columns": "gene"}, {"index_columns": 3}, {"index_columns": None}, {}, [], None, 3),
    {"index_columns": [{"kind": "range", "start": 0, "stop": 3, "step": 1}]},
]
"""What pandas may have written of the index, and what it would not."""


def parquet(rng: Random) -> bytes:
    """Return a Parquet file, genes or samples in rows."""
    raw = io.BytesIO()
    how: dict[str, Any] = {
        "compression": rng.choice(["snappy", "none", "zstd", "gzip"]),
        "row_group_size": rng.choice([1, 3, 1000]),
        "use_dictionary": rng.random() < 0.5,
        "data_page_version": rng.choice(["1.0", "2.0"]),
        "write_page_checksum": rng.random() < 0.2,
    }
    pq.write_table(_table(rng), raw, **how)
    return raw.getvalue()


def feather(rng: Random) -> bytes:
    """Return a Feather file, genes or samples in rows."""
    raw = io.BytesIO()
    table = _table(rng)
    options = pa.ipc.IpcWriteOptions(
        compression=rng.choice([None, None, "lz4", "zstd"]), unify_dictionaries=True
    )
    with pa.ipc.new_file(raw, table.schema, options=options) as file:
        file.write_table(table, max_chunksize=rng.choice([2, 1000]))
    return raw.getvalue()


def _table(rng: Random) -> pa.Table:
    """Return a matrix as a table, half of them spoilt."""
    samples, genes = sizes(rng)
    samples = samples[:5]
    kind = rng.choice([np.float32, np.float64, np.int32])
    if rng.random() < 0.3:
        names, rows = [f"GENE{i} ({1000 + i})" for i in range(rng.choice([3, 25]))], samples
        lead = {"ModelID": samples, "tissue": [rng.choice("ab") for _ in samples]}
    else:
        names, rows = samples, genes
        lead = {"gene": genes, "symbol": [rng.choice(GENES) for _ in genes]}
    columns: dict[str, Any] = {name: pa.array(cells) for name, cells in lead.items()}
    for name in names:
        columns[name] = pa.array([rng.uniform(2, 14) for _ in rows], pa.float64()).cast(
            pa.from_numpy_dtype(kind), safe=False
        )
    told = [*columns.items()]
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 2)):
            _spoil(rng, told)
    table = pa.Table.from_arrays([cells for _, cells in told], names=[name for name, _ in told])
    if rng.random() < 0.3:
        written = json.dumps(rng.choice(_PANDAS)) if rng.random() < 0.8 else '{"index'
        table = table.replace_schema_metadata({"pandas": written})
    return table


def _spoil(rng: Random, columns: list[tuple[str, Any]]) -> None:
    """Change a column: its name, its type, its values, its place, or whether it is there."""
    at = rng.randrange(len(columns))
    name, cells = columns[at]
    n = len(cells)
    other = columns[rng.randrange(len(columns))]
    ways: list[Callable[[], tuple[str, Any]]] = [
        lambda: (rng.choice([other[0], "", *ODD_CELLS]).encode(errors="replace").decode(), cells),
        lambda: (name, other[1]),
        lambda: (name, pa.nulls(n)),
        lambda: (name, pa.nulls(n, pa.float64())),
        lambda: (name, pa.array([rng.choice([None, 2.5, 7.25]) for _ in range(n)], pa.float64())),
        lambda: (name, pa.array([rng.choice([np.nan, np.inf, -np.inf, 1e39, 3.0])] * n)),
        lambda: (name, pa.array([rng.choice([2**62, -1, 0, 7])] * n)),
        lambda: (name, pa.array([_odd(rng).encode() for _ in range(n)])),
        lambda: (name, pa.array([_odd(rng) for _ in range(n)])),
        lambda: (name, pa.array([_odd(rng) for _ in range(n)]).dictionary_encode()),
        lambda: (name, pa.array([[1.0, 2.0]] * n)),
        lambda: (name, pa.array([{"a": 1}] * n)),
        lambda: (name, pa.array([True] * n)),
        lambda: (name, pa.array([3] * n).cast(pa.timestamp("us"))),
        lambda: (name, pa.array([3] * n).cast(pa.decimal128(21, 2))),
        lambda: (name, pa.array(np.full(n, 2.5, np.float16))),
        lambda: (name, pa.array([str(i) for i in range(n)])),
        lambda: (name, pa.array([i % 2 for i in range(n)])),
    ]  # fmt: skip
    columns[at] = rng.choice(ways)()
    if rng.random() < 0.1 and len(columns) > 1:
        del columns[at]
    elif rng.random() < 0.1:
        columns.insert(rng.randrange(len(columns)), columns.pop(at))


def _odd(rng: Random) -> str:
    return rng.choice(ODD_CELLS).encode(errors="replace").decode()
