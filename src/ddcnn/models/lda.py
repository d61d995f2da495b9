"""Linear discriminant analysis: a linear network whose parameters scikit-learn finds in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ddcnn.models.layers import AVERAGE_POOL, check_axes


class LDA(nn.Module):
    """A linear map of the pixels, found by discriminant analysis (Fisher 1936): a baseline that costs seconds.

    The classes are taken for normal distributions of one covariance, which is shrunk as Ledoit and Wolf (2004) have it.
    Images of more pixels than ``numbers`` are averaged first. As local CNNs this is a decomposed analysis: one for each
    subdomain, under any aggregation. In a coherent model it is trained on by gradients.

    Parameters
    ----------
    in_channels, classes
        C and K.
    image_size
        (H, W) or (D, H, W).
    width
        Plays no part: there are no channels.
    numbers
        Most pixels, times channels, that it sees.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        image_size: tuple[int, ...],
        *,
        width: float = 1.0,  # noqa: ARG002 - every model is called with it
        numbers: int = 1024,
    ) -> None:
        super().__init__()
        axes = check_axes(image_size)
        share = min(1.0, numbers / (in_channels * math.prod(image_size))) ** (1 / axes)
        size = tuple(max(1, int(pixels * share)) for pixels in image_size)
        self.pool = AVERAGE_POOL[axes](size) if size != tuple(image_size) else nn.Identity()
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(in_channels * math.prod(size), classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores (B, K) of images (B, C, *S): log-probabilities, but for a constant."""
        scores: Tensor = self.linear(self.flatten(self.pool(x)))
        return scores

    @torch.no_grad()
    def solve(self, x: Float[Tensor, "m C *S"], labels: Int64[Tensor, " m"]) -> None:
        """Take over the decision function of the analysis of some images; a class without any is never decided for."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        numbers = self.flatten(self.pool(x)).double().cpu().numpy()
        found = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(numbers, labels.cpu().numpy())
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(found.classes_) == 2:  # one row says how far it is from the first class to the second
            weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
        self.linear.weight.zero_()
        self.linear.bias.fill_(torch.finfo(torch.float32).min / 2)
        present = torch.from_numpy(found.classes_)
        self.linear.weight[present] = weight.to(self.linear.weight)
        self.linear.bias[present] = bias.to(self.linear.bias)
