"""N equal CNNs <-> one grouped CNN: operator table, fuse, unfuse, the measured choice of a backend."""

from ddcnn.fusion.fuse import Backend, BackendName, FusedCNN, fuse, unfuse
from ddcnn.fusion.inference import for_inference
from ddcnn.fusion.operators import fuses
from ddcnn.fusion.proofs import Proofs
from ddcnn.fusion.stacked import Stacked
from ddcnn.fusion.structural_equality import structure
from ddcnn.fusion.tap import classifier_of

__all__ = [
    "Backend",
    "BackendName",
    "FusedCNN",
    "Proofs",
    "Stacked",
    "classifier_of",
    "for_inference",
    "fuse",
    "fuses",
    "structure",
    "unfuse",
]
