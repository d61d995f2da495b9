"""Which samples a run has learned from, by their content: whatever their files are called, and wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddcnn.data.splits import Split
from ddcnn.errors import RunError
from ddcnn.runs.folder import RunFolder


@dataclass(frozen=True)
class Learned:
    """Digests of samples, as of `ddcnn.data.content.content_of`.

    Attributes
    ----------
    trained
        Of those that the run was trained on.
    validated
        Of those that chose its epochs.
    """

    trained: UInt8[Tensor, "n 16"]
    validated: UInt8[Tensor, "m 16"]

    @property
    def all(self) -> UInt8[Tensor, "k 16"]:
        """Of both."""
        return torch.cat([self.trained, self.validated])


def learned_by(folder: RunFolder) -> Learned | None:
    """Return what a run has learned from; None: it does not say.

    Raises
    ------
    RunError
        Its files do not go with one another.
    """
    if not folder.has("content.safetensors"):
        return None
    split = Split.from_json(folder.read_text("split.json"))
    content = folder.read_tensors("content.safetensors").get("digests", torch.empty(0, 16, dtype=torch.uint8))
    used = torch.cat([split.train, split.validation])
    if content.ndim != 2 or not len(used) or int(used.max()) >= len(content):
        raise RunError(f"{folder.path / 'content.safetensors'} does not go with split.json; train again")
    return Learned(content[split.train], content[split.validation])
