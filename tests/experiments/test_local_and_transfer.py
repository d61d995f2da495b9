import pytest
import torch

from ddcnn.aggregation import dense as dense_module
from ddcnn.data.batch import Batch
from ddcnn.engines import InProcess
from ddcnn.planning import prepare
from ddcnn.strategies.local_task import LocalInputs, train_group
from ddcnn.training import FadingLocalLosses, Progress, WholeNetwork
from tests.setups import aggregate, train_coherent, train_local, transfer


@pytest.fixture
def problem(make_config):
    def make(**sections):
        return prepare(make_config(**sections))

    return make


class Watching(InProcess):
    """Notes on which samples each task is trained."""

    def __init__(self):
        self.seen = []

    def run(self, tasks, progress, scratch=None):
        self.seen += [set(task.arguments["samples"]) for task in tasks]
        return super().run(tasks, progress, scratch)


def test_train_uses_all_samples_twice(problem):
    p, engine = problem(), Watching()
    local = train_local(p, engine)
    assert engine.seen == [set(p.data.split.train.tolist())] == [set(local.samples.tolist())]


def test_held_out_samples_are_seen_by_the_aggregation_alone(problem):
    engine = Watching()
    p = problem(aggregation={"aggregate_on": "holdout", "holdout_fraction": 0.25})
    local = train_local(p, engine)
    (kept,), held, everything = engine.seen, set(local.samples.tolist()), set(p.data.split.train.tolist())
    assert not kept & held
    assert kept | held == everything
    assert len(held) == pytest.approx(0.25 * len(everything), abs=2)


def test_crossfit_probabilities_come_from_networks_that_did_not_see_the_sample(problem):
    p, engine = problem(aggregation={"aggregate_on": "crossfit", "folds": 3}), Watching()
    local = train_local(p, engine)
    everything = set(p.data.split.train.tolist())
    assert engine.seen[0] == everything  # the local CNNs that are kept have seen all
    held = [everything - seen for seen in engine.seen[1:]]
    assert len(held) == 3
    assert sum(map(len, held)) == len(everything)
    assert [set(part.tolist()) for part in local.samples.split([len(fold) for fold in held])] == held
    assert local.unseen is not None
    unseen = local.unseen.probabilities
    assert tuple(unseen.shape) == (len(everything), 4, 3)
    seen_by_all = local.probabilities.outputs_of_samples(local.samples).probabilities
    assert not torch.allclose(unseen, seen_by_all, atol=1e-3)  # other networks


def test_transfer_starts_where_the_local_cnns_ended(problem):
    p = problem(transfer={"epochs": 1, "lr_factor": 1e-12}, training={"momentum": 0.0, "weight_decay": 0.0})
    local = train_local(p)
    separate = aggregate(p, local)
    moved = transfer(p, separate)
    for n in range(4):
        before, after = local.network.member_state(n), moved.network.local_cnns.member_state(n)
        for name in before:
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-6)
    for a, b in zip(moved.network.aggregation.parameters(), separate.network.aggregation.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_transfer_can_leave_the_dnn_behind_and_leaves_the_local_cnns_alone(problem):
    p = problem(transfer={"carry_aggregation": False, "epochs": 1})
    local = train_local(p)
    before = {name: value.clone() for name, value in local.network.member_state(0).items()}
    separate = aggregate(p, local)
    moved = transfer(p, separate)
    assert all(torch.equal(before[name], value) for name, value in local.network.member_state(0).items())
    a, b = (network.aggregation.layers[0].weight for network in (moved.network, separate.network))
    assert (a - b).abs().max() > 0.1  # another random start


def test_a_local_cnn_does_not_depend_on_who_is_trained_beside_it(problem):
    p = problem()
    together = train_local(p).network
    arguments = {"indices": [2], "samples": p.data.split.train.tolist(), "stage": "local"}
    alone = train_group(LocalInputs(p), arguments, None, Progress()).states[0]
    for name, value in together.member_state(2).items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-4)


