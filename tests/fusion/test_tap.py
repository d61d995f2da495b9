"""What a classifier sees: found in any network, and the same from N fused networks as from each of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ddcnn
from ddcnn.decomposition import Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion import classifier_of
from ddcnn.models import CNN3D, VGG9, ResNet20

pytestmark = pytest.mark.usefixtures("seeded")
SHAPE = (2, 6, 5)


class Named(nn.Module):
    """A convolution is the classifier, as the network says; a linear layer gates the channels before."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.fc = nn.Conv2d(2, 4, 3), nn.Linear(4, 4), nn.Conv2d(4, 3, 1)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        y = y * self.gate(y.mean((2, 3))).sigmoid()[:, :, None, None]
        return self.fc(y.mean((2, 3), keepdim=True)).flatten(1)


class Unnamed(Named):
    get_classifier = None  # type: ignore[assignment]


class Twice(nn.Module):
    """Its linear layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(60, 60)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(x.flatten(1)).relu())


class Reads(nn.Module):
    """It must see numbers, its layers were registered in another order, and it is called by a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(7, 3), nn.Linear(60, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.flatten(1))
        return self.head(input=y.relu() if float(y.sum()) < 1e9 else y)


def plain() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 7), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.0), nn.Linear(7, 3))


def seen_by(network: nn.Module, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores, and the input of a layer, noted by a hook of the test's own."""
    found: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_hook(
        lambda _layer, args, kwargs, _result: found.append(args[0] if args else kwargs["input"]), with_kwargs=True
    )
    scores = network(x)
    hook.remove()
    return scores, found[0].flatten(1)


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (plain, SHAPE, ("7", 7)),
        (Named, SHAPE, ("fc", 4)),
        (Reads, SHAPE, ("head", 7)),
        (lambda: VGG9(3, 10, (16, 16), width=0.25), (3, 16, 16), None),
        (lambda: ResNet20(3, 10, (16, 16), width=0.25), (3, 16, 16), None),
        (lambda: CNN3D(1, 2, (16, 16, 16), width=0.05), (1, 16, 16, 16), None),
    ],
)
def test_the_classifier_of_a_network(network: Any, shape: tuple[int, ...], expected: tuple[str, int] | None) -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    name, numbers = classifier_of(module, shape)
    if expected is not None:
        assert (name, numbers) == expected
    layers = [(key, layer) for key, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if expected is None:
        assert (name, numbers) == (layers[-1][0], layers[-1][1].in_features)
    assert not any(layer._forward_hooks for layer in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize(("network", "what"), [(Unnamed, "no linear layer"), (Twice, "one input per sample")])
def test_networks_without_features(network: type[nn.Module], what: str) -> None:
    with pytest.raises(FusionError, match=f"{what}.*aggregation.features = logit") as error:
        classifier_of(network(), SHAPE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["fused", "vmapped", "looped"])
@pytest.mark.parametrize("network", [plain, Named])
def test_features_and_their_gradients_are_those_of_each_network_alone(network: Any, backend: str) -> None:
    modules = [network().double() for _ in range(3)]
    for module in modules:
        if isinstance(module, nn.Sequential):
            nn.init.normal_(module[1].bias)
    fused = ddcnn.fuse(modules, backend, sample_shape=SHAPE)
    layer, width = classifier_of(modules[0], SHAPE)
    x = torch.randn(4, 3, *SHAPE, dtype=torch.float64)
    weights = torch.randn(4, 3, width, dtype=torch.float64)
    scores, features = fused.train().tapped(x, layer)
    assert features is not None
    assert features.shape == (4, 3, width)
    (features * weights).sum().backward()
    for n, module in enumerate(modules):
        expected, seen = seen_by(module.train(), layer, x[:, n])
        torch.testing.assert_close(scores[:, n], expected)
        torch.testing.assert_close(features[:, n], seen)
        (seen * weights[:, n]).sum().backward()
        gradients = fused.member_gradient(n)
        for name, parameter in module.named_parameters():
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(gradients[name], own)
    torch.testing.assert_close(fused(x), scores)  # and nothing of it stays behind
    assert not any(layer._forward_pre_hooks for layer in fused.extract(0).modules())


def test_local_cnns_of_different_shapes_fill_up_with_zeros() -> None:
    grid = ddcnn.Grid((1, 3))
    subdomains = grid.subdomains((4, 8))  # 3, 3 and 2 columns
    modules = [nn.Sequential(nn.Flatten(), nn.Linear(4 * s.shape[1], 2)) for s in subdomains]
    local = ddcnn.LocalCNNs(grid, modules, image_size=(4, 8), channels=1)
    images = torch.randn(5, 1, 4, 8)
    parts = ddcnn.cut(images, subdomains)
    scores, features = local.with_features(Subimages.of(images, subdomains))
    torch.testing.assert_close(scores, torch.stack([m(x) for m, x in zip(modules, parts, strict=True)], 1))
    expected = torch.stack([F.pad(x.flatten(1), (0, 12 - x[0].numel())) for x in parts], 1)
    assert torch.equal(features, expected)
    assert torch.equal(
        local.subset([2, 0]).with_features(Subimages.of(images, [subdomains[2], subdomains[0]]))[1], expected[:, [2, 0]]
    )
