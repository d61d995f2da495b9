import numpy as np
import pytest
from scipy.stats import binomtest

from ddcnn.report.labels_and_formats import count, percent, seconds, wilson_interval
from ddcnn.report.svg import PALETTE


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (5, 10), (977, 1000), (10, 10), (0, 37), (81, 263)])
def test_wilson_interval_equals_scipy(correct, n):
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(correct / n, n), (expected.low, expected.high), atol=1e-12)


def test_wilson_interval_of_a_textbook():
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263
    low, high = wilson_interval(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_missing_numbers_are_a_dash():
    assert {percent(None), count(None), seconds(None)} == {"-"}


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_stand_out_from_the_paper(theme):
    paper = _luminance(PALETTE["paper"][theme])
    for name, pair in PALETTE.items():
        least = {"paper": 1, "rule": 1, "ink": 7, "muted": 4.5}.get(name, 3)
        lighter, darker = sorted((paper, _luminance(pair[theme])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= least, name


def _luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)
