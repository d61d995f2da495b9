"""Replicas of a coherent model, each with a share of every batch, are the one-process model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ddcnn
from ddcnn.data.batches import Batches
from ddcnn.engines import ALONE, Ranks, joined
from ddcnn.errors import ConfigError
from tests.bars import write_bars
from tests.engines.on_ranks import CASES, STEPS, B, K, ended, start, trained

TRAIN = ("-m", "ddcnn", "train", "--strategy", "coherent", "--device", "cpu", "--precision", "float32", "--quiet")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, torch.Tensor]]:
    """Return what 2 ranks, each a replica, and 4 ranks in 2 replicas found."""
    results = {}
    for count in (2, 4):
        out = tmp_path_factory.mktemp("replicas") / "found.safetensors"
        outcomes = ended(start(count, "-m", "tests.engines.on_ranks", "replicas", str(out)))
        assert [code for code, _, _ in outcomes] == [0] * count, outcomes
        results[count] = load_file(out)
    return results


def below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@cache
def alone(name: str, samples: int) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        return trained(CASES[name], 4, ALONE, samples=samples, norm=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("samples", [B, B - 1])
@pytest.mark.parametrize("count", [2, 4])
def test_equal_to_one_process(found: dict[int, dict[str, torch.Tensor]], count: int, samples: int, name: str) -> None:
    """Within what rounding in float32 becomes over 20 steps; also where a replica has a sample less than the other."""
    mine = below(f"{samples}/{name}/", found[count])
    expected = dict(alone(name, samples))
    losses = expected.pop("losses")
    assert float(losses[-4:].mean()) < float(losses[:4].mean()) - 0.05
    for rank in range(count):
        own = below(f"rank {rank} ", mine)
        torch.testing.assert_close(own.pop("losses"), losses, rtol=1e-4, atol=1e-5)
        own.pop("received")
        assert own.keys() <= expected.keys()
        torch.testing.assert_close(own, {key: expected[key] for key in own}, rtol=1e-4, atol=1e-5)
    whole = {key: mine[key] for key in expected}  # and all ranks together have everything
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)


def test_traffic(found: dict[int, dict[str, torch.Tensor]]) -> None:
    """The share of a replica is gathered within it, then the batch over replicas: B*N*K/2 + B*N*K numbers."""
    assert int(found[4][f"{B}/sgd/rank 3 received"]) == STEPS * (B * 4 * K // 2 + B * 4 * K)
    assert int(found[2][f"{B}/sgd/rank 1 received"]) == STEPS * B * 4 * K


def test_an_evaluation_begins_with_the_mean_of_running_statistics(found: dict[int, dict[str, torch.Tensor]]) -> None:
    means = below("means/", found[4])
    assert len(means) == 4 * 2
    assert {float(v) for value in means.values() for v in value} == {1.5}


def test_who_is_where() -> None:
    ranks = [Ranks(rank, 4, replicas=2) for rank in range(4)]
    assert [(r.replica, r.owned(5)) for r in ranks] == [(0, (0, 1, 2)), (0, (3, 4)), (1, (0, 1, 2)), (1, (3, 4))]
    assert ranks[3].line(5) == "4 over gloo in 2 replicas, of which each owns 3 or 2 of 5 subdomains"


def test_ranks_that_cannot_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="3 ranks cannot form 2 replicas of equal size"), joined("cpu", 2):
        pass


@pytest.mark.parametrize(
    ("samples", "parts", "expected"),
    [
        (6, 2, [[0, 1, 2], [3, 4, 5]]),
        (5, 2, [[0, 1, 2], [3, 4, 4]]),
        (5, 4, [[0, 1], [2, 3], [4, 4], [4, 4]]),
    ],
)
def test_shares_of_a_batch(samples: int, parts: int, expected: list[list[int]]) -> None:
    images, labels = torch.arange(samples).view(-1, 1, 1, 1), torch.arange(samples)
    for r in range(parts):
        batches = Batches(images, labels, torch.arange(samples), samples, part=(r, parts))
        (batch,) = batches.in_order()
        assert batch.inputs.flatten().tolist() == expected[r]
        assert torch.equal(batch.targets, labels)  # of the whole batch


@pytest.mark.slow
def test_a_run_over_replicas(tmp_path: Path) -> None:
    options = ("--backend", "fused", "--model", "tests.strategies.tiny:tiny", "--batch-size", "15", "--epochs", "3")
    options += ("--data", write_bars(tmp_path, (12, 16)), "--lr", "0.02", "--set", "compute.replicas=2")
    outcomes = ended(start(4, *TRAIN, *options, "--out", str(tmp_path / "run")))
    assert [code for code, _, _ in outcomes] == [0] * 4, outcomes
    results = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert results["details"]["choices"]["ranks"] == "4 over gloo in 2 replicas, of which each owns 2 of 4 subdomains"
    assert results["strategies"][0]["test_accuracy"] > 0.8  # a third by chance
    state = ddcnn.load(tmp_path / "run", trust=True).unfused_state()
    assert all(torch.isfinite(value).all() for value in state.values())
