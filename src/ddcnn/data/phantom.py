"""Procedural chest-like volumes, any size and number, for tests and demonstrations: with lesions, or without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from ddcnn.config import DataConfig
from ddcnn.data.chest import Chest, draw_chest
from ddcnn.data.dataset import Dataset
from ddcnn.data.lazy import Lazy
from ddcnn.errors import DataError, nearest
from ddcnn.seeds import derive_seed

CLASSES = ("no lesion", "lesion")
_LOW, _HIGH = -1000.0, 400.0  # the window of `mosmed`


@dataclass(frozen=True)
class Phantom:
    """A set of volumes, each a function of (seed, index): any sample can be made alone, on any machine.

    Attributes
    ----------
    size
        Rows, columns, slices of a volume.
    n
        Number of samples.
    seed
        Of everything random.
    noise
        Standard deviation of the noise of a voxel, in Hounsfield units.
    """

    size: tuple[int, int, int] = (64, 64, 32)
    n: int = 200
    seed: int = 0
    noise: float = 40.0

    @classmethod
    def parse(cls, text: str) -> Phantom:
        """Read ``size=128x128x64,n=200,seed=1,noise=50``, in any order; what is left out is default.

        Raises
        ------
        DataError
            An option is unknown, given twice, or its value cannot be used.

        Examples
        --------
        >>> Phantom.parse("n=10,size=32")
        Phantom(size=(32, 32, 32), n=10, seed=0, noise=40.0)
        """
        given: dict[str, Any] = {}
        for option in text.split(",") if text else ():
            name, _, value = (part.strip() for part in option.partition("="))
            if name not in _READERS:
                raise DataError(f"phantom: option {name!r} is unknown: {nearest(name, _READERS)}")
            if name in given:
                raise DataError(f"phantom: option {name} is given twice; leave one out")
            read, expected = _READERS[name]
            try:
                given[name] = read(value)
            except ValueError:
                raise DataError(f"phantom: {name} should be {expected}, got {value!r}") from None
        return cls(**given)

    def label(self, index: int) -> int:
        """Return 1 if sample ``index`` has lesions: of each pair (2i, 2i + 1), one at random."""
        return (index + derive_seed(self.seed, "phantom label", index // 2)) % 2

    def volume(self, index: int) -> UInt8[np.ndarray, "1 H W D"]:
        """Return sample ``index``; -1000 and 400 Hounsfield units are 0 and 255."""
        rng = self._generator(index)
        values = draw_chest(rng, self.size, ill=bool(self.label(index))).values
        values += np.float32(self.noise) * rng.standard_normal(values.shape, dtype=np.float32)
        values -= np.float32(_LOW)
        values *= np.float32(255 / (_HIGH - _LOW))
        voxels: np.ndarray = np.clip(np.round(values, out=values), 0, 255).astype(np.uint8)
        return voxels[None]

    def lesions(self, index: int) -> Bool[Tensor, "H W D"]:
        """Return where the lesions of sample ``index`` are."""
        return torch.from_numpy(self._chest(index).lesions)

    def _chest(self, index: int) -> Chest:
        return draw_chest(self._generator(index), self.size, ill=bool(self.label(index)))

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng(derive_seed(self.seed, "phantom", index))


def read_phantom(config: DataConfig) -> Dataset:
    """Make ``phantom`` or ``phantom:OPTIONS``, see `Phantom.parse`, as (n, 1, *size) uint8, each when it is needed.

    The chests are mirrored at random when they are made, and lie as those of `mosmed` do; so the same augmentation is
    allowed: left to right, and rotated, here by up to 10 degrees.

    Raises
    ------
    DataError
        An option cannot be used.
    """
    phantom = Phantom.parse(config.source.partition(":")[2])
    return Dataset(
        name=config.source,
        images=Lazy(lambda i: torch.from_numpy(phantom.volume(i)), (phantom.n, 1, *phantom.size), torch.uint8),
        labels=torch.tensor([phantom.label(index) for index in range(phantom.n)]),
        classes=CLASSES,
        flip_axes=(1,),
        rotation=10.0,
        plane=(0, 1),
        source={
            "publisher": "made by ddcnn",
            "files": f"none: made from seed {phantom.seed} and the number of the sample, noise {phantom.noise:g} HU",
            "licence": "as ddcnn",
        },
        annotation=phantom.lesions,
    )


def _size(text: str) -> tuple[int, int, int]:
    parts = [int(part) for part in text.lower().split("x")]
    parts = parts * 3 if len(parts) == 1 else parts
    if len(parts) != 3 or not all(8 <= part <= 4096 for part in parts):
        raise ValueError
    return parts[0], parts[1], parts[2]


def _between(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value < high:
            raise ValueError
        return value

    return read


def _noise(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 10_000:
        raise ValueError
    return value


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "size": (_size, "rows x columns x slices from 8 to 4096, such as 128x128x64, or one number for all"),
    "n": (_between(6, 2**31), "a whole number of samples, at least 6"),
    "seed": (_between(0, 2**31), "a whole number, at least 0"),
    "noise": (_noise, "Hounsfield units from 0 to 10000"),
}
