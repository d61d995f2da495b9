"""How sure a result is: intervals over seeds or folds, paired tests, equivalence, and what the test images leave open.

Two things vary. Over seeds: initialisation, order and split, so the networks. Over test images: which of them happened
to be drawn. `spread` and `paired` are about the first, `mcnemar` and `over_images` about the second.

Folds share training images, and so do seeds that draw their own split of the same images: their results are not
independent, and a plain t-interval is too narrow. `spread` and `paired` take the variance of C. Nadeau and Y. Bengio
(Machine Learning 52 (2003) 239-281) for both, which is rather too large than too small.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

MARGIN = 0.005
"""A difference of accuracy below half a percentage point counts as none."""

_RESAMPLES = 10_000
_MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Spread:
    """A mean over seeds or folds.

    Attributes
    ----------
    n, mean
        Number of values, and their mean.
    sd
        Standard deviation with n - 1; None for a single value.
    interval
        95 % t-interval of the mean; None for a single value, and for differences that are all equal.
    """

    n: int
    mean: float
    sd: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Paired:
    """What the differences between two arms say, each on the same seeds or folds.

    Attributes
    ----------
    difference
        Mean, standard deviation and 95 % interval of the differences.
    t_p, wilcoxon_p
        Two-sided p-values of the paired t-test and of the signed-rank test; None where they are not defined.
    equivalence_p
        p-value of two one-sided t-tests (TOST): small if the difference lies within the margin.
    seeds_needed
        With how many seeds or folds of this spread half of the interval would be as small as the margin; None: with
        none, or more than 1,000.
    """

    difference: Spread
    t_p: float | None
    wilcoxon_p: float | None
    equivalence_p: float | None
    seeds_needed: int | None


def spread(values: Sequence[float], share: float = 0.0) -> Spread:
    """Return mean, standard deviation and interval.

    Parameters
    ----------
    values
        One per seed or fold, J of them.
    share
        0 where all have the same split. For folds, or seeds with a split each, n_test / n_train: the variance of the
        mean is then (1/J + share) s^2.

    Examples
    --------
    >>> found = spread([0.7, 0.8, 0.9])
    >>> round(found.mean, 3), round(found.sd, 3), [round(bound, 4) for bound in found.interval]
    (0.8, 0.1, [0.5516, 1.0484])
    """
    from scipy.stats import t  # slow to import

    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Spread(n, mean, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, n - 1)) * _error(sd, n, share)
    return Spread(n, mean, sd, (mean - half, mean + half))


def paired(a: Sequence[float], b: Sequence[float], share: float = 0.0, margin: float = MARGIN) -> Paired:
    """Return what the differences a - b say; ``share`` is as in `spread`."""
    from scipy.stats import t

    d = np.asarray(a, float) - np.asarray(b, float)
    d[np.abs(d) < 1e-12] = 0.0  # rounding is no difference
    found = spread(d.tolist(), share)
    if found.sd is None:
        return Paired(found, None, None, None, None)
    error = _error(found.sd, found.n, share)
    wilcoxon_p = None if share else _wilcoxon(d)  # it takes the differences to be independent
    if error < 1e-12:  # equal differences: the t-test has no answer, but that there is none at all is none
        return Paired(replace(found, interval=None), 1.0 if found.mean == 0 else None, wilcoxon_p, None, None)
    t_p = 2 * float(t.sf(abs(found.mean) / error, found.n - 1))
    equivalence_p = float(t.sf((margin - abs(found.mean)) / error, found.n - 1))
    return Paired(found, t_p, wilcoxon_p, equivalence_p, seeds_needed(found.sd, margin, share))


def seeds_needed(sd: float, margin: float = MARGIN, share: float = 0.0) -> int | None:
    """Return how many seeds make half of the 95 % t-interval as small as a margin; None: none, or more than 1,000.

    >>> seeds_needed(0.004), seeds_needed(0.002), seeds_needed(0.002, share=0.25), seeds_needed(0.004, share=0.25)
    (5, 3, 4, 13)
    """
    from scipy.stats import t

    n = np.arange(2, _MOST_SEEDS + 1)
    enough = n[t.ppf(0.975, n - 1) * sd * np.sqrt(1 / n + share) <= margin]
    return int(enough[0]) if len(enough) else None


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number (S. Holm, Scand. J. Stat. 6 (1979) 65-70); None stays None.

    >>> [round(value, 4) for value in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        corrected[i] = largest
    return corrected


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact p-value that two networks are right equally often, on the same images.

    Parameters
    ----------
    only_a, only_b
        Number of images that only the one, or only the other, decides rightly.

    Examples
    --------
    >>> mcnemar(1, 9)  # 2 (1 + 10) / 2^10
    0.021484375
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def over_images(
    differences: Sequence[np.ndarray], samples: Sequence[Sequence[int]], *, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference if other test images had been drawn, with these networks.

    A paired percentile bootstrap over images. An image that tests with several seeds or folds is drawn with all.

    Parameters
    ----------
    differences
        Per seed or fold, one value per test image: 1 if only a is right, -1 if only b, else 0.
    samples
        Which images they are: their numbers in the data set.
    """
    rng = np.random.default_rng(seed)
    _, which = np.unique(np.concatenate([*map(np.asarray, samples)]), return_inverse=True)
    shares = np.concatenate([values / len(values) / len(differences) for values in differences])
    of_image = np.bincount(which, shares)  # what each image adds to the mean
    values, counts = np.unique(of_image.round(12), return_counts=True)  # to draw images is to draw how often each comes
    drawn = rng.multinomial(len(of_image), counts / len(of_image), _RESAMPLES)
    low, high = np.percentile(drawn @ values, [2.5, 97.5])
    return float(low), float(high)


def _error(sd: float, n: int, share: float) -> float:
    return math.sqrt(1 / n + share) * sd


def _wilcoxon(d: np.ndarray) -> float | None:
    from scipy.stats import wilcoxon

    if not np.any(d):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are few values is said by the number of seeds
        return float(wilcoxon(np.round(d, 12)).pvalue)
