"""N networks trained together are N networks trained alone: best epochs, stops, plateaus, and what happens to NaN."""

import math

import pytest
import torch
from torch import nn

from ddcnn.config import TrainingConfig
from ddcnn.data.batches import Batches
from ddcnn.decomposition import Grid
from ddcnn.fusion import LocalCNNs
from ddcnn.training import Progress, Single, evaluate, fit, predict_scores

SIZE = (6, 9)
GRID = (1, 3)


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)]
        return nn.Sequential(*layers).double()


def images(seed: int = 0, samples: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images whose class is best seen in the middle third, and hardly in the last."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    x = torch.randn(samples, 1, *SIZE, generator=generator, dtype=torch.float64)
    for third, strength in enumerate((0.5, 2.0, 0.1)):
        x[:, 0, :, 3 * third : 3 * third + 3] += strength * (labels.double() - 1).view(-1, 1, 1)
    return x, labels


def batches() -> tuple[Batches, Batches]:
    x, labels = images()
    index = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    return tuple(Batches(x, labels, part, batch_size=8, seed=5) for part in (index[:40], index[40:]))


def trainee(indices: tuple[int, ...], backend: str = "fused") -> LocalCNNs:
    return LocalCNNs(Grid(GRID), [net(i) for i in indices], image_size=SIZE, indices=indices, backend=backend)


def together_and_alone(config: TrainingConfig, backend: str = "fused"):
    train, validation = batches()
    network = trainee((0, 1, 2), backend)
    history = fit(network, train, validation, config, classes=3, stage="together")
    alone = []
    for i in range(3):
        one = trainee((i,), "looped")
        alone.append((one, fit(one, train, validation, config, classes=3, stage="alone")))
    return network, history, alone


CONFIGS = {
    "sgd": TrainingConfig(epochs=6, lr=0.1),
    "adamw": TrainingConfig(epochs=6, lr=0.02, optimizer="adamw", schedule="cosine", label_smoothing=0.1),
    "balanced": TrainingConfig(epochs=4, lr=0.1, class_weights="balanced", schedule="step"),
    "last": TrainingConfig(epochs=5, lr=0.3, select="last"),
    "patience": TrainingConfig(epochs=12, lr=0.3, schedule="constant", patience=2),
    "plateau": TrainingConfig(epochs=10, lr=0.3, schedule="plateau", plateau_patience=1, gamma=0.2),
    "plateau-adam": TrainingConfig(epochs=10, lr=0.1, optimizer="adam", schedule="plateau", plateau_patience=1),
}


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("name", CONFIGS)
def test_together_is_as_alone(name, backend):
    network, history, alone = together_and_alone(CONFIGS[name], backend)
    assert history.best_epochs == [h.best_epochs[0] for _, h in alone]
    for n, (one, own) in enumerate(alone):
        for key, value in one.member_state(0).items():
            torch.testing.assert_close(network.member_state(n)[key], value, rtol=1e-7, atol=1e-9)
        for row, other in zip(own.rows, history.rows, strict=False):
            assert other["validation_loss"][n] == pytest.approx(row["validation_loss"][0], abs=2e-6)


def test_members_differ_in_their_best_epochs_and_plateaus():
    _, history, alone = together_and_alone(CONFIGS["patience"])
    assert len(set(history.best_epochs)) > 1
    assert len({len(own.rows) for _, own in alone}) > 1
    assert len(history.rows) == max(len(own.rows) for _, own in alone)
    assert history.steps == 5 * len(history.rows)


@pytest.mark.parametrize("select", ["best", "last"])
def test_the_selected_epoch_is_the_one_that_is_kept(select):
    train, validation = batches()
    network = trainee((0, 1, 2))
    config = TrainingConfig(epochs=6, lr=0.3, select=select)
    history = fit(network, train, validation, config, classes=3, stage="s")
    _, accuracy = evaluate(network, validation)
    for n in range(3):
        per_epoch = [row["validation_accuracy"][n] for row in history.rows]
        expected = max(per_epoch) if select == "best" else per_epoch[-1]
        assert float(accuracy[n]) == pytest.approx(expected, abs=1e-6)
        assert history.best_epochs[n] == (6 if select == "last" else history.best_epochs[n])
        assert per_epoch[history.best_epochs[n] - 1] == pytest.approx(expected, abs=1e-6)


def test_a_network_that_diverges_harms_no_other():
    train, validation = batches()
    healthy = trainee((0, 1, 2))
    fit(healthy, train, validation, TrainingConfig(epochs=2, lr=0.1), classes=3, stage="s")
    sick = trainee((0, 1, 2))
    state = {key: value.clone() for key, value in sick.member_state(1).items()}
    state["4.weight"][:] = math.nan
    sick.load_member_state(1, state)
    history = fit(sick, train, validation, TrainingConfig(epochs=2, lr=0.1), classes=3, stage="s")
    assert history.rows[0]["train_loss"][1] is None  # NaN has no place in JSON
    for n in (0, 2):
        for key, value in healthy.member_state(n).items():
            torch.testing.assert_close(sick.member_state(n)[key], value, rtol=1e-9, atol=1e-12)


def test_what_can_be_learned_is_learned():
    train, validation = batches()
    network = Single(nn.Sequential(nn.Flatten(), nn.Linear(54, 3, device="meta").to_empty(device="cpu")))
    for p in network.double().parameters():
        nn.init.zeros_(p)
    history = fit(network, train, validation, TrainingConfig(epochs=15, lr=0.05), classes=3, stage="s")
    assert history.rows[0]["train_loss"][0] == pytest.approx(math.log(3), rel=0.5)  # of the first epoch: it begins there
    assert history.rows[-1]["train_loss"][0] < 0.2
    assert float(evaluate(network, validation)[1][0]) > 0.6  # by chance 0.33, with standard error 0.11


def test_scores_come_in_the_order_of_the_samples():
    train, _ = batches()
    network = trainee((0, 1, 2))
    scores = predict_scores(network, train)
    with torch.no_grad():
        one = network.eval()(train.inputs[train.indices[17]].unsqueeze(0))
    torch.testing.assert_close(scores[17:18], one.float())
    assert tuple(scores.shape) == (40, 3, 3)


class Watch(Progress):
    def __init__(self):
        self.events = []

    def begin(self, stage, *, epochs, steps, members):
        self.events.append((stage, epochs, steps, members))

    def advance(self, images, mean):
        self.events.append(images)

    def epoch(self, row):
        self.events.append(row["epoch"] * 1000)

    def end(self):
        self.events.append("end")


def test_progress_is_told_everything_in_order():
    train, validation = batches()
    watch = Watch()
    config = TrainingConfig(epochs=2, lr=0.1)
    fit(trainee((0, 1, 2)), train, validation, config, classes=3, stage="s", progress=watch)
    assert watch.events == [("s", 2, 5, 3), *[8] * 5, 1000, *[8] * 5, 2000, "end"]
