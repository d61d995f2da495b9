"""Every stage of a comparison trains the same where its steps are replayed; a tape does as a CUDA graph would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ddcnn
from ddcnn.config import Config
from ddcnn.planning import ComputePlan
from ddcnn.training import Progress, replay
from tests.training.tape import Tape

pytestmark = pytest.mark.usefixtures("without_dice")
KINDS: dict[str, dict[str, Any]] = {
    "strong": {"training": {"sam": 0.05, "ema": 0.9, "cutmix": 1.0}, "aggregation": {"features": "penultimate"}},
    "looped": {"compute": {"backend": "looped"}, "training": {"optimizer": "adamw", "clip_norm": 0.5}},
}


class Notes(Progress):
    """Keeps what was said and measured."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def epoch(self, row: dict[str, Any]) -> None:
        self.rows.append({name: value for name, value in row.items() if name != "seconds"})


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_stage_trains_the_same(
    kind: dict[str, Any], values: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 6, "batch_size": 8, **kind.get("training", {})}
    sections = {**kind, "training": training}
    found = []
    for name in ("code", "replayed"):
        if name == "replayed":
            monkeypatch.setattr(ComputePlan, "graphs", True)
            monkeypatch.setattr(replay, "capture_cuda_graph", Tape())
        said = Notes()
        ddcnn.compare(Config.parse(values(**sections, out=str(tmp_path / name))), progress=said)
        found.append(said)
    code, replayed = found
    assert replayed.rows == code.rows
    stages = dict.fromkeys(row["stage"] for row in code.rows if row["stage"] != "dnn")
    graphs = [line for line in replayed.notes if "CUDA graph" in line]
    assert graphs == [f"{stage}: forward and backward pass are replayed as one CUDA graph" for stage in stages]
