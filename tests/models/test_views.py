"""What local CNNs see of subdomains that are no rectangles. A network that returns its input shows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddcnn.config import Config
from ddcnn.decomposition import Decomposition, Grid, Interleaved, Rings, Subimages, Triangles, Voronoi, WithCoarse
from ddcnn.errors import ModelError
from ddcnn.models import LocalCNNs, Normalization
from ddcnn.network_factory import NetworkFactory

MEAN, STD = torch.tensor([3.0, 50.0]), torch.tensor([2.0, 7.0])


def seen_by(decomposition: Decomposition, images: Tensor) -> tuple[LocalCNNs, list[Tensor]]:
    """Return what each local CNN sees, normalised, flat: members of other sizes are filled up with zeros."""
    subdomains = decomposition.subdomains(images.shape[2:])
    values = [s.pixels * (images.shape[1] + s.added_channels) for s in subdomains]
    most = max(values)
    modules = [nn.Sequential(nn.Flatten(), nn.ConstantPad1d((0, most - n), 0.0)) for n in values]
    network = LocalCNNs(
        decomposition, modules, image_size=images.shape[2:], backend="looped", normalization=Normalization(MEAN, STD)
    )
    found = network(Subimages.of(images, subdomains))
    return network, [found[:, n, : values[n]].view(len(images), -1, *s.shape) for n, s in enumerate(subdomains)]


@pytest.mark.parametrize("mask_channel", [False, True])
def test_pixels_outside_a_shape_are_the_mean(mask_channel: bool, seeded: None) -> None:
    images = torch.randint(1, 256, (3, 2, 9, 12), dtype=torch.uint8)
    for decomposition in (
        Voronoi(3, mask_channel=mask_channel),
        WithCoarse(Triangles(mask_channel=mask_channel), (9, 6)),  # of the shape of two triangles
        Rings((2, 2), mask_channel=mask_channel),
    ):
        subdomains = decomposition.subdomains((9, 12))
        _, found = seen_by(decomposition, images)
        for s, seen in zip(subdomains, found, strict=True):
            pixels = s.cut(images).float()
            expected = (pixels - MEAN.view(1, 2, 1, 1)) / STD.view(1, 2, 1, 1)
            if s.inside is not None:
                assert bool((~s.inside).any()) or len(subdomains) < 4
                expected[..., ~s.inside] = 0
            torch.testing.assert_close(seen[:, :2], expected)
            assert seen.shape[1] == 2 + s.added_channels
            if s.added_channels:
                assert s.inside is not None
                assert torch.equal(seen[:, 2], s.inside.float().expand(3, *s.shape))


def test_what_is_outside_changes_nothing(seeded: None) -> None:
    images = torch.randint(1, 256, (2, 2, 10, 10), dtype=torch.uint8)
    decomposition = Triangles()
    assert all(not s.inside.all() for s in decomposition.subdomains((10, 10)))
    _, before = seen_by(decomposition, images)
    for s in decomposition.subdomains((10, 10)):
        other = torch.where(s.seen(), images, 255 - images)
        _, after = seen_by(decomposition, other)
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [n == s.index for n in range(4)]


def test_a_part_of_the_local_cnns_sees_the_same(seeded: None) -> None:
    """As on a rank, in a worker, or when others have stopped."""
    images = torch.randint(0, 256, (2, 2, 8, 8), dtype=torch.uint8)
    network, found = seen_by(WithCoarse(Voronoi(3), (5, 5)), images)
    part = network.subset([3, 1])
    alone = part(Subimages.of(images, part.subdomains))
    for position, n in enumerate((3, 1)):
        assert torch.equal(alone[:, position, : found[n][0].numel()], found[n].flatten(1))


def factory(
    decomposition: dict[str, object], model: str = "resnet20", size: tuple[int, int] = (32, 32)
) -> NetworkFactory:
    config = Config.parse({"decomposition": decomposition, "model": {"name": model}})
    return NetworkFactory(config, 3, 10, size, Normalization(torch.zeros(3), torch.ones(3)))


def test_the_coarse_cnn_is_one_more_of_the_same() -> None:
    networks = factory({"grid": "2x2", "coarse": True})
    counts = [sum(p.numel() for p in module.parameters()) for module in networks.local_modules()]
    assert counts == [68786] * 5  # a quarter of the 272,474 of the global CNN; without a coarse level they are the same
    assert [sum(p.numel() for p in m.parameters()) for m in factory({"grid": "2x2"}).local_modules()] == counts[:4]
    assert networks.local_cnns(backend="looped").groups == [(0, 1, 2, 3, 4)]  # and runs with them
    assert factory({"grid": "2x2", "coarse": "12x12"}).local_cnns(backend="looped").groups == [(0, 1, 2, 3), (4,)]


def test_a_mask_is_a_channel_of_the_masked_alone() -> None:
    networks = factory({"name": "voronoi:3,mask_channel=true", "coarse": "16x16"}, "tests.strategies.tiny:tiny")
    convolutions = [next(module.children()) for module in networks.local_modules()]
    assert [one.in_channels for one in convolutions] == [4, 4, 4, 3]
    networks.check()


@pytest.mark.parametrize(
    ("decomposition", "message"),
    [
        (
            {"grid": "2x2", "coarse": "4x4"},
            "subdomain 4 (the whole image, reduced to 4x4 pixels): vgg9 pools three times and needs at least 8 pixels "
            "along each axis, got (4, 4); use a larger coarse level, or larger images",
        ),
        ({"name": "interleaved:6x6"}, "needs at least 8 pixels along each axis, got (6, 6); use a coarser grid"),
        ({"name": "boxes:0-7x0-32"}, "got (7, 32); use larger boxes, or larger images"),
        ({"name": "rings:8x4"}, "use fewer subdomains, or larger images"),
    ],
)
def test_a_network_that_is_too_deep(decomposition: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        factory(decomposition, "vgg9").check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["fused", "vmapped", "looped"])
def test_coarse_beside_fine_in_one_step(backend: str, seeded: None) -> None:
    """Shapes of their own run as groups of their own; scores and gradients are those of each network alone."""
    decomposition = WithCoarse(Interleaved((1, 2)), (6, 6))
    modules = [
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
        for _ in range(3)
    ]
    network = LocalCNNs(decomposition, modules, image_size=(8, 10), backend=backend, channels=2)  # type: ignore[arg-type]
    images = torch.rand(4, 2, 8, 10)
    scores = network(Subimages.of(images, network.subdomains))
    scores.square().sum().backward()
    for n, (module, s) in enumerate(zip(modules, network.subdomains, strict=True)):
        alone = module(s.cut(images))
        torch.testing.assert_close(scores[:, n], alone)
        alone.square().sum().backward()
    assert network.groups == [(0, 1), (2,)]
    assert Grid((1, 2)).fine == 2
