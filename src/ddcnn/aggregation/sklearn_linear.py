"""Linear classifiers of scikit-learn as aggregations: ``sklearn:LogisticRegression``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.aggregation.handed import HandedOver
from ddcnn.config import Features
from ddcnn.errors import AggregationError, in_one_line, nearest

ESTIMATORS = {
    "LinearDiscriminantAnalysis": "discriminant_analysis",
    "LinearSVC": "svm",
    "LogisticRegression": "linear_model",
    "LogisticRegressionCV": "linear_model",
    "Perceptron": "linear_model",
    "RidgeClassifier": "linear_model",
    "RidgeClassifierCV": "linear_model",
    "SGDClassifier": "linear_model",
}
"""Estimators whose decision is linear, so that two arrays are all of it, and the modules of scikit-learn."""

_TRIAL = 20  # samples of each class of a trial fit: enough for a cross-validation within


class SklearnLinear(nn.Module):
    """A linear map of all that is handed over, whose numbers a classifier of scikit-learn has found.

    The classifier learns from standardised numbers (mean 0, variance 1 over the training images); what that takes is
    part of the map afterwards, so that its decisions are those of the classifier behind a ``StandardScaler``. Nothing
    else of scikit-learn is kept or saved. In a coherent model the map is trained on by gradients.

    Parameters
    ----------
    estimator, options
        Its name, of `ESTIMATORS`, and what it is called with.
    subdomains, classes
        N and K.
    features, widths
        What is handed over: as in `ddcnn.aggregation.Dense`.
    """

    def __init__(
        self,
        estimator: str,
        options: Mapping[str, Any],
        subdomains: int,
        classes: int,
        *,
        features: Features = "probability",
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.handed = HandedOver.of(features, subdomains, classes, widths)
        self.estimator, self.options = estimator, dict(options)
        self.linear = nn.Linear(self.handed.numbers, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Float[Tensor, "B N F"]) -> Float[Tensor, "B K"]:
        """Return global scores: the decision function of the classifier."""
        scores: Tensor = self.linear(self.handed.flat(self.handed.numbers_of(h)))
        return scores

    @torch.no_grad()
    def fit(self, h: Float[Tensor, "m N F"], labels: Int64[Tensor, " m"]) -> None:
        """Let the classifier learn, and take over its numbers.

        Raises
        ------
        AggregationError
            It cannot learn from this.
        """
        numbers = self.handed.flat(self.handed.numbers_of(h)).cpu().double().numpy()
        mean, spread = numbers.mean(0), numbers.std(0)
        spread[spread == 0] = 1.0
        classes = len(self.linear.bias)
        seed = int(torch.randint(2**31 - 1, ()))
        weight, bias = _fitted(self.estimator, self.options, (numbers - mean) / spread, labels.numpy(), classes, seed)
        weight /= spread
        self.linear.weight.copy_(torch.from_numpy(weight))
        self.linear.bias.copy_(torch.from_numpy(bias - weight @ mean))


def check_name(name: str) -> None:
    """Make sure that there is such a classifier, whose decision is linear.

    Raises
    ------
    AggregationError
        It is not so.
    """
    if name not in ESTIMATORS:
        raise AggregationError(
            f"aggregation 'sklearn:{name}' cannot be saved as numbers: give a linear classifier, "
            f"{nearest(name, ESTIMATORS)}"
        )


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Make sure that a classifier takes its options: it learns from a few numbers.

    Raises
    ------
    AggregationError
        It does not.
    """
    draws = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], _TRIAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _fitted(name, options, draws.standard_normal((len(labels), 4)) + labels[:, None], labels, 3, 0)


def fit_linear(module: nn.Module, h: Tensor, labels: Tensor) -> None:
    """Train a `SklearnLinear` in place."""
    assert isinstance(module, SklearnLinear)
    module.fit(h, labels)


def name_of_result(estimator: str) -> str:
    """Return what results are called.

    >>> name_of_result("LogisticRegressionCV"), name_of_result("LinearSVC")
    ('logistic-regression-cv', 'linear-svc')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", estimator).lower()


def _fitted(
    name: str, options: Mapping[str, Any], numbers: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (K, M) and biases (K,) of a classifier that has learned."""
    import importlib

    kind = getattr(importlib.import_module(f"sklearn.{ESTIMATORS[name]}"), name)
    try:
        estimator = kind(**options)
        if options.get("random_state") is None and "random_state" in estimator.get_params():
            estimator.set_params(random_state=seed)
        estimator.fit(numbers, labels)
    except (TypeError, ValueError) as error:
        raise AggregationError(
            f"aggregation 'sklearn:{name}' cannot learn with options {dict(options)}: {in_one_line(error)}"
        ) from None
    weight, bias = np.atleast_2d(estimator.coef_).astype(np.float64), np.ravel(estimator.intercept_).astype(np.float64)
    if len(estimator.classes_) == 2:  # one row says how far it is from the first class to the second
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    bias = np.broadcast_to(bias, len(weight))  # without intercepts there is one 0
    rows = np.full(classes, np.nan)
    found = np.zeros((classes, weight.shape[1]))
    found[estimator.classes_], rows[estimator.classes_] = weight, bias
    least = float(np.nanmin(rows)) - 1e3  # a class of which no image was seen is not decided for
    return found, np.where(np.isnan(rows), least, rows)
