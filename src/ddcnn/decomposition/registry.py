"""Decompositions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddcnn.config import DecompositionConfig
from ddcnn.decomposition.boxes import Boxes
from ddcnn.decomposition.grid import Grid
from ddcnn.decomposition.interleaved import Interleaved
from ddcnn.decomposition.rings import Rings, sectors
from ddcnn.decomposition.subdomain import Decomposition
from ddcnn.decomposition.triangles import Triangles
from ddcnn.decomposition.voronoi import Voronoi
from ddcnn.decomposition.with_coarse import WithCoarse
from ddcnn.errors import DecompositionError, in_one_line
from ddcnn.registry import Registry

Builder = Callable[[DecompositionConfig], Decomposition]


def _adapted(name: str, found: Any) -> Builder:
    """Return a builder that calls a function, or a class, with the options."""

    def build(config: DecompositionConfig) -> Decomposition:
        try:
            decomposition = found(**config.options)
        except TypeError as error:
            raise DecompositionError(
                f"decomposition {name!r} cannot be built with options {config.options}: {in_one_line(error)}"
            ) from None
        if not isinstance(decomposition, Decomposition):
            raise DecompositionError(f"decomposition {name!r} is a {type(decomposition).__name__}, not a Decomposition")
        return decomposition

    return build


DECOMPOSITIONS: Registry[Builder] = Registry(
    "decomposition",
    DecompositionError,
    {
        "grid": lambda config: Grid(config.grid, overlap=config.overlap),
        "interleaved": _adapted("interleaved", Interleaved),
        "triangles": _adapted("triangles", Triangles),
        "voronoi": _adapted("voronoi", Voronoi),
        "rings": _adapted("rings", Rings),
        "sectors": _adapted("sectors", sectors),
        "boxes": _adapted("boxes", Boxes),
    },
    adapt=_adapted,
)
"""What is written behind a name, as in ``voronoi:6,seed=3``, arrives as the options ``parts=6`` and ``seed=3``."""


def build_decomposition(config: DecompositionConfig) -> Decomposition:
    """Return the decomposition that a configuration describes, with its coarse level if it has one.

    Raises
    ------
    DecompositionError
        Its name is unknown, or it cannot be built.

    Examples
    --------
    >>> build_decomposition(DecompositionConfig(grid="4x1", overlap="1x0"))
    Grid((4, 1), overlap=(1, 0))
    >>> build_decomposition(DecompositionConfig(name="interleaved:2x2", coarse="8x8"))
    WithCoarse(Interleaved((2, 2)), (8, 8))
    """
    decomposition = DECOMPOSITIONS.find(config.name)(config)
    return decomposition if config.coarse is None else WithCoarse(decomposition, config.coarse)
