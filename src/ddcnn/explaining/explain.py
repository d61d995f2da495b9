"""`explain`: which subdomain said what, what the aggregation made of it, and where each local CNN looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ddcnn.decomposition import Subimages
from ddcnn.errors import ExplanationError
from ddcnn.explaining.grad_cam import captum, grad_cam
from ddcnn.models import LocalCNNs

_STEPS = 200  # of the integral; the aggregation is small
_EXACT = 0.05  # of a probability: what integrated gradients may miss


class ArrangedInput(Protocol):
    """What is known of the images of a training."""

    def arranged(self, images: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Return images as (n, C, *S)."""


class Explainable(Protocol):
    """What is asked of a network; `ddcnn.CNNDNN` is one."""

    local_cnns: LocalCNNs
    missing: tuple[int, ...]
    training: bool

    @property
    def input(self) -> ArrangedInput | None:
        """What is known of its images; None: nothing."""

    def cut(self, images: Tensor) -> Subimages:
        """Return what each local CNN sees."""

    def said(self, images: Tensor | Subimages) -> tuple[Tensor, Tensor]:
        """Return local probabilities (B, N, K) and what is handed over (B, N, F)."""

    def decide(self, probabilities: Tensor, /) -> Tensor:
        """Return scores (B, K) from what the local CNNs hand over."""

    def decided(self, scores: Tensor) -> Tensor:
        """Return the class (B,) that scores (B, K) decide for."""

    def without(self, missing: Sequence[int]) -> Self:
        """Return the same network without some subdomains."""

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode."""


@dataclass(frozen=True)
class Explanation:
    """Why a network decides as it does, for B images; all of it on the CPU.

    Attributes
    ----------
    target
        (B,) the class that is explained.
    probabilities
        (B, K) of the network.
    local_probabilities
        (B, N, K) of each local CNN.
    ablation
        (B, N) how much smaller the probability of the target is if that subdomain says nothing; negative if it spoke
        against it. NaN for a missing subdomain, and where there is only one.
    attribution
        (B, N) integrated gradients: what each subdomain adds to the probability of the target, beginning from where
        none says anything. The sum over N is the difference between the two. None if it cannot be told; see ``notes``.
    maps
        For each subdomain (B, *s), Grad-CAM of its local CNN: how much each pixel of its subimage speaks for the
        target. Empty if there is none.
    heat_map
        (B, *S): these maps put together to the whole image, each pixel from the subdomain that owns it.
    notes
        What could not be told, and why.
    """

    target: Int64[Tensor, "B"]
    probabilities: Float[Tensor, "B K"]
    local_probabilities: Float[Tensor, "B N K"]
    ablation: Float[Tensor, "B N"]
    attribution: Float[Tensor, "B N"] | None
    maps: tuple[Tensor, ...]
    heat_map: Float[Tensor, "B *S"] | None
    notes: tuple[str, ...] = ()


def explain(
    network: Explainable, images: Shaped[Tensor, "B ..."] | np.ndarray, target: int | Sequence[int] | None = None
) -> Explanation:
    """Return which subdomain said what, what the aggregation made of it, and which pixels mattered.

    Parameters
    ----------
    network
        A `ddcnn.CNNDNN`.
    images
        Raw images, as `ddcnn.CNNDNN.predict_proba` takes them: with the layout of the arrays of the training, if that
        is known and their shape fits; else (B, C, *S).
    target
        The class to explain, for all images or one per image; None: the one that the network decides for.

    Raises
    ------
    ExplanationError
        There is no such class, or captum is not installed.

    References
    ----------
    Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017; Selvaraju et al., Grad-CAM, ICCV 2017.
    """
    captum()  # the first thing to know
    mode = network.training
    network.train(False)
    try:
        given = images if network.input is None else network.input.arranged(images)
        if not len(given):
            raise ExplanationError("there is no image to explain; give at least one")
        return _explained(network, torch.as_tensor(given), target)
    finally:
        network.train(mode)


def _explained(network: Explainable, images: Tensor, target: int | Sequence[int] | None) -> Explanation:
    notes: list[str] = []
    held = next(iter(network.local_cnns.parameters()), images)
    with torch.no_grad():
        seen = network.cut(images.to(held.device))
        local, handed_over = network.said(seen)
        probabilities = network.decide(handed_over).softmax(1)
    classes = _targets(network, target, probabilities)
    maps, heat_map = _maps(network, seen, classes, notes)
    return Explanation(
        target=classes.cpu(),
        probabilities=probabilities.cpu(),
        local_probabilities=local.cpu(),
        ablation=_ablation(network, handed_over, probabilities, classes),
        attribution=_attribution(network, seen, handed_over, classes, notes),
        maps=maps,
        heat_map=heat_map,
        notes=tuple(notes),
    )


def _targets(network: Explainable, target: int | Sequence[int] | None, probabilities: Tensor) -> Tensor:
    if target is None:
        return network.decided(probabilities.log())
    B, K = probabilities.shape
    found = (
        torch.as_tensor(target, device=probabilities.device).expand(B)
        if isinstance(target, int)
        else torch.tensor(target)
    )
    if found.shape != (B,) or int(found.min()) < 0 or int(found.max()) >= K:
        raise ExplanationError(f"target = {target} should be a class 0..{K - 1}, or one for each of {B} images")
    return found.to(probabilities.device)


def _ablation(network: Explainable, handed_over: Tensor, probabilities: Tensor, target: Tensor) -> Tensor:
    """Return what the probability of the target loses without each subdomain."""
    N = network.local_cnns.members
    lost = torch.full(handed_over.shape[:2], torch.nan)
    present = [n for n in range(N) if n not in network.missing]
    for n in present if len(present) > 1 else []:
        with torch.no_grad():
            rest = network.without([n]).decide(handed_over).softmax(1)
        lost[:, n] = (probabilities - rest).gather(1, target[:, None])[:, 0].cpu()
    return lost


def _attribution(
    network: Explainable, seen: Subimages, handed_over: Tensor, target: Tensor, notes: list[str]
) -> Tensor | None:
    """Return integrated gradients of the probability of the target, summed over the numbers of each subdomain."""
    silent = _silent(network, seen)
    if silent is None:
        notes.append("no attribution: one subdomain alone has decided")
        return None
    integral = captum().IntegratedGradients(lambda h: network.decide(h).softmax(1))
    found, missed = integral.attribute(
        handed_over,
        baselines=silent,
        target=target,
        n_steps=_STEPS,
        internal_batch_size=max(_STEPS, len(handed_over)),
        return_convergence_delta=True,
    )
    if float(missed.abs().max()) > _EXACT:
        notes.append("no attribution: this aggregation decides in steps, which gradients do not see")
        return None
    of_each: Tensor = found.flatten(2).sum(2)
    return of_each.detach().cpu()


def _silent(network: Explainable, seen: Subimages) -> Tensor | None:
    """Return what is handed over where no subdomain says anything: that of all but one, and that of this one."""
    first, *others = (n for n in range(network.local_cnns.members) if n not in network.missing)
    if not others:
        return None
    with torch.no_grad():
        silent = network.without(others).said(seen)[1]
        silent[:, first] = network.without([first]).said(seen)[1][:, first]
    return silent


def _maps(
    network: Explainable, seen: Subimages, target: Tensor, notes: list[str]
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return Grad-CAM of each local CNN, and the whole; a missing one has seen nothing."""
    cnns, maps = network.local_cnns, []
    for n, part in enumerate(seen.parts):
        if n in network.missing:
            maps.append(torch.zeros(len(part), *part.shape[2:]))
            continue
        try:
            maps.append(grad_cam(cnns.extract(n), cnns.seen_by(n, seen).float(), target).cpu())
        except ExplanationError as error:
            notes.append(f"no heat map: {error}")
            return (), None
    whole = torch.zeros(len(target), *cnns.image_size)  # pixels that nobody owns stay 0
    for one, subdomain in zip(maps, cnns.subdomains, strict=True):
        subdomain.paste(one, whole)
    return tuple(maps), whole
