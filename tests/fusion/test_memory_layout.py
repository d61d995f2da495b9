"""Feature maps and their gradients lie in memory alike: else what goes element by element is several times slower."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ddcnn.fusion import fuse
from ddcnn.fusion.recorded import PASSES
from ddcnn.models import build

pytestmark = pytest.mark.usefixtures("seeded")


class Watch(TorchDispatchMode):
    """Note the layouts that each operator on feature maps is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, set[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        maps = [a for a in args if isinstance(a, Tensor) and a.ndim >= 4 and a.numel() > a.shape[1]]
        if func in (torch.ops.aten.threshold_backward.default, torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor):
            self.seen.append((str(func), {a.stride() for a in maps}))
        return func(*args, **(kwargs or {}))


class Block(nn.Module):
    """Residual blocks as people write them: a strided shortcut, one that is cut, and one by an index that takes all."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.down, self.shortcut = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1, stride=2)
        self.same = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        y = self.down(x)
        y += self.shortcut(x)
        x = torch.relu_(y)
        y = self.same(x)
        y += x[:, :, ::1, ::1]
        return torch.relu_(y).mean((2, 3))


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("network", ["resnet20", "own"])
def test_gradients_lie_as_feature_maps_do(network: str, recorded: bool) -> None:
    make = {"resnet20": lambda n: build("resnet20", 3, 4, (8, 8), width=0.25, seed=n), "own": lambda n: Block()}
    fused = fuse([make[network](n) for n in range(3)], backend="fused").train()
    x = torch.randn(2, 3, 3, 8, 8)
    for _ in range(PASSES + 3 if recorded else 1):
        scores = fused(x)
    with Watch() as watch:
        if not recorded:
            scores = fused(x)
        scores.square().sum().backward()
    # The first gradient is that of the mean: one number, spread.
    _, *gradients = [layouts for name, layouts in watch.seen if "backward" in name]
    sums = [layouts for name, layouts in watch.seen if "backward" not in name]
    assert sums
    assert [layouts for layouts in (*gradients, *sums) if len(layouts) > 1] == []
