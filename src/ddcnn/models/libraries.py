"""Networks of timm, torchvision and MONAI by name: ``timm:resnet18``, ``torchvision:resnet18``, ``monai:DenseNet121``.

They are built without weights of their own; those of a file are given as ``init.weights``. The width rule holds where a
factory can be told so (`_WIDTHS`); other networks keep their size, as local CNNs too.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ddcnn.errors import ModelError, in_one_line
from ddcnn.models.layers import scaled

Factory = Callable[..., nn.Module]


def of_timm(name: str) -> Factory:
    """Return the factory of a network of timm, (B, C, H, W) -> (B, K)."""
    timm = _library("timm", "timm")
    _check("timm", name, timm.list_models())

    def build(in_channels: int, classes: int, image_size: Sequence[int], *, width: float, **options: Any) -> nn.Module:
        _check_plane("timm", name, image_size)
        _check_options(options)
        given = {"num_classes": classes, "in_chans": in_channels} | _width("timm", name, width) | options
        found: nn.Module = timm.create_model(name, pretrained=False, **given)
        return found

    return build


def of_torchvision(name: str) -> Factory:
    """Return the factory of a classifier of torchvision for images of three channels."""
    models = _library("torchvision.models", "torchvision")
    _check("torchvision", name, models.list_models(module=models))

    def build(in_channels: int, classes: int, image_size: Sequence[int], *, width: float, **options: Any) -> nn.Module:
        _check_plane("torchvision", name, image_size)
        _check_options(options)
        if in_channels != 3:
            raise ModelError(f"torchvision:{name} sees 3 channels, the images have {in_channels}; use timm:{name}")
        given = {"num_classes": classes} | _width("torchvision", name, width) | options
        found: nn.Module = models.get_model(name, weights=None, **given)
        return found

    return build


def of_monai(name: str) -> Factory:
    """Return the factory of a network of MONAI, for images and volumes."""
    nets = _library("monai.networks.nets", "monai")
    known = [n for n in dir(nets) if isinstance(getattr(nets, n), type) and issubclass(getattr(nets, n), nn.Module)]
    called = [n for n in dir(nets) if n.startswith("resnet") and callable(getattr(nets, n))]
    _check("monai", name, [*known, *called])
    kind = getattr(nets, name)

    def build(in_channels: int, classes: int, image_size: Sequence[int], *, width: float, **options: Any) -> nn.Module:
        _check_options(options)
        given: dict[str, Any] = {"spatial_dims": len(image_size)}
        if name.lower().startswith("resnet"):
            given |= {"n_input_channels": in_channels, "num_classes": classes}
        elif name.startswith("EfficientNet"):
            given |= {"in_channels": in_channels, "num_classes": classes}
        else:
            given |= {"in_channels": in_channels, "out_channels": classes}
        found: nn.Module = kind(**(given | _width("monai", name, width) | options))
        return found

    return build


LIBRARIES: dict[str, Callable[[str], Factory]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "monai": of_monai,
}

_WEIGHTS = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "weights", "weights_backbone"}
_STAGES = (64, 128, 256, 512)
_WIDTHS: dict[tuple[str, str], Callable[[float], dict[str, Any]]] = {
    ("timm", "resnet"): lambda w: {"channels": [scaled(n, w) for n in _STAGES], "stem_width": scaled(64, w)},
    ("torchvision", "mobilenet"): lambda w: {"width_mult": w},
    ("monai", "resnet"): lambda w: {"block_inplanes": [scaled(n, w) for n in _STAGES]},
    ("monai", "densenet"): lambda w: {"init_features": scaled(64, w), "growth_rate": scaled(32, w)},
}
"""How factories are told of a width, by library and the beginning of the name."""


def _width(library: str, name: str, width: float) -> dict[str, Any]:
    """Return what tells a factory of the width; nothing if it cannot be told, or need not be."""
    if width == 1:
        return {}
    found = (of for (where, start), of in _WIDTHS.items() if where == library and name.lower().startswith(start))
    return next((of(width) for of in found), {})


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # torchvision of another PyTorch says so with the latter
        raise ModelError(
            f"model {package}:NAME needs the package {package}, which cannot be imported: {in_one_line(error)}"
        ) from None


def _check(library: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {len(known)}, such as {', '.join(sorted(known)[:3])}"
    raise ModelError(f"{library} has no model {name!r:.80}: {hint}")


def _check_plane(library: str, name: str, image_size: Sequence[int]) -> None:
    if len(image_size) != 2:
        raise ModelError(f"{library}:{name} is for images of two axes, not of {len(image_size)}; use monai:NAME")


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise a `ModelError` for options by which a library would read weights of its own, which may be any code."""
    if named := _WEIGHTS.intersection(options):
        raise ModelError(
            f"model.options.{min(named)}: weights are not read by a library; give them as init.weights = FILE"
        )
