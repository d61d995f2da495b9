"""The dense network (DNN) that makes the CNN-DNN: the "global coarse net"."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.aggregation.absent import check_dropout, drop
from ddcnn.aggregation.handed import HandedOver
from ddcnn.config import Features


class Dense(nn.Module):
    """A multilayer perceptron on the N*K local probabilities, or on what else local CNNs hand over.

    Parameters
    ----------
    subdomains, classes
        N and K.
    hidden
        Units of the hidden layers. Their published widths are unknown.
    features
        ``"probability"``: the probabilities as they are, as published. ``"log"``: their logarithms, centred for
        each subdomain, whose gradient with respect to the local scores does not vanish where a softmax is nearly
        uniform (at the start) or saturated. ``"logit"``: scores before the softmax; ``"penultimate"``: what the last
        layer of each local CNN sees.
    shortcut
        Add the sum of the logarithms, times a learned number that starts at 1, to the scores, and start the last
        layer at zero: the DNN starts as a product of experts and learns what is better. In a coherent model each
        local CNN then sees the gradient that it would see alone. Without it (as published) the DNN starts at random.
    subdomain_dropout
        Probability, below 1, with which a subdomain says nothing while the DNN is trained, drawn for each sample and
        subdomain (`ddcnn.aggregation.absent.drop`), so that it learns to decide without some of them.
    widths
        How many features each subdomain hands over, where it hands over features.

    Raises
    ------
    AggregationError
        ``subdomain_dropout`` is not a probability below 1, or ``widths`` are not N numbers.

    References
    ----------
    Klawonn, Lanser, Weber, arXiv 2408.14442; features, shortcut and subdomain dropout are ours.

    Examples
    --------
    >>> p = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]])
    >>> Dense(2, 2)(p).softmax(1)  # 0.9 * 0.3 : 0.1 * 0.7
    tensor([[0.7941, 0.2059]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(
        self,
        subdomains: int,
        classes: int,
        *,
        hidden: Sequence[int] = (256, 128),
        features: Features = "probability",
        shortcut: bool = True,
        subdomain_dropout: float = 0.0,
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.subdomain_dropout = check_dropout(subdomain_dropout)
        self.handed = HandedOver.of(features, subdomains, classes, widths)
        shortcut = shortcut and self.handed.by_class
        units = [self.handed.numbers, *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(units):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(units[-1], classes))
        self.scale = nn.Parameter(torch.ones(())) if shortcut else None
        for layer in self.layers:
            if isinstance(layer, nn.Linear) and not layer.weight.is_meta:  # see `ddcnn.models.layers.he_init`
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        if shortcut:
            nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, p: Float[Tensor, "B N F"]) -> Float[Tensor, "B K"]:
        """Return global scores."""
        if self.training and self.subdomain_dropout:
            p = drop(p, self.subdomain_dropout, self.handed.silent)
        scores: Tensor = self.layers(self.handed.flat(self.handed.numbers_of(p)))
        return scores if self.scale is None else scores + self.scale * self.handed.experts(p).sum(1)
