"""Image -> subdomains: where to cut, and putting together again."""

from ddcnn.decomposition.assembly import Subimages, cut, reassemble
from ddcnn.decomposition.grid import Grid
from ddcnn.decomposition.registry import DECOMPOSITIONS, build_decomposition
from ddcnn.decomposition.subdomain import Box, Decomposition, Subdomain

__all__ = [
    "DECOMPOSITIONS",
    "Box",
    "Decomposition",
    "Grid",
    "Subdomain",
    "Subimages",
    "build_decomposition",
    "cut",
    "reassemble",
]
