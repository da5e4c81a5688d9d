"""Owns how sure a comparison of panels is: bootstrap intervals and paired tests.

References
----------
Efron and Tibshirani (1993), An Introduction to the Bootstrap, doi 10.1201/9780429246593.
Hesterberg (2015), What Teachers Should Know About the Bootstrap, doi
10.1080/00031305.2015.1089789: percentile intervals of few are too narrow; expanded by t.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices

MIN_GROUPS = 3
LEVEL = 0.05
"""A paired test says something under this p-value."""


class PairedTest(NamedTuple):
    """How two panels differ over the same targets; NaN where a test is undefined."""

    share_better: float
    t_pvalue: float
    wilcoxon_pvalue: float


class Paired(NamedTuple):
    """One panel's error less another's: over series, and over target genes.

    Attributes
    ----------
    mean
        Mean over samples of the difference.
    low, high
        Its 95 % interval when whole series are drawn again; NaN with fewer than 3.
    pvalue
        Wilcoxon's signed rank test over target genes.
    """

    mean: float
    low: float
    high: float
    pvalue: float

    @property
    def sign(self) -> int:
        """-1 or 1 where both say that the error is lower or higher, else 0.

        Examples
        --------
        >>> Paired(-0.1, -0.2, -0.05, 0.001).sign, Paired(-0.1, -0.2, 0.05, 0.001).sign
        (-1, 0)
        """
        if not self.pvalue < LEVEL:
            return 0
        return -1 if self.high < 0 else int(self.low > 0)

    def lowest_of(self, n_tested: int, n_series: int) -> "Paired":
        """Return the same, held to the level 0.05 / n_tested: that of the lowest of several.

        The interval as wide as Student's t asks at that level, the p-value times `n_tested`
        (Bonferroni); at most 5 % then tell one by chance, fewer where panels are alike.

        Examples
        --------
        >>> found = Paired(-0.2, -0.3, -0.1, 0.02).lowest_of(5, n_series=5)
        >>> round(found.low, 2), round(found.high, 2), found.pvalue
        (-0.37, -0.03, 0.1)
        """
        if n_tested < 2 or n_series < MIN_GROUPS:
            return self
        from scipy.special import stdtrit  # noqa: PLC0415  (a seventh of a second)

        at, asked = stdtrit(n_series - 1, [1 - LEVEL / 2, 1 - LEVEL / (2 * n_tested)])
        wider = float(asked / at)
        low, high = (self.mean + wider * (end - self.mean) for end in (self.low, self.high))
        return Paired(self.mean, low, high, min(1.0, n_tested * self.pvalue))

    def word(self, better: str, worse: str, *, over: str) -> str:
        """Return what the difference says: better, worse, neither, or that it cannot be told.

        Parameters
        ----------
        better, worse
            What a lower and a higher error are called.
        over
            The series that it is over, in words.

        Examples
        --------
        >>> Paired(-0.1, np.nan, np.nan, 0.001).word("better", "worse", over="2 held-out series")
        'cannot be told: 2 held-out series'
        """
        if np.isnan(self.low):
            return f"cannot be told: {over}"
        return {-1: better, 0: "no detectable difference", 1: worse}[self.sign]


def paired_difference(
    errors: NDArray[np.floating],
    others: NDArray[np.floating],
    series: NDArray[np.generic],
    targets: tuple[NDArray[np.floating], NDArray[np.floating]],
    *,
    seed: int = 0,
) -> Paired:
    """Return how one panel's errors differ from another's.

    Parameters
    ----------
    errors, others : (sample,), mean errors over the same targets
    series : (sample,), the study that each is of
    targets : (target,) twice, mean errors over the same samples
    seed : of the bootstrap
    """
    difference = errors.astype(np.float64) - others.astype(np.float64)
    known = difference[~np.isnan(difference)]
    mean = float(known.mean()) if known.size else np.nan
    ((low, high),) = bootstrap_interval(difference[np.newaxis], series, seed=seed)
    return Paired(mean, float(low), float(high), paired_test(*targets).wilcoxon_pvalue)


def bootstrap_interval(
    values: NDArray[np.floating],
    group: NDArray[np.generic],
    *,
    n_draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the interval (row, 2) of the mean over samples when whole groups are drawn again.

    Parameters
    ----------
    values : (row, sample); a missing value does not count
    group : (sample,), a label; the sample's own draws samples, its series draws series
    n_draws : bootstrap samples
    level : share of the draws inside the interval
    seed : of the draws, the same for every row

    Notes
    -----
    The percentile interval, stretched about the mean for few groups (`few_groups`): unstretched,
    one of 3 groups would leave out the truth one time in four. Of groups of very unequal sizes it
    stays narrow: 7 to 9 % leave it out, 14 % where one of 3 is nearly all. Rows share their draws,
    so that the interval of a difference of rows is that of the row of differences. With fewer than
    3 groups that have a value it is undefined: NaN.

    Examples
    --------
    >>> bootstrap_interval(np.array([[1.0, 1.0, 1.0]]), np.arange(3))
    array([[1., 1.]])
    """
    labels, place = np.unique(group, return_inverse=True)
    if len(labels) < MIN_GROUPS:
        return np.full((len(values), 2), np.nan)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(labels)))
    is_known = ~np.isnan(values[:, order])
    total = np.add.reduceat(np.where(is_known, values[:, order], 0.0), starts, axis=1)
    count = np.add.reduceat(is_known.astype(np.float64), starts, axis=1)
    means = np.full((len(values), n_draws), np.nan)
    rng, even = np.random.default_rng(seed), np.full(len(labels), 1 / len(labels))
    for draws in iter_slices(n_draws, 16 * len(labels)):
        weight = rng.multinomial(len(labels), even, size=draws.stop - draws.start).T
        weighted = count @ weight
        np.divide(total @ weight, weighted, where=weighted > 0, out=means[:, draws])
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = np.full((len(values), 2), np.nan)
    for row, drawn in enumerate(means):
        if (n_groups := int((count[row] > 0).sum())) >= MIN_GROUPS:
            mean = total[row].sum() / count[row].sum()
            ends = np.quantile(drawn[~np.isnan(drawn)], tails)
            found[row] = mean + few_groups(n_groups, level) * (ends - mean)
    return found


