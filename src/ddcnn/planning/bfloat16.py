"""Whether networks may be trained in bfloat16 on a CPU: some convolutions get wrong gradients there, without a word.

oneDNN 3.x, which PyTorch computes with on x86, writes garbage into the gradient of a weight, and past its memory, for
the shapes below; ``benchmarks/bfloat16.py`` looks for them on any machine.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddcnn.seeds import own_random_numbers

_AXES = {"conv1d": 1, "conv2d": 2, "conv3d": 3, "conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}


def obstacle_to_bfloat16(networks: Iterable[tuple[nn.Module, tuple[int, ...]]], device: torch.device) -> str:
    """Say which convolution would be trained wrongly in bfloat16, in one line; nothing if there is none.

    Parameters
    ----------
    networks
        Each with the shape of a batch that it takes, (B, C, *S).
    device
        Where it is to be trained; only a CPU has such an obstacle.
    """
    if device.type != "cpu":
        return ""
    watch = _Watch()
    with watch, torch.no_grad(), own_random_numbers():
        for network, shape in networks:
            try:
                copy.deepcopy(network).to("meta").train()(torch.empty(shape, device="meta"))
            except Exception:  # whatever a network raises that must see numbers
                copy.deepcopy(network).cpu().train()(torch.zeros(shape))
            if watch.found:
                break
    return watch.found


def wrong_in_bfloat16(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], *, transposed: bool) -> bool:
    """Tell whether oneDNN 3.x may train a convolution wrongly in bfloat16: the gradient of its weight.

    Volumes smaller than the kernel along an axis, and steps along a last axis of one pixel. Some of these are right
    by chance, and are told as wrong: float32 costs a little time, a wrong gradient the result.

    Parameters
    ----------
    size, kernel, stride
        Pixels of the input, of the kernel, and of a step, along each axis of space.
    transposed
        Whether it is a transposed one.

    Examples
    --------
    >>> wrong_in_bfloat16((2, 4, 4), (3, 3, 3), (1, 1, 1), transposed=False)
    True
    >>> wrong_in_bfloat16((3, 4, 4), (3, 3, 3), (1, 1, 1), transposed=False)
    False
    """
    if len(size) == 3 and (transposed or any(n < k for n, k in zip(size, kernel, strict=True))):
        return True
    return size[-1] == 1 and stride[-1] > 1


class _Watch(TorchFunctionMode):
    """Looks at each convolution that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _AXES and not self.found:
            self.found = _obstacle(name, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _obstacle(name: str, input: Tensor, weight: Tensor, *others: Any, **named: Any) -> str:
    axes = _AXES[name]
    stride: Any = named.get("stride", others[1] if len(others) > 1 else 1)
    size, kernel = tuple(input.shape[-axes:]), tuple(weight.shape[-axes:])
    steps = (stride,) * axes if isinstance(stride, int) else tuple(stride)
    steps = steps * axes if len(steps) == 1 else steps
    if not wrong_in_bfloat16(size, kernel, steps, transposed="transpose" in name):
        return ""
    what = "transposed convolution" if "transpose" in name else "convolution"
    pixels, taps, step = ("x".join(map(str, v)) for v in (size, kernel, steps))
    return f"on a CPU, bfloat16 gives wrong gradients for a {what} of {pixels} pixels with kernel {taps}, stride {step}"
