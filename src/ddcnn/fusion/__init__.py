"""N equal CNNs <-> one grouped CNN: operator table, fuse, unfuse, the measured choice of a backend."""

from ddcnn.fusion.fuse import Backend, FusedCNN, fuse, structure, unfuse
from ddcnn.fusion.local_cnns import LocalCNNs

__all__ = ["Backend", "FusedCNN", "LocalCNNs", "fuse", "structure", "unfuse"]
