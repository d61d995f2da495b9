"""The machine: its processor in words, and where it keeps what can be made again."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import torch


def cache_folder() -> Path:
    """Return the folder for downloads, prepared images and measurements: ``$DDCNN_DATA``, or ``~/.cache/ddcnn``."""
    return Path(os.environ.get("DDCNN_DATA") or "~/.cache/ddcnn").expanduser()


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def processor() -> str:
    """Return the name of the processor, as Linux or Python knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform.startswith("linux") and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
