"""The moderated t is limma's: values that limma 3.54.1 gives for the same matrix are recorded."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from dglzarr.kernels.moderated import moderated_t

GENES = [0, 1, 5, 30, 59]


def values(*, scaled):
    """R: y <- outer(0:59, 0:8, function(i, j) ...); eBayes(lmFit(y, cbind(1, 0:8 < 4)))."""
    i, j = np.arange(60)[:, None], np.arange(9)
    wave = np.sin(i * 7 + j * j * 3 + i * j)
    if scaled:
        wave = wave * (1 + (i % 7) / 2) + 8 + (i % 5 == 0) * (j < 4)
    return wave[:, :4].T, wave[:, 4:].T


def test_moderated_t__is_limmas():
    found = moderated_t(*values(scaled=True))
    assert found.prior_df == pytest.approx(4.28474624176)
    assert found.prior_variance == pytest.approx(2.12613862302)
    t = [1.6176928631796, 0.0130364583290, 0.7418064499368, -1.7098948635350, 0.0613151729691]
    np.testing.assert_allclose(found.t[GENES], t, rtol=1e-9)
    p = [0.133316994246, 0.989826333559, 0.473361307017, 0.114606067899, 0.952180713335]
    np.testing.assert_allclose(found.pvalue[GENES], p, rtol=1e-9)
    change = [1.1352531800328, 0.0118859368711, 0.9382782172580, -1.3079629405774, 0.0774531380000]
    np.testing.assert_allclose(found.change[GENES], change, rtol=1e-9)


def test_moderated_t__is_limmas_where_variances_differ_by_chance_alone():
    found = moderated_t(*values(scaled=False))
    assert found.prior_df == np.inf
    assert found.prior_variance == pytest.approx(0.508739003351)
    t = [0.2826791069418, 0.0165610697364, -0.0368567165670, -2.4118209373681, 0.0647508143598]
    np.testing.assert_allclose(found.t[GENES], t, rtol=1e-9)
    p = [0.7775620920072, 0.9867946462457, 0.9706167625069, 0.0163010892149, 0.9484032108965]
    np.testing.assert_allclose(found.pvalue[GENES], p, rtol=1e-9)


def test_moderated_t__recovers_the_prior_it_was_drawn_from():
    rng = np.random.default_rng(0)
    prior = 3.0 * 8 / rng.chisquare(8, size=20_000)  # 8 degrees of freedom, variance 3
    case, control = (rng.normal(size=(n, prior.size)) * np.sqrt(prior) for n in (5, 6))
    found = moderated_t(case, control)
    assert found.prior_df == pytest.approx(8, rel=0.06)
    assert found.prior_variance == pytest.approx(3, rel=0.03)
    assert (found.pvalue < 0.01).mean() == pytest.approx(0.01, abs=0.0025)
    plain = ttest_ind(case, control).statistic
    assert np.corrcoef(plain, found.t)[0, 1] > 0.95  # alike, and not the same
    assert np.abs(found.t).max() < np.abs(plain).max()


def test_moderated_t__genes_that_do_not_vary():
    case, control = np.ones((3, 4)), np.ones((3, 4))
    assert np.isnan(moderated_t(case, control).t).all()
    case = case + np.array([[0.0, 0, 1, 2], [0, 0, 2, 1], [0, 0, 3, 3]])
    found = moderated_t(case, control)
    assert found.t[0] == 0
    assert (found.t[2:] > 0).all()


def test_moderated_t__one_sample_is_too_few():
    with pytest.raises(ValueError, match=r"expected 2 samples or more in each group, got \(1, 3\)"):
        moderated_t(np.ones((1, 2)), np.ones((3, 2)))
