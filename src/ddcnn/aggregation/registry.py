"""Aggregations by name, each with all that others ask about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ddcnn.aggregation.attention import Attention
from ddcnn.aggregation.average import Average
from ddcnn.aggregation.calibrated import Calibrated
from ddcnn.aggregation.dense import Dense
from ddcnn.aggregation.gated import Gated
from ddcnn.aggregation.handed import HandedOver
from ddcnn.aggregation.sklearn_linear import SklearnLinear, check_name, check_options, fit_linear, name_of_result
from ddcnn.aggregation.vote import Vote
from ddcnn.aggregation.weighted import WeightedAverage
from ddcnn.config import AggregationConfig, Features
from ddcnn.errors import AggregationError, in_one_line
from ddcnn.registry import Registry
from ddcnn.seeds import own_random_numbers

Builder = Callable[[HandedOver, AggregationConfig], nn.Module]
ANY: tuple[Features, ...] = ("probability", "log", "logit", "penultimate")


@dataclass(frozen=True)
class Aggregation:
    """What is known of an aggregation.

    Attributes
    ----------
    build
        (what is handed over, configuration) -> a module (B, N, F) -> (B, K) scores, for N ``subdomains`` and K
        ``classes``. One that is given something else than probabilities says so by its attribute ``handed``.
    result
        What results call the local CNNs under this aggregation, such as ``"cnn-dnn"``.
    label, sentence
        The same for readers, and how it decides.
    differentiable
        Whether a coherent model can be trained through it.
    fit
        Trains it in place, where it does not do as the dense network does: ``fit(module, h, labels)`` with what was
        handed over (n, N, F) for n training samples and their labels (n,). None: by gradient descent on the
        cross-entropy; what has no parameters is not trained.
    takes
        Which ``aggregation.features`` it can be given.
    check
        Raises an `AggregationError` for a configuration that it cannot be trained with.
    """

    build: Builder
    result: str
    label: str
    sentence: str
    differentiable: bool = True
    fit: Callable[[nn.Module, torch.Tensor, torch.Tensor], None] | None = None
    takes: tuple[Features, ...] = ("probability",)
    check: Callable[[AggregationConfig], None] = lambda _config: None

    @property
    def file(self) -> str:
        """Where a run keeps its parameters."""
        return "aggregation.safetensors" if self.result == "cnn-dnn" else f"aggregations/{self.result}.safetensors"

    def features(self, config: AggregationConfig) -> Features:
        """Return what is handed over to it: what the configuration says, or else probabilities."""
        return config.features if config.features in self.takes else "probability"


def _adapted(name: str, found: Any) -> Aggregation:
    """Return an aggregation of the user's own: a function of N, K and the options that returns a module."""
    if isinstance(found, Aggregation):
        return found
    if not callable(found):
        raise AggregationError(f"aggregation {name!r} is a {type(found).__name__}, not a function or an Aggregation")
    own = name.rpartition(":")[2].lower().replace("_", "-")

    def build(handed: HandedOver, config: AggregationConfig) -> nn.Module:
        module = _called(name, lambda: found(handed.subdomains, handed.classes, **config.options), config)
        if not isinstance(module, nn.Module):
            raise AggregationError(f"aggregation {name!r} returned a {type(module).__name__}, not an nn.Module")
        return module

    return Aggregation(build, own, own, f"The local CNNs decide by {name}.")


def _called(name: str, build: Callable[[], Any], config: AggregationConfig) -> Any:
    """Build a module; options that it does not know are an `AggregationError`."""
    try:
        return build()
    except TypeError as error:
        raise AggregationError(
            f"aggregation {name!r} cannot be built with options {config.options}: {in_one_line(error)}"
        ) from None


def _of_sklearn(estimator: str) -> Aggregation:
    """Return a linear classifier of scikit-learn as an aggregation."""
    check_name(estimator)
    return Aggregation(
        lambda handed, config: SklearnLinear(
            estimator,
            config.options,
            handed.subdomains,
            handed.classes,
            features=handed.features,
            widths=handed.widths,
        ),
        name_of_result(estimator),
        estimator,
        f"{estimator} of scikit-learn learns to decide from what all local CNNs hand over.",
        fit=fit_linear,
        takes=ANY,
        check=lambda config: check_options(estimator, config.options),
    )


def _attention(handed: HandedOver, config: AggregationConfig) -> nn.Module:
    about: dict[str, Any] = {"features": handed.features, "widths": handed.widths, "shortcut": config.shortcut}
    about["subdomain_dropout"] = config.subdomain_dropout
    build = lambda: Attention(handed.subdomains, handed.classes, **(about | config.options))  # noqa: E731
    module: nn.Module = _called("attention", build, config)
    return module


