"""`LocalCNNs`: images -> subimages -> the scores of all local CNNs, fused per shape."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ddcnn.decomposition import Decomposition, Subdomain, Subimages
from ddcnn.errors import FusionError
from ddcnn.fusion.fuse import Backend, FusedCNN, fuse
from ddcnn.fusion.inference import for_inference
from ddcnn.fusion.proofs import Proofs
from ddcnn.fusion.structural_equality import structure
from ddcnn.fusion.tap import classifier_of


class LocalCNNs(nn.Module):
    """The local CNNs of some subdomains of a decomposition, independent of one another: raw subimages -> scores.

    Parameters
    ----------
    decomposition
        Where to cut.
    modules
        One network per subdomain, (B, C, *s) -> (B, K). Their parameters are copied.
    image_size
        (H, W) or (D, H, W). Subdomains of different shape run as different groups.
    indices
        The subdomains that the networks belong to; None means all, 0..N-1.
    backend
        As in `ddcnn.fuse`.
    example
        Raw subimages of real size and device, to choose the backend by measurement.
    channels
        C of the images, where there is no example: the proof that fused networks are exact needs no more.
    proofs
        What has been proved before is not proved again; see `ddcnn.fusion.Proofs`.
    normalization
        What turns raw pixels into the numbers that networks see; None: the images are normalised already.
    """

    def __init__(
        self,
        decomposition: Decomposition,
        modules: Sequence[nn.Module],
        *,
        image_size: Sequence[int],
        indices: Sequence[int] | None = None,
        backend: Backend = "auto",
        example: Subimages | None = None,
        channels: int | None = None,
        proofs: Proofs | None = None,
        normalization: nn.Module | None = None,
    ) -> None:
        super().__init__()
        every = decomposition.subdomains(tuple(image_size))
        subdomains = every if indices is None else tuple(every[i] for i in indices)
        if len(modules) != len(subdomains):
            raise FusionError(f"{len(modules)} local CNNs do not fit {len(subdomains)} subdomains; give one each")
        groups = _positions(subdomains, modules)
        self.normalization = nn.Identity() if normalization is None else normalization
        fused = []
        for group in groups:
            first, inside = subdomains[group[0]], _inside([subdomains[i] for i in group])
            seen = None if example is None else self._stacked(example, group, inside, first.added_channels)
            shape = None if channels is None else (channels + first.added_channels, *first.shape)
            members = [modules[i] for i in group]
            fused.append(fuse(members, backend, example=seen, sample_shape=shape, proofs=proofs))
        self._hold(tuple(image_size), subdomains, groups, fused)

    def _hold(
        self,
        image_size: tuple[int, ...],
        subdomains: tuple[Subdomain, ...],
        groups: list[tuple[int, ...]],
        fused: list[FusedCNN],
    ) -> None:
        self.image_size, self.subdomains, self.groups = image_size, subdomains, groups
        self.indices = tuple(subdomain.index for subdomain in subdomains)
        self.fused = nn.ModuleList(fused)
        self._classifiers: dict[int, str] = {}  # by group, once they are asked for
        device = next((p.device for p in self.fused.parameters()), torch.device("cpu"))
        order = torch.tensor([position for group in groups for position in group], device=device)
        self.register_buffer("position_of", order.argsort(), persistent=False)  # of each subdomain, behind one another
        for number, group in enumerate(groups):  # with the networks they go to another device
            inside = _inside([subdomains[i] for i in group])
            self.register_buffer(f"inside{number}", None if inside is None else inside.to(device), persistent=False)

    def subset(self, members: Sequence[int]) -> LocalCNNs:
        """Return copies of some of the local CNNs, in that order; they run on the same backends as here."""
        if not members:
            raise FusionError("a subset needs at least 1 local CNN, got none")
        groups, fused = [], []
        for group, network in zip(self.groups, self._fused(), strict=True):
            if positions := tuple(position for position, n in enumerate(members) if n in group):
                groups.append(positions)
                fused.append(network.subset([group.index(members[position]) for position in positions]))
        return self._with(tuple(self.subdomains[n] for n in members), groups, fused).train(self.training)

    def for_inference(self, images: Subimages, *, measure: bool = False) -> LocalCNNs:
        """Return local CNNs that give the same scores in eval mode, sooner: see `ddcnn.fusion.for_inference`.

        Parameters
        ----------
        images
            Raw subimages of real shape; few will do, but to measure, as many as there will be at once.
        measure
            Whether each backend is timed on them.
        """
        self._check(images)
        fused = []
        for number, network in enumerate(self._fused()):
            seen = self._seen(images, number)
            fused.append(for_inference(network, seen.shape[2:], example=seen if measure else None))
        return self._with(self.subdomains, self.groups, fused).eval()

    def _with(
        self, subdomains: tuple[Subdomain, ...], groups: list[tuple[int, ...]], fused: list[FusedCNN]
    ) -> LocalCNNs:
        """Return local CNNs of the same images, made of other networks."""
        part = type(self).__new__(type(self))
        nn.Module.__init__(part)
        part.normalization = self.normalization
        part._hold(self.image_size, subdomains, groups, fused)
        return part

    @property
    def members(self) -> int:
        """Number of local CNNs."""
        return len(self.subdomains)

    @property
    def backend(self) -> str:
        """The backends of the groups."""
        return ", ".join(dict.fromkeys(group.backend for group in self._fused()))

    @property
    def reason(self) -> str:
        """Why these backends, in one line."""
        return "; ".join(dict.fromkeys(group.reason for group in self._fused()))

    def forward(self, images: Subimages) -> Float[Tensor, "B N K"]:
        """Return the scores of every local CNN on its subimages, which are raw pixels."""
        self._check(images)
        scores = [network(self._seen(images, number)) for number, network in enumerate(self.fused)]
        return self._in_order(scores)

    def with_features(self, images: Subimages) -> tuple[Float[Tensor, "B N K"], Float[Tensor, "B N F"]]:
        """Return the scores, and the features from which the classifier of each local CNN makes them.

        F is the largest number of features; where a local CNN has less, zeros follow.

        Raises
        ------
        FusionError
            A local CNN has no features: see `ddcnn.fusion.classifier_of`.
        """
        self._check(images)
        scores, features = [], []
        for number, network in enumerate(self._fused()):
            x = self._seen(images, number)
            if number not in self._classifiers:
                self._classifiers[number], _ = classifier_of(network.extract(0), x.shape[2:])
            found, seen = network.tapped(x, self._classifiers[number])
            assert seen is not None
            scores.append(found)
            features.append(seen)
        width = max(part.shape[2] for part in features)
        padded = [F.pad(part, (0, width - part.shape[2])) for part in features]
        return self._in_order(scores), self._in_order(padded)

    def seen_by(self, position: int, images: Subimages) -> Float[Tensor, "B C *s"]:
        """Return what one of the local CNNs sees: normalised pixels, and what its view adds to them."""
        one = self.subdomains[position]
        return self._stacked(images, [position], _inside([one]), one.added_channels)[:, 0]

    def _seen(self, images: Subimages, number: int) -> Tensor:
        """Return what the local CNNs of a group see, (B, N, C, *s)."""
        group = self.groups[number]
        inside = cast(Tensor | None, getattr(self, f"inside{number}"))
        return self._stacked(images, group, inside, self.subdomains[group[0]].added_channels)

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        """Join what groups computed, in the order of the subdomains."""
        if len(parts) == 1:
            return parts[0]
        joined = torch.cat(parts, 1)
        return joined[:, cast(Tensor, self.position_of)]

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of local CNN n, under their own names."""
        network, position = self._find(n)
        return network.member_state(position)

    def load_member_state(self, n: int, state: dict[str, Tensor]) -> None:
        """Copy parameters and buffers into local CNN n."""
        network, position = self._find(n)
        network.load_member_state(position, state)

    def name(self, n: int) -> str:
        """Return what messages call local CNN n: that of its subdomain."""
        return self.subdomains[n].name

    def extract(self, n: int) -> nn.Module:
        """Return local CNN n alone, as a module of its own class."""
        network, position = self._find(n)
        return network.extract(position)

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (N,) values of its networks, in a shape that broadcasts against it."""
        return [
            pair
            for group, network in zip(self.groups, self._fused(), strict=True)
            for pair in network.per_parameter(values[list(group)])
        ]

    def _stacked(
        self, images: Subimages, group: Sequence[int], inside: Tensor | None, added_channels: int
    ) -> Float[Tensor, "B n C *s"]:
        """Return what some local CNNs see, all of one shape: normalised subimages, 0 where a pixel does not count."""
        parts = [images.parts[i] for i in group]
        dtype = functools.reduce(torch.promote_types, (part.dtype for part in parts))  # means are no integers
        raw = torch.stack([part.to(dtype) for part in parts], 1)
        flat: Tensor = self.normalization(raw.flatten(0, 1))
        normalised = cast(Tensor, flat.unflatten(0, raw.shape[:2]))
        if inside is None:
            return normalised
        mask = inside.to(normalised.device).unsqueeze(1)  # (n, 1, *s)
        masked = normalised.masked_fill(~mask, 0)
        if not added_channels:
            return masked
        return torch.cat([masked, mask.to(masked.dtype).expand(masked.shape[0], *mask.shape)], 2)

    def _check(self, images: Subimages) -> None:
        expected = [s.shape for s in self.subdomains]
        got = [tuple(part.shape[2:]) for part in images.parts]
        if got != expected:
            raise FusionError(
                f"these local CNNs take subimages of {', '.join(map(_x, expected))} pixels, got "
                f"{', '.join(map(_x, got))}; give those of subdomains {', '.join(map(str, self.indices))}"
            )

    def _fused(self) -> list[FusedCNN]:
        return cast(list[FusedCNN], list(self.fused))

    def _find(self, n: int) -> tuple[FusedCNN, int]:
        for group, network in zip(self.groups, self._fused(), strict=True):
            if n in group:
                return network, group.index(n)
        raise IndexError(f"local CNN {n} of {self.members}")


def _positions(subdomains: Sequence[Subdomain], modules: Sequence[nn.Module]) -> list[tuple[int, ...]]:
    groups: dict[object, list[int]] = {}
    for position, (subdomain, module) in enumerate(zip(subdomains, modules, strict=True)):
        key = subdomain.shape, subdomain.added_channels, structure(module)
        groups.setdefault(key, []).append(position)
    return [tuple(group) for group in groups.values()]


def _inside(subdomains: Sequence[Subdomain]) -> Bool[Tensor, "n *s"] | None:
    """Return which pixels of subimages of one shape count; None: all."""
    masks = [subdomain.inside for subdomain in subdomains]
    if all(mask is None for mask in masks):
        return None
    return torch.stack([torch.ones(s.shape, dtype=torch.bool) if s.inside is None else s.inside for s in subdomains])


def _x(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
