"""Members that stop, by patience or because they diverge, and what the others notice of it: nothing."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.errors import TrainingError
from ddcnn.fusion import Backend
from ddcnn.models import LocalCNNs
from ddcnn.training import History, Progress, Single, fit
from tests.training.helper import GRID, MEMBERS, SIZE, pixels, seen, small_data, small_networks, whole

pytestmark = pytest.mark.usefixtures("seeded")
PATIENT = {"optimizer": "adam", "lr": 0.05, "patience": 2, "schedule": "constant", "epochs": 12}


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def train(
    networks: list[nn.Module], data: tuple[Batches, Batches], backend: Backend, **options: Any
) -> tuple[LocalCNNs, History, list[str]]:
    local_cnns, notes = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend), Notes()
    history = fit(local_cnns, *data, TrainingConfig(**options), classes=3, stage="local", progress=notes)
    return local_cnns, history, notes.lines


def assert_same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def epochs_of(history: History) -> list[int]:
    """Return how many epochs each member was trained, by the values that the rows have of it."""
    counts = [sum(row["train_loss"][n] is not None for row in history.rows) for n in range(MEMBERS)]
    for n, count in enumerate(counts):
        for name in ("lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert [row[name][n] is not None for row in history.rows] == [e < count for e in range(len(history.rows))]
    return counts


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_who_has_stopped_does_not_change_any_more(backend: Backend) -> None:
    """Parameters and statistics are, bit for bit, those of a run that ends when this member stops."""
    networks, data = small_networks(), small_data()
    options = PATIENT | {"select": "last"}
    local_cnns, history, _ = train(networks, data, backend, **options)
    stops = epochs_of(history)
    assert len(set(stops)) > 1  # or this shows little
    assert history.best_epochs == stops
    for n, stop in enumerate(stops):
        shorter, _, _ = train(networks, data, backend, **options | {"epochs": stop})
        assert_same_bits(shorter.member_state(n), local_cnns.member_state(n))


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_who_has_stopped_costs_nothing(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    forward = LocalCNNs.forward

    def counting(self: LocalCNNs, images: Subimages) -> Tensor:
        scores = forward(self, images)
        computed.append(scores.shape[1])
        return scores

    monkeypatch.setattr(LocalCNNs, "forward", counting)
    _, history, _ = train(small_networks(), data := small_data(), backend, **PATIENT)
    stops = epochs_of(history)
    passes = data[0].steps + 1  # and one batch of validation
    expected = [sum(stop > epoch for stop in stops) for epoch in range(len(history.rows)) for _ in range(passes)]
    assert computed == expected


def data_with_a_late_nan() -> tuple[tuple[Batches, Batches], tuple[Batches, Batches]]:
    """Return two data sets in float32, where in the second a sample that epoch 2 is the first to use has a NaN."""
    train_part, validation = (seen(pixels(b).float(), b.labels, b.indices, b.batch_size, b.seed) for b in small_data())
    numbers = Batches(torch.arange(70), train_part.labels, train_part.indices, train_part.batch_size, train_part.seed)
    first, second = ({int(i) for batch in numbers.shuffled(epoch) for i in batch.inputs} for epoch in (1, 2))
    late = min(second - first)
    ill = pixels(train_part).clone()
    ill[late, 0, 2, 5] = math.nan  # columns 4..7 are those of subdomain 1
    return (train_part, validation), (
        seen(ill, train_part.labels, train_part.indices, train_part.batch_size, train_part.seed),
        validation,
    )


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adamw", "clip_norm": 0.5, "class_weights": "balanced", "label_smoothing": 0.1},
        {"optimizer": "sgd", "schedule": "plateau", "plateau_patience": 1},
    ],
    ids=["sgd", "adamw-clip-weights", "plateau"],
)
def test_who_diverges_harms_nobody(options: dict[str, Any], backend: Backend) -> None:
    networks = [network.float() for network in small_networks()]
    healthy_data, ill_data = data_with_a_late_nan()
    options = {"schedule": "constant", "select": "last", "lr": 0.05, "epochs": 2} | options
    healthy, _, no_lines = train(networks, healthy_data, backend, **options)
    ill, history, lines = train(networks, ill_data, backend, **options)
    for n in (0, 2):
        assert_same_bits(ill.member_state(n), healthy.member_state(n))
    first, _, _ = train(networks, healthy_data, backend, **options | {"epochs": 1})
    assert_same_bits(ill.member_state(1), first.member_state(1))
    assert history.diverged == [None, 2, None]
    assert history.best_epochs == [2, 1, 2]
    assert [row["train_loss"][1] is None for row in history.rows] == [False, True]
    assert [row["train_accuracy"][1] is None for row in history.rows] == [False, True]
    assert no_lines == []
    assert lines == [
        "local, subdomain 1 (rows 0..3, columns 4..7): loss became NaN or infinite in epoch 2; "
        "its parameters are those of epoch 1; a smaller learning rate may help"
    ]


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_the_others_go_on_without_who_diverged(backend: Backend) -> None:
    networks = small_networks()
    options = {"optimizer": "adamw", "lr": 0.02, "epochs": 5}
    healthy, _, _ = train(copy.deepcopy(networks), data := small_data(), backend, **options)
    with torch.no_grad():
        networks[1][5].weight[0, 0] = math.inf
    ill, history, lines = train(networks, data, backend, **options)
    assert [row["lr"][1] is None for row in history.rows] == [False, True, True, True, True]
    for n in (0, 2):
        torch.testing.assert_close(ill.member_state(n), healthy.member_state(n), rtol=1e-9, atol=1e-11)
    assert_same_bits(ill.member_state(1), dict(networks[1].state_dict()))
    assert (history.best_epochs[1], history.diverged) == (0, [None, 1, None])
    assert lines[0].endswith("in epoch 1; its parameters are those it began with; a smaller learning rate may help")


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_not_one_member_is_left(backend: Backend) -> None:
    networks = small_networks()
    for network in networks:
        nn.init.constant_(network[5].bias, math.nan)
    with pytest.raises(TrainingError) as error:
        train(networks, small_data(), backend, lr=0.25)
    assert str(error.value) == (
        "local: the loss of all 3 networks became NaN or infinite in epoch 1; use a smaller learning rate than 0.25"
    )


def test_one_network_that_diverges_at_once() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(44, 3)).double()
    nn.init.constant_(network[1].bias, math.nan)
    with pytest.raises(TrainingError) as error:
        fit(Single(network), *map(whole, small_data()), TrainingConfig(lr=0.25), classes=3, stage="global")
    assert str(error.value) == (
        "global: the loss became NaN or infinite in epoch 1; use a smaller learning rate than 0.25"
    )


def test_all_diverge_after_good_epochs() -> None:
    """What they had learnt is kept."""
    healthy, ill = data_with_a_late_nan()
    nan = pixels(ill[0]).isnan().any(-1, keepdim=True).expand_as(pixels(ill[0]))
    everywhere = seen(pixels(ill[0]).masked_fill(nan, math.nan), ill[0].labels, ill[0].indices, 10, ill[0].seed)
    networks = [network.float() for network in small_networks()]
    options = {"lr": 0.05, "schedule": "constant"}
    local_cnns, history, lines = train(networks, (everywhere, ill[1]), "fused", epochs=9, **options)
    first, _, _ = train(networks, healthy, "fused", epochs=1, **options)
    assert (len(history.rows), history.best_epochs, history.diverged, len(lines)) == (2, [1, 1, 1], [2, 2, 2], 3)
    for n in range(MEMBERS):
        assert_same_bits(local_cnns.member_state(n), first.member_state(n))
