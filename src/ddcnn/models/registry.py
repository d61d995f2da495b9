"""Networks by name, and any factory of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from ddcnn.errors import ModelError, in_one_line
from ddcnn.models.cnn3d import CNN3D
from ddcnn.models.lda import LDA
from ddcnn.models.libraries import LIBRARIES
from ddcnn.models.resnet import ResNet20
from ddcnn.models.vgg import VGG9
from ddcnn.registry import Registry, called
from ddcnn.seeds import own_random_numbers

Factory = Callable[..., nn.Module]  # (in_channels, classes, image_size, *, width, **options) -> module

MODELS: Registry[Factory] = Registry(
    "model",
    ModelError,
    {"vgg9": VGG9, "resnet20": ResNet20, "cnn3d": CNN3D, "lda": LDA},
    adapt=called("model", ModelError),
    families=LIBRARIES,
)
"""A factory is called as ``factory(in_channels, classes, image_size, width=..., **options)`` and returns a module that
maps (B, C, *S) to scores (B, K)."""


def width_rule(subdomains: int) -> float:
    """Return the default width factor of a local CNN among N: 1 / sqrt(N), so that all N have about the global size.

    For p x p subdomains this is the published channels / p; the general form is ours.

    >>> width_rule(4), width_rule(1)
    (0.5, 1.0)
    """
    return 1 / math.sqrt(subdomains)


def build(
    name: str,
    in_channels: int,
    classes: int,
    image_size: tuple[int, ...],
    *,
    width: float = 1.0,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Build one network with parameters that depend on ``seed`` alone.

    Examples
    --------
    The global VGG9 for CIFAR-10, and one of four local ones:

    >>> def parameters(model):
    ...     return sum(p.numel() for p in model.parameters())
    >>> parameters(build("vgg9", 3, 10, (32, 32))), parameters(build("vgg9", 3, 10, (16, 16), width=0.5))
    (567786, 93690)
    >>> parameters(build("resnet20", 3, 10, (32, 32))), parameters(build("resnet20", 3, 10, (16, 16), width=0.5))
    (272474, 68786)
    """
    factory = MODELS.find(name)
    with own_random_numbers(seed=seed):
        try:
            module = factory(in_channels, classes, image_size, width=width, **(options or {}))
        except TypeError as error:
            raise ModelError(
                f"model {name!r} cannot be built with options {options or {}}: {in_one_line(error)}"
            ) from None
        if not isinstance(module, nn.Module):
            raise ModelError(f"model {name!r} should return a torch.nn.Module, got {type(module).__name__}")
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(f"model {name!r} is compiled by torch.jit; give the module itself")
        if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
            _complete(name, module, (2, in_channels, *image_size))
        return module


def _complete(name: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    """Let lazy layers see an input, from which they know their sizes."""
    try:
        with torch.no_grad():
            module(torch.zeros(shape))
    except (RuntimeError, ValueError, TypeError) as error:
        size = "x".join(map(str, shape[2:]))
        raise ModelError(f"model {name!r} does not fit images of {size} pixels: {in_one_line(error)}") from None
