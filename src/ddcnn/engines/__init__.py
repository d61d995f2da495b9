"""Where local CNNs are trained: in this process. And the ranks over which one coherent model is spread."""

from ddcnn.engines.in_process import Engine, InProcess
from ddcnn.engines.joining import Place, check_alone, joined, refuse_ranks
from ddcnn.engines.ranks import ALONE, Ranks
from ddcnn.engines.streams import OwnStream

__all__ = ["ALONE", "Engine", "InProcess", "OwnStream", "Place", "Ranks", "check_alone", "joined", "refuse_ranks"]
