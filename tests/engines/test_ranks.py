"""A coherent model over ranks is the one-process model: real processes, connected by gloo."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ddcnn
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.engines import ALONE, Ranks
from ddcnn.engines.ranks import patience, shares
from ddcnn.errors import ConfigError
from tests.engines.on_ranks import CASES, DROPOUT, SIZE, STEPS, B, K, ended, start, trained

Results = Callable[[int], dict[str, Tensor]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return what so many ranks found, in one run of them for all tests."""
    known: dict[int, dict[str, Tensor]] = {}

    def of(count: int) -> dict[str, Tensor]:
        if count not in known:
            out = tmp_path_factory.mktemp("ranks") / "found.safetensors"
            outcomes = ended(start(count, "-m", "tests.engines.on_ranks", "train", str(out)))
            assert [code for code, _, _ in outcomes] == [0] * count, outcomes
            known[count] = load_file(out)
        return known[count]

    return of


def below(prefix: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


@cache
def alone(name: str, subdomains: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        return trained(CASES[name], subdomains, ALONE)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("count", "subdomains"), [(2, 4), (2, 5), (4, 4)])
def test_equal_to_one_process(results: Results, count: int, subdomains: int, name: str) -> None:
    """Within what rounding in float32 (6e-8 of a number) becomes over 20 steps at these rates: below 1e-5 here."""
    found = below(f"{subdomains}/{name}/", results(count))
    expected = dict(alone(name, subdomains))
    losses = expected.pop("losses")
    assert float(losses[-4:].mean()) < float(losses[:4].mean()) - 0.05  # it does learn, or equality shows little
    for rank in range(count):
        torch.testing.assert_close(found.pop(f"rank {rank} losses"), losses, rtol=1e-4, atol=1e-5)
        assert int(found.pop(f"rank {rank} received")) == STEPS * B * count * CASES[name].numbers(subdomains, count)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_each_step_moves_b_n_k_numbers(results: Results) -> None:
    assert int(results(4)["4/sgd/rank 3 received"]) == STEPS * (B * 4 * K)
    assert int(results(4)["4/logits/rank 3 received"]) == STEPS * (B * 4 * K)


def test_each_step_moves_the_features_of_all_subdomains(results: Results) -> None:
    assert int(results(4)["4/features, clipped, local losses/rank 3 received"]) == STEPS * (B * 4 * 12)
    columns = [subdomain.shape[1] for subdomain in Grid((1, 5)).subdomains(SIZE)]
    assert columns == [3, 3, 3, 2, 2]  # of 13; a convolution leaves one less, times 3 rows and 3 channels
    most = max(9 * (2 + 2 + 2), 9 * (1 + 1))
    assert int(results(2)["5/features, uneven/rank 0 received"]) == STEPS * B * 2 * most


def test_dropout_differs_in_the_local_cnns_and_is_the_same_in_the_aggregation(results: Results) -> None:
    found = below("dropout/", results(2))
    first, second = found["rank 0 losses"], found["rank 1 losses"]
    assert torch.equal(first, second)  # of the decision, drawn after the local CNNs
    assert all(torch.equal(v, found[n.replace("rank 0", "rank 1")]) for n, v in found.items() if "rank 0 aggr" in n)
    with torch.random.fork_rng(devices=[]):
        undivided = trained(DROPOUT, 5, ALONE)["losses"]
    assert not torch.equal(first, undivided)
    assert float((first - undivided).abs().max()) < 2.0


def test_values_and_aggregation_are_those_of_rank_0(results: Results) -> None:
    for rank in range(2):
        found = below(f"broadcast_metrics/rank {rank} ", results(2))
        assert {name: float(value) for name, value in found.items()} == {"loss": 1, "accuracy": 20, "weight": 10}


def test_a_rank_reads_its_own_subdomains_of_a_store(source: str, tmp_path: Path) -> None:
    config = ddcnn.Config.parse({"data": {"source": source}})
    store, out = tmp_path / "bars.zarr", tmp_path / "found.safetensors"
    write_store(ddcnn.open_data(config.data), store, Grid((2, 3)), workers=1)
    read = {}
    for count in (1, 2):
        outcomes = ended(start(count, "-m", "tests.engines.on_ranks", "store", str(store), str(out)))
        assert [code for code, _, _ in outcomes] == [0] * count, outcomes
        found = load_file(out)
        owned = [found[f"rank {rank} opened"].tolist() for rank in range(count)]
        assert owned == ([[0, 1, 2, 3, 4, 5]] if count == 1 else [[0, 1, 2], [3, 4, 5]])
        read[count] = [int(found[f"rank {rank} bytes"]) for rank in range(count)]
    (every,) = read[1]
    assert all(0.4 * every < part < 0.6 * every for part in read[2])


def test_shares() -> None:
    assert shares(5, 3) == [(0, 1), (2, 3), (4,)]
    assert [Ranks(rank, 4).owned(4) for rank in range(4)] == [(0,), (1,), (2,), (3,)]
    with pytest.raises(ConfigError, match="4 ranks cannot share 3 subdomains; start at most 3 ranks"):
        Ranks(0, 4).owned(3)


def test_alone_nothing_is_exchanged() -> None:
    p = torch.ones(2, 3, 4, requires_grad=True)
    assert ALONE.gather(p, 3) is p
    assert ALONE.all_sum(p) is p
    assert ALONE.union({"a": p}) == {"a": p}
    assert ALONE.local_rank0_first(lambda: 3) == 3
    assert ALONE.received == 0


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_timeout_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDCNN_RANK_TIMEOUT", text)
    with pytest.raises(ConfigError, match=f"DDCNN_RANK_TIMEOUT should be a positive number of seconds, got '{text}'"):
        patience()


def test_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDCNN_RANK_TIMEOUT", raising=False)
    assert patience().total_seconds() == 600
    monkeypatch.setenv("DDCNN_RANK_TIMEOUT", "1.5")
    assert patience().total_seconds() == 1.5
