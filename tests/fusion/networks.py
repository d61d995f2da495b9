"""Named networks, made small: all of them must truly fuse.

Depth and structure are those of the originals where a second or two allow; widths and images are tiny. Rates of dropout
and stochastic depth are zero where `rate` is: random masks differ between the backends, and are tested on their own.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ddcnn.models import build
from tests.fusion import handwritten

CLASSES = 3


@dataclass(frozen=True)
class Network:
    """A factory, and the shape (C, *s) of its input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


class Logits(nn.Module):
    """A network of transformers, which returns a record, as one that returns scores."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).logits


def library(name: str) -> Any:
    """Import a public library, only when it is needed, and undo what that does to the environment and to warnings."""
    before = set(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    for added in set(os.environ) - before:
        del os.environ[added]
    return module


def ours(name: str, *size: int, **options: Any) -> Network:
    return Network(lambda: build(name, 2, CLASSES, size, width=0.08, options=options), (2, *size))


def densenet121(rate: float = 0.0) -> nn.Module:
    factory = library("monai.networks.nets").DenseNet121
    return factory(2, 2, CLASSES, init_features=4, growth_rate=2, bn_size=2, dropout_prob=rate)


def resnet18(axes: int) -> nn.Module:
    factory = library("monai.networks.nets").resnet18
    return factory(spatial_dims=axes, n_input_channels=2, num_classes=CLASSES, widen_factor=1 / 16, conv1_t_stride=2)


def efficientnet_b0(rate: float = 0.0) -> nn.Module:
    factory = library("monai.networks.nets").EfficientNet
    stages = [
        "r1_k3_s11_e1_i32_o16_se0.25",
        "r2_k3_s22_e6_i16_o24_se0.25",
        "r2_k5_s22_e6_i24_o40_se0.25",
        "r3_k3_s22_e6_i40_o80_se0.25",
        "r3_k5_s11_e6_i80_o112_se0.25",
        "r4_k5_s22_e6_i112_o192_se0.25",
        "r1_k3_s11_e6_i192_o320_se0.25",
    ]  # those of EfficientNetBN("efficientnet-b0"), whose width is fixed
    options = {"image_size": 36, "dropout_rate": rate, "drop_connect_rate": rate}
    return factory(stages, 2, 2, CLASSES, width_coefficient=0.05, depth_divisor=2, **options)


def transformers(name: str, **options: Any) -> nn.Module:
    """Return ``<name>ForImageClassification`` of a configuration, without any pretrained weights."""
    module = library("transformers")
    config = getattr(module, f"{name}Config")(num_channels=2, num_labels=CLASSES, **options)
    return Logits(getattr(module, f"{name}ForImageClassification")(config))


def convnext(rate: float = 0.0) -> nn.Module:
    return transformers("ConvNext", patch_size=2, hidden_sizes=[4, 6, 8, 10], depths=[1, 1, 2, 1], drop_path_rate=rate)


def mobilenet_v2(rate: float = 0.0) -> nn.Module:
    width = {"depth_multiplier": 0.1, "depth_divisible_by": 2, "min_depth": 2, "finegrained_output": False}
    return transformers("MobileNetV2", **width, expand_ratio=2, classifier_dropout_prob=rate)


def resnet50() -> nn.Module:
    return transformers("ResNet", embedding_size=4, hidden_sizes=[8, 8, 12, 16], depths=[2, 1, 2, 1])


def regnet(kind: str) -> nn.Module:
    widths = {"embedding_size": 4, "hidden_sizes": [8, 12, 16], "groups_width": 4}
    return transformers("RegNet", layer_type=kind, depths=[1, 2, 1], **widths)


PUBLIC = {
    "monai-densenet121": Network(densenet121, (2, 33, 32)),
    "monai-resnet18-2d": Network(lambda: resnet18(2), (2, 18, 17)),
    "monai-resnet18-3d": Network(lambda: resnet18(3), (2, 9, 12, 8)),
    "monai-efficientnet-b0": Network(efficientnet_b0, (2, 36, 36)),
    "transformers-resnet": Network(resnet50, (2, 36, 34)),
    "transformers-convnext": Network(convnext, (2, 16, 19)),
    "transformers-regnet-x": Network(lambda: regnet("x"), (2, 12, 11)),
    "transformers-regnet-y": Network(lambda: regnet("y"), (2, 12, 11)),
    "transformers-mobilenet-v2": Network(mobilenet_v2, (2, 36, 35)),
}

OURS = {
    "vgg9-2d": ours("vgg9", 8, 9),
    "vgg9-2d-without-norm": ours("vgg9", 9, 8, batch_norm=False),
    "vgg9-3d": ours("vgg9", 8, 9, 8),
    "resnet20-2d": ours("resnet20", 6, 5),
    "resnet20-3d": ours("resnet20", 3, 5, 4),
    "cnn3d": ours("cnn3d", 16, 17, 16, dropout=0.0),
}

HANDWRITTEN = {
    "squeeze-excitation": Network(handwritten.SqueezeExcitation, (2, 5, 4)),
    "dense-block": Network(handwritten.DenseBlock, (2, 5, 4)),
    "inverted-residual": Network(handwritten.InvertedResidual, (2, 5, 4)),
    "convnext-1d": Network(lambda: handwritten.ConvNeXt(1), (2, 9)),
    "convnext-2d": Network(lambda: handwritten.ConvNeXt(2), (2, 5, 4)),
    "convnext-3d": Network(lambda: handwritten.ConvNeXt(3), (2, 3, 5, 4)),
    "shuffle": Network(handwritten.Shuffle, (2, 5, 4)),
    "transposed-1d": Network(lambda: handwritten.Transposed(1), (2, 8)),
    "transposed-2d": Network(lambda: handwritten.Transposed(2), (2, 4, 6)),
    "transposed-3d": Network(lambda: handwritten.Transposed(3), (2, 4, 6, 2)),
    "norms-1d": Network(lambda: handwritten.Norms(1), (2, 9)),
    "norms-2d": Network(lambda: handwritten.Norms(2), (2, 6, 7)),
    "norms-3d": Network(lambda: handwritten.Norms(3), (2, 5, 7, 6)),
    "paddings": Network(handwritten.Paddings, (2, 7, 6)),
    "one-axis": Network(handwritten.OneAxis, (2, 12)),
    "attention-pooling": Network(handwritten.AttentionPooling, (2, 5, 4)),
    "query-pooling": Network(handwritten.QueryPooling, (2, 5, 4)),
    "spatial-pyramid": Network(handwritten.SpatialPyramid, (2, 6, 7)),
    "bare-parameters": Network(handwritten.BareParameters, (2, 5, 6)),
    "functional": Network(handwritten.Functional, (2, 7, 6)),
    "functional-weights": Network(handwritten.FunctionalWeights, (2, 5, 4)),
}

NETWORKS = OURS | PUBLIC | HANDWRITTEN
