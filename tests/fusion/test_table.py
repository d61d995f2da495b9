"""Each entry of the operator table, in every layout that a value can have, against each network alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddcnn.fusion import body, layers, pointwise
from ddcnn.fusion.operators import OPERATORS, Fusing
from ddcnn.fusion.stacked import NotSupportedError, Stacked, fold, lead

assert body, layers  # they fill the table
N, SHAPE = 3, (2, 4, 5, 6)
LAYOUTS = ["folded", "folded-channels-last", *(f"axis-{axis}" for axis in range(5))]
RANDOM = set(pointwise._DRAWN.split()) | {"empty_like", "feature_dropout", "dropout1d", "dropout2d", "dropout3d"}


def _values(shape: tuple[int, ...] = SHAPE, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return (N, *shape) between 0.1 and 0.9, where all functions are defined."""
    generator = torch.Generator().manual_seed(seed)
    drawn = 0.1 + 0.8 * torch.rand((N, *shape), generator=generator, dtype=torch.float64)
    return drawn > 0.5 if dtype == torch.bool else drawn.to(dtype)


def _in_layout(values: Tensor, layout: str) -> Stacked:
    if layout.startswith("axis-"):
        axis = min(int(layout[5:]), values.ndim - 1)
        return Stacked(values.movedim(0, axis).clone(memory_format=torch.contiguous_format), N, axis)
    if values.ndim < 3:
        return lead(values.clone())
    physical = values.movedim(0, 1).flatten(1, 2).clone()
    if "last" in layout and physical.ndim == 4:
        physical = physical.contiguous(memory_format=torch.channels_last)
    return fold(physical, N)


def _compare(function: Callable[..., Any], layout: str, *inputs: Any) -> None:
    """Apply to all networks' values at once and to each network's; compare results, and inputs afterwards."""
    together = [_in_layout(i, layout) if isinstance(i, Tensor) else i for i in inputs]
    with Fusing(N):
        result = function(*together)
    alone = [[i[n].clone() if isinstance(i, Tensor) else i for i in inputs] for n in range(N)]
    expected = [function(*own) for own in alone]
    for n in range(N):
        _equal(result, expected[n], n)
        for value, own in zip(together, alone[n], strict=True):
            _equal(value, own, n)


def _equal(result: Any, expected: Any, n: int) -> None:
    if isinstance(expected, tuple | list):
        assert len(result) == len(expected)
        for one, other in zip(result, expected, strict=True):
            _equal(one, other, n)
    elif isinstance(expected, Tensor):
        own = result.apart(0)[n] if type(result) is Stacked else result
        assert own.dtype == expected.dtype
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-12)
    else:
        assert result == expected


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "to": (torch.float32,), "type": (torch.float32,), "fill": (2.0,), "threshold": (0.5, 0.3), "full_like": (0.7,),
    "clamp": (0.3, 0.7), "clip": (0.3, 0.7), "clamp_min": (0.4,), "clamp_max": (0.6,),
}  # fmt: skip
BITS = {"bitwise_not", "bitwise_and", "bitwise_or", "bitwise_xor", "__invert__", "__and__", "__or__", "__xor__"}
BITS |= {"__iand__", "__ior__", "__ixor__", "logical_not", "logical_and", "logical_or", "logical_xor"}


def _plain_name(function: Any) -> str:
    name = str(function.__name__)
    return name if name.startswith("__") else name.rstrip("_").removeprefix("special_")


def _unique(names: str) -> list[Any]:
    wanted = set(names.split()) - RANDOM
    functions = [f for f in OPERATORS if getattr(f, "__name__", "") and _plain_name(f) in wanted]
    return [pytest.param(function, id=f"{n}-{function.__name__}") for n, function in enumerate(functions)]


@pytest.mark.parametrize("function", _unique(pointwise._ONE))
def test_of_one(function: Any) -> None:
    name = _plain_name(function)
    dtype = torch.bool if name in BITS else torch.float64
    for layout in LAYOUTS:
        try:
            function(_values(dtype=dtype)[0], *ARGUMENTS.get(name, ()))
        except (RuntimeError, TypeError, AssertionError) as error:  # no such form, or no GPU
            pytest.skip(str(error).splitlines()[0])
        _compare(lambda x: function(x, *ARGUMENTS.get(name, ())), layout, _values(dtype=dtype))


