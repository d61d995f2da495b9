"""The Keras CT example's network: its published size, and what becomes of it on small subimages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ddcnn.decomposition import Grid
from ddcnn.errors import ModelError
from ddcnn.models import CNN3D, build

pytestmark = pytest.mark.usefixtures("seeded")

PUBLISHED = (128, 128, 64)


def _count_as_keras(model: nn.Module) -> int:
    """Count parameters and the running statistics of batch norm; torch's counter of batches is not one of Keras's."""
    return sum(t.numel() for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked"))


@pytest.mark.parametrize(("outputs", "expected"), [(1, 1_352_897), (2, 1_353_410)])
def test_the_published_number_of_parameters(outputs: int, expected: int) -> None:
    model = CNN3D(1, outputs, PUBLISHED)
    assert _count_as_keras(model) == expected
    assert sum(p.numel() for p in model.parameters()) == expected - 2 * (64 + 64 + 128 + 256)


def test_the_published_feature_maps() -> None:
    """The sizes that the summary of the Keras example prints: 126, 63, 61, 30, 28, 14, 12, 6 and 62 ... 2."""
    x = torch.empty(1, 1, *PUBLISHED, device="meta")
    sizes = []
    for layer in CNN3D(1, 2, PUBLISHED).to("meta").features:
        x = layer(x)
        if isinstance(layer, nn.Conv3d | nn.MaxPool3d):
            sizes.append(tuple(x.shape[2:]))
    assert [size[0] for size in sizes] == [126, 63, 61, 30, 28, 14, 12, 6]
    assert [size[2] for size in sizes] == [62, 31, 29, 14, 12, 6, 4, 2]


def test_the_order_of_the_layers_is_the_published_one() -> None:
    names = [type(layer).__name__ for layer in CNN3D(1, 2, PUBLISHED).features]
    assert names == ["Conv3d", "ReLU", "MaxPool3d", "BatchNorm3d"] * 4 + ["AdaptiveAvgPool3d", "Flatten"]


def test_every_subimage_of_the_papers_grid_fits() -> None:
    (shape,) = {s.shape for s in Grid((4, 4, 2)).subdomains(PUBLISHED)}
    assert shape == (32, 32, 32)
    local = build("cnn3d", 1, 2, shape, width=32**-0.5)
    assert local(torch.randn(2, 1, *shape)).shape == (2, 2)


@pytest.mark.parametrize(("size", "margin"), [((46, 46, 46), 0), ((46, 45, 60), 1), ((16, 16, 16), 1), ((46, 60), 0)])
def test_padding_only_where_the_image_is_small(size: tuple[int, ...], margin: int) -> None:
    model = CNN3D(1, 2, size, width=0.05)
    paddings = {m.padding for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)}
    assert paddings == {(margin,) * len(size)}
    assert model(torch.randn(2, 1, *size)).shape == (2, 2)


def test_padding_changes_no_parameter() -> None:
    valid, same = (CNN3D(1, 2, (46, 46, 46), width=0.1, padding=padding).state_dict() for padding in ("valid", "same"))
    assert {k: v.shape for k, v in valid.items()} == {k: v.shape for k, v in same.items()}


@pytest.mark.parametrize(
    ("size", "padding", "message"),
    [
        ((32, 15, 32), "auto", "cnn3d pools four times and needs at least 16 pixels along each axis, got (32, 15, 32); "
         "use a coarser grid, or larger images"),
        ((64, 45, 64), "valid", "cnn3d without padding pools four times and needs at least 46 pixels along each axis, "
         "got (64, 45, 64); use padding=same, a coarser grid, or larger images"),
        ((64, 64, 64), "full", "cnn3d: padding should be auto, valid or same, got 'full'"),
        ((64,), "auto", "expected an image size (H, W) or (D, H, W), got (64,)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_explained(size: tuple[int, ...], padding: str, message: str) -> None:
    with pytest.raises(ModelError) as error:
        build("cnn3d", 1, 2, size, options={"padding": padding})
    assert str(error.value) == message


def test_least_sizes_are_the_least() -> None:
    """One pixel less, and torch itself finds nothing left to convolve or to pool."""
    for least, padding in ((46, "valid"), (16, "same")):
        model = CNN3D(1, 2, (46, 46, 46), width=0.05, padding=padding).eval()  # type: ignore[arg-type]
        assert model(torch.randn(1, 1, *(least,) * 3)).shape == (1, 2)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 1, *(least - 1,) * 3))


def test_narrower_blocks() -> None:
    """The number by hand: convolutions 27 * in * out + out, norms 2 * out, dense layers in * out + out."""
    model = CNN3D(1, 2, (64, 64, 64), block_channels=(32, 32, 64, 128), hidden=256)
    convolutions = sum(27 * a * b + b + 2 * b for a, b in ((1, 32), (32, 32), (32, 64), (64, 128)))
    assert sum(p.numel() for p in model.parameters()) == convolutions + 128 * 256 + 256 + 256 * 2 + 2
    with pytest.raises(ModelError, match="cnn3d has four blocks, got block_channels of 3; give four numbers"):
        CNN3D(1, 2, (64, 64, 64), block_channels=(32, 32, 64))
