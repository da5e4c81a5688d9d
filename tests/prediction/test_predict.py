"""Predictions: numbers, intervals, what missing genes cost, and every complaint in one line."""

import numpy as np
import pandas as pd
import pytest

import dglzarr
from dglzarr.errors import ConfigError, SourceError
from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.make import make_bundle
from dglzarr.prediction.measured import _in_own_words
from dglzarr.prediction.predict import MAX_OUT, predict
from tests.prediction.conftest import N_GENES, N_PANEL, PANEL, SYMBOLS, write_study


@pytest.fixture
def frame(held_out):
    """What a lab measured: the panel of held-out samples."""
    names = [f"patient {i}" for i in range(len(held_out))]
    return pd.DataFrame(held_out[:, :N_PANEL], index=names, columns=PANEL)


@pytest.fixture
def truth(held_out, frame):
    columns = [f"{i:03d}_at" for i in range(N_PANEL, N_GENES - 1)]
    return pd.DataFrame(held_out[:, N_PANEL:-1], index=frame.index, columns=columns)


def coverage(found, truth):
    return ((found.lower <= truth) & (truth <= found.upper)).to_numpy().mean()


def error(found, truth):
    return np.nanmean(np.abs(found.predicted - truth))


def test_predict__given_is_ridge_regression(bundle, frame):
    found = predict(bundle, frame, scale="given")
    z = (frame.to_numpy() - bundle["landmark_mean"]) / bundle["landmark_std"]
    expected = (z @ bundle["coefficient"] + bundle["intercept"]) * bundle["gene_std"]
    expected += bundle["gene_mean"]
    np.testing.assert_allclose(found.predicted, expected, rtol=1e-4)
    width = found.genes["half_width"].to_numpy()
    np.testing.assert_allclose(found.upper - found.predicted, np.tile(width, (42, 1)), atol=1e-5)
    np.testing.assert_allclose(found.predicted - found.lower, np.tile(width, (42, 1)), atol=1e-5)
    np.testing.assert_array_equal(width, bundle.of("half_width", "given"))
    assert found.predicted.index.tolist() == frame.index.tolist()
    assert all("samples are unlike training" in note for note in found.notes)
    assert found.samples["trusted"].mean() > 0.9


@pytest.mark.parametrize("scale", ["quantile", "shift", "given"])
def test_predict__intervals_hold_held_out_values(bundle, frame, truth, scale):
    found = predict(bundle, frame, scale=scale)
    assert 0.9 < coverage(found, truth) < 0.99
    assert error(found, truth) < 0.75 * np.abs(truth - bundle["gene_mean"]).to_numpy().mean()


def test_predict__by_path_by_name_and_by_the_package(made, bundle, frame):
    assert dglzarr.predict is predict
    expected = predict(bundle, frame)
    pd.testing.assert_frame_equal(predict(made.output, frame).predicted, expected.predicted)
    symbols = frame.rename(columns=dict(zip(PANEL, SYMBOLS, strict=False)))
    found = predict(bundle, symbols)
    pd.testing.assert_frame_equal(found.predicted, expected.predicted)
    assert found.notes[0].startswith("24 of 24 panel genes are found by symbol or ID, not by label")
    ids = frame.rename(columns={gene: str(1000 + i) for i, gene in enumerate(PANEL)})
    pd.testing.assert_frame_equal(predict(bundle, ids).predicted, expected.predicted)


def test_predict__quantile_and_shift_forgive_what_they_say(bundle, frame):
    found = predict(bundle, frame)
    pd.testing.assert_frame_equal(predict(bundle, 0.5 * frame + 3).predicted, found.predicted)
    shifted = frame + np.linspace(-2, 2, len(frame))[:, None].astype(np.float32)
    np.testing.assert_allclose(
        predict(bundle, shifted, scale="shift").predicted,
        predict(bundle, frame, scale="shift").predicted,
        atol=1e-3,
    )


