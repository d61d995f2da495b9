"""Where trainings begin: given weights, one CNN for all subdomains, without labels; and what they minimise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import ddcnn
from ddcnn.config import Config
from ddcnn.engines import InProcess, Processes
from ddcnn.errors import ConfigError, InterruptionError
from ddcnn.planning import Setup
from ddcnn.strategies import run_strategies
from ddcnn.strategies.initialization import check_start, start_of
from ddcnn.training import Progress, Workspace
from ddcnn.training.contrast import TEMPERATURE, contrast
from ddcnn.training.interruption import INTERRUPTION
from ddcnn.training.local_objectives import About, with_embedding
from ddcnn.training.with_head import HEAD, WANTED, WithHead
from tests.setups import context, decided, train_local
from tests.strategies.helpers import TRAINED, Leaves, equal, local_states

Make = Callable[..., Setup]


@pytest.fixture
def make(values: Callable[..., dict[str, Any]]) -> Make:
    return lambda **sections: decided(values(**sections))


def headless(in_channels: int, classes: int, image_size: Any, *, width: float) -> torch.nn.Module:
    """Return a network whose scores no linear layer makes."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, classes, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def test_weights_of_a_run_are_where_its_local_cnns_were(run: Path, make: Make) -> None:
    for strategy in ("local", "coherent"):
        setup = make(strategy=strategy, init={"weights": run})
        start = start_of(context(setup))
        assert all(equal(start.local[n], state) for n, state in enumerate(local_states(run)))
    held = make(strategy="coherent", init={"weights": run}, training={"freeze": 99, "epochs": 1})
    network = run_strategies(["coherent"], context(held))["coherent"].network
    for n, state in enumerate(local_states(run)):
        assert torch.equal(network.local_cnns.member_state(n)["0.weight"], state["0.weight"])


def test_a_file_is_for_every_network_and_other_classes_leave_the_classifier_random(
    run: Path, make: Make, tmp_path: Path
) -> None:
    state = {name: value.contiguous() for name, value in local_states(run)[0].items()}
    save_file(state, tmp_path / "same.safetensors")
    setup = make(init={"weights": tmp_path / "same.safetensors"})
    assert all(equal(start_of(context(setup)).local[n], state) for n in range(4))
    state |= {"4.weight": torch.zeros(1000, 96), "4.bias": torch.zeros(1000)}
    save_file(state, tmp_path / "imagenet.safetensors")
    setup = make(init={"weights": tmp_path / "imagenet.safetensors"})
    found = start_of(context(setup)).local[2]
    random = setup.networks.local_module(2).state_dict()
    assert torch.equal(found["0.weight"], state["0.weight"])
    assert torch.equal(found["4.weight"], random["4.weight"])


def test_weights_that_do_not_fit_are_one_line_and_nothing_is_written(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"0.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "part.safetensors")
    extra = {name: value.contiguous() for name, value in local_states(run)[0].items()} | {"9.weight": torch.zeros(1)}
    save_file(extra, tmp_path / "more.safetensors")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"init": {"weights": tmp_path / "none"}}, r"none cannot be read as safetensors: No such file"),
        ({"init": {"weights": tmp_path / "text.safetensors"}}, "cannot be read as safetensors"),
        ({"init": {"weights": tmp_path}}, "is no run that can be loaded"),
        ({"init": {"weights": tmp_path / "part.safetensors"}}, r"of '0.bias' expected \(4,\), got nothing"),
        ({"init": {"weights": tmp_path / "more.safetensors"}}, "holds '9.weight', which local CNN 0 has not"),
        ({"init": {"weights": run}, "decomposition": {"grid": "2x1"}}, "has 4 local CNNs, this run has 2"),
        ({"init": {"weights": run}, "model": {"width_factor": 1.0}}, r"of '0.weight' expected \(8, 1, 3, 3\), got"),
        ({"init": {"weights": run}, "strategy": "global"}, "has no global CNN"),
        ({"init": {"weights": run, "name": "shared"}}, "says where to begin, and so does init.name"),
        ({"init": {"name": "weights"}}, "say which, as --weights FILE"),
        ({"init": {"name": "trained"}}, "takes the local CNNs of a run: say which, as --weights RUN"),
        ({"init": TRAINED | {"weights": tmp_path}}, "is no run that can be loaded"),
        ({"init": TRAINED | {"weights": run}, "strategy": "coherent"}, "strategy coherent trains none before"),
        ({"init": TRAINED | {"weights": run}, "strategy": "compose"}, "strategy compose finds by itself"),
        ({"init": TRAINED | {"weights": run}, "aggregation": {"aggregate_on": "holdout"}}, "so none are unseen"),
        ({"init": TRAINED | {"weights": run}, "seed": 1}, "split them in another way.*seed 0"),
        (
            {"init": TRAINED | {"weights": run}, "decomposition": {"overlap": 1}},
            r"has decomposition.overlap = \[0\], this run \[1\]",
        ),
        ({"init": {"weights": run}, "aggregation": {"aggregate_on": "holdout"}}, "so none are unseen"),
        ({"init": {"name": "sharde"}}, "initialization 'sharde' is unknown: did you mean 'shared'"),
        ({"init": {"name": "shared"}, "decomposition": {"grid": "1x5"}}, "needs subimages of one shape, got"),
        ({"init": {"name": "shared"}, "aggregation": {"aggregate_on": "holdout"}}, "so none are unseen"),
        ({"training": {"local_objective": "ce+x"}}, "local objective 'ce\\+x' is unknown"),
        ({"strategy": "compose", "compose": {"parts": 3}}, r"compose.parts = 3 does not divide the network: 0.weight"),
        ({"model": {"name": "lda"}, "training": {"class_weights": "balanced"}}, "'lda' learns without weights"),
        (
            {"model": {"name": "tests.strategies.test_initialization:headless"}, "init": {"name": "contrastive"}},
            "has no linear layer that returns its scores",
        ),
    ]
    for sections, message in cases:
        out = tmp_path / "out"
        with pytest.raises(ddcnn.DdcnnError, match=message) as error:
            ddcnn.train(Config.parse(values(**sections) | {"out": out}))
        assert "\n" not in str(error.value)
        assert not out.exists()


