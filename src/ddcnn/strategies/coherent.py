"""Strategies "coherent" and "transfer": the whole CNN-DNN trained as one model, from scratch or from local CNNs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ddcnn.aggregation.aggregations import TINY
from ddcnn.config import TrainingConfig
from ddcnn.decomposition import Subimages
from ddcnn.engines import ALONE, RankCheckpoints, RankRandomness, Ranks
from ddcnn.models import LocalCNNs
from ddcnn.network import CNNDNN
from ddcnn.strategies.problem import Problem
from ddcnn.strategies.result import StrategyResult
from ddcnn.training import Checkpoints, CheckpointStore, Progress, Single, StageTimer, Workspace, fit


def train_coherent(problem: Problem, progress: Progress, workspace: Workspace | None = None) -> StrategyResult:
    """Train local CNNs and aggregation as one model, from random parameters (the same as those of "local")."""
    network = problem.local_cnns(problem.local_modules(indices=problem.owned), problem.owned)
    aggregation = problem.aggregation(problem.config.aggregation.name)
    weight = problem.config.coherent.local_weight
    checkpoints = None if workspace is None else workspace.of("coherent")
    training = problem.config.training
    return _train_whole(problem, network, aggregation, training, weight, "coherent", progress, checkpoints)


def transfer(
    problem: Problem, trained: StrategyResult, progress: Progress, workspace: Workspace | None = None
) -> StrategyResult:
    """Train the coherent model on from trained local CNNs, and from their DNN if ``carry_aggregation`` says so.

    The networks of ``trained`` stay as they are.
    """
    config = problem.config
    network = copy.deepcopy(trained.network.local_cnns)
    aggregation = problem.aggregation(config.aggregation.name, "transfer")
    if config.transfer.carry_aggregation:
        aggregation = copy.deepcopy(trained.network.aggregation)
    changes = {
        "epochs": config.transfer.epochs or config.training.epochs,
        "lr": config.training.lr * config.transfer.lr_factor,
    }
    training = config.training.model_copy(update=changes)
    checkpoints = None if workspace is None else workspace.of("transfer", {"missing": list(trained.network.missing)})
    new = _train_whole(problem, network, aggregation, training, 0.0, "transfer", progress, checkpoints)
    return StrategyResult(new.network, [*trained.stages, *new.stages], new.histories)


class Supervised(Single):
    """A `CNNDNN` whose local CNNs start with a loss of their own that fades out (deep supervision, Lee et al. 2015).

    At the start the global loss hardly reaches the local CNNs, N of which share it; their own losses lead them to
    where "transfer" would start from, and in the end only the global loss counts.

    Parameters
    ----------
    network
        StrategyResult on the loss of the global scores.
    local_weight
        Weight of the sum of the local CNNs' own losses at the start, from where it falls linearly to 0 at the end; 0
        trains on the global loss alone, as published.
    ranks
        The network may have the local CNNs that one of these ranks owns. What the other ranks' local CNNs say is then
        a constant here: the loss is that of the whole model on each rank, and the gradient is that of its own part.
        Layers that draw, such as dropout, draw from a stream of the rank's own in the local CNNs, and from one that is
        the same everywhere in the aggregation.
    """

    def __init__(self, network: CNNDNN, local_weight: float, ranks: Ranks = ALONE) -> None:
        super().__init__(network)
        self.whole = network
        self.local_weight = local_weight
        self.ranks = ranks
        self._all = len(network.decomposition.subdomains(network.local_cnns.image_size))
        self.drawing = RankRandomness(ranks)

    def forward(self, x: Tensor | Subimages) -> Tensor:
        """Return (B, 1, K) global scores; while training, those of the local CNNs follow: (B, 1 + N, K)."""
        with self.drawing.drawn(x.device):
            own = self.whole.local_probabilities(x)
        probabilities = self.ranks.gather_replicas(self.ranks.gather(own, self._all))
        scores = self.whole.decide(probabilities).unsqueeze(1)
        if not self.training or not self.local_weight:
            return scores
        return torch.cat([scores, probabilities.clamp_min(TINY).log()], 1)

    def global_grad_norm(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> Tensor:
        """Return the norm of the gradient of all ranks; that of the aggregation, which all have, counts once."""
        if self.ranks.alone:
            return super().global_grad_norm(parameters, norms)
        everywhere = {id(p) for p in self.whole.aggregation.parameters()}
        counts = [float(self.ranks.first if id(p) in everywhere else not self.ranks.replica) for p in parameters]
        squares = (norms.double().square() * norms.new_tensor(counts, dtype=torch.float64).unsqueeze(1)).sum(0)
        return self.ranks.all_sum(squares).sqrt().to(norms)

    def broadcast_metrics(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return rank 0's values, and take over its aggregation: on unequal processors rounding would part them."""
        mine = [value.detach().clone() for value in values]
        self.ranks.broadcast_([*mine, *self.whole.aggregation.state_dict().values()])
        self._average(self.whole.local_cnns.parameters())
        return tuple(mine)

    def reduce_gradients(self) -> None:
        """Sum the gradients of the local CNNs over replicas, which have seen other images of the batch."""
        gradients = [p.grad for p in self.whole.local_cnns.parameters() if p.grad is not None]
        self.ranks.sum_over_replicas(gradients)

    def train(self, mode: bool = True) -> Supervised:
        """Before an evaluation, let all replicas have the same running statistics of batch norm: their means."""
        if self.training and not mode:
            self._average(buffer for buffer in self.whole.local_cnns.buffers() if buffer.is_floating_point())
        super().train(mode)
        return self

    def _average(self, tensors: Iterable[Tensor]) -> None:
        self.ranks.sum_over_replicas(list(tensors), 1 / self.ranks.replicas)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of the network, subdomain by subdomain: `CNNDNN.unfused_state`."""
        assert n == 0
        return self.whole.unfused_state()

    def load_member_state(self, n: int, state: Mapping[str, Tensor]) -> None:
        """Copy such a state into the network; it may hold subdomains that the network has not."""
        assert n == 0
        self.whole.load_unfused_state(state)

    def loss_weights(self, at: float) -> Tensor:
        """Return 1 for the global loss, then the weight of each local one."""
        members = self._all if self.local_weight else 0
        return torch.tensor([1.0] + [self.local_weight * (1 - at)] * members)


def _train_whole(
    problem: Problem,
    network: LocalCNNs,
    aggregation: nn.Module,
    training: TrainingConfig,
    local_weight: float,
    name: str,
    progress: Progress,
    checkpoints: Checkpoints | None,
) -> StrategyResult:
    assert problem.config.aggregation.name != "vote"  # `ddcnn.train` refuses it
    whole = CNNDNN(problem.decomposition, network, aggregation)
    trainee = Supervised(whole, local_weight, problem.ranks)
    subdomains, keeper = None, cast(CheckpointStore | None, checkpoints)
    if not problem.ranks.alone:
        subdomains = network.subdomains
        keeper = None if checkpoints is None else RankCheckpoints(problem.ranks, checkpoints, trainee.drawing)
    part = (problem.ranks.replica, problem.ranks.replicas)
    with StageTimer(name, problem.device) as stage:
        history = fit(
            trainee,
            replace(problem.batches(problem.split.train, "order", subdomains, augment=True), part=part),
            replace(problem.batches(problem.split.validation, "order", subdomains), part=part),
            training,
            classes=problem.classes,
            stage=name,
            precision=problem.precision,
            progress=progress,
            checkpoints=keeper,
        )
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    whole = _assembled(problem, whole)
    whole.normalization = problem.normalization
    return StrategyResult(whole, [stage], {name: history})


def _assembled(problem: Problem, network: CNNDNN) -> CNNDNN:
    """Return the network with the local CNNs of all ranks, on each of them."""
    if problem.ranks.alone:
        return network
    whole = CNNDNN(problem.decomposition, problem.local_cnns(problem.local_modules()), network.aggregation)
    whole.load_unfused_state(problem.ranks.union(network.unfused_state()))
    return whole
