"""A procedural chest, in Hounsfield units: body, lungs, heart, spine, ribs, vessels, nodules, ground-glass lesions.

Coordinates run from -1 to 1 along each axis: y over rows (to the back), x over columns (to the left), z upwards over
slices, which are turned in the end, as those of a scan are. Nothing here is anatomy to measure by; it has what makes
the real task hard: lesions that are faint, small, anywhere in the lungs, over a background whose own density varies
more than they do to the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from ddcnn.data.volumes import resized

_AIR, _FAT, _TISSUE, _BONE = -1000.0, -90.0, 45.0, 350.0
_GENERATIONS = 7

Volume = Float[np.ndarray, "H W D"]


@dataclass(frozen=True)
class Chest:
    """A volume in Hounsfield units, and where its lesions are."""

    values: Volume
    lesions: Bool[np.ndarray, "H W D"]


def draw_chest(rng: np.random.Generator, size: Sequence[int], *, ill: bool) -> Chest:
    """Draw one chest: a function of the state of the generator.

    Parameters
    ----------
    rng
        Where all randomness comes from.
    size
        Rows, columns, slices.
    ill
        Whether there are lesions, 3 to 6 of them.
    """
    axes = [np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32) for n in size]
    grid = _Grid(axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])
    wide, deep = rng.uniform(0.84, 0.94), rng.uniform(0.62, 0.74)
    values, skin = _body(grid, wide, deep)
    inside = [_lung(rng, grid, side, wide, deep) for side in (-1, 1)]
    heart = (
        _ball(
            grid, (-0.18 * deep, rng.choice([-1, 1]) * 0.12, -0.35), (rng.uniform(0.24, 0.31, 3) * (1, 1, 1.5)).tolist()
        )
        < 1
    )
    lungs = (inside[0] | inside[1]) & ~heart
    values = np.where(lungs, _parenchyma(rng, grid, size), values)
    values = np.where(_bones(rng, grid, wide, deep) & ~lungs & (skin < 0.9), np.float32(_BONE), values)
    vessels = _vessels(rng, grid, lungs, wide, deep)
    lesions = np.zeros(lungs.shape, np.float32)
    for _ in range(rng.integers(3, 7) if ill else 0):
        _add_lesion(rng, lesions, grid, lungs)
    nodules = np.zeros(lungs.shape, np.float32)
    for _ in range(rng.integers(0, 4)):  # in both classes: what is dense and round is no lesion
        _add_nodule(rng, nodules, grid, lungs)
    values += lesions * lungs
    values += (_TISSUE - values) * np.maximum(vessels, nodules) * lungs
    downwards = np.s_[:, :, ::-1]  # as the slices of a scan are turned
    return Chest(values[downwards].copy(), ((lesions > 60) & lungs)[downwards].copy())


@dataclass(frozen=True)
class _Grid:
    y: np.ndarray
    x: np.ndarray
    z: np.ndarray

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        return self.y.ravel(), self.x.ravel(), self.z.ravel()

    @property
    def steps(self) -> np.ndarray:
        return np.array([2 / max(len(axis) - 1, 1) for axis in self.axes])


def _ball(grid: _Grid, centre: Sequence[float], radii: Sequence[float], power: float = 2.0) -> np.ndarray:
    """Return the distance to a centre, 1 on the surface of an ellipsoid (to some power)."""
    parts = (
        np.abs((axis - np.float32(c)) / np.float32(r)) ** np.float32(power)
        for axis, c, r in zip((grid.y, grid.x, grid.z), centre, radii, strict=True)
    )
    return np.asarray(sum(parts))


def _body(grid: _Grid, wide: float, deep: float) -> tuple[Volume, np.ndarray]:
    skin = np.abs(grid.x / np.float32(wide)) ** np.float32(2.4) + np.abs(grid.y / np.float32(deep)) ** np.float32(2.4)
    values = np.where(skin < 0.75, np.float32(_TISSUE), np.where(skin < 1, np.float32(_FAT), np.float32(_AIR)))
    return np.broadcast_to(values, np.broadcast_shapes(values.shape, grid.z.shape)).copy(), skin


def _lung(rng: np.random.Generator, grid: _Grid, side: int, wide: float, deep: float) -> np.ndarray:
    centre = (rng.uniform(-0.03, 0.03), side * rng.uniform(0.40, 0.44) * wide, rng.uniform(-0.1, 0.05))
    radii = (rng.uniform(0.62, 0.7) * deep, rng.uniform(0.31, 0.36) * wide, rng.uniform(0.88, 1.0))
    dome = rng.uniform(0.3, 0.45) * np.exp(-(((grid.x - centre[1]) / 0.3) ** 2) - ((grid.y - 0.1) / 0.4) ** 2)
    return np.asarray((_ball(grid, centre, radii, 2.3) < 1) & (grid.z > rng.uniform(-0.9, -0.75) + dome))


def _parenchyma(rng: np.random.Generator, grid: _Grid, size: Sequence[int]) -> Volume:
    """Return lung tissue: denser towards the back, cloudy, and of another mean in every chest."""
    clouds = resized(rng.normal(0, 45, (5, 5, 4)).astype(np.float32), size)
    gradient = np.float32(rng.uniform(20, 110)) * grid.y
    return np.asarray(np.float32(rng.normal(-845, 35)) + gradient + clouds)


def _bones(rng: np.random.Generator, grid: _Grid, wide: float, deep: float) -> np.ndarray:
    cage = (grid.x / np.float32(0.82 * wide)) ** 2 + (grid.y / np.float32(0.8 * deep)) ** 2
    phase = np.float32(rng.uniform(0, 2 * np.pi))
    pitch = np.float32(rng.uniform(18, 24))
    ribs = (cage > 0.86) & (cage < 1.06) & (np.sin(pitch * (grid.z + 0.35 * grid.y) + phase) > 0.45)
    spine = ((grid.x / 0.13) ** 2 + ((grid.y - np.float32(0.62 * deep)) / 0.14) ** 2 < 1) & (
        np.sin(pitch * grid.z + phase) > -0.8
    )
    return np.asarray(ribs | spine)


def _vessels(rng: np.random.Generator, grid: _Grid, lungs: np.ndarray, wide: float, deep: float) -> Volume:
    """Return how much of each voxel is vessel, 0..1: in each lung a tree that forks, ever thinner and shorter."""
    share = np.zeros(lungs.shape, np.float32)
    for side in (-1, 1):
        tips = np.array([[0.02, side * 0.16 * wide, 0.0]])
        ways = np.array([[0.0, float(side), 0.0]])
        radius, length = rng.uniform(0.028, 0.036), rng.uniform(0.16, 0.2)
        for _ in range(_GENERATIONS):
            tips, ways = np.repeat(tips, 2, 0), np.repeat(ways, 2, 0)
            ways = ways + rng.normal(0, 0.8, ways.shape) * (deep, 0.7, 1.2)
            ways /= np.linalg.norm(ways, axis=1, keepdims=True)
            ends = tips + ways * length * rng.uniform(0.7, 1.3, (len(tips), 1))
            _stamp(share, grid, lungs, tips, ends, radius)
            tips, radius, length = ends, radius * 0.72, length * 0.82
    return share


def _stamp(share: Volume, grid: _Grid, lungs: np.ndarray, starts: np.ndarray, ends: np.ndarray, radius: float) -> None:
    """Draw straight pieces of vessel; one thinner than a voxel fills a part of it."""
    steps = grid.steps
    finest = float(steps.min())
    apart = max(finest, radius / 2)
    pieces = max(2, int(np.ceil(np.linalg.norm(ends - starts, axis=1).max() / apart)))
    at = np.linspace(0, 1, pieces)[:, None, None]
    points = (starts + at * (ends - starts)).reshape(-1, 3)
    cells = np.round((points + 1) / steps).astype(int)
    there = ((cells >= 0) & (cells < share.shape)).all(1)
    there[there] = lungs[tuple(cells[there].T)]
    points, cells = points[there], cells[there]
    reach = [int(np.ceil(radius / step)) for step in steps]
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    places = cells[:, None] + offsets
    distance = np.linalg.norm(places * steps - 1 - points[:, None], axis=2)
    filled = (np.clip((radius - distance) / finest + 0.5, 0, 1) * min(1.0, (2 * radius / finest) ** 2)).astype(
        np.float32
    )
    inside = (filled > 0) & ((places >= 0) & (places < share.shape)).all(2)
    np.maximum.at(share.reshape(-1), np.ravel_multi_index(tuple(places[inside].T), share.shape), filled[inside])


def _add_lesion(rng: np.random.Generator, lesions: Volume, grid: _Grid, lungs: np.ndarray) -> None:
    """Add one ground-glass lesion: an uneven cloud that adds 250 to 450 HU at its centre and fades out."""
    centre, radius = _place(rng, grid, lungs), rng.uniform(0.16, 0.3)
    box = _box(grid, centre, 1.3 * radius)
    part = lesions[box]
    near = _Grid(grid.y[box[0]], grid.x[:, box[1]], grid.z[:, :, box[2]])
    rough = resized(rng.normal(0, 0.35, (4, 4, 4)).astype(np.float32), part.shape)
    shape = np.sqrt(_ball(near, centre, (radius * rng.uniform(0.75, 1.25, 3)).tolist())) + rough
    cloud = np.float32(rng.uniform(250, 450)) * np.clip(1.6 * (1 - shape), 0, 1)
    np.maximum(part, cloud, out=part)


def _add_nodule(rng: np.random.Generator, nodules: Volume, grid: _Grid, lungs: np.ndarray) -> None:
    centre, radius = _place(rng, grid, lungs), rng.uniform(0.03, 0.06)
    box = _box(grid, centre, radius + float(grid.steps.max()))
    near = _Grid(grid.y[box[0]], grid.x[:, box[1]], grid.z[:, :, box[2]])
    distance = np.sqrt(_ball(near, centre, (1.0, 1.0, 1.0)))
    share = np.clip((radius - distance) / np.float32(grid.steps.max()) + 0.5, 0, 1)
    np.maximum(nodules[box], share, out=nodules[box])


def _place(rng: np.random.Generator, grid: _Grid, lungs: np.ndarray) -> tuple[float, ...]:
    """Return the coordinates of a random voxel of the lungs; of the middle, where a tiny volume has none."""
    cells = np.flatnonzero(lungs)
    cell = cells[int(rng.random() * len(cells))] if len(cells) else lungs.size // 2
    index = np.unravel_index(int(cell), lungs.shape)
    return tuple(float(axis[i]) for axis, i in zip(grid.axes, index, strict=True))


def _box(grid: _Grid, centre: Sequence[float], radius: float) -> tuple[slice, ...]:
    """Return the voxels within a radius along each axis, at least one."""
    bounds = []
    for axis, c in zip(grid.axes, centre, strict=True):
        start = int(np.searchsorted(axis, c - radius))
        bounds.append(slice(start, max(start + 1, int(np.searchsorted(axis, c + radius, "right")))))
    return tuple(bounds)
