"""The most confident mistakes that a run keeps, against what its network says when it is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.experiments.mistakes import MOST, _small, shown_strategy
from ddcnn.report import write_report
from ddcnn.report.read import read_run
from ddcnn.runs.folder import RunFolder


def _noise() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (120, 8, 12), dtype=np.uint8), np.arange(120) % 3


def _config(folder: Path, strategy: str) -> Config:
    images, labels = _noise()
    np.savez(folder / "noise.npz", images=images, labels=labels)
    values = {
        "data": {"source": f"npz:{folder / 'noise.npz'}"},
        "decomposition": {"grid": "1x2"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
        "strategy": strategy,
        "out": folder / "run",
    }
    return Config.parse(values)


def test_the_most_confident_mistakes_are_kept(tmp_path: Path) -> None:
    images, labels = _noise()
    run = ddcnn.train(_config(tmp_path, "local")).run
    found = read_run(run)
    kept, network = found.mistakes, ddcnn.load(run, "cnn-dnn", trust=True)
    assert found.results.details.mistakes == "cnn-dnn"
    test = np.array(RunFolder(run).read_json("split.json")["test"])
    x = torch.from_numpy(images[test][:, None])
    with torch.no_grad():
        sure, decided = network(x).softmax(1).max(1)
        shares, votes = network.local_probabilities(x).max(2)
    wrong = [i for i in range(len(test)) if int(decided[i]) != labels[test[i]]]
    expected = sorted(wrong, key=lambda i: -float(sure[i]))[:MOST]
    assert len(expected) == MOST < len(wrong)
    assert kept["samples"].tolist() == test[expected].tolist()
    np.testing.assert_array_equal(kept["images"], images[test[expected]][:, None])
    np.testing.assert_array_equal(kept["labels"], labels[test[expected]])
    np.testing.assert_array_equal(kept["decided"], decided[expected])
    np.testing.assert_array_equal(kept["votes"], votes[expected])
    np.testing.assert_allclose(kept["probabilities"], sure[expected], rtol=1e-5)
    np.testing.assert_allclose(kept["shares"], shares[expected], rtol=1e-5)


def test_a_strategy_without_local_results_has_mistakes_without_votes(tmp_path: Path) -> None:
    run = ddcnn.train(_config(tmp_path, "coherent")).run
    kept = read_run(run).mistakes
    assert len(kept["images"]) == MOST
    assert "votes" not in kept
    assert "most confident mistakes" in write_report(run).read_text()


def test_of_a_volume_the_central_slice_is_kept() -> None:
    volume = torch.arange(4 * 5 * 6).reshape(1, 4, 5, 6)
    for plane, expected, where in (((1, 2), volume[:, 2], 2), ((0, 1), volume[..., 3], 3), ((-1, -3), None, 2)):
        picture, at = _small(volume, plane)
        assert at == where
        assert torch.equal(picture, volume[:, :, 2].transpose(1, 2) if expected is None else expected)


@pytest.mark.parametrize(
    ("trained", "accuracies", "expected"),
    [
        (None, {"global": 0.9, "vote": 0.5, "transfer": 0.7}, "transfer"),
        (None, {"global": 0.9}, "global"),
        ("vote", {"global": 0.9, "vote": 0.5, "transfer": 0.7}, "vote"),
    ],
)
def test_whose_mistakes(trained: str | None, accuracies: dict[str, float], expected: str) -> None:
    rows = [{"name": name, "validation_accuracy": a} for name, a in accuracies.items()]
    members = {name: 1 if name == "global" else 4 for name in accuracies}
    assert shown_strategy(rows, members, trained) == expected
