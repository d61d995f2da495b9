"""Networks that tempt a tracer: each is fused exactly, or falls back with a reason; it is never silently wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion import fuse, unfuse
from tests.fusion.helper import assert_equal_to_separate, randomize

pytestmark = pytest.mark.usefixtures("seeded")


class Net(nn.Module):
    """A convolution, `between`, and a head; subclasses tempt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)
        self.flatten, self.linear = nn.Flatten(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.conv(x)))

    def between(self, x: Tensor) -> Tensor:
        return x

    def head(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.pool(x)))


class Function(Net):
    """A function of activations that depends on where the channels are."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def between(self, x: Tensor) -> Tensor:
        return self.function(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(1),
    "softmax-function": lambda x: F.softmax(x, dim=1),
    "mean-of-channels": lambda x: x + x.mean(1, keepdim=True),
    "norm-of-all": lambda x: x / x.norm(),
    "max": lambda x: x - torch.amax(x, (1, 2, 3), keepdim=True),
    "cat": lambda x: torch.cat([x[:, :2], x.relu()[:, 2:]], 1),
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "slice": lambda x: x[:, [1, 0, 3, 2]],
    "max-pool": lambda x: F.max_pool2d(x, 2),
    "flatten-and-back": lambda x: x.flatten(2).view(x.shape),
    "view": lambda x: x.view(x.size(0), -1).view_as(x),
    "transpose": lambda x: x.transpose(1, 2).transpose(1, 2),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "tensor-constant": lambda x: x * torch.arange(4.0).view(4, 1, 1),
    "tensor-keyword": lambda x: torch.add(x, other=torch.arange(4.0).view(4, 1, 1)),
    "scalar-tensor": lambda x: x * torch.tensor(2.0),
    "list": lambda x: torch.stack([x, x]).sum(0),
    "group-norm": lambda x: F.group_norm(x, 2),
    "layer-norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "dropout": lambda x: F.dropout(x, 0.0),
    "roll": lambda x: x.roll(1, 1),
    "shuffle": lambda x: F.channel_shuffle(x, 2),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0),
    "pad": lambda x: F.pad(x, (0, 0, 0, 0, 1, 0))[:, 1:],
    "detach": lambda x: x + x.detach(),
    "item": lambda x: x * x.detach().mean().item(),
    "memory-format": lambda x: x.contiguous(memory_format=torch.contiguous_format),
    "branch": lambda x: x if x.sum() > 0 else -x,
    "flatten-dims": lambda x: torch.flatten(x, 2, 3).unflatten(2, x.shape[2:]),
}


class Parameter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def between(self, x: Tensor) -> Tensor:
        return x * self.scale + self.linear.bias.sum()


class UnusedParameter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 2)


class Buffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(4, 1, 1))

    def between(self, x: Tensor) -> Tensor:
        return x + self.offset


class UnusedBuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("version", torch.ones(2))


class BufferAsNumber(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(()))

    def between(self, x: Tensor) -> Tensor:
        return x * self.scale.item()


class TrainingFlag(Net):
    def between(self, x: Tensor) -> Tensor:
        return 2 * x if self.training else x


class RefusesProxies(Net):
    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError
        return super().forward(x)


class OptionalInput(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x if mask is None else x * mask)


class SpatialGate(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(4, 1, 1)

    def between(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class LinearAlongAnAxis(Net):
    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Linear(6, 6)

    def between(self, x: Tensor) -> Tensor:
        return self.along(x)


class TiedParameters(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight

    def between(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class LayerWithTwoNames(Net):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.second = self.first

    def between(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class LayersUsedTwice(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(self.mix(self.norm(self.mix(x))))


class Frozen(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv.requires_grad_(False)


class WithoutGradients(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.conv(x)
        return self.head(y)


class LayerHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda _layer, _inputs, output: 2 * output)


class UnchangedLayerHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.pool.register_forward_pre_hook(lambda _layer, inputs: (inputs[0].softmax(1),))


class NetworkHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_forward_hook(lambda _layer, _inputs, output: 2 * output)


class WeightNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)


class FlattenByKeyword(Net):
    def head(self, x: Tensor) -> Tensor:
        return self.linear(torch.flatten(input=self.pool(x), start_dim=1))


class CallByKeyword(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(input=x))


class FlattenAll(Net):
    def head(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(x).flatten().view(-1, 4))


class UnknownLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ChannelSoftmax(Net):
    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(1)

    def between(self, x: Tensor) -> Tensor:
        return self.softmax(x)


class ChannelDropout(Net):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(0.0)

    def between(self, x: Tensor) -> Tensor:
        return self.drop(x)


class OwnConvolution(Net):
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.Scaled(3, 4, 3)


class NamesOfTheTracer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.graph, self.code = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.code(self.graph(x))


NETWORKS: list[type[Net]] = [
    Parameter,
    UnusedParameter,
    Buffer,
    UnusedBuffer,
    BufferAsNumber,
    TrainingFlag,
    RefusesProxies,
    OptionalInput,
    SpatialGate,
    LinearAlongAnAxis,
    TiedParameters,
    LayerWithTwoNames,
    LayersUsedTwice,
    Frozen,
    WithoutGradients,
    LayerHook,
    UnchangedLayerHook,
    NetworkHook,
    WeightNorm,
    FlattenByKeyword,
    CallByKeyword,
    FlattenAll,
    UnknownLayer,
    ChannelSoftmax,
    ChannelDropout,
    OwnConvolution,
    NamesOfTheTracer,
]


def _exact(networks: list[nn.Module]) -> None:
    x = torch.randn(4, 3, 3, 5, 6)
    fused = assert_equal_to_separate(networks, x.double(), backend="auto", optimizers=["sgd"], steps=2)
    assert fused.reason
    assert "\n" not in fused.reason


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function(function: Callable[[Tensor], Tensor]) -> None:
    _exact(randomize([Function(function) for _ in range(3)]))


@pytest.mark.parametrize("kind", NETWORKS)
def test_network(kind: type[Net]) -> None:
    _exact(randomize([kind() for _ in range(3)]))


def _refused_or_right(networks: list[nn.Module]) -> None:
    x = torch.randn(4, len(networks), 3, 5, 6)
    expected = torch.stack([network(x[:, n]) for n, network in enumerate(networks)], 1)
    try:
        fused = fuse(networks)
    except FusionError:
        return
    torch.testing.assert_close(fused(x), expected)
    again = torch.stack([network(x[:, n]) for n, network in enumerate(unfuse(fused))], 1)
    torch.testing.assert_close(again, expected)


def test_numbers_that_differ_between_networks() -> None:
    class Scaled(Net):
        scale = 1.0

        def between(self, x: Tensor) -> Tensor:
            return x * self.scale

    networks = [Scaled() for _ in range(3)]
    for n, network in enumerate(networks):
        network.scale = n + 1.0
    _refused_or_right(networks)


def test_options_that_a_layer_does_not_print() -> None:
    class Pooled(Net):
        def __init__(self, *, include: bool) -> None:
            super().__init__()
            self.average = nn.AvgPool2d(3, 1, 1, count_include_pad=include)  # not in its extra_repr

        def between(self, x: Tensor) -> Tensor:
            return self.average(x)

    networks = [Pooled(include=include) for include in (True, False)]
    _refused_or_right(networks)


def test_random_depth() -> None:
    class RandomDepth(Net):
        def between(self, x: Tensor) -> Tensor:
            return 2 * x if torch.rand(()) < 0.5 else x

    class PythonRandomDepth(Net):
        def between(self, x: Tensor) -> Tensor:
            return 2 * x if random.random() < 0.5 else x

    for kind in (RandomDepth, PythonRandomDepth):
        assert fuse([kind() for _ in range(2)]).backend == "looped", kind


def test_networks_that_share_a_layer_are_refused() -> None:
    shared = nn.Conv2d(3, 4, 3)
    networks = [nn.Sequential(shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)) for _ in range(3)]
    for backend in ("fused", "vmapped", "looped"):
        with pytest.raises(FusionError, match=r"^networks 0 and 1 share the parameter 0.weight; give each its own$"):
            fuse(networks, backend)
