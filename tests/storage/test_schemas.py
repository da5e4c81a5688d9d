import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.errors import SchemaError
from dglzarr.storage import declare as layout
from dglzarr.storage import declare as validation
from dglzarr.storage import schemas as schema
from dglzarr.storage.declare import ArraySpec, StoreSpec
from dglzarr.storage.schemas import SPECS

REPO = Path(__file__).resolve().parents[2]
SPEC = StoreSpec(
    "toy",
    3,
    "A store of this test.",
    (
        ArraySpec("expression", ("sample", "gene"), "float32", "values", "log2", "region"),
        ArraySpec("note", ("sample",), "int32", "may be absent", required=False),
        ArraySpec("sample", ("sample",), "str", "labels", written="create", is_coord=True),
        ArraySpec("gene", ("gene",), "str", "labels", written="create", is_coord=True),
    ),
)


@pytest.fixture
def dataset():
    values = np.zeros((2, 3), dtype=np.float32)
    return xr.Dataset(
        {"expression": (("sample", "gene"), values, {"units": "log2"})},
        coords={"sample": ["s0", "s1"], "gene": ["g0", "g1", "g2"]},
    )


# ---------------------------------------------------------------- validate


def test_validate__accepts_what_matches(dataset):
    validation.validate(dataset, SPEC)


def test_validate__optional_array_may_be_present(dataset):
    validation.validate(dataset.assign(note=("sample", np.zeros(2, dtype=np.int32))), SPEC)


def drop_expression(ds):
    return ds.drop_vars("expression")


def add_unknown(ds):
    return ds.assign(extra=("sample", [1, 2]))


def transpose(ds):
    return ds.transpose()


def widen(ds):
    return ds.assign(expression=ds["expression"].astype("float64").assign_attrs(units="log2"))


def change_units(ds):
    return ds.assign(expression=ds["expression"].assign_attrs(units="TPM"))


def drop_units(ds):
    return ds.assign(expression=ds["expression"].drop_attrs())


def number_genes(ds):
    return ds.assign_coords(gene=[0, 1, 2])


def repeat_gene(ds):
    return ds.assign_coords(gene=["g0", "g1", "g1"])


def empty_label(ds):
    return ds.assign_coords(sample=["s0", ""])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_expression, "missing 'expression'"),
        (add_unknown, "unknown 'extra'"),
        (
            transpose,
            r"expression: expected dims \('sample', 'gene'\), got \('gene', 'sample'\)",
        ),
        (widen, "expression: expected dtype 'float32', got 'float64'"),
        (change_units, "expression: expected units 'log2', got 'TPM'"),
        (drop_units, "expression: expected units 'log2', got None"),
        (number_genes, "gene: expected dtype 'str', got 'int64'"),
        (repeat_gene, "gene: labels repeat, for example 'g1'"),
        (empty_label, "sample: empty label"),
    ],
)
def test_validate__names_each_problem(dataset, spoil, message):
    with pytest.raises(SchemaError, match=f"^store 'toy' version 3: {message}$"):
        validation.validate(spoil(dataset), SPEC)


def test_validate__lists_all_problems_at_once(dataset):
    spoilt = add_unknown(repeat_gene(empty_label(change_units(widen(dataset)))))
    with pytest.raises(SchemaError) as error:
        validation.validate(spoilt, replace(SPEC, arrays=(*SPEC.arrays, schema.RAW["series"])))
    text = str(error.value)
    for part in (
        "missing 'series'",
        "unknown 'extra'",
        "expected dtype 'float32'",
        "expected units 'log2'",
        "gene: labels repeat",
        "sample: empty label",
    ):
        assert part in text
    assert text.count("; ") == 5
    assert "\n" not in text


def test_validate__does_not_read_the_matrix(dataset):
    def fail(*_):
        raise AssertionError("read")

    import dask.array as da

    lazy = da.map_blocks(
        fail, da.zeros((2, 3), dtype="float32"), dtype="float32", meta=np.empty((0, 0), "f4")
    )
    validation.validate(
        dataset.assign(expression=(("sample", "gene"), lazy, {"units": "log2"})), SPEC
    )


