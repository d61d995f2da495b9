"""Calibrate trained networks on the validation images, if the configuration asks for it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ddcnn.aggregation import Calibrated
from ddcnn.config import Config
from ddcnn.network import CNNDNN
from ddcnn.strategies.local_probabilities import LocalProbabilities


def calibrate_local(network: CNNDNN, probabilities: LocalProbabilities) -> None:
    """Find the temperatures of local CNNs that were trained alone, before their aggregation learns from them."""
    if probabilities.setup.config.aggregation.calibrate:
        scores = probabilities.outputs("validation").scores
        cast(Calibrated, network.aggregation).fit_local(scores, _labels(probabilities), network.missing)


def calibrate_decision(network: CNNDNN, probabilities: LocalProbabilities) -> None:
    """Find the temperature of the decision; the same on all ranks, which all have what it follows from."""
    if probabilities.setup.config.aggregation.calibrate:
        handed = probabilities.handed("validation", network.handed)
        cast(Calibrated, network.aggregation).fit_final(handed, _labels(probabilities), network.missing)


def forget_decision(aggregation: nn.Module, config: Config) -> None:
    """Take back the temperature of a decision that is to be trained on."""
    if config.aggregation.calibrate:
        cast(Calibrated, aggregation).final.fill_(1.0)


def _labels(probabilities: LocalProbabilities) -> Tensor:
    data = probabilities.setup.data
    return data.dataset.labels[data.split.validation]
