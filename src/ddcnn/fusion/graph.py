"""N equal networks -> one grouped network, by tracing the first and replacing each operator by its fused form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from ddcnn.fusion.operators import LAYERS, UNCHANGED_FUNCTIONS, UNCHANGED_LAYERS, UNCHANGED_METHODS, flattens_all


class Unfusable(Exception):  # noqa: N818 - not an error: a reason to fall back
    """The reason, in one line, why networks cannot be fused."""


class GraphBody(nn.Module):
    """N networks as one grouped network, whose parameters are stacked, (N, ...), under the names of the originals."""

    backend = "fused"

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.graph = _fused_graph(modules)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C, *s) -> (B, N, K)."""
        members = x.shape[1]
        folded = x.flatten(1, 2)
        if folded.ndim in _CHANNELS_LAST:
            folded = folded.contiguous(memory_format=_CHANNELS_LAST[folded.ndim])
        y: Tensor = self.graph(folded)
        return y.view(len(y), members, -1)

    def member_state(self, n: int) -> dict[str, Tensor]:
        """Return views of the parameters and buffers of network n, under their original names."""
        return {name: value[n] for name, value in self.graph.state_dict().items()}

    def per_parameter(self, values: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter with the (N,) values of its networks, in a shape that broadcasts against it."""
        return [(p, values.view(-1, *(1,) * (p.ndim - 1))) for p in self.graph.parameters()]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _fused_graph(modules: Sequence[nn.Module]) -> fx.GraphModule:
    first = modules[0]
    if len(list(first.named_parameters(remove_duplicate=False))) > len(list(first.parameters())):
        raise Unfusable("layers of it share parameters")
    for module in modules:
        for layer in module.modules():
            if any(getattr(layer, hooks) for hooks in _HOOKS):
                raise Unfusable(f"a {type(layer).__name__} of it has hooks")
    traced = _trace(first, training=True)
    if _trace(first, training=False).code != traced.code:
        raise Unfusable("what it computes depends on whether it is trained")
    if any(_trace(module, training=True).code != traced.code for module in modules[1:]):
        raise Unfusable("what it computes depends on more than its parameters")
    _check_channels(traced, dict(first.named_modules()))
    named = [dict(module.named_modules()) for module in modules]
    for target in {node.target for node in traced.graph.nodes if node.op == "call_module"}:
        traced.set_submodule(target, _fused_layer([layers[target] for layers in named]))
    if unused := sorted(set(first.state_dict()) - set(traced.state_dict())):
        raise Unfusable(f"{unused[0]} is not a parameter or buffer of one of its layers that are used")
    traced.recompile()
    return traced


class _Tracer(fx.Tracer):
    """A tracer that notices what a graph does not show."""

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise Unfusable("a part of it switches gradients off")
        return super().create_node(*args, **kwargs)


def _trace(module: nn.Module, *, training: bool) -> fx.GraphModule:
    modes = {layer: layer.training for layer in module.modules()}
    module.train(training)
    state = torch.get_rng_state(), random.getstate()
    try:
        with torch.enable_grad():
            traced = fx.GraphModule(module, _Tracer().trace(module))
    except Unfusable:
        raise
    except Exception as error:  # tracing runs the user's code: whatever it raises means "not traceable"
        reason = (str(error).splitlines() or [""])[0]
        raise Unfusable(f"it cannot be traced ({type(error).__name__}: {reason})") from None
    finally:
        drew = not torch.equal(torch.get_rng_state(), state[0]) or random.getstate() != state[1]
        torch.set_rng_state(state[0])
        random.setstate(state[1])
        for layer, mode in modes.items():
            layer.training = mode
    if drew:
        raise Unfusable("it draws random numbers outside its layers")
    return traced


def _fused_layer(layers: Sequence[nn.Module]) -> nn.Module:
    kind = type(layers[0])
    options = [{k: v for k, v in vars(layer).items() if not k.startswith("_")} for layer in layers]
    if any(option != options[0] for option in options):
        raise Unfusable(f"a layer {kind.__name__} has other options in other networks")
    if kind in UNCHANGED_LAYERS:
        return layers[0]
    try:
        return LAYERS[kind](layers)
    except KeyError:
        raise Unfusable(f"layer {kind.__name__} is not in the operator table") from None
    except NotImplementedError as error:
        raise Unfusable(f"{error} is not in the operator table") from None


_FLAT = "flat"  # what a flatten gives, (B, F), F unknown


def _check_channels(traced: fx.GraphModule, layers: dict[str, nn.Module]) -> None:
    """Make sure that every operator is exact on folded channels.

    An activation is known by its number of channels, of one network; `_FLAT` after a flatten, (F,) where it is a vector
    of known length.
    Two of them can be added or multiplied if they have equally many; fewer would be broadcast over the networks.
    """
    channels: dict[fx.Node, Any] = {}
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        raise Unfusable(f"it takes {len(inputs)} inputs")
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            channels[node] = _of_input(node, layers)
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise Unfusable(f"it returns a {type(node.args[0]).__name__}")
        elif node.op == "call_module":
            if len(node.args) != 1 or node.kwargs:
                raise Unfusable(f"layer {node.target} is called with more than one input, or by keyword")
            channels[node] = _after_layer(layers[node.target], channels[node.args[0]])
        else:
            channels[node] = _after_function(node, channels)


def _of_input(node: fx.Node, layers: dict[str, nn.Module]) -> Any:
    for user in node.users:
        layer = layers.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            return (layer.in_features,)
        for name in ("in_channels", "num_features"):
            if hasattr(layer, name):
                return getattr(layer, name)
    return None


def _after_layer(layer: nn.Module, before: Any) -> Any:
    linear, flat = isinstance(layer, nn.Linear), before == _FLAT or isinstance(before, tuple)
    if linear and not flat:
        raise Unfusable("a linear layer acts on something else than a flattened activation")
    if isinstance(layer, nn.Linear):
        return (layer.out_features,)
    if isinstance(layer, nn.Flatten):
        return _FLAT
    return getattr(layer, "out_channels", before)


def _after_function(node: fx.Node, channels: dict[fx.Node, Any]) -> Any:
    name = getattr(node.target, "__name__", node.target)
    unknown = Unfusable(f"{name} ({node.op}) is not in the operator table")
    if node.op not in ("call_function", "call_method"):
        raise unknown
    values = _flat([*node.args, *node.kwargs.values()])
    used = [channels[a] for a in values if isinstance(a, fx.Node)]
    if node.target in (torch.flatten, "flatten"):
        options = {key: value for key, value in node.kwargs.items() if key != "input"}
        if flattens_all(*cast(Any, node.args[1:]), **cast(Any, options)):
            return _FLAT
        raise unknown
    known = UNCHANGED_FUNCTIONS if node.op == "call_function" else UNCHANGED_METHODS
    plain = all(isinstance(a, fx.Node | int | float | bool | torch.memory_format | None) for a in values)
    if node.target not in known or not plain:
        raise unknown
    if len(used) > 1 and (any(c != used[0] for c in used) or used[0] == _FLAT):
        raise Unfusable(f"{name} of activations that may differ in their number of channels")
    return used[0]


def _flat(args: Sequence[Any]) -> list[Any]:
    return [x for a in args for x in (_flat(a) if isinstance(a, tuple | list) else [a])]
