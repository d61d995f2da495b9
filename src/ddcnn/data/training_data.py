"""`TrainingData`: a data set that is split, measured and placed on a device, and gives batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ddcnn.config import Config, TrainingConfig
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batch import WEIGHTS
from ddcnn.data.batches import Batches
from ddcnn.data.content import content_of
from ddcnn.data.dataset import Dataset
from ddcnn.data.lazy import Images, OnHost, Resident, load
from ddcnn.data.splits import Split
from ddcnn.data.store import Store, Stored
from ddcnn.data.subdomain_pixels import SubdomainPixels
from ddcnn.decomposition import Subdomain
from ddcnn.models import Normalization
from ddcnn.seeds import derive_seed

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TrainingData:
    """The images and labels of a run.

    Attributes
    ----------
    dataset, split
        All samples, and which of them train, validate and test.
    images, labels
        All samples, resident on the device; images of a store, or those that the device has no room for, are streamed.
    normalization
        Measured on the training images.
    training, seed
        Batch size, sampling and augmentation; what all random numbers follow from.
    evaluation_size
        Most samples at once where nothing is trained; None: as many as do no harm.
    """

    dataset: Dataset
    split: Split
    images: Images
    labels: Tensor
    normalization: Normalization
    training: TrainingConfig
    seed: int
    evaluation_size: int | None = None

    @classmethod
    def of(cls, dataset: Dataset, split: Split, config: Config, device: torch.device) -> TrainingData:
        """Place a data set on a device; under a limit of memory, images stay on the host until there is a plan."""
        images = dataset.images
        if isinstance(images, Tensor):
            planned = config.compute.memory is not None and device.type != "cpu"
            images = OnHost(images) if planned else Resident(images.to(device))
        moments = dataset.moments(split.train)
        return cls(
            dataset,
            split,
            images,
            dataset.labels.to(device),
            Normalization.of_moments(moments, math.prod(dataset.image_size)).to(device),
            config.training,
            config.seed,
            config.training.batch_size if config.compute.memory else None,
        )

    @cached_property
    def content(self) -> Tensor:
        """A digest of the pixels and the label of each sample, (n, 16)."""
        return content_of(self.dataset)

    @property
    def weights(self) -> dict[str, Tensor]:
        """How much each sample counts, (n,), as `ddcnn.data.batch.WEIGHTS`; nothing, if all count the same."""
        weights = self.dataset.weights
        return {} if weights is None else {WEIGHTS: weights.to(self.device)}

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        return self.labels.device

    @property
    def classes(self) -> int:
        """K."""
        return len(self.dataset.classes)

    @property
    def batch_size(self) -> int:
        """Samples in a step."""
        assert self.training.batch_size is not None, "the batch size is decided before the data are placed"
        return self.training.batch_size

    @property
    def augmentation(self) -> Augmentation | None:
        """What happens to training images; None: nothing."""
        training, dataset = self.training, self.dataset
        if not training.augment:
            return None
        flip_axes = () if training.flip is False else dataset.flip_axes
        if training.flip and not flip_axes:
            flip_axes = (len(dataset.image_size) - 1,)  # asked for: mirror left and right
        shift = dataset.shift if training.shift is None else training.shift
        rotation = dataset.rotation if training.rotation is None else training.rotation
        return Augmentation(flip_axes, shift, rotation, dataset.plane) if flip_axes or shift or rotation else None

    def batches(
        self,
        samples: Int64[Tensor, "m"],
        subdomains: Sequence[Subdomain],
        *,
        purpose: str = "order",
        augment: bool = False,
        extras: Mapping[str, Tensor] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Batches:
        """Return batches of the subimages of some samples; ``purpose`` and the seed determine their order.

        Weights of the samples, if there are any, are among the ``extras``.
        """
        return Batches(
            self.images,
            self.labels,
            samples,
            batch_size=self.batch_size,
            seed=derive_seed(self.seed, purpose),
            augmentation=self.augmentation if augment else None,
            balanced=self.training.sampling == "balanced",
            subdomains=tuple(subdomains),
            extras=self.weights | dict(extras or {}),
            evaluation_size=self.evaluation_size,
            part=part,
        )

    def pack(self, subdomains: Sequence[Subdomain] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return it as numbers, as JSON takes them, and arrays; `unpack` makes the same of them elsewhere.

        Images of a store go as its path. Others go whole, or, if ``subdomains`` are given, as the pixels that these can
        come to see.
        """
        dataset, images = self.dataset, self.images
        numbers: dict[str, Any] = {
            "name": dataset.name,
            "classes": list(dataset.classes),
            "shape": list(images.shape),
            "flip_axes": list(dataset.flip_axes),
            "shift": dataset.shift,
            "rotation": dataset.rotation,
            "plane": list(dataset.plane),
        }
        arrays = {part: getattr(self.split, part).numpy() for part in _PARTS}
        arrays["labels"] = dataset.labels.numpy()
        if dataset.weights is not None:
            arrays["weights"] = dataset.weights.numpy()
        arrays["mean"] = self.normalization.mean.cpu().numpy()
        arrays["std"] = self.normalization.std.cpu().numpy()
        if isinstance(images, Stored):
            numbers["store"] = str(images.store.path.resolve())
        elif subdomains is None or (self.augmentation and self.augmentation.rotation):
            arrays["images"] = load(images).cpu().numpy()
        else:
            seen = SubdomainPixels.of(load(images).cpu(), subdomains, self.augmentation)
            numbers["seen"], more = seen.pack()
            arrays |= more
        return numbers, arrays

    @classmethod
    def unpack(
        cls, numbers: Mapping[str, Any], arrays: Mapping[str, np.ndarray], config: Config, device: torch.device
    ) -> TrainingData:
        """Return what was packed; its data set has no test images of its own, and no drawings."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        images: Images
        if "store" in numbers:
            images = Stored(Store(Path(numbers["store"])))
        elif "seen" in numbers:
            images = SubdomainPixels.unpack(numbers["seen"], arrays, numbers["shape"])
        else:
            images = Resident(tensors["images"].to(device))
        dataset = Dataset(
            numbers["name"],
            images,
            tensors["labels"],
            tuple(numbers["classes"]),
            flip_axes=tuple(numbers["flip_axes"]),
            shift=numbers["shift"],
            rotation=numbers["rotation"],
            plane=(numbers["plane"][0], numbers["plane"][1]),
            weights=tensors.get("weights"),
        )
        return cls(
            dataset,
            Split(*(tensors[part] for part in _PARTS)),
            images,
            tensors["labels"].to(device),
            Normalization(tensors["mean"], tensors["std"]).to(device),
            config.training,
            config.seed,
            config.training.batch_size if config.compute.memory else None,
        )
