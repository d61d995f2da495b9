"""N equal networks whose parameters are stacked, (N, ...): fused into one, or mapped by ``torch.vmap``."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddcnn.fusion import layers, pointwise, shapes  # noqa: F401 - they fill the operator table
from ddcnn.fusion.loop import CHANNELS_LAST, check_scores, gradient_of
from ddcnn.fusion.operators import LAYERS, Fusing, quiet
from ddcnn.fusion.recorded import Recorded
from ddcnn.fusion.stacked import NotSupportedError, Stacked, fold, lead
from ddcnn.fusion.tap import Tap


class StackedBody(nn.Module):
    """N networks as the code of one and N times its parameters.

    The code is that of the first network, in a copy without numbers (on the ``meta`` device). While it runs, each of
    its parameters and buffers is the `Stacked` one of all N networks.

    Parameters
    ----------
    modules
        The networks; what they compute differs in parameters and buffers alone.
    backend
        ``"fused"``: each operator as its rule in `ddcnn.fusion.operators` says. ``"vmapped"``: by ``torch.vmap``.
    """

    def __init__(self, modules: Sequence[nn.Module], backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.members = len(modules)
        first = modules[0]
        places = [list(_places(module)) for module in modules]
        self._keys = _distinct(places)  # of each place, the name of its stacked value here
        for position, key in enumerate(self._keys):
            if not hasattr(self, key):
                self._enter(key, [place[position][3] for place in places])
        known = {id(value): key for (_, _, _, value), key in zip(places[0], self._keys, strict=True)}
        state = first.state_dict(keep_vars=True)
        if strange := [name for name, value in state.items() if id(value) not in known]:
            raise NotSupportedError(f"{strange[0]} is not a parameter or buffer of one of its layers")
        self._names = {name: known[id(value)] for name, value in state.items()}
        template = copy.deepcopy(first).to("meta")
        self._template = (template,)  # in a tuple: not a part of this network
        self.recorded = Recorded(template)
        self._slots = [(kind, name) for _, kind, name, _ in _places(template)]
        self._mode = first.training
        if backend == "fused":
            for layer in template.modules():
                if type(layer) in LAYERS:
                    layer.forward = functools.partial(LAYERS[type(layer)], layer)
        self.train(first.training)

    def _enter(self, key: str, values: list[Tensor]) -> None:
        stacked = torch.stack([value.detach() for value in values])
        if isinstance(values[0], nn.Parameter):
            self.register_parameter(key, nn.Parameter(stacked, requires_grad=values[0].requires_grad))
        else:
            self.register_buffer(key, stacked)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        scores, _ = self.tapped(x, None)
        return scores

    def tapped(self, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor | None]:
        """Return scores (B, N, K), and what reached a layer, (B, N, F), by its name in one network; None: nothing."""
        (template,) = self.code()
        if self.backend == "vmapped":
            return self._vmapped(template, x, layer)
        state = [getattr(self, key) for key in dict.fromkeys(self._keys)]
        if self.training and layer is None:
            return self.recorded(self._scores, state, x), None
        return self._fused(state, x, layer)

    def _scores(self, state: Sequence[Tensor], x: Tensor) -> Tensor:
        scores, _ = self._fused(state, x, None)
        return scores

    def _fused(self, state: Sequence[Tensor], x: Tensor, layer: str | None) -> tuple[Tensor, Tensor | None]:
        (template,) = self._template
        value = Stacked(x, self.members, 1)
        if x.ndim - 1 in CHANNELS_LAST:
            value = fold(x.flatten(1, 2).contiguous(memory_format=CHANNELS_LAST[x.ndim - 1]), self.members)
        with self._filled(state), Fusing(self.members), Tap(template, layer) as tap:
            scores = check_scores(template(value))
        return self._apart(scores), None if layer is None else self._apart(tap.value).flatten(2)

    def _apart(self, value: Tensor) -> Tensor:
        """Return the values of all networks, (B, N, ...)."""
        if type(value) is not Stacked:  # the same for all networks
            return value.unsqueeze(1).expand(-1, self.members, *value.shape[1:])
        return value.apart(1)

    def _vmapped(self, template: nn.Module, x: Tensor, layer: str | None) -> tuple[Tensor, Tensor | None]:
        names = [f"{layer}.{name}" if layer else name for layer, _, name, _ in _places(template)]
        values = {name: getattr(self, key) for name, key in zip(names, self._keys, strict=True)}

        def of_one(state: dict[str, Tensor], part: Tensor) -> tuple[Tensor, ...]:
            with Tap(template, layer) as tap:
                scores = check_scores(functional_call(template, state, (part,)))
            return (scores,) if layer is None else (scores, tap.value.flatten(1))

        with quiet():
            found = torch.vmap(of_one, in_dims=(0, 1), out_dims=1, randomness="different")(values, x)
        return found[0], None if layer is None else found[1]

    @contextmanager
    def _filled(self, state: Sequence[Tensor]) -> Iterator[None]:
        """Put all networks' parameters and buffers where the code of one network finds its own."""
        wrapped = {key: lead(value) for key, value in zip(dict.fromkeys(self._keys), state, strict=True)}
        empty = [kind[name] for kind, name in self._slots]
        try:
            for (kind, name), key in zip(self._slots, self._keys, strict=True):
                kind[name] = wrapped[key]
            yield
        finally:
            for (kind, name), value in zip(self._slots, empty, strict=True):
                kind[name] = value

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n, under their original names."""
        return {name: getattr(self, key).detach()[n] for name, key in self._names.items()}

    def member_gradient(self, n: int) -> dict[str, Tensor]:
        """Return the gradients of network n under the original names; zeros where there is none."""
        names = {key: name for name, key in reversed(self._names.items())}  # of a shared one the first
        return {names[key]: gradient_of(p, n) for key, p in self.named_parameters()}

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (N,) values of its networks, in a shape that broadcasts against it."""
        return [(p, values.view(-1, *(1,) * (p.ndim - 1))) for p in self.parameters()]

    def code(self) -> list[nn.Module]:
        """Return the networks whose code runs, in the mode in which it runs: that of the first one, for all."""
        (template,) = self._template
        if self._mode != self.training:
            template.train(self.training)
            self._mode = self.training
        return [template]

    def extract(self, n: int) -> nn.Module:
        """Return network n alone, as a module of the original class."""
        module = copy.deepcopy(self._template[0])
        own = {key: self._one(getattr(self, key), n) for key in self._keys}
        for (_, kind, name, _), key in zip(list(_places(module)), self._keys, strict=True):
            kind[name] = own[key]
        for layer in module.modules():
            if isinstance(vars(layer).get("forward"), functools.partial):
                del layer.forward
        return module

    def _one(self, stacked: Tensor, n: int) -> Tensor:
        value = stacked.detach()[n].clone()
        is_parameter = isinstance(stacked, nn.Parameter)
        return nn.Parameter(value, requires_grad=stacked.requires_grad) if is_parameter else value


_Place = tuple[str, dict[str, Any], str, Tensor]  # layer, its parameters or buffers, name, value


def _places(module: nn.Module) -> Iterator[_Place]:
    """Yield where the parameters and buffers of a network are; a shared one has several places."""
    for layer_name, layer in module.named_modules():
        for kind in (layer._parameters, layer._buffers):
            for name, value in kind.items():
                if value is not None:
                    yield layer_name, kind, name, value


def _distinct(networks: list[list[_Place]]) -> list[str]:
    """Return a name for each place, the same for places that share a value."""
    patterns = []
    for places in networks:
        first: dict[int, str] = {}
        patterns.append(
            [first.setdefault(id(value), f"{layer}.{name}".replace(".", "/")) for layer, _, name, value in places]
        )
    if any(pattern != patterns[0] for pattern in patterns):
        raise NotSupportedError("the networks share parameters within themselves in different ways")
    return patterns[0]
