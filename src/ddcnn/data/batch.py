"""`Batch`: some samples, as a training step sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Int64
from torch import Tensor

from ddcnn.decomposition import Subimages

Inputs = Tensor | Subimages
WEIGHTS = "weights"
"""Among the extras: how much each sample counts in the loss."""
OTHERS, SHARES = "others", "shares"
"""Among the extras, where images are mixed: the label of the other image, and its share in the target, 0..1."""


@dataclass(frozen=True)
class Batch:
    """B samples.

    Attributes
    ----------
    inputs
        What the network sees of them.
    targets
        Their labels.
    samples
        Their numbers in the data set.
    extras
        Whatever else is known of each sample, by name, (B, ...): soft targets, for example.
    """

    inputs: Inputs
    targets: Int64[Tensor, " B"]
    samples: Int64[Tensor, " B"]
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return B."""
        return len(self.targets)
