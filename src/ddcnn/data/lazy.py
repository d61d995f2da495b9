"""`Images`: pixels that are not in memory as one tensor, but are read or made when a batch needs them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped, UInt8
from torch import Tensor

from ddcnn.data.augmentation import Augmentation
from ddcnn.data.moments import moments
from ddcnn.data.prefetch import in_threads
from ddcnn.decomposition import Subdomain, Subimages
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

    def __getitem__(self, samples: Int64[Tensor, " m"] | Sequence[int] | slice | int) -> Shaped[Tensor, "*m C *S"]:
        """Return some images, whole: by their numbers, as of a tensor."""
        if not isinstance(samples, Tensor):
            samples = torch.arange(len(self))[samples]
        if samples.ndim == 0:
            return self.image(int(samples))
        images = torch.empty((len(samples), *self.shape[1:]), dtype=self.dtype)
        for i, sample in enumerate(samples.tolist()):
            images[i] = self.image(sample)
        return images

    def moments(self, samples: Int64[Tensor, " m"] | None = None) -> Float64[Tensor, "m C 4"]:
        """Return sum, sum of squares, minimum and maximum of some images, per channel; None: of all."""
        chosen = range(len(self)) if samples is None else samples.tolist()
        return torch.cat([moments(self.image(i).unsqueeze(0)) for i in chosen])

    def known_digests(self) -> UInt8[np.ndarray, "n 16"] | None:
        """Return the digests of `ddcnn.data.content` that are known without reading a pixel; None: they are not."""
        return None

    @property
    def resident(self) -> bool:
        """Whether they lie on the device of the computation, so that nothing is gained by reading ahead."""
        return False

    def take(
        self,
        samples: Int64[Tensor, " m"],
        subdomains: Sequence[Subdomain],
        augmentation: Augmentation | None = None,
        moves: Int64[Tensor, "m rows 2"] | None = None,
    ) -> Subimages:
        """Return some images as ``subdomains`` see them, after ``augmentation`` has changed them.

        Parameters
        ----------
        moves
            What the augmentation does to each of them, as `Augmentation.draw` returns it; None: nothing.
        """
        images = self[samples]
        if augmentation is not None and moves is not None:
            images = augmentation.apply(images, moves)
        return Subimages.of(images, subdomains).map(Tensor.contiguous)


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


class Resident(Images):
    """Images on the device of the computation."""

    def __init__(self, images: Shaped[Tensor, "n C *S"]) -> None:
        self.images = images
        self.shape, self.dtype = tuple(images.shape), images.dtype

    @property
    def resident(self) -> bool:
        """Return True."""
        return True

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return a view of image i."""
        return self.images[i]

    def __getitem__(self, samples: Int64[Tensor, " m"] | Sequence[int] | slice | int) -> Shaped[Tensor, "*m C *S"]:
        """Return some images, whole."""
        return self.images[samples.to(self.images.device) if isinstance(samples, Tensor) else samples]

    def take(
        self,
        samples: Int64[Tensor, " m"],
        subdomains: Sequence[Subdomain],
        augmentation: Augmentation | None = None,
        moves: Int64[Tensor, "m rows 2"] | None = None,
    ) -> Subimages:
        """Return some images as subdomains see them, as views where that is possible."""
        images = self[samples]
        if augmentation is not None and moves is not None:
            images = augmentation.apply(images, moves.to(images.device))
        return Subimages.of(images, subdomains)


class OnHost(Images):
    """Images in the memory of the host, for a device that has no room for them."""

    def __init__(self, images: Shaped[Tensor, "n C *S"]) -> None:
        self.images = images
        self.shape, self.dtype = tuple(images.shape), images.dtype

    def image(self, i: int) -> Shaped[Tensor, "C *S"]:
        """Return a view of image i."""
        return self.images[i]

    def __getitem__(self, samples: Int64[Tensor, " m"] | Sequence[int] | slice | int) -> Shaped[Tensor, "*m C *S"]:
        """Return some images, whole."""
        return self.images[samples]


def as_images(images: Tensor | Images) -> Images:
    """Return images that may be one tensor as `Images`."""
    return Resident(images) if isinstance(images, Tensor) else images


def load(images: Tensor | Images) -> Shaped[Tensor, "n C *S"]:
    """Return all images as one tensor in memory, read by several threads."""
    if isinstance(images, Tensor):
        return images
    if isinstance(images, Resident | OnHost):
        return images.images
    loaded = torch.empty(images.shape, dtype=images.dtype)

    def read(i: int) -> None:
        loaded[i] = images.image(i)

    in_threads(read, range(len(images)))
    return loaded
