"""Passes that are captured and replayed against the code itself. On a CPU, a tape does as a CUDA graph would."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batch import Batch
from ddcnn.models import LocalCNNs
from ddcnn.training import (
    CrossEntropy,
    Distribution,
    FadingLocalLosses,
    Loss,
    MemberOptimizer,
    Objective,
    Single,
    Step,
    fit,
)
from ddcnn.training.replay import Replay, capture_cuda_graph, replay_of
from tests.training.helper import GRID, MEMBERS, SIZE, batch_of, small_data, small_networks, whole
from tests.training.tape import Tape

pytestmark = pytest.mark.usefixtures("seeded", "without_dice")
AFTER = 3
SIZES = (9, 9, 4, 9, 9, 9, 4, 9)  # the last batch of an epoch is a smaller one
REPLAYED = ["forward and backward pass are replayed as one CUDA graph"]
VALUES: dict[str, dict[str, Any]] = {
    "nesterov": {"optimizer": "sgd"},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "clipped": {"clip_norm": 0.3},
    "each": {"subdomains": {0: {"lr": 0.3}, 2: {"lr": 1e-4}}},
    "sharpness": {"sam": 0.3},
    "smoothed": {"label_smoothing": 0.1},
}


def networks_with_dropout() -> list[nn.Module]:
    networks = small_networks()
    for network in networks:
        assert isinstance(network, nn.Sequential)
        network.insert(3, nn.Dropout(0.3))
    return networks


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(size, 1, *SIZE, dtype=torch.float64), torch.randint(3, (size,))) for size in SIZES]


class Trained:
    """Two trainings of the same, one of which is replayed."""

    def __init__(self, make: Callable[[], Any], values: dict[str, Any] | None = None, *, fading: bool = False) -> None:
        self.fading = fading
        self.config = TrainingConfig(**({"lr": 0.1} | (values or {})))
        self.tape, self.notes = Tape(), list[str]()
        first = make().train()
        second = copy.deepcopy(first)
        replay = Replay(second, after=AFTER, capture=self.tape, note=self.notes.append)
        self.steps = [self._step(first, None), self._step(second, replay)]
        self.found: list[list[Tensor]] = [[], []]

    def _step(self, network: Any, replay: Replay | None) -> Step:
        config = self.config
        own = [config.of(n) for n in range(network.members)]
        objective: Objective = CrossEntropy(config.label_smoothing, torch.tensor([1.0, 2.0, 0.5]))
        optimizer = MemberOptimizer(network, config, own)
        if self.fading:
            objective = FadingLocalLosses(0.3, objective)
        return Step(network, optimizer, "float32", objective, radius=config.sam, replay=replay)

    def go_on(self, images: Tensor, labels: Tensor, *, schedule: float = 1.0, at: float = 0.0) -> None:
        """Do a step of both, with the same random numbers."""
        states = torch.get_rng_state(), random.getstate()
        for number, step in enumerate(self.steps):
            torch.set_rng_state(states[0])
            random.setstate(states[1])
            batch = Batch(images, labels, torch.arange(len(labels)))
            if isinstance(step.network, LocalCNNs):
                batch = batch_of(images, labels, step.network)
            self.found[number] += step(batch, schedule=schedule, at=at)

    def check(self) -> None:
        """Both trainings are the same, bit for bit."""
        assert all(torch.equal(a, b) for a, b in zip(*self.found, strict=True))
        states = [step.network.state_dict() for step in self.steps]  # type: ignore[attr-defined]
        for name, value in states[0].items():
            assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_replayed_passes_train_as_the_code_does(values: dict[str, Any], backend: Any) -> None:
    networks = networks_with_dropout()
    trained = Trained(lambda: LocalCNNs(GRID, networks, image_size=SIZE, backend=backend), values)
    for number, (images, labels) in enumerate(batches()):
        trained.go_on(images, labels, schedule=1 / (1 + number))
    trained.check()
    assert trained.notes == REPLAYED
    assert trained.tape.launched >= 2 + len([size for size in SIZES[AFTER + 1 :] if size == 9])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_what_fades_in_the_course_of_a_training_fades_as_well(kind: torch.dtype) -> None:
    networks = [network.to(kind) for network in small_networks()]
    trained = Trained(lambda: LocalCNNs(GRID, networks, image_size=SIZE, backend="fused"), fading=True)
    for number, (images, labels) in enumerate(batches()):
        trained.go_on(images.to(kind), labels, at=number / 8)
    trained.check()
    assert trained.notes == REPLAYED


def test_members_that_are_left_are_captured_anew() -> None:
    trained = Trained(lambda: LocalCNNs(GRID, networks_with_dropout(), image_size=SIZE, backend="fused"))
    for part in (range(MEMBERS), [0, 2]):
        trained.steps = [step.subset(part) for step in trained.steps]
        for images, labels in batches():
            trained.go_on(images, labels)
        trained.check()
    assert trained.notes == 2 * REPLAYED


class Strange(nn.Module):
    """Its code does what kernels do not show."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(44, 3)
        self.register_buffer("seen", torch.zeros(()))
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.strangely(x.float()).flatten(1))

    def strangely(self, x: Tensor) -> Tensor:
        return x * self.factor


class Counts(Strange):
    def strangely(self, x: Tensor) -> Tensor:
        self.factor += 1
        return x * self.factor


