"""What each rank of a test does: a program of its own, and what the tests need to start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ddcnn.aggregation import Dense
from ddcnn.config import Features, TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.decomposition import Grid
from ddcnn.engines import RankDistribution, Ranks, joined
from ddcnn.engines.ranks import shares
from ddcnn.models import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.seeds import own_random_numbers
from ddcnn.training import CrossEntropy, Distribution, FadingLocalLosses, MemberOptimizer, Step, WholeNetwork
from tests.forked import Program
from tests.setups import decided, train_coherent

ROOT = Path(__file__).parents[2]
PATHS = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
# Ray lets its workers wait for whatever else the machine does, such as other tests, and starts some that nobody needs.
RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
RAY |= {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
SIZE, K, B, STEPS = (4, 13), 3, 12, 20


@dataclass(frozen=True)
class Case:
    """One training of the coherent model."""

    local_weight: float
    options: dict[str, Any]
    label_smoothing: float = 0.0
    class_weights: bool = False
    dropout: float = 0.0
    features: Features = "probability"
    uneven: bool = False

    def numbers(self, subdomains: int, ranks: int) -> int:
        """Return how many numbers of an image the rank that has most of them hands over."""
        widths = [K] * subdomains
        if self.features == "penultimate":
            widths = [_features(subdomain.shape, self.uneven) for subdomain in Grid((1, subdomains)).subdomains(SIZE)]
        return max(sum(widths[n] for n in part) for part in shares(subdomains, ranks))


CASES = {
    "sgd": Case(0.0, {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.1}),
    "nesterov, local losses": Case(1.0, {"optimizer": "sgd", "weight_decay": 0.01}),
    "adam, smoothed": Case(1.0, {"optimizer": "adam", "lr": 0.01}, 0.1, class_weights=True),
    "adamw, clipped": Case(0.0, {"optimizer": "adamw", "lr": 0.03, "weight_decay": 0.1, "clip_norm": 0.2}),
    "sgd, clipped, local losses": Case(1.0, {"optimizer": "sgd", "clip_norm": 0.5}, 0.1),
    "logits": Case(1.0, {"optimizer": "sgd", "lr": 0.03}, features="logit"),
    "features, clipped, local losses": Case(1.0, {"optimizer": "sgd", "clip_norm": 0.5}, features="penultimate"),
    "features, uneven": Case(0.5, {"optimizer": "sgd", "lr": 0.03}, features="penultimate", uneven=True),
}
DROPOUT = Case(1.0, {"optimizer": "sgd"}, dropout=0.5)


def start(count: int, *command: str, **environment: str) -> list[Program]:
    """Start a Python program as each of several ranks, without a launcher; variables that are empty are not set."""
    return [Program(command, variables, ROOT) for variables in _environments(count, environment)]


def launch(count: int, *command: str, **environment: str) -> list[subprocess.Popen[str]]:
    """Start it in interpreters of their own, which is slower, see `tests.forked`."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([sys.executable, *command], env=variables, cwd=ROOT, **pipes)
        for variables in _environments(count, environment)
    ]


