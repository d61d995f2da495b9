"""Which samples a run has learned from, by their content: whatever their files are called, and wherever they lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from ddcnn.data.content import are_among
from ddcnn.data.splits import Split
from ddcnn.errors import RunError
from ddcnn.runs.folder import RunFolder


@dataclass(frozen=True)
class Learned:
    """Digests of samples, as of `ddcnn.data.content.content_of`.

    Attributes
    ----------
    trained
        Of those that the run was trained on, or the run that it began with.
    validated
        Of those that chose the epochs of either.
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
    tensors = folder.read_tensors("content.safetensors")
    content = tensors.get("digests", torch.empty(0, 16, dtype=torch.uint8))
    before = [tensors.get(f"before/{part}", content[:0]) for part in ("trained", "validated")]
    used = torch.cat([split.train, split.validation])
    forms = {one.shape[1:] for one in (content, *before)}
    if content.ndim != 2 or len(forms) != 1 or not len(used) or int(used.max()) >= len(content):
        raise RunError(f"{folder.path / 'content.safetensors'} does not go with split.json; train again")
    trained, validated = content[split.train], content[split.validation]
    return Learned(torch.cat([trained, before[0]]), torch.cat([validated, before[1]]))


def content_to_keep(content: UInt8[Tensor, "n 16"], split: Split, weights: Path | None) -> dict[str, Tensor]:
    """Return what a run keeps of its images, and of others that the run which it begins with has learned from."""
    if weights is None or not weights.is_dir() or (learned := learned_by(RunFolder(weights))) is None:
        return {"digests": content}
    trained, used = content[split.train], content[torch.cat([split.train, split.validation])]
    return {
        "digests": content,
        "before/trained": learned.trained[~are_among(learned.trained, trained)],
        "before/validated": learned.validated[~are_among(learned.validated, used)],
    }
