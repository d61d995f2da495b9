"""`RankDistribution`: one coherent model, trained by several ranks that each have some of its local CNNs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ddcnn.data.batch import Inputs
from ddcnn.engines.rank_rng import RankRandomness
from ddcnn.engines.ranks import Ranks
from ddcnn.training import Distribution, TrainableMembers, WholeNetwork


class RankDistribution(Distribution):
    """What ranks exchange in the training of a `WholeNetwork`, of which each has the local CNNs that it owns.

    What the other ranks' local CNNs say is a constant here: the loss is that of the whole model on each rank, and the
    gradient is that of its own part. Layers that draw, such as dropout, draw from a stream of the rank's own in the
    local CNNs, and from one that is the same everywhere in the aggregation.

    Parameters
    ----------
    ranks
        Between whom.
    subdomains
        N.
    """

    def __init__(self, ranks: Ranks, subdomains: int) -> None:
        self.ranks, self.subdomains = ranks, subdomains
        self.randomness = RankRandomness(ranks)
        self._everywhere: set[int] = set()

    def forward(self, network: TrainableMembers, inputs: Inputs) -> Tensor:
        """Return the scores that follow from what the local CNNs of all ranks hand over.

        Where that is something else than probabilities, each rank has the local losses of its own local CNNs alone:
        others give them no gradient.
        """
        whole = _whole(network)
        over = whole.network.handed
        self._everywhere = {id(p) for p in whole.network.aggregation.parameters()}
        with self.randomness.drawn(inputs.device):
            own = whole.network.said(inputs)
        widths = None if over is None else over.widths
        handed = self.ranks.gather_replicas(self.ranks.gather(own.handed, self.subdomains, widths))
        p = handed if over is None else own.probabilities
        if over is not None and whole.shows_local_scores:
            p = self.ranks.gather_replicas(p)
        return whole.decide(handed, p)

    def reduce_gradients(self, network: TrainableMembers) -> None:
        """Sum the gradients of the local CNNs over replicas, which have seen other images of the batch."""
        parameters = _whole(network).network.local_cnns.parameters()
        self.ranks.sum_over_replicas([p.grad for p in parameters if p.grad is not None])

    def global_grad_norm(self, parameters: Sequence[nn.Parameter], norms: Tensor) -> Tensor:
        """Return the norm of the gradient of all ranks; that of the aggregation, which all have, counts once."""
        own = [self.ranks.first if id(p) in self._everywhere else not self.ranks.replica for p in parameters]
        counts = norms.new_tensor([float(counted) for counted in own], dtype=torch.float64)
        squares = (norms.double().square() * counts.unsqueeze(1)).sum(0)
        return self.ranks.all_sum(squares).sqrt().to(norms)

    def broadcast_metrics(self, network: TrainableMembers, *values: Tensor) -> tuple[Tensor, ...]:
        """Return rank 0's values, and take over its aggregation: on unequal processors rounding would part them."""
        whole = _whole(network).network
        mine = [value.detach().clone() for value in values]
        self.ranks.broadcast_([*mine, *whole.aggregation.state_dict().values()])
        self._average(whole.local_cnns.parameters())
        return tuple(mine)

    def before_evaluation(self, network: TrainableMembers) -> None:
        """Let all replicas have the same running statistics of batch norm: their means."""
        whole = _whole(network)
        if whole.training:
            self._average(buffer for buffer in whole.network.local_cnns.fused.buffers() if buffer.is_floating_point())

    def _average(self, tensors: Iterable[Tensor]) -> None:
        self.ranks.sum_over_replicas(list(tensors), 1 / self.ranks.replicas)


def _whole(network: TrainableMembers) -> WholeNetwork:
    return cast(WholeNetwork, network)
