import dask
import numpy as np
import pytest

from dglzarr import quantile_normalize
from dglzarr.errors import SchemaError, StoreError
from dglzarr.kernels.quantile import apply_quantile, finish_quantile, sum_sorted
from dglzarr.stages import normalize as stage
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    LENGTHS,
    TRAIN,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    remove_regions,
    simulate,
    splits,
    times,
    write_matrix,
)


def values_of(uri):
    return open_store(uri)["expression"].values


@pytest.fixture(scope="module")
def values():
    return simulate(missing_fraction=0.02).expression


@pytest.fixture(scope="module")
def source(tmp_path_factory, values):
    return write_matrix(tmp_path_factory.mktemp("study") / "e", EXPRESSION, values)


@pytest.mark.parametrize("ties", ["midrank", "tie-mean", "dgex"])
def test_normalize__is_the_kernel_on_training_samples(tmp_path, source, values, ties):
    normalize(source, target := str(tmp_path / "n"), options=NormalizeOptions(ties=ties))
    train = splits(len(values)) == TRAIN
    reference = finish_quantile(sum_sorted(values[train]))
    np.testing.assert_allclose(read_array(target, "quantile_reference"), reference, rtol=1e-13)
    np.testing.assert_allclose(
        values_of(target), apply_quantile(values, reference, ties=ties), rtol=1e-6
    )


def test_normalize__fit_on_all_is_quantile_normalize(tmp_path, source, values):
    normalize(source, target := str(tmp_path / "n"), options=NormalizeOptions(fit_on="all"))
    np.testing.assert_allclose(values_of(target), quantile_normalize(values), rtol=1e-6)


def test_normalize__complete_values_by_sorting(tmp_path):
    values = simulate(60, n_duplicates=0).expression
    train = splits(len(values)) == TRAIN
    source = write_matrix(tmp_path / "e", EXPRESSION, values)
    normalize(source, target := str(tmp_path / "n"))
    reference = np.sort(values[train].astype(np.float64), axis=1).mean(axis=0)
    np.testing.assert_allclose(
        np.sort(values_of(target), axis=1), np.tile(reference, (len(values), 1)), rtol=1e-6
    )


def test_normalize__input_that_is_normalized_already_is_copied(tmp_path, source, values):
    normalize(source, target := str(tmp_path / "n"), options=NormalizeOptions(method="none"))
    np.testing.assert_array_equal(values_of(target), values)
    wanted = finish_quantile(sum_sorted(values[splits(len(values)) == TRAIN]))
    np.testing.assert_allclose(read_array(target, "quantile_reference"), wanted, rtol=1e-13)


def test_normalize__frozen_reference_of_another_store(tmp_path, source, values):
    normalize(source, first := str(tmp_path / "first"))
    other = write_matrix(tmp_path / "e2", EXPRESSION, values[:33] + 2)
    summary = normalize(other, target := str(tmp_path / "n"), reference=first)
    frozen = read_array(first, "quantile_reference")
    np.testing.assert_array_equal(read_array(target, "quantile_reference"), frozen)
    wanted = apply_quantile(values[:33] + 2, frozen)
    np.testing.assert_array_equal(values_of(target), wanted)
    drift = finish_quantile(sum_sorted(values[:33] + 2)) - frozen
    assert summary.details["drift_rms"] == pytest.approx(np.sqrt((drift**2).mean()))
    assert summary.details["drift_largest"] == pytest.approx(np.abs(drift).max())
    with pytest.raises(StoreError, match="was made from other inputs"):
        normalize(other, target)


def test_normalize__reference_of_other_genes(tmp_path, source, values):
    other = write_matrix(tmp_path / "e2", EXPRESSION, values[:, :33])
    normalize(other, first := str(tmp_path / "first"))
    target = str(tmp_path / "n")
    normalize(source, target)
    before = digests(target)
    message = "first: expected a quantile reference of 40 genes, got 33. Use one of the same genes"
    with pytest.raises(SchemaError, match=message):
        normalize(source, target, reference=first, run=Run(overwrite=True))
    assert digests(target) == before
    with pytest.raises(SchemaError, match="expected schema 'normalized', got 'expression'"):
        normalize(source, target, reference=other, run=Run(overwrite=True))


def test_normalize__missing_stays_missing_and_labels_are_carried(tmp_path, source, values):
    summary = normalize(source, target := str(tmp_path / "n"))
    ds, before = open_store(target), open_store(source)
    np.testing.assert_array_equal(np.isnan(ds["expression"].values), np.isnan(values))
    assert np.isnan(values).sum() > 10
    for name in before.coords:
        np.testing.assert_array_equal(ds[name].values, before[name].values)
    assert summary.state == "new"
    assert ds.attrs["details"]["n_fitted"] == (splits(len(values)) == TRAIN).sum()
    assert ds.attrs["inputs"] == [
        {"role": "source", "uri": source, "store_id": before.attrs["store_id"]}
    ]
    parameters = {
        "method": "quantile", "ties": "midrank", "fit_on": "train", "reference": None
    }  # fmt: skip
    assert ds.attrs["parameters"] == parameters


