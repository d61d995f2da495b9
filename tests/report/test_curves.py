"""Which rows of metrics.jsonl share a panel."""

from __future__ import annotations

import numpy as np

from ddcnn.report.curves import curves_of
from ddcnn.report.results import Row


def test_groups_that_were_trained_in_turn_are_one_panel() -> None:
    rows = [
        Row(stage=stage, epoch=epoch, train_accuracy=(0.5,) * len(found), validation_accuracy=found)
        for stage, found in (("local/subdomains 0-1", (0.1, 0.2)), ("local/subdomains 2-2", (0.3,)))
        for epoch in (1, 2)
    ]
    rows.append(Row(stage="local/fold0/subdomains 0-1", epoch=1, train_accuracy=(0.5,), validation_accuracy=(0.4,)))
    curves = curves_of(rows)
    assert list(curves) == ["local", "local/folds"]
    np.testing.assert_array_equal(curves["local"][1], [[0.1, 0.2, 0.3]] * 2)
