"""Aggregations on the same numbers, and a control that does not know where they come from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation import AGGREGATIONS as KNOWN
from ddcnn.aggregation import HandedOver
from ddcnn.aggregation.handed import handed_to
from ddcnn.aggregation.registry import Aggregation
from ddcnn.config import AggregationConfig
from ddcnn.errors import ConfigError
from ddcnn.experiments.questions.frozen import frozen
from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.planning import Setup

_LEARNED = ("weighted", "attention", "gated")
_HERE = "ddcnn.experiments.questions.aggregations"


class Permuted(nn.Module):
    """An aggregation that is given its subdomains in another order for each sample: it cannot know who said what.

    In training the order is drawn; else it follows from the numbers themselves, by a hash, so that a decision depends
    on nothing but its sample.

    Parameters
    ----------
    aggregation
        (B, N, F) -> (B, K).
    """

    def __init__(self, aggregation: nn.Module) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.handed = handed_to(aggregation)

    def forward(self, p: Float[Tensor, "B N F"]) -> Float[Tensor, "B K"]:
        """Return global scores."""
        keys = torch.rand(p.shape[:2], device=p.device) if self.training else _hash(p)
        order = keys.argsort(dim=1, stable=True).unsqueeze(2).expand_as(p)
        scores: Tensor = self.aggregation(p.gather(1, order))
        return scores


def _hash(p: Tensor) -> Tensor:
    """Return a number 0..1 per sample and subdomain that hangs on all digits of its numbers."""
    weights = torch.arange(1, p.shape[2] + 1, dtype=torch.float64, device=p.device).sqrt()
    return (torch.sin((p.double() * weights).sum(2) * 12_989.8) * 43_758.5453).frac().abs()


def _build(over: HandedOver, config: AggregationConfig) -> nn.Module:
    return Permuted(KNOWN["dense"].build(over, config))


PERMUTED = Aggregation(
    _build,
    "permuted",
    "CNN-DNN, positions permuted",
    "The DNN is given the local CNNs in another order for each image: a control.",
    takes=("probability", "log", "logit"),
)
FROZEN = frozen("average", "vote", f"{_HERE}:PERMUTED", "dense", *_LEARNED)


def variants(setup: Setup) -> Sequence[Variant]:
    """Return one training of local CNNs, with all aggregations on it."""
    if setup.config.aggregation.features == "penultimate":
        raise ConfigError(
            "aggregation.features = penultimate: features of different subdomains mean different things, so that the "
            "control that permutes them says nothing; use probability, log or logit"
        )
    arms = {"average": "average", "vote": "vote", "cnn-dnn": "CNN-DNN", "permuted": PERMUTED.label}
    arms |= {name: KNOWN[name].label for name in _LEARNED}
    return (Variant("frozen", {"strategy": f"{_HERE}:FROZEN"}, arms),)


AGGREGATIONS = Experiment(
    "Which aggregation decides best on the same local CNNs, and how much of it is knowing who said what?",
    variants,
    pairs=(
        Pair("CNN-DNN", "average"),
        Pair("CNN-DNN", "vote"),
        Pair("CNN-DNN", PERMUTED.label),
        Pair(PERMUTED.label, "average"),
        *(Pair(KNOWN[name].label, "CNN-DNN") for name in _LEARNED),
        *(Pair(KNOWN[name].label, "average") for name in ("weighted", "gated")),  # they are sums, as the average is
    ),
)
