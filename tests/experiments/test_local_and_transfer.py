import pytest
import torch

from ddcnn.aggregation import dense as dense_module
from ddcnn.engines import InProcess
from ddcnn.strategies import aggregate, prepare, train_coherent, train_local, transfer
from ddcnn.strategies import local as local_module
from ddcnn.training import Progress


@pytest.fixture
def problem(make_config):
    def make(**sections):
        return prepare(make_config(**sections))

    return make


def trained_samples(monkeypatch):
    seen = []
    run = local_module.run_local_task

    def watched(task):
        seen.append(set(task.samples.tolist()))
        return run(task)

    monkeypatch.setattr(local_module, "run_local_task", watched)
    return seen


def test_train_uses_all_samples_twice(problem, monkeypatch):
    seen = trained_samples(monkeypatch)
    p = problem()
    local = train_local(p, InProcess(), Progress())
    assert seen == [set(p.split.train.tolist())] == [set(local.samples.tolist())]


def test_held_out_samples_are_seen_by_the_aggregation_alone(problem, monkeypatch):
    seen = trained_samples(monkeypatch)
    p = problem(aggregation={"aggregate_on": "holdout", "holdout_fraction": 0.25})
    local = train_local(p, InProcess(), Progress())
    (kept,), held, everything = seen, set(local.samples.tolist()), set(p.split.train.tolist())
    assert not kept & held
    assert kept | held == everything
    assert len(held) == pytest.approx(0.25 * len(everything), abs=2)


def test_crossfit_probabilities_come_from_networks_that_did_not_see_the_sample(problem, monkeypatch):
    seen = trained_samples(monkeypatch)
    networks = []
    predict = local_module.local_probabilities

    def watched(p, network, samples):
        networks.append((set(samples.tolist()), len(seen)))
        return predict(p, network, samples)

    monkeypatch.setattr(local_module, "local_probabilities", watched)
    p = problem(aggregation={"aggregate_on": "crossfit", "folds": 3})
    local = train_local(p, InProcess(), Progress())
    everything = set(p.split.train.tolist())
    assert seen[0] == everything  # the local CNNs that are kept have seen all
    assert len(networks) == 3
    for fold, after in networks:
        assert seen[after - 1] == everything - fold
    assert set(local.samples.tolist()) == everything
    assert local.probabilities is not None
    assert tuple(local.probabilities.shape) == (len(everything), 4, 3)


def test_transfer_starts_where_the_local_cnns_ended(problem):
    p = problem(transfer={"epochs": 1, "lr_factor": 1e-12}, training={"momentum": 0.0, "weight_decay": 0.0})
    local = train_local(p, InProcess(), Progress())
    separate = aggregate(p, local, "dense", Progress())
    moved = transfer(p, separate, Progress())
    for n in range(4):
        before, after = local.network.member_state(n), moved.network.local_cnns.member_state(n)
        for name in before:
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-6)
    for a, b in zip(moved.network.aggregation.parameters(), separate.network.aggregation.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_transfer_can_leave_the_dnn_behind_and_leaves_the_local_cnns_alone(problem):
    p = problem(transfer={"carry_aggregation": False, "epochs": 1})
    local = train_local(p, InProcess(), Progress())
    before = {name: value.clone() for name, value in local.network.member_state(0).items()}
    separate = aggregate(p, local, "dense", Progress())
    moved = transfer(p, separate, Progress())
    assert all(torch.equal(before[name], value) for name, value in local.network.member_state(0).items())
    a, b = (network.aggregation.layers[0].weight for network in (moved.network, separate.network))
    assert (a - b).abs().max() > 0.1  # another random start


def test_a_local_cnn_does_not_depend_on_who_is_trained_beside_it(problem):
    p = problem()
    together = train_local(p, InProcess(), Progress()).network
    task = local_module.LocalTask(p, (2,), p.split.train, "local", Progress())
    alone = local_module.run_local_task(task).states[0]
    for name, value in together.member_state(2).items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-4)