def test_predict__order_of_genes_and_samples_and_extra_genes_do_not_matter(bundle, frame, held_out):
    expected = predict(bundle, frame)
    more = frame.assign(**{f"{i:03d}_at": held_out[:, i] for i in range(N_PANEL, N_PANEL + 5)})
    found = predict(bundle, more[more.columns[::-1]].iloc[::-1])
    pd.testing.assert_frame_equal(found.predicted.iloc[::-1], expected.predicted)
    assert found.notes == ["5 of 29 genes are not on the panel: not used.", *expected.notes]


def test_predict__one_sample(bundle, frame):
    found = predict(bundle, frame.iloc[[3]])
    np.testing.assert_allclose(
        found.predicted, predict(bundle, frame).predicted.iloc[[3]], rtol=1e-5
    )
    assert found.notes[0].startswith("One sample: whether a shift of its values is its batch")


def test_predict__missing_genes_cost_what_is_told(bundle, frame, truth):
    whole = predict(bundle, frame)
    found = predict(bundle, frame.drop(columns=PANEL[:4]), max_missing=0.2)
    assert found.notes[0].startswith("4 of 24 panel genes are missing (G0, G1, G2, G3): the others")
    assert (found.samples["n_imputed"] == 4).all()
    assert (found.genes["half_width"] > whole.genes["half_width"]).all()
    assert coverage(found, truth) > 0.9
    before, after = (
        float(v) for v in found.notes[0].split("error ")[1].split(" (")[0].split(" -> ")
    )
    real = error(found, truth) / error(whole, truth)
    assert 1 < real < 2 * after / before


def same(found, expected):
    for name in ("predicted", "lower", "upper", "genes", "samples"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))


def test_predict__a_gene_without_a_value_is_missing(bundle, frame):
    expected = predict(bundle, frame.drop(columns=PANEL[3]))
    found = predict(bundle, frame.assign(**{PANEL[3]: np.nan}))
    same(found, expected)
    assert found.notes == expected.notes
    assert found.notes[0].startswith("1 of 24 panel genes are missing (G3): the others stand in")


@pytest.mark.parametrize("scale", ["quantile", "shift", "given"])
def test_predict__a_failed_probe_is_missing(bundle, frame, scale):
    expected = predict(bundle, frame.drop(columns=PANEL[3]), scale=scale)
    found = predict(bundle, frame.assign(**{PANEL[3]: 0.0}), scale=scale)
    same(found, expected)
    assert found.notes == [
        "1 panel genes are the same in all samples, as of a failed probe (G3): taken as missing.",
        *expected.notes,
    ]


def test_predict__a_gene_out_of_range_in_most_samples_is_missing(bundle, frame, rng):
    expected = predict(bundle, frame.drop(columns=PANEL[3]), scale="given")
    noise = rng.normal(0, 0.1, len(frame)).astype(np.float32)
    found = predict(bundle, frame.assign(**{PANEL[3]: 20 + noise}), scale="given")
    same(found, expected)
    assert found.notes == [
        "1 panel genes are out of their training range in most samples (G3): taken as missing.",
        *expected.notes,
    ]
    place = int(np.flatnonzero(expected.samples["n_out_of_range"] == 0)[0])
    one = predict(bundle, frame.assign(**{PANEL[3]: 20.0}).iloc[[place]], scale="given")
    told = one.samples[["n_imputed", "n_out_of_range"]]
    assert told.iloc[0].tolist() == [0, 1]  # one sample does not tell a failed probe


def test_predict__one_sample_given_again_has_all_its_genes(bundle, frame):
    twice = pd.concat([frame.iloc[[3]], frame.iloc[[3]].rename(index=lambda _: "again")])
    assert predict(bundle, twice).samples["n_imputed"].tolist() == [0, 0]


