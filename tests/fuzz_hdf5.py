"""Small HDF5 files of every layout that is read, some with parts that are not as they should be.

Owns the bytes, as `fuzz_files` does; a seeded `random.Random` draws them. Knows no reader.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import scipy.sparse

from tests.fuzz_files import GENES, ODD_CELLS, sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from numpy.typing import NDArray

HUGE = [(10**9,), (2**40,), (10**6, 10**6), (2**40, 4), (4, 2**40)]
"""Shapes that a dataset may say it has, without any chunk of them."""


def gctx(rng: Random) -> bytes:
    """Return a GCTX file."""
    samples, genes = _names(rng)
    parts: dict[str, Any] = {
        "0/META/COL/id": np.array(samples, "S"),
        "0/META/ROW/id": np.array(genes, "S"),
        "0/META/COL/cell": np.array([rng.choice("ab") for _ in samples], "S"),
        "0/META/ROW/pr_gene_symbol": np.array([rng.choice(GENES) for _ in genes], "S"),
        "0/DATA/0/matrix": _values(rng, samples, genes).astype(
            rng.choice(["f4", "f8", "f4", "f2"])
        ),
    }
    return _file(rng, parts, {"/": {"version": "GCTX1.0"}})


def archs4(rng: Random) -> bytes:
    """Return a file of ARCHS4, of version 1 or 2, by old or new names of its fields."""
    samples, genes = _names(rng)
    is_new = rng.random() < 0.6
    lead = "meta/samples/" if is_new else "meta/Sample_"
    counts = (_values(rng, samples, genes) * 40).astype(rng.choice(["u4", "i4", "u2", "f4"]))
    series = [rng.choice(["GSE1", "GSE2", "GSE1\tGSE2"]) for _ in samples]
    told = [f"Tissue: {rng.choice('ab')},age: 3" for _ in samples]
    parts: dict[str, Any] = {
        "data/expression": counts.T.copy() if is_new else counts,
        f"{lead}geo_accession": _text(rng, samples),
        f"{lead}series_id": _text(rng, series),
        f"{lead}title": _text(rng, [f"profile {s}" for s in samples]),
        f"{lead}characteristics_ch1": _text(rng, told),
    }
    if is_new:
        parts[f"{lead}singlecellprobability"] = np.array(
            [rng.choice([0.1, 0.2, 0.9]) for _ in samples]
        )
        names = rng.choice(
            [("symbol",), ("gene_symbol", "ensembl_gene_id"), ("symbol", "ensembl_gene")]
        )
        for name in names:
            cells = [rng.choice(GENES) or "x" for _ in genes] if "symbol" in name else genes
            parts[f"meta/genes/{name}"] = _text(rng, cells)
    else:
        parts["meta/genes"] = _text(rng, genes)
    return _file(rng, parts, {})


def h5ad(rng: Random) -> bytes:
    """Return a file of AnnData: dense, CSR or CSC, its labels in each of the ways there are."""
    samples, genes = _names(rng)
    values = _values(rng, samples, genes) * (np.array([rng.random() for _ in genes]) > 0.3)
    parts: dict[str, Any] = {}
    attrs: dict[str, dict[str, Any]] = {"/": _encoded("anndata", "0.1.0")}
    for name in ("X", *(["layers/counts"] if rng.random() < 0.3 else [])):
        _add_matrix(rng, (parts, attrs), name, values)
    for name, ids in (("obs", samples), ("var", genes)):
        attrs[name] = {**_encoded("dataframe", "0.2.0"), "_index": "_index"}
        parts[f"{name}/_index"] = _text(rng, ids)
        attrs[f"{name}/_index"] = _encoded("string-array", "0.2.0")
    symbols = [rng.choice(GENES) for _ in genes]
    parts["var/gene_symbols"] = _text(rng, symbols)
    attrs["var/gene_symbols"] = _encoded("string-array", "0.2.0")
    parts["obs/tissue/categories"] = _text(rng, ["liver", "lung"])
    parts["obs/tissue/codes"] = np.array([rng.choice([-1, 0, 1]) for _ in samples], "i1")
    attrs["obs/tissue"] = {**_encoded("categorical", "0.2.0"), "ordered": False}
    parts["obs/batch/values"] = np.arange(len(samples))
    parts["obs/batch/mask"] = np.array([rng.random() < 0.2 for _ in samples])
    attrs["obs/batch"] = _encoded("nullable-integer", "0.1.0")
    for place in (
        "obs/tissue/categories",
        "obs/tissue/codes",
        "obs/batch/values",
        "obs/batch/mask",
    ):
        kind = "string-array" if place.endswith("categories") else "array"
        attrs[place] = _encoded(kind, "0.2.0")
    attrs["obs"]["column-order"] = np.array(["tissue", "batch"], object)
    attrs["var"]["column-order"] = np.array(["gene_symbols"], object)
    return _file(rng, parts, attrs)


def _add_matrix(
    rng: Random,
    to: tuple[dict[str, Any], dict[str, dict[str, Any]]],
    name: str,
    values: NDArray[np.float64],
) -> None:
    """Add a matrix of AnnData, dense or sparse."""
    parts, attrs = to
    values = values.astype(rng.choice(["f4", "f8", "i4"]))
    kind = rng.choice(["array", "csr", "csc"])
    if kind == "array":
        parts[name] = values
        attrs[name] = _encoded("array", "0.2.0")
        return
    matrix = scipy.sparse.csr_matrix(values) if kind == "csr" else scipy.sparse.csc_matrix(values)
    shape = np.array(values.shape)
    attrs[name] = {**_encoded(f"{kind}_matrix", "0.1.0"), "shape": shape}
    for part in ("data", "indices", "indptr"):
        parts[f"{name}/{part}"] = getattr(matrix, part)
        attrs[f"{name}/{part}"] = _encoded("array", "0.2.0")


def _encoded(kind: str, version: str) -> dict[str, Any]:
    return {"encoding-type": kind, "encoding-version": version}


def _names(rng: Random) -> tuple[list[str], list[str]]:
    """Return a few samples and genes."""
    samples, genes = sizes(rng)
    return samples[:4], genes[:6]


def _values(rng: Random, samples: list[str], genes: list[str]) -> NDArray[np.float64]:
    return np.array([[rng.uniform(2, 14) for _ in genes] for _ in samples])


def _text(rng: Random, cells: list[str]) -> NDArray[Any]:
    """Return text of any length, or of a fixed one."""
    return np.array(cells, object) if rng.random() < 0.8 else np.array([c.encode() for c in cells])


# ---------------------------------------------------------------- parts


def _file(rng: Random, parts: dict[str, Any], attrs: dict[str, dict[str, Any]]) -> bytes:
    """Return a file of some parts, half of them spoilt."""
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 2)):
            if attrs and rng.random() < 0.2:
                _spoil_attribute(rng, attrs)
            else:
                _spoil(rng, parts)
    raw = io.BytesIO()
    with h5py.File(raw, "w") as file:
        for name, value in parts.items():
            _put(rng, file, name, value)
        for name, told in attrs.items():
            if isinstance(file.get(name), h5py.Group | h5py.Dataset):
                for key, value in told.items():
                    file[name].attrs[key] = value
    return raw.getvalue()


def _put(rng: Random, file: h5py.File, name: str, value: Any) -> None:
    """Write one part in one of the ways there are."""
    if isinstance(value, tuple):
        file.create_dataset(name, value, rng.choice(["f4", "S8", "i8"]), chunks=True)
    elif isinstance(value, str):
        file.create_group(name) if value == "group" else file.__setitem__(
            name, h5py.SoftLink("/none") if value == "soft" else h5py.ExternalLink("none.h5", "/x")
        )
    elif isinstance(value, h5py.Empty) or not np.size(value) or not np.ndim(value):
        is_object = isinstance(value, np.ndarray) and value.dtype.kind == "O"
        file[name] = value.astype("f4") if is_object else value
    else:
        how = rng.choice([{}, {"chunks": True}, {"chunks": True, "compression": "gzip"}])
        is_plain = value.dtype != object
        how |= {"fletcher32": True} if how and is_plain and rng.random() < 0.3 else {}
        if how and rng.random() < 0.3:
            how |= {"chunks": tuple(rng.randint(1, n) for n in value.shape)}
        file.create_dataset(name, data=value, **how)


def _spoil(rng: Random, parts: dict[str, Any]) -> None:
    """Change a part: its shape, its type, its values, or whether it is there."""
    name = rng.choice(list(parts))
    is_array = not isinstance(parts[name], str | tuple | h5py.Empty)
    value = np.asarray(parts[name]) if is_array else None
    ways: list[Callable[[], Any]] = [
        *(lambda: "group", lambda: "soft", lambda: "external", lambda: h5py.Empty("f4")),
        *(lambda: np.float32(3), lambda: np.zeros((0, 3)), lambda: np.array([], "S1")),
        lambda: rng.choice(HUGE),
    ]
    if value is not None and value.ndim:
        ways += [
            lambda: None,
            lambda: value[:-1],
            lambda: np.concatenate([value, value[:1]]),
            lambda: value[:, None],
            lambda: value.T.copy(),
            lambda: value[::-1].copy(),
            lambda: np.arange(len(value), dtype=rng.choice(["i8", "u1", "f8"])),
            lambda: np.array([v.decode() if isinstance(v, bytes) else str(v) for v in value[:, None].flat], object)[: len(value)],  # noqa: E501
            lambda: np.array([rng.choice(ODD_CELLS).replace("\0", "").encode() for _ in value], "S200"),  # noqa: E501
            lambda: np.zeros(len(value), [("a", "i4"), ("b", "S2")]),
            lambda: np.zeros(value.shape, bool),
            lambda: np.zeros(value.shape, complex),
            lambda: np.full(value.shape, rng.choice([np.nan, np.inf, 1e300, -1e39, 0, 1])),
            lambda: np.full(value.shape, rng.choice([-1, -9, 2**31, 2**62, 7, 1])),
            lambda: (np.arange(value.size).reshape(value.shape) % 7).astype(rng.choice(["i2", "i8", "u4"])),  # noqa: E501
            lambda: np.repeat(value, rng.choice([2, 300]), axis=0),
        ]  # fmt: skip
    new = rng.choice(ways)()
    if new is None:
        del parts[name]
    else:
        parts[name] = new


def _spoil_attribute(rng: Random, attrs: dict[str, dict[str, Any]]) -> None:
    """Change what is told of a part."""
    some = [told for told in attrs.values() if told]
    if not some:
        return
    told = rng.choice(some)
    name = rng.choice(list(told))
    odd = ["", "csc_matrix", "csr_matrix", "array", "none", b"\xff", "_index", "tissue", "../obs"]
    numbers = [
        3,
        -1,
        np.array([2, 2]),
        np.array([2**40, 2**40]),
        np.array([1.5, 2]),
        h5py.Empty("f4"),
    ]
    new = rng.choice([None, *odd, *numbers])
    if new is None:
        del told[name]
    else:
        told[name] = new
