"""Decisions in bfloat16 are those of float32."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from ddcnn import CNNDNN, Average, Grid
from ddcnn.inference import Decider
from ddcnn.models import build
from ddcnn.network import Said


class Rounded(nn.Module):
    """Says what the image holds; in bfloat16, each probability is off by at most ``error``."""

    def __init__(self, error: float, thresholds: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.error, self.exact, self.thresholds = error, 0, thresholds

    def said(self, images: Tensor) -> Said:
        p = images.flatten(1)
        if torch.is_autocast_enabled("cpu"):
            signs = torch.tensor([1.0, -1.0])[torch.arange(len(p)) % 2]
            p = p + self.error * signs[:, None] * torch.tensor([1.0, -1.0])
        else:
            self.exact += len(p)
        return Said(p.unsqueeze(1), p.log().unsqueeze(1))

    def decide(self, handed: Tensor) -> Tensor:
        return handed[:, 0]


def _images(first: list[float]) -> Tensor:
    p = torch.tensor(first)
    return torch.stack([p, 1 - p], 1).view(-1, 1, 2, 1)


def test_unsure_decisions_are_computed_again() -> None:
    network = Rounded(0.01)
    decide = Decider(cast(Any, network), compare=64)
    for _ in range(4):  # batches of 16, as of volumes
        assert decide.margin is None
        known = _images([0.9, 0.1, 0.8, 0.95] * 4)
        assert torch.equal(decide(known).probabilities, known.flatten(1).log().softmax(1))
    assert decide.margin == pytest.approx(0.08, rel=1e-3)
    network.exact = 0
    images = _images([0.495, 0.505, 0.5001, 0.4999, 0.9, 0.1])  # bfloat16 alone would turn four of them
    found = decide(images).probabilities
    assert network.exact == 4
    assert torch.equal(found.argmax(1), images.flatten(1).argmax(1))
    torch.testing.assert_close(found[:4], images[:4].flatten(1))
    assert found[4, 0] == pytest.approx(0.91)


def test_with_thresholds_unsure_is_what_is_near_them() -> None:
    network = Rounded(0.01, thresholds=(0.9, 0.1))
    decide = Decider(cast(Any, network), compare=64)
    decide(_images([0.5, 0.3, 0.6, 0.2] * 16))
    assert decide.margin == pytest.approx(8 * 0.01 / 0.1, rel=0.01)  # a probability over 0.1 changes ten times as much
    network.exact = 0
    images = _images([0.895, 0.905, 0.5, 0.3])  # bfloat16 alone would turn the first two
    found = decide(images).probabilities
    assert network.exact == 2
    decided = found / torch.tensor([0.9, 0.1])
    assert decided.argmax(1).tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("known", [None, _images([0.51, 0.49, 0.9, 0.9])])
def test_float32_where_bfloat16_is_not_sure(known: Tensor | None) -> None:
    decide = Decider(cast(Any, Rounded(0.01)), compare=0 if known is None else len(known))
    if known is not None:
        decide(known)
    assert decide.margin is None
    torch.testing.assert_close(decide(_images([0.9, 0.4])).probabilities, torch.tensor([[0.9, 0.1], [0.4, 0.6]]))


def test_a_network() -> None:
    modules = [build("vgg9", 1, 3, (8, 8), width=0.2, seed=n).eval() for n in range(4)]
    network = CNNDNN(Grid((2, 2)), modules, Average(), image_size=(16, 16), backend="looped").eval()
    images = torch.randn(96, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    decide = Decider(network.for_inference(images), compare=64)
    decide(images[:64])
    found = decide(images)
    expected = network(images).detach()
    assert torch.equal(found.probabilities.argmax(1), expected.argmax(1))
    assert found.local.shape == (96, 4, 3)
    torch.testing.assert_close(found.probabilities, expected.softmax(1), rtol=0, atol=0.05)
    assert network.for_inference(images, count=255) is network
