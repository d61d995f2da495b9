"""Networks of other libraries by name, with the width rule where they know of widths."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest
import torch

from ddcnn.errors import ModelError
from ddcnn.models import MODELS, build

with contextlib.suppress(ImportError):  # it sets environment variables, which no test may
    import monai.networks.nets  # noqa: F401


def _parameters(name: str, width: float, size: tuple[int, ...] = (32, 32), **options: Any) -> int:
    network = build(name, 3, 5, size, width=width, options=options)
    assert network.eval()(torch.zeros(2, 3, *size)).shape == (2, 5)
    return sum(p.numel() for p in network.parameters())


def test_monai() -> None:
    pytest.importorskip("monai")
    options = {"block": "basic", "layers": [1, 1, 1, 1]}
    half, full = (_parameters("monai:ResNet", width, (16, 16, 16), **options, **_planes(width)) for width in (0.5, 1.0))
    assert 0.2 < half / full < 0.3
    half, full = (_parameters("monai:DenseNet", width, block_config=(2, 2)) for width in (0.5, 1.0))
    assert 0.2 < half / full < 0.3
    with pytest.raises(ModelError, match="monai has no model 'DenseNet12': did you mean 'DenseNet121'"):
        MODELS.find("monai:DenseNet12")


@pytest.mark.parametrize("option", ["pretrained", "weights", "checkpoint_path"])
def test_weights_are_not_read_by_a_library(option: str) -> None:
    pytest.importorskip("monai")
    with pytest.raises(ModelError, match=f"model.options.{option}: weights are not read by a library"):
        build("monai:DenseNet121", 3, 5, (32, 32), options={option: True})


def _planes(width: float) -> dict[str, Any]:
    return {"block_inplanes": [64, 128, 256, 512]} if width == 1 else {}


@pytest.mark.parametrize(("name", "ratio"), [("resnet18", 0.25), ("vit_tiny_patch16_224", 1.0)])
def test_timm(name: str, ratio: float) -> None:
    _importable("timm")
    size = (224, 224) if "224" in name else (32, 32)
    half, full = (_parameters(f"timm:{name}", width, size) for width in (0.5, 1.0))
    assert half / full == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize(("name", "ratio"), [("resnet18", 1.0), ("mobilenet_v2", 0.35)])
def test_torchvision(name: str, ratio: float) -> None:
    _importable("torchvision")
    half, full = (_parameters(f"torchvision:{name}", width) for width in (0.5, 1.0))
    assert half / full == pytest.approx(ratio, abs=0.1)
    with pytest.raises(ModelError, match="sees 3 channels, the images have 1; use timm"):
        build(f"torchvision:{name}", 1, 5, (32, 32))


def test_a_library_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="model timm:NAME needs the package timm, which cannot be imported"):
        MODELS.find("timm:resnet18")


def _importable(module: str) -> None:
    """Skip unless a library is there; torchvision of another PyTorch fails in its own way."""
    try:
        __import__(module)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{module} cannot be imported here: {error}")
