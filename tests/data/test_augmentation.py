"""Flips, shifts and rotations, against numpy, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from ddcnn.data.augmentation import Augmentation, rotated

SIZES = [(5, 7), (1, 4), (3, 4, 6), (2, 2, 5)]


def _moves(images: Tensor, augmentation: Augmentation, *, epoch: int = 1) -> Tensor:
    return augmentation.draw(samples=len(images), axes=images.ndim - 2, seed=3, epoch=epoch)


def _expected(image: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Flip, pad by reflection, and cut the shifted window, one axis after the other."""
    for axis, (flipped, shift) in enumerate(moves, 1):
        if flipped:
            image = np.flip(image, axis)
        pixels = image.shape[axis]
        widths = [(abs(shift), abs(shift)) if a == axis else (0, 0) for a in range(image.ndim)]
        padded = np.pad(image, widths, mode="reflect") if pixels > 1 else np.pad(image, widths, mode="edge")
        image = np.take(padded, range(abs(shift) - shift, abs(shift) - shift + pixels), axis)
    return image


@pytest.mark.parametrize("size", SIZES)
def test_equals_numpy(size: tuple[int, ...]) -> None:
    augmentation = Augmentation(flip_axes=(0, len(size) - 1), shift=3)
    images = torch.arange(40 * 2 * int(np.prod(size))).view(40, 2, *size)
    moves = _moves(images, augmentation)
    small = moves[..., 1].abs() < torch.tensor(size)  # larger shifts are another test
    assert small.all() or min(size) <= 3
    expected = [_expected(image, move) for image, move in zip(images.numpy(), moves.numpy(), strict=True)]
    chosen = small.all(1) | (torch.tensor(size) == 1).any()
    assert chosen.any()
    got = augmentation.apply(images, moves).numpy()
    assert all(np.array_equal(got[n], expected[n]) for n in range(40) if chosen[n])


@pytest.mark.parametrize("shift", range(-13, 14))
def test_shifts_beyond_the_image_reflect_again(shift: int) -> None:
    bounce = [0, 1, 2, 3, 2, 1]  # a ball between pixels 0 and 3
    expected = [bounce[(i - shift) % 6] for i in range(4)]
    moves = torch.tensor([[[0, 0], [0, shift]]])
    assert Augmentation(shift=13).apply(torch.arange(4).view(1, 1, 1, 4), moves).flatten().tolist() == expected


def test_a_flip_comes_before_a_shift() -> None:
    moves = torch.tensor([[[0, 0], [1, 1]]])
    got = Augmentation((1,), shift=1).apply(torch.arange(4).view(1, 1, 1, 4), moves)
    assert got.flatten().tolist() == [2, 3, 2, 1]  # 3 2 1 0, moved by one to the right


def test_moves_are_a_function_of_seed_epoch_and_sample() -> None:
    augmentation = Augmentation((0, 1), shift=4)
    draw = augmentation.draw(samples=50, axes=2, seed=1, epoch=2)
    assert torch.equal(draw, augmentation.draw(samples=50, axes=2, seed=1, epoch=2))
    assert torch.equal(draw[:20], augmentation.draw(samples=20, axes=2, seed=1, epoch=2))
    assert torch.equal(draw[:3], augmentation.draw(samples=3, axes=2, seed=1, epoch=2))
    assert not torch.equal(draw, augmentation.draw(samples=50, axes=2, seed=2, epoch=2))
    assert not torch.equal(draw, augmentation.draw(samples=50, axes=2, seed=1, epoch=3))


def test_moves_are_independent_of_the_batch() -> None:
    augmentation = Augmentation((1,), shift=2)
    images = torch.arange(20 * 30).view(20, 1, 5, 6)
    moves = _moves(images, augmentation)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    whole = augmentation.apply(images, moves)
    assert torch.equal(augmentation.apply(images[order], moves[order]), whole[order])


@pytest.mark.parametrize("axes", [2, 3])
def test_all_moves_are_equally_frequent(axes: int) -> None:
    moves = Augmentation((axes - 1,), shift=2).draw(samples=20000, axes=axes, seed=0, epoch=1)
    assert moves[:, :-1, 0].sum() == 0  # axes that are not to be flipped
    assert abs(float(moves[:, -1, 0].double().mean()) - 0.5) < 0.02
    for axis in range(axes):
        shares = torch.bincount(moves[:, axis, 1] + 2, minlength=5) / 20000
        assert len(shares) == 5
        assert float((shares - 0.2).abs().max()) < 0.02


