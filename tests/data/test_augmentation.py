"""Flips and shifts, against numpy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ddcnn.data.augmentation import Augmentation

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