def test_local_losses_of_a_coherent_model_fade_out(problem):
    p = problem()
    network = train_coherent(p).network
    whole = WholeNetwork(network, with_local_scores=True).train()
    images = torch.linspace(0, 255, 3 * 16 * 18).view(3, 1, 16, 18)
    batch = Batch(network.cut(images), torch.tensor([0, 1, 2]), torch.arange(3))
    scores = whole(batch.inputs)
    assert tuple(scores.shape) == (3, 1 + 4, 3)
    each = [torch.nn.functional.cross_entropy(scores[:, n], batch.targets) for n in range(5)]
    for at, weight in ((0.0, 2.0), (0.75, 0.5)):
        loss = FadingLocalLosses(2.0)(scores, batch, at)
        torch.testing.assert_close(loss.members, each[0].view(1))
        torch.testing.assert_close(loss.total, each[0] + weight * sum(each[1:]))
    assert tuple(whole.eval()(batch.inputs).shape) == (3, 1, 3)
    torch.testing.assert_close(whole(batch.inputs)[:, 0], network(images))


@pytest.mark.parametrize("backend", ["fused", "looped"])
def test_a_local_cnn_begins_the_same_whoever_is_beside_it(problem, backend):
    p = problem()

    def states(network):
        return [{k: v.clone() for k, v in network.member_state(n).items()} for n in range(network.members)]

    whole = p.networks.local_cnns(backend=backend)
    expected = states(whole)
    first, second = (torch.cat([value.flatten() for value in state.values()]) for state in expected[:2])
    assert not torch.equal(first, second)
    for indices in ((2,), (3, 1), (0, 1, 2, 3)):
        part = p.networks.local_cnns(indices, backend=backend)
        for network in (part, whole.subset(indices)):
            assert network.indices == indices
            for state, index in zip(states(network), indices, strict=True):
                assert all(torch.equal(value, expected[index][name]) for name, value in state.items())


def test_each_subdomain_is_trained_with_its_own_values_in_any_task(problem):
    p = problem(training={"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "subdomains": {1: {"lr": 1e-30}}})
    modules = p.networks.local_modules()
    for indices in ((0, 1, 2, 3), (3, 1)):
        arguments = {"indices": indices, "samples": p.data.split.train.tolist(), "stage": "local"}
        states = train_group(LocalInputs(p), arguments, None, Progress()).states
        stood = [
            all(torch.allclose(p, state[name], atol=1e-20) for name, p in modules[index].named_parameters())
            for index, state in zip(indices, states, strict=True)
        ]
        assert stood == [index == 1 for index in indices]


def test_the_coherent_model_is_clipped_as_a_whole_and_stops(problem):
    options = {"momentum": 0.0, "weight_decay": 0.0}
    p = problem(training=options | {"clip_norm": 1e-30, "lr": 1e-3, "patience": 1, "epochs": 9, "batch_size": 16})
    trained = train_coherent(p)
    for n, module in enumerate(p.networks.local_modules()):
        state = trained.network.local_cnns.member_state(n)
        assert all(torch.allclose(value, state[name], atol=1e-20) for name, value in module.named_parameters())
    history = trained.histories["coherent"]
    assert len(history.rows) == history.best_epochs[0] + 1 < 9


def test_subdomain_dropout_acts_wherever_the_dnn_is_trained(problem, monkeypatch):
    seen = []
    drop = dense_module.drop

    def watched(p, probability, value):
        seen.append((p.requires_grad, probability))
        return drop(p, probability, value)

    monkeypatch.setattr(dense_module, "drop", watched)
    tiny = {"name": "tests.strategies.tiny:tiny", "width_factor": 0.5}
    p = problem(model=tiny, aggregation={"subdomain_dropout": 0.5}, training={"epochs": 1})
    before = torch.get_rng_state()
    local = train_local(p)
    assert not seen
    first, again = (aggregate(p, local) for _ in range(2))
    assert set(seen) == {(False, 0.5)}
    pairs = zip(first.network.aggregation.parameters(), again.network.aggregation.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # seeded
    for train in (lambda: train_coherent(p), lambda: transfer(p, first)):
        seen.clear()
        train()
        assert set(seen) == {(True, 0.5)}
    assert torch.equal(torch.get_rng_state(), before)
