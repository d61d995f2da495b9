"""`Batches`: samples in shuffled or plain order, from the device or streamed to it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batch import OTHERS, SHARES, Batch, Inputs
from ddcnn.data.lazy import Images
from ddcnn.data.mixing import partners, shares_of
from ddcnn.data.prefetch import prefetch
from ddcnn.data.sampling import balanced, shuffled
from ddcnn.decomposition import Subdomain, Subimages
from ddcnn.machine import MOST_AT_ONCE, looked_at_once
from ddcnn.seeds import derive_seed


@dataclass(frozen=True)
class Batches:
    """A part of a data set, in batches.

    Attributes
    ----------
    inputs
        All samples: `Images`, of which batches hold what ``subdomains`` see, or numbers (n, ...) on the device.
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
    balanced
        Whether shuffled batches have equally many samples of each class.
    subdomains
        What is seen of images.
    extras
        Whatever else is known of all samples, by name, (n, ...): a batch has those of its samples.
    evaluation_size
        Most samples at once `in_order`; None: as many as do no harm.
    part
        (r, R): of the inputs of each batch, only the r-th of R parts of equal size is there, where the last sample
        stands in for those that are missing at the end; the labels are those of the whole batch.
    view
        Which of several independent augmentations is drawn, in the same order of samples.
    """

    inputs: Shaped[Tensor, "n *rest"] | Images
    labels: Int64[Tensor, "n"]
    indices: Int64[Tensor, "m"]
    batch_size: int = 128
    seed: int = 0
    augmentation: Augmentation | None = None
    balanced: bool = False
    subdomains: tuple[Subdomain, ...] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    evaluation_size: int | None = None
    part: tuple[int, int] = (0, 1)
    view: int = 0

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
            seed = derive_seed(self.seed, "view", self.view) if self.view else self.seed
            moves = self.augmentation.draw(samples=samples, axes=axes, seed=seed, epoch=epoch)
        chosen = order[: self.steps * self.batch_size].split(self.batch_size)
        return self._batches(chosen[first:], moves)

    def in_order(self, batch_size: int | None = None) -> Generator[Batch, None, None]:
        """Yield all samples as they are."""
        return self._batches(self.indices.split(batch_size or self.evaluation_size or self._harmless), None)

    def of_size(self, size: int) -> Batches:
        """Return the same in batches of so many samples."""
        return replace(self, batch_size=size)

    def subset(self, members: Sequence[int]) -> Batches:
        """Return the same samples for some of the networks: of images, only what their subdomains see."""
        return replace(self, subdomains=tuple(self.subdomains[n] for n in members if self.subdomains))

    def first(self) -> Inputs:
        """Return the inputs of the first shuffled batch."""
        with closing(self.shuffled(1)) as batches:
            return next(batches).inputs

    @property
    def _harmless(self) -> int:
        """As many as a step of training has, or more where they are small."""
        return max(min(self.batch_size, MOST_AT_ONCE), looked_at_once(self.inputs.shape[1:]))

    def _batches(self, parts: Iterable[Tensor], moves: Tensor | None) -> Generator[Batch, None, None]:
        if isinstance(self.inputs, Images) and not self.inputs.resident:
            yield from self._streamed(parts, moves)
            return
        for chosen in parts:
            yield self._batch(self._taken(chosen, moves), chosen, moves)

    def _taken(self, chosen: Tensor, moves: Tensor | None) -> Inputs:
        own = self._own(chosen)
        if isinstance(self.inputs, Tensor):
            return self.inputs[own.to(self.device)]
        return self.inputs.take(own, self.subdomains, self.augmentation, None if moves is None else moves[own])

    def _batch(self, inputs: Inputs, chosen: Tensor, moves: Tensor | None) -> Batch:
        extras = {name: values[chosen.to(values.device)].to(self.device) for name, values in self.extras.items()}
        labels = self.labels[chosen.to(self.device)]
        if moves is not None and self.augmentation is not None and self.augmentation.mixes:
            size = self.inputs.shape[2:]
            extras[OTHERS] = labels[partners(len(chosen), self.part).to(self.device)]
            extras[SHARES] = shares_of(self.augmentation.rows("mix", moves[chosen], len(size)), size).to(self.device)
        return Batch(inputs, labels, chosen, extras)

    def _own(self, chosen: Tensor) -> Tensor:
        """Return those samples of a batch whose inputs are there."""
        r, parts = self.part
        if parts == 1:
            return chosen
        size = -(-len(chosen) // parts)
        places = torch.arange(r * size, (r + 1) * size).clamp_max(len(chosen) - 1)
        return chosen[places]

    def _streamed(self, parts: Iterable[Tensor], moves: Tensor | None) -> Generator[Batch, None, None]:
        def fetch(chosen: Tensor) -> tuple[Tensor, Subimages]:
            batch = self._taken(chosen, moves)
            assert isinstance(batch, Subimages)
            return chosen, batch.map(Tensor.pin_memory) if self.device.type == "cuda" else batch

        with closing(prefetch(fetch, parts)) as fetched:
            for chosen, batch in fetched:
                yield self._batch(batch.map(lambda part: part.to(self.device, non_blocking=True)), chosen, moves)
