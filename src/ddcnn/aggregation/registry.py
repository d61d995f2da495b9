"""Aggregations by name, each with all that others ask about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ddcnn.aggregation.average import Average
from ddcnn.aggregation.dense import Dense
from ddcnn.aggregation.vote import Vote
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError, in_one_line
from ddcnn.registry import Registry

Builder = Callable[[int, int, AggregationConfig], nn.Module]


@dataclass(frozen=True)
class Aggregation:
    """What is known of an aggregation.

    Attributes
    ----------
    build
        (N, K, configuration) -> a module (B, N, K) probabilities -> (B, K) scores.
    result
        What results call the local CNNs under this aggregation, such as ``"cnn-dnn"``.
    label, sentence
        The same for readers, and how it decides.
    differentiable
        Whether a coherent model can be trained through it.
    fit
        Trains it in place, where it does not do as the dense network does: ``fit(module, p, labels)`` with local
        probabilities (n, N, K) of n training samples and their labels (n,). None: by gradient descent on the
        cross-entropy; what has no parameters is not trained.
    """

    build: Builder
    result: str
    label: str
    sentence: str
    differentiable: bool = True
    fit: Callable[[nn.Module, torch.Tensor, torch.Tensor], None] | None = None

    @property
    def file(self) -> str:
        """Where a run keeps its parameters."""
        return "aggregation.safetensors" if self.result == "cnn-dnn" else f"aggregations/{self.result}.safetensors"


def _adapted(name: str, found: Any) -> Aggregation:
    """Return an aggregation of the user's own: a function of N, K and the options that returns a module."""
    if isinstance(found, Aggregation):
        return found
    if not callable(found):
        raise AggregationError(f"aggregation {name!r} is a {type(found).__name__}, not a function or an Aggregation")
    own = name.rpartition(":")[2].lower().replace("_", "-")

    def build(subdomains: int, classes: int, config: AggregationConfig) -> nn.Module:
        try:
            module = found(subdomains, classes, **config.options)
        except TypeError as error:
            raise AggregationError(
                f"aggregation {name!r} cannot be built with options {config.options}: {in_one_line(error)}"
            ) from None
        if not isinstance(module, nn.Module):
            raise AggregationError(f"aggregation {name!r} returned a {type(module).__name__}, not an nn.Module")
        return module

    return Aggregation(build, own, own, f"The local CNNs decide by {name}.")


AGGREGATIONS: Registry[Aggregation] = Registry(
    "aggregation",
    AggregationError,
    {
        "average": Aggregation(
            lambda _n, _k, _config: Average(),
            "average",
            "average",
            "Each local CNN gives one probability per class; the mean over all local CNNs decides.",
        ),
        "vote": Aggregation(
            lambda _n, _k, _config: Vote(),
            "vote",
            "vote",
            "Each local CNN names its most probable class; the majority decides.",
            differentiable=False,
        ),
        "dense": Aggregation(
            lambda n, k, config: Dense(
                n,
                k,
                hidden=config.hidden,
                features=config.features,
                shortcut=config.shortcut,
                subdomain_dropout=config.subdomain_dropout,
            ),
            "cnn-dnn",
            "CNN-DNN",
            "A small dense network (DNN) learns to decide from the probabilities of all local CNNs.",
        ),
    },
    adapt=_adapted,
)


def build_aggregation(
    name: str, subdomains: int, classes: int, config: AggregationConfig, *, seed: int = 0
) -> nn.Module:
    """Build an aggregation, (B, N, K) -> (B, K), with parameters that depend on ``seed`` alone.

    Raises
    ------
    AggregationError
        Unknown name.
    """
    build = AGGREGATIONS.find(name).build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(subdomains, classes, config)
