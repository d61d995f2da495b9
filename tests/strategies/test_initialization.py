"""Where trainings begin: given weights, one CNN for all subdomains, without labels; and what they minimise."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import ddcnn
from ddcnn.config import Config
from ddcnn.data import Split
from ddcnn.engines import InProcess, Processes
from ddcnn.errors import ConfigError, InterruptionError
from ddcnn.planning import Setup, prepare
from ddcnn.strategies import run_strategies
from ddcnn.strategies.initialization import check_start, start_of
from ddcnn.training import Progress, Workspace
from ddcnn.training.contrast import TEMPERATURE, contrast
from ddcnn.training.interruption import INTERRUPTION
from ddcnn.training.local_objectives import About, with_embedding
from ddcnn.training.with_head import HEAD, WANTED, WithHead
from tests.bars import write_bars
from tests.setups import context, decided, train_local

BASE: dict[str, Any] = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 2, "batch_size": 20, "lr": 0.05, "shift": 1},
    "aggregation": {"epochs": 2},
    "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
}
TRAINED = {"name": "trained"}
TIMES = ("seconds", "critical_path_seconds", "peak_memory_bytes")
Make = Callable[..., Setup]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_bars(tmp_path_factory.mktemp("data"), (8, 12))


@pytest.fixture
def values(source: str) -> Callable[..., dict[str, Any]]:
    def make(**sections: Any) -> dict[str, Any]:
        found = {"data": {"source": source}, **BASE}
        for name, section in sections.items():
            found[name] = {**found.get(name, {}), **section} if isinstance(section, dict) else section
        return found

    return make


@pytest.fixture
def make(values: Callable[..., dict[str, Any]]) -> Make:
    return lambda **sections: decided(values(**sections))


@pytest.fixture(scope="module")
def run(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of three classes with local CNNs."""
    out = tmp_path_factory.mktemp("run") / "r"
    ddcnn.train(Config.parse({"data": {"source": source}, **BASE, "out": out}))
    return out


def headless(in_channels: int, classes: int, image_size: Any, *, width: float) -> torch.nn.Module:
    """Return a network whose scores no linear layer makes."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(in_channels, classes, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


def _equal(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _local(run: Path) -> list[dict[str, Tensor]]:
    network = ddcnn.load(run, trust=True)
    return [network.local_cnns.member_state(n) for n in range(4)]


def test_weights_of_a_run_are_where_its_local_cnns_were(run: Path, make: Make) -> None:
    for strategy in ("local", "coherent"):
        setup = make(strategy=strategy, init={"weights": run})
        start = start_of(context(setup))
        assert all(_equal(start.local[n], state) for n, state in enumerate(_local(run)))
    held = make(strategy="coherent", init={"weights": run}, training={"freeze": 99, "epochs": 1})
    network = run_strategies(["coherent"], context(held))["coherent"].network
    for n, state in enumerate(_local(run)):
        assert torch.equal(network.local_cnns.member_state(n)["0.weight"], state["0.weight"])


def test_a_file_is_for_every_network_and_other_classes_leave_the_classifier_random(
    run: Path, make: Make, tmp_path: Path
) -> None:
    state = {name: value.contiguous() for name, value in _local(run)[0].items()}
    save_file(state, tmp_path / "same.safetensors")
    setup = make(init={"weights": tmp_path / "same.safetensors"})
    assert all(_equal(start_of(context(setup)).local[n], state) for n in range(4))
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
    extra = {name: value.contiguous() for name, value in _local(run)[0].items()} | {"9.weight": torch.zeros(1)}
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


def test_weights_that_learned_from_held_out_images_are_refused(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Another seed splits the same images in another way: what one run was trained on, the other one tests on."""
    before = Split.from_json((run / "split.json").read_text())
    for sections in ({"seed": 1}, {"seed": 0, "data": {"folds": 3, "fold": 0}}):
        given = values(init={"weights": run}, **sections)
        split = prepare(Config.parse(given)).data.split
        learned = torch.cat([before.train, before.validation])
        count = int(torch.isin(split.test, learned).sum() + torch.isin(split.validation, before.train).sum())
        held_out = len(split.test) + len(split.validation)
        with pytest.raises(ConfigError, match=rf"learned from {count} of the {held_out} images .* with its seed \(0\)"):
            ddcnn.train(Config.parse(given | {"out": tmp_path / "out"}))
    other = tmp_path / "other"
    other.mkdir()
    mirrored = np.load(Path(values()["data"]["source"].removeprefix("npz:")))
    np.savez(other / "d.npz", images=mirrored["images"][..., ::-1], labels=mirrored["labels"])
    unseen = values(init={"weights": run}, data={"source": f"npz:{other / 'd.npz'}"}, seed=1)
    ddcnn.train(Config.parse(unseen | {"out": tmp_path / "out"}))


