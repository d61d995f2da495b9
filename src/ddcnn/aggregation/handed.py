"""What local CNNs hand over to their aggregation: probabilities, logits, or the features that their classifier sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation.average import TINY
from ddcnn.config import Features
from ddcnn.errors import AggregationError


@dataclass(frozen=True)
class HandedOver:
    """What each of N local CNNs hands over for one image.

    Attributes
    ----------
    features
        ``"probability"``: its K class probabilities. ``"log"``: the same; the aggregation takes their logarithms,
        centred. ``"logit"``: its K scores before the softmax. ``"penultimate"``: the input of its classifier, its last
        linear layer.
    classes
        K.
    widths
        How many numbers each of them hands over, N of them.

    Examples
    --------
    >>> handed = HandedOver("penultimate", 3, (4, 2))
    >>> handed.width, handed.numbers, handed.silent
    (4, 6, 0.0)
    """

    features: Features
    classes: int
    widths: tuple[int, ...]

    @classmethod
    def of(cls, features: Features, subdomains: int, classes: int, widths: Sequence[int] | None = None) -> HandedOver:
        """Describe it; ``widths`` are needed, and used, for features of local CNNs alone.

        Raises
        ------
        AggregationError
            ``widths`` are not N numbers.
        """
        if features != "penultimate":
            return cls(features, classes, (classes,) * subdomains)
        if widths is None or len(widths) != subdomains:
            got = "none" if widths is None else str(len(widths))
            raise AggregationError(f"penultimate features of {subdomains} subdomains need as many widths, got {got}")
        return cls(features, classes, tuple(widths))

    @property
    def subdomains(self) -> int:
        """N."""
        return len(self.widths)

    @property
    def width(self) -> int:
        """F, the largest of the widths: where a subdomain hands over less, zeros follow."""
        return max(self.widths)

    @property
    def numbers(self) -> int:
        """How many numbers all subdomains hand over: their sum of widths."""
        return sum(self.widths)

    @property
    def silent(self) -> float:
        """What each number of a missing subdomain is: the same probability for all classes, or 0."""
        return 1 / self.classes if self.are_probabilities else 0.0

    @property
    def are_probabilities(self) -> bool:
        """Whether probabilities are handed over."""
        return self.features in ("probability", "log")

    @property
    def by_class(self) -> bool:
        """Whether there is a number for each class."""
        return self.features != "penultimate"

    def numbers_of(self, handed: Float[Tensor, "B N F"]) -> Float[Tensor, "B N F"]:
        """Return what an aggregation computes with: as it is, or as centred logarithms."""
        return self.experts(handed) if self.features == "log" else handed

    def flat(self, handed: Float[Tensor, "B N F"]) -> Float[Tensor, "B M"]:
        """Return the numbers of all subdomains one after the other, without those that only fill up.

        >>> HandedOver("penultimate", 3, (1, 2)).flat(torch.tensor([[[1.0, 0.0], [2.0, 3.0]]]))
        tensor([[1., 2., 3.]])
        """
        if len(set(self.widths)) == 1:
            return handed.flatten(1)
        return torch.cat([handed[:, n, :width] for n, width in enumerate(self.widths)], 1)

    def experts(self, handed: Float[Tensor, "B N K"]) -> Float[Tensor, "B N K"]:
        """Return what each subdomain says for and against each class: logarithms that are 0 in the mean.

        Their sum over the subdomains is a product of experts. There is none of features.
        """
        assert self.by_class, "features say nothing of classes"
        logs = handed.clamp_min(TINY).log() if self.are_probabilities else handed
        return logs - logs.mean(2, keepdim=True)


class LocalOutputs(NamedTuple):
    """What local CNNs computed for some images.

    Attributes
    ----------
    scores
        (B, N, K), before the softmax.
    features
        (B, N, F) inputs of their classifiers; None where nobody asked for them.
    """

    scores: Tensor
    features: Tensor | None = None

    @property
    def probabilities(self) -> Float[Tensor, "B N K"]:
        """The class probabilities, in float32."""
        return self.scores.float().softmax(2)

    def handed(self, over: HandedOver | None) -> Float[Tensor, "B N F"]:
        """Return what is handed over, in float32; None: probabilities."""
        if over is None or over.are_probabilities:
            return self.probabilities
        if over.features == "logit":
            return self.scores.float()
        assert self.features is not None, "features have to be asked for"
        features: Tensor = self.features.float()
        return F.pad(features, (0, over.width - features.shape[2]))

    @staticmethod
    def joined(parts: Sequence[LocalOutputs], axis: int = 0) -> LocalOutputs:
        """Join those of different images, or (axis 1) of different subdomains, whose F is then the largest of them."""
        features = [part.features for part in parts if part.features is not None]
        width = max((one.shape[2] for one in features), default=0)
        padded = [F.pad(one, (0, width - one.shape[2])) for one in features]
        scores = torch.cat([part.scores for part in parts], axis)
        return LocalOutputs(scores, torch.cat(padded, axis) if padded else None)


def handed_to(aggregation: nn.Module) -> HandedOver | None:
    """Return what an aggregation takes, as its attribute ``handed`` says; None: probabilities."""
    found = getattr(aggregation, "handed", None)
    return found if isinstance(found, HandedOver) and not found.are_probabilities else None
