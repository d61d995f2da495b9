"""The loss around and between trained networks: curvature, random directions, straight lines."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

EIGENVALUES = 3
_VECTORS = 16  # random ones, for the trace
_DIRECTIONS = 8
_TOLERANCE = 1e-2  # relative, of eigenvalues


def curvature(
    network: nn.Module, loss: nn.Module, images: Shaped[Tensor, "n ..."], labels: Shaped[Tensor, "n ..."], seed: int = 0
) -> dict[str, float]:
    """Return what the Hessian of the mean loss over some samples says, with batch norm in evaluation mode.

    Its products with vectors are exact, by differentiating twice (Pearlmutter 1994); only the number of vectors
    approximates.

    Parameters
    ----------
    network
        In evaluation mode; all its parameters take part.
    loss
        (scores, labels) -> mean over the samples, with ``reduction`` "mean" as PyTorch's have it.
    seed
        Of random vectors.

    Returns
    -------
    by_name
        ``"eigenvalue 1"``, 2, 3: the largest, by Lanczos' method, to 1 %; fewer if there are fewer parameters.
        ``"trace"``: by Hutchinson's estimator with 16 vectors. ``"filter-wise"``: mean of d'Hd over 8 random directions
        d that are `filter_normalised`, which does not change if filters before a batch norm are scaled, as the others
        do. All in units of the loss.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradient = torch.autograd.grad(loss(network(images), labels), parameters, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        """Return H v; of parameters that the gradient does not depend on, zeros."""
        shaped = _like(vector, parameters)
        along = sum(((g * v).sum() for g, v in zip(gradient, shaped, strict=True)), torch.zeros(()))
        rows = torch.autograd.grad(along, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([row.flatten() for row in rows]).detach()

    size = sum(parameter.numel() for parameter in parameters)
    generator = torch.Generator().manual_seed(seed)
    hessian = LinearOperator(
        (size, size), lambda v: product(torch.from_numpy(v.ravel()).float()).numpy(), dtype="float32"
    )
    start = torch.randn(size, generator=generator).numpy()
    count = min(EIGENVALUES, size - 1)
    largest = eigsh(hessian, k=count, which="LA", tol=_TOLERANCE, v0=start, return_eigenvectors=False)
    found = {f"eigenvalue {n}": float(value) for n, value in enumerate(sorted(largest, reverse=True), 1)}
    signs = [2.0 * torch.randint(2, (size,), generator=generator) - 1 for _ in range(_VECTORS)]
    found["trace"] = sum(float(v @ product(v)) for v in signs) / _VECTORS
    directions = [filter_normalised(parameters, seed + n) for n in range(_DIRECTIONS)]
    flat = [torch.cat([one.flatten() for one in direction]) for direction in directions]
    return found | {"filter-wise": sum(float(d @ product(d)) for d in flat) / _DIRECTIONS}


def _like(vector: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    parts = vector.split([parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def filter_normalised(parameters: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Return a random direction in which each filter is as long as that of the network, and biases and norms are 0.

    H. Li et al., Visualizing the loss landscape of neural nets, NeurIPS 2018. A filter is what makes one output: a row
    of a parameter with two axes or more.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim < 2:
            found.append(torch.zeros_like(drawn))
            continue
        rows, drawn_rows = parameter.detach().cpu().flatten(1), drawn.flatten(1)
        scale = rows.norm(dim=1, keepdim=True) / drawn_rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        found.append((drawn_rows * scale).reshape(parameter.shape))
    return found


@torch.no_grad()
def along_direction(
    network: nn.Module,
    loss: nn.Module,
    images: Shaped[Tensor, "n ..."],
    labels: Shaped[Tensor, "n ..."],
    steps: Sequence[float],
    seed: int = 0,
) -> list[float]:
    """Return the loss at parameters + step x direction, for each step of a `filter_normalised` direction."""
    parameters = list(network.parameters())
    before, direction = [one.clone() for one in parameters], filter_normalised(parameters, seed)
    found = []
    for step in steps:
        for parameter, old, d in zip(parameters, before, direction, strict=True):
            parameter.copy_(old + step * d)
        found.append(float(loss(network(images), labels)))
    for parameter, old in zip(parameters, before, strict=True):
        parameter.copy_(old)
    return found


@torch.no_grad()
def along_line(
    first: nn.Module,
    second: nn.Module,
    loss: nn.Module,
    images: Shaped[Tensor, "n ..."],
    labels: Shaped[Tensor, "n ..."],
    shares: Sequence[float],
) -> list[float]:
    """Return the loss on the straight line between two networks of equal architecture, at shares 0..1 of the way.

    At each point, the ends included, the statistics of batch norm are measured anew on these samples: mixed statistics
    belong to no network, and alone make a barrier (K. Jordan et al., REPAIR, ICLR 2023). ``first`` is left at the last
    point.
    """
    parameters, others = list(first.parameters()), list(second.parameters())
    start = [one.clone() for one in parameters]
    found = []
    for share in shares:
        for parameter, a, b in zip(parameters, start, others, strict=True):
            parameter.copy_(a.lerp(b, share))
        _measure_norms(first, images)
        found.append(float(loss(first(images), labels)))
    return found


def barrier(losses: Sequence[float]) -> float:
    """Return how far the loss rises above the straight line between its ends, at least 0.

    J. Frankle et al., Linear mode connectivity and the lottery ticket hypothesis, ICML 2020; for ends of different loss
    as R. Entezari et al., ICLR 2022. Of a convex loss it is 0.

    Parameters
    ----------
    losses
        At equal distances.

    >>> barrier([1.0, 3.0, 2.0])
    1.5
    """
    last = len(losses) - 1
    return max(value - (losses[0] + (losses[last] - losses[0]) * n / last) for n, value in enumerate(losses))


def _measure_norms(network: nn.Module, images: Shaped[Tensor, "n ..."]) -> None:
    """Set the statistics of all batch norms to those of some samples; the network is in evaluation mode afterwards."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what is seen
    network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def drawn(samples: Int64[Tensor, " m"], most: int, seed: int = 0) -> Int64[Tensor, " k"]:
    """Return some of the samples, at most so many, always the same."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return samples[order[:most].sort().values]
