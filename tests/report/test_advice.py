"""What the page suggests: each rule on numbers that call for it, and none where all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ddcnn.config import Config
from ddcnn.report.advice import advice, warning
from ddcnn.report.results import Results

FLAT = {"local": (np.full((10, 4), 0.9), np.full((10, 4), 0.9))}
RISING = {"local": (np.full((10, 1), 0.5), np.linspace(0.1, 0.5, 10)[:, None])}


def found(results: dict[str, Any], panels: Any = FLAT) -> list[str]:
    return [one.found for one in advice(Results.parse(results), panels)]


@pytest.fixture
def good(synthetic: Any) -> dict[str, Any]:
    """Results in which there is nothing to find."""
    results = synthetic.comparison()
    results["details"]["confusion"] = {"transfer": (np.eye(10, dtype=int) * 99 + 1).tolist()}
    return results


def test_nothing_to_mend(good: dict[str, Any]) -> None:
    assert found(good) == ["To use what was trained:"]
    assert warning(Results.parse(good)) == ""
    assert found({}) == []


def used(results: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    last = advice(Results.parse(results), FLAT)[-1]
    return last.try_, last.options


def test_which_strategy_answers(good: dict[str, Any]) -> None:
    good["strategies"] = [row | {"validation_accuracy": 0.9} for row in good["strategies"]]
    said, commands = used(good)
    assert said.endswith(
        "Here transfer answers. It is the best strategy on the validation images; --strategy takes another one."
    )
    assert commands == (
        "ddcnn predict runs/demo IMAGE --strategy transfer",
        "ddcnn evaluate runs/demo --data folder:PATH --strategy transfer",
    )
    good["strategies"][0]["validation_accuracy"] = 0.91
    assert "Here global CNN answers." in used(good)[0]
    said, commands = used(good | {"trained": "cnn-dnn"})
    assert "Here CNN-DNN answers. It is the strategy that was trained" in said
    assert commands[0] == "ddcnn predict runs/demo IMAGE"
    good["details"]["folds"] = [2]
    assert used(good)[1][0] == "ddcnn predict runs/demo/folds/0 IMAGE --strategy global"


def change(path: tuple, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(results: Any) -> None:
        for key in path[:-1]:
            results = results[key]
        results[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "start"),
    [
        (change(("subdomains", 1, "diverged_epoch"), 2), "The training of local CNN 1 diverged"),
        (change(("strategies", 0, "validation_accuracy"), 0.79), "global CNN: far better on the training images"),
        (change(("subdomains", 3, "test_accuracy"), 0.11), "Subdomain 3: not shown to be better than guessing"),
        (change(("details", "samples", "test"), 40), "The test set is too small"),
        (change(("strategies", 0, "test_accuracy"), 1.0), "transfer is behind the global CNN"),
        (change(("details", "confusion", "transfer", 2), [50, 50, *[0] * 8]), "Much harder than other classes for tr"),
        (change(("details", "confusion", "transfer", 2), [0, 0, 30, *[0] * 7]), "One class has 4 times as many images"),
    ],
)
def test_each_rule(good: dict[str, Any], edit: Callable[[dict[str, Any]], None], start: str) -> None:
    edit(good)
    first, *_, last = found(good)
    assert first.startswith(start)
    assert last == "To use what was trained:"


@pytest.mark.parametrize(
    ("decomposition", "options"),
    [
        ("", ("--overlap 4",)),
        ("2x2-coarse", ("--overlap 4",)),
        ("interleaved2x2", ("--coarse",)),
        ("voronoi6", ("--coarse",)),
        ("voronoi6-coarse", ()),
    ],
)
def test_local_cnns_that_see_too_little_are_given_more(
    good: dict[str, Any], decomposition: str, options: tuple[str, ...]
) -> None:
    """--overlap is refused for what is no grid."""
    good["subdomains"][3]["test_accuracy"] = 0.11
    first = advice(Results.parse(good | {"decomposition": decomposition}), FLAT)[0]
    assert first.options == options


def test_accuracies_of_guessing(good: dict[str, Any]) -> None:
    for row in good["strategies"]:
        row["test_accuracy"] = 0.1
    first = advice(Results.parse(good), FLAT)[0]
    assert first.found == "Nothing is shown to be better than guessing."
    assert "ddcnn data info mnist5k" in first.try_


def test_a_training_that_ended_too_early(good: dict[str, Any]) -> None:
    first = advice(Results.parse(good), RISING)[0]
    assert (first.found, first.options) == ("Still rising when the training ended: local CNNs.", ("--epochs 20",))
    assert found(good, {"dnn": RISING["local"]}) == ["To use what was trained:"]


def test_transfer_that_loses_what_it_began_with(good: dict[str, Any]) -> None:
    """By more than chance: of 400 validation images, 0.9 has a standard error of 0.015."""
    rows = {row["name"]: row for row in good["strategies"]}
    good["details"]["samples"]["validation"] = 400
    rows["cnn-dnn"]["validation_accuracy"], rows["transfer"]["validation_accuracy"] = 0.9, 0.886
    assert not any(line.startswith("Transfer ended") for line in found(good))
    rows["transfer"]["validation_accuracy"] = 0.884
    said = "Transfer ended below the CNN-DNN that it began with: 88.4 % against 90.0 % of the validation images."
    assert said in found(good)
    rows["transfer"]["validation_accuracy"] = None
    assert not any(line.startswith("Transfer ended") for line in found(good))


def test_over_fitting_is_said_first(good: dict[str, Any]) -> None:
    good["strategies"][3] |= {"train_accuracy": 0.95, "validation_accuracy": 0.74}
    good["strategies"][4] |= {"train_accuracy": 0.95, "validation_accuracy": 0.76}
    said = "Over-fitted: accuracy on the training against the validation images: CNN-DNN 95.0 % against 74.0 %."
    assert warning(Results.parse(good)) == said


def test_what_is_to_be_set_can_be_set(good: dict[str, Any]) -> None:
    for row in good["strategies"]:
        row["validation_accuracy"] = 0.1
    good["subdomains"][0]["diverged_epoch"] = 1
    good["details"]["confusion"]["transfer"][2] = [0, 0, 30, *[0] * 7]
    options = [option for one in advice(Results.parse(good), FLAT) for option in one.options]
    fields = [option.removeprefix("--set ").split("=") for option in options if option.startswith("--set")]
    assert len(fields) > 5
    for name, value in fields:
        section, key = name.split(".")
        Config.parse({section: {key: value}})
