"""Linear classifiers of scikit-learn: the same decisions as behind a scaler, from two arrays."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

from ddcnn.aggregation import AGGREGATIONS, build_aggregation, check_aggregation
from ddcnn.aggregation.sklearn_linear import ESTIMATORS
from ddcnn.config import AggregationConfig
from ddcnn.errors import AggregationError

pytestmark = pytest.mark.usefixtures("seeded")
KINDS = dict(all_estimators("classifier"))


def problem(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(90) % classes
    h = torch.randn(90, 2, 4) + labels.view(-1, 1, 1) * torch.tensor([3.0, 1.0, 0.0, -1.0])
    h[:, 1, 2] = 5.0  # a number that never changes
    return h, labels


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_decides_as_the_classifier(name: str, classes: int) -> None:
    h, labels = problem(classes)
    module = build_aggregation(f"sklearn:{name}", 2, classes, AggregationConfig(features="penultimate"), widths=(4, 4))
    entry = AGGREGATIONS.find(f"sklearn:{name}")
    assert entry.fit is not None
    options = {"random_state": 3} if "random_state" in KINDS[name]().get_params() else {}
    module.options = options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entry.fit(module, h, labels)
        pipeline = make_pipeline(StandardScaler(), KINDS[name](**options))
        pipeline.fit(h.flatten(1).double().numpy(), labels.numpy())
    x = torch.randn(50, 2, 4) * 3
    numbers = x.flatten(1).double().numpy()
    scores = module(x).detach()
    expected = pipeline.decision_function(numbers)
    found = (scores[:, 1] - scores[:, 0]) if classes == 2 else scores
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)
    assert np.array_equal(scores.argmax(1).numpy(), pipeline.predict(numbers))
    if name.startswith("LogisticRegression"):
        np.testing.assert_allclose(scores.softmax(1).numpy(), pipeline.predict_proba(numbers), atol=1e-3)


def test_a_class_that_was_not_there_is_not_decided_for() -> None:
    h, labels = problem(2)
    module = build_aggregation("sklearn:RidgeClassifier", 2, 4, AggregationConfig(features="logit"))
    AGGREGATIONS.find("sklearn:RidgeClassifier").fit(module, h, 2 * labels)  # type: ignore[misc]
    assert set(module(h).argmax(1).tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("RandomForestClassifier", {}, "'sklearn:RandomForestClassifier' cannot be saved as numbers: give a linear"),
        ("LogisticRegresion", {}, "did you mean 'LogisticRegression'"),
        ("LogisticRegression", {"c": 1}, "'sklearn:LogisticRegression' cannot learn with options {'c': 1}"),
        ("LogisticRegression", {"C": -1.0}, "'sklearn:LogisticRegression' cannot learn with options {'C': -1.0}"),
    ],
)
def test_what_cannot_be_used_is_refused_before_training(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(AggregationError) as error:
        check_aggregation(AggregationConfig(name=f"sklearn:{name}", options=options))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_names() -> None:
    assert not AGGREGATIONS.is_foreign("sklearn:LogisticRegression")
    assert AGGREGATIONS.is_foreign("sklearn.linear_model:LogisticRegression")
    results = [AGGREGATIONS.find(f"sklearn:{name}").result for name in ESTIMATORS]
    results += [entry.result for entry in AGGREGATIONS.values()]
    assert len(set(results)) == len(results)