@pytest.mark.parametrize("function", _unique(pointwise._SEVERAL))
def test_of_several(function: Any) -> None:
    name = _plain_name(function)
    dtype = torch.bool if name in BITS else torch.float64
    extra: tuple[Any, ...] = {"lerp": (0.3,), "masked_fill": (0.2,)}.get(name, ())
    second = torch.bool if name == "masked_fill" else dtype
    third = name in ("addcmul", "addcdiv")
    for shape in ((), (4, 1, 1), (1, 4, 1, 1), (2, 1, 5, 6), SHAPE):
        others = [_values(shape, seed, second) for seed in ((1, 2) if third else (1,))]
        try:
            function(_values(dtype=dtype)[0], *(o[0] for o in others), *extra)
        except (RuntimeError, TypeError) as error:
            pytest.skip(str(error).splitlines()[0])
        for layout in LAYOUTS:
            _compare(lambda *inputs: function(*inputs, *extra), layout, _values(dtype=dtype), *others)
            common = [o[0] for o in others]  # the same for all networks
            _compare(lambda x, common=common: function(x, *common, *extra), layout, _values(dtype=dtype))


def test_values_in_different_layouts() -> None:
    x, y = _values(), _values(seed=1)
    for first in LAYOUTS:
        for second in LAYOUTS:
            with Fusing(N):
                z = torch.add(_in_layout(x, first), _in_layout(y, second))
            torch.testing.assert_close(z.apart(0), x + y)