class CountsInSequence(nn.Sequential):
    """Looks like a container, and has code of its own."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(44, 3))
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.factor += 1
        return super().forward(x.float() * self.factor)


class Draws(Strange):
    def strangely(self, x: Tensor) -> Tensor:
        return x * random.random()


class Waits(Strange):
    def strangely(self, x: Tensor) -> Tensor:
        return x * float(x.abs().mean())


class Replaces(Strange):
    seen: Tensor

    def strangely(self, x: Tensor) -> Tensor:
        self.seen = self.seen + x.detach().mean()
        return x * (1 + self.seen)


class Remembers(Strange):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(())

    def strangely(self, x: Tensor) -> Tensor:
        self.last = x.detach().mean()
        return x * self.last


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (Counts, "no CUDA graph: a pass changes what its code reads"),
        (CountsInSequence, "no CUDA graph: a pass changes what its code reads"),
        (Draws, "no CUDA graph: its code draws random numbers on the CPU"),
        (Waits, "no CUDA graph: operation not permitted when stream is capturing"),
        (Replaces, "no CUDA graph: a pass changes what its code reads"),
        (Remembers, "no CUDA graph: what its code reads cannot be watched"),
    ],
)
def test_what_kernels_do_not_show_is_not_replayed(kind: type[nn.Module], note: str) -> None:
    trained = Trained(lambda: Single(kind()))
    for images, labels in batches():
        trained.go_on(images, labels)
    trained.check()
    assert trained.notes == [note]


def test_what_is_changed_from_outside_is_seen() -> None:
    trained = Trained(lambda: Single(Strange()))
    for number, (images, labels) in enumerate(batches()):
        for step in trained.steps:
            step.network.network.factor = 1.0 if number < 6 else 3.0  # type: ignore[attr-defined]
        trained.go_on(images, labels)
    trained.check()
    assert trained.notes == [*REPLAYED, "no CUDA graph: what the code of the network reads has changed"]


def test_a_hook_is_code_that_is_not_replayed() -> None:
    trained = Trained(lambda: Single(Strange()))
    for step in trained.steps:
        step.network.network.linear.register_forward_hook(lambda *_: None)  # type: ignore[attr-defined]
    for images, labels in batches():
        trained.go_on(images, labels)
    trained.check()
    assert trained.notes == ["no CUDA graph: what its code reads cannot be watched"]


@pytest.mark.parametrize("forgets", ["losses", "gradients", "buffers"])
def test_a_graph_that_does_something_else_is_not_taken(forgets: str) -> None:
    local = LocalCNNs(GRID, small_networks(), image_size=SIZE, backend="fused").train()
    notes: list[str] = []

    def capture(run: Callable[[], Any], device: torch.device) -> Any:
        found, launch = Tape()(run, device)

        def forget() -> None:
            kept = {
                "losses": [found[0]],
                "gradients": [p.grad for p in local.parameters()],
                "buffers": [*local.buffers()],
            }
            before = [value.clone() for value in kept[forgets] if value is not None]
            launch()
            for value, old in zip(kept[forgets], before, strict=True):
                assert value is not None
                value.copy_(old)

        return found, forget

    replay = Replay(local, after=2, capture=capture, note=notes.append)
    step = Step(local, MemberOptimizer(local, TrainingConfig()), "float32", replay=replay)
    images, labels = batches()[0]
    for _ in range(2):
        step(batch_of(images, labels, local))
    assert notes == ["no CUDA graph: it would not compute the same"]


def test_only_what_stays_the_same_is_replayed() -> None:
    network = Single(Strange())
    assert replay_of(network, CrossEntropy(), Distribution()) is not None
    assert replay_of(network, FadingLocalLosses(1.0), Distribution()) is not None

    class Others(Distribution):
        """Exchanges something."""

    assert replay_of(network, CrossEntropy(), Others()) is None

    def of_the_user(scores: Tensor, batch: Batch, at: float) -> Loss:
        return CrossEntropy()(scores * at, batch, at)

    assert replay_of(network, of_the_user, Distribution()) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_there_is_no_gpu_a_training_goes_on_as_it_would() -> None:
    train, validation = (whole(batches) for batches in small_data())
    network = Single(nn.Sequential(nn.Flatten(), nn.Linear(44, 3)).double())
    twin, config = copy.deepcopy(network), TrainingConfig(epochs=8, patience=None)
    fit(network, train, validation, config, classes=3, stage="global", graphs=True)
    fit(twin, train, validation, config, classes=3, stage="global")
    for name, value in network.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name]), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_a_cuda_graph_trains_as_the_code_does(values: dict[str, Any], backend: Any) -> None:
    networks = [network.float().cuda() for network in networks_with_dropout()]
    trained = Trained(lambda: LocalCNNs(GRID, networks, image_size=SIZE, backend=backend), values)
    replay = trained.steps[1].replay
    assert replay is not None
    replay.capture = capture_cuda_graph
    for images, labels in batches():
        state = torch.cuda.get_rng_state()
        for number, step in enumerate(trained.steps):
            torch.cuda.set_rng_state(state)
            trained.found[number] += step(batch_of(images.float().cuda(), labels.cuda(), step.network))
    trained.check()
    assert trained.notes == REPLAYED
