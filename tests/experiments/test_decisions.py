"""Local probabilities cost a pass over the images: each part is looked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ddcnn
from ddcnn.config import Config
from ddcnn.data.batches import Batches
from ddcnn.strategies import local_probabilities
from ddcnn.training import predict_outputs
from tests.bars import write_bars


@pytest.mark.parametrize("aggregate_on", ["train", "holdout"])
def test_each_part_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aggregate_on: str) -> None:
    seen: list[tuple[int, ...]] = []

    def watched(network: Any, batches: Batches, **options: Any) -> Any:
        seen.append(tuple(batches.indices.tolist()))
        return predict_outputs(network, batches, **options)

    monkeypatch.setattr(local_probabilities, "predict_outputs", watched)
    values = {
        "data": {"source": write_bars(tmp_path, (8, 12))},
        "decomposition": {"grid": "1x2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1},
        "aggregation": {"aggregate_on": aggregate_on},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "strategy": "local",
        "out": tmp_path / "run",
    }
    ddcnn.train(Config.parse(values))
    assert len(seen) == len(set(seen)) == (3 if aggregate_on == "train" else 4)  # the part that is held out, too
