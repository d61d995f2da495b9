"""The loss around and between trained networks: curvature, random directions, straight lines."""

from __future__ import annotations

import warnings
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

    Its products with vectors are computed by ``curvlinops-for-pytorch`` (F. Dangel et al., arXiv 2501.19183), nothing
    is approximated but by the number of vectors.

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

    Raises
    ------
    ImportError
        The package is not there: ``ddcnn[experiments]``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script, which PyTorch itself calls for jvp
        return _curvature(network, loss, images, labels, seed)


def _curvature(network: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor, seed: int) -> dict[str, float]:
    from curvlinops import HessianLinearOperator, hutchinson_trace
    from scipy.sparse.linalg import eigsh

    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    hessian = HessianLinearOperator(network, loss, parameters, [(images, labels)], check_deterministic=False)
    size = hessian.shape[0]
    start = torch.randn(size, generator=torch.Generator().manual_seed(seed)).numpy()
    count = min(EIGENVALUES, size - 1)
    largest = eigsh(hessian.to_scipy(), k=count, which="LA", tol=_TOLERANCE, v0=start, return_eigenvectors=False)
    found = {f"eigenvalue {n}": float(value) for n, value in enumerate(sorted(largest, reverse=True), 1)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        one_by_one = [float(hutchinson_trace(hessian, num_matvecs=1)) for _ in range(_VECTORS)]  # all at once need room
    found["trace"] = sum(one_by_one) / _VECTORS
    along = []
    for n in range(_DIRECTIONS):
        d = torch.cat([one.flatten() for one in filter_normalised(parameters, seed + n)])
        along.append(float(d @ (hessian @ d)))
    return found | {"filter-wise": sum(along) / len(along)}


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