def test_normalize__shard_length_does_not_matter(tmp_path, values):
    found = []
    for shard in LENGTHS:
        source = write_matrix(tmp_path / f"e{shard}", EXPRESSION, values, shard=shard)
        normalize(source, target := str(tmp_path / f"n{shard}"))
        assert read_attributes(target)["region_length"] == shard
        found.append((read_array(target, "quantile_reference"), values_of(target)))
    for reference, expression in found[1:]:
        np.testing.assert_allclose(reference, found[0][0], rtol=1e-13)
        np.testing.assert_allclose(expression, found[0][1], rtol=1e-6)


def test_normalize__test_samples_do_not_leak(tmp_path, source, values):
    changed = np.where((splits(len(values)) == TRAIN)[:, None], values, values**2)
    other = write_matrix(tmp_path / "other", EXPRESSION, changed)
    normalize(source, a := str(tmp_path / "a"))
    normalize(other, b := str(tmp_path / "b"))
    np.testing.assert_array_equal(
        read_array(a, "quantile_reference"), read_array(b, "quantile_reference")
    )
    train = splits(len(values)) == TRAIN
    np.testing.assert_array_equal(values_of(a)[train], values_of(b)[train])
    normalize(source, a := str(tmp_path / "a-all"), options=NormalizeOptions(fit_on="all"))
    normalize(other, b := str(tmp_path / "b-all"), options=NormalizeOptions(fit_on="all"))
    assert (read_array(a, "quantile_reference") != read_array(b, "quantile_reference")).any()


def test_normalize__resumes_with_the_same_bytes(tmp_path, source):
    normalize(source, target := str(tmp_path / "n"))
    before, kept = digests(target), times(target)
    remove_regions(target, ["expression"], [0, 3, 6])
    said = []
    summary = normalize(source, target, run=Run(on_progress=lambda what, *_: said.append(what)))
    assert summary.state == "resumed"
    assert "normalizing, 4 of 7 regions kept" in said
    assert (digests(target), is_complete(target)) == (before, True)
    assert summary.sizes["sample"] == 100
    after = times(target)
    assert after["expression/c/1/0"] == kept["expression/c/1/0"]
    assert after["expression/c/3/0"] > kept["expression/c/3/0"]


def test_normalize__fails_half_way_and_goes_on(tmp_path, source, monkeypatch):
    normalize(source, whole := str(tmp_path / "whole"))
    target = str(tmp_path / "n")
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_apply_region", Breaks(stage._apply_region, 3))
        with pytest.raises(BrokenError):
            normalize(source, target)
    assert not is_complete(target)
    assert len(list((tmp_path / "n/expression/c").iterdir())) == 3
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    with monkeypatch.context() as counting:
        counting.setattr(stage, "_apply_region", Breaks(stage._apply_region, 4))
        counting.setattr(stage, "_fit_region", Breaks(stage._fit_region, 0))
        normalize(source, target)
    assert digests(target) == digests(whole)


def test_normalize__second_run_touches_nothing(tmp_path, source):
    first = normalize(source, target := str(tmp_path / "n"))
    before = times(tmp_path)
    second = normalize(source, target)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before
    assert second.details == first.details


def test_normalize__other_parameters(tmp_path, source):
    normalize(source, target := str(tmp_path / "n"))
    before = read_attributes(target)["store_id"]
    with pytest.raises(
        StoreError, match=r"other parameters: normalize\.ties: 'midrank' -> 'dgex'.*--overwrite"
    ):
        normalize(source, target, options=NormalizeOptions(ties="dgex"))
    assert read_attributes(target)["store_id"] == before
    assert (
        normalize(
            source, target, options=NormalizeOptions(ties="dgex"), run=Run(overwrite=True)
        ).state
        == "new"
    )
    assert read_attributes(target)["store_id"] != before


def test_normalize__other_input(tmp_path, source, values):
    normalize(source, target := str(tmp_path / "n"))
    other = write_matrix(tmp_path / "other", EXPRESSION, values + 1)
    with pytest.raises(StoreError, match=r"was made from other inputs: .*other"):
        normalize(other, target)


def test_normalize__refuses_another_store(tmp_path, values):
    source = write_matrix(tmp_path / "n", NORMALIZED, values)
    with pytest.raises(SchemaError, match="expected schema 'expression', got 'normalized'"):
        normalize(source, str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_normalize__opening_computes_nothing(tmp_path, source):
    normalize(source, target := str(tmp_path / "n"))
    with no_computing():
        ds = open_store(target, NORMALIZED)
        with pytest.raises(AssertionError, match="computed"):
            ds["expression"].compute()
    assert dask.is_dask_collection(ds["expression"])
