"""`Tap`: what reaches one layer of a network while it runs; and which layer is a network's classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ddcnn.errors import FusionError
from ddcnn.seeds import own_random_numbers

_SAMPLES = 2


class Tap(AbstractContextManager["Tap"]):
    """Within it, the input of one layer of a network is noted.

    Parameters
    ----------
    network, layer
        The network, and the name of the layer in it; None: nothing is noted.
    """

    def __init__(self, network: nn.Module, layer: str | None) -> None:
        self.layer, self._seen = layer, list[Tensor]()
        self._module = None if layer is None else network.get_submodule(layer)
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> Tap:
        """Begin to note."""
        if self._module is not None:
            self._hook = self._module.register_forward_pre_hook(self._note, with_kwargs=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note no more."""
        if self._hook is not None:
            self._hook.remove()

    def _note(self, _layer: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._seen.append(inputs[0] if inputs else next(iter(named.values())))

    @property
    def value(self) -> Tensor:
        """The input of the layer.

        Raises
        ------
        FusionError
            The layer did not run exactly once.
        """
        if len(self._seen) != 1:
            raise FusionError(
                f"layer {self.layer!r} of a local CNN ran {len(self._seen)} times for one input, so it has no one "
                "input that could be handed over; use aggregation.features = logit"
            )
        return self._seen[0]


def classifier_of(network: nn.Module, shape: Sequence[int]) -> tuple[str, int]:
    """Return the name of a network's classifier, and how many numbers it sees of one sample: its features.

    The classifier is what the network says by a method ``get_classifier()``, as networks of timm do, or else the
    linear layer that runs last, if it returns the scores.

    Parameters
    ----------
    network
        (B, C, *s) -> (B, K).
    shape
        (C, *s).

    Raises
    ------
    FusionError
        It has none.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2))
    >>> classifier_of(network, (1, 4, 4))
    ('4', 5)
    """
    ran: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []

    def note(name: str) -> Any:
        def hook(_layer: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], result: Any) -> None:
            seen = inputs[0] if inputs else next(iter(named.values()))
            ran.append((name, tuple(seen.shape), tuple(result.shape)))

        return hook

    said = _said(network)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    scores = torch.empty(0)
    for device in ("meta", "cpu"):  # without numbers, if it can do without
        ran.clear()
        twin = copy.deepcopy(network).to(device).eval()
        for name, layer in twin.named_modules():
            if name == said or (said is None and isinstance(layer, nn.Linear)):
                layer.register_forward_hook(note(name), with_kwargs=True)
        try:
            with torch.no_grad(), own_random_numbers():
                scores = twin(torch.zeros((_SAMPLES, *shape), dtype=dtype, device=device))
            break
        except (RuntimeError, NotImplementedError):
            if device == "cpu":
                raise
    last = ran[-1] if ran else None
    if last is None or (said is None and last[2] != tuple(scores.shape)):
        raise FusionError(
            f"a {type(network).__name__} has no linear layer that returns its scores, so there are no penultimate "
            "features; give it a method get_classifier() that returns the layer, or use aggregation.features = logit"
        )
    name, seen, _ = last
    if [one for one, _, _ in ran].count(name) > 1 or seen[0] != _SAMPLES:
        raise FusionError(
            f"the classifier {name!r} of a {type(network).__name__} does not see one input per sample, so there are no "
            "penultimate features; use aggregation.features = logit"
        )
    return name, torch.Size(seen[1:]).numel()


def _said(network: nn.Module) -> str | None:
    """Return the name of the layer that a network itself calls its classifier."""
    ask = getattr(network, "get_classifier", None)
    layer = ask() if callable(ask) else None
    return next((name for name, module in network.named_modules() if module is layer and name), None)
