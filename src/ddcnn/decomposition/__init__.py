"""Image -> subdomains: where to cut, and putting together again."""

from ddcnn.decomposition.assembly import Subimages, cut, reassemble
from ddcnn.decomposition.boxes import Boxes
from ddcnn.decomposition.grid import Grid
from ddcnn.decomposition.interleaved import Interleaved
from ddcnn.decomposition.masked import Masked
from ddcnn.decomposition.registry import DECOMPOSITIONS, build_decomposition
from ddcnn.decomposition.rings import Rings
from ddcnn.decomposition.subdomain import Box, Decomposition, Subdomain
from ddcnn.decomposition.triangles import Triangles
from ddcnn.decomposition.voronoi import Voronoi
from ddcnn.decomposition.with_coarse import WithCoarse

__all__ = [
    "DECOMPOSITIONS",
    "Box",
    "Boxes",
    "Decomposition",
    "Grid",
    "Interleaved",
    "Masked",
    "Rings",
    "Subdomain",
    "Subimages",
    "Triangles",
    "Voronoi",
    "WithCoarse",
    "build_decomposition",
    "cut",
    "reassemble",
]
