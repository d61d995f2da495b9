"""`Setup`: all that is known before the first training step: data, networks, how it is computed, and by how many."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ddcnn.config import Config
from ddcnn.data import Dataset, Split, make_split, open_data
from ddcnn.data.store import Stored, reading
from ddcnn.data.training_data import TrainingData
from ddcnn.engines import ALONE, Ranks
from ddcnn.errors import ConfigError
from ddcnn.fusion import Proofs
from ddcnn.machine import resident_memory
from ddcnn.network_factory import NetworkFactory
from ddcnn.planning.batch_size import with_batch_size
from ddcnn.planning.compute import ComputePlan, find_device
from ddcnn.planning.measured_choices import choose_fastest
from ddcnn.planning.memory import MemoryPlan, plan_memory
from ddcnn.training.thresholds import check_thresholds


@dataclass(frozen=True)
class Setup:
    """A run that can begin.

    Attributes
    ----------
    config
        With nothing left at ``auto`` once `decide` has been called.
    data, networks, compute
        The images, what makes the networks, and how they are computed.
    ranks
        The processes over which a coherent model is spread.
    """

    config: Config
    data: TrainingData
    networks: NetworkFactory
    compute: ComputePlan
    ranks: Ranks = ALONE

    @property
    def owned(self) -> tuple[int, ...]:
        """The subdomains of this rank; without other ranks, all."""
        return self.ranks.owned(len(self.networks.decomposition))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that its trainings depend on: configuration, split, and the content of each sample."""
        config = self.config.model_dump(mode="json", exclude={"out", "force", "strategy", "track"})
        for name in ("threshold", "costs"):  # chosen when all is trained
            del config["aggregation"][name]
        config["compute"] = {name: config["compute"][name] for name in ("precision", "backend")}
        config["data"] |= {"directory": None, "offline": False}  # where the files are: their content counts
        digest = hashlib.sha256(json.dumps([config, self.data.split.to_json(), self.compute.device.type]).encode())
        digest.update(self.data.content.numpy().tobytes())
        for values in (self.data.dataset.groups, self.data.dataset.weights):
            digest.update(b"" if values is None else values.numpy().tobytes())
        return digest.hexdigest()

    def with_compute(self, compute: ComputePlan, data: TrainingData | None = None) -> Setup:
        """Return the same setup, computed in another way."""
        config = self.config.model_copy(update={"compute": compute.config})
        return replace(self, config=config, compute=compute, data=data or self.data)

    def with_epochs(self, epochs: int) -> Setup:
        """Return the same setup for another number of epochs of each stage that has none of its own."""
        training = self.config.training.model_copy(update={"epochs": epochs})
        config = self.config.model_copy(update={"training": training})
        data, networks = replace(self.data, training=training), replace(self.networks, config=config)
        return replace(self, config=config, data=data, networks=networks)


def prepare(config: Config, dataset: Dataset | None = None, ranks: Ranks = ALONE, proofs: Sequence[str] = ()) -> Setup:
    """Read (or take) and split the data, place it on the device, and check that every network fits its subimages.

    Parameters
    ----------
    proofs
        What has been proved of fused networks before: `ddcnn.fusion.Proofs`.

    Raises
    ------
    DdcnnError
        Whatever cannot be used is found here, before anything is trained or written.
    """
    dataset = dataset or ranks.local_rank0_first(lambda: open_images(config))
    split = make_split(dataset, config.data, config.seed)
    device = find_device(config.compute.device)
    training = with_batch_size(config.training, samples=len(split.train), pixels=math.prod(dataset.image_size))
    config = config.model_copy(update={"training": training})
    data = TrainingData.of(dataset, split, config, device)
    networks = network_factory(config, data, Proofs(proofs))
    if not ranks.alone:
        ranks.owned(len(networks.decomposition))  # all find at once that there are too many of them
        ranks.same("configuration, labels or split", _digest(config, dataset, split))
    for index in training.subdomains:
        if not 0 <= index < len(networks.subdomains):
            raise ConfigError(
                f"training.subdomains.{index}: there is no such subdomain; use 0 to {len(networks.subdomains) - 1}"
            )
    check_thresholds(config.aggregation, dataset.classes)
    networks.check()
    return Setup(config, data, networks, ComputePlan(config.compute, device), ranks)


def open_images(config: Config) -> Dataset:
    """Read the data, in what ``compute.memory`` leaves to images; where it leaves nothing, the plan says so.

    Even then no more than the limit is read.
    """
    limit = config.compute.memory
    if limit is None or find_device(config.compute.device).type != "cpu":
        return open_data(config.data)
    left = limit - resident_memory()
    return open_data(config.data, memory=left if left > 0 else limit, limit=limit if left > 0 else None)


def network_factory(config: Config, data: TrainingData, proofs: Proofs) -> NetworkFactory:
    """Return what makes the networks for some data."""
    dataset = data.dataset
    return NetworkFactory(
        config, dataset.channels, data.classes, dataset.image_size, data.normalization, data.device, proofs
    )


def decide(setup: Setup, whole: Sequence[str], workers: int = 1) -> tuple[Setup, dict[str, str], MemoryPlan | None]:
    """Decide what depends on this machine: how many local CNNs at once, on which backend, in which precision.

    Parameters
    ----------
    whole
        What is trained on whole images: of ``"global"`` and ``"coherent"``.
    workers
        How many groups of local CNNs are trained at the same time.

    Returns
    -------
    setup, reasons, plan
        One line for each choice, and the memory plan if there is a limit.
    """
    networks, ranks = setup.networks, setup.ranks
    subdomains = len(networks.decomposition)
    data, compute, plan = plan_memory(setup.data, networks, setup.compute, whole)
    if workers > 1 and setup.config.compute.group is None:
        share = math.ceil(subdomains / workers)
        compute = compute.with_(group=min(compute.group or share, share))
    compute, reasons = choose_fastest(data, networks, compute, ranks, plan, steps=_steps(setup, whole))
    if plan is not None:
        reasons["memory"] = plan.line(subdomains)
    if note := networks.unreduced():
        reasons["width"] = note
    if isinstance(data.images, Stored):
        reasons["store"] = reading(data.images.store, networks.decomposition)
    return setup.with_compute(compute, data), reasons, plan


def _steps(setup: Setup, whole: Sequence[str]) -> int:
    """Return about how many training steps the run takes, in those of the local CNNs: whole networks take longer."""
    training = setup.config.training
    assert training.batch_size is not None
    an_epoch = max(1, len(setup.data.split.train) // training.batch_size)
    return training.epochs * an_epoch * (1 + len(whole))


def _digest(config: Config, dataset: Dataset, split: Split) -> bytes:
    """Return the SHA-256 of what may not differ between ranks; where files are may."""
    described = config.model_dump_json(exclude={"out": True, "force": True, "data": {"directory"}})
    labels = dataset.labels.numpy().tobytes()
    return hashlib.sha256(b"".join([described.encode(), labels, split.to_json().encode()])).digest()
