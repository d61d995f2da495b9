"""Members that train together end as each would alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.fusion import Backend
from ddcnn.models import LocalCNNs
from ddcnn.training import History, Progress, Single, evaluate, fit, predict_scores
from tests.training.helper import GRID, MEMBERS, SIZE, pixels, seen, small_data, small_networks, whole

pytestmark = pytest.mark.usefixtures("seeded")


def _together(
    config: TrainingConfig, networks: list[nn.Module], data: tuple[Batches, Batches], backend: Backend
) -> Any:
    local_cnns = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend)
    return local_cnns, fit(local_cnns, *data, config, classes=3, stage="local")


def _alone(config: TrainingConfig, networks: list[nn.Module], data: tuple[Batches, Batches], n: int) -> Any:
    (start, stop) = GRID.subdomains(SIZE)[n].box[1]
    parts = [replace(whole(b), inputs=pixels(b)[..., start:stop].contiguous()) for b in data]
    single = Single(networks[n])
    return single, fit(single, *parts, config, classes=3, stage="local")


CONFIGS: dict[str, dict[str, Any]] = {
    "onecycle": {"optimizer": "sgd", "lr": 0.1, "schedule": "onecycle", "label_smoothing": 0.1},
    "adamw-weights": {"optimizer": "adamw", "lr": 0.01, "schedule": "cosine", "class_weights": "balanced"},
    "last": {"optimizer": "sgd", "lr": 0.1, "select": "last", "schedule": "step"},
    "early-stop": {"optimizer": "adam", "lr": 0.05, "patience": 2, "schedule": "constant", "epochs": 12},
    "early-stop-last": {"optimizer": "adam", "lr": 0.05, "patience": 2, "schedule": "constant", "select": "last"},
    "plateau-sgd": {"optimizer": "sgd", "lr": 0.3, "schedule": "plateau", "plateau_patience": 1, "gamma": 0.3},
    "plateau-adamw": {"optimizer": "adamw", "lr": 0.1, "schedule": "plateau", "plateau_patience": 1, "gamma": 0.3},
    "plateau-last": {
        "optimizer": "sgd", "lr": 0.5, "schedule": "plateau", "plateau_patience": 1, "gamma": 0.5, "select": "last",
    },
}  # fmt: skip


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_together_equals_alone(options: dict[str, Any], backend: Backend) -> None:
    config = TrainingConfig(**{"epochs": 8, **options})
    networks, data = small_networks(), small_data()
    local_cnns, together = _together(config, networks, data, backend)
    lengths, best = [], []
    for n in range(MEMBERS):
        single, alone = _alone(config, networks, data, n)
        lengths.append(len(alone.rows))
        best += alone.best_epochs
        torch.testing.assert_close(local_cnns.member_state(n), dict(single.member_state(0)), rtol=1e-8, atol=1e-10)
        for mine, own in zip(together.rows, alone.rows, strict=False):
            for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
                assert mine[name][n] == pytest.approx(own[name][0], rel=1e-4, abs=1e-5), (name, mine["epoch"])
    assert together.best_epochs == best
    assert len(together.rows) == max(lengths)
    if "patience" in options:
        assert len(set(lengths)) > 1  # they do stop at different times, or this shows nothing


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_members_on_different_plateaus(optimizer: str) -> None:
    """The factors differ, which one common optimiser step must undo."""
    losses = []

    class Watching(Progress):
        def epoch(self, row: dict[str, Any]) -> None:
            losses.append(row["validation_loss"])

    config = TrainingConfig(optimizer=optimizer, lr=0.2, schedule="plateau", plateau_patience=1, gamma=0.2, epochs=6)
    networks, data = small_networks(), small_data()
    local_cnns = LocalCNNs(GRID, networks, image_size=SIZE, backend="fused")
    fit(local_cnns, *data, config, classes=3, stage="local", progress=Watching())
    worse = [[losses[e][n] > min(row[n] for row in losses[:e]) for n in range(MEMBERS)] for e in range(1, 6)]
    assert any(len(set(row)) > 1 for row in worse[:-1])  # or this test shows nothing


def test_it_learns() -> None:
    train, validation = small_data(noise=0.2)
    config = TrainingConfig(optimizer="adamw", lr=0.02, epochs=15)
    local_cnns, history = _together(config, small_networks(), (train, validation), "fused")
    loss, accuracy = evaluate(local_cnns, validation)
    assert accuracy.min() > 0.9
    assert loss.max() < history.rows[0]["validation_loss"][0]
    assert (history.steps, len(history.rows)) == (15 * 4, 15)


def test_history_is_what_happened() -> None:
    train, validation = small_data()
    config = TrainingConfig(epochs=5, optimizer="adamw", lr=0.05)
    local_cnns, history = _together(config, small_networks(), (train, validation), "fused")
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5]
    assert isinstance(history, History)
    for n, best in enumerate(history.best_epochs):
        accuracies = [row["validation_accuracy"][n] for row in history.rows]
        assert accuracies[best - 1] == max(accuracies)
    loss, accuracy = evaluate(local_cnns, validation)
    for n, best in enumerate(history.best_epochs):  # each has the parameters of its best epoch
        assert float(accuracy[n]) == pytest.approx(history.rows[best - 1]["validation_accuracy"][n], abs=1e-6)
        assert float(loss[n]) == pytest.approx(history.rows[best - 1]["validation_loss"][n], rel=1e-4)


def test_select_last() -> None:
    config = TrainingConfig(epochs=4, optimizer="adamw", lr=0.05, select="last")
    local_cnns, history = _together(config, small_networks(), data := small_data(), "fused")
    assert history.best_epochs == [4, 4, 4]
    assert evaluate(local_cnns, data[1])[0].tolist() == pytest.approx(history.rows[-1]["validation_loss"], rel=1e-4)


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_nan_in_one_member_does_not_disturb_the_others(backend: Backend) -> None:
    config = TrainingConfig(epochs=3, optimizer="sgd", lr=0.1)
    networks, data = small_networks(), small_data()
    healthy, _ = _together(config, networks, data, backend)
    with torch.no_grad():
        networks[1][5].weight[0, 0] = math.nan
    disturbed, history = _together(config, networks, data, backend)
    for n in (0, 2):
        torch.testing.assert_close(disturbed.member_state(n), healthy.member_state(n), rtol=1e-6, atol=1e-9)
    assert [row["validation_loss"][1] for row in history.rows] == [None] * 3


def test_an_epoch_that_diverged_is_never_the_best() -> None:
    """NaN scores all mean class 0, which most samples are: that is no accuracy to be proud of."""

    class Diverging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores, self.passes = nn.Parameter(torch.tensor([0.0, 1.0])), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += self.training
            return self.scores.expand(len(x), 2) * (math.nan if self.passes > 2 else 1.0)

    labels = (torch.arange(20) % 4 == 0).long()  # three quarters are of class 0
    batches = Batches(torch.zeros(20, 1, 2, 3), labels, torch.arange(20), batch_size=10)
    single = Single(Diverging())
    history = fit(single, batches, batches, TrainingConfig(lr=1e-3, epochs=3), classes=2, stage="global")
    assert history.best_epochs == [1]
    assert torch.isfinite(single.network.scores).all()


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_scores_are_in_order(backend: Backend) -> None:
    images = torch.randn(30, 1, *SIZE, dtype=torch.float64)
    indices = torch.randperm(30)[:23]
    batches = seen(images, torch.arange(30) % 3, indices)
    networks = small_networks()
    local_cnns = LocalCNNs(GRID, networks, image_size=SIZE, backend=backend)
    scores = predict_scores(local_cnns, batches)
    assert scores.dtype == torch.float32
    boxes = [subdomain.box[1] for subdomain in GRID.subdomains(SIZE)]
    for row, index in enumerate(indices.tolist()):
        for n, (start, stop) in enumerate(boxes):
            expected = networks[n].eval()(images[index : index + 1, ..., start:stop])[0]
            torch.testing.assert_close(scores[row, n], expected.float())
    loss, accuracy = evaluate(local_cnns, batches)
    assert accuracy.tolist() == pytest.approx(
        [float((scores[:, n].argmax(1) == indices % 3).float().mean()) for n in range(MEMBERS)]
    )
    torch.testing.assert_close(loss[1], nn.functional.cross_entropy(scores[:, 1], indices % 3))


def test_bfloat16_trains_parameters_in_float32() -> None:
    train, validation = small_data(noise=0.2)
    networks = [network.float() for network in small_networks()]
    batches = [seen(pixels(b).float(), b.labels, b.indices, b.batch_size, b.seed) for b in (train, validation)]
    local_cnns = LocalCNNs(GRID, networks, image_size=SIZE, backend="fused")
    config = TrainingConfig(optimizer="adamw", lr=0.02, epochs=10)
    history = fit(local_cnns, *batches, config, classes=3, stage="local", precision="bfloat16")
    assert {p.dtype for p in local_cnns.parameters()} == {torch.float32}
    assert min(history.rows[-1]["validation_accuracy"]) > 0.8


def test_progress_is_told_in_order() -> None:
    events: list[object] = []

    class Listening(Progress):
        def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
            events.append((stage, epochs, steps, members))

        def advance(self, images: int, mean: Any) -> None:
            loss, accuracy = mean()
            assert math.isfinite(loss)
            assert 0 <= accuracy <= 1
            events.append(images)

        def epoch(self, row: dict[str, Any]) -> None:
            events.append(row["epoch"])

        def end(self) -> None:
            events.append("end")

    local_cnns = LocalCNNs(GRID, small_networks(), image_size=SIZE)
    fit(local_cnns, *small_data(), TrainingConfig(epochs=2), classes=3, stage="local", progress=Listening())
    assert events == [("local", 2, 4, 3), 10, 10, 10, 10, 1, 10, 10, 10, 10, 2, "end"]


def test_of_equal_epochs_the_first_is_the_best() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(44, 3)).double()
    config = TrainingConfig(optimizer="sgd", lr=1e-30, weight_decay=0.0, epochs=3)  # nothing moves
    history = fit(Single(network), *map(whole, small_data()), config, classes=3, stage="global")
    assert history.best_epochs == [1]


def test_dropout_is_repeated_and_leaves_the_global_generator_alone() -> None:
    def trained() -> Tensor:
        network = nn.Sequential(nn.Flatten(), nn.Linear(44, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.linspace(-1, 1, p.numel(), dtype=p.dtype).view_as(p))
        before = torch.get_rng_state()
        fit(Single(network), *map(whole, data), TrainingConfig(epochs=2, lr=0.01), classes=3, stage="x")
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    data = small_data()
    assert torch.equal(trained(), trained())
