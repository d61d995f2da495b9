"""`Problem`: everything that the strategies share: data on the device, split, decomposition, networks."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ddcnn.aggregation import build_aggregation
from ddcnn.config import Config
from ddcnn.data import Dataset, Split, make_split, open_data
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Images, OnHost
from ddcnn.decomposition import Decomposition, Grid, Subdomain, Subimages
from ddcnn.engines import ALONE, Ranks
from ddcnn.errors import ConfigError, ModelError, in_one_line
from ddcnn.fusion import Backend
from ddcnn.models import LocalCNNs, Normalization, build, width_rule
from ddcnn.planning.batch_size import with_batch_size
from ddcnn.seeds import derive_seed
from ddcnn.training.precision import PrecisionName

_CHECK_BATCH = 2


@dataclass(frozen=True)
class Problem:
    """A data set, cut and placed on a device, and the networks to train on it.

    Attributes
    ----------
    config
        With nothing left at ``auto`` once `ddcnn.strategies.resolve` has decided.
    dataset, split
        All samples, and which of them train, validate and test.
    device
        Where everything is computed.
    images, labels
        All samples, resident on the device; images of a store, or those that the device has no room for, are streamed.
    normalization
        Measured on the training images.
    ranks
        The processes over which a coherent model is spread.
    """

    config: Config
    dataset: Dataset
    split: Split
    device: torch.device
    images: Tensor | Images
    labels: Tensor
    normalization: Normalization
    ranks: Ranks = ALONE

    @property
    def decomposition(self) -> Decomposition:
        """The decomposition that the configuration describes."""
        return Grid(self.config.decomposition.grid, overlap=self.config.decomposition.overlap)

    @property
    def global_decomposition(self) -> Decomposition:
        """The decomposition into one subdomain, whose local CNN is the global CNN."""
        return Grid((1,) * len(self.dataset.image_size))

    @property
    def classes(self) -> int:
        """K."""
        return len(self.dataset.classes)

    @property
    def precision(self) -> PrecisionName:
        """The number format that was decided on."""
        assert self.config.compute.precision != "auto"
        return self.config.compute.precision

    @property
    def backend(self) -> Backend:
        """The backend that was decided on."""
        return self.config.compute.backend

    @property
    def group(self) -> int | None:
        """Most local CNNs that are trained at once; None: all."""
        return self.config.compute.group

    @property
    def limit(self) -> int | None:
        """Bytes of this process's memory that may be used; None: as many as there are, or it is a GPU's."""
        return self.config.compute.memory if self.device.type == "cpu" else None

    @property
    def owned(self) -> tuple[int, ...]:
        """The subdomains of this rank; without other ranks, all."""
        return self.ranks.owned(math.prod(self.config.decomposition.grid))

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Those whose local CNNs are trained at once here, group by group; the sizes differ by at most one."""
        count = math.ceil(len(self.owned) / (self.group or len(self.owned)))
        return tuple(tuple(part.tolist()) for part in np.array_split(self.owned, count))

    @property
    def augmentation(self) -> Augmentation | None:
        """What happens to training images; None: nothing."""
        training, dataset = self.config.training, self.dataset
        flip_axes = () if training.flip is False else dataset.flip_axes
        if training.flip and not flip_axes:
            flip_axes = (len(dataset.image_size) - 1,)  # asked for: mirror left and right
        shift = dataset.shift if training.shift is None else training.shift
        rotation = dataset.rotation if training.rotation is None else training.rotation
        return Augmentation(flip_axes, shift, rotation, dataset.plane) if flip_axes or shift or rotation else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that its trainings depend on: configuration, images as far as was measured, labels, split."""
        config = self.config.model_dump(mode="json", exclude={"out", "force", "strategy"})
        config["compute"] = {name: config["compute"][name] for name in ("precision", "backend")}
        digest = hashlib.sha256(json.dumps([config, self.split.to_json(), self.device.type]).encode())
        for tensor in (self.dataset.labels, self.normalization.mean, self.normalization.std):
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def batches(
        self,
        part: Int64[Tensor, "m"],
        purpose: str,
        subdomains: tuple[Subdomain, ...] | None = None,
        *,
        augment: bool = False,
    ) -> Batches:
        """Return normalised batches of some samples; ``purpose`` and the run's seed determine their order.

        Of streamed images only the ``subdomains`` are read; None: the whole images are.
        """
        return Batches(
            self.images,
            self.labels,
            part,
            batch_size=self.config.training.batch_size,
            seed=derive_seed(self.config.seed, purpose),
            augmentation=self.augmentation if augment else None,
            transform=self.normalization,
            balanced=self.config.training.sampling == "balanced",
            subdomains=subdomains,
            evaluation_size=self.config.training.batch_size if self.config.compute.memory else None,
        )

    def local_modules(self, purpose: str = "local", indices: Sequence[int] | None = None) -> list[nn.Module]:
        """Build the local CNNs of some subdomains, each from its own seed: (run, purpose, subdomain)."""
        subdomains = self.decomposition.subdomains(self.dataset.image_size)
        width = self.config.model.width_factor or width_rule(len(subdomains))
        chosen = subdomains if indices is None else [subdomains[i] for i in indices]
        return [self._build(s.shape, width, derive_seed(self.config.seed, purpose, s.index)) for s in chosen]

    def local_cnns(
        self,
        modules: Sequence[nn.Module],
        indices: Sequence[int] | None = None,
        *,
        backend: Backend | None = None,
        example: Tensor | Subimages | None = None,
    ) -> LocalCNNs:
        """Fuse local CNNs, on the device; proved equal to the loop if there is an example, else known to be."""
        return LocalCNNs(
            self.decomposition,
            [module.to(self.device) for module in modules],
            image_size=self.dataset.image_size,
            indices=indices,
            backend=backend or self.backend,
            example=example,
            proved=example is None,
        )

    def global_cnn(self) -> LocalCNNs:
        """Build the global CNN: full width, on the whole image."""
        module = self._build(self.dataset.image_size, 1.0, derive_seed(self.config.seed, "global"))
        return LocalCNNs(self.global_decomposition, [module.to(self.device)], image_size=self.dataset.image_size)

    def aggregation(self, name: str, purpose: str = "dnn") -> nn.Module:
        """Build an aggregation on the device."""
        subdomains = math.prod(self.config.decomposition.grid)
        seed = derive_seed(self.config.seed, purpose)
        return build_aggregation(name, subdomains, self.classes, self.config.aggregation, seed=seed).to(self.device)

    def with_compute(self, **changes: Any) -> Problem:
        """Return the same problem, computed in another way."""
        compute = self.config.compute.model_copy(update=changes)
        return self.with_config(self.config.model_copy(update={"compute": compute}))

    def with_config(self, config: Config) -> Problem:
        """Return the same problem under another configuration of the same data."""
        return replace(self, config=config)

    def _build(self, size: tuple[int, ...], width: float, seed: int) -> nn.Module:
        model = self.config.model
        return build(
            model.name, self.dataset.channels, self.classes, size, width=width, seed=seed, options=model.options
        )


def prepare(config: Config, dataset: Dataset | None = None, ranks: Ranks = ALONE) -> Problem:
    """Read (or take) and split the data, place it on the device, and check that every network fits its subimages.

    Raises
    ------
    DdcnnError
        Whatever cannot be used is found here, before anything is trained or written.
    """
    dataset = dataset or ranks.local_rank0_first(lambda: open_data(config.data))
    split = make_split(dataset, config.data, config.seed)
    if not ranks.alone:
        ranks.owned(math.prod(config.decomposition.grid))  # all find at once that there are too many of them
        ranks.same("configuration, labels or split", _digest(config, dataset, split))
    device = find_device(config.compute.device)
    training = with_batch_size(config.training, samples=len(split.train), pixels=math.prod(dataset.image_size))
    config = config.model_copy(update={"training": training})
    images = dataset.images
    if isinstance(images, Tensor):
        planned = config.compute.memory is not None and device.type != "cpu"  # then it is seen whether there is room
        images = OnHost(images) if planned else images.to(device)
    problem = Problem(
        config=config,
        dataset=dataset,
        split=split,
        device=device,
        images=images,
        labels=dataset.labels.to(device),
        normalization=Normalization.of_moments(dataset.moments(split.train), math.prod(dataset.image_size)).to(device),
        ranks=ranks,
    )
    _check_subdomains(problem)
    _check_networks(problem)
    return problem


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU where there is one.

    Raises
    ------
    ConfigError
        There is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = in_one_line(error)
        raise ConfigError(f"compute.device = {name!r} cannot be used here: {reason}; use cpu or auto") from None
    return device


def _digest(config: Config, dataset: Dataset, split: Split) -> bytes:
    """Return the SHA-256 of what may not differ between ranks; where files are may."""
    described = config.model_dump_json(exclude={"out": True, "force": True, "data": {"directory"}})
    labels = dataset.labels.numpy().tobytes()
    return hashlib.sha256(b"".join([described.encode(), labels, split.to_json().encode()])).digest()


def _check_subdomains(problem: Problem) -> None:
    count = len(problem.decomposition.subdomains(problem.dataset.image_size))
    for index in problem.config.training.subdomains:
        if not 0 <= index < count:
            raise ConfigError(f"training.subdomains.{index}: there is no such subdomain; use 0 to {count - 1}")


def _check_networks(problem: Problem) -> None:
    size = problem.dataset.image_size
    subdomains = problem.decomposition.subdomains(size)
    shapes = {s.shape: s.index for s in subdomains}
    modules = [(problem.global_cnn().extract(0), size, "the image")]
    for shape, index in shapes.items():
        modules.append((problem.local_modules(indices=[index])[0], shape, f"the subimage of subdomain {index}"))
    name = f"model {problem.config.model.name!r}"
    for module, shape, what in modules:
        shape_in = (_CHECK_BATCH, problem.dataset.channels, *shape)
        where = f"{what}, {'x'.join(map(str, shape))} pixels"
        with torch.random.fork_rng(devices=[]):  # dropout draws
            if _shape_of_scores(module, shape_in) == (_CHECK_BATCH, problem.classes):
                continue
            try:
                scores = module.cpu().train()(torch.zeros(shape_in))
            except (RuntimeError, ValueError) as error:  # whatever a network says of an input that is too small
                reason = in_one_line(error)
                raise ModelError(f"{name} does not fit {where}: {reason}; use a coarser grid") from None
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (_CHECK_BATCH, problem.classes):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            wanted = (_CHECK_BATCH, problem.classes)
            raise ModelError(f"{name} should return scores (B, K) = {wanted} for {where}, got {got}")


def _shape_of_scores(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of a network's scores, found without computing them, in no time and memory.

    None: it cannot be told; the input is too small, or the network must see numbers.
    """
    try:
        scores = copy.deepcopy(module).to("meta").train()(torch.empty(shape, device="meta"))
    except Exception:  # whatever a network raises: computing will tell
        return None
    return tuple(scores.shape) if isinstance(scores, Tensor) else None