def few_groups(n_groups: int, level: float = 0.95) -> float:
    """Return how many times wider than percentiles an interval of the mean of few groups is.

    Student's t over the normal quantile, as the spread is of the groups themselves, times
    sqrt(n / (n - 1)), as the bootstrap's spread divides by n (Hesterberg 2015).

    Examples
    --------
    >>> [round(few_groups(n), 2) for n in (3, 5, 8, 18)]
    [2.69, 1.58, 1.29, 1.11]
    """
    from scipy.special import ndtri, stdtrit  # noqa: PLC0415  (a seventh of a second)

    tail = (1 + level) / 2
    expanded = stdtrit(n_groups - 1, tail) / ndtri(tail)
    return float(np.sqrt(n_groups / (n_groups - 1)) * expanded)


def paired_test(ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> PairedTest:
    """Return the share of targets on which ours is lower, and two-sided paired p-values.

    Student's t and Wilcoxon's signed rank, both over targets that have both errors. Targets are
    correlated, so that p-values are smaller than independent targets would give.

    Parameters
    ----------
    ours, theirs : (target,), errors; NaN where there is none

    Examples
    --------
    >>> paired_test(np.array([1.0, 2.0, 3.0, 1.0]), np.array([2.0, 4.0, 3.0, 0.0])).share_better
    0.5
    """
    is_known = ~(np.isnan(ours) | np.isnan(theirs))
    a, b = ours[is_known].astype(np.float64), theirs[is_known].astype(np.float64)
    if not a.size:
        return PairedTest(np.nan, np.nan, np.nan)
    better = float(np.mean(a < b))
    if a.size < MIN_GROUPS or np.ptp(a - b) == 0:
        return PairedTest(better, np.nan, np.nan)
    from scipy.stats import ttest_rel, wilcoxon  # noqa: PLC0415  (a third of a second)

    t = ttest_rel(a, b)
    return PairedTest(better, float(t.pvalue), float(wilcoxon(a, b).pvalue))
