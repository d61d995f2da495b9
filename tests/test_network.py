"""`CNNDNN` equals the same composition written by hand."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from ddcnn.aggregation import Average, Dense, Vote
from ddcnn.data.moments import moments
from ddcnn.decomposition import Grid, Subimages, cut
from ddcnn.errors import AggregationError, DecompositionError
from ddcnn.models import LocalCNNs, Normalization
from ddcnn.network import CNNDNN
from tests.fusion.helper import randomize, small_cnn

pytestmark = pytest.mark.usefixtures("seeded")
SIZES = {"2d": ((2, 3), (7, 11)), "3d": ((1, 2, 2), (3, 5, 6))}


def _local_cnns(grid: Grid, size: tuple[int, ...], K: int = 3) -> list[nn.Module]:
    return randomize([small_cnn(2, K, len(size)).eval() for _ in grid.subdomains(size)])


def _by_hand(grid: Grid, networks: list[nn.Module], x: Tensor) -> Tensor:
    boxes = [s.box for s in grid.subdomains(x.shape[2:])]
    parts = [x[(..., *(slice(*interval) for interval in box))] for box in boxes]
    return torch.stack([torch.softmax(net(part), 1) for net, part in zip(networks, parts, strict=True)], 1)


@pytest.mark.parametrize("aggregation", [Average, Vote, Dense])
@pytest.mark.parametrize(("parts", "size"), SIZES.values(), ids=SIZES)
def test_composition(parts: tuple[int, ...], size: tuple[int, ...], aggregation: type[nn.Module]) -> None:
    grid = Grid(parts, overlap=1)
    networks = _local_cnns(grid, size)
    decide = Dense(len(grid), 3, shortcut=False) if aggregation is Dense else aggregation()
    images = torch.randint(0, 256, (4, 2, *size), dtype=torch.uint8)
    normalization = Normalization.of_moments(moments(images), images[0, 0].numel())
    network = CNNDNN(grid, networks, decide, image_size=size, normalization=normalization).eval()
    expected = _by_hand(grid, networks, normalization(images))
    torch.testing.assert_close(network.local_probabilities(images), expected)
    torch.testing.assert_close(network(images), decide(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected.sum(2), torch.ones(4, len(grid)))


def test_local_cnns_already_fused() -> None:
    grid, size = Grid((1, 2)), (5, 8)
    networks = _local_cnns(grid, size)
    local_cnns = LocalCNNs(grid, networks, image_size=size, backend="fused")
    network = CNNDNN(grid, local_cnns, Average()).eval()
    assert network.local_cnns is local_cnns
    x = torch.randn(3, 2, *size)
    torch.testing.assert_close(network(x), _by_hand(grid, networks, x).mean(1).log())


def test_subimages_are_seen_as_they_are_in_the_image() -> None:
    grid, size = Grid((2, 3), overlap=1), (7, 11)
    images = torch.randint(0, 256, (4, 2, *size), dtype=torch.uint8)
    networks, normalization = _local_cnns(grid, size), Normalization.of_moments(moments(images), images[0, 0].numel())
    network = CNNDNN(grid, networks, Average(), image_size=size, normalization=normalization).eval()
    parts = Subimages(tuple(cut(images, grid.subdomains(size))))
    torch.testing.assert_close(network.local_probabilities(parts), _by_hand(grid, networks, normalization(images)))


@pytest.mark.parametrize("aggregation", [Average(), Vote()])
def test_one_subdomain_decides_as_the_global_cnn(aggregation: nn.Module) -> None:
    grid, size = Grid((1, 1)), (5, 7)
    (cnn,) = _local_cnns(grid, size)
    network = CNNDNN(grid, [cnn], aggregation, image_size=size).eval()
    x = torch.randn(6, 2, *size)
    assert torch.equal(network(x).argmax(1), cnn(x).argmax(1))
    if isinstance(aggregation, Average):
        torch.testing.assert_close(network(x), cnn(x).log_softmax(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_gradients_reach_every_part(backend: str) -> None:
    grid, size = Grid((1, 3)), (5, 8)
    dense = Dense(3, 3, shortcut=False, hidden=(16,))
    network = CNNDNN(grid, _local_cnns(grid, size), dense, image_size=size, backend=backend)
    x = torch.randn(6, 2, *size, requires_grad=True)
    nn.functional.cross_entropy(network(x), torch.arange(6) % 3).backward()
    assert x.grad is not None
    assert x.grad.abs().sum((0, 1, 2)).min() > 0  # every column
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_autocast_leaves_the_aggregation_in_float32() -> None:
    seen = []

    class Watching(Average):
        def forward(self, p: Tensor) -> Tensor:
            seen.append((p.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(p)

    grid, size = Grid((1, 2)), (5, 8)
    network = CNNDNN(grid, _local_cnns(grid, size), Watching(), image_size=size).eval()
    x = torch.randn(3, 2, *size)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = network(x)
        assert network.local_probabilities(x).dtype == torch.float32
    assert scores.dtype == torch.float32
    assert seen == [(torch.float32, False)] * 2
    assert not torch.equal(scores, expected)  # the local CNNs did compute in bfloat16
    torch.testing.assert_close(scores, expected, rtol=0.1, atol=0.1)


def test_parameters_are_those_of_its_parts() -> None:
    grid, size = Grid((2, 2)), (6, 7)
    networks = _local_cnns(grid, size)
    dense = Dense(4, 3)
    network = CNNDNN(grid, networks, dense, image_size=size)
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for part in (*networks, dense) for p in part.parameters()
    )


def _break(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        nn.init.constant_(parameter, torch.nan)
    return network


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize(("parts", "size"), SIZES.values(), ids=SIZES)
def test_what_a_missing_local_cnn_says_does_not_matter(
    parts: tuple[int, ...], size: tuple[int, ...], backend: str
) -> None:
    grid = Grid(parts, overlap=1)
    networks = _local_cnns(grid, size)
    images = torch.randn(4, 2, *size)
    expected = _by_hand(grid, networks, images)
    for n in (0, 2):
        _break(networks[n])
    present = [n for n in range(len(grid)) if n not in (0, 2)]
    network = CNNDNN(grid, networks, Average(), image_size=size, backend=backend, missing=[2, 0]).eval()
    torch.testing.assert_close(network(images), expected[:, present].mean(1).log())
    expected[:, [0, 2]] = 1 / 3
    torch.testing.assert_close(network.local_probabilities(images), expected)
    dense = Dense(len(grid), 3, shortcut=False)
    network = CNNDNN(grid, network.local_cnns, dense, missing=[0, 2]).eval()
    torch.testing.assert_close(network(images), dense(expected), rtol=1e-4, atol=1e-5)


def test_without_is_the_same_network_with_more_missing() -> None:
    grid, size = Grid((2, 2)), (6, 7)
    network = CNNDNN(grid, _local_cnns(grid, size), Dense(4, 3), image_size=size, missing=(1,)).eval()
    part = network.without([3, 1])
    assert (network.missing, part.missing, part.without([]).missing) == ((1,), (1, 3), (1, 3))
    assert not part.training
    assert part.train().without([0]).training
    pairs = zip(network.state_dict().items(), part.state_dict().items(), strict=True)
    assert all(a == b and x.data_ptr() == y.data_ptr() for (a, x), (b, y) in pairs)


def test_missing_subdomains_are_no_part_of_the_saved_state() -> None:
    grid, size = Grid((1, 2)), (5, 8)
    networks = _local_cnns(grid, size)
    whole, part = (
        CNNDNN(grid, networks, Dense(2, 3, hidden=()), image_size=size, missing=missing) for missing in ((), (1,))
    )
    assert list(whole.state_dict()) == list(part.state_dict())
    assert {name.partition(".")[0] for name in whole.state_dict()} == {"local_cnns", "aggregation"}
    assert [name for name in whole.state_dict() if name.startswith("agg")] == [
        f"aggregation.{name}" for name in ("scale", "layers.0.weight", "layers.0.bias")
    ]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 6), r"images of shape \(B, C, 4, 6\), got \(2, 4, 6\)$"),
        ((2, 1, 4, 7), "images of 4x6 pixels, got 4x7; resize the images$"),
    ],
)
def test_images_of_another_shape_are_named(shape: tuple[int, ...], message: str) -> None:
    grid, size = Grid((2, 2)), (4, 6)
    network = CNNDNN(grid, _local_cnns(grid, size), Average(), image_size=size, backend="looped")
    with pytest.raises(DecompositionError, match=message):
        network(torch.zeros(shape))


def test_someone_must_be_left_to_decide() -> None:
    grid, size = Grid((1, 2)), (5, 8)
    networks = _local_cnns(grid, size)
    with pytest.raises(AggregationError, match=r"^subdomain 2 cannot be missing: there is none; use 0 to 1$"):
        CNNDNN(grid, networks, Average(), image_size=size, missing=[2])
    with pytest.raises(AggregationError, match=r"^all 2 subdomains are missing; a decision needs at least 1$"):
        CNNDNN(grid, networks, Average(), image_size=size, missing=[1]).without([0])


class _Counting(nn.Module):
    """Remembers how many images it was given at once."""

    seen: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        _Counting.seen.append(len(x))
        return self.linear(x.mean((2, 3, 4)))


def test_few_volumes_are_decided_on_at_once() -> None:
    """What a network makes of 40 volumes of 64x64x32 at once could take more memory than its training had."""
    grid, size = Grid((1, 1, 2)), (64, 64, 32)
    network = CNNDNN(grid, [_Counting(), _Counting()], Average(), image_size=size).eval()
    network.predict_proba(torch.zeros(1).expand(40, 1, *size))
    assert max(_Counting.seen) == 16  # of 512 KiB each: 8 MiB
    _Counting.seen.clear()
    network.predict_proba(torch.zeros(1).expand(40, 1, *size), batch_size=20)
    assert max(_Counting.seen) == 20