def _environments(count: int, environment: dict[str, str]) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS, **environment}
    ranks = [os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    return [{name: value for name, value in variables.items() if value} for variables in ranks]


def ended(
    processes: Sequence[Program | subprocess.Popen[str]], seconds: float = 240
) -> list[tuple[int | None, str, str]]:
    """Wait for all; return exit code, stdout and stderr of each."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
        return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def trained(case: Case, subdomains: int, ranks: Ranks, *, samples: int = B, norm: bool = True) -> dict[str, Tensor]:
    """Train for 20 steps; return the losses, and what this rank has of the parameters and of the optimiser's state.

    Without batch norm, which sees the ``samples`` of a replica alone, replicas compute what one process computes.
    """
    grid = Grid((1, subdomains))
    torch.manual_seed(0)
    shapes = [subdomain.shape for subdomain in grid.subdomains(SIZE)]
    networks = [_cnn(case.dropout, norm=norm, shape=shape if case.uneven else None) for shape in shapes]
    aggregation: nn.Module = _aggregation(subdomains, case.dropout)
    nn.init.normal_(aggregation[0].layers[-1].weight, std=0.1)
    if case.features != "probability":
        widths = [_features(shape, case.uneven) for shape in shapes]
        aggregation = Dense(subdomains, K, hidden=(6,), features=case.features, widths=widths)
        nn.init.normal_(aggregation.layers[-1].weight, std=0.1)
    data = [(torch.randn(samples, 1, *SIZE), torch.randint(K, (samples,))) for _ in range(STEPS // 5)]
    own = ranks.owned(subdomains)
    local_cnns = LocalCNNs(grid, [networks[n] for n in own], image_size=SIZE, indices=own, backend="fused")
    network = WholeNetwork(CNNDNN(grid, local_cnns, aggregation), with_local_scores=case.local_weight > 0).train()
    distribution = Distribution() if ranks.alone else RankDistribution(ranks, subdomains)
    weights = torch.tensor([0.5, 1.0, 2.0]) if case.class_weights else None
    cross_entropy = CrossEntropy(case.label_smoothing, weights)
    objective = FadingLocalLosses(case.local_weight, cross_entropy) if case.local_weight else cross_entropy
    optimizer = MemberOptimizer(network, TrainingConfig(**{"lr": 0.1, **case.options}), distribution=distribution)
    step = Step(network, optimizer, "float32", objective, distribution)
    losses = []
    with own_random_numbers(torch.device("cpu"), 7):
        for i, (images, labels) in enumerate(5 * data):
            part = (ranks.replica, ranks.replicas)
            cut = {"subdomains": local_cnns.subdomains, "part": part}
            (batch,) = Batches(Resident(images), labels, torch.arange(samples), samples, **cut).in_order()
            losses.append(step(batch, schedule=1 - i / 40, at=i / STEPS)[0])
    (state,) = step.optimizer.states()
    return {"losses": torch.stack(losses)} | network.member_state(0) | {f"state {k}": v for k, v in state.items()}


def _cnn(dropout: float, *, norm: bool = True, shape: tuple[int, ...] | None = None) -> nn.Module:
    """Return a network of which no parameter has a gradient of rounding errors alone, which Adam would enlarge.

    With the shape of its subimages, its classifier sees all pixels instead of four.
    """
    layers = [nn.Conv2d(1, 3, 2, bias=False), nn.BatchNorm2d(3) if norm else nn.GroupNorm(1, 3), nn.ReLU()]
    layers += [nn.Flatten()] if shape else [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    features = _features(shape or SIZE, shape is not None)
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []), nn.Linear(features, K))


def _features(shape: tuple[int, ...], uneven: bool) -> int:
    return 3 * (shape[0] - 1) * (shape[1] - 1) if uneven else 12


def _aggregation(subdomains: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(Dense(subdomains, K, hidden=(6,)), nn.Dropout(dropout / 2))


def _train_all(ranks: Ranks, out: Path) -> None:
    found: dict[str, Tensor] = {}
    for subdomains in (4, 5):
        for name, case in CASES.items():
            if subdomains < ranks.count:
                continue
            before = ranks.received
            own = trained(case, subdomains, ranks)
            mine = {"losses": own.pop("losses"), "received": torch.tensor(ranks.received - before)}
            own |= {f"rank {ranks.rank} {key}": value for key, value in mine.items()}
            found |= {f"{subdomains}/{name}/{key}": value for key, value in ranks.union(own).items()}
    own = trained(DROPOUT, 5, ranks)
    found |= ranks.union({f"dropout/rank {ranks.rank} {key}": value for key, value in own.items()})
    found |= ranks.union({f"broadcast_metrics/rank {ranks.rank} {key}": value for key, value in _agreed(ranks).items()})
    if ranks.first:
        save_file({name: value.contiguous().clone() for name, value in found.items()}, out)


def _train_replicas(ranks: Ranks, out: Path) -> None:
    found: dict[str, Tensor] = {}
    for samples in (B, B - 1):
        for name, case in CASES.items():
            before = ranks.received
            own = trained(case, 4, ranks, samples=samples, norm=False)
            mine = {"losses": own["losses"], "received": torch.tensor(ranks.received - before)}
            found |= {f"{samples}/{name}/{key}": value for key, value in ranks.union(own).items()}
            own |= mine
            own = {f"rank {ranks.rank} {key}": value for key, value in own.items()}
            found |= {f"{samples}/{name}/{key}": value for key, value in ranks.union(own).items()}
    found |= ranks.union({f"means/rank {ranks.rank} {key}": value for key, value in _running_statistics(ranks).items()})
    if ranks.first:
        save_file({name: value.contiguous().clone() for name, value in found.items()}, out)


def _running_statistics(ranks: Ranks) -> dict[str, Tensor]:
    """Return what becomes of running statistics that differ between replicas when an evaluation begins."""
    grid, own = Grid((1, 4)), ranks.owned(4)
    networks = [_cnn(0) for _ in own]
    for network in networks:
        nn.init.constant_(network[1].running_mean, 1.0 + ranks.replica)
    local_cnns = LocalCNNs(grid, networks, image_size=SIZE, indices=own, backend="fused")
    network = WholeNetwork(CNNDNN(grid, local_cnns, _aggregation(4, 0))).train()
    RankDistribution(ranks, 4).before_evaluation(network)
    return {name: value for name, value in network.member_state(0).items() if "running_mean" in name}


def _agreed(ranks: Ranks) -> dict[str, Tensor]:
    """Return what becomes of values and of an aggregation that differ between ranks."""
    grid, own = Grid((1, 4)), ranks.owned(4)
    local_cnns = LocalCNNs(grid, [_cnn(0) for _ in own], image_size=SIZE, indices=own, backend="fused")
    aggregation = _aggregation(4, 0)
    nn.init.constant_(aggregation[0].layers[0].weight, 10.0 + ranks.rank)
    network = WholeNetwork(CNNDNN(grid, local_cnns, aggregation))
    loss, accuracy = RankDistribution(ranks, 4).broadcast_metrics(
        network, torch.tensor([1.0 + ranks.rank]), torch.tensor([20.0 + ranks.rank]).double()
    )
    return {"loss": loss, "accuracy": accuracy, "weight": aggregation[0].layers[0].weight.detach()[0, 0]}


def _train_from_store(ranks: Ranks, store: Path, out: Path) -> None:
    """Note which subdomains' shards a rank has opened by the end of the training and of an evaluation."""
    values = {
        "data": {"source": f"zarr:{store}"},
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": "2x3"},
        "training": {"epochs": 1, "batch_size": 16},
        "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
    }
    setup = decided(values, ranks)
    assert train_coherent(setup).local_probabilities.of("test").shape[1] == 6
    store_of_rank = setup.data.images.store
    opened = sorted({n for n, _ in store_of_rank._shards})
    mine = {"opened": torch.tensor(opened), "bytes": torch.tensor(store_of_rank.bytes_read)}
    found = ranks.union({f"rank {ranks.rank} {key}": value for key, value in mine.items()})
    if ranks.first:
        save_file(found, out)


if __name__ == "__main__":
    torch.manual_seed(1)
    what, *paths = sys.argv[1:]
    with joined("cpu", 2 if what == "replicas" else 1) as these:
        {"train": _train_all, "store": _train_from_store, "replicas": _train_replicas}[what](these, *map(Path, paths))
