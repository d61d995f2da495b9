"""Decisions about many images, in bfloat16 where they are the same as in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ddcnn.network import CNNDNN

COMPARED = 64  # images of which both precisions are computed
_ROOM = 8.0  # times the largest change of a probability that was seen: what is surer is not computed again
_WORTH = 0.25  # of the images: if more have to be computed again, bfloat16 saves nothing


class Decided(NamedTuple):
    """What a network says of some images.

    Attributes
    ----------
    probabilities
        (B, K), of the classes.
    local
        (B, N, K), what each local CNN says.
    """

    probabilities: Tensor
    local: Tensor


class Decider:
    """Decides by a network, without gradients; in bfloat16 where that is harmless.

    The first images are computed in both precisions, and float32 answers. Of the others, an image whose two most
    probable classes are closer than eight times the largest change of a probability is computed again in float32: no
    decision is another one than in float32 unless bfloat16 changes a probability four times as much as it did. If that
    concerns more than a quarter of the first images, everything is computed in float32. Where the network has
    thresholds, each probability is divided by that of its class before, as it is to decide.

    Parameters
    ----------
    network
        In eval mode; best what `CNNDNN.for_inference` returns.
    compare
        How many images are compared: `COMPARED`, or 0 to compute all in float32.

    Attributes
    ----------
    margin
        How far apart the two most probable classes are at least, to be decided in bfloat16, in probabilities (over
        thresholds); None: float32.
    """

    def __init__(self, network: CNNDNN, *, compare: int = 0) -> None:
        self.network = network
        self.margin: float | None = None
        self._left = compare
        self._largest_change = 0.0
        self._gaps: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self, images: Shaped[Tensor, "B C *S"]) -> Decided:
        """Return what the network says, in float32 numbers."""
        if self._left > 0:
            return self._both(images)
        if self.margin is None:
            return self._decided(images, half=False)
        found = self._decided(images, half=True)
        unsure = self._gap(found.probabilities) < self.margin
        if unsure.any():
            again = self._decided(images[unsure.to(images.device)], half=False)
            for part, exact in zip(found, again, strict=True):
                part[unsure] = exact
        return found

    def _both(self, images: Tensor) -> Decided:
        """Compute in both precisions, and return float32; after the last of the first images, choose the margin."""
        short, exact = (self._decided(images, half=half) for half in (True, False))
        change = float(self._compared(short.probabilities - exact.probabilities).abs().max())
        self._largest_change = max(self._largest_change, change)
        self._gaps.append(self._gap(short.probabilities))
        self._left -= len(images)
        if self._left <= 0:
            margin = _ROOM * self._largest_change
            if float((torch.cat(self._gaps) < margin).float().mean()) <= _WORTH:
                self.margin = margin
        return exact

    def _decided(self, images: Tensor, *, half: bool) -> Decided:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            local, handed = self.network.said(images)
            return Decided(self.network.decide(handed).softmax(1), local.clone())

    def _compared(self, probabilities: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return what is compared to decide."""
        if self.network.thresholds is None:
            return probabilities
        return probabilities / torch.tensor(self.network.thresholds, device=probabilities.device)

    def _gap(self, probabilities: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
        first, second = self._compared(probabilities).topk(2, 1).values.unbind(1)
        return first - second
