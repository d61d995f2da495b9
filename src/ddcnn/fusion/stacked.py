"""`Stacked`: N tensors of one shape that look like one of them, so that the code of one network computes N."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class NotSupportedError(RuntimeError):
    """A network does what cannot be done for N networks at once: the reason, in one line, to fall back."""


class Stacked(torch.Tensor):
    """N tensors of one shape; to the code of a network it looks like one of them.

    Only the rules of `ddcnn.fusion.operators` compute with it; any other use is an error, never a wrong result.

    Attributes
    ----------
    physical
        The numbers. Either N is an axis of its own, at ``axis``; or ``axis`` is None and N is folded into the channels
        of (B, C, *s): (B, N*C, *s), subdomain by subdomain.
    members
        N.
    """

    physical: Tensor
    members: int
    axis: int | None

    @staticmethod
    def __new__(cls, physical: Tensor, members: int, axis: int | None) -> Stacked:
        """Make it from its numbers."""
        shape = list(physical.shape)
        if axis is None:
            shape[1] //= members
        else:
            del shape[axis]
        made: Stacked = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=physical.dtype, device=physical.device, requires_grad=physical.requires_grad
        )
        made.physical, made.members, made.axis = physical, members, axis
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: whatever comes here has no rule."""
        raise NotSupportedError(f"{func} is not possible for N networks at once")

    def apart(self, axis: int = 0) -> Tensor:
        """Return the numbers with N as an axis of its own: a view."""
        if self.axis is None:
            apart: Tensor = self.physical.unflatten(1, (self.members, self.shape[1]))
            return apart.movedim(1, axis)
        return self.physical if axis == self.axis else self.physical.movedim(self.axis, axis)

    def folded(self) -> Tensor:
        """Return the numbers of (B, C, *s) as (B, N*C, *s): a view where memory allows, else channels last."""
        if self.axis is None:
            return self.physical
        apart = self.apart(1)
        _, N, C, *s = apart.shape
        if N == 1 or C == 1 or apart.stride(1) == C * apart.stride(2) or not s:
            return apart.flatten(1, 2)
        return apart.movedim((1, 2), (-2, -1)).flatten(-2).movedim(-1, 1)


def fold(physical: Tensor, members: int) -> Stacked:
    """Make (B, C, *s) of N networks from (B, N*C, *s)."""
    return Stacked(physical, members, None)


def lead(physical: Tensor) -> Stacked:
    """Make values of N networks from (N, ...)."""
    return Stacked(physical, len(physical), 0)
