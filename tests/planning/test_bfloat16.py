"""bfloat16 on a CPU: convolutions whose gradients oneDNN gets wrong are found before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.config import Config
from ddcnn.engines import ALONE
from ddcnn.errors import ConfigError
from ddcnn.planning import choose_fastest, prepare
from ddcnn.planning.bfloat16 import obstacle_to_bfloat16, wrong_in_bfloat16

CPU = torch.device("cpu")
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

# Size, kernel and stride of convolutions as networks have them, half of their kernel as padding.
RIGHT = [
    ((3, 3, 3), 3, 1), ((4, 4, 4), 3, 1), ((5, 6, 5), 5, 1), ((4, 4, 4), 3, 2), ((8, 3, 4), 3, 2), ((2, 2, 2), 2, 2),
    ((2, 2), 3, 1), ((1, 1), 3, 1), ((2, 2), 3, 2), ((3, 2), 3, 2), ((2, 2), 5, 1), ((8, 8), 7, 2), ((4,), 3, 2),
]  # fmt: skip
WRONG = [
    ((2, 2, 2), 3, 1), ((2, 4, 4), 3, 1), ((3, 4, 4), 5, 1), ((4, 4, 4), 5, 2), ((1, 4, 4), 2, 1), ((6, 1, 2), 5, 1),
    ((4, 4, 1), 3, 2), ((1, 1), 3, 2), ((4, 1), 3, 2), ((1,), 3, 2),
]  # fmt: skip


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(("size", "kernel", "stride"), RIGHT)
def test_what_is_called_right_is_right(size: tuple[int, ...], kernel: int, stride: int) -> None:
    axes = len(size)
    assert not wrong_in_bfloat16(size, (kernel,) * axes, (stride,) * axes, transposed=False)
    x = torch.randn(4, 16, *size, dtype=torch.bfloat16)
    w = torch.randn(16, 16, *(kernel,) * axes, dtype=torch.bfloat16)

    def gradient(x: Tensor, w: Tensor) -> Tensor:
        w = w.detach().requires_grad_()
        y = CONVOLVE[axes](x, w, stride=stride, padding=kernel // 2)
        weights = torch.linspace(-1, 1, y.numel(), dtype=torch.bfloat16).view_as(y)
        return torch.autograd.grad((y * weights.to(y.dtype)).sum(), w)[0].float()

    expected = gradient(x.float(), w.float())
    assert (gradient(x, w) - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize(("size", "kernel", "stride"), WRONG)
def test_what_is_known_to_be_wrong(size: tuple[int, ...], kernel: int, stride: int) -> None:
    """Each of them was seen to give garbage, by ``benchmarks/bfloat16.py``; to compute it here could end the tests."""
    assert wrong_in_bfloat16(size, (kernel,) * len(size), (stride,) * len(size), transposed=False)


class Reads(nn.Module):
    """Looks at a number, so that it must be computed to see its convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y.mean((2, 3, 4)) if float(y.detach().sum()) < 1e9 else y.sum((2, 3, 4))


@pytest.mark.parametrize(
    ("network", "shape", "found"),
    [
        (nn.Conv3d(1, 2, 3, padding=1), (2, 1, 2, 4, 4), "convolution of 2x4x4 pixels with kernel 3x3x3, stride 1x1x1"),
        (nn.Conv3d(1, 2, 3, padding=1), (2, 1, 4, 4, 4), ""),
        (nn.Conv2d(1, 2, 3, 2, padding=1), (2, 1, 4, 1), "convolution of 4x1 pixels with kernel 3x3, stride 2x2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, 2)), (2, 1, 4, 4), ""),
        (nn.ConvTranspose3d(1, 2, 3), (2, 1, 4, 4, 4), "transposed convolution of 4x4x4"),
        (Reads(), (2, 1, 2, 4, 4), "convolution of 2x4x4"),
    ],
)
def test_networks(network: nn.Module, shape: tuple[int, ...], found: str) -> None:
    assert found in obstacle_to_bfloat16([(network, shape)], CPU)
    assert bool(found) == bool(obstacle_to_bfloat16([(network, shape)], CPU))
    assert not obstacle_to_bfloat16([(network, shape)], torch.device("meta"))


@pytest.mark.parametrize(("depth", "precision"), [(4, "auto"), (4, "bfloat16"), (8, "bfloat16")])
def test_a_run(depth: int, precision: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (24, 1, depth, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=values, labels=np.arange(24) % 2, layout="NCDHW")
    config = {
        "data": {"source": f"npz:{tmp_path / 'd.npz'}"},
        "decomposition": {"grid": "2x2x2"},
        "model": {"name": "tests.planning.test_bfloat16:thin", "width_factor": 0.5},
        "training": {"epochs": 1, "batch_size": 8},
        "compute": {"device": "cpu", "precision": precision, "backend": "looped"},
    }
    setup = prepare(Config.parse(config))
    if depth == 8:
        assert choose_fastest(setup.data, setup.networks, setup.compute, ALONE)[0].precision == "bfloat16"
    elif precision == "bfloat16":
        with pytest.raises(ConfigError, match=r"bfloat16 gives wrong gradients .* 2x4x4 .* use float32 or auto"):
            choose_fastest(setup.data, setup.networks, setup.compute, ALONE)
    else:
        compute, reasons = choose_fastest(setup.data, setup.networks, setup.compute, ALONE)
        assert compute.precision == "float32"
        assert "float32: on a CPU, bfloat16 gives wrong gradients" in reasons["precision"]


def thin(in_channels: int, classes: int, image_size: tuple[int, ...], *, width: float) -> nn.Module:
    conv = nn.Conv3d(in_channels, 4, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, classes))