def test_one_cnn_for_all_subdomains_begins_all_and_learns_from_all(make: Make) -> None:
    setup = make(init={"name": "shared", "epochs": 3})
    start = start_of(context(setup))
    assert all(equal(start.local[0], start.local[n]) for n in range(4))
    assert start.histories["init/shared"].epochs == 3
    local = train_local(setup)
    assert not equal(local.network.member_state(0), local.network.member_state(1))  # specialised
    one = make(init={"name": "shared"}, decomposition={"grid": "1x1"}, model={"width_factor": 0.5})
    module = one.networks.local_module(0, "shared")  # of one subdomain it is the local CNN itself, from that seed
    alone = one.networks.local_cnns([0], modules=[module], backend="looped")
    expected = _fitted(one, alone)
    found = start_of(context(one)).local[0]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def _fitted(setup: Setup, network: Any) -> dict[str, Tensor]:
    from ddcnn.training import fit

    data = setup.data
    train = data.batches(data.split.train, network.subdomains, augment=True)
    validation = data.batches(data.split.validation, network.subdomains)
    fit(network, train, validation, data.training, classes=3, stage="init/shared")
    state: dict[str, Tensor] = network.member_state(0)
    return state


def test_without_labels_means_without_labels(make: Make) -> None:
    pytest.importorskip("pytorch_metric_learning")
    setup = make(init={"name": "contrastive", "epochs": 2})
    start = start_of(context(setup))
    random = setup.networks.local_module(1).state_dict()
    assert not torch.equal(start.local[1]["0.weight"], random["0.weight"])
    other = make(init={"name": "contrastive", "epochs": 2})
    other.data.labels.copy_(torch.zeros_like(other.data.labels))
    assert all(equal(start_of(context(other)).local[n], start.local[n]) for n in range(4))
    assert len(start.histories["init/contrastive"].rows) == 2


