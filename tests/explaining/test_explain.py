"""What an explanation says is true of networks whose reasons are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ddcnn
from ddcnn.aggregation import Average, Dense, Vote
from ddcnn.decomposition import Grid
from ddcnn.errors import ExplanationError
from ddcnn.explaining import grad_cam
from ddcnn.models import Normalization
from ddcnn.network import CNNDNN
from tests.fusion.helper import randomize, small_cnn

pytest.importorskip("captum", reason="pip install 'ddcnn[explain]'")
pytestmark = pytest.mark.usefixtures("seeded")
SIZES = {"2d": ((2, 3), (7, 11)), "3d": ((2, 1, 2), (5, 4, 7))}


class Brightness(nn.Module):
    """The score of class 1 is the mean brightness, that of class 0 is 0."""

    def __init__(self, axes: int, scale: float = 1.0) -> None:
        super().__init__()
        kind = nn.Conv2d if axes == 2 else nn.Conv3d
        self.same = kind(1, 1, 1, bias=False)
        nn.init.constant_(self.same.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.same(x).flatten(1).mean(1, keepdim=True)
        return torch.cat([torch.zeros_like(mean), mean], 1)


def bright(kind: str, aggregation: nn.Module, backend: str = "looped", **options: object) -> CNNDNN:
    parts, size = SIZES[kind]
    grid = Grid(parts, overlap=1)
    cnns = [Brightness(len(size)) for _ in grid.subdomains(size)]
    return CNNDNN(grid, cnns, aggregation, image_size=size, backend=backend, **options).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SIZES)
def test_the_pixel_that_a_network_marks_is_marked(kind: str) -> None:
    size = SIZES[kind][1]
    network = bright(kind, Average())
    places = torch.cartesian_prod(*(torch.arange(n) for n in size))
    images = torch.zeros(len(places), 1, *size)
    for image, place in zip(images, places, strict=True):
        image[(0, *place)] = 5.0
    found = network.explain(images, 1)
    assert found.heat_map is not None
    pixels = torch.zeros(size)
    for (
        one
    ) in network.local_cnns.subdomains:  # the score is a mean, so a bright pixel is worth 1 / (pixels of its subimage)
        one.paste(torch.full(one.shape, 5.0 / one.pixels), pixels)
    expected = torch.zeros_like(found.heat_map)
    for row, place in zip(expected, places, strict=True):
        row[tuple(place)] = pixels[tuple(place)]
    torch.testing.assert_close(found.heat_map, expected)


def test_a_mark_stays_in_place_where_a_network_strides() -> None:
    class Strided(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.avg_pool2d(x, 2))

    size = (16, 24)
    images = torch.zeros(2, 1, *size)
    images[0, 0, 3, 20], images[1, 0, 12, 5] = 1.0, 1.0
    network = CNNDNN(Grid((2, 2)), [Strided(2) for _ in range(4)], Average(), image_size=size, backend="looped").eval()
    heat = network.explain(images, 1).heat_map
    assert heat is not None
    for one, (y, x) in zip(heat, ((3, 20), (12, 5)), strict=True):
        top = (one == one.max()).nonzero().tolist()
        assert [y, x] in top
        assert len(top) == 4  # the block that is averaged


def test_ablation_is_the_difference_to_the_network_without_it() -> None:
    grid, size = Grid((1, 3)), (7, 11)
    cnns = randomize([small_cnn(2, 3, 2).eval() for _ in range(3)])
    network = CNNDNN(grid, cnns, Dense(3, 3, shortcut=False), image_size=size, backend="looped").eval()
    images = torch.randn(4, 2, *size)
    found = network.explain(images)
    with torch.no_grad():
        p = network(images).softmax(1)
        assert torch.equal(found.target, p.argmax(1))
        for n in range(3):
            without = network.without([n])(images).softmax(1)
            expected = (p - without).gather(1, found.target[:, None])[:, 0]
            torch.testing.assert_close(found.ablation[:, n], expected)


@pytest.mark.parametrize("features", ["probability", "log"])
def test_attributions_add_up_to_the_difference_to_silence(features: str) -> None:
    grid, size = Grid((1, 3)), (7, 11)
    cnns = randomize([small_cnn(2, 3, 2).eval() for _ in range(3)])
    dense = Dense(3, 3, shortcut=False, features=features)  # type: ignore[arg-type]
    network = CNNDNN(grid, cnns, dense, image_size=size, backend="looped").eval()
    images = torch.randn(5, 2, *size)
    found = network.explain(images, [0, 1, 2, 0, 1])
    assert found.attribution is not None
    with torch.no_grad():
        silent = network.decide(torch.full((5, 3, 3), 1 / 3)).softmax(1)
    gained = (found.probabilities - silent).gather(1, torch.tensor([[0], [1], [2], [0], [1]]))[:, 0]
    torch.testing.assert_close(found.attribution.sum(1), gained, rtol=0, atol=5e-3)


def test_attributions_of_an_average_are_known() -> None:
    network = bright("2d", Average())
    images = torch.rand(3, 1, 7, 11) * 9
    found = network.explain(images, 1)
    assert found.attribution is not None
    # the probability is the mean over 6 subdomains: each adds a sixth of what it says beyond 1/2
    expected = (found.local_probabilities[:, :, 1] - 0.5) / 6
    torch.testing.assert_close(found.attribution, expected, rtol=0, atol=1e-3)


def test_a_vote_has_no_attribution_and_says_so() -> None:
    found = bright("2d", Vote()).explain(torch.rand(3, 1, 7, 11) * 9, 1)
    assert found.attribution is None
    assert found.notes == ("no attribution: this aggregation decides in steps, which gradients do not see",)
    assert found.ablation.isfinite().all()


def test_one_subdomain_and_missing_ones() -> None:
    found = bright("2d", Average(), missing=(0, 4)).explain(torch.rand(2, 1, 7, 11), 1)
    assert found.ablation.isnan().nonzero()[:, 1].tolist() == [0, 4] * 2
    assert found.attribution is not None
    assert float(found.attribution[:, [0, 4]].abs().max()) == 0
    assert float(found.maps[0].max()) == float(found.maps[4].max()) == 0 < float(found.maps[1].max())
    alone = bright("2d", Average(), missing=(0, 1, 2, 3, 4)).explain(torch.rand(2, 1, 7, 11), 1)
    assert alone.ablation.isnan().all()
    assert alone.notes == ("no attribution: one subdomain alone has decided",)


def test_a_network_without_convolutions() -> None:
    grid, size = Grid((1, 2)), (4, 6)
    cnns = [nn.Sequential(nn.Flatten(), nn.Linear(12, 2)) for _ in range(2)]
    found = CNNDNN(grid, cnns, Average(), image_size=size, backend="looped").eval().explain(torch.rand(2, 1, *size))
    assert (found.heat_map, found.maps) == (None, ())
    assert found.notes == ("no heat map: a heat map needs a convolution, and Sequential has none",)
    assert found.ablation.isfinite().all()


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_any_backend_any_array_and_no_trace(backend: str) -> None:
    normalization = Normalization(torch.tensor([128.0]), torch.tensor([64.0]))
    network = bright("2d", Average(), backend, normalization=normalization).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 7, 11), dtype=np.uint8)
    found, again = network.explain(images), ddcnn.explain(network, torch.from_numpy(images))
    assert network.training
    assert torch.equal(found.ablation, again.ablation)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    p = network.eval().local_probabilities(torch.from_numpy(images))
    torch.testing.assert_close(found.local_probabilities, p.detach())


@pytest.mark.parametrize("target", [2, -1, [0], [0, 5]])
def test_a_class_that_is_not_there(target: int | list[int]) -> None:
    with pytest.raises(ExplanationError, match=r"should be a class 0\.\.1, or one for each of 2 images"):
        bright("2d", Average()).explain(torch.rand(2, 1, 7, 11), target)


def test_the_layer_is_the_last_one_that_is_fine_enough() -> None:
    deep = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(4),
        nn.Conv2d(2, 2, 3, padding=1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    for parameter in deep.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)  # all speaks for the class
    maps = grad_cam(deep, torch.rand(3, 1, 16, 16), torch.tensor([0, 1, 0]))
    with torch.no_grad():
        activations = deep[:3](torch.rand(1, 1, 16, 16))
    assert maps.shape == (3, 16, 16)
    assert activations.shape[2:] == (8, 8)  # the layer; that after it has 2 x 2
    peaks = torch.nn.functional.max_pool2d(maps, 2)  # each of the 8 x 8 pixels of the layer is two wide
    assert all(len(one.unique()) > 32 for one in peaks)


def test_activations_that_are_overwritten_in_place() -> None:
    def network(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(108, 2)
        return nn.Sequential(*layers)

    images, target = torch.rand(2, 1, 6, 6), torch.tensor([0, 1])
    found, expected = (grad_cam(network(inplace), images, target) for inplace in (True, False))
    assert torch.equal(found, expected)
    assert float(found.max()) > 0


def test_no_image_is_one_line() -> None:
    with pytest.raises(ExplanationError, match="there is no image to explain"):
        bright("2d", Average()).explain(torch.zeros(0, 1, 7, 11))
