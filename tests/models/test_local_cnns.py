"""`LocalCNNs`: subdomains of different shape, in order, equal separate networks."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ddcnn.decomposition import Grid, Subimages
from ddcnn.errors import FusionError
from ddcnn.models import LocalCNNs
from tests.fusion.helper import randomize, small_cnn

pytestmark = pytest.mark.usefixtures("seeded")
SIZES = {"2d": ((2, 3), (7, 11)), "3d": ((1, 2, 3), (3, 5, 7))}


def _networks(grid: Grid, size: tuple[int, ...]) -> list[nn.Module]:
    return randomize([small_cnn(2, 3, len(size)) for _ in grid.subdomains(size)])


def _separate(grid: Grid, networks: list[nn.Module], images: Tensor) -> Tensor:
    scores = []
    for subdomain, network in zip(grid.subdomains(images.shape[2:]), networks, strict=True):
        part = images
        for axis, (start, stop) in enumerate(subdomain.box):
            part = part.narrow(axis + 2, start, stop - start)
        scores.append(network(part))
    return torch.stack(scores, 1)


def _seen(local_cnns: LocalCNNs, images: Tensor) -> Subimages:
    return Subimages.of(images, local_cnns.subdomains)


@pytest.mark.parametrize("backend", ["fused", "looped", "auto"])
@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize(("parts", "size"), SIZES.values(), ids=SIZES)
def test_subdomains_of_different_shape(
    parts: tuple[int, ...], size: tuple[int, ...], overlap: int, backend: Literal["fused", "looped", "auto"]
) -> None:
    grid = Grid(parts, overlap=overlap)
    networks = [network.double() for network in _networks(grid, size)]
    local_cnns = LocalCNNs(grid, networks, image_size=size, backend=backend)
    images = torch.randn(4, 2, *size, dtype=torch.float64)
    assert len(local_cnns.groups) > 1
    assert local_cnns.members == len(networks)
    torch.testing.assert_close(local_cnns(_seen(local_cnns, images)), _separate(grid, networks, images))
    local_cnns.eval()
    torch.testing.assert_close(
        local_cnns(_seen(local_cnns, images)), _separate(grid, [n.eval() for n in networks], images)
    )
    states = [local_cnns.member_state(n) for n in range(len(networks))]
    extracted = [local_cnns.extract(n).state_dict() for n in range(len(networks))]
    for n, network in enumerate(networks):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(states[n][name], value)
            torch.testing.assert_close(extracted[n][name], value)


def test_shapes_that_alternate_keep_their_order() -> None:
    grid = Grid((2, 3))  # 11 pixels by 3: columns of 4, 4, 3, so groups (0, 1, 3, 4) and (2, 5)
    size = (8, 11)
    networks: list[nn.Module] = []
    for n, _ in enumerate(grid.subdomains(size)):
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
        nn.init.zeros_(network[2].weight)
        nn.init.constant_(network[2].bias, float(n))
        networks.append(network)
    local_cnns = LocalCNNs(grid, networks, image_size=size)
    assert local_cnns.groups == [(0, 1, 3, 4), (2, 5)]
    assert local_cnns(_seen(local_cnns, torch.zeros(3, 1, 8, 11)))[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_values_per_parameter_reach_the_right_network() -> None:
    grid, size = Grid((1, 3)), (5, 8)
    networks = _networks(grid, size)
    local_cnns = LocalCNNs(grid, networks, image_size=size, backend="fused")
    with torch.no_grad():
        for parameter, values in local_cnns.per_parameter(torch.tensor([1.0, 10.0, 100.0])):
            parameter.mul_(values)
    for n, network in enumerate(networks):
        state = local_cnns.member_state(n)
        assert all(torch.equal(state[name], value * 10**n) for name, value in network.named_parameters())


def test_load_member_state_reaches_one_network() -> None:
    grid, size = Grid((1, 3)), (5, 8)
    networks = _networks(grid, size)
    local_cnns = LocalCNNs(grid, networks, image_size=size)
    local_cnns.load_member_state(2, {name: 0 * value for name, value in networks[2].state_dict().items()})
    assert not any(value.any() for value in local_cnns.member_state(2).values())
    assert torch.equal(local_cnns.member_state(1)["0.weight"], networks[1][0].weight)


def test_some_subdomains() -> None:
    grid, size = Grid((2, 2)), (6, 7)
    networks = [network.eval() for network in _networks(grid, size)]
    images = torch.randn(3, 2, *size)
    some = LocalCNNs(grid, [networks[3], networks[0]], image_size=size, indices=[3, 0]).eval()
    torch.testing.assert_close(some(_seen(some, images)), _separate(grid, networks, images)[:, [3, 0]])


def test_backend_by_measurement() -> None:
    grid, size = Grid((1, 2)), (5, 8)
    local_cnns = LocalCNNs(
        grid,
        _networks(grid, size),
        image_size=size,
        example=Subimages.of(torch.randn(4, 2, *size), grid.subdomains(size)),
    )
    assert local_cnns.backend in ("fused", "looped")
    assert local_cnns.reason.startswith("measured ")


def test_wrong_number_of_networks() -> None:
    grid, size = Grid((2, 2)), (6, 7)
    with pytest.raises(FusionError) as error:
        LocalCNNs(grid, _networks(grid, size)[:3], image_size=size)
    assert str(error.value) == "3 local CNNs do not fit 4 subdomains; give one each"


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (7, 7)])
def test_images_of_another_size(size: tuple[int, int]) -> None:
    grid = Grid((2, 2))
    local_cnns = LocalCNNs(grid, _networks(grid, (6, 7)), image_size=(6, 7))
    with pytest.raises(FusionError) as error:
        local_cnns(Subimages.of(torch.zeros(3, 2, *size), grid.subdomains(size)))
    assert str(error.value).startswith("these local CNNs take subimages of 3x4, 3x3, 3x4, 3x3 pixels, got ")
    assert str(error.value).endswith("; give those of subdomains 0, 1, 2, 3")


def test_unknown_member() -> None:
    grid = Grid((1, 2))
    with pytest.raises(IndexError, match=r"^local CNN 2 of 2$"):
        LocalCNNs(grid, _networks(grid, (5, 6)), image_size=(5, 6)).member_state(2)


@pytest.mark.parametrize("backend", ["fused", "looped", "auto"])
@pytest.mark.parametrize("members", [[0], [2], [1, 0], [3, 1, 2]])
def test_a_subset_is_the_same_networks_on_their_own_subdomains(
    members: list[int], backend: Literal["fused", "looped", "auto"]
) -> None:
    grid, size = Grid((2, 2)), (5, 8)  # two shapes, so two groups
    networks = [network.double() for network in _networks(grid, size)]
    whole = LocalCNNs(grid, networks, image_size=size, backend=backend)
    part = whole.subset(members)
    images = torch.randn(4, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(part.eval()(_seen(part, images)), whole.eval()(_seen(whole, images))[:, members])
    assert (part.members, part.indices) == (len(members), tuple(members))
    assert [part.name(i) for i in range(len(members))] == [whole.name(n) for n in members]
    for i, n in enumerate(members):
        assert all(torch.equal(value, networks[n].state_dict()[name]) for name, value in part.member_state(i).items())
    part.train()(_seen(part, images))  # moves the statistics of the part alone
    assert all(
        torch.equal(value, whole.member_state(n)[name])
        for n, network in enumerate(networks)
        for name, value in network.state_dict().items()
    )


def test_a_subset_runs_on_the_same_backends() -> None:
    grid, size = Grid((1, 3)), (5, 8)  # the group of one network is looped
    whole = LocalCNNs(grid, _networks(grid, size), image_size=size, backend="auto")
    assert [group.backend for group in whole.fused] == ["fused", "looped"]
    part = whole.subset([2, 0])
    assert [group.backend for group in part.fused] == ["fused", "looped"]
    assert part.reason == whole.reason
    assert part.subset([1]).backend == "fused"
    assert part.subset([1]).name(0) == "subdomain 0 (rows 0..4, columns 0..2)"


def test_an_empty_subset() -> None:
    grid, size = Grid((1, 3)), (5, 8)
    with pytest.raises(FusionError, match=r"^a subset needs at least 1 local CNN, got none$"):
        LocalCNNs(grid, _networks(grid, size), image_size=size).subset([])


def test_names_say_where() -> None:
    grid = Grid((2, 1, 2), overlap=(0, 0, 1))
    local_cnns = LocalCNNs(grid, _networks(grid, (3, 2, 4)), image_size=(3, 2, 4))
    assert local_cnns.name(2) == "subdomain 2 (depth 2..2, rows 0..1, columns 0..2)"
