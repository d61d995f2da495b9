"""The mean of the local probabilities."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

TINY = 1e-6  # probabilities below this count as this


class Average(nn.Module):
    """The mean of the local probabilities ("average probability" in the paper)."""

    takes_any_number = True  # of subdomains, see `ddcnn.aggregation.absent`

    def forward(self, p: Float[Tensor, "B N K"]) -> Float[Tensor, "B K"]:
        """Return the logarithm of the mean probabilities.

        >>> import torch
        >>> p = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]])
        >>> Average()(p).exp()
        tensor([[0.6000, 0.4000]])
        """
        return p.mean(1).clamp_min(TINY).log()