def _gated(handed: HandedOver, config: AggregationConfig) -> nn.Module:
    about = {"features": handed.features, "widths": handed.widths, "subdomain_dropout": config.subdomain_dropout}
    build = lambda: Gated(handed.subdomains, handed.classes, **(about | config.options))  # noqa: E731
    module: nn.Module = _called("gated", build, config)
    return module


AGGREGATIONS: Registry[Aggregation] = Registry(
    "aggregation",
    AggregationError,
    {
        "average": Aggregation(
            lambda _handed, _config: Average(),
            "average",
            "average",
            "Each local CNN gives one probability per class; the mean over all local CNNs decides.",
        ),
        "vote": Aggregation(
            lambda _handed, _config: Vote(),
            "vote",
            "vote",
            "Each local CNN names its most probable class; the majority decides.",
            differentiable=False,
        ),
        "weighted": Aggregation(
            lambda handed, config: WeightedAverage(
                handed.subdomains, handed.classes, subdomain_dropout=config.subdomain_dropout
            ),
            "weighted",
            "weighted average",
            "The mean of the probabilities, with a learned weight for each local CNN and class, decides.",
        ),
        "dense": Aggregation(
            lambda handed, config: Dense(
                handed.subdomains,
                handed.classes,
                hidden=config.hidden,
                features=handed.features,
                shortcut=config.shortcut,
                subdomain_dropout=config.subdomain_dropout,
                widths=handed.widths,
            ),
            "cnn-dnn",
            "CNN-DNN",
            "A small dense network (DNN) learns to decide from the probabilities of all local CNNs.",
            takes=ANY,
        ),
        "attention": Aggregation(
            _attention,
            "attention",
            "attention",
            "A small transformer learns which local CNNs to look at, each a token that knows its place in the image.",
            takes=ANY,
        ),
        "gated": Aggregation(
            _gated,
            "gated",
            "gated mixture",
            "A small network sees what all local CNNs say, and learns for each image how much to believe each of them.",
            takes=ANY,
        ),
    },
    adapt=_adapted,
    families={"sklearn": _of_sklearn},
)


def build_aggregation(
    name: str,
    subdomains: int,
    classes: int,
    config: AggregationConfig,
    *,
    seed: int = 0,
    widths: Sequence[int] | None = None,
) -> nn.Module:
    """Build an aggregation, (B, N, F) -> (B, K), with parameters that depend on ``seed`` alone.

    Parameters
    ----------
    widths
        How many features each subdomain hands over, where ``config.features`` are features.

    Raises
    ------
    AggregationError
        Unknown name, options that it does not know, or no ``widths`` where they are needed.
    """
    entry = AGGREGATIONS.find(name)
    handed = HandedOver.of(entry.features(config), subdomains, classes, widths)
    with own_random_numbers(seed=seed):
        built = entry.build(handed, config)
    return Calibrated(built, handed) if config.calibrate else built


def check_scores_of(name: str, module: nn.Module, handed: torch.Tensor, classes: int) -> None:
    """Make sure that an aggregation returns a score for each class, and the same ones when it is asked again.

    Parameters
    ----------
    handed
        What it may be given, (B, N, F).

    Raises
    ------
    AggregationError
        It does not, or it raises an error itself.
    """
    try:
        with torch.no_grad(), own_random_numbers(handed.device):
            scores, again = (copy.deepcopy(module).eval()(handed.clone()) for _ in range(2))
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise AggregationError(f"aggregation {name!r} cannot decide: {in_one_line(error)}") from None
    wanted = (len(handed), classes)
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != wanted or not scores.is_floating_point():
        got = f"{tuple(scores.shape)} {scores.dtype}" if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise AggregationError(f"aggregation {name!r} should return scores (B, K) = {wanted}, got {got}")
    if not torch.allclose(scores, again, equal_nan=True):
        raise AggregationError(
            f"aggregation {name!r} draws random numbers in eval mode, so an image would be decided in another way each "
            "time; do so where self.training alone"
        )


def check_aggregation(config: AggregationConfig) -> None:
    """Make sure that an aggregation can be trained as the configuration says.

    Raises
    ------
    AggregationError
        It is unknown, takes something else than ``features``, or cannot learn with its options.
    """
    entry = AGGREGATIONS.find(config.name)
    if config.features not in entry.takes:
        able = ", ".join(name for name, one in AGGREGATIONS.items() if config.features in one.takes)
        raise AggregationError(
            f"aggregation {config.name} decides from {' or '.join(entry.takes)}, not from aggregation.features = "
            f"{config.features}; leave that out, or use {able} or sklearn:NAME"
        )
    entry.check(config)
