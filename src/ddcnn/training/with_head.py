"""`WithHead`: local CNNs, each with a small network on its features that is trained with it and then thrown away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.data.batch import Inputs
from ddcnn.decomposition import Subimages
from ddcnn.models import LocalCNNs
from ddcnn.training.members import Shown

HEAD, WANTED = "head", "wanted"
"""Among the extras: what the heads make of the features, (B, M, D), and what they should make of them."""

Wanted = Callable[[LocalCNNs, Subimages], Tensor]


class WithHead(nn.Module):
    """M local CNNs that show, while they are trained, what a head of two dense layers makes of their features.

    Parameters
    ----------
    local_cnns
        They have penultimate features: see `ddcnn.fusion.classifier_of`.
    sizes
        (features, hidden units, D) of a head.
    seeds
        M, of the parameters of the heads.
    wanted
        What heads should return, of the subimages, (B, M, D); None: that is not known beforehand.
    """

    def __init__(
        self,
        local_cnns: LocalCNNs,
        sizes: tuple[int, int, int],
        seeds: Sequence[int],
        wanted: Wanted | None = None,
    ) -> None:
        super().__init__()
        self.local_cnns, self.sizes, self.wanted = local_cnns, sizes, wanted
        features, hidden, numbers = sizes
        device = next((p.device for p in local_cnns.parameters()), None)
        drawn = [_drawn(features, hidden, numbers, seed) for seed in seeds]
        owners = [tuple(own.flatten().tolist()) for _, own in local_cnns.per_parameter(torch.arange(self.members))]
        self.stacks: list[tuple[int, ...]] = [*dict.fromkeys(owners)]  # heads are stacked as their local CNNs are
        self.heads = nn.ModuleList(
            nn.ParameterDict(
                {name: nn.Parameter(torch.stack([drawn[n][name] for n in stack]).to(device)) for name in drawn[0]}
            )
            for stack in self.stacks
        )

    @property
    def members(self) -> int:
        """M."""
        return self.local_cnns.members

    def forward(self, x: Inputs) -> Tensor | Shown:
        """Return scores (B, M, K), and while it is trained what the heads say."""
        assert isinstance(x, Subimages)
        if not self.training:
            scores: Tensor = self.local_cnns(x)
            return scores
        scores, features = self.local_cnns.with_features(x)
        features = F.pad(features.float(), (0, self.sizes[0] - features.shape[2]))
        with torch.autocast(features.device.type, enabled=False):
            said = self._said(features)
        wanted = {} if self.wanted is None else {WANTED: self.wanted(self.local_cnns, x)}
        return Shown(scores, {HEAD: said} | wanted)

    def _said(self, features: Tensor) -> Tensor:
        """Return what the heads make of features (B, M, F): (B, M, D)."""
        found: dict[int, Tensor] = {}
        for stack, head in self._stacked():
            hidden = torch.einsum("bmf,mfh->bmh", features[:, list(stack)], head["first"]) + head["first_bias"]
            said = torch.einsum("bmh,mhd->bmd", F.relu(hidden), head["second"]) + head["second_bias"]
            found |= dict(zip(stack, said.unbind(1), strict=True))
        return torch.stack([found[n] for n in range(self.members)], 1)

    def _stacked(self) -> Iterator[tuple[tuple[int, ...], nn.ParameterDict]]:
        """Yield members, and the parameters of their heads."""
        for stack, head in zip(self.stacks, self.heads, strict=True):
            assert isinstance(head, nn.ParameterDict)
            yield stack, head

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of local CNN n and its head."""
        return self.local_cnns.member_state(n) | self._head_of(n)

    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy such a state."""
        self.local_cnns.load_member_state(n, state)
        for name, value in self._head_of(n).items():
            value.copy_(state[name])

    def _head_of(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters of a head."""
        for stack, head in self._stacked():
            if n in stack:
                return {f"{HEAD}.{name}": p.detach()[stack.index(n)] for name, p in head.items()}
        raise IndexError(n)

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (M,) values of its networks, in a shape that broadcasts against it."""
        own = [
            (p, values[list(stack)].view(-1, *[1] * (p.ndim - 1)))
            for stack, head in self._stacked()
            for p in head.parameters()
        ]
        return [*self.local_cnns.per_parameter(values), *own]

    def subset(self, members: Sequence[int]) -> WithHead:
        """Return copies of some of the local CNNs and their heads."""
        part = WithHead(self.local_cnns.subset(members), self.sizes, [0] * len(members), self.wanted)
        for position, n in enumerate(members):
            own = self._head_of(n)
            for name, value in part._head_of(position).items():
                value.copy_(own[name])
        return part.train(self.training)

    def name(self, n: int) -> str:
        """Return what messages call local CNN n."""
        return self.local_cnns.name(n)


def _drawn(features: int, hidden: int, numbers: int, seed: int) -> dict[str, Tensor]:
    """Return the parameters of one head, He normal."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(features, hidden, generator=generator) * (2 / features) ** 0.5
    second = torch.randn(hidden, numbers, generator=generator) * (2 / hidden) ** 0.5
    return {"first": first, "first_bias": torch.zeros(hidden), "second": second, "second_bias": torch.zeros(numbers)}
