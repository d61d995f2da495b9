"""Which pixels speak for a class, to one local CNN."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ddcnn.errors import ExplanationError
from ddcnn.extras import needed

_FINE = 4  # pixels along each axis, below which a map tells little about places
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grad_cam(network: nn.Module, images: Float[Tensor, "B C *s"], target: Int64[Tensor, "B"]) -> Float[Tensor, "B *s"]:
    """Return how much each pixel speaks for a class, at least 0, in units of the score over the pixels of a layer.

    The layer is the last convolution whose output has at least 4 pixels along each axis, or, in small images, as many
    as there are. Its activations, weighted with the mean gradient of the score per channel, are summed, cut off at 0
    and interpolated to the size of the images.

    Parameters
    ----------
    network
        (B, C, *s) -> scores (B, K).
    images
        Normalised, as the network sees them.
    target
        The class, per image.

    Raises
    ------
    ExplanationError
        The network has no convolution, or captum is not installed.

    References
    ----------
    Selvaraju et al., Grad-CAM, ICCV 2017; computed by captum.
    """
    attributions = captum()
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if hasattr(module, "inplace"):  # it would overwrite the activations that are asked for
            module.inplace = False  # type: ignore[assignment]
    layer = _layer(network, images[:1])
    maps: Tensor = attributions.LayerGradCam(network, layer).attribute(images, target, relu_attributions=True)
    size = tuple(images.shape[2:])
    return F.interpolate(maps.detach(), size=size, mode=_MODES[len(size)], align_corners=False)[:, 0]


def captum() -> Any:
    """Return ``captum.attr``.

    Raises
    ------
    ExplanationError
        It is not installed.
    """
    with needed("explanations need captum", "explain", ExplanationError):
        return importlib.import_module("captum.attr")


def _layer(network: nn.Module, example: Tensor) -> nn.Module:
    seen: list[tuple[nn.Module, int]] = []
    hooks = [
        module.register_forward_hook(lambda module, _, output: seen.append((module, min(output.shape[2:]))))
        for module in network.modules()
        if isinstance(module, _ConvNd)
    ]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    if not seen:
        raise ExplanationError(f"a heat map needs a convolution, and {type(network).__name__} has none")
    wanted = min(_FINE, max(size for _, size in seen))
    return [module for module, size in seen if size >= wanted][-1]