def test_predict__genes_that_go_together_are_missing_together(values, panel_file, tmp_path):
    mates = values.copy()
    noise = np.random.default_rng(5).normal(0, 0.2, (len(values), 2))
    program = np.random.default_rng(6).normal(0, 1.5, len(values))
    mates[:, :2] = 8 + program[:, None] + noise  # the only genes of the panel that carry it
    mates[:, 50:60] += program[:, None]
    held = slice(130, None)
    root = write_study(tmp_path / "study", mates)
    bundle = load_bundle(make_bundle(root, tmp_path / "a.zip", panel=panel_file).output)
    panel = pd.DataFrame(mates[held, :N_PANEL], columns=PANEL)
    served = [f"{i:03d}_at" for i in range(50, 60)]
    truth = mates[held, 50:60]
    for missing in ([], PANEL[:1], PANEL[:2]):
        found = predict(bundle, panel.drop(columns=missing), scale="given")
        low, high = (one[served].to_numpy() for one in (found.lower, found.upper))
        inside = (low <= truth) & (truth <= high)
        assert 0.92 < inside.mean() < 0.99


def test_predict__values_missing_of_some_samples(bundle, frame):
    whole = predict(bundle, frame)
    lacking = frame.copy()
    lacking.iloc[2, 1] = np.nan
    lacking.iloc[7] = np.nan
    found = predict(bundle, lacking)
    others = [i for i in range(len(frame)) if i not in (2, 7)]
    pd.testing.assert_frame_equal(found.predicted.iloc[others], whole.predicted.iloc[others])
    pd.testing.assert_frame_equal(found.upper.iloc[others], whole.upper.iloc[others])
    width, before = (p.upper.iloc[2] - p.lower.iloc[2] for p in (found, whole))
    assert (width >= before - 1e-4).all()
    assert width.mean() > before.mean()
    assert found.predicted.iloc[7].isna().all()
    assert found.lower.iloc[7].isna().all()
    assert not found.samples["trusted"].iloc[7]
    assert "1 of 42 samples lack too much of the panel: not predicted (patient 7)." in found.notes


def test_predict__samples_unlike_training_are_marked(bundle, frame, rng):
    mixed = frame.copy()
    mixed.iloc[5] = rng.permutation(mixed.iloc[5].to_numpy())
    found = predict(bundle, mixed)
    assert found.samples["novelty"].iloc[5] > 1
    assert not found.samples["trusted"].iloc[5]
    assert any("unlike training" in note and "patient 5" in note for note in found.notes)
    usual = predict(bundle, frame).samples["novelty"]
    assert usual.median() < 1


def test_predict__genes_out_of_range_are_told(bundle, frame):
    high = frame.copy()
    high.iloc[:, :6] += 20
    found = predict(bundle, high, scale="given")
    assert (found.samples["n_out_of_range"] >= 6).all()
    assert MAX_OUT * N_PANEL < 6
    assert not found.samples["trusted"].any()
    assert any(
        note.startswith("6 panel genes are out of their training range in most samples (G0, G1,")
        for note in found.notes
    )


def test_predict__genes_predicted_no_better_than_by_the_mean(bundle, frame):
    found = predict(bundle, frame)
    poor = found.genes["explained"] <= 0
    assert (found.genes["trusted"] == ~poor).all()
    assert any("no better than by the training mean" in note for note in found.notes) == poor.any()


def test_predict__counts(bundle, frame):
    counts = np.round(2**frame).clip(lower=0).astype(np.float32)
    with pytest.raises(SourceError, match=r"frame: expected log2 values, got read counts up to"):
        predict(bundle, counts)
    found = predict(bundle, counts, unit="counts")
    np.testing.assert_allclose(
        found.predicted.to_numpy(), predict(bundle, frame).predicted.to_numpy(), atol=0.5
    )


def test_predict__negative_values_are_told_or_refused(bundle, frame):
    raw = (2 ** pd.concat([frame] * 8, ignore_index=True)).astype(np.float32)
    raw.iloc[10, 3] = -1.0
    raw.iloc[10, 4] = -2.0
    found = predict(bundle, raw, unit="intensity")
    assert "2 negative values are taken as 0." in found.notes
    assert not any("negative" in note for note in predict(bundle, frame).notes)
    with pytest.raises(SourceError, match=r"frame: expected tpm from 0, got"):
        predict(bundle, raw, unit="tpm")


