"""Begin with local CNNs that learned without labels: which subimages are two views of one image (SimCLR, 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.data.two_views import TwoViews
from ddcnn.machine import staying_below
from ddcnn.planning import Setup, Work
from ddcnn.strategies.initialization.start import Initialization, Start, check_alone
from ddcnn.strategies.local_task import GroupResult, LocalInputs, about_heads, group_works, local_cnns_of, states_of
from ddcnn.strategies.train_groups import train_groups
from ddcnn.training import At, Checkpoints, Loss, Progress, StageTimer
from ddcnn.training.contrast import contrast, contrast_of_library
from ddcnn.training.local_objectives import with_embedding
from ddcnn.training.with_head import HEAD, WithHead

if TYPE_CHECKING:
    from ddcnn.strategies.strategy import StrategyContext

STAGE = "init/contrastive"
_CROP, _JITTER = 0.6, 0.2  # views that are too alike teach nothing


@dataclass(frozen=True)
class NTXent:
    """The normalised temperature-scaled cross-entropy between views, of each member by itself."""

    replayable: ClassVar[bool] = True

    def __call__(self, scores: Tensor, batch: Batch, at: At) -> Loss:  # noqa: ARG002 - views alone count
        """Return the loss of each member."""
        return Loss(contrast(batch.extras[HEAD], batch.targets))


def learn_views(context: StrategyContext) -> Start:
    """Train all local CNNs without labels and without communication; each begins with what it learned."""
    setup = _for_views(context.setup)
    with StageTimer(STAGE, setup.compute.device) as stage:
        network, history, missing = train_groups(
            replace(context, setup=setup), setup.data.split.train, STAGE, function=learn_views_of_group
        )
        stage.add(history.earlier_seconds, history.peak_memory_bytes)
    stage.epochs = history.epochs
    states = {n: network.member_state(n) for n in range(network.members) if n not in missing}
    return Start(states, None, [stage], {STAGE: history})


def learn_views_of_group(
    inputs: LocalInputs, arguments: Mapping[str, Any], checkpoints: Checkpoints | None, progress: Progress
) -> GroupResult:
    """Do as `ddcnn.strategies.local_task.train_group`, without labels."""
    setup, indices = inputs.setup, arguments["indices"]
    work = views_work(setup, indices, torch.tensor(arguments["samples"]), arguments["stage"])
    with staying_below(setup.compute.limit):
        network = local_cnns_of(inputs, indices)
        trained = with_embedding(network, about_heads(setup, indices))
        history = work.fit(trained, progress=progress, checkpoints=checkpoints)
    return GroupResult(states_of(network), history)


def views_work(setup: Setup, indices: Sequence[int], samples: Tensor, stage: str) -> Work:
    """Describe the training of the local CNNs of some subdomains together."""
    data, networks = setup.data, setup.networks
    subdomains = [networks.subdomains[n] for n in indices]

    def build() -> WithHead:
        return with_embedding(networks.local_cnns(indices, backend=setup.compute.backend), about_heads(setup, indices))

    return Work(
        stage,
        build,
        TwoViews(data.batches(samples, subdomains, augment=True)),
        data.batches(data.split.validation, subdomains),
        data.training,
        data.classes,
        precision=setup.compute.precision,
        graphs=setup.compute.graphs,
        objective=NTXent(),
        placed=True,
    )


def views_works(setup: Setup) -> list[Work]:
    """Describe the trainings of all groups."""
    setup = _for_views(setup)
    return group_works(setup, STAGE, partial(views_work, setup, samples=setup.data.split.train, stage=STAGE))


def _for_views(setup: Setup) -> Setup:
    """Return the setup with views that differ, in which the last epoch counts: there is nothing to validate."""
    training = setup.data.training
    crop = min(_CROP, training.crop or setup.data.dataset.crop)
    changes: dict[str, Any] = {
        "epochs": setup.config.init.epochs or training.epochs,
        "crop": crop,
        "jitter": max(_JITTER, training.jitter),
        "mixup": 0.0,
        "cutmix": 0.0,
        "select": "last",
        "patience": None,
        "sampling": "shuffled",
    }
    changed: TrainingConfig = training.from_random().model_copy(update=changes)
    config = setup.config.model_copy(update={"training": changed})
    return replace(
        setup,
        config=config,
        data=replace(setup.data, training=changed),
        networks=replace(setup.networks, config=config),
    )


def check_views(setup: Setup) -> None:
    """Raise a `DdcnnError` if the loss is not there, or a local CNN has no features."""
    contrast_of_library()
    _ = setup.networks.widths
    check_alone(setup)


CONTRASTIVE = Initialization(
    learn_views,
    "contrastive, without labels",
    "Each local CNN first learns, without labels, which subimages are two views of the same image.",
    stages={STAGE: "without labels"},
    check=check_views,
    works=views_works,
)