# ---------------------------------------------------------------- specs


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_specs__are_consistent(spec):
    names = [a.name for a in spec.arrays]
    assert len(set(names)) == len(names)
    for array in spec.arrays:
        assert array.description
        assert array.dtype == "str" or np.dtype(array.dtype).name == array.dtype
        assert set(array.dims) <= set(names), "a dim has its index coordinate"
        assert array.is_coord or array.name not in array.dims
        if array.written == "region":
            assert array.dims[0] in ("sample", "region"), "a region task writes its own rows only"
    for dim in {d for a in spec.arrays for d in a.dims}:
        assert spec[dim].dims == (dim,)
        assert spec[dim].is_coord


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_specs__older_versions_are_read_of_stores_without_regions(spec):
    assert all(version < spec.version for version in spec.upgrades)
    assert not (spec.upgrades and spec.region_arrays)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_specs__sizes_are_known_at_creation(spec):
    created = {d for a in spec.arrays if a.written == "create" for d in a.dims}
    assert {d for a in spec.region_arrays for d in a.dims} <= created


def test_getitem__returns_the_array_of_that_name():
    assert SPEC["note"] is SPEC.arrays[1]


def test_is_matrix__only_what_regions_write_by_sample_and_gene():
    assert SPEC["expression"].is_matrix
    assert not replace(SPEC["expression"], written="finish").is_matrix
    assert not SPEC["note"].is_matrix
    assert [a.name for a in schema.CONTRIBUTIONS.region_arrays if a.is_matrix] == ["contribution"]


# ---------------------------------------------------------------- chunk arithmetic


@pytest.mark.parametrize(
    ("n_samples", "chunk", "shard"),
    [
        (1, 16, 16),
        (40, 48, 48),
        (256, 256, 256),
        (571, 256, 256),
        (2_000, 256, 256),
        (4_096, 256, 512),
        (16_384, 256, 2_048),
        (129_158, 256, 2_048),
    ],
)
def test_shard_samples__known_sizes(n_samples, chunk, shard):
    assert layout.chunk_samples(n_samples) == chunk
    assert layout.shard_samples(n_samples) == shard


@given(st.integers(1, 500_000))
def test_shard_samples__whole_chunks_and_enough_regions(n_samples):
    chunk = layout.chunk_samples(n_samples)
    shard = layout.shard_samples(n_samples)
    assert shard % chunk == 0
    assert chunk <= shard <= layout.SHARD_SAMPLES
    if n_samples >= layout.MIN_REGIONS * chunk:
        assert -(-n_samples // shard) >= layout.MIN_REGIONS
    if shard > chunk:
        assert n_samples // shard >= layout.MIN_REGIONS


@given(st.integers(1, 500_000))
def test_chunk_samples__covers_tiny_stores_and_no_more(n_samples):
    chunk = layout.chunk_samples(n_samples)
    assert chunk % 16 == 0
    assert chunk == 256 if n_samples > 240 else n_samples <= chunk < n_samples + 16


@pytest.mark.parametrize(
    ("n_genes", "chunk"),
    [(1, 1), (100, 100), (2_048, 2_048), (3_072, 1_536), (10_463, 2_093), (22_268, 2_025)],
)
def test_chunk_genes__known_sizes(n_genes, chunk):
    assert layout.chunk_genes(n_genes) == chunk


@given(st.integers(1, 100_000))
def test_chunk_genes__balanced_with_little_padding(n_genes):
    chunk = layout.chunk_genes(n_genes)
    count = -(-n_genes // chunk)
    assert chunk <= 3_072
    assert chunk * count - n_genes < count
    assert n_genes < 3_072 or chunk > 1_365


# ---------------------------------------------------------------- documentation


def test_stores_markdown__file_is_current():
    path = REPO / "docs" / "make_stores.py"
    script = importlib.util.spec_from_file_location("make_stores", path)
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.stores_markdown(), "run make docs"
    for spec in SPECS.values():
        assert f"## {spec.name} (version {spec.version})" in module.stores_markdown()
        for array in spec.arrays:
            assert f"| `{array.name}`" in module.stores_markdown()