def test_local_losses_of_a_coherent_model_fade_out(problem):
    from ddcnn.strategies.coherent import Supervised

    p = problem()
    network = train_coherent(p, Progress()).network
    supervised = Supervised(network, 2.0).train()
    images = torch.linspace(0, 1, 3 * 16 * 18).view(3, 1, 16, 18)
    assert tuple(supervised(images).shape) == (3, 1 + 4, 3)
    assert supervised.loss_weights(0.0).tolist() == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert supervised.loss_weights(0.75).tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]
    assert tuple(supervised.eval()(images).shape) == (3, 1, 3)
    torch.testing.assert_close(supervised(images)[:, 0], network(images))


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_a_local_cnn_begins_the_same_whoever_is_beside_it(problem, backend):
    p = problem()

    def states(network):
        return [{k: v.clone() for k, v in network.member_state(n).items()} for n in range(network.members)]

    whole = p.local_cnns(p.local_modules(), backend=backend)
    expected = states(whole)
    first, second = (torch.cat([value.flatten() for value in state.values()]) for state in expected[:2])
    assert not torch.equal(first, second)
    for indices in ((2,), (3, 1), (0, 1, 2, 3)):
        part = p.local_cnns(p.local_modules(indices=indices), indices, backend=backend)
        for network in (part, whole.subset(indices)):
            assert network.indices == indices
            for state, index in zip(states(network), indices, strict=True):
                assert all(torch.equal(value, expected[index][name]) for name, value in state.items())


def test_each_subdomain_is_trained_with_its_own_values_in_any_task(problem):
    p = problem(training={"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "subdomains": {1: {"lr": 1e-30}}})
    modules = p.local_modules()
    for indices in ((0, 1, 2, 3), (3, 1)):
        task = local_module.LocalTask(p, indices, p.split.train, "local", Progress())
        states = local_module.run_local_task(task).states
        stood = [
            all(torch.allclose(p, state[name], atol=1e-20) for name, p in modules[index].named_parameters())
            for index, state in zip(indices, states, strict=True)
        ]
        assert stood == [index == 1 for index in indices]


def test_the_coherent_model_is_clipped_as_a_whole_and_stops(problem):
    options = {"momentum": 0.0, "weight_decay": 0.0}
    p = problem(training=options | {"clip_norm": 1e-30, "lr": 1e-3, "patience": 1, "epochs": 9, "batch_size": 16})
    trained = train_coherent(p, Progress())
    for n, module in enumerate(p.local_modules()):
        state = trained.network.local_cnns.member_state(n)
        assert all(torch.allclose(value, state[name], atol=1e-20) for name, value in module.named_parameters())
    history = trained.histories["coherent"]
    assert len(history.rows) == history.best_epochs[0] + 1 < 9


def test_subdomain_dropout_acts_wherever_the_dnn_is_trained(problem, monkeypatch):
    seen = []
    drop = dense_module.drop

    def watched(p, probability):
        seen.append((p.requires_grad, probability))
        return drop(p, probability)

    monkeypatch.setattr(dense_module, "drop", watched)
    tiny = {"name": "tests.strategies.tiny:tiny", "width_factor": 0.5}
    p = problem(model=tiny, aggregation={"subdomain_dropout": 0.5}, training={"epochs": 1})
    before = torch.get_rng_state()
    local = train_local(p, InProcess(), Progress())
    assert not seen
    first, again = (aggregate(p, local, "dense", Progress()) for _ in range(2))
    assert set(seen) == {(False, 0.5)}
    pairs = zip(first.network.aggregation.parameters(), again.network.aggregation.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # seeded
    for train in (lambda: train_coherent(p, Progress()), lambda: transfer(p, first, Progress())):
        seen.clear()
        train()
        assert set(seen) == {(True, 0.5)}
    assert torch.equal(torch.get_rng_state(), before)
