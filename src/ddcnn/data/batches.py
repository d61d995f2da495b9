"""`Batches`: samples in shuffled or plain order, from the device or streamed to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batch import Batch, Inputs
from ddcnn.data.lazy import Images
from ddcnn.data.prefetch import prefetch
from ddcnn.data.sampling import balanced, shuffled
from ddcnn.decomposition import Subdomain, Subimages, cut
from ddcnn.seeds import derive_seed

_EVALUATED = 500  # samples at once, fewer where they are large
_EVALUATED_BYTES = 2**26


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Batches:
    """A part of a data set, in batches.

    Attributes
    ----------
    inputs
        All samples, (n, ...): on the device of the computation, or `Images` that are streamed to it in the background.
    labels
        (n,), on that device.
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
    subdomains
        Where streamed images are cut; None: they come whole. Images on the device always come whole: the networks cut.
    extras
        Whatever else is known of all samples, by name, (n, ...): a batch has those of its samples.
    evaluation_size
        Most samples at once `in_order`; None: as many as do no harm.
    part
        (r, R): of the inputs of each batch, only the r-th of R parts of equal size is there, where the last sample
        stands in for those that are missing at the end; the labels are those of the whole batch.
    """

    inputs: Shaped[Tensor, "n *rest"] | Images
    labels: Int64[Tensor, "n"]
    indices: Int64[Tensor, "m"]
    batch_size: int = 128
    seed: int = 0
    augmentation: Augmentation | None = None
    transform: Callable[[Tensor], Tensor] = _same
    balanced: bool = False
    subdomains: tuple[Subdomain, ...] | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    evaluation_size: int | None = None
    part: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.indices)

    @property
    def steps(self) -> int:
        """Number of shuffled batches per epoch: all full, unless there is only one."""
        return max(1, len(self) // self.batch_size)

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.labels.device

    def shuffled(self, epoch: int, first: int = 0) -> Generator[Batch, None, None]:
        """Yield augmented batches; the samples that do not fill a batch wait for another epoch.

        ``first`` leaves out so many batches, which were had before.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        order = shuffled(self.indices, generator)
        if self.balanced:
            order = balanced(self.indices, self.labels[self.indices.to(self.labels.device)].cpu(), generator)
        moves = None
        if self.augmentation is not None:
            samples, axes = self.inputs.shape[0], self.inputs.ndim - 2
            moves = self.augmentation.draw(samples=samples, axes=axes, seed=self.seed, epoch=epoch)
        chosen = order[: self.steps * self.batch_size].split(self.batch_size)
        return self._batches(chosen[first:], moves)

    def in_order(self, batch_size: int | None = None) -> Generator[Batch, None, None]:
        """Yield all samples as they are."""
        return self._batches(self.indices.split(batch_size or self.evaluation_size or self._harmless), None)

    def subset(self, members: Sequence[int]) -> Batches:
        """Return the same samples for some of the networks: of streamed images, their subdomains alone are read."""
        subdomains = None if self.subdomains is None else tuple(self.subdomains[n] for n in members)
        return replace(self, subdomains=subdomains)

    def first(self) -> Inputs:
        """Return the inputs of the first shuffled batch."""
        with closing(self.shuffled(1)) as batches:
            return next(batches).inputs

    @property
    def _harmless(self) -> int:
        """As many as a step of training has, or more where they are small."""
        size = 4 * math.prod(self.inputs.shape[1:])
        return min(_EVALUATED, max(self.batch_size, _EVALUATED_BYTES // max(size, 1)))

    def _batches(self, parts: Iterable[Tensor], moves: Tensor | None) -> Generator[Batch, None, None]:
        inputs = self.inputs
        if isinstance(inputs, Images):
            yield from self._streamed(inputs, parts, moves)
            return
        for chosen in parts:
            own = self._own(chosen)
            batch = inputs[own.to(self.device)]
            if moves is not None and self.augmentation is not None:
                batch = self.augmentation.apply(batch, moves[own].to(self.device))
            yield self._batch(self.transform(batch), chosen)

    def _batch(self, inputs: Inputs, chosen: Tensor) -> Batch:
        extras = {name: values[chosen.to(values.device)].to(self.device) for name, values in self.extras.items()}
        return Batch(inputs, self.labels[chosen.to(self.device)], chosen, extras)

    def _own(self, chosen: Tensor) -> Tensor:
        """Return those samples of a batch whose inputs are there."""
        r, parts = self.part
        if parts == 1:
            return chosen
        size = -(-len(chosen) // parts)
        places = torch.arange(r * size, (r + 1) * size).clamp_max(len(chosen) - 1)
        return chosen[places]

    def _taken(self, images: Images, chosen: Tensor, moves: Tensor | None) -> Inputs:
        if moves is None or self.augmentation is None or not self.augmentation.rotation:
            return images.take(chosen, moves, self.subdomains)
        whole = self.augmentation.apply(images[chosen], moves)  # what is turned comes from the whole image
        return whole if self.subdomains is None else Subimages(tuple(cut(whole, self.subdomains)))

    def _streamed(self, images: Images, parts: Iterable[Tensor], moves: Tensor | None) -> Generator[Batch, None, None]:
        def fetch(chosen: Tensor) -> tuple[Tensor, Inputs]:
            own = self._own(chosen)
            batch = self._taken(images, own, None if moves is None else moves[own])
            return chosen, _each(batch, Tensor.pin_memory) if self.device.type == "cuda" else batch

        with closing(prefetch(fetch, parts)) as fetched:
            for chosen, batch in fetched:
                there = _each(batch, lambda part: part.to(self.device, non_blocking=True))
                yield self._batch(_each(there, self.transform), chosen)


def _each(inputs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    return inputs.map(function) if isinstance(inputs, Subimages) else function(inputs)
