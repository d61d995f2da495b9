"""The most confident mistakes of a strategy on the test images: small pictures, and what each local CNN said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from ddcnn.planning import Setup
from ddcnn.strategies import StrategyResult

MOST = 12
"""Mistakes that are kept."""

_LONGEST = 128  # pixels along an axis


def shown_strategy(rows: Sequence[Mapping[str, Any]], members: Mapping[str, int], trained: str | None) -> str:
    """Return whose mistakes are kept: those of the strategy that was asked for, or else of the most accurate one.

    Accuracy is that on the validation images. Strategies with several local CNNs come first, since their mistakes can
    be traced to subdomains.

    Parameters
    ----------
    rows
        ``"strategies"`` of ``comparison.json``.
    members
        The number of local CNNs of each strategy, by name.
    trained
        The strategy that was asked for, if one was.
    """
    if trained in members:
        return str(trained)
    best = max(rows, key=lambda row: (members[row["name"]] > 1, row.get("validation_accuracy") or 0.0))
    return str(best["name"])


def confident_mistakes(setup: Setup, result: StrategyResult, *, votes: bool = True) -> dict[str, Tensor]:
    """Return the mistakes on the test part with the largest probabilities, the largest first; empty if there is none.

    Parameters
    ----------
    votes
        Whether to say what each local CNN decides.

    Returns
    -------
    images
        (m, C, h, w), thinned to at most 128 pixels along an axis; of a volume, the slice at ``slices``.
    labels, decided, probabilities
        (m,): the true class, the decision, and the probability that it was given, 0..1.
    samples
        (m,): indices of the images in the data set.
    slices
        (m,): the positions of the slices along the depth of a volume; 0 for images.
    votes, shares
        (m, N): what each local CNN decides, -1 for one that is missing, and the probability that it gives, 0..1; left
        out where there is one local CNN.
    """
    test, dataset = setup.data.split.test, setup.data.dataset
    labels = dataset.labels[test]
    scores = result.scores("test")
    decided = result.network.decided(scores)
    sure = scores.double().softmax(1).gather(1, decided[:, None])[:, 0]
    wrong = torch.nonzero((decided != labels) & sure.isfinite()).flatten()
    if not len(wrong):
        return {}
    chosen = wrong[sure[wrong].argsort(descending=True, stable=True)[:MOST]]
    pictures = [_small(dataset.images[test[i : i + 1]][0], dataset.plane) for i in chosen.tolist()]
    found = {
        "images": torch.stack([picture for picture, _ in pictures]),
        "labels": labels[chosen],
        "decided": decided[chosen],
        "probabilities": sure[chosen].float(),
        "samples": test[chosen],
        "slices": torch.tensor([at for _, at in pictures]),
    }
    return found | (_votes(result, chosen) if votes else {})


def _votes(result: StrategyResult, chosen: Tensor) -> dict[str, Tensor]:
    if result.network.local_cnns.members == 1:
        return {}
    shares, votes = result.local_probabilities.of("test")[chosen].max(2)
    for n in result.network.missing:
        shares[:, n], votes[:, n] = 0, -1
    return {"votes": votes, "shares": shares.float()}


def _small(image: Shaped[Tensor, "C *S"], plane: tuple[int, int]) -> tuple[Shaped[Tensor, "C h w"], int]:
    """Return the image, or the central slice of a volume in the plane of its slices, thinned; and where the slice is.

    >>> picture, at = _small(torch.zeros(1, 20, 200, 30), (1, 0))
    >>> tuple(picture.shape), at
    ((1, 100, 20), 15)
    """
    at = 0
    if image.ndim == 4:
        rows, columns = (axis % 3 for axis in plane)
        volume = image.permute(0, 3 - rows - columns + 1, rows + 1, columns + 1)
        at = volume.shape[1] // 2
        image = volume[:, at]
    step_h, step_w = (-(-length // _LONGEST) for length in image.shape[1:])
    return image[:, ::step_h, ::step_w].contiguous(), at
