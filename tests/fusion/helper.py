"""N separate networks and their fused form do the same: the one check behind all tests of fusion."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import Backend, FusedCNN, fuse, unfuse

Optimizers = dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]]

# AdamW divides by the gradient's size; with its usual 1e-8 it would turn rounding errors in float32 into steps.
OPTIMIZERS: Optimizers = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, eps=1e-3),
}
TOLERANCE = {torch.float32: (1e-3, 1e-4), torch.float64: (1e-7, 1e-9)}  # relative, absolute


def assert_equal_to_separate(
    modules: Sequence[nn.Module],
    x: Tensor,
    *,
    backend: Backend = "fused",
    optimizers: Iterable[str] = tuple(OPTIMIZERS),
    steps: int = 5,
    pace: float = 1.0,
    example: Tensor | None = None,
) -> FusedCNN:
    """Compare in the precision of ``x``, (B, N, C, *s): outputs, gradients, statistics, and whole optimiser steps.

    Each backend is compared with the separate networks, so those that pass are equal to one another as well.
    ``pace`` is a factor on the learning rate: large steps in a deep network with random parameters amplify rounding.
    """
    modules = [copy.deepcopy(module).to(x.dtype) for module in modules]
    fused = fuse(modules, backend=backend, example=example)
    assert backend in ("auto", fused.backend), fused.reason
    _assert_equal_passes(copy.deepcopy(fused), [copy.deepcopy(m) for m in modules], x)
    for name in optimizers:
        separate = [copy.deepcopy(m) for m in modules]
        _assert_equal_steps(copy.deepcopy(fused), separate, x, OPTIMIZERS[name], steps, pace)
    _assert_unfuses_to(fused, modules)
    return fused


def small_cnn(in_channels: int, classes: int, axes: int = 2) -> nn.Module:
    """Return a network for images of any size of at least 1 pixel."""
    conv, norm, pool = {
        2: (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d),
        3: (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d),
    }[axes]
    layers = (conv(in_channels, 4, 3, padding=1), norm(4), nn.ReLU(), pool(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4 * 2**axes, classes))


def randomize(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Give each network its own parameters and statistics, none of them zero or one: no mix-up stays hidden."""
    for n, module in enumerate(modules):
        generator = torch.Generator().manual_seed(n)
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                value.fill_(2)
                continue
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.add_(noise.abs() if name.endswith("running_var") else 0.2 * noise)
    return list(modules)


def _assert_equal_passes(fused: FusedCNN, separate: list[nn.Module], x: Tensor) -> None:
    for training in (True, False):
        for module in (fused, *separate):
            module.train(training)
        inputs, parts = x.clone().requires_grad_(), [part.clone().requires_grad_() for part in x.unbind(1)]
        scores = fused(inputs)
        expected = [m(part) for m, part in zip(separate, parts, strict=True)]
        _close(scores, torch.stack(expected, 1))
        fused.zero_grad()
        _loss(scores, _labels(scores)).backward()
        gradients = gradients_by_network(fused)
        for n, module in enumerate(separate):
            module.zero_grad()
            _loss(expected[n].unsqueeze(1), _labels(scores)).backward()
            _close(gradients[n], {name: p.grad for name, p in module.named_parameters()})
            _close(fused.member_state(n), module.state_dict())
        if inputs.grad is None:  # some networks cut it off
            assert all(part.grad is None for part in parts)
        else:
            _close(inputs.grad, torch.stack([part.grad for part in parts], 1))


def _assert_equal_steps(
    fused: FusedCNN,
    separate: list[nn.Module],
    x: Tensor,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    steps: int,
    pace: float,
) -> None:
    for module in (fused, *separate):
        module.train()
    together, alone = optimizer(fused.parameters()), [optimizer(m.parameters()) for m in separate]
    for group in [group for each in (together, *alone) for group in each.param_groups]:
        group["lr"] *= pace
    for step in range(steps):
        batch = x.roll(step, 0) + 0.1 * step
        labels = _labels(batch).roll(step)
        losses = _loss(fused(batch), labels)
        expected = [_loss(m(batch[:, n]).unsqueeze(1), labels) for n, m in enumerate(separate)]
        _close(losses, torch.stack(expected).sum())
        together.zero_grad()
        losses.backward()
        together.step()
        for own, loss in zip(alone, expected, strict=True):
            own.zero_grad()
            loss.backward()
            own.step()
    for n, module in enumerate(separate):
        _close(fused.member_state(n), module.state_dict())


def _assert_unfuses_to(fused: FusedCNN, modules: list[nn.Module]) -> None:
    for got, module in zip(unfuse(fused), modules, strict=True):
        classes = [[(name, type(m).__qualname__) for name, m in net.named_modules()] for net in (got, module)]
        assert classes[0] == classes[1]
        assert list(got.state_dict()) == list(module.state_dict())
        state = got.state_dict()
        for name, value in module.state_dict().items():
            assert value.dtype == state[name].dtype, name
            assert torch.equal(value, state[name]), name
        for parameter, other in zip(module.parameters(), got.parameters(), strict=True):
            assert parameter.requires_grad == other.requires_grad


def gradients_by_network(fused: FusedCNN) -> list[dict[str, Tensor | None]]:
    """Return the gradients of each network under its own names: as the state of a copy that holds them."""
    twin = copy.deepcopy(fused)
    known, names = set(), {name for name, _ in fused.extract(0).named_parameters()}
    with torch.no_grad():
        for copied, parameter in zip(twin.parameters(), fused.parameters(), strict=True):
            if parameter.grad is not None:
                copied.copy_(parameter.grad)
                known.add(copied.untyped_storage().data_ptr())
    return [
        {
            name: value if value.untyped_storage().data_ptr() in known else None
            for name, value in twin.member_state(n).items()
            if name in names
        }
        for n in range(fused.members)
    ]


def _labels(x: Tensor) -> Tensor:
    return torch.arange(len(x)) % 2


def _loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum over networks of the mean over the batch."""
    B, N = scores.shape[:2]
    return sum(F.cross_entropy(scores[:, n].reshape(B, -1), labels) for n in range(N))  # type: ignore[return-value]


def _close(got: object, expected: object) -> None:
    sample = (
        got
        if isinstance(got, Tensor)
        else next(
            v
            for v in got.values()
            if v is not None and v.is_floating_point()  # type: ignore[attr-defined]
        )
    )
    relative, absolute = TOLERANCE[sample.dtype]
    torch.testing.assert_close(got, expected, rtol=relative, atol=absolute)
