"""Crops, jitter and mixing of whole images: against torch's own resampling, numpy, and from windows as from wholes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddcnn.data import Dataset
from ddcnn.data.augmentation import Augmentation
from ddcnn.data.batch import OTHERS, SHARES
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import Resident
from ddcnn.data.photos import NOTE
from ddcnn.data.store import Store, Stored
from ddcnn.data.store.write import write_store
from ddcnn.data.subdomain_pixels import SubdomainPixels
from ddcnn.decomposition import Grid, Subimages
from tests.data.store.helper import make_dataset

ALL = Augmentation((1,), 2, crop=0.4, jitter=0.2, grey=100.0, spread=50.0, mixup=0.4, cutmix=1.0)


def _images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(9, 12), (5, 7, 6)])
def test_a_crop_equals_bilinear_sampling(size: tuple[int, ...]) -> None:
    augmentation = Augmentation(crop=0.3)
    images = _images(40, 2, *size)
    moves = augmentation.draw(samples=40, axes=len(size), seed=1, epoch=1)
    crops = moves[:, len(size) :].double() / 2**16
    places, sides = crops[..., 0], crops[..., 1]
    assert float(sides.prod(1).min()) > 0.25
    assert len(sides.unique()) >= 40
    axes = []
    for axis, pixels in enumerate(size):  # in -1..1 over the whole image, as grid_sample has it
        centres = (torch.arange(pixels).double() + 0.5) / pixels
        axes.append(2 * (places[:, axis] * (1 - sides[:, axis]))[:, None] + 2 * sides[:, axis, None] * centres - 1)
    grids = torch.stack([torch.stack(torch.meshgrid(*one, indexing="ij")[::-1], -1) for one in zip(*axes, strict=True)])
    expected = F.grid_sample(images.double(), grids, padding_mode="border", align_corners=False)
    got = augmentation.apply(images, moves)
    assert got.dtype == torch.uint8
    assert float((got - expected).abs().max()) <= 0.5 * len(size) + len(size)  # roundings, and shares in 1/256


def test_the_whole_image_is_a_crop_that_changes_nothing() -> None:
    images = _images(3, 3, 8, 11)
    moves = torch.tensor([[0, 0], [0, 0], [30_000, 2**16], [0, 2**16]]).expand(3, -1, -1)
    assert torch.equal(Augmentation(crop=0.5).apply(images, moves), images)
    float_images = images.float() / 7
    assert torch.equal(Augmentation(crop=0.5).apply(float_images, moves), float_images)


def test_jitter_is_an_affine_map_of_each_image() -> None:
    augmentation = Augmentation(jitter=0.2, grey=90.0, spread=40.0)
    images = _images(50, 1, 6, 7)
    moves = augmentation.draw(samples=50, axes=2, seed=0, epoch=3)
    contrast, brightness = (moves[:, 2].double() / 1000).unbind(1)
    assert 0.15 < float((contrast - 1).abs().max()) <= 0.2
    assert 0.15 < float(brightness.abs().max()) <= 0.2
    shape = (-1, 1, 1, 1)
    expected = 90 + contrast.view(shape) * (images.double() - 90) + 40 * brightness.view(shape)
    assert float((augmentation.apply(images, moves) - expected.clamp(0, 255)).abs().max()) <= 0.5001


@pytest.mark.parametrize("augmentation", [Augmentation(mixup=0.4), Augmentation(cutmix=1.0)])
def test_the_share_of_the_target_is_that_of_the_pixels(augmentation: Augmentation) -> None:
    images = torch.zeros(8, 1, 16, 10)
    images[4:] = 1  # the batch is mixed in reverse: 0 with 1
    labels = torch.arange(8) // 4
    batches = Batches(
        Resident(images), labels, torch.arange(8), 8, seed=3, augmentation=augmentation,
        subdomains=Grid((1, 1)).subdomains((16, 10)),
    )  # fmt: skip
    seen = []
    for epoch in range(6):
        (batch,) = batches.shuffled(epoch)
        assert isinstance(batch.inputs, Subimages)
        others = batch.extras[OTHERS]
        assert torch.equal(others, batch.targets.flip(0))
        mean = batch.inputs.parts[0].mean((1, 2, 3))
        share = batch.extras[SHARES]
        torch.testing.assert_close(mean, batch.targets * (1 - share) + others * share, atol=1e-5, rtol=0)
        seen.append(share)
    assert float(torch.cat(seen).std()) > 0.2
    (plain,) = batches.in_order()
    assert not plain.extras


def test_each_replica_mixes_within_its_part() -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 4, 4).contiguous()
    for part in range(2):
        batches = Batches(
            Resident(images), torch.arange(5), torch.arange(5), 5, augmentation=Augmentation(cutmix=1.0),
            subdomains=Grid((1, 1)).subdomains((4, 4)), part=(part, 2),
        )  # fmt: skip
        (batch,) = batches.shuffled(1)
        assert isinstance(batch.inputs, Subimages)
        for place, pixels in zip(range(3 * part, 5), batch.inputs.parts[0], strict=False):  # the last one stands in
            assert set(pixels.unique().tolist()) <= {float(batch.targets[place]), float(batch.extras[OTHERS][place])}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(13, 12), (9, 11, 7)])
def test_windows_of_a_store_are_those_of_whole_images(
    size: tuple[int, ...], dtype: torch.dtype, tmp_path: Path
) -> None:
    dataset = make_dataset(size=size, dtype=dtype)
    write_store(dataset, tmp_path / "s.zarr", Grid((2,) * len(size)), workers=1)
    images, samples = Stored(Store(tmp_path / "s.zarr")), torch.tensor([6, 0, 3, 2])
    subdomains = Grid((2, 3, 1)[: len(size)], overlap=1).subdomains(size)
    for epoch in range(3):
        moves = ALL.draw(samples=7, axes=len(size), seed=1, epoch=epoch)[samples]
        expected = Subimages.of(ALL.apply(dataset.images[samples], moves), subdomains).parts
        found = images.take(samples, subdomains, ALL, moves).parts
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_pixels_that_a_worker_has_are_jittered_and_mixed_as_whole_images() -> None:
    augmentation = Augmentation((1,), 2, jitter=0.2, grey=100.0, spread=50.0, mixup=0.4, cutmix=1.0)
    images, samples = _images(20, 3, 9, 8), torch.tensor([3, 17, 0, 3, 9])
    subdomains = Grid((2, 2), overlap=1).subdomains((9, 8))
    moves = augmentation.draw(samples=20, axes=2, seed=5, epoch=1)[samples]
    found = SubdomainPixels.of(images, subdomains, augmentation).take(samples, subdomains, augmentation, moves).parts
    expected = Subimages.of(augmentation.apply(images[samples], moves), subdomains).parts
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_colour_images_are_photographs_and_grey_ones_are_not(tmp_path: Path, save_image: Callable[..., object]) -> None:
    from ddcnn.config import DataConfig
    from ddcnn.data import open_data

    found: dict[str, Dataset] = {}
    for mode in ("RGB", "L"):
        for name in ("a/0.png", "b/0.png"):
            save_image(tmp_path / mode / name, mode=mode)
        (tmp_path / mode / "d.csv").write_text("file,label\na/0.png,a\nb/0.png,b\n")
        for source in (f"folder:{tmp_path / mode}", f"csv:{tmp_path / mode / 'd.csv'}"):
            found[f"{mode} {source[:3]}"] = open_data(DataConfig(source=source))
    for name, dataset in found.items():
        colour = name.startswith("RGB")
        assert (dataset.flip_axes, dataset.crop) == (((1,), 0.5) if colour else ((), 1.0))
        assert (NOTE in dataset.notes) == colour
