"""VGG9 and ResNet20: sizes by formula, shapes, initialisation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ddcnn.errors import ModelError
from ddcnn.models import MODELS, VGG9, ResNet20, build, width_rule
from ddcnn.models.layers import scaled

pytestmark = pytest.mark.usefixtures("seeded")

SIZES = [(57, 41), (8, 9), (17, 11), (8, 9, 10), (16, 8, 11)]


def vgg9_parameters(C: int, K: int, size: tuple[int, ...], widths: tuple[int, int, int], *, norm: bool) -> int:
    """Count by hand: convolutions with norm (2 per channel) or bias (1), a 4-pixel average, three dense layers."""
    a, b, c = widths
    window = 3 ** len(size)
    convolutions = window * (C * a + a * a + a * b + b * b + b * c + c * c) + (2 if norm else 1) * 2 * (a + b + c)
    features = c * math.prod(min(4, n // 2 // 2 // 2) for n in size)  # averaged to 4 at most
    extra = 2 if norm else 1  # per unit of the two hidden layers: scale and shift, or a bias
    return convolutions + (features + extra) * c + (c + extra) * c + (c + 1) * K


def resnet20_parameters(C: int, K: int, axes: int, widths: tuple[int, int, int]) -> int:
    """Count by hand: 19 convolutions and 2 shortcuts, each with batch norm, and a dense layer."""
    a, b, c = widths
    window = 3**axes
    first = window * C * a + 2 * a
    stage_a = 6 * (window * a * a + 2 * a)
    stage_b = window * a * b + 5 * window * b * b + 6 * 2 * b + a * b + 2 * b
    stage_c = window * b * c + 5 * window * c * c + 6 * 2 * c + b * c + 2 * c
    return first + stage_a + stage_b + stage_c + (c + 1) * K


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_vgg9(size: tuple[int, ...], norm: bool) -> None:
    model = VGG9(2, 5, size, width=0.25, batch_norm=norm)
    assert count(model) == vgg9_parameters(2, 5, size, (8, 16, 32), norm=norm)
    assert model(torch.randn(3, 2, *size)).shape == (3, 5)


@pytest.mark.parametrize("size", [*SIZES, (1, 3), (3, 2, 1)])
def test_resnet20(size: tuple[int, ...]) -> None:
    model = ResNet20(2, 5, size, width=0.25)
    assert count(model) == resnet20_parameters(2, 5, len(size), (4, 8, 16))
    assert model(torch.randn(3, 2, *size)).shape == (3, 5)


def test_nominal_widths() -> None:
    assert count(VGG9(3, 10, (32, 32))) == vgg9_parameters(3, 10, (32, 32), (32, 64, 128), norm=True)
    assert count(ResNet20(3, 10, (32, 32))) == resnet20_parameters(3, 10, 2, (16, 32, 64))


def test_weight_layers_give_the_names() -> None:
    def layers(model: nn.Module) -> int:
        return sum(isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in name for name, m in model.named_modules())

    assert layers(VGG9(3, 10, (16, 16))) == 9
    assert layers(ResNet20(3, 10, (16, 16))) == 20


@pytest.mark.parametrize("batch_size", [1, 4])
def test_samples_do_not_see_one_another_in_evaluation(batch_size: int) -> None:
    model = ResNet20(2, 3, (6, 7), width=0.25).eval()
    x = torch.randn(4, 2, 6, 7)
    torch.testing.assert_close(model(x)[:batch_size], model(x[:batch_size]))


@pytest.mark.parametrize("make", [VGG9, ResNet20])
def test_he_init(make: type[VGG9 | ResNet20]) -> None:
    for layer in make(3, 10, (16, 16), width=2.0).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight, fan_in = layer.weight.detach(), layer.weight[0].numel()
            error = 4 / math.sqrt(weight.numel())  # four standard errors, and more for the standard deviation
            assert abs(float(weight.mean())) * math.sqrt(fan_in / 2) < error
            assert abs(float(weight.std()) * math.sqrt(fan_in / 2) - 1) < error
            assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(("subdomains", "factor"), [(1, 1), (4, 1 / 2), (16, 1 / 4), (6, 1 / math.sqrt(6))])
def test_width_rule(subdomains: int, factor: float) -> None:
    assert width_rule(subdomains) == pytest.approx(factor, rel=1e-15)


def test_scaled_channels_never_vanish() -> None:
    assert [scaled(16, factor) for factor in (1.0, 0.5, 1 / 3, 0.01)] == [16, 8, 5, 1]
    assert VGG9(1, 2, (8, 8), width=0.001)(torch.randn(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("size", [(8, 7), (7, 16), (16, 16, 4)])
def test_too_small_for_vgg9(size: tuple[int, ...]) -> None:
    with pytest.raises(ModelError) as error:
        VGG9(1, 2, size)
    expected = f"vgg9 pools three times and needs at least 8 pixels along each axis, got {size}"
    assert str(error.value) == f"{expected}; use a coarser grid, or larger images"


@pytest.mark.parametrize("make", [VGG9, ResNet20])
@pytest.mark.parametrize("size", [(16,), (8, 8, 8, 8)])
def test_wrong_number_of_axes(make: type[VGG9 | ResNet20], size: tuple[int, ...]) -> None:
    with pytest.raises(ModelError) as error:
        make(1, 2, size)
    assert str(error.value) == f"expected an image size (H, W) or (D, H, W), got {size}"


@pytest.mark.parametrize("name", ["vgg9", "resnet20"])
def test_parameters_depend_on_the_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = build(name, 1, 3, (9, 8), width=0.25, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again = build(name, 1, 3, (9, 8), width=0.25, seed=5).state_dict()
    other = build(name, 1, 3, (9, 8), width=0.25, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_options_reach_the_factory() -> None:
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in build("vgg9", 1, 2, (8, 8), options={"batch_norm": False}).modules()
    )


def test_any_factory_by_name() -> None:
    assert MODELS.find("ddcnn.models.vgg:VGG9") is VGG9
    model = build("ddcnn.models:ResNet20", 2, 3, (5, 6), width=0.25)
    assert type(model) is ResNet20


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vgg",
            "model 'vgg' is unknown: did you mean 'vgg9'? (one of: cnn3d, lda, resnet20, vgg9); or give "
            "timm:NAME, torchvision:NAME, monai:NAME, module:function",
        ),
        ("no.such:thing", "model 'no.such:thing' cannot be imported: No module named 'no'"),
        ("math:thing", "model 'math:thing' cannot be imported: module 'math' has no attribute 'thing'"),
        ("math:pi", "model 'math:pi' is a float, not a function"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(ModelError) as error:
        MODELS.find(name)
    assert str(error.value) == message


@pytest.mark.parametrize("name", [":factory", ".relative:factory", "math:"])
def test_malformed_names(name: str) -> None:
    with pytest.raises(ModelError, match=f"^model '{name}' cannot be imported: "):
        MODELS.find(name)


def test_bad_options() -> None:
    with pytest.raises(ModelError, match=r"^model 'vgg9' cannot be built with options \{'depth': 3\}: .*'depth'"):
        build("vgg9", 1, 2, (8, 8), options={"depth": 3})


def nothing(*_: object, **__: object) -> None:
    """Build no network."""


def test_a_factory_that_builds_nothing() -> None:
    name = "tests.models.test_models:nothing"
    with pytest.raises(ModelError, match=f"^model '{name}' should return a torch.nn.Module, got NoneType$"):
        build(name, 1, 2, (8, 8))


@pytest.mark.parametrize("size", [(16, 17), (8, 9, 10)])
def test_skips_of_vgg9_have_no_parameters(size: tuple[int, ...]) -> None:
    plain, skipping = VGG9(2, 5, size, width=0.25), VGG9(2, 5, size, width=0.25, skip=True)
    assert count(skipping) == count(plain)
    skipping.load_state_dict(dict(zip(skipping.state_dict(), plain.state_dict().values(), strict=True)))
    x = torch.randn(3, 2, *size)
    y = plain.eval().features[0:3](x)
    expected = torch.relu(plain.features[3:5](y) + y)
    torch.testing.assert_close(skipping.eval().features[0:4](x), expected)
    assert not torch.allclose(skipping(x), plain(x))


@pytest.mark.parametrize("size", [(9, 8), (5, 4, 6)])
def test_resnet20_without_skips_is_the_plain_network(size: tuple[int, ...]) -> None:
    plain, residual = ResNet20(2, 5, size, width=0.25, skip=False), ResNet20(2, 5, size, width=0.25)
    shortcuts = sum(p.numel() for name, p in residual.named_parameters() if "shortcut" in name)
    assert shortcuts == 4 * 8 + 2 * 8 + 8 * 16 + 2 * 16
    assert count(residual) - count(plain) == shortcuts
    assert plain(torch.randn(3, 2, *size)).shape == (3, 5)
    block, same = plain.blocks[0].eval(), residual.blocks[0].eval()
    same.load_state_dict(block.state_dict())
    x = torch.randn(3, 4, *size).relu()
    with torch.no_grad():
        same.norm2.weight.zero_()
        block.norm2.weight.zero_()
    torch.testing.assert_close(same(x), x)  # a residual block that adds nothing is the identity
    assert not block(x).any()
