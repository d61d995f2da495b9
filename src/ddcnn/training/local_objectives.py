"""What local CNNs that are trained alone minimise, so that they keep what helps only jointly. Nothing is communicated.

Cross-entropy alone lets a local network drop whatever does not decide by itself. Wang et al. (InfoPro, ICLR 2021,
arXiv 2101.10832) add a term that keeps it: that features of one class resemble each other more than those of others
(supervised contrast, Khosla et al. 2020), or that the subimage can be read from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.decomposition import Subimages
from ddcnn.errors import ConfigError
from ddcnn.models import LocalCNNs
from ddcnn.registry import Registry
from ddcnn.training.contrast import contrast, contrast_of_library
from ddcnn.training.objective import At, CrossEntropy, Loss, Objective
from ddcnn.training.with_head import HEAD, WANTED, WithHead

_HIDDEN, _EMBEDDED = 128, 64
_PIXELS = 8  # along each axis, of what is read from features


class About(NamedTuple):
    """What heads must know of local CNNs: how many features all of them have at most, channels, a seed for each."""

    features: int
    channels: int
    seeds: Sequence[int]


@dataclass(frozen=True)
class LocalObjective:
    """What is known of an objective of local CNNs.

    Attributes
    ----------
    term
        What joins the cross-entropy: of a batch with what the heads say, the loss of each member (M,).
    head
        Puts on local CNNs the heads that the term looks at.
    check
        Raises a `ConfigError` if it cannot be used.
    """

    term: Callable[[Batch], Tensor]
    head: Callable[[LocalCNNs, About], WithHead]
    check: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class WithTerm:
    """The cross-entropy, and a further term.

    Attributes
    ----------
    weight
        Of the term.
    """

    cross_entropy: CrossEntropy
    term: Callable[[Batch], Tensor]
    weight: float

    @property
    def replayable(self) -> bool:
        """Whether the term is one of this library, which do the same in every step."""
        return self.term.__module__ == __name__

    def __call__(self, scores: Tensor, batch: Batch, at: At) -> Loss:  # noqa: ARG002 - always the same
        """Return the cross-entropies as what is reported, and the term as what is minimised beside them."""
        return Loss(self.cross_entropy.losses(scores, batch), self.weight * self.term(batch).sum())


def with_embedding(network: LocalCNNs, about: About) -> WithHead:
    """Return local CNNs whose features are mapped to a space in which they are compared."""
    return WithHead(network, (about.features, _HIDDEN, _EMBEDDED), about.seeds)


def _with_decoder(network: LocalCNNs, about: About) -> WithHead:
    numbers = about.channels * _decoded_size(network).numel()
    return WithHead(network, (about.features, _HIDDEN, numbers), about.seeds, _reduced)


def _decoded_size(network: LocalCNNs) -> torch.Size:
    """Return the size of what is read from the features: that of the smallest subimage, or less."""
    shapes = [subdomain.shape for subdomain in network.subdomains]
    return torch.Size(min(_PIXELS, *axis) for axis in zip(*shapes, strict=True))


def _reduced(network: LocalCNNs, images: Subimages) -> Tensor:
    """Return the subimages, normalised and reduced by averaging, (B, M, C * pixels)."""
    size = _decoded_size(network)
    pool = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
    with torch.no_grad():
        seen = [network.seen_by(n, images) for n in range(network.members)]
        channels = [seen[n].shape[1] - s.added_channels for n, s in enumerate(network.subdomains)]
        parts = [pool(x[:, :count].float(), tuple(size)) for x, count in zip(seen, channels, strict=True)]  # type: ignore[arg-type]
        return torch.stack([part.flatten(1) for part in parts], 1)


def _contrast(batch: Batch) -> Tensor:
    return contrast(batch.extras[HEAD], batch.targets)


def _reconstruction(batch: Batch) -> Tensor:
    return (batch.extras[HEAD] - batch.extras[WANTED]).square().mean((0, 2))


LOCAL_OBJECTIVES: Registry[LocalObjective | None] = Registry(
    "local objective",
    ConfigError,
    {
        "ce": None,
        "ce+contrast": LocalObjective(_contrast, with_embedding, contrast_of_library),
        "ce+reconstruction": LocalObjective(_reconstruction, _with_decoder),
    },
    of=LocalObjective,
)


def check_local_objective(name: str) -> bool:
    """Return whether an objective looks at features; raise a `ConfigError` if it is unknown or cannot be used."""
    found = LOCAL_OBJECTIVES.find(name)
    if found is not None:
        found.check()
    return found is not None


def objective_of(config: TrainingConfig, cross_entropy: CrossEntropy) -> Objective:
    """Return what is minimised; with a further term, local CNNs need the heads that it looks at."""
    found = LOCAL_OBJECTIVES.find(config.local_objective)
    return cross_entropy if found is None else WithTerm(cross_entropy, found.term, config.local_objective_weight)
