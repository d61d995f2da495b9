"""What is in a file answers as the same composition written by hand, for any batch, kind of image and aggregation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ddcnn.aggregation import Average, Dense, Vote
from ddcnn.decomposition import Grid, WithCoarse
from ddcnn.errors import ExportError
from ddcnn.exporting import FORMATS
from ddcnn.exporting.pieces import NetworkPiece, apart, together
from ddcnn.models import Normalization
from ddcnn.network import CNNDNN
from tests.fusion.helper import randomize, small_cnn

pytestmark = pytest.mark.usefixtures("seeded")
FACTS = {"classes": '["a", "\u4e2d"]'}
SIZES = {"2d": ((1, 3), (7, 11)), "3d": ((1, 2, 2), (3, 5, 6))}  # uneven: subimages of two shapes


def network_of(kind: str, aggregation: str = "dense", missing: tuple[int, ...] = ()) -> tuple[CNNDNN, list[nn.Module]]:
    parts, size = SIZES[kind]
    grid = Grid(parts, overlap=1)
    cnns = randomize([small_cnn(2, 3, len(size)).eval() for _ in grid.subdomains(size)])
    dense = Dense(len(grid), 3, hidden=(4,), shortcut=False)
    last = {"dense": dense, "average": Average(), "vote": Vote()}[aggregation]
    normalization = Normalization(torch.tensor([100.0, 50.0]), torch.tensor([60.0, 30.0]))
    made = CNNDNN(
        grid, cnns, last, image_size=size, normalization=normalization, backend="looped", missing=missing
    ).eval()
    return made, cnns


def images_of(kind: str, dtype: torch.dtype, count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 2, *SIZES[kind][1])).to(dtype)


def by_hand(network: CNNDNN, cnns: list[nn.Module], x: Tensor) -> Tensor:
    """Cut, normalise, ask each network, and put the missing to 1/K."""
    mean, std = (torch.tensor(v).view(1, 2, *[1] * (x.ndim - 2)) for v in ((100.0, 50.0), (60.0, 30.0)))
    said = []
    for n, (cnn, one) in enumerate(zip(cnns, network.local_cnns.subdomains, strict=True)):
        pixels = x[(..., *(slice(*pair) for pair in one.box))]
        p = cnn((pixels.float() - mean) / std).softmax(1)
        said.append(torch.full_like(p, 1 / 3) if n in network.missing else p)
    return torch.stack(said, 1)


@pytest.mark.parametrize(
    ("form", "kind", "aggregation", "dtype", "missing"),
    [
        ("onnx", "2d", "dense", torch.uint8, (1,)),
        ("onnx", "3d", "vote", torch.float32, ()),
        ("torch-export", "2d", "vote", torch.uint8, ()),
        ("torch-export", "3d", "average", torch.float32, (0,)),
        ("safetensors", "3d", "dense", torch.uint8, (2,)),
    ],
)
@torch.no_grad()
def test_the_whole_network(
    form: str, kind: str, aggregation: str, dtype: torch.dtype, missing: tuple[int, ...]
) -> None:
    _need(form)
    network, cnns = network_of(kind, aggregation, missing)
    images = images_of(kind, dtype)
    assembly = together(network, images)
    (piece,) = assembly.pieces
    piece(images)
    content = FORMATS[form].write(piece, images, FACTS)
    if (form, kind) == ("onnx", "2d"):
        _check_facts(content)
    run = FORMATS[form].read(content, copy.deepcopy(piece))
    for count in (1, 2, 7):
        x = images_of(kind, dtype, count)
        found, local = run(x), by_hand(network, cnns, x)
        scores = network.decide(local)
        torch.testing.assert_close(found["local_probabilities"], local, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["scores"], scores, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["probabilities"], scores.softmax(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@torch.no_grad()
def test_a_coarse_level_whose_size_does_not_divide_the_image(form: str) -> None:
    _need(form)
    size, coarse = (7, 11), (4, 5)
    decomposition = WithCoarse(Grid((1, 2)), coarse)
    cnns = randomize([small_cnn(2, 3, 2).eval() for _ in decomposition.subdomains(size)])
    normalization = Normalization(torch.tensor([100.0, 50.0]), torch.tensor([60.0, 30.0]))
    network = CNNDNN(
        decomposition, cnns, Average(), image_size=size, normalization=normalization, backend="looped"
    ).eval()
    images = torch.randint(0, 256, (4, 2, *size), dtype=torch.uint8)
    (piece,) = together(network, images).pieces
    piece(images)
    run = FORMATS[form].read(FORMATS[form].write(piece, images, FACTS), copy.deepcopy(piece))
    x = torch.randint(0, 256, (3, 2, *size), dtype=torch.uint8)
    torch.testing.assert_close(run(x)["probabilities"], network(x).softmax(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("form", "missing"), [("onnx", (0, 2)), ("torch-export", (1,)), ("safetensors", ())])
@torch.no_grad()
def test_each_local_cnn_apart(form: str, missing: tuple[int, ...]) -> None:
    _need(form)
    network, cnns = network_of("2d", "dense", missing)
    images = images_of("2d", torch.uint8)
    assembly = apart(network, images)
    assert [piece.name for piece in assembly.pieces] == [
        *(f"local-{n}" for n in range(3) if n not in missing),
        "aggregation",
    ]
    runs = []
    for piece, example in zip(assembly.pieces, assembly.examples, strict=True):
        piece(example)
        content = FORMATS[form].write(piece, example, {})
        runs.append(FORMATS[form].read(content, copy.deepcopy(piece)))
    x = images_of("2d", torch.uint8, 3)
    found, local = assembly.run(runs, x), by_hand(network, cnns, x)
    torch.testing.assert_close(found["local_probabilities"], local, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["probabilities"], network.decide(local).softmax(1), rtol=1e-3, atol=1e-4)


def _check_facts(content: bytes) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(content)
    assert {one.key: one.value for one in model.metadata_props} == FACTS
    (given,) = model.graph.input
    assert given.name == "images"
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 2, 7, 11]
    assert [one.name for one in model.graph.output] == list(NetworkPiece.outputs)


def test_parameters_that_a_safetensors_file_lacks_are_seen() -> None:
    from safetensors.torch import load, save

    network, _ = network_of("2d")
    images = images_of("2d", torch.uint8)
    piece = together(network, images).pieces[0]
    tensors = load(FORMATS["safetensors"].write(piece, images, {}))
    assert "normalization.mean" in tensors
    assert any(name.startswith("locals.2.") for name in tensors)
    tensors.pop("aggregation.layers.0.weight")
    with pytest.raises((KeyError, RuntimeError)):
        FORMATS["safetensors"].read(save(tensors), copy.deepcopy(piece))


def test_an_unknown_format() -> None:
    with pytest.raises(ExportError, match="did you mean 'onnx'"):
        FORMATS.find("onx")


def _need(form: str) -> None:
    if form == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="pip install 'ddcnn[export]'")