def test_what_the_run_before_has_learned_from_counts(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """A network that was trained on some images, then on others, has seen both."""
    images = np.load(Path(values()["data"]["source"].removeprefix("npz:")))
    np.savez(tmp_path / "d.npz", images=images["images"][..., ::-1], labels=images["labels"])
    others = {"source": f"npz:{tmp_path / 'd.npz'}"}
    ddcnn.train(Config.parse(values(init={"weights": run}, data=others) | {"out": tmp_path / "second"}))
    third = values(init={"weights": tmp_path / "second"}, seed=1) | {"out": tmp_path / "third"}
    with pytest.raises(ConfigError, match="second learned from"):
        ddcnn.train(Config.parse(third))
    split = Split.from_json((run / "split.json").read_text())
    found = ddcnn.evaluate(tmp_path / "second", data=(images["images"], images["labels"]), trust=True)
    assert found["learned_from"] == len(split.train) + len(split.validation)


def test_what_a_limit_leaves_out_of_the_second_run_was_learned_from_in_the_first(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """The second run knows all images of the first one, trains on few of them, and hides nothing."""
    few = values(init={"weights": run}, data={"limit_train": 9, "limit_val": 3}) | {"out": tmp_path / "second"}
    ddcnn.train(Config.parse(few))
    counts = set()
    for before in (run, tmp_path / "second"):
        with pytest.raises(ConfigError, match=r"learned from (\d+) of the") as caught:
            ddcnn.train(Config.parse(values(init={"weights": before}, seed=1) | {"out": tmp_path / "third"}))
        counts.add(str(caught.value).partition("learned from ")[2])
    assert len(counts) == 1
    same = values(init={"weights": tmp_path / "second"}) | {"out": tmp_path / "third"}
    ddcnn.train(Config.parse(same))  # the split of the first one: nothing that it holds out was learned from


def test_what_follows_trained_local_cnns_is_what_follows_them_in_one_run(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    given = values(strategy="transfer")
    whole = ddcnn.train(Config.parse(given | {"out": tmp_path / "whole"}))
    watched = Leaves(0)
    later = ddcnn.train(
        Config.parse(given | {"init": TRAINED | {"weights": run}, "out": tmp_path / "later"}), progress=watched
    )
    assert set(watched.begun) == {"local", "dnn", "transfer"}
    assert watched.epochs == [stage for stage in watched.epochs if stage != "local"]
    for name in ("cnn-dnn", "transfer"):
        a, b = (ddcnn.load(tmp_path / folder, name, trust=True) for folder in ("whole", "later"))
        assert _equal(a.unfused_state(), b.unfused_state())
    for a, b in zip(whole.results["strategies"], later.results["strategies"], strict=True):
        assert {k: v for k, v in a.items() if k not in TIMES} == {k: v for k, v in b.items() if k not in TIMES}
    assert whole.results["subdomains"] == later.results["subdomains"]
    alone = json.loads((run / "comparison.json").read_text())["details"]["stages"]
    assert later.results["details"]["stages"][0] == alone[0]  # their time there counts
    rows = [json.loads(line)["stage"] for line in (tmp_path / "later" / "metrics.jsonl").read_text().splitlines()]
    assert rows.count("local") == rows.count("transfer") == 2


def test_other_aggregations_of_trained_local_cnns(
    run: Path, values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    given = values(init=TRAINED | {"weights": run}, aggregation={"name": "gated", "features": "penultimate"})
    found = ddcnn.compare(Config.parse(given | {"out": tmp_path / "out"}))
    network = ddcnn.load(tmp_path / "out", "gated", trust=True)
    assert all(_equal(network.local_cnns.member_state(n), state) for n, state in enumerate(_local(run)))
    of_coherent = ddcnn.compare(Config.parse(values(aggregation={"name": "gated", "features": "penultimate"}) | {
        "out": tmp_path / "whole"
    }))  # fmt: skip
    for a, b in zip(of_coherent.results["strategies"], found.results["strategies"], strict=True):
        assert (a["name"], a["test_accuracy"]) == (b["name"], b["test_accuracy"])


def test_plan_does_not_count_what_is_trained(run: Path, values: Callable[..., dict[str, Any]]) -> None:
    config = Config.parse(values(init=TRAINED | {"weights": run}, strategy="transfer"))
    assert [stage.name for stage in ddcnn.plan(config, job="train").stages] == ["dnn", "transfer"]


def test_a_run_without_local_cnns_has_none_to_take(values: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    ddcnn.train(Config.parse(values(strategy="coherent") | {"out": tmp_path / "coherent"}))
    with pytest.raises(ConfigError, match="has no local CNNs that were trained by themselves"):
        ddcnn.train(Config.parse(values(init=TRAINED | {"weights": tmp_path / "coherent"}) | {"out": tmp_path / "b"}))


def test_a_run_that_was_replaced_meanwhile_is_not_gone_on_with(
    values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Checkpoints of the DNN belong to the local CNNs that it was trained on."""
    first = tmp_path / "first"
    ddcnn.train(Config.parse(values() | {"out": first}))
    given = values(strategy="transfer", init=TRAINED | {"weights": first}) | {"out": tmp_path / "out"}
    with pytest.raises(InterruptionError):
        ddcnn.train(Config.parse(given), progress=Leaves(7))  # in the second phase
    INTERRUPTION.signal = None
    ddcnn.train(Config.parse(values(training={"lr": 0.01}) | {"out": first, "force": True}))
    ddcnn.resume(tmp_path / "out", trust=True)
    anew = Config.parse(given | {"out": tmp_path / "anew"})
    ddcnn.train(anew)
    for name in ("cnn-dnn", "transfer"):
        a, b = (ddcnn.load(tmp_path / folder, name, trust=True) for folder in ("out", "anew"))
        assert _equal(a.unfused_state(), b.unfused_state())


def test_one_cnn_for_all_subdomains_begins_all_and_learns_from_all(make: Make) -> None:
    setup = make(init={"name": "shared", "epochs": 3})
    start = start_of(context(setup))
    assert all(_equal(start.local[0], start.local[n]) for n in range(4))
    assert start.histories["init/shared"].epochs == 3
    local = train_local(setup)
    assert not _equal(local.network.member_state(0), local.network.member_state(1))  # specialised
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
    assert all(_equal(start_of(context(other)).local[n], start.local[n]) for n in range(4))
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
    assert _equal(alone.member_state(0), headed.subset([2]).member_state(0))


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
        assert _equal(found.network.member_state(n), expected.network.member_state(n))


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
        assert _equal(a.unfused_state(), b.unfused_state())
        assert [row["test_accuracy"] for row in resumed.results["strategies"]] == [
            row["test_accuracy"] for row in whole.results["strategies"]
        ]


class Leaves(Progress):
    """Counts steps, notes what is trained, and ends the run at one of the steps, as SIGTERM does."""

    def __init__(self, at: int) -> None:
        self.steps, self.at = 0, at
        self.begun: list[str] = []
        self.epochs: list[str] = []

    def begin(self, stage: str, *, epochs: int, steps: int, members: int) -> None:
        self.begun.append(stage)

    def epoch(self, row: dict[str, Any]) -> None:
        self.epochs.append(row["stage"])

    def advance(self, images: int, mean: Callable[[], tuple[float, float]]) -> None:
        self.steps += 1
        if self.steps == self.at:
            INTERRUPTION.request(signal.SIGTERM)


def test_a_start_is_refused_over_ranks(make: Make) -> None:
    from dataclasses import replace

    from ddcnn.engines import ALONE

    setup = make(init={"name": "shared"})
    two = replace(ALONE, count=2)
    with pytest.raises(ConfigError, match="is not spread over ranks"):
        check_start(replace(setup, ranks=two))


def test_the_run_that_another_begins_with_is_not_replaced_by_it(
    values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    first = tmp_path / "first"
    ddcnn.train(Config.parse(values() | {"out": first}))
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    for sections in ({}, {"data": {"folds": 2}}):
        given = values(init={"weights": first}, **sections) | {"out": first, "force": True}
        with pytest.raises(ddcnn.DdcnnError, match="would be read, but lies in"):
            (ddcnn.compare if sections else ddcnn.train)(Config.parse(given))
        assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_home_is_a_home_in_a_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = Config.parse({"out": "~/run", "init": {"weights": "~/before"}})
    assert (config.out, config.init.weights) == (tmp_path / "run", tmp_path / "before")
