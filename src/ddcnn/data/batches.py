"""`Batches`: samples that lie on the device, in shuffled or plain order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import Augmentation
from ddcnn.data.sampling import balanced, shuffled
from ddcnn.seeds import derive_seed


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Batches:
    """A part of a data set, in batches.

    Attributes
    ----------
    inputs, labels
        All samples, (n, ...) and (n,), on the device of the computation.
    indices
        The samples of this part.
    batch_size
        Samples per batch.
    seed
        Determines the order and the augmentation of each epoch, together with its number.
    augmentation
        What happens to images in shuffled order; None: nothing.
    transform
        From raw samples to what the network sees, such as a `ddcnn.models.Normalization`.
    balanced
        Whether shuffled batches have equally many samples of each class.
    """

    inputs: Shaped[Tensor, "n *rest"]
    labels: Int64[Tensor, "n"]
    indices: Int64[Tensor, "m"]
    batch_size: int = 128
    seed: int = 0
    augmentation: Augmentation | None = None
    transform: Callable[[Tensor], Tensor] = _same
    balanced: bool = False

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    @property
    def steps(self) -> int:
        """Number of shuffled batches per epoch: all full, unless there is only one."""
        return max(1, len(self) // self.batch_size)

    def shuffled(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield augmented (inputs, labels); the samples that do not fill a batch wait for another epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = shuffled(self.indices, generator)
        if self.balanced:
            order = balanced(self.indices, self.labels[self.indices.to(self.labels.device)].cpu(), generator)
        moves = None
        if self.augmentation is not None:
            axes = self.inputs.ndim - 2
            moves = self.augmentation.draw(samples=len(self.inputs), axes=axes, seed=self.seed, epoch=epoch)
        for chosen in order[: self.steps * self.batch_size].split(self.batch_size):
            here = chosen.to(self.inputs.device)
            inputs = self.inputs[here]
            if self.augmentation is not None and moves is not None:
                inputs = self.augmentation.apply(inputs, moves[chosen].to(inputs.device))
            yield self.transform(inputs), self.labels[here]

    def in_order(self, batch_size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all samples as they are, (inputs, labels)."""
        for chosen in self.indices.split(batch_size):
            here = chosen.to(self.inputs.device)
            yield self.transform(self.inputs[here]), self.labels[here]
