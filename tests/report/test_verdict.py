import pytest

from ddcnn.report.results import Results
from ddcnn.report.verdict import verdict

BOX = [[0, 8], [0, 8]]


def sentence(accuracies, *, grid=(2, 2), local=None, whole=None):
    strategies = [
        {"name": name, "test_accuracy": value, "parameters": whole if name == "global" else None}
        for name, value in accuracies.items()
    ]
    subdomains = [{"index": i, "box": BOX, "parameters": p} for i, p in enumerate(local or ())]
    return verdict(Results.parse({"grid": grid, "strategies": strategies, "subdomains": subdomains}))


def test_all_strategies():
    accuracies = {"global": 0.988, "average": 0.9, "vote": 0.8, "cnn-dnn": 0.977, "coherent": 0.98, "transfer": 0.99}
    assert sentence(accuracies, local=[250] * 4, whole=1000) == (
        "4 local CNNs with 1/4 of the parameters each, trained independently, reach 97.7 % with a CNN-DNN; "
        "trained on as one model (transfer) they reach 99.0 %; the global CNN reaches 98.8 %."
    )


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ({}, "No test accuracy was measured in this run."),
        ({"global": None, "cnn-dnn": None}, "No test accuracy was measured in this run."),
        ({"global": 0.5}, "The global CNN reaches 50.0 %."),
        ({"average": 0.9, "vote": 0.8}, "4 local CNNs, trained independently, reach 90.0 % by average probability."),
        ({"average": 0.7, "vote": 0.8}, "4 local CNNs, trained independently, reach 80.0 % by majority vote."),
        (
            {"coherent": 0.8},
            "4 local CNNs with a DNN, trained from scratch as one model (coherent), reach 80.0 %.",
        ),
    ],
)
def test_some_strategies(accuracies, expected):
    assert sentence(accuracies) == expected


def test_one_subdomain_is_singular():
    assert sentence({"cnn-dnn": 0.9, "transfer": 0.95}, grid=(1, 1)) == (
        "1 local CNN, trained independently, reaches 90.0 % with a CNN-DNN; "
        "trained on as one model (transfer) it reaches 95.0 %."
    )


@pytest.mark.parametrize(
    ("local", "share"),
    [([250] * 4, "1/4"), ([270] * 4, "about 1/4"), ([1000], "100%"), ([10, 30], "1/50"), ([700], "70%")],
)
def test_share_of_the_parameters(local, share):
    text = sentence({"global": 0.9, "cnn-dnn": 0.9}, local=local, whole=1000)
    assert f" with {share} of the parameters" in text
