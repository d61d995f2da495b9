"""`WholeNetwork`: local CNNs and their aggregation, trained as one model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ddcnn.aggregation.average import TINY
from ddcnn.decomposition import Subimages
from ddcnn.network import CNNDNN
from ddcnn.training.members import Single


class WholeNetwork(Single):
    """A `ddcnn.CNNDNN` as one member.

    Parameters
    ----------
    network
        Trained on the loss of the global scores.
    with_local_scores
        Whether, while it is trained, the scores of the local CNNs follow the global ones.
    """

    network: CNNDNN

    def __init__(self, network: CNNDNN, *, with_local_scores: bool = False) -> None:
        super().__init__(network)
        self.with_local_scores = with_local_scores

    def forward(self, x: Tensor | Subimages) -> Tensor:
        """Return (B, 1, K) global scores, or with local scores (B, 1 + N, K)."""
        said = self.network.said(x)
        return self.decide(said.handed, said.probabilities)

    @property
    def shows_local_scores(self) -> bool:
        """Whether the scores of local CNNs follow the global ones now."""
        return self.training and self.with_local_scores

    def decide(self, handed: Float[Tensor, "B N F"], p: Float[Tensor, "B n K"]) -> Tensor:
        """Return the scores that follow from what is handed over, and those of local CNNs with probabilities p."""
        scores = self.network.decide(handed).unsqueeze(1)
        if not self.shows_local_scores:
            return scores
        return torch.cat([scores, p.clamp_min(TINY).log()], 1)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the state of the network, subdomain by subdomain: `CNNDNN.unfused_state`."""
        assert n == 0
        return self.network.unfused_state()

    def load_member_state(self, n: int, state: Mapping[str, Tensor]) -> None:
        """Copy such a state into the network; it may hold subdomains that the network has not."""
        assert n == 0
        self.network.load_unfused_state(state)
