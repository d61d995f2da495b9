"""Networks that only decide: batch norm folded into convolutions, N of them as one, proved, and no gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
import torch.fx
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ddcnn.errors import FusionError, in_one_line
from ddcnn.fusion.backend_choice import fastest, network_key, ratio
from ddcnn.fusion.fuse import BackendName, FusedCNN, build, unfuse
from ddcnn.fusion.proof import LARGE, TOLERANCE
from ddcnn.fusion.proof_modes import SampleBySample

_SAMPLES = 2  # in eval mode no sample knows of another
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def for_inference(
    network: FusedCNN, sample_shape: Sequence[int], *, example: Shaped[Tensor, "B N C *s"] | None = None
) -> FusedCNN:
    """Return copies of N networks that give the same scores in eval mode, sooner, and are not to be trained.

    Batch norm that follows a convolution becomes a part of it, where `torch.fx` can tell which follows which, and the N
    networks run as one. Each form is proved: its scores are those of the networks as they are, in eval mode, in
    float64, on random input. What is not equal is not used; ``reason`` says so.

    Parameters
    ----------
    network
        The networks, on any backend.
    sample_shape
        (C, *s) of what one of them sees.
    example
        Input of real shape, to choose the backend by measurement; None takes the fused form if there is one.
    """
    modules = [module.eval() for module in unfuse(network)]
    dtypes = {value.dtype for value in modules[0].state_dict().values() if value.is_floating_point()}
    if len(dtypes) != 1:
        return _kept(network, "it has numbers of several types, or none")
    (dtype,) = dtypes
    try:
        expected, x = _expected(modules, sample_shape)
    except (RuntimeError, TypeError, ValueError) as error:
        return _kept(network, f"it does not compute in float64: {in_one_line(error)}")
    pairs, obstacle = foldable(modules[0])
    for module in modules:
        fold(module, pairs)  # in float64, as all that is compared
    candidates: dict[str, FusedCNN] = {}
    backends: tuple[BackendName, ...] = ("fused", "looped") if len(modules) > 1 else ("looped",)
    for backend in backends:
        with contextlib.suppress(FusionError):
            candidate = build(modules, backend)
            if _gives(candidate, x, expected):
                candidates[backend] = _frozen(candidate.to(dtype))
        if backend in candidates and example is None:
            break
    if not candidates:
        return _kept(network, "with batch norm folded it gives other scores")
    best, measured = next(iter(candidates)), ""
    if example is not None and len(candidates) > 1:
        steps = {name: _decision(one, example) for name, one in candidates.items()}
        best, seconds = fastest(steps, ["inference", len(modules), *network_key(modules[0], example)])
        measured = f", {ratio(seconds, best)}"
    what = obstacle or f"{len(pairs)} batch norms folded into convolutions"
    candidates[best].reason = f"{best}{measured}; {what}"
    return candidates[best]


def foldable(network: nn.Module) -> tuple[list[tuple[str, str]], str]:
    """Return the names of convolutions, each with that of the batch norm that alone sees what it computes.

    Returns
    -------
    pairs, obstacle
        Where `torch.fx` cannot follow the network, none, and why, in one line.

    Examples
    --------
    >>> foldable(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)))
    ([('0', '1')], '')
    """
    try:
        nodes = list(torch.fx.symbolic_trace(network).graph.nodes)
    except Exception as error:  # whatever the network's code does with what is not a tensor
        return [], f"batch norm is not folded: {(str(error).splitlines() or [type(error).__name__])[0]}"
    layers = dict(network.named_modules())
    calls = [node for node in nodes if node.op == "call_module"]
    runs = [layers[node.target] for node in calls]

    def once(node: torch.fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return node.op == "call_module" and isinstance(layers[node.target], kinds) and _once(layers[node.target], runs)

    pairs = []
    for node in calls:
        before = node.args[0] if node.args else None
        if not isinstance(before, torch.fx.Node) or len(before.users) != 1:
            continue
        if once(node, _NORMS) and once(before, _CONVOLUTIONS) and layers[node.target].running_mean is not None:
            pairs.append((str(before.target), str(node.target)))
    return pairs, ""


def _once(layer: nn.Module, runs: Sequence[nn.Module]) -> bool:
    return sum(layer is one for one in runs) == 1


def fold(network: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
    """Put each batch norm into the convolution before it; the network is in eval mode from now on."""
    network.eval()
    for convolution, norm in pairs:
        layers = network.get_submodule(convolution), network.get_submodule(norm)
        network.set_submodule(convolution, fuse_conv_bn_eval(*layers))  # type: ignore[arg-type, type-var]
        network.set_submodule(norm, nn.Identity())


def _expected(modules: Sequence[nn.Module], sample_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the scores of networks, each alone, and the random input (B, N, C, *s) for which they are."""
    device = next((value.device for value in modules[0].parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shape = (_SAMPLES, len(modules), *sample_shape)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
    parts = zip(modules, x.unbind(1), strict=True)
    return torch.stack([_scores(module, part) for module, part in parts], 1), x


def _gives(candidate: FusedCNN, x: Tensor, expected: Tensor) -> bool:
    try:
        found = _scores(candidate.body, x)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False
    if found.shape != expected.shape or not expected.isfinite().all():
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


@torch.no_grad()
def _scores(network: nn.Module, x: Tensor) -> Tensor:
    # PyTorch imports a second's worth of compiler when a mode is first used, so only where memory needs it
    sparing = SampleBySample() if x.nbytes > LARGE else contextlib.nullcontext()  # type: ignore[no-untyped-call]
    with torch.autocast(x.device.type, enabled=False), sparing:
        scores: Tensor = network.double().eval()(x.clone())  # which may be changed in place
    return scores


def _frozen(network: FusedCNN) -> FusedCNN:
    network.proved = True
    return network.eval().requires_grad_(False)


def _kept(network: FusedCNN, obstacle: str) -> FusedCNN:
    """Return a copy of networks as they are, in turn."""
    kept = _frozen(build(unfuse(network), "looped"))
    kept.reason = f"looped, as it is: {obstacle}"
    return kept


def _decision(network: FusedCNN, example: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            network(example)
        if example.device.type == "cuda":
            torch.cuda.synchronize(example.device)

    return run
