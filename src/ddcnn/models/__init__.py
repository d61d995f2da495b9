"""Networks: VGG9, ResNet20, CNN3D, 2-D and 3-D, by name or from any factory of your own."""

from ddcnn.models.cnn3d import CNN3D
from ddcnn.models.local_cnns import LocalCNNs
from ddcnn.models.normalization import Normalization
from ddcnn.models.registry import MODELS, build, width_rule
from ddcnn.models.resnet import ResNet20
from ddcnn.models.vgg import VGG9

__all__ = ["CNN3D", "MODELS", "VGG9", "LocalCNNs", "Normalization", "ResNet20", "build", "width_rule"]
