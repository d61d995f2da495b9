"""`Images`: pixels that are not in memory as one tensor, but are read or made when a batch needs them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import moved
from ddcnn.data.moments import moments
from ddcnn.decomposition import Subdomain, Subimages, cut
from ddcnn.errors import DataError


class Images(ABC):
    """All images of a data set, one at a time.

    Attributes
    ----------
    shape
        (n, C, H, W) or (n, C, D, H, W).
    dtype
        uint8 or float32.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @abstractmethod
    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return image i; called from several threads at once."""

    @property
    def ndim(self) -> int:
        """Number of axes, samples and channels included."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return n."""
        return self.shape[0]

    def __getitem__(self, samples: Int64[Tensor, " m"]) -> Shaped[Tensor, "m C *S"]:
        """Return some images, whole."""
        images = torch.empty((len(samples), *self.shape[1:]), dtype=self.dtype)
        for i, sample in enumerate(samples.tolist()):
            images[i] = self.image(sample)
        return images

    def moments(self, samples: Int64[Tensor, " m"] | None = None) -> Float64[Tensor, "m C 4"]:
        """Return sum, sum of squares, minimum and maximum of some images, per channel; None: of all."""
        chosen = range(len(self)) if samples is None else samples.tolist()
        return torch.cat([moments(self.image(i).unsqueeze(0)) for i in chosen])

    def take(
        self,
        samples: Int64[Tensor, " m"],
        moves: Int64[Tensor, "m axes 2"] | None = None,
        subdomains: Sequence[Subdomain] | None = None,
    ) -> Tensor | Subimages:
        """Return some images, flipped and shifted by ``moves``, then cut to ``subdomains``; None: neither.

        Returns
        -------
        images
            (m, C, *S), or the `Subimages` of the subdomains.
        """
        images = self[samples]
        if moves is not None:
            images = moved(images, moves)
        if subdomains is None:
            return images
        return Subimages(tuple(part.contiguous() for part in cut(images, subdomains)))


class Lazy(Images):
    """Images that a function returns, such as a reader of files or a procedure that draws them.

    Parameters
    ----------
    function
        From the number of a sample to its image (C, *S): equal numbers give equal images, from any thread.
    shape, dtype
        Of all images, (n, C, *S).
    """

    def __init__(self, function: Callable[[int], Tensor], shape: Sequence[int], dtype: torch.dtype) -> None:
        self.function, self.shape, self.dtype = function, tuple(shape), dtype

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return image i, or raise a `DataError` that names it if it is not as was said."""
        image = self.function(i)
        if tuple(image.shape) != self.shape[1:] or image.dtype != self.dtype:
            raise DataError(
                f"image {i} should be {self.dtype} of shape {self.shape[1:]}, got {image.dtype} {tuple(image.shape)}"
            )
        return image


class OnHost(Images):
    """Images in the memory of the host, for a device that has no room for them."""

    def __init__(self, images: Shaped[Tensor, "n C *S"]) -> None:
        self.images = images
        self.shape, self.dtype = tuple(images.shape), images.dtype

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return a view of image i."""
        return self.images[i]

    def __getitem__(self, samples: Int64[Tensor, " m"]) -> Shaped[Tensor, "m C *S"]:
        """Return some images, whole."""
        return self.images[samples]


def load(images: Tensor | Images) -> Shaped[Tensor, "n C *S"]:
    """Return all images as one tensor in memory, read by several threads."""
    if isinstance(images, Tensor):
        return images
    loaded = torch.empty(images.shape, dtype=images.dtype)
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def read(i: int) -> None:
        loaded[i] = images.image(i)

    try:
        for _ in threads.map(read, range(len(images))):
            pass
    finally:
        threads.shutdown(cancel_futures=True)
    return loaded
