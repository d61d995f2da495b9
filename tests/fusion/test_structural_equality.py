"""Networks that differ in more than parameters and buffers are found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.fusion import fuse
from ddcnn.fusion.structural_equality import difference_in_code

pytestmark = pytest.mark.usefixtures("seeded")


class Net(nn.Module):
    def __init__(self, option: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.option = option

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Plain:
    def __init__(self, value: Any) -> None:
        self.value = value


def _times(factor: float) -> Callable[[float], float]:
    return lambda x: factor * x


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (1, 1, True),
        (1, 2, False),
        (1, 1.0, False),
        ("a", "a", True),
        ([1, {"a": (2, None)}], [1, {"a": (2, None)}], True),
        ([1, {"a": (2, None)}], [1, {"a": (3, None)}], False),
        ({1, 2}, {2, 1}, True),
        (torch.ones(3), torch.ones(3), True),
        (torch.ones(3), torch.zeros(3), False),
        (torch.ones(3), torch.ones(3).double(), False),
        (_times(2.0), _times(2.0), True),
        (_times(2.0), _times(3.0), False),
        (Plain([1]), Plain([1]), True),
        (Plain([1]), Plain([2]), False),
        (object(), object(), False),
        (torch.relu, torch.relu, True),
        (torch.float32, torch.float32, True),
        ((..., slice(None, None, 2)), (..., slice(None, None, 2)), True),
        ((..., slice(None, None, 2)), (..., slice(None, None, 3)), False),
        (range(3), range(3), True),
    ],
)
def test_options(first: Any, second: Any, equal: bool) -> None:
    found = difference_in_code([Net(first), Net(second)])
    assert found == ("" if equal else "a Net of it has other options in other networks")


def test_a_cycle_ends() -> None:
    cycles = [Plain(None), Plain(None)]
    for cycle in cycles:
        cycle.value = cycle
    assert difference_in_code([Net(cycles[0]), Net(cycles[1])])


def test_modes_that_differ() -> None:
    first, second = Net(0), Net(0)
    second.linear.eval()
    assert difference_in_code([first, second]) == "a Linear of it has other options in other networks"


def test_a_layer_in_a_list_is_refused() -> None:
    def network() -> Net:
        return Net([nn.Linear(2, 2)])

    assert "did not register" in difference_in_code([network(), network()])
    assert fuse([network(), network()]).backend == "looped"
