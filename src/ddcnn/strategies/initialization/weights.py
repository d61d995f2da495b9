"""Begin with the parameters of a file, or of the networks of another run (``--weights FILE|RUN``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ddcnn.config import Config
from ddcnn.data.content import are_among
from ddcnn.errors import ConfigError, FusionError, RunError, in_one_line
from ddcnn.fusion import classifier_of
from ddcnn.planning import Setup
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.learned import learned_by
from ddcnn.runs.networks import load, strategies_of
from ddcnn.runs.run_validation import foreign_code, read_config
from ddcnn.strategies.initialization.start import Initialization, Start, complete

if TYPE_CHECKING:
    from ddcnn.strategies.strategy import StrategyContext

_COUNTS = "num_batches_tracked"


def begin_with_weights(context: StrategyContext) -> Start:
    """Return the parameters of the file for every network, or those of the run for the network in the same place."""
    return _found(context.setup)


def check_weights(setup: Setup) -> None:
    """Raise a `ConfigError` if names or shapes are not those of the networks, or held-out images were learned from."""
    _found(setup)
    assert setup.config.init.weights is not None
    if setup.config.init.weights.is_dir():
        _check_held_out(setup.config.init.weights, setup)


def _found(setup: Setup) -> Start:
    path, networks = setup.config.init.weights, setup.networks
    if path is None:
        raise ConfigError("init.name = weights begins with parameters of a file or a run: say which, as --weights FILE")
    shapes = {s.index: (networks.channels + s.added_channels, *s.shape) for s in networks.subdomains}
    whole_shape = (networks.channels, *networks.image_size)
    trains_whole = setup.config.strategy == "global"
    local: Mapping[int, Mapping[str, Tensor]]
    whole: Mapping[str, Tensor] | None
    if path.is_dir():
        local, whole = _of_run(path, setup.config)
        if not trains_whole and len(local) != len(shapes):
            raise ConfigError(f"init.weights = {path} has {len(local)} local CNNs, this run has {len(shapes)}")
        if trains_whole and whole is None:
            raise ConfigError(f"init.weights = {path} has no global CNN; give a run that was compared or trained one")
    else:
        state = _of_file(path)
        local, whole = dict.fromkeys(shapes, state), state
    if trains_whole:
        assert whole is not None
        return Start(whole=_fitted(path, networks.global_module(), whole, whole_shape, "the global CNN"))
    found = {
        n: _fitted(path, networks.local_module(n), local[n], shape, f"local CNN {n}") for n, shape in shapes.items()
    }
    fits = whole is not None and _fits(networks.global_module(), whole)
    return Start(found, complete(networks.global_module(), whole) if fits and whole is not None else None)


def _check_held_out(path: Path, setup: Setup) -> None:
    """Raise a `ConfigError` if the run learned from images that this one needs as unseen ones."""
    learned, split, content = learned_by(RunFolder(path)), setup.data.split, setup.data.content
    if learned is None:
        return
    train, validation, test = (content[part] for part in (split.train, split.validation, split.test))
    known = are_among(validation, learned.trained) & ~are_among(validation, train)
    tested = are_among(test, learned.all) & ~are_among(test, torch.cat([train, validation]))
    if count := int(known.sum() + tested.sum()):
        raise ConfigError(
            f"init.weights = {path} learned from {count:,} of the {len(validation) + len(test):,} images on which this "
            "run validates or tests, so its accuracies would be too high; split the images as that run did, with its "
            f"seed ({read_config(RunFolder(path)).seed}) and its data section, or take a run that has not seen them"
        )
    way = setup.config.aggregation.aggregate_on
    if way != "train" and bool(are_among(train, learned.all).any()):
        raise ConfigError(
            f"init.weights = {path} learned from images of this run's training part, so none are unseen: it cannot go "
            f"with aggregation.aggregate_on = {way}; use train"
        )


def _of_file(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else in_one_line(error)
        raise ConfigError(f"init.weights = {path} cannot be read as safetensors: {reason}") from None


def _of_run(path: Path, config: Config) -> tuple[dict[int, Mapping[str, Tensor]], Mapping[str, Tensor] | None]:
    """Return the states of the local CNNs of a run, and of its global CNN."""
    with loadable(path, config) as (folder, trust):
        names = strategies_of(folder)
        network = load(path, next((name for name in _preferred(names) if name != "global"), None), trust=trust)
        whole = load(path, "global", trust=trust).local_cnns.member_state(0) if "global" in names else None
    local: dict[int, Mapping[str, Tensor]] = {}
    if names != ["global"]:
        local = {n: network.local_cnns.member_state(n) for n in range(network.local_cnns.members)}
        for n in network.missing:
            del local[n]
    return local, whole


@contextmanager
def loadable(path: Path, config: Config) -> Iterator[tuple[RunFolder, bool]]:
    """Give the folder of a run that a configuration names, and whether it names the same code; say what is wrong."""
    try:
        folder = RunFolder(path)
        own = {config.model.name, config.decomposition.name, config.aggregation.name}
        yield folder, {*foreign_code(read_config(folder))} <= own
    except RunError as error:
        raise ConfigError(f"init.weights = {path} is no run that can be loaded: {error}") from None


def _preferred(names: list[str]) -> list[str]:
    """Return results in the order in which their local CNNs are preferred: those that were trained on most."""
    return sorted(names, key=lambda name: {"transfer": 0, "coherent": 1}.get(name, 2))


def _fitted(
    path: Path, module: nn.Module, state: Mapping[str, Tensor], shape: tuple[int, ...], what: str
) -> dict[str, Tensor]:
    """Return the complete state of a network; its classifier may be for other classes, and is then random."""
    try:
        classifier = f"{classifier_of(module, shape)[0]}."
    except FusionError:
        classifier = "\0"
    own = module.state_dict()
    head = [name for name in own if name.startswith(classifier)]
    other_classes = any(name not in state or state[name].shape != own[name].shape for name in head)
    free = set(head) if other_classes else set()
    for name, value in own.items():
        if name in free or name.endswith(_COUNTS):
            continue
        got = tuple(state[name].shape) if name in state else "nothing"
        if got != tuple(value.shape):
            raise ConfigError(
                f"init.weights = {path} does not fit {what}: of {name!r} expected {tuple(value.shape)}, got {got}; "
                "give the file of the same network, with the same model.width_factor"
            )
    if unknown := sorted(state.keys() - own.keys() - free):
        raise ConfigError(f"init.weights = {path} holds {unknown[0]!r:.80}, which {what} has not")
    taken = {name: value for name, value in state.items() if name not in free and torch.is_tensor(value)}
    return complete(module, taken)


def _fits(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    own = module.state_dict()
    return own.keys() == state.keys() and all(own[name].shape == value.shape for name, value in state.items())


WEIGHTS = Initialization(
    begin_with_weights,
    "given weights",
    "The networks begin with the parameters of a file, or of another run.",
    check=check_weights,
)
