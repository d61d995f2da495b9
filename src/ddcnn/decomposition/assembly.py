"""Cut images into subimages and put them together again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from ddcnn.decomposition.subdomain import Subdomain
from ddcnn.errors import DecompositionError


@dataclass(frozen=True)
class Subimages:
    """Images, as some subdomains see them.

    Attributes
    ----------
    parts
        One tensor (B, C, *s) per subdomain.
    """

    parts: tuple[Tensor, ...]

    @property
    def device(self) -> torch.device:
        """Where the subimages are."""
        return self.parts[0].device

    @classmethod
    def of(cls, images: Shaped[Tensor, "B C *S"], subdomains: Sequence[Subdomain]) -> Subimages:
        """Cut whole images."""
        return cls(tuple(subdomain.cut(images) for subdomain in subdomains))

    def map(self, function: Callable[[Tensor], Tensor]) -> Subimages:
        """Return what a function makes of each part."""
        return Subimages(tuple(function(part) for part in self.parts))


def cut(images: Shaped[Tensor, "B C *S"], subdomains: Sequence[Subdomain]) -> list[Tensor]:
    """Return one tensor of subimages, (B, C, *s), per subdomain; views, not copies."""
    return [subdomain.cut(images) for subdomain in subdomains]


def reassemble(subimages: Sequence[Tensor], subdomains: Sequence[Subdomain]) -> Shaped[Tensor, "B C *S"]:
    """Put subimages together to the whole image; where subdomains overlap, each pixel comes from its owner.

    A pixel that no subdomain sees is 0.

    Parameters
    ----------
    subimages
        One tensor (B, C, *s) per subdomain, in the order of ``subdomains``.

    Raises
    ------
    DecompositionError
        The numbers or the sizes of subimages and subdomains differ.

    Examples
    --------
    >>> import torch
    >>> from ddcnn.decomposition import Grid
    >>> x = torch.arange(24.0).reshape(1, 1, 4, 6)
    >>> parts = Grid((2, 2), overlap=1).subdomains((4, 6))
    >>> bool((reassemble(cut(x, parts), parts) == x).all())
    True
    """
    if len(subimages) != len(subdomains):
        raise DecompositionError(f"{len(subimages)} subimages do not fit {len(subdomains)} subdomains")
    size = subdomains[0].image_size
    images = subimages[0].new_zeros(*subimages[0].shape[:2], *size)
    for part, subdomain in zip(subimages, subdomains, strict=True):
        if tuple(part.shape[2:]) != subdomain.shape:
            raise DecompositionError(
                f"subdomain {subdomain.index} has {subdomain.shape} pixels, its subimage {tuple(part.shape[2:])}"
            )
        subdomain.paste(part, images)
    return images
