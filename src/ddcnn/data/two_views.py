"""`TwoViews`: each batch twice, as two draws of the augmentation show it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddcnn.data.batch import Batch
from ddcnn.data.batches import Batches
from ddcnn.decomposition import Subdomain, Subimages


@dataclass(frozen=True)
class TwoViews:
    """Batches of 2 B: B samples in shuffled order, and the same samples in another view.

    The targets are the numbers of the samples, so that views of one sample, and no others, belong together: labels play
    no part.

    Attributes
    ----------
    first
        The samples, of which the other view differs by its augmentation alone.
    """

    first: Batches

    @property
    def second(self) -> Batches:
        """The other view."""
        return replace(self.first, view=1)

    def shuffled(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, from the ``first`` on."""
        with closing(self.first.shuffled(epoch, first)) as one, closing(self.second.shuffled(epoch, first)) as two:
            for a, b in zip(one, two, strict=True):
                assert isinstance(a.inputs, Subimages)
                assert isinstance(b.inputs, Subimages)
                parts = tuple(torch.cat(pair) for pair in zip(a.inputs.parts, b.inputs.parts, strict=True))
                samples = torch.cat([a.samples, b.samples])
                yield Batch(Subimages(parts), samples.to(self.device), samples)

    def subset(self, members: Sequence[int]) -> TwoViews:
        """Return the same samples for some of the networks."""
        return TwoViews(self.first.subset(members))

    def of_size(self, size: int) -> TwoViews:
        """Return the same in batches of so many samples."""
        return TwoViews(self.first.of_size(size))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.first)

    @property
    def batch_size(self) -> int:
        """B."""
        return self.first.batch_size

    @property
    def subdomains(self) -> tuple[Subdomain, ...]:
        """What is cut from the images."""
        return self.first.subdomains

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return self.first.steps

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.first.device

    @property
    def seed(self) -> int:
        """What order and augmentation follow from."""
        return self.first.seed

    @property
    def labels(self) -> Tensor:
        """Of all samples; they play no part."""
        return self.first.labels

    @property
    def indices(self) -> Tensor:
        """The samples."""
        return self.first.indices
