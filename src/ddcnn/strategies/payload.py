"""A problem as a parcel, and back: the same problem in another process, or on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddcnn.config import Config
from ddcnn.data import Dataset, Split
from ddcnn.data.lazy import Images, OnHost, load
from ddcnn.data.store import Store, Stored
from ddcnn.data.subdomain_pixels import PixelsOfSubdomains, SubdomainPixels
from ddcnn.decomposition import Subdomain
from ddcnn.engines import TaskPayload
from ddcnn.models import Normalization
from ddcnn.strategies.problem import Problem, find_device

_PARTS = ("train", "validation", "test")


def pack(problem: Problem, subdomains: tuple[Subdomain, ...] | None = None) -> TaskPayload:
    """Return everything that the training of local CNNs needs.

    Images of a store go as its path. Others go whole, or, if ``subdomains`` are given, as the slabs that these can need
    under the augmentation of the run.
    """
    dataset = problem.dataset
    numbers: dict[str, Any] = {
        "config": problem.config.model_dump(mode="json"),
        "name": dataset.name,
        "classes": list(dataset.classes),
        "shape": list(dataset.images.shape),
        "flip_axes": list(dataset.flip_axes),
        "shift": dataset.shift,
        "rotation": dataset.rotation,
        "plane": list(dataset.plane),
    }
    arrays = {part: getattr(problem.split, part).numpy() for part in _PARTS}
    arrays["labels"] = dataset.labels.numpy()
    arrays["mean"] = problem.normalization.mean.cpu().numpy()
    arrays["std"] = problem.normalization.std.cpu().numpy()
    if isinstance(problem.images, Stored):
        numbers["store"] = str(problem.images.store.path.resolve())
    elif subdomains is None or (problem.augmentation and problem.augmentation.rotation):
        arrays["images"] = load(_on_host(problem)).numpy()
    else:
        images = load(_on_host(problem))
        numbers["slabs"] = [s.index for s in subdomains]
        for slab in (SubdomainPixels.of(images, s, problem.augmentation) for s in subdomains):
            arrays[f"slab{slab.subdomain}"] = slab.pixels.numpy()
            arrays |= {f"reach{slab.subdomain}-{axis}": reach.numpy() for axis, reach in enumerate(slab.reach)}
    return TaskPayload(numbers, arrays)


def unpack(parcel: TaskPayload, device: str) -> Problem:
    """Return the problem that was packed; its data set has no test images of its own, and no drawings."""
    numbers, arrays = parcel.numbers, parcel.arrays
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    config = Config.parse(numbers["config"])
    place = find_device(device)
    images = _images(numbers, tensors)
    dataset = Dataset(
        numbers["name"],
        images,
        tensors["labels"],
        tuple(numbers["classes"]),
        flip_axes=tuple(numbers["flip_axes"]),
        shift=numbers["shift"],
        rotation=numbers["rotation"],
        plane=(numbers["plane"][0], numbers["plane"][1]),
    )
    return Problem(
        config=config,
        dataset=dataset,
        split=Split(*(tensors[part] for part in _PARTS)),
        device=place,
        images=images.to(place) if isinstance(images, Tensor) else images,
        labels=tensors["labels"].to(place),
        normalization=Normalization(tensors["mean"], tensors["std"]).to(place),
    )


def _images(numbers: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor | Images:
    if "store" in numbers:
        return Stored(Store(Path(numbers["store"])))
    if "slabs" not in numbers:
        return tensors["images"]
    shape = numbers["shape"]
    reach = {n: tuple(tensors[f"reach{n}-{axis}"] for axis in range(len(shape) - 2)) for n in numbers["slabs"]}
    return PixelsOfSubdomains([SubdomainPixels(n, tensors[f"slab{n}"], reach[n]) for n in numbers["slabs"]], shape)


def _on_host(problem: Problem) -> Tensor | Images:
    images = problem.images
    return images.cpu() if isinstance(images, Tensor) else images.images if isinstance(images, OnHost) else images
