"""A trained network as files that run without ddcnn: ONNX, torch.export; or its parameters alone, as safetensors."""

from ddcnn.exporting.export import Exported, export
from ddcnn.exporting.formats import FORMATS, Format
from ddcnn.exporting.onnx_format import OnnxNetwork

__all__ = ["FORMATS", "Exported", "Format", "OnnxNetwork", "export"]
