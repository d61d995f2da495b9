"""What has been proved is not proved again; whatever else is, whichever arguments are absent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.errors import FusionError
from ddcnn.fusion import Proofs, fuse, fuses
from ddcnn.fusion.operators import LAYERS
from ddcnn.fusion.stacked import Stacked

SHAPE = (3, 5, 4)
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("seeded")


class Doubling(nn.Module):
    """A layer whose rule may be wrong."""

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Tripling(Doubling):
    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + x


@pytest.fixture
def wrong_rule() -> Iterator[None]:
    @fuses(Doubling)
    def doubled(layer: Any, x: Any) -> Any:
        return Stacked(1.5 * x.physical, x.members, x.axis)

    yield
    del LAYERS[Doubling]


def _network(layer: nn.Module | None = None, width: int = 4) -> nn.Module:
    pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), layer or Doubling(), *pool)


def _networks(count: int = 2) -> list[nn.Module]:
    return [_network() for _ in range(count)]


def test_certificates_survive_json() -> None:
    proofs = Proofs()
    assert not proofs.holds(_network(), SHAPE, "fused", CPU)
    proofs.add(_network(), SHAPE, "fused", CPU)
    kept = json.loads(json.dumps(proofs.certificates()))
    assert [len(certificate) for certificate in kept] == [64]
    assert Proofs(kept).holds(_network(), torch.Size(SHAPE), "fused", CPU)  # other parameters, other object
    assert Proofs(kept).holds(_network().eval(), SHAPE, "fused", CPU)


OTHERS = {
    "structure": (lambda: _network(width=5), SHAPE, "fused"),
    "class": (lambda: _network(Tripling()), SHAPE, "fused"),
    "option": (lambda: _network(Doubling(3.0)), SHAPE, "fused"),
    "shape": (_network, (3, 4, 5), "fused"),
    "channels": (_network, (1, 5, 4), "fused"),
    "backend": (_network, SHAPE, "vmapped"),
}


@pytest.mark.parametrize(("make", "shape", "backend"), OTHERS.values(), ids=OTHERS)
def test_a_proof_of_something_else_does_not_count(make: Any, shape: tuple[int, ...], backend: str) -> None:
    proofs = Proofs()
    proofs.add(_network(), SHAPE, "fused", CPU)
    assert not proofs.holds(make(), shape, backend, CPU)


def test_another_forward_of_a_class_of_the_same_name_does_not_count() -> None:
    def network(offset: int) -> nn.Module:
        scope: dict[str, Any] = {"nn": nn}
        exec(f"class Own(nn.Module):\n    def forward(self, x):\n        return x + {offset}", scope)
        return _network(scope["Own"]())

    proofs = Proofs()
    proofs.add(network(1), SHAPE, "fused", CPU)
    assert proofs.holds(network(1), SHAPE, "fused", CPU)
    assert not proofs.holds(network(2), SHAPE, "fused", CPU)


@pytest.mark.parametrize("other", ["torch.__version__", "ddcnn.fusion.proofs.device_name"])
def test_another_machine_or_pytorch_proves_again(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    proofs = Proofs()
    proofs.add(_network(), SHAPE, "fused", CPU)
    monkeypatch.setattr(other, "9.9" if "version" in other else lambda device: "another processor")
    assert not proofs.holds(_network(), SHAPE, "fused", CPU)


GIVEN: dict[str, dict[str, Any]] = {
    "nothing": {},
    "shape": {"sample_shape": SHAPE},
    "example": {"example": torch.ones(2, 2, *SHAPE)},
    "expanded": {"example": torch.zeros(()).expand(2, 2, *SHAPE)},
    "no-proofs": {"proofs": None},
    "empty": {"proofs": Proofs()},
}


@pytest.mark.usefixtures("wrong_rule")
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_wrong_rule_is_found_whatever_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(FusionError, match=r"^these networks cannot be fused: it differs from the loop by"):
        fuse(_networks(), "fused", **given)
    assert given.get("proofs") is None or given["proofs"].certificates() == []
    assert fuse(_networks(), **given).backend != "fused"


@pytest.mark.usefixtures("wrong_rule")
def test_what_is_known_is_not_proved_again_with_any_number_of_networks() -> None:
    proofs = Proofs()
    proofs.add(_network(), SHAPE, "fused", CPU)
    for count in (2, 5):
        assert fuse(_networks(count), "fused", sample_shape=SHAPE, proofs=proofs).proved
    with pytest.raises(FusionError, match="differs"):
        fuse(_networks(), "fused", sample_shape=(3, 6, 6), proofs=proofs)


def test_what_is_proved_is_noted_and_a_subset_of_it_stays_proved() -> None:
    proofs = Proofs()
    fused = fuse(_networks(4), "fused", example=torch.zeros(()).expand(1, 4, *SHAPE), proofs=proofs)
    assert proofs.holds(_network(), SHAPE, "fused", CPU)
    assert fused.proved
    assert fused.subset([3, 1]).proved


def test_proofs_of_others_are_taken_over() -> None:
    here, there = Proofs(), Proofs()
    there.add(_network(), SHAPE, "fused", CPU)
    here.update(there)
    assert here.certificates() == there.certificates()
