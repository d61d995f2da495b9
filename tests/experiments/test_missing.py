import itertools
import json

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.aggregation import Average
from ddcnn.data import open_data
from ddcnn.decomposition import Grid
from ddcnn.experiments.missing import mean_of_folds, sets_of, without_some
from ddcnn.models import build
from ddcnn.network import CNNDNN

TINY = {"name": "tests.strategies.tiny:tiny", "width_factor": 0.5}


def averaging(grid, missing=()):
    modules = [build(TINY["name"], 1, 3, (2, 2)) for _ in range(len(Grid(grid)))]
    size = [2 * n for n in grid]
    return CNNDNN(Grid(grid), modules, Average(), image_size=size, backend="looped", missing=missing).eval()


def probabilities(N, B=300):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (B,), generator=generator)
    told = torch.nn.functional.one_hot(labels, 3).unsqueeze(1) * torch.linspace(0, 2, N).view(1, N, 1)
    return (told + torch.randn(B, N, 3, generator=generator)).softmax(2), labels


def accuracy_by_hand(p, labels, missing):
    left = np.delete(p.double().numpy(), missing, axis=1)
    return float(np.mean(left.sum(1).argmax(1) == labels.numpy()))


def test_accuracies_are_those_of_the_mean_over_what_is_left():
    p, labels = probabilities(4)
    found = without_some(averaging((2, 2)), p, labels, seed=0)
    assert found["one"] == [accuracy_by_hand(p, labels, [n]) for n in range(4)]
    assert found["one"][0] > found["one"][3]  # the last subdomain knows most
    for row, count in zip(found["random"], (1, 2), strict=True):
        every = [accuracy_by_hand(p, labels, part) for part in itertools.combinations(range(4), count)]
        assert row == {
            "missing": count,
            "sets": len(every),
            "mean": pytest.approx(np.mean(every)),
            "min": min(every),
            "max": max(every),
        }


def test_many_sets_are_drawn_the_same_for_all():
    p, labels = probabilities(12)
    first, again, other = (without_some(averaging((3, 4)), p, labels, seed) for seed in (5, 5, 6))
    assert first == again
    assert first["one"] == other["one"]
    assert [(row["missing"], row["sets"]) for row in first["random"]] == [(1, 12), (2, 10), (4, 10), (8, 10)]
    drawn = [accuracy_by_hand(p, labels, part) for part in sets_of(range(12), 8, 5)]
    assert first["random"][3]["mean"] == pytest.approx(np.mean(drawn))
    assert sets_of(range(12), 8, 5) != sets_of(range(12), 8, 6)


def test_sets_are_different_and_of_their_size():
    for count in (1, 2, 3, 5):
        sets = sets_of([1, 3, 4, 6, 7, 9], count, seed=3)
        assert len(set(sets)) == len(sets) == (6 if count in (1, 5) else 10)
        assert all(len(set(part)) == count and set(part) <= {1, 3, 4, 6, 7, 9} for part in sets)


def test_what_is_missing_already_is_not_taken_away_again():
    p, labels = probabilities(4)
    p[:, 2] = torch.nan
    found = without_some(averaging((2, 2), missing=[2]), p, labels, seed=0)
    assert found["one"] == [accuracy_by_hand(p, labels, [n, 2]) if n != 2 else None for n in range(4)]
    assert [(row["missing"], row["sets"]) for row in found["random"]] == [(1, 3), (2, 3)]
    assert without_some(averaging((1, 2), missing=[0]), p[:, :2], labels, seed=0) is None
    assert without_some(averaging((1, 1)), p[:, :1], labels, seed=0) is None


def test_a_run_says_how_each_strategy_does_without_each_subdomain(make_config):
    config = make_config(model=TINY, decomposition={"grid": "1x3"}, training={"epochs": 1})
    compared = ddcnn.compare(config)
    found = json.loads((compared.run / "comparison.json").read_text())["details"]["missing"]
    assert list(found) == ["average", "vote", "cnn-dnn", "coherent", "transfer"]
    dataset = open_data(config.data)
    test = torch.tensor(json.loads((compared.run / "split.json").read_text())["test"])
    for name in found:
        assert [row["missing"] for row in found[name]["random"]] == [1, 2]
        for n in range(3):
            with torch.no_grad():
                scores = ddcnn.load(compared.run, name, trust=True).without([n])(dataset.images[test])
            right = (scores.argmax(1) == dataset.labels[test]).double().mean()
            assert found[name]["one"][n] == pytest.approx(float(right)), (name, n)


def test_folds_give_means():
    rows = [{"missing": 2, "sets": 3, "mean": m, "min": 0.25, "max": 1.0} for m in (0.5, 0.75)]
    folds = [{"vote": {"one": one, "random": [row]}} for one, row in zip(([0.5, None], [1.0, None]), rows, strict=True)]
    row = {"missing": 2, "sets": 3, "mean": 0.625, "min": 0.25, "max": 1.0}
    assert mean_of_folds(folds) == {"vote": {"one": [0.75, None], "random": [row]}}
    assert mean_of_folds([*folds, {}]) == {}
