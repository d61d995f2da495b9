"""What is exported, one module per file: the whole network, or each local CNN and the aggregation apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from ddcnn.aggregation.absent import decide
from ddcnn.decomposition import Subimages
from ddcnn.decomposition.subdomain import slices
from ddcnn.network import CNNDNN

_NORMALIZATION = "normalization."


class Piece(nn.Module, ABC):
    """A module with one input and named outputs; the first axis of each is the batch, of any length.

    Attributes
    ----------
    name
        What its file is called.
    input, outputs
        Names.
    """

    name: str
    input: str
    outputs: tuple[str, ...]

    @abstractmethod
    def saved(self) -> dict[str, Tensor]:
        """Return its parameters and buffers, by the names that they have in a file."""

    @abstractmethod
    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Copy what `saved` returned; KeyError if something is missing."""


class NetworkPiece(Piece):
    """Raw images (B, C, *S) -> scores (B, K), their probabilities, and what each local CNN says (B, N, K)."""

    name, input, outputs = "network", "images", ("scores", "probabilities", "local_probabilities")

    def __init__(self, network: CNNDNN) -> None:
        super().__init__()
        self.network = network.without([])
        self.network.input_check = None  # looks at values, which a graph cannot

    def forward(self, images: Shaped[Tensor, "B C *S"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, probabilities and local probabilities."""
        said = self.network.said(images)
        scores = self.network.decide(said.handed)
        return scores, scores.softmax(1), said.probabilities

    def saved(self) -> dict[str, Tensor]:
        """Return ``locals.<subdomain>.<name>``, ``aggregation.<name>``, ``normalization.<name>``."""
        return self.network.unfused_state() | _of_normalization(self.network.local_cnns.normalization)

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Copy what `saved` returned."""
        self.network.load_unfused_state(saved)
        _restore_normalization(self.network.local_cnns.normalization, saved)


class LocalPart(Piece):
    """Raw pixels of the box of one subdomain (B, C, *b) -> what its local CNN hands over (B, F) and says (B, K)."""

    input, outputs = "pixels", ("handed_over", "probabilities")

    def __init__(self, network: CNNDNN, n: int) -> None:
        super().__init__()
        self.name = f"local-{network.local_cnns.indices[n]}"
        self.subdomain = network.local_cnns.subdomains[n]
        taker = _Taker(getattr(network.aggregation, "handed", None))
        self.network = CNNDNN(network.decomposition, network.local_cnns.subset([n]), taker)

    def forward(self, pixels: Shaped[Tensor, "B C *b"]) -> tuple[Tensor, Tensor]:
        """Return what is handed over, and the class probabilities."""
        said = self.network.said(Subimages((self.subdomain.view(pixels),)))
        return said.handed[:, 0], said.probabilities[:, 0]

    def saved(self) -> dict[str, Tensor]:
        """Return the names that the local CNN has alone, and ``normalization.<name>``."""
        cnns = self.network.local_cnns
        return cnns.member_state(0) | _of_normalization(cnns.normalization)

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Copy what `saved` returned."""
        self.network.local_cnns.load_member_state(0, dict(saved))
        _restore_normalization(self.network.local_cnns.normalization, saved)


class _Taker(nn.Module):
    """Stands for an aggregation elsewhere: takes the same, and has no parameters."""

    def __init__(self, handed: object) -> None:
        super().__init__()
        self.handed = handed


class AggregationPart(Piece):
    """What the n local CNNs that are there hand over (B, n, F) -> scores (B, K) and their probabilities."""

    name, input, outputs = "aggregation", "handed_over", ("scores", "probabilities")

    def __init__(self, network: CNNDNN) -> None:
        super().__init__()
        self.aggregation, self.missing = network.aggregation, network.missing
        N = network.local_cnns.members
        present = [n for n in range(N) if n not in self.missing]
        self.rows = [present.index(n) if n in present else 0 for n in range(N)]  # any, for those that are missing

    def forward(self, handed_over: Float[Tensor, "B n F"]) -> tuple[Tensor, Tensor]:
        """Return scores and probabilities."""
        if self.missing:
            handed_over = handed_over[:, self.rows]
        scores = decide(self.aggregation, handed_over, self.missing)
        return scores, scores.softmax(1)

    def saved(self) -> dict[str, Tensor]:
        """Return the names that the aggregation has alone."""
        return dict(self.aggregation.state_dict())

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Copy what `saved` returned."""
        self.aggregation.load_state_dict(dict(saved))


Answers = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Assembly:
    """Pieces that decide together, and how.

    Attributes
    ----------
    pieces, examples
        Modules in eval mode, and an input for each.
    run
        (a function from input to outputs per piece, images) -> ``probabilities`` and ``local_probabilities``.
    """

    pieces: Sequence[Piece]
    examples: Sequence[Tensor]
    run: Callable[[Sequence[Answers], Tensor], dict[str, Tensor]]


def together(network: CNNDNN, images: Shaped[Tensor, "B C *S"]) -> Assembly:
    """Return the whole network as one piece."""

    def run(files: Sequence[Answers], x: Tensor) -> dict[str, Tensor]:
        found = files[0](x)
        return {name: found[name] for name in ("probabilities", "local_probabilities")}

    return Assembly([_ready(NetworkPiece(network))], [images], run)


def apart(network: CNNDNN, images: Shaped[Tensor, "B C *S"]) -> Assembly:
    """Return each local CNN that is there as a piece, and then the aggregation."""
    N = network.local_cnns.members
    present = [n for n in range(N) if n not in network.missing]
    parts = [LocalPart(network, n) for n in present]

    def boxes(x: Tensor) -> list[Tensor]:
        return [x[(slice(None), slice(None), *slices(part.subdomain.box))] for part in parts]

    def run(files: Sequence[Answers], x: Tensor) -> dict[str, Tensor]:
        said = [file(pixels) for file, pixels in zip(files, boxes(x), strict=False)]
        handed_over, local = (torch.stack([one[name] for one in said], 1) for name in LocalPart.outputs)
        every = local.new_full((len(x), N, local.shape[2]), 1 / local.shape[2])
        every[:, present] = local
        return {"probabilities": files[-1](handed_over)["probabilities"], "local_probabilities": every}

    with torch.no_grad():
        examples = [*boxes(images), network.said(images).handed[:, present]]
    return Assembly([_ready(piece) for piece in (*parts, AggregationPart(network))], examples, run)


def _ready(piece: Piece) -> Piece:
    return piece.eval()


def _of_normalization(module: nn.Module) -> dict[str, Tensor]:
    return {_NORMALIZATION + name: value for name, value in module.state_dict().items()}


def _restore_normalization(module: nn.Module, saved: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(saved[_NORMALIZATION + name])