def test_nothing_to_do() -> None:
    images = torch.zeros(2, 1, 3, 4)
    assert Augmentation().apply(images, _moves(images, Augmentation())) is images


def test_input_is_left_alone_and_the_type_kept() -> None:
    images = torch.randint(0, 256, (9, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before, augmentation = images.clone(), Augmentation((0, 1), shift=1)
    assert augmentation.apply(images, _moves(images, augmentation)).dtype == torch.uint8
    assert torch.equal(images, before)


def _volumes(*size: int) -> Tensor:
    return torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2), (-2, -1)])
@pytest.mark.parametrize("degrees", [(10.0, -3.5, 77.0), (0.0, 90.0, -180.0)])
def test_a_rotation_equals_scipy(plane: tuple[int, int], degrees: tuple[float, ...]) -> None:
    images = _volumes(7, 9, 6)
    got = rotated(images, torch.tensor(degrees), plane).numpy()
    for image, angle, result in zip(images.double().numpy(), degrees, got, strict=True):
        axes = tuple(axis % 3 + 1 for axis in plane)
        expected = scipy.ndimage.rotate(image, angle, axes=axes, reshape=False, order=1, mode="mirror")
        np.testing.assert_allclose(result, expected, atol=2e-5)


def test_a_quarter_turn_is_anticlockwise() -> None:
    images = _volumes(6, 6)
    expected = np.rot90(images.numpy(), axes=(2, 3))
    np.testing.assert_allclose(rotated(images, torch.full((3,), 90.0)).numpy(), expected, atol=1e-5)


def test_a_turned_image_of_bytes_is_rounded() -> None:
    images = (_volumes(8, 9, 5) * 255).to(torch.uint8)
    degrees = torch.tensor([5.0, -8.0, 3.0])
    got = rotated(images, degrees, (0, 1))
    assert got.dtype == torch.uint8
    assert torch.equal(got, rotated(images.float(), degrees, (0, 1)).round().to(torch.uint8))


def test_one_pixel_and_no_angle_change_nothing() -> None:
    images = _volumes(1, 4, 1)
    torch.testing.assert_close(rotated(images, torch.full((3,), 30.0), (0, 2)), images)
    augmentation = Augmentation(rotation=20.0)
    moves = torch.zeros(3, 4, 2, dtype=torch.long)
    torch.testing.assert_close(augmentation.apply(_volumes(5, 4, 3), moves), _volumes(5, 4, 3))


def test_angles_are_uniform_and_a_function_of_the_sample() -> None:
    augmentation = Augmentation((0,), shift=2, rotation=7.5, plane=(0, 1))
    moves = augmentation.draw(samples=5000, axes=3, seed=1, epoch=2)
    assert moves.shape == (5000, 4, 2)
    degrees = moves[:, 3, 0].double() / 1000
    assert float(degrees.abs().max()) <= 7.5
    quarters = torch.histc(degrees, 4, -7.5, 7.5) / 5000
    assert float((quarters - 0.25).abs().max()) < 0.03
    assert torch.equal(moves[:9], augmentation.draw(samples=9, axes=3, seed=1, epoch=2))
    plain = Augmentation((0,), shift=2).draw(samples=9, axes=3, seed=1, epoch=2)
    assert torch.equal(moves[:9, :3], plain)  # to rotate as well changes nothing else
    assert not torch.equal(moves[:9, 3], augmentation.draw(samples=9, axes=3, seed=1, epoch=3)[:, 3])


def test_a_rotation_comes_last_and_does_not_depend_on_the_batch() -> None:
    augmentation = Augmentation((2,), shift=1, rotation=15.0, plane=(0, 1))
    images = _volumes(6, 7, 4)
    moves = augmentation.draw(samples=3, axes=3, seed=0, epoch=1)
    whole = augmentation.apply(images, moves)
    first = Augmentation((2,), shift=1).apply(images, moves)
    assert torch.equal(whole, rotated(first, moves[:, 3, 0].double() / 1000, (0, 1)))
    for n in range(3):
        torch.testing.assert_close(augmentation.apply(images[n : n + 1], moves[n : n + 1])[0], whole[n])
