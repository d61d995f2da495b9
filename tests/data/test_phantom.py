"""Procedural chests: a function of seed and number alone, with lesions where the mask says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddcnn.config import DataConfig
from ddcnn.data import open_data
from ddcnn.data.phantom import Phantom
from ddcnn.errors import DataError

SIZES = [(16, 16, 16), (24, 20, 10), (8, 9, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_any_sample_can_be_made_alone(size: tuple[int, int, int]) -> None:
    text = "x".join(map(str, size))
    dataset = open_data(DataConfig(source=f"phantom:size={text},n=8,seed=5"))
    assert tuple(dataset.images.shape) == (8, 1, *size)
    alone = Phantom(size=size, n=1000, seed=5)
    for i in (7, 0):
        np.testing.assert_array_equal(dataset.images[i].numpy(), alone.volume(i))
        assert int(dataset.labels[i]) == alone.label(i)


def test_samples_and_seeds_differ() -> None:
    volumes = [Phantom(SIZES[0], seed=seed).volume(i) for seed in (0, 1) for i in (0, 1)]
    assert len({volume.tobytes() for volume in volumes}) == 4


@pytest.mark.parametrize("seed", [0, 1])
def test_half_of_the_samples_have_lesions_at_random(seed: int) -> None:
    phantom = Phantom(seed=seed)
    labels = [phantom.label(i) for i in range(400)]
    assert sum(labels) == 200
    assert 70 < sum(labels[::2]) < 130  # a coin decides which of each pair


def test_lesions_are_where_the_mask_says_and_only_in_ill_lungs() -> None:
    phantom = Phantom((48, 48, 24), n=10, noise=0.0)
    dataset = open_data(DataConfig(source="phantom:size=48x48x24,n=10,noise=0"))
    assert dataset.annotation is not None
    for i in range(10):
        mask, volume = dataset.annotation(i), torch.from_numpy(phantom.volume(i)[0])
        assert bool(mask.any()) == bool(phantom.label(i))
        if mask.any():
            hounsfield = volume[mask].double() * 1400 / 255 - 1000
            assert -830 < float(hounsfield.median()) < -350  # ground glass: denser than lung, thinner than tissue


def test_noise_is_what_was_asked_for() -> None:
    quiet, loud = (Phantom((32, 32, 32), seed=2, noise=noise).volume(3).astype(float) for noise in (0.0, 60.0))
    inside = (quiet > 180) & (quiet < 200)  # soft tissue, away from both ends of the scale
    assert (loud - quiet)[inside].std() * 1400 / 255 == pytest.approx(60, rel=0.05)


def test_the_mean_does_not_tell_the_class() -> None:
    """A threshold on the mean of a volume is right for about half of them."""
    phantom = Phantom((16, 16, 16))
    means = np.array([phantom.volume(i).mean() for i in range(120)])
    labels = np.array([phantom.label(i) for i in range(120)])
    ranks = means.argsort().argsort()
    auc = (ranks[labels == 1].sum() - 60 * 59 / 2) / 60**2
    assert abs(auc - 0.5) < 0.18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sise=3", "phantom: option 'sise' is unknown: did you mean 'size'"),
        ("size=3", "phantom: size should be rows x columns x slices from 8 to 4096, .* got '3'"),
        ("size=16x16", "size should be rows x columns x slices"),
        ("size=16x16x5000", "size should be"),
        ("size", "size should be .* got ''"),
        ("n=5", "phantom: n should be a whole number of samples, at least 6, got '5'"),
        ("n=1e3", "n should be a whole number"),
        ("seed=-1", "seed should be a whole number, at least 0"),
        ("noise=nan", "noise should be Hounsfield units from 0 to 10000, got 'nan'"),
        ("n=10,n=11", "option n is given twice"),
        ("n=10,,seed=1", "option '' is unknown"),
    ],
)
def test_options_are_checked(options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(source=f"phantom:{options}"))


def test_spaces_and_order_do_not_matter() -> None:
    assert Phantom.parse(" n = 10 , size = 16X8x32") == Phantom(size=(16, 8, 32), n=10)
