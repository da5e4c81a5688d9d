"""Samples whose values lie elsewhere are told and not trusted, though ranks would hide them."""

import numpy as np
import pandas as pd
import pytest

from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.levels import are_apart, levels_of, training_levels
from dglzarr.prediction.make import make_bundle
from dglzarr.prediction.predict import predict
from dglzarr.storage.schemas import EXPRESSION
from tests.builders import write_matrix
from tests.prediction.conftest import N_PANEL, PANEL, write_study

TOLD = "which ranks hide"


@pytest.fixture(scope="module")
def measured(values, panel_file, tmp_path_factory):
    """A bundle of a study that has its values from before normalization, two units higher."""
    root = write_study(tmp_path_factory.mktemp("levels") / "study", values)
    write_matrix(f"{root}/segments/0000/expression.zarr", EXPRESSION, values + 2, shard=48)
    return load_bundle(make_bundle(root, f"{root}.zip", panel=panel_file).output)


@pytest.fixture
def frame(held_out):
    names = [f"patient {i}" for i in range(len(held_out))]
    return pd.DataFrame(held_out[:, :N_PANEL] + 2, index=names, columns=PANEL)


def few_known(values):
    return np.where(np.arange(values.size) < 3, values, 0.0)


ODD = {
    "another unit": lambda values: values + 8,
    "natural or decimal logarithm": lambda values: values * np.log10(2),
    "constant": lambda values: np.full_like(values, 9.0),
    "all zeros but few": few_known,
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
@pytest.mark.parametrize("n", [1, 2, 3, 42])
def test_predict__a_sample_that_lies_elsewhere(measured, frame, change, n):
    frame = frame.iloc[:n].copy()
    before = predict(measured, frame)
    assert not any(TOLD in note for note in before.notes)
    frame.iloc[0] = change(frame.iloc[0].to_numpy()).astype(np.float32)
    found = predict(measured, frame)
    (note,) = [note for note in found.notes if TOLD in note]
    assert note.startswith(f"1 of {n} samples lie elsewhere, which ranks hide (patient 0; of the f")
    assert ("in training" in note) == (n < 3)
    assert not found.samples["trusted"].iloc[0]
    assert found.samples["trusted"].iloc[1:].equals(before.samples["trusted"].iloc[1:])
    assert not any(TOLD in note for note in predict(measured, frame, scale="given").notes)


def test_predict__all_samples_in_another_unit_rank_alike(measured, frame):
    """Which is what the scale is for."""
    assert not any(TOLD in note for note in predict(measured, frame + 3).notes)


def test_predict__a_bundle_that_knows_no_levels_compares_samples_alone(bundle, frame):
    assert bundle.details["measured"] is None
    assert not any(TOLD in note for note in predict(bundle, frame.iloc[:1] + 8).notes)
    frame.iloc[3] += 8
    assert any(TOLD in note and "patient 3" in note for note in predict(bundle, frame).notes)


def test_training_levels__are_those_of_the_samples_fitted_on(measured, values):
    panel = values[: 10 * 14, :N_PANEL] + 2
    median = np.nanmedian(panel, axis=1)
    q = np.nanquantile(panel, [0.25, 0.75], axis=1)
    found = measured.details["measured"]
    np.testing.assert_allclose(found["median"], [median.min(), median.max()], rtol=1e-6)
    spread = q[1] - q[0]
    np.testing.assert_allclose(found["spread"], [spread.min(), spread.max()], rtol=1e-6)


def test_training_levels__without_the_store(tmp_path):
    none = np.empty(0, dtype=np.int64)
    assert training_levels(str(tmp_path / "expression.zarr"), none, none) is None


def test_are_apart__levels_that_vary_are_no_failures(rng):
    """Medians of a file may differ by more than three units, where most do."""
    levels = np.stack([rng.normal(8, 3, 60), rng.uniform(2, 4, 60)])
    assert not are_apart(levels, None).any()
    levels[0, 7] = 40
    assert np.flatnonzero(are_apart(levels, None)).tolist() == [7]
    levels[:, 9] = np.nan
    assert np.flatnonzero(are_apart(levels, None)).tolist() == [7]


def test_levels_of__samples_without_a_value():
    assert np.isnan(levels_of(np.full((2, 5), np.nan))).all()
