"""Ridge: scikit-learn as the oracle, any chunking, the limits of the penalty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from dglzarr.kernels.linear import (
    _inverse,
    merge_ridge,
    predict_ridge,
    ridge_partial,
    ridge_path,
)
from tests.strategies import cuts


def regression(seed=0, n_samples=60, n_landmarks=7, n_targets=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(8, 2, (n_samples, n_landmarks))
    y = x @ rng.normal(size=(n_landmarks, n_targets)) + 5 + rng.normal(size=(n_samples, n_targets))
    return x.astype(np.float32), y.astype(np.float32)


def solved(partial, alpha):
    """Coefficients (landmark, target) and intercepts (target,), in float64."""
    path = ridge_path(partial)
    coef = path.axes @ (path.rotated * _inverse(path, alpha)[:, None])
    return coef, path.y_mean - path.x_mean @ coef


def test_ridge_path__hand_worked():
    x, y = np.array([[-1.0], [1.0]]), np.array([[3.0], [7.0]])
    coef, intercept = solved(ridge_partial(x, y), 2.0)
    np.testing.assert_allclose(coef, [[1.0]])
    np.testing.assert_allclose(intercept, [5.0])


def test_ridge_partial__naive_loop():
    x, y = regression(n_samples=20)
    partial = ridge_partial(x, y)
    xtx, xty = np.zeros((7, 7)), np.zeros((7, 5))
    for a, b in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        xtx += np.outer(a, a)
        xty += np.outer(a, b)
    np.testing.assert_allclose(partial.xtx, xtx, rtol=1e-12)
    np.testing.assert_allclose(partial.xty, xty, rtol=1e-12)
    np.testing.assert_allclose(partial.x_sum, x.astype(np.float64).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(partial.y_sum, y.astype(np.float64).sum(axis=0), rtol=1e-12)
    assert partial.n == 20


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(60, 7), (10, 30)], ids=["tall", "wide"])
def test_ridge_path__equals_scikit_learn(alpha, shape):
    x, y = regression(n_samples=shape[0], n_landmarks=shape[1])
    coef, intercept = solved(ridge_partial(x, y), alpha)
    model = Ridge(alpha).fit(x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(coef, model.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(intercept, model.intercept_, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("shape", [(60, 7), (10, 30)], ids=["tall", "wide"])
def test_ridge_path__without_penalty_is_least_squares(shape):
    x, y = (m.astype(np.float64) for m in regression(n_samples=shape[0], n_landmarks=shape[1]))
    coef, _ = solved(ridge_partial(x, y), 0.0)
    expected = np.linalg.lstsq(x - x.mean(axis=0), y - y.mean(axis=0))[0]
    np.testing.assert_allclose(coef, expected, atol=1e-7)


def test_ridge_path__repeated_landmark_shares_the_coefficient():
    x, y = regression(n_landmarks=1)
    twice, _ = solved(ridge_partial(np.repeat(x, 2, axis=1), y), 0.0)
    once, _ = solved(ridge_partial(x, y), 0.0)
    np.testing.assert_allclose(twice, np.repeat(once / 2, 2, axis=0), rtol=1e-6)


def test_ridge_path__constant_landmarks_predict_the_mean():
    x, y = regression()
    coef, intercept = solved(ridge_partial(np.full_like(x, 7.3), y), 0.0)
    np.testing.assert_allclose(coef, 0, atol=1e-9)
    np.testing.assert_allclose(intercept, y.mean(axis=0, dtype=np.float64), rtol=1e-9)


def test_ridge_path__huge_penalty_predicts_the_mean():
    x, y = regression()
    coef, intercept = solved(ridge_partial(x, y), 1e12)
    np.testing.assert_allclose(coef, 0, atol=1e-6)
    np.testing.assert_allclose(intercept, y.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(60, 7), (10, 30)], ids=["tall", "wide"])
def test_predict_ridge__equals_scikit_learn(shape):
    x, y = regression(n_samples=shape[0], n_landmarks=shape[1])
    new = regression(seed=1, n_samples=4, n_landmarks=shape[1])[0]
    alphas = [1e-3, 1.0, 100.0]
    for predicted, alpha in zip(
        predict_ridge(ridge_path(ridge_partial(x, y)), new, alphas), alphas, strict=True
    ):
        model = Ridge(alpha).fit(x.astype(np.float64), y.astype(np.float64))
        np.testing.assert_allclose(predicted, model.predict(new.astype(np.float64)), rtol=1e-5)


@given(st.floats(0, 1e6), st.integers(0, 5))
def test_predict_ridge__equals_coefficients(alpha, seed):
    partial = ridge_partial(*regression(seed))
    new = regression(seed + 1)[0]
    (predicted,) = predict_ridge(ridge_path(partial), new, [alpha])
    coef, intercept = solved(partial, alpha)
    np.testing.assert_allclose(predicted, new @ coef + intercept, rtol=1e-5, atol=1e-4)


@given(st.data())
def test_merge_ridge__any_chunks(data):
    x, y = regression(n_samples=12)
    parts = [ridge_partial(x[rows], y[rows]) for rows in data.draw(cuts(12))]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge_ridge(merged, part)
    whole = ridge_partial(x, y)
    for name in ("xtx", "xty", "x_sum", "y_sum", "n"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, [np.inf, -np.inf]])
@pytest.mark.parametrize("where", [0, 1])
def test_ridge_partial__missing_values_refused(value, where):
    blocks = regression()
    blocks[where][3:5, 2] = value
    with pytest.raises(ValueError, match="landmarks, targets: expected finite values"):
        ridge_partial(*blocks)


def test_ridge_path__no_samples_refused():
    with pytest.raises(ValueError, match="ridge: expected at least one sample, got none"):
        ridge_path(ridge_partial(np.empty((0, 2)), np.empty((0, 3))))


def test_predict_ridge__negative_penalty_refused():
    x, y = regression()
    with pytest.raises(ValueError, match=r"alpha: expected 0 or more, got -0\.5"):
        predict_ridge(ridge_path(ridge_partial(x, y)), x, [1.0, -0.5])
