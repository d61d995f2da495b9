"""Where local CNNs are trained. This release has one engine: in this process."""

from ddcnn.engines.in_process import Engine, InProcess

__all__ = ["Engine", "InProcess"]
