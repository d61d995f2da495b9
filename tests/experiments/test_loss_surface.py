"""`loss-surface`: curvature of losses whose Hessian is known, barriers that are known, and what a run is asked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ddcnn
from ddcnn.experiments.questions import loss_surface, surface
from ddcnn.experiments.questions.surface import (
    along_direction,
    along_line,
    barrier,
    curvature,
    drawn,
    filter_normalised,
)
from tests.bars import write_bars

pytestmark = pytest.mark.usefixtures("seeded")


class Product(nn.Module):
    """The product of two parameters with x: the simplest network with two minima."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([[a]])), nn.Parameter(torch.tensor([[b]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.a * self.b


def test_the_hessian_of_a_quadratic_loss() -> None:
    """Of a linear network under the mean squared error it is 2 X'X / n, whatever the parameters."""
    X, y = torch.randn(40, 6) * torch.tensor([5.0, 3.0, 2.0, 1.0, 1.0, 0.5]), torch.randn(40, 1)
    network = nn.Linear(6, 1, bias=False)
    H = 2 / 40 * X.T @ X
    found = curvature(network, nn.MSELoss(), X, y)
    largest = torch.linalg.eigvalsh(H).flip(0)
    assert [found[f"eigenvalue {n}"] for n in (1, 2, 3)] == pytest.approx(largest[:3].tolist(), rel=0.02)
    spread = math.sqrt(2 * float((H**2).sum() - (H.diagonal() ** 2).sum()) / 16)  # of Hutchinson's estimator
    assert abs(found["trace"] - float(H.trace())) < 4 * spread
    d = [torch.cat([one.flatten() for one in filter_normalised(list(network.parameters()), n)]) for n in range(8)]
    assert found["filter-wise"] == pytest.approx(sum(float(one @ H @ one) for one in d) / 8, rel=1e-4)


def test_the_curvature_at_a_known_minimum() -> None:
    """Of (1 - ab)^2 at a = b = 1 the Hessian is [[2, 2], [2, 2]]: eigenvalues 4 and 0."""
    one = torch.ones(1, 1)
    found = curvature(Product(1.0, 1.0), nn.MSELoss(), one, one)
    assert found["eigenvalue 1"] == pytest.approx(4, rel=0.01)
    assert "eigenvalue 2" not in found  # of two parameters, Lanczos' method finds one


def test_filter_wise_curvature_does_not_hang_on_the_length_of_filters() -> None:
    """A filter before a batch norm may have any length: the function is the same, its largest eigenvalue is not."""
    images, labels = torch.randn(20, 1, 4, 4), torch.arange(20) % 2
    layers = [nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)]
    network = nn.Sequential(*layers)
    network(images)
    before = curvature(network.eval(), nn.CrossEntropyLoss(), images, labels)
    with torch.no_grad():
        network[0].weight.mul_(10)
        network[1].running_mean.mul_(10)
        network[1].running_var.mul_(100)
        network[1].eps *= 100
    after = curvature(network, nn.CrossEntropyLoss(), images, labels)
    assert after["filter-wise"] == pytest.approx(before["filter-wise"], rel=1e-3)
    assert after["trace"] != pytest.approx(before["trace"], rel=0.05)


def test_each_filter_of_a_direction_is_as_long_as_that_of_the_network() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    parameters = list(network.parameters())
    direction = filter_normalised(parameters, seed=1)
    for d, parameter in zip(direction, parameters, strict=True):
        if parameter.ndim < 2:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1))
            assert not torch.allclose(d, parameter)


def test_there_is_no_barrier_in_a_convex_loss() -> None:
    """The cross-entropy of a linear network is convex in its parameters."""
    X, y = torch.randn(30, 5), torch.arange(30) % 3
    losses = along_line(nn.Linear(5, 3), nn.Linear(5, 3), nn.CrossEntropyLoss(), X, y, [n / 10 for n in range(11)])
    assert len(set(losses)) == 11
    assert barrier(losses) == 0


