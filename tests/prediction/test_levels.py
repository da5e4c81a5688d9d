"""Samples whose values lie elsewhere are told and not trusted, though ranks would hide them."""

import numpy as np
import pandas as pd
import pytest

from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.levels import are_apart, are_beyond, levels_of, training_levels
from dglzarr.prediction.make import make_bundle
from dglzarr.prediction.predict import predict
from dglzarr.storage.schemas import EXPRESSION
from tests.builders import write_matrix
from tests.prediction.conftest import N_PANEL, PANEL, write_study

TOLD = "elsewhere"
USUAL = {"median": [6.0, 9.0], "spread": [2.0, 4.0]}


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
    who = "The sample lies" if n == 1 else f"1 of {n} samples lies"
    assert note.startswith(f"{who} elsewhere, which ranks hide (patient 0; median ")
    assert "; in training " in note
    assert note.endswith("It is not to be trusted.")
    assert found.samples["lies_elsewhere"].tolist() == [True] + (n - 1) * [False]
    assert not found.samples["trusted"].iloc[0]
    assert found.samples["trusted"].iloc[1:].equals(before.samples["trusted"].iloc[1:])
    assert not any(TOLD in note for note in predict(measured, frame, scale="given").notes)


def test_predict__all_samples_a_little_elsewhere_rank_alike(measured, frame):
    """Which is what the scale is for."""
    assert not any(TOLD in note for note in predict(measured, frame + 2).notes)


@pytest.mark.parametrize("scale", ["quantile", "shift"])
@pytest.mark.parametrize("change", [lambda x: 2.2 * x, lambda x: x + 20, lambda x: 0.1 * x])
@pytest.mark.parametrize("n", [2, 3, 42])
def test_predict__a_whole_file_that_lies_elsewhere(measured, frame, change, n, scale):
    found = predict(measured, change(frame.iloc[:n]), scale=scale, unit="log2")
    (note,) = [note for note in found.notes if TOLD in note]
    hide = ", which ranks hide" if scale == "quantile" else ""
    if n == 2:
        assert note.startswith(f"2 of 2 samples lie elsewhere{hide} (patient 0, patient 1; of the ")
    else:
        whole = f"The whole file lies elsewhere than training{hide} ({n} of {n} samples: patient 0,"
        assert note.startswith(whole)
        assert note.endswith("another unit? They are not to be trusted.")
    assert found.samples["lies_elsewhere"].all()
    assert not found.samples["trusted"].any()


@pytest.mark.parametrize("n_wrong", [2, 7])
@pytest.mark.parametrize("change", [lambda x: 0.1 * x, lambda x: x + 8, np.zeros_like])
def test_predict__the_good_samples_of_a_wrong_file_are_not_told(measured, frame, change, n_wrong):
    frame = frame.iloc[: {2: 3, 7: 12}[n_wrong]].copy()
    before = predict(measured, frame).samples["trusted"]
    frame.iloc[:n_wrong] = change(frame.iloc[:n_wrong].to_numpy())
    found = predict(measured, frame)
    (note,) = [note for note in found.notes if TOLD in note]
    assert note.startswith("Most of the file lies elsewhere than training, which ranks hide (")
    assert found.samples["lies_elsewhere"].tolist() == [i < n_wrong for i in range(len(frame))]
    assert found.samples["trusted"].iloc[n_wrong:].equals(before.iloc[n_wrong:])


def test_predict__samples_that_lack_genes_tell_nothing_and_are_not_told(measured, frame):
    """Neither do they make three of two, nor the middle of a file, nor a line of their own."""
    frame = frame.iloc[:6].copy()
    frame.iloc[:4] += 8
    frame.iloc[:4, 8:] = np.nan
    found = predict(measured, frame)
    assert not any(TOLD in note for note in found.notes)
    assert not found.samples["lies_elsewhere"].any()
    frame.iloc[4] += 8
    found = predict(measured, frame)
    (note,) = [note for note in found.notes if TOLD in note]
    assert note.startswith("1 of 6 samples lies elsewhere, which ranks hide (patient 4; ")
    assert np.flatnonzero(found.samples["lies_elsewhere"]).tolist() == [4]


def test_predict__a_bundle_that_knows_no_levels_compares_samples_alone(bundle, frame):
    assert bundle.details["measured"] is None
    assert not any(TOLD in note for note in predict(bundle, frame.iloc[:1] + 8).notes)
    frame.iloc[3] += 8
    (note,) = [note for note in predict(bundle, frame).notes if TOLD in note]
    assert note.startswith("1 of 42 samples lies elsewhere, which ranks hide (patient 3; median ")
    assert "; in the middle of the file " in note


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


def test_are_beyond__has_a_margin():
    medians = [3.1, 11.9, 2.9, 12.1, 7.0, 7.0, 7.0, np.nan]
    levels = np.array([medians, [3.0] * 4 + [1.1, 0.9, 8.1, 3.0]])
    far = [False, False, True, True, False, True, True, False]
    assert are_beyond(levels, USUAL).tolist() == far
    assert not are_beyond(levels, None).any()


@pytest.mark.parametrize(("others", "told"), [(7.0, True), (14.0, False)])
def test_are_apart__a_middle_beyond_training_condemns_none(others, told):
    """A sample within training's levels, whatever most others are."""
    levels = np.array([[others] * 7 + [10.5], [3.0] * 8])
    assert are_apart(levels, USUAL).tolist() == 7 * [others > 12] + [told]


def test_levels_of__samples_without_a_value():
    assert np.isnan(levels_of(np.full((2, 5), np.nan))).all()
