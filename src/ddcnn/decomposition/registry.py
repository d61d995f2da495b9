"""Decompositions by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddcnn.config import DecompositionConfig
from ddcnn.decomposition.grid import Grid
from ddcnn.decomposition.subdomain import Decomposition
from ddcnn.errors import DecompositionError, in_one_line
from ddcnn.registry import Registry

Builder = Callable[[DecompositionConfig], Decomposition]


def _adapted(name: str, found: Any) -> Builder:
    """Return a builder that calls a function, or a class, of the user's own with the options."""

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
    {"grid": lambda config: Grid(config.grid, overlap=config.overlap)},
    adapt=_adapted,
)


def build_decomposition(config: DecompositionConfig) -> Decomposition:
    """Return the decomposition that a configuration describes.

    Raises
    ------
    DecompositionError
        Its name is unknown, or it cannot be built.

    Examples
    --------
    >>> build_decomposition(DecompositionConfig(grid="4x1", overlap="1x0"))
    Grid((4, 1), overlap=(1, 0))
    """
    return DECOMPOSITIONS.find(config.name)(config)
