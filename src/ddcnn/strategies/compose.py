"""Strategy "compose": sub-networks that divide the channels of the global CNN are trained alone, then it from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from ddcnn.config import TrainingConfig
from ddcnn.errors import ConfigError, TrainingError
from ddcnn.models.composition import check_composed, check_divides, composed
from ddcnn.planning import Setup, Work
from ddcnn.strategies.global_cnn import train_on_whole_images, whole_images_work
from ddcnn.strategies.local_task import group_work, group_works
from ddcnn.strategies.strategy import Results, Strategy, StrategyContext, StrategyResult
from ddcnn.strategies.train_groups import train_groups
from ddcnn.training import StageTimer

PARTS, WHOLE = "compose/parts", "compose"


def train_compose(context: StrategyContext, _earlier: Results) -> dict[str, StrategyResult]:
    """Train the sub-networks on whole images, as tasks that do not communicate; compose them; train the global CNN on.

    It is the global CNN's network transfer of Gu, Zhang, Liu and Cai (ETNA 56, 2022).
    """
    setup = context.setup
    parts = _of_parts(setup)
    with StageTimer(PARTS, setup.compute.device) as stage:
        networks, first, missing = train_groups(replace(context, setup=parts), setup.data.split.train, PARTS)
        stage.add(first.earlier_seconds, first.peak_memory_bytes)
    stage.epochs = first.epochs
    if missing:
        raise TrainingError(
            f"sub-networks {', '.join(map(str, missing))} could not be trained, so none can be composed"
        )
    network = setup.networks.global_cnn()
    states = [networks.member_state(n) for n in range(networks.members)]
    network.load_member_state(0, composed(states, network.member_state(0)))
    found = train_on_whole_images(context, network, _second_phase(setup), WHOLE)
    stages, histories = [stage, *found.stages], {PARTS: first, **found.histories}
    return {"compose": replace(found, stages=stages, histories=histories)}


def compose_works(setup: Setup, _aggregations: Sequence[str] = ()) -> list[Work]:
    """Describe the trainings of the sub-networks, and that of the composed CNN."""
    parts = _of_parts(setup)
    describe = partial(group_work, parts, samples=setup.data.split.train, stage=PARTS)
    return [*group_works(parts, PARTS, describe), whole_images_work(setup, WHOLE, _second_phase(setup))]


def _second_phase(setup: Setup) -> TrainingConfig:
    training, compose = setup.data.training, setup.config.compose
    changes = {"epochs": compose.epochs or training.epochs, "lr": training.peak_lr * compose.lr_factor}
    return training.model_copy(update=changes)


def _of_parts(setup: Setup) -> Setup:
    """Return a setup whose local CNNs are the sub-networks: each sees the whole image, with a share of the channels."""
    count, config = setup.config.compose.parts, setup.config
    box = [[0, pixels] for pixels in setup.networks.image_size]
    changes: dict[str, Any] = {
        "decomposition": {"name": "boxes", "options": {"parts": [box] * count}},
        "model": config.model.model_dump() | {"width_factor": 1 / count},
    }
    config = type(config).parse(config.model_dump() | changes)
    networks = replace(setup.networks, config=config)
    group = None if setup.compute.group is None else 1  # under a limit of memory
    return replace(setup, config=config, networks=networks, compute=setup.compute.with_(group=group))


def check_compose(setup: Setup) -> None:
    """Raise a `DdcnnError` if the global CNN cannot be composed."""
    if setup.config.init.way != "random":
        raise ConfigError(
            f"strategy compose finds by itself where it begins, not by init.name = {setup.config.init.way}; leave "
            "that out"
        )
    parts = _of_parts(setup).networks
    modules: list[nn.Module] = parts.local_modules()
    whole = setup.networks.global_module()
    check_divides(modules[0].state_dict(), whole.state_dict(), len(modules))
    whole.load_state_dict(composed([module.state_dict() for module in modules], whole.state_dict()))
    check_composed(modules, whole, (setup.networks.channels, *setup.networks.image_size))


COMPOSE = Strategy(
    train_compose,
    "composed CNN",
    "Sub-networks that divide the channels of the global CNN are trained one by one on whole images; the global CNN, "
    "composed of them, trains on.",
    stages={PARTS: "sub-networks", WHOLE: "composed CNN (second phase)"},
    trains="global",
    compared=False,
    check=check_compose,
    works=compose_works,
)
