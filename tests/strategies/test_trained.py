"""A run that begins with another one: what that had learned from, and its local CNNs as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config
from ddcnn.data import Split
from ddcnn.errors import ConfigError, InterruptionError
from ddcnn.planning import prepare
from ddcnn.seeds import derive_seed
from ddcnn.training.interruption import INTERRUPTION
from tests.strategies.helpers import TRAINED, Leaves, equal, local_states

TIMES = ("seconds", "critical_path_seconds", "peak_memory_bytes")


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
        assert equal(a.unfused_state(), b.unfused_state())
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
    assert all(equal(network.local_cnns.member_state(n), state) for n, state in enumerate(local_states(run)))
    of_coherent = ddcnn.compare(Config.parse(values(aggregation={"name": "gated", "features": "penultimate"}) | {
        "out": tmp_path / "whole"
    }))  # fmt: skip
    for a, b in zip(of_coherent.results["strategies"], found.results["strategies"], strict=True):
        assert (a["name"], a["test_accuracy"]) == (b["name"], b["test_accuracy"])


def test_a_local_cnn_that_the_run_ended_without_is_missing_in_the_next_one(
    values: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = values(model={"name": "tests.engines.broken:late"}, compute={"backend": "looped"})
    monkeypatch.setenv("BROKEN_SEED", str(derive_seed(0, "local", 2)))  # see tests/engines/broken.py
    monkeypatch.setenv("BROKEN_WITH", "RuntimeError")
    before = ddcnn.train(Config.parse(given | {"out": tmp_path / "before"}))
    monkeypatch.delenv("BROKEN_SEED")
    begun = given | {"strategy": "transfer", "init": TRAINED | {"weights": before.run}, "out": tmp_path / "later"}
    found = ddcnn.train(Config.parse(begun))
    assert [row.get("missing", False) for row in found.results["subdomains"]] == [False, False, True, False]
    a, b = (ddcnn.load(folder, "cnn-dnn", trust=True) for folder in (before.run, found.run))
    assert a.missing == b.missing == (2,)
    assert equal(a.unfused_state(), b.unfused_state())
    assert before.results["strategies"][0]["test_accuracy"] == found.results["strategies"][0]["test_accuracy"]
    assert ddcnn.load(found.run, "transfer", trust=True).missing == ()  # as one model, it is trained with all others


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
        assert equal(a.unfused_state(), b.unfused_state())


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