def test_the_barrier_between_two_known_minima() -> None:
    """(1 - ab)^2 is 0 at (1, 1) and at (-1, -1), and (1 - (1 - 2t)^2)^2 between them: 1 at half the way."""
    one = torch.ones(1, 1)
    losses = along_line(Product(1.0, 1.0), Product(-1.0, -1.0), nn.MSELoss(), one, one, [0.0, 0.25, 0.5, 0.75, 1.0])
    assert losses == pytest.approx([0, 0.5625, 1, 0.5625, 0])
    assert barrier(losses) == pytest.approx(1)


def test_norms_are_measured_anew_on_the_line() -> None:
    """Ends with other statistics of batch norm, and equal parameters: one network, so that the loss is the same."""
    a, b = (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)) for _ in range(2))
    b.load_state_dict(a.state_dict())
    a[1].running_mean.fill_(5)
    X, y = torch.randn(30, 4), torch.arange(30) % 2
    losses = along_line(a, b, nn.CrossEntropyLoss(), X, y, [0.0, 0.5, 1.0])
    assert losses == pytest.approx([losses[0]] * 3)
    x = a[0](X)
    normed = (x - x.mean(0)) / (x.var(0) + a[1].eps).sqrt()
    expected = F.cross_entropy(a[2](normed * a[1].weight + a[1].bias), y)
    assert losses[0] == pytest.approx(expected.item())


def test_a_direction_leaves_the_network_as_it_was() -> None:
    network, one = Product(2.0, 3.0), torch.ones(1, 1)
    d = [float(x) for x in filter_normalised(list(network.parameters()), 0)]
    losses = along_direction(network, nn.MSELoss(), one, one, [-0.5, 0.0, 0.5])
    assert losses == pytest.approx([(1 - (2 + s * d[0]) * (3 + s * d[1])) ** 2 for s in (-0.5, 0.0, 0.5)], rel=1e-5)
    assert (network.a.item(), network.b.item()) == (2, 3)


def test_the_same_images_are_drawn_each_time() -> None:
    samples = torch.arange(100, 200)
    assert torch.equal(drawn(samples, 10), drawn(samples, 10))
    assert len(drawn(samples, 10).unique()) == 10
    assert torch.equal(drawn(samples, 1000), samples)


def test_a_run_is_asked_for_its_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_surface, "IMAGES", 16)
    for name in ("_VECTORS", "_DIRECTIONS"):
        monkeypatch.setattr(surface, name, 2)
    monkeypatch.setitem(loss_surface.MODELS, "ResNet20", "tests.experiments.test_loss_surface:small")
    values = {
        "model": {"name": "resnet20"},
        "data": {"source": write_bars(tmp_path, (8, 8))},
        "decomposition": {"grid": [1, 2]},
        "training": {"epochs": 1, "batch_size": 20, "lr": 0.05},
        "aggregation": {"epochs": 1, "hidden": [4]},
        "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
    }
    out = tmp_path / "e"
    found = ddcnn.experiment("loss-surface", values, seeds=1, out=out).summary
    assert len(found["left_out"]) == 2  # VGG9 does not fit 8x4 pixels
    cells = [json.loads(line) for line in (out / "cells.jsonl").read_text().splitlines()]
    rows = {label: row for cell in cells for label, row in cell["arms"].items()}
    name = loss_surface.arm("transfer", "ResNet20", skip=True)
    measures, other = rows[name]["measures"], rows[name.replace("transfer", "coherent")]["measures"]
    assert measures["eigenvalue 1"] >= measures["eigenvalue 2"]
    assert measures["direction 0"] == measures["loss"]
    assert measures["line 1"] == pytest.approx(other["line 0"], rel=1e-4)  # transfer, both times
    assert measures["barrier"] >= 0
    assert "barrier" not in rows[name.replace("transfer", "CNN-DNN")]["measures"]
    assert [len(table["rows"]) for table in found["tables"]] == [6, 4]
    assert [len(curve["lines"]) for curve in found["curves"]] == [4, 4, 4]
    assert not any(curve["percent"] for curve in found["curves"])


def small(in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float, skip: bool) -> nn.Module:
    """Return a network with as few parameters as can be."""
    layers = [nn.Conv2d(in_channels, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(2 * math.prod(image_size), classes, bias=skip))