def test_predict__samples_of_another_unit_beside_others_are_refused_in_its_own_words(bundle, frame):
    mixed = frame.copy()
    mixed.iloc[:5] = 2 ** mixed.iloc[:5]
    text = told(SourceError, bundle, mixed)
    assert "got 5 of 42 samples seen raw ('patient 0', " in text
    assert text.endswith(
        "Bring them to one scale, or leave out what is no sample. Where all are of one scale as "
        "they are, state it, such as --unit fpkm (unit= in Python)."
    )
    with_p_values = frame.copy()
    with_p_values.iloc[:2] = np.linspace(0, 1, N_PANEL, dtype=np.float32)
    text = told(SourceError, bundle, with_p_values)
    assert text.endswith("Give the columns of expression alone.")


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("state it, such as unit = 'log2' or 'tpm'.", "such as --unit log2 or tpm (unit= in P"),
        ("one of them, as in value_columns = ['*_S'].", "one of them."),
        ("are, state value_columns = ['*'].", "are, give them as a frame in Python."),
        ("no sample, which value_columns leaves out", "no sample"),
        ("in rows, state samples_in = 'rows'", "in rows, state --samples-in rows (samples_in= in"),
    ],
)
def test_in_own_words__no_settings_that_predict_lacks(text, here):
    found = _in_own_words(text)
    assert here in found
    assert "value_columns" not in found
    assert " = '" not in found


def told(error, bundle, frame, **options):
    with pytest.raises(error) as info:
        predict(bundle, frame, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_predict__refused_in_one_line(bundle, frame):
    text = told(SourceError, bundle, frame.drop(columns=PANEL[:4]))
    assert text.startswith(
        "frame: expected at most 10 % of the 24 panel genes missing, got 4 (17 %)"
    )
    assert text.endswith("or raise --max-missing.")
    assert "expected genes of the panel such as '000_at' or 'G0'" in told(
        SourceError, bundle, frame.T
    )
    twice = pd.concat([frame, frame[[PANEL[0]]]], axis=1)
    assert told(SourceError, bundle, twice) == "frame: expected each gene once, got '000_at' again."
    twice = pd.concat([frame, frame.iloc[:1]])
    assert "expected each sample once, got 'patient 0' again" in told(SourceError, bundle, twice)
    text = told(SourceError, bundle, frame.astype(object).replace(frame.iloc[0, 0], "high"))
    assert text.startswith("frame: expected numbers, got could not convert")
    assert "expected samples and genes, got 0 x 24" in told(SourceError, bundle, frame.iloc[:0])
    infinite = frame.replace(frame.iloc[0, 0], np.inf)
    assert "expected finite values or NaN" in told(SourceError, bundle, infinite)
    centred = frame - frame.mean()
    assert "median-centred" in told(SourceError, bundle, centred)
    empty = frame * np.nan
    assert "expected at least one number" in told(SourceError, bundle, empty)
    few = frame.copy()
    few.iloc[::2, :6] = np.nan
    few.iloc[1::2, -6:] = np.nan
    assert "expected samples with at most 10 % of the panel missing, got none of 42" in told(
        SourceError, bundle, few
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale": "rank"}, r"scale: expected one of \('quantile', 'shift', 'given'\), got 'rank'"),
        ({"unit": "cpm"}, r"unit: expected one of .*, got 'cpm'"),
        ({"max_missing": 1.0}, "max_missing: expected 0 up to under 1, got 1.0"),
    ],
)
def test_predict__options_refused(bundle, frame, options, match):
    with pytest.raises(ConfigError, match=match):
        predict(bundle, frame, **options)


def test_predict__several_columns_of_one_gene_are_averaged_and_told(bundle, frame):
    named = frame.rename(columns={PANEL[0]: "ENSG00000000001.1"})
    assert "24 panel genes missing, got 1" in told(SourceError, bundle, named, max_missing=0.0)
    both = frame.drop(columns=PANEL[1]).assign(g1=frame[PANEL[1]] - 1, G1=frame[PANEL[1]] + 1)
    found = predict(bundle, both)
    np.testing.assert_allclose(found.predicted, predict(bundle, frame).predicted, atol=1e-4)
    assert "1 panel genes are measured several times (G1): averaged." in found.notes
