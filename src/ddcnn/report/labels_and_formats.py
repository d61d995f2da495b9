"""What the report calls strategies and stages, and how it writes numbers."""

from __future__ import annotations

import math
from collections.abc import Collection

from ddcnn.strategies.registry import known_results, known_stages

MISSING = "-"

STRATEGIES = known_results()
"""Per result, in the order of the report: its name for readers, and one sentence that explains it."""

STAGES = known_stages()
"""Per stage of training, in the order of the report: its name for readers."""


def strategy_label(name: str) -> str:
    """Return what readers call a strategy.

    >>> strategy_label("cnn-dnn")
    'CNN-DNN'
    """
    return STRATEGIES[name][0] if name in STRATEGIES else name


def stage_label(name: str) -> str:
    """Return what readers call a stage; a part of a stage keeps its own name.

    >>> stage_label("local/folds")
    'local CNNs, folds'
    """
    base, _, part = name.partition("/")
    label = STAGES.get(base, base)
    return f"{label}, {part}" if part else label


def rank(name: str, order: Collection[str]) -> tuple[int, str]:
    """Return a sort key: known names in their order, others after them by name."""
    return (list(order).index(name) if name in order else len(order), name)


def percent(value: float | int | None, unit: str = "") -> str:
    """Write a fraction as percent with one decimal.

    >>> percent(0.97654, unit=" %"), percent(None)
    ('97.7 %', '-')
    """
    return MISSING if value is None else f"{100 * value:.1f}{unit}"


def share(value: float | int | None) -> str:
    """Write a fraction with three decimals.

    >>> share(0.83456), share(None)
    ('0.835', '-')
    """
    return MISSING if value is None else f"{value:.3f}"


def decimals(value: float | int | None) -> str:
    """Write a number with three decimals, and one too large for that with fewer.

    >>> decimals(0.83456), decimals(None)
    ('0.835', '-')
    """
    return MISSING if value is None else f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def count(value: float | int | None) -> str:
    """Write a whole number with separators of thousands; what is not whole keeps one decimal.

    >>> count(1234567), count(12.5), count(None)
    ('1,234,567', '12.5', '-')
    """
    if value is None:
        return MISSING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def seconds(value: float | int | None, unit: str = "") -> str:
    """Write a time in seconds with about three digits.

    >>> seconds(0.0123), seconds(4.56), seconds(1234.5, unit=" s")
    ('0.01', '4.6', '1,234 s')
    """
    if value is None:
        return MISSING
    decimals = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}{unit}"


def mebibytes(value: float | int | None) -> str:
    """Write bytes as MiB.

    >>> mebibytes(300 * 2**20)
    '300'
    """
    return MISSING if value is None else f"{value / 2**20:,.0f}"


def by(sizes: tuple[object, ...]) -> str:
    """Write sizes along axes.

    >>> by((2, 4, 4)).split()  # joined by no-break spaces
    ['2', '×', '4', '×', '4']
    """
    return "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join(str(size) for size in sizes)


def wilson_interval(fraction: float | int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the Wilson score interval of a fraction that was counted on n samples (z = 1.96: 95 %).

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    >>> low, high = wilson_interval(0.5, 10)
    >>> round(low, 4), round(high, 4)
    (0.2366, 0.7634)
    """
    centre = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return min(max(0.0, centre - half), fraction), max(min(1.0, centre + half), fraction)
