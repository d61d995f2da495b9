"""N equal networks -> one grouped network, by tracing the first and replacing each operator by its fused form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from ddcnn.fusion.operators import (
    LAYERS,
    UNCHANGED_FUNCTIONS,
    UNCHANGED_LAYERS,
    UNCHANGED_METHODS,
    flattens_all,
)


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
    try:
        traced = fx.symbolic_trace(modules[0])
    except Exception as error:  # tracing runs the user's code: whatever it raises means "not traceable"
        raise Unfusable(f"it cannot be traced ({type(error).__name__}: {str(error).splitlines()[0]})") from None
    if len(list(modules[0].named_parameters(remove_duplicate=False))) > len(list(modules[0].parameters())):
        raise Unfusable("layers of it share parameters")
    named = [dict(module.named_modules()) for module in modules]
    called: set[str] = set()
    for node in traced.graph.nodes:
        if node.op == "call_module":
            called.add(node.target)
        else:
            _check_node(node)
    for target in called:
        traced.set_submodule(target, _fused_layer([layers[target] for layers in named]))
    if unused := [name for name, _ in modules[0].named_parameters() if name not in dict(traced.named_parameters())]:
        raise Unfusable(f"parameter {unused[0]} is not used in forward")
    traced.recompile()
    return traced


def _fused_layer(layers: Sequence[nn.Module]) -> nn.Module:
    kind = type(layers[0])
    if any(getattr(layer, hooks) for layer in layers for hooks in _HOOKS):
        raise Unfusable(f"a layer {kind.__name__} has hooks")
    if kind in UNCHANGED_LAYERS:
        return layers[0]
    if kind not in LAYERS:
        raise Unfusable(f"layer {kind.__name__} is not in the operator table")
    try:
        return LAYERS[kind](layers)
    except NotImplementedError as error:
        raise Unfusable(f"{error} is not in the operator table") from None


def _check_node(node: fx.Node) -> None:
    if node.op in ("placeholder", "output"):
        return
    if node.op == "call_function" and (node.target in UNCHANGED_FUNCTIONS and _plain(node)):
        return
    if node.op == "call_method" and node.target in UNCHANGED_METHODS and _plain(node):
        return
    flattens = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    if flattens and flattens_all(*cast(Any, node.args[1:]), **cast(Any, node.kwargs)):
        return
    name = getattr(node.target, "__name__", node.target)
    raise Unfusable(f"{name} ({node.op}) is not in the operator table")


def _plain(node: fx.Node) -> bool:
    # Numbers and activations broadcast over the folded channels; a tensor constant would not.
    values = _flat([*node.args, *node.kwargs.values()])
    plain = all(isinstance(a, fx.Node | int | float | bool | None) for a in values)
    return plain and not any(isinstance(a, fx.Node) and a.op == "get_attr" for a in values)


def _flat(args: Sequence[Any]) -> list[Any]:
    return [x for a in args for x in (_flat(a) if isinstance(a, tuple | list) else [a])]
