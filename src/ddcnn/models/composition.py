"""Compose one network of P narrower ones that divide its channels among them (Gu et al., ETNA 56, 2022).

In the composed network no channel of one part sees those of another: kernels and matrices are block-diagonal. Its
scores are the mean of those of the parts, so it begins where they ended, and trains on as one network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ddcnn.errors import ModelError
from ddcnn.seeds import own_random_numbers

State = Mapping[str, Tensor]
_ATOL = 1e-4


def composed(parts: Sequence[State], whole: State) -> dict[str, Tensor]:
    """Return the state of the composed network.

    Parameters
    ----------
    parts
        States of P networks of one structure.
    whole
        State of a network of the same structure whose channels are P times as many; its numbers play no part.

    Raises
    ------
    ModelError
        Its channels are not P times as many: the width does not divide.
    """
    check_divides(parts[0], whole, len(parts))
    return {name: _joined([part[name] for part in parts], value) for name, value in whole.items()}


def check_divides(part: State, whole: State, count: int) -> None:
    """Raise a `ModelError` if a network cannot be divided into so many parts of this structure."""
    for name, value in whole.items():
        small = tuple(part[name].shape) if name in part else ()
        if len(small) != value.ndim or not all(
            b in (a, count * a) for a, b in zip(small[:2], value.shape[:2], strict=True)
        ):
            raise ModelError(
                f"compose.parts = {count} does not divide the network: {name} has shape {tuple(value.shape)} in the "
                f"global CNN and {small} in each part; use a number by which all its channels can be divided, such as 2"
            )


def check_composed(parts: Sequence[nn.Module], whole: nn.Module, image: Sequence[int]) -> None:
    """Raise a `ModelError` unless the scores of a composed network are the mean of those of its parts, on noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *image), generator=generator)
    with torch.no_grad(), own_random_numbers():
        expected = torch.stack([part.eval()(x) for part in parts]).mean(0)
        difference = float((whole.eval()(x) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    if not difference < _ATOL:
        raise ModelError(
            f"a composed {type(whole).__name__} is not the mean of its parts, they differ by {difference:.1g}: it has "
            "layers that look at all channels at once, such as a norm over them; use batch norm"
        )


def _joined(parts: Sequence[Tensor], whole: Tensor) -> Tensor:
    count, small = len(parts), parts[0].shape
    if not whole.ndim or not whole.is_floating_point():  # a count of batches
        return parts[0].clone()
    wider_out = whole.shape[0] != small[0]
    wider_in = whole.ndim > 1 and whole.shape[1] != small[1]
    if not wider_in:
        return torch.cat(list(parts)) if wider_out else torch.stack(list(parts)).mean(0)
    if not wider_out:  # scores, the mean of those of the parts
        return torch.cat(list(parts), 1) / count
    joined = torch.zeros_like(whole)
    for p, value in enumerate(parts):
        joined[p * small[0] : (p + 1) * small[0], p * small[1] : (p + 1) * small[1]] = value
    return joined