def test_contrast_is_that_of_the_paper() -> None:
    pytest.importorskip("pytorch_metric_learning")
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(10, 3, 5, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    for m, loss in enumerate(contrast(embeddings, labels)):
        z = F.normalize(embeddings[:, m].double())
        similar = z @ z.T / TEMPERATURE
        total = 0.0
        for i in range(10):
            others = [j for j in range(10) if j != i]
            positives = [j for j in others if labels[j] == labels[i]]
            all_of = math.log(sum(math.exp(similar[i, j]) for j in others))
            total -= sum(float(similar[i, j]) - all_of for j in positives) / len(positives)
        assert float(loss) == pytest.approx(total / 10, rel=1e-5)


@pytest.mark.parametrize("backend", ["fused", "looped"])
@pytest.mark.parametrize("objective", ["ce+contrast", "ce+reconstruction"])
def test_local_objectives_are_those_of_each_local_cnn_by_itself(make: Make, objective: str, backend: str) -> None:
    if "contrast" in objective:
        pytest.importorskip("pytorch_metric_learning")
    training = {"local_objective": objective, "local_objective_weight": 0.5}
    together = make(training=training, compute={"backend": backend})
    apart = make(training=training, compute={"group": 1, "backend": "looped"})
    plain = train_local(make())
    found, expected = train_local(together), train_local(apart)
    for n in range(4):
        for name, value in expected.network.member_state(n).items():
            got = found.network.member_state(n)[name]
            torch.testing.assert_close(got, value, rtol=1e-3, atol=1e-4, msg=f"{n} {name}")
        assert not torch.equal(found.network.member_state(n)["0.weight"], plain.network.member_state(n)["0.weight"])


def test_what_is_read_from_features_is_the_reduced_subimage(make: Make) -> None:
    from ddcnn.training.local_objectives import LOCAL_OBJECTIVES

    setup = make(decomposition={"grid": "2x1"})
    network = setup.networks.local_cnns(backend="looped")
    entry = LOCAL_OBJECTIVES["ce+reconstruction"]
    assert entry is not None
    headed = entry.head(network, About(max(setup.networks.widths), 1, [0, 1])).train()
    (batch,) = list(setup.data.batches(setup.data.split.train[:5], network.subdomains).in_order())
    shown = headed(batch.inputs)
    assert not isinstance(shown, Tensor)
    whole = setup.data.normalization(setup.data.dataset.images[setup.data.split.train[:5]].float())
    for n, rows in enumerate((slice(0, 4), slice(4, 8))):
        reduced = F.adaptive_avg_pool2d(whole[:, :, rows], (4, 8)).flatten(1)
        torch.testing.assert_close(shown.extras[WANTED][:, n], reduced)
    assert shown.extras[HEAD].shape == (5, 2, 32)


def test_heads_of_subdomains_of_several_shapes(make: Make) -> None:
    pytest.importorskip("pytorch_metric_learning")
    uneven = {"training": {"local_objective": "ce+contrast"}, "decomposition": {"grid": "3x1"}}  # of 2, 3 and 3 rows
    found = train_local(make(**uneven))
    expected = train_local(make(**uneven, compute={"group": 1, "backend": "looped"}))
    for n in range(3):
        for name, value in expected.network.member_state(n).items():
            torch.testing.assert_close(found.network.member_state(n)[name], value, rtol=1e-3, atol=1e-4)


def test_heads_do_not_depend_on_who_is_beside_them(make: Make) -> None:
    setup = make()
    headed = with_embedding(setup.networks.local_cnns(), About(max(setup.networks.widths), 1, [5, 6, 7, 8]))
    alone = with_embedding(setup.networks.local_cnns([2]), About(max(setup.networks.widths), 1, [7]))
    assert isinstance(alone, WithHead)
    assert equal(alone.member_state(0), headed.subset([2]).member_state(0))


def test_the_same_in_worker_processes(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        setup = make(
            init={"name": "contrastive", "epochs": 1},
            training={"epochs": 1, "local_objective": "ce+reconstruction", "ema": 0.9, "jitter": 0.1, "cutmix": 1.0},
            compute={"group": 2},
        )
        expected = train_local(setup, InProcess())
        with Processes(2, threads=1) as engine:
            found = train_local(setup, engine, Progress(), Workspace(tmp_path, setup.fingerprint))
    finally:
        torch.set_num_threads(threads)
    for n in range(4):
        assert equal(found.network.member_state(n), expected.network.member_state(n))


@pytest.mark.parametrize(
    "sections",
    [
        {"init": {"name": "shared"}, "training": {"ema": 0.9}},
        {"init": {"name": "contrastive"}, "training": {"local_objective": "ce+contrast"}},
        {"strategy": "compose"},
        {"strategy": "coherent", "init": {"name": "shared", "epochs": 1}},
    ],
    ids=lambda sections: " ".join(map(str, sections.values())),
)
def test_resumed_is_bit_equal(sections: dict[str, Any], values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("pytorch_metric_learning")
    whole = ddcnn.train(Config.parse(values(**sections) | {"out": tmp_path / "whole"}), progress=(count := Leaves(0)))
    steps = count.steps
    for at in (2, steps // 2, steps - 2):
        out = tmp_path / f"left-{at}"
        with pytest.raises(InterruptionError):
            ddcnn.train(Config.parse(values(**sections) | {"out": out}), progress=Leaves(at))
        INTERRUPTION.signal = None
        resumed = ddcnn.resume(out, trust=True, progress=(rest := Leaves(0)))
        assert rest.steps < steps
        a, b = ddcnn.load(tmp_path / "whole", trust=True), ddcnn.load(out, trust=True)
        assert equal(a.unfused_state(), b.unfused_state())
        assert [row["test_accuracy"] for row in resumed.results["strategies"]] == [
            row["test_accuracy"] for row in whole.results["strategies"]
        ]


def test_a_start_is_refused_over_ranks(make: Make) -> None:
    from dataclasses import replace

    from ddcnn.engines import ALONE

    setup = make(init={"name": "shared"})
    two = replace(ALONE, count=2)
    with pytest.raises(ConfigError, match="is not spread over ranks"):
        check_start(replace(setup, ranks=two))
