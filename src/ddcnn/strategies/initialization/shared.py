"""Begin with one local CNN that was trained on the subimages of all subdomains, and is then specialised in each.

The analogue of a subdomain solver that serves all subdomains (arXiv 2509.15900).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ddcnn.aggregation.average import TINY
from ddcnn.data.batch import Batch, Inputs
from ddcnn.decomposition import Subimages
from ddcnn.errors import ConfigError
from ddcnn.models import LocalCNNs
from ddcnn.planning import Setup, Work
from ddcnn.strategies.initialization.start import Initialization, Start, check_alone
from ddcnn.training import At, CrossEntropy, Loss, Single, StageTimer, cross_entropy_of

if TYPE_CHECKING:
    from ddcnn.strategies.strategy import StrategyContext

STAGE = "init/shared"


class SharedCNN(Single):
    """One network on the subimages of all subdomains, as one member, whose decision is the average over them.

    Parameters
    ----------
    network
        (B, C, *s) -> (B, K).
    local_cnns
        Local CNNs that see the same; what they are plays no part.
    """

    def __init__(self, network: nn.Module, local_cnns: LocalCNNs) -> None:
        super().__init__(network)
        self._sees = [local_cnns]  # no part of the network

    def forward(self, x: Inputs) -> Tensor:
        """Return (B, 1, K), and while it is trained the scores for each subdomain behind it, (B, 1 + N, K)."""
        assert isinstance(x, Subimages)
        (sees,) = self._sees
        seen = torch.stack([sees.seen_by(n, x) for n in range(sees.members)], 1)
        scores = self.network(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        decision = scores.float().softmax(2).mean(1, keepdim=True).clamp_min(TINY).log()
        return torch.cat([decision, scores.float()], 1) if self.training else decision


@dataclass(frozen=True)
class MeanOfSubdomains:
    """The mean of the cross-entropies of all subimages."""

    cross_entropy: CrossEntropy
    replayable: ClassVar[bool] = True

    def __call__(self, scores: Tensor, batch: Batch, at: At) -> Loss:  # noqa: ARG002 - always the same
        """Return the one loss."""
        return Loss(self.cross_entropy.losses(scores[:, 1:], batch).mean().view(1))


def train_shared(context: StrategyContext) -> Start:
    """Train one local CNN on all subimages; every local CNN begins with it."""
    setup = context.setup
    (work,) = shared_works(setup)
    shared = shared_cnn(setup)
    with StageTimer(STAGE, setup.compute.device) as stage:
        history = work.fit(shared, progress=context.progress, checkpoints=context.checkpoints(STAGE))
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = len(history.rows)
    stage.critical_path_seconds = stage.seconds
    state = {name: value.detach().cpu().clone() for name, value in shared.network.state_dict().items()}
    return Start(dict.fromkeys(range(len(setup.networks.subdomains)), state), None, [stage], {STAGE: history})


def shared_cnn(setup: Setup) -> SharedCNN:
    """Return the one local CNN, as it begins."""
    sees = setup.networks.local_cnns(backend="looped")
    return SharedCNN(setup.networks.local_module(0, "shared").to(setup.compute.device), sees)


def shared_works(setup: Setup) -> list[Work]:
    """Describe the one training."""
    data, subdomains = setup.data, setup.networks.subdomains
    epochs = setup.config.init.epochs or data.training.epochs
    training = data.training.from_random().model_copy(update={"epochs": epochs})
    cross_entropy = cross_entropy_of(training, data.labels[data.split.train.to(data.device)], data.classes)
    work = Work(
        STAGE,
        partial(shared_cnn, setup),
        data.batches(data.split.train, subdomains, augment=True),
        data.batches(data.split.validation, subdomains),
        training,
        data.classes,
        precision=setup.compute.precision,
        graphs=setup.compute.graphs,
        objective=MeanOfSubdomains(cross_entropy),
    )
    return [work]


def check_shared(setup: Setup) -> None:
    """Raise a `ConfigError` if no one network can see the subimages of all subdomains."""
    shapes = {(setup.networks.channels + s.added_channels, *s.shape) for s in setup.networks.subdomains}
    if len(shapes) > 1:
        shown = ", ".join("x".join(map(str, shape[1:])) for shape in sorted(shapes))
        raise ConfigError(
            f"init.name = shared needs subimages of one shape, got {shown}; use a grid that divides the image evenly, "
            "and a coarse level of the same size or none"
        )
    if setup.config.aggregation.aggregate_on != "train":
        raise ConfigError(
            "init.name = shared trains on all training images with their labels, so none are unseen: it cannot go with "
            f"aggregation.aggregate_on = {setup.config.aggregation.aggregate_on}; use train, or init.name = contrastive"
        )
    check_alone(setup)


SHARED = Initialization(
    train_shared,
    "one CNN for all subdomains",
    "One local CNN is trained on the subimages of all subdomains; each local CNN begins with it.",
    stages={STAGE: "one CNN for all subdomains"},
    check=check_shared,
    works=shared_works,
)
