"""Image -> decomposition -> subimages -> local CNNs -> what they hand over -> aggregation -> global decision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from ddcnn.aggregation.absent import checked, decide, silence
from ddcnn.aggregation.handed import HandedOver, LocalOutputs, handed_to
from ddcnn.decomposition import Decomposition, Subimages
from ddcnn.errors import AggregationError, DecompositionError
from ddcnn.explaining import Explanation, explain
from ddcnn.fusion import Backend
from ddcnn.machine import looked_at_once
from ddcnn.models import LocalCNNs

_FEW, _MANY = 256, 4096  # images: to prepare a network for inference takes some tenths of a second, to measure as much


class Said(NamedTuple):
    """What local CNNs say of some images.

    Attributes
    ----------
    probabilities
        (B, N, K).
    handed
        (B, N, F), what they hand over to the aggregation; it may be the probabilities themselves.
    """

    probabilities: Tensor
    handed: Tensor


@runtime_checkable
class KnownInput(Protocol):
    """What is known of the images that a network was trained on; `ddcnn.data.description.InputDescription` is one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The K names."""

    def arranged(self, images: Tensor | np.ndarray) -> Tensor | np.ndarray:
        """Return images as (n, C, *S), or raise an error that says how they differ from those of the training."""

    def check_array(self, images: Tensor) -> None:
        """Raise an error if images (B, C, *S) are of another kind than those of the training."""


def decided(scores: Float[Tensor, "n K"], thresholds: Sequence[float] | None) -> Int64[Tensor, " n"]:
    """Return the class with the largest probability / threshold; without thresholds, the most probable one.

    Parameters
    ----------
    scores
        Or logarithms of probabilities.
    thresholds
        K numbers between 0 and 1.
    """
    if thresholds is None:
        return scores.argmax(1)
    each = torch.tensor(thresholds, dtype=torch.float64, device=scores.device)
    return (scores.double().log_softmax(1) - each.log()).argmax(1)


class CNNDNN(nn.Module):
    """Local CNNs on subimages, and an aggregation of their probabilities (arXiv 2408.14442).

    With the dense aggregation this is the paper's CNN-DNN, trained in two steps or as one coherent model; with one
    subdomain it is the global CNN.

    Parameters
    ----------
    decomposition
        Where to cut.
    local_cnns
        One network per subdomain, (B, C, *s) -> (B, K); or `LocalCNNs`, already fused.
    aggregation
        (B, N, K) -> (B, K); or (B, N, F) -> (B, K) if its attribute ``handed`` says that it takes something else than
        probabilities, as that of `ddcnn.Dense`.
    image_size
        (H, W) or (D, H, W); not needed with `LocalCNNs`.
    normalization
        What turns raw pixels into the numbers that the networks see; None: the images are normalised already.
        `LocalCNNs` have their own.
    backend
        As in `ddcnn.fuse`.
    missing
        Subdomains whose local CNNs are not to be had, because they failed or were never trained: the others decide
        without them, and whatever networks stand in their place.

    Attributes
    ----------
    input
        What is known of the images it was trained on, and of the classes; None: nothing. `describe` sets it.
    thresholds
        K of them, whose sum is 1: the class with the largest probability / threshold is decided for; None: the most
        probable class. They change decisions, never probabilities.
    input_check
        Raises an error if whole images are of another kind than those of the training, such as 0..1 instead of 0..255;
        None: any are taken. `describe` sets it.

    Raises
    ------
    AggregationError
        There is no such subdomain, or all of them are missing.
    """

    def __init__(
        self,
        decomposition: Decomposition,
        local_cnns: Sequence[nn.Module] | LocalCNNs,
        aggregation: nn.Module,
        *,
        image_size: Sequence[int] = (),
        normalization: nn.Module | None = None,
        backend: Backend = "auto",
        missing: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if not isinstance(local_cnns, LocalCNNs):
            local_cnns = LocalCNNs(
                decomposition, local_cnns, image_size=image_size, backend=backend, normalization=normalization
            )
        self.decomposition = decomposition
        self.local_cnns = local_cnns
        self.aggregation = aggregation
        self.thresholds: tuple[float, ...] | None = None
        self.input: KnownInput | None = None
        self.input_check: Callable[[Tensor], None] | None = None
        self.missing = checked(missing, local_cnns.members)  # plain numbers: nothing for a GPU to wait for, or to save

    def without(self, missing: Sequence[int]) -> CNNDNN:
        """Return the same network, with the same parameters, without these subdomains as well."""
        part = CNNDNN(
            self.decomposition,
            self.local_cnns,
            self.aggregation,
            missing=(*self.missing, *missing),
        )
        part.training, part.input, part.input_check = self.training, self.input, self.input_check
        part.thresholds = self.thresholds
        return part

    def describe(self, known: KnownInput) -> None:
        """Say what images it was trained on: others are refused from now on, and predictions have the names of classes.

        `ddcnn.load` and every training do so.
        """
        self.input, self.input_check = known, known.check_array

    def for_inference(self, images: Shaped[Tensor, "B C *S"] | Subimages, *, count: int | None = None) -> CNNDNN:
        """Return a network that decides alike, but faster, and is not to be trained: see `ddcnn.fusion.for_inference`.

        It is a copy: what is learned here later, it does not know.

        Parameters
        ----------
        images
            Raw images, or their subimages, as they will be given to it.
        count
            How many images will be decided. For fewer than 256 it is not worth while, and this network is returned as
            it is; from 4,096 on, the backend is chosen by measurement. None: it is prepared, but not measured.
        """
        if count is not None and count < _FEW:
            return self
        seen = images if isinstance(images, Subimages) else self.cut(images)
        local_cnns = self.local_cnns.for_inference(seen, measure=count is not None and count >= _MANY)
        form = CNNDNN(self.decomposition, local_cnns, copy.deepcopy(self.aggregation), missing=self.missing)
        form.input, form.input_check = self.input, self.input_check
        form.thresholds = self.thresholds
        return form.eval()

    def predict_proba(
        self, images: Shaped[Tensor, "n ..."] | Shaped[np.ndarray, "n ..."], *, batch_size: int | None = None
    ) -> Float[np.ndarray, "n K"]:
        """Return the probability of each class for images as they were given to the training.

        Parameters
        ----------
        images
            An array or a tensor on any device. If the training was given arrays, their layout is that of these as well,
            if it fits their shape; else they are (n, C, *S), (n, *S, C), or (n, *S) if C is 1.
        batch_size
            Images at once; None: as many as do no harm. The result does not depend on it, but for rounding.

        Raises
        ------
        DdcnnError
            They have another shape, or their values are on another scale, than in the training.
        """
        given = images if self.input is not None or isinstance(images, Tensor) else np.asarray(images)
        arranged: Any = given if self.input is None else self.input.arranged(given)
        tensor = torch.as_tensor(arranged)
        batches = tensor.split(batch_size or looked_at_once(tensor.shape[1:]))
        device, was_training = self._device(), self.training
        self.eval()
        try:
            with torch.no_grad():
                network = self.for_inference(batches[0].to(device), count=len(arranged))
                found = [network(batch.to(device)).softmax(1).cpu() for batch in batches if len(batch)]
        finally:
            self.train(was_training)
        classes = 0 if self.input is None else len(self.input.classes)
        return np.asarray(torch.cat(found) if found else torch.empty(0, classes))

    def predict(
        self, images: Shaped[Tensor, "n ..."] | Shaped[np.ndarray, "n ..."], *, batch_size: int | None = None
    ) -> Shaped[np.ndarray, " n"]:
        """Return the name of the class that is decided for, per image; its number, where names are not known.

        It is the most probable one, or follows from `thresholds`.

        Parameters and errors are those of `predict_proba`.
        """
        probabilities = torch.from_numpy(self.predict_proba(images, batch_size=batch_size))
        decided = self.decided(probabilities.log()).numpy()
        return decided if self.input is None else np.array(self.input.classes)[decided]

    def _device(self) -> torch.device:
        held = next(iter([*self.parameters(), *self.buffers()]), None)
        return torch.device("cpu") if held is None else held.device

    def forward(self, images: Shaped[Tensor, "B C *S"]) -> Float[Tensor, "B K"]:
        """Return global scores; their softmax is the probability of each class."""
        return self.decide(self.said(images).handed)

    @property
    def handed(self) -> HandedOver | None:
        """What the local CNNs hand over to the aggregation, which `said` returns; None: probabilities."""
        return handed_to(self.aggregation)

    def said(self, images: Shaped[Tensor, "B C *S"] | Subimages) -> Said:
        """Return the class probabilities of each local CNN, and what it hands over, on whole images or its subimages.

        Of a missing one, all classes are equally probable, and the features are 0.
        """
        over = self.handed
        if over is None:
            p = self.local_probabilities(images)
            return Said(p, p)
        images = images if isinstance(images, Subimages) else self.cut(images)
        if over.by_class:
            outputs = LocalOutputs(self.local_cnns(images))
        else:
            outputs = LocalOutputs(*self.local_cnns.with_features(images))
        handed = silence(outputs.handed(over), self.missing, over.silent)
        return Said(silence(outputs.probabilities, self.missing), handed)

    def local_probabilities(self, images: Shaped[Tensor, "B C *S"] | Subimages) -> Float[Tensor, "B N K"]:
        """Return the class probabilities of each local CNN, on whole images or its subimages; 1/K if it is missing."""
        scores: Tensor = self.local_cnns(images if isinstance(images, Subimages) else self.cut(images))
        return silence(scores.float().softmax(2), self.missing)

    def cut(self, images: Shaped[Tensor, "B C *S"]) -> Subimages:
        """Return what each local CNN sees of whole images.

        Raises
        ------
        DecompositionError
            The images have another size than the network was made for.
        """
        size = self.local_cnns.image_size
        if images.ndim != 2 + len(size):
            axes = ", ".join(("B", "C", *map(str, size)))
            raise DecompositionError(f"these local CNNs take images of shape ({axes}), got {tuple(images.shape)}")
        if tuple(images.shape[2:]) != size:
            expected, got = ("x".join(map(str, sides)) for sides in (size, images.shape[2:]))
            raise DecompositionError(f"these local CNNs take images of {expected} pixels, got {got}; resize the images")
        if self.input_check is not None:
            self.input_check(images)
        return Subimages.of(images, self.local_cnns.subdomains)

    def decide(self, handed: Float[Tensor, "B N F"]) -> Float[Tensor, "B K"]:
        """Return global scores from what all local CNNs hand over (`said`), always computed in float32.

        Raises
        ------
        AggregationError
            The aggregation takes something else.
        """
        over = self.handed
        if over is not None and handed.shape[2] != over.width:
            raise AggregationError(
                f"this aggregation decides from {over.width} numbers of each subdomain, got {handed.shape[2]}; "
                "give what network.said(images).handed returns"
            )
        with torch.autocast(handed.device.type, enabled=False):
            return decide(self.aggregation, handed, self.missing)

    def decided(self, scores: Float[Tensor, "n K"]) -> Int64[Tensor, " n"]:
        """Return the class that scores, or the logarithms of probabilities, decide for."""
        return decided(scores, self.thresholds)

    def explain(
        self, images: Shaped[Tensor, "B ..."] | np.ndarray, target: int | Sequence[int] | None = None
    ) -> Explanation:
        """Return which subdomain said what, what the aggregation made of it, and which pixels mattered.

        See `ddcnn.explain`.
        """
        return explain(self, images, target)

    def unfused_state(self) -> dict[str, Tensor]:
        """Return views of what is there, ``locals.<subdomain>.<name>`` and ``aggregation.<name>``.

        The names are those that each local CNN has alone: they do not depend on how, and beside whom, it runs.
        """
        state = {f"aggregation.{name}": value for name, value in self.aggregation.state_dict().items()}
        for n, prefix in self._prefixes().items():
            state |= {prefix + name: value for name, value in self.local_cnns.member_state(n).items()}
        return state

    def load_unfused_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy what `unfused_state` returned, here or where other subdomains are held as well.

        Raises
        ------
        KeyError, RuntimeError
            Something is missing, or has another shape.
        """
        for n, prefix in self._prefixes().items():
            self.local_cnns.load_member_state(n, _below(prefix, state))
        self.aggregation.load_state_dict(_below("aggregation.", state))

    def _prefixes(self) -> dict[int, str]:
        return {n: f"locals.{i}." for n, i in enumerate(self.local_cnns.indices) if n not in self.missing}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
