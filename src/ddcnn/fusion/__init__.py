"""N equal CNNs <-> one grouped CNN: operator table, fuse, unfuse, the measured choice of a backend."""

from ddcnn.fusion.fuse import Backend, BackendName, FusedCNN, fuse, unfuse
from ddcnn.fusion.likeness import structure
from ddcnn.fusion.local_cnns import LocalCNNs
from ddcnn.fusion.operators import fuses
from ddcnn.fusion.stacked import Stacked

__all__ = ["Backend", "BackendName", "FusedCNN", "LocalCNNs", "Stacked", "fuse", "fuses", "structure", "unfuse"]
