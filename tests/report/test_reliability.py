"""The reliability curve of a run that has one."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddcnn.report.reliability import reliability_figure, reliability_lines
from ddcnn.report.results import Results
from ddcnn.report.sections import reliability


def test_bins_with_decisions_are_drawn(synthetic: Any) -> None:
    results = synthetic.comparison(strategies=["vote", "transfer"])
    assert reliability(Results.parse(results)) is None
    bins = [(0.5, 0.4, 10), (0.7, None, 3), (0.8, 0.0, 0), (0.95, 0.9, 80)]
    rows = [dict(zip(("confidence", "accuracy", "count"), one, strict=True)) for one in bins]
    results["details"]["reliability"] = {"transfer": rows, "vote": None, "unknown": rows}
    lines = reliability_lines(Results.parse(results))
    diagonal, curve = reliability_figure(lines).axes[0].lines
    np.testing.assert_allclose(curve.get_xydata(), [[50, 40], [95, 90]])
    assert curve.get_label() == "transfer"
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert "min-width" in str(reliability(Results.parse(results)))
