"""Attention over the subdomains: each is a token, and one more token makes the decision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ddcnn.aggregation.absent import check_dropout, kept
from ddcnn.aggregation.handed import HandedOver
from ddcnn.config import Features
from ddcnn.errors import AggregationError

_DEEPEST = 64  # layers that a run of a stranger may ask for


class Attention(nn.Module):
    """A small transformer on what the subdomains hand over.

    A linear layer of its own turns what each subdomain hands over into a token, to which a learned vector for its
    position is added. A further, learned token then looks at all of them; a linear layer on it gives the scores. What
    is missing is not looked at.

    Parameters
    ----------
    subdomains, classes
        N and K.
    features, widths
        What is handed over: as in `ddcnn.aggregation.Dense`.
    shortcut
        As in `ddcnn.aggregation.Dense`: it starts as a product of experts.
    width, heads, depth
        Numbers of a token, heads of the attention, which share them, and layers.
    subdomain_dropout
        As in `ddcnn.aggregation.Dense`.

    Raises
    ------
    AggregationError
        The heads do not share the width equally, or there are less than 1 or more than 64 layers.

    References
    ----------
    Vaswani et al., arXiv 1706.03762; norms before the layers: Xiong et al., arXiv 2002.04745.
    """

    takes_missing = True

    def __init__(
        self,
        subdomains: int,
        classes: int,
        *,
        features: Features = "probability",
        widths: Sequence[int] | None = None,
        shortcut: bool = True,
        width: int = 64,
        heads: int = 4,
        depth: int = 1,
        subdomain_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(width, heads, depth) < 1 or width % heads or depth > _DEEPEST:
            raise AggregationError(
                f"attention of width {width}, {heads} heads and depth {depth} should have positive numbers, a width "
                f"that the heads share equally, and at most {_DEEPEST} layers"
            )
        self.built_with = {"width": width, "heads": heads, "depth": depth}
        self.subdomain_dropout = check_dropout(subdomain_dropout)
        self.handed = HandedOver.of(features, subdomains, classes, widths)
        self.embed = nn.ModuleList(nn.Linear(numbers, width) for numbers in self.handed.widths)
        self.position = nn.Parameter(torch.randn(subdomains, width) * width**-0.5)
        self.decision = nn.Parameter(torch.randn(width) * width**-0.5)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))
        shortcut = shortcut and self.handed.by_class
        self.scale = nn.Parameter(torch.ones(())) if shortcut else None
        if shortcut:
            nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    def forward(self, h: Float[Tensor, "B N F"], missing: Sequence[int] = ()) -> Float[Tensor, "B K"]:
        """Return global scores."""
        there = kept(h, self.subdomain_dropout if self.training else 0.0, missing)
        numbers = self.handed.numbers_of(h)
        parts = zip(self.embed, self.handed.widths, strict=True)
        embedded = torch.stack([layer(numbers[:, n, :width]) for n, (layer, width) in enumerate(parts)], 1)
        tokens = torch.cat([self.decision.expand(h.shape[0], 1, -1), embedded + self.position], 1)  # (B, 1 + N, width)
        seen = F.pad(there, (1, 0), value=True)
        for depth, block in enumerate(self.blocks, 1):
            tokens = block(tokens, seen, 1 if depth == len(self.blocks) else None)  # after the last, one is read
        scores: Tensor = self.head(tokens[:, 0])
        if self.scale is None:
            return scores
        return scores + self.scale * (self.handed.experts(h) * there.unsqueeze(2)).sum(1)


class _Block(nn.Module):
    """Self-attention and two dense layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self, x: Float[Tensor, "B T D"], seen: Bool[Tensor, "B T"], first: int | None = None
    ) -> Float[Tensor, "B t D"]:
        """Return the tokens after one layer, or only the first ones; those that are not seen reach no other."""
        normed, width = self.norms[0](x), x.shape[2]
        weight, bias = self.project.weight, self.project.bias
        asked = F.linear(normed[:, :first], weight[:width], bias[:width])
        known = F.linear(normed, weight[width:], bias[width:])
        query = asked.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, t, d)
        key, value = known.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, seen[:, None, None])
        x = x[:, :first] + self.out(attended.transpose(1, 2).flatten(2))
        y: Tensor = x + self.dense(self.norms[1](x))
        return y
