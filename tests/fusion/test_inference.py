"""Networks that only decide: the same scores, without batch norm where it can be folded, whatever the network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ddcnn.fusion import for_inference, fuse
from ddcnn.models import build


def _moved(module: nn.Module, seed: int) -> nn.Module:
    """Give batch norms statistics and scales as a training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return module.eval()


def _norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d) for layer in network.modules())


@pytest.mark.parametrize(
    ("model", "size", "left"),
    [("resnet20", (9, 8), 0), ("vgg9", (8, 8), 0), ("resnet20", (6, 5, 4), 0), ("cnn3d", (16, 16, 16), 4)],
)
@pytest.mark.parametrize("backend", ["looped", "fused"])
def test_the_same_scores(model: str, size: tuple[int, ...], left: int, backend: str) -> None:
    modules = [_moved(build(model, 2, 3, size, width=0.3, seed=n), n) for n in range(3)]
    network = fuse(modules, backend, sample_shape=(2, *size)).eval()
    form = for_inference(network, (2, *size))
    x = torch.randn(4, 3, 2, *size, generator=torch.Generator().manual_seed(7))
    expected = torch.stack([module(x[:, n]) for n, module in enumerate(modules)], 1).detach()
    torch.testing.assert_close(form(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert form.backend == "fused"
    assert _norms(form.extract(0)) == left  # of cnn3d, they follow a pooling
    assert not any(p.requires_grad for p in form.parameters())
    assert _norms(network.extract(0)) == _norms(modules[0])  # what was given stays as it is
    assert all(
        a.equal(b)
        for a, b in zip(network.extract(1).state_dict().values(), modules[1].state_dict().values(), strict=True)
    )


class Seen(nn.Module):
    """The batch norm is not the only one that sees what the convolution computes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head((y + self.norm(y)).mean((2, 3)))


class Again(Seen):
    """The convolution runs twice, the second time without the batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).mean((2, 3)) + self.conv(x).mean((2, 3)))


class Branches(Seen):
    """It decides by numbers what to compute, which neither torch.fx nor fusing can follow."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.head((y if float(x.sum()) > 0 else 2 * y).mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "backend", "reason"),
    [
        (Seen, "fused", "0 batch norms folded"),
        (Again, "fused", "0 batch norms folded"),
        (Branches, "looped", "batch norm is not folded: "),
    ],
)
def test_what_cannot_be_folded(make: Callable[[], nn.Module], backend: str, reason: str) -> None:
    with torch.random.fork_rng(devices=[]):
        modules = [_moved(make(), n) for n in range(2)]
    form = for_inference(fuse(modules, "looped"), (1, 5, 5))
    assert (form.backend, _norms(form.extract(0))) == (backend, 1)
    assert reason in form.reason
    x = torch.randn(3, 2, 1, 5, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(form(x), torch.stack([m(x[:, n]) for n, m in enumerate(modules)], 1))


def test_one_network_alone_and_measured() -> None:
    modules = [_moved(build("resnet20", 1, 2, (8, 8), width=0.2, seed=n), n) for n in range(2)]
    alone = for_inference(fuse(modules[:1]), (1, 8, 8), example=torch.zeros(2, 1, 1, 8, 8))
    assert alone.reason == "looped; 21 batch norms folded into convolutions"
    both = for_inference(fuse(modules, "looped"), (1, 8, 8), example=torch.zeros(2, 2, 1, 8, 8))
    assert " measured " in both.reason
