"""Which shape of subdomains is best, with about as many parameters in all: shape x coarse level, and overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddcnn.decomposition import Voronoi
from ddcnn.experiments.questions.question import Experiment, Pair, Variant
from ddcnn.experiments.questions.subdomains import LEVELS, TWO_LEVELS
from ddcnn.planning import Setup

_RESULTS = {"cnn-dnn": "CNN-DNN", "transfer": "transfer"}
_NEUTRAL: dict[str, Any] = {"grid": [2, 2], "overlap": [0], "options": {}}
_SEEDS = 32
SHAPES = ("grid", "overlap", "interleaved", "triangles", "voronoi", "sectors", "boxes")


def variants(setup: Setup) -> Sequence[Variant]:
    """Return a transfer, and with it a CNN-DNN, per shape and level; as many subdomains as the user's grid has.

    Triangles come in fours, so that their number is the next multiple of 4.
    """
    config = setup.config.decomposition
    grid, size = list(config.grid), setup.networks.image_size
    count = len(setup.networks.decomposition) - (config.coarse is not None)
    pixels = [max(1, n // parts // 4) for n, parts in zip(size, grid, strict=False)]
    shapes: dict[str, dict[str, Any]] = {
        "grid": {"name": "grid", "grid": grid, "overlap": [0]},
        "overlap": {"name": "grid", "grid": grid, "overlap": pixels},
        "interleaved": _NEUTRAL | {"name": "interleaved", "options": {"parts": grid}},
        "triangles": _NEUTRAL | {"name": "triangles", "options": {"parts": [1, -(-count // 4)]}},
        "voronoi": _NEUTRAL | {"name": "voronoi", "options": {"parts": count, "seed": _no_boxes(count, size)}},
        "sectors": _NEUTRAL | {"name": "sectors", "options": {"parts": count}},
        "boxes": _NEUTRAL | {"name": "boxes", "options": {"parts": count}},
    }
    return [
        Variant(
            f"{name}{level.replace(', ', '-').replace(' ', '-')}",
            {"strategy": "transfer", "decomposition": {"options": {}} | shapes[name] | dict(coarse)},
            {result: arm(label, name, level) for result, label in _RESULTS.items()},
            needed=name == "grid",
        )
        for level, coarse in LEVELS.items()
        for name in SHAPES
    ]


def _no_boxes(count: int, size: Sequence[int]) -> int:
    """Return the first seed with which most Voronoi cells are no boxes: four in a square may settle as the grid."""

    def others(seed: int) -> int:
        return sum(
            not bool(one.inside.all())
            for one in Voronoi(count, seed=seed).subdomains(tuple(size))
            if one.inside is not None
        )

    return next((seed for seed in range(_SEEDS) if 2 * others(seed) > count), 0)


def arm(result: str, shape: str, level: str = "") -> str:
    """Return what readers call an arm: ``transfer, voronoi, two levels``."""
    return f"{result}, {'grid with overlap' if shape == 'overlap' else shape}{level}"


DECOMPOSITIONS = Experiment(
    "Which shape of subdomains is best, and what do overlap and a coarse level add?",
    variants,
    pairs=(
        *(Pair(arm(result, shape), arm(result, "grid")) for result in _RESULTS.values() for shape in SHAPES[1:]),
        *(Pair(arm(result, shape, TWO_LEVELS), arm(result, shape)) for result in _RESULTS.values() for shape in SHAPES),
    ),
    defaults={"model": {"name": "resnet20"}},
)