SHAPES: dict[str, Callable[[Tensor], Any]] = {
    "view": lambda x: x.view(2, 2, 2, -1),
    "view-batch": lambda x: x.view(-1, 6),
    "view-size": lambda x: x.view(x.size(0), -1),
    "view-type": lambda x: x.contiguous().view(torch.int64),
    "view-as": lambda x: x.view_as(x),
    "reshape": lambda x: x.reshape((8, 30)),
    "reshape-function": lambda x: torch.reshape(x, (2, 4, 30)),
    "reshape-as": lambda x: x.reshape_as(x),
    "flatten": lambda x: x.flatten(1),
    "flatten-all": torch.flatten,
    "flatten-middle": lambda x: torch.flatten(x, start_dim=1, end_dim=2),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "unflatten-function": lambda x: torch.unflatten(x, 3, (2, 3)),
    "squeeze": lambda x: x[:1, :, :1].squeeze(),
    "squeeze-axis": lambda x: torch.squeeze(x[:, :1], 1),
    "unsqueeze": lambda x: x.unsqueeze(0) + torch.unsqueeze(x, -5),
    "ravel": lambda x: x.ravel() + torch.ravel(x),
    "expand": lambda x: x[:, :1].expand(-1, 7, -1, -1),
    "expand-more": lambda x: x.expand(3, *x.shape),
    "expand-as": lambda x: x[:, :1].expand_as(x),
    "broadcast": lambda x: torch.broadcast_to(x[:, :1], x.shape),
    "repeat": lambda x: x.repeat(2, 1, 3, 1) + x.repeat((2, 1, 3, 1)),
    "repeat-more": lambda x: x[0].repeat(2, 2, 1, 1),
    "tile": lambda x: x.tile(2) + torch.tile(x, (2,)) + x.tile((1, 2)),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "permute-function": lambda x: torch.permute(x, (3, 0, 2, 1)),
    "transpose": lambda x: x.transpose(1, -1),
    "transpose-batch": lambda x: torch.transpose(x, 0, 2),
    "swap": lambda x: x.swapaxes(0, 1) + x.swapdims(0, 1) + torch.swapaxes(x, 0, 1) + torch.swapdims(x, 0, 1),
    "movedim": lambda x: x.movedim(1, -1) + torch.movedim(x, 1, -1) + x.moveaxis(1, -1) + torch.moveaxis(x, 1, -1),
    "t": lambda x: x[0, 0].t() + torch.t(x[0, 0]),
    "matrix-transpose": lambda x: x.mT,
    "chunk": lambda x: x.chunk(2, 1),
    "chunk-batch": lambda x: torch.chunk(x, 2),
    "split": lambda x: x.split(3, dim=1),
    "split-sizes": lambda x: torch.split(x, [1, 3], 1),
    "tensor-split": lambda x: x.tensor_split(3, -1) + torch.tensor_split(x, 3, -1),
    "narrow": lambda x: x.narrow(1, 1, 2) + torch.narrow(x, 1, 1, 2),
    "select": lambda x: x.select(2, 1) + torch.select(x, 2, 1),
    "unbind": lambda x: x.unbind(1) + torch.unbind(x),
    "index-select": lambda x: x.index_select(1, torch.tensor([2, 0])) + torch.index_select(x, 1, torch.tensor([2, 0])),
    "flip": lambda x: x.flip(1, 2) + torch.flip(x, (1, 2)) + x.flip(2) + x.flip((0,)),
    "roll": lambda x: x.roll(1, 1) + torch.roll(x, 1, dims=2) + x.roll((1, 2), (1, 3)),
    "roll-flat": lambda x: x.roll(1),
    "cumsum": lambda x: x.cumsum(1) + torch.cumsum(x, dim=-1) + x.clone().cumsum_(0),
    "softmax": lambda x: x.softmax(1) + F.softmax(x, dim=1) + torch.softmax(x, -1) + x.softmax(0),
    "log-softmax": lambda x: x.log_softmax(1) + F.log_softmax(x, dim=2) + torch.log_softmax(x, 0) + F.softmin(x, dim=1),
    "softmax-of-two-axes": lambda x: x.flatten(2).softmax(-1),
    "mean": lambda x: x.mean((2, 3)),
    "mean-kept": lambda x: x.mean((-2, -1), keepdim=True) + torch.mean(x, dim=(2, 3), keepdim=True),
    "mean-channels": lambda x: x.mean(1, keepdim=True) + x.mean(dim=0),
    "mean-all": lambda x: x.mean() + torch.sum(x) + x.prod(),
    "sum": lambda x: x.sum(-1) + x.sum(axis=3) + torch.sum(x, 3),
    "extremes": lambda x: x.amax((1, 2)) + torch.amin(x, (1, 2)) + x.amax(dim=(1, 2)) + x.amin((1, 2)),
    "spread": lambda x: x.var((2, 3), unbiased=False) + torch.var(x, dim=(2, 3)) + x.std((2, 3)) + torch.std(x, (2, 3)),
    "prod": lambda x: x.prod(1) + torch.prod(x, 1),
    "logsumexp": lambda x: x.logsumexp(1) + torch.logsumexp(x, (1,)),
    "argmax": lambda x: x.argmax(1) + torch.argmax(x, dim=1) + x.argmin(1) + torch.argmin(x, 1),
    "argmax-all": lambda x: x.argmax() + torch.argmin(x),
    "any": lambda x: (x > 0.5).any(1) & torch.any(x > 0.5, 1) & (x > 0.5).all(1) & torch.all(x > 0.5, 1),
    "max-with-places": lambda x: tuple(x.max(1)),
    "top": lambda x: tuple(x.topk(2, 1)),
    "part": lambda x: (x[:, 1:3], x[0], x[..., -1], x[:, None], x[1, :, 2:, None]),
    "part-by-list": lambda x: x[:, [2, 0]],
    "part-by-tensor": lambda x: x[:, torch.tensor([2, 0]), 1],
    "cat": lambda x: torch.cat([x, x.relu(), x[:, :1]], 1) + torch.concat((x, x, x[:, :1]), dim=1),
    "cat-batch": lambda x: torch.cat([x, x]) + torch.concatenate([x, x], 0),
    "cat-last": lambda x: torch.cat([x, 2 * x], -1),
    "cat-vectors": lambda x: torch.cat([x[:, :, 0, 0], x[:, :, 1, 1]], 1),
    "cat-with-common": lambda x: torch.cat([x, torch.ones(SHAPE, dtype=x.dtype)], 1),
    "stack": lambda x: torch.stack([x, 2 * x]) + torch.stack((x, x), 0),
    "stack-last": lambda x: torch.stack([x, 2 * x], -1),
    "where": lambda x: torch.where(x > 0.5, x, -x) + x.where(x > 0.5, torch.zeros((), dtype=x.dtype)),
    "matmul": lambda x: x @ x.transpose(2, 3),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "normalize": lambda x: F.normalize(x, dim=1),
    "cosine": lambda x: F.cosine_similarity(x, x.flip(1), dim=1),
    "channel-shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 2),
    "new": lambda x: x.new_zeros(3, 2) + x.new_ones((3, 2)) + x.new_full((3, 2), 0.5),
    "new-by-keyword": lambda x: x.new_full(size=(3, 2), fill_value=1.0),
    "empty": lambda x: torch.empty(3, 2).fill_(1.0) + torch.empty((3, 2)).zero_() + torch.empty(size=(3, 2)).fill_(2),
    "set-in-place": lambda x: x.clone().mul_(2).add_(x, alpha=0.5).clamp_(max=1.2),
    "in-place-on-a-view": lambda x: (x[:, 1:].mul_(2), x),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", SHAPES.values(), ids=SHAPES)
def test_shapes(function: Callable[[Tensor], Any], layout: str) -> None:
    _compare(function, layout, _values())


def test_what_a_network_may_ask() -> None:
    x = _values(dtype=torch.float32)
    for layout in LAYOUTS:
        with Fusing(N):
            value = _in_layout(x, layout)
            assert (value.shape, value.size(1), value.dim(), value.ndim, len(value)) == (SHAPE, 4, 4, 4, 2)
            assert (value.numel(), value.nelement(), value.dtype, value.device.type) == (240, 240, x.dtype, "cpu")
            assert value.is_floating_point()
            assert not value.is_complex()
            assert not value.requires_grad
            assert isinstance(value, Tensor)


@pytest.mark.parametrize(
    "function",
    [
        float,
        int,
        bool,
        lambda x: x.item(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: 1.0 in x,
        lambda x: [1, 2][x.long()],
    ],
)
def test_numbers_cannot_be_read(function: Callable[[Tensor], Any]) -> None:
    with pytest.raises(NotSupportedError), Fusing(N):
        function(lead(_values((1,))[:, 0]))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    f"{name}{axes}d": (lambda make=make, axes=axes: make(axes), (2, 4, *(6, 5, 4)[:axes]))
    for axes in (1, 2, 3)
    for name, make in {
        "conv": lambda a: getattr(nn, f"Conv{a}d")(4, 6, 3, stride=2, padding=1, groups=2),
        "conv-dilated": lambda a: getattr(nn, f"Conv{a}d")(4, 4, 2, dilation=2, padding="same", bias=False),
        "transposed": lambda a: getattr(nn, f"ConvTranspose{a}d")(4, 6, 3, 2, 1, output_padding=1, groups=2),
        "batch-norm": lambda a: getattr(nn, f"BatchNorm{a}d")(4),
        "batch-norm-average": lambda a: getattr(nn, f"BatchNorm{a}d")(4, momentum=None),
        "instance-norm": lambda a: getattr(nn, f"InstanceNorm{a}d")(4, affine=True, track_running_stats=True),
        "max-pool": lambda a: getattr(nn, f"MaxPool{a}d")(2, 1, return_indices=True),
        "average-pool": lambda a: getattr(nn, f"AvgPool{a}d")(2, 1),
        "lp-pool": lambda a: getattr(nn, f"LPPool{a}d")(2, 2, 1),
        "adaptive-average": lambda a: getattr(nn, f"AdaptiveAvgPool{a}d")(2),
        "adaptive-max": lambda a: getattr(nn, f"AdaptiveMaxPool{a}d")(2, return_indices=True),
        "reflect": lambda a: getattr(nn, f"ReflectionPad{a}d")(1),
        "zero": lambda a: getattr(nn, f"ZeroPad{a}d")(1),
        "upsample": lambda a: nn.Upsample(scale_factor=2),
    }.items()
}  # fmt: skip
LAYERS |= {
    "group-norm": (lambda: nn.GroupNorm(2, 4), SHAPE),
    "layer-norm": (lambda: nn.LayerNorm(6), SHAPE),
    "layer-norm-of-three": (lambda: nn.LayerNorm((4, 5, 6), bias=False), SHAPE),
    "rms-norm": (lambda: nn.RMSNorm(6), SHAPE),
    "prelu": (lambda: nn.PReLU(4), SHAPE),
    "prelu-one": (nn.PReLU, SHAPE),
    "linear": (lambda: nn.Linear(6, 3), SHAPE),
    "linear-vector": (lambda: nn.Linear(4, 3, bias=False), (2, 4)),
    "batch-norm-vector": (lambda: nn.BatchNorm1d(4), (2, 4)),
    "pixel-shuffle": (lambda: nn.PixelShuffle(2), SHAPE),
    "pixel-unshuffle": (lambda: nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    "channel-pad": (lambda: nn.ConstantPad3d((0, 0, 0, 0, 1, 2), 0.5), SHAPE),
    "softmax2d": (nn.Softmax2d, SHAPE),
    "glu": (lambda: nn.GLU(1), SHAPE),
    "local-response": (lambda: nn.LocalResponseNorm(2), SHAPE),
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True), (2, 5, 6)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
@pytest.mark.usefixtures("seeded")
def test_layers(make: Callable[[], nn.Module], shape: tuple[int, ...], layout: str) -> None:
    modules = [make().double() for _ in range(N)]
    for n, module in enumerate(modules):
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * (n + torch.rand_like(value)))
    states = {name: torch.stack([m.state_dict()[name] for m in modules]) for name in modules[0].state_dict()}
    wrapped = {name: lead(value) for name, value in states.items()}
    values = _values(shape)

    def call(module: nn.Module, x: Tensor) -> Any:
        return module(x, x, x)[0] if isinstance(module, nn.MultiheadAttention) else module(x)

    layer, x = modules[0], _in_layout(values, layout)
    expected = [call(module, values[n].clone()) for n, module in enumerate(modules)]
    template = make().double()
    for part in template.modules():
        for kind in (part._parameters, part._buffers):
            prefix = next(name for name, module in template.named_modules() if module is part)
            kind.update({k: wrapped[f"{prefix}.{k}".lstrip(".")] for k, v in kind.items() if v is not None})
    with Fusing(N):
        averages = getattr(layer, "momentum", 0) is None
        result = layers.batch_norm_layer(template, x) if averages else call(template, x)
    for n in range(N):
        _equal(result, expected[n], n)
        for name, value in modules[n].state_dict().items():
            torch.testing.assert_close(states[name][n], value, rtol=1e-10, atol=1e-12)
