"""Statistics against textbooks, R and counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ddcnn.experiments.folds import interval
from ddcnn.experiments.statistics import holm, mcnemar, over_images, paired, seeds_needed, spread

# Student's sleep data, as in R's `sleep`: extra hours of sleep of ten patients under two drugs
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_paired_t_test_is_that_of_r() -> None:
    found = paired(FIRST, SECOND)  # t.test(first, second, paired = TRUE)
    assert found.difference.mean == pytest.approx(-1.58)
    assert found.difference.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert found.t_p == pytest.approx(0.002833, abs=1e-6)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 2, 3, 4], 2 / 16),  # one of 16 signs, and its mirror image
        ([1, 2, -3, 4], 10 / 16),  # {}, 1, 2, 3, 1+2: five of 16 sums of ranks are at most 3
        ([0, 0, 0], 1.0),
    ],
)
def test_wilcoxon_is_what_counting_gives(differences: list[float], expected: float) -> None:
    found = paired([d / 100 for d in differences], [0.0] * len(differences))
    assert found.wilcoxon_p == pytest.approx(expected)


def test_equivalence_is_the_worse_of_two_one_sided_tests() -> None:
    a, b = [0.912, 0.915, 0.911, 0.916, 0.914], [0.911, 0.914, 0.912, 0.913, 0.913]
    d = np.subtract(a, b)
    below = ttest_1samp(d, 0.005, alternative="less").pvalue
    above = ttest_1samp(d, -0.005, alternative="greater").pvalue
    assert paired(a, b).equivalence_p == pytest.approx(max(below, above))
    assert paired(b, a).equivalence_p == pytest.approx(max(below, above))
    assert paired(FIRST, SECOND).equivalence_p > 0.99  # type: ignore[operator]


def test_equal_differences_prove_nothing() -> None:
    some, none = paired([0.9, 0.8], [0.89, 0.79]), paired([0.9, 0.8], [0.9, 0.8])
    assert (some.t_p, some.equivalence_p) == (None, None)
    assert (some.difference.interval, some.seeds_needed, none.difference.interval) == (None, None, None)
    assert (none.t_p, none.wilcoxon_p, none.equivalence_p) == (1.0, 1.0, None)
    alone = paired([0.9], [0.8])
    assert (alone.difference.interval, alone.t_p, alone.seeds_needed) == (None, None, None)


def test_folds_are_corrected_for_their_common_samples() -> None:
    values = [0.7, 0.8, 0.9]
    low, high = spread(values, share=0.5).interval or (0, 0)
    half = 4.302652729911275 * math.sqrt((1 / 3 + 0.5) * 0.01)  # t table, 2 degrees of freedom
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half))
    assert (low, min(high, 1.0)) == pytest.approx(interval(values, 0.5))
    assert paired(values, [0.6, 0.6, 0.6], share=0.5).t_p > paired(values, [0.6, 0.6, 0.6]).t_p  # type: ignore[operator]


def test_holm_is_that_of_r() -> None:
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and with values left out
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([None, 0.6, None, 0.7]) == [None, 1.0, None, 1.0]


def test_mcnemar_counts_only_where_networks_differ() -> None:
    assert mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1.0


def test_seeds_that_are_needed() -> None:
    # the rule of thumb: at a spread of 0.4 points about 5 seeds for half a point
    assert seeds_needed(0.004) == 5  # 2.776 * 0.4 / sqrt(5) = 0.497 points, by the t table
    for sd in (0.002, 0.01):
        n = seeds_needed(sd)
        assert n is not None
        values = np.array([-1.0, 1.0] * (n // 2) + [0.0] * (n % 2))
        values *= sd / values.std(ddof=1)
        low, high = spread(values.tolist()).interval or (0, 0)
        assert (high - low) / 2 <= 0.005
    assert seeds_needed(0.5) is None
    # 1.96 * 0.6 * sqrt(0.25) = 0.59 points are left with however many seeds, if they split common images
    assert seeds_needed(0.006, share=0.25) is None
    assert paired([0.91, 0.92, 0.95], [0.9, 0.9, 0.9], share=0.3).wilcoxon_p is None


def test_the_interval_over_images_is_that_of_their_mean() -> None:
    one = np.array([1] * 100 + [-1] * 50 + [0] * 850)
    half = 1.96 * math.sqrt((0.15 - 0.05**2) / 1000)
    first, second = list(range(1000)), list(range(1000, 2000))
    low, high = over_images([one], [first])
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.002)
    again = over_images([one, one], [first, first])  # the same images once more tell nothing new
    other = over_images([one, one], [first, second])  # other images do
    assert again == pytest.approx((low, high), abs=0.002)
    assert other[1] - other[0] == pytest.approx((high - low) / math.sqrt(2), abs=0.002)
    shuffled = np.random.default_rng(1).permutation(1000)  # the same images in another order
    assert over_images([one, one[shuffled]], [first, shuffled.tolist()]) == pytest.approx((low, high), abs=0.002)
    half_new = over_images([one, one], [first, list(range(500, 1500))])  # -1 and 0 of one, 1 and 0 of the other
    assert half_new[1] - half_new[0] < high - low
