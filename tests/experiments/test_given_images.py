"""Runs on images that are given in memory: fit, train, compare, evaluate, resume, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ddcnn
from ddcnn.config import Config, DataConfig
from ddcnn.errors import ConfigError, InterruptionError, RunError
from ddcnn.experiments.given_images import as_config
from ddcnn.report import write_report
from ddcnn.training import Progress

SMALL = {
    "model": {"name": "tests.strategies.tiny:tiny"},
    "training": {"epochs": 1, "batch_size": 20},
    "aggregation": {"epochs": 1, "hidden": [4]},
    "compute": {"device": "cpu", "precision": "float32", "backend": "looped"},
}


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """80 colour images of 8x6, channels last; the second class is brighter."""
    draw = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = draw.integers(0, 200, (80, 8, 6, 3)) + 50 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


def config(out: Path | None = None, **sections: Any) -> Config:
    return Config.parse(SMALL | ({} if out is None else {"out": out}) | sections)


@pytest.fixture(scope="module")
def compared(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("given") / "run"
    found = ddcnn.compare(config(out), arrays)
    assert found.results["strategies"][0]["name"] == "global"
    return out


def test_the_run_says_where_its_images_came_from(compared: Path) -> None:
    assert Config.read(compared / "config.yaml").data.source == "arrays"
    data = json.loads((compared / "data.json").read_text())
    assert (data["name"], data["image_shape"], data["classes"]) == ("arrays", [3, 8, 6], ["0", "1"])
    split = json.loads((compared / "split.json").read_text())
    assert (len(split["test"]), len(split["validation"])) == (16, 6)


def test_evaluate_asks_for_the_images_and_knows_its_own(compared: Path, arrays: Any) -> None:
    with pytest.raises(ddcnn.DdcnnError, match=r"given in memory and are not kept; give them again, as data=\(X, y\)"):
        ddcnn.evaluate(compared, trust=True)
    own = ddcnn.evaluate(compared, data=arrays, trust=True)
    assert (own["part"], own["samples"], own["learned_from"]) == ("test", 16, 0)
    results = json.loads((compared / "comparison.json").read_text())["strategies"]
    assert own["accuracy"] == pytest.approx(next(r["test_accuracy"] for r in results if r["name"] == own["strategy"]))
    part = ddcnn.evaluate(compared, data=(arrays[0][:40], arrays[1][:40]), trust=True)
    assert (part["part"], part["samples"]) == ("all", 40)
    assert part["learned_from"] > 20
    as_texts = ddcnn.evaluate(compared, data=(arrays[0][:40], arrays[1][:40].astype(str)), trust=True)
    assert as_texts["confusion"] == part["confusion"]
    with pytest.raises(ddcnn.DdcnnError, match="the network was trained on uint8"):
        ddcnn.evaluate(compared, data=(arrays[0] / 255, arrays[1]), trust=True)


def test_predictions_for_arrays_and_tensors(compared: Path, arrays: Any) -> None:
    images, _ = arrays
    network = ddcnn.load(compared, "cnn-dnn", trust=True)
    first = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = network(first).softmax(1).numpy()
    for given in (
        images,
        images.astype(np.int64),
        images.astype(float),
        first,
        first.float(),
        first.permute(0, 2, 3, 1),
    ):
        for batch_size in (7, 256):
            np.testing.assert_allclose(network.predict_proba(given, batch_size=batch_size), expected, atol=1e-6)
    assert network.predict(images).tolist() == [str(k) for k in expected.argmax(1)]
    assert network.predict_proba(images[:0]).shape == (0, 2)
    assert network.predict_proba(images[:1].copy().astype(np.uint8))[0].sum() == pytest.approx(1, abs=1e-6)
    assert not network.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x / 255,
            r"X: the network was trained on uint8 in .* got values in 0\.?.*; they look scaled to 0\.\.1",
        ),
        (lambda x: x.astype(int) + 1, r"got int64 in 1\.\.\d+|got int64 in .*convert the values"),
        (lambda x: x[:, :4], r"X: expected images of shape \(n, 3, 8, 6\) as in training, got \(80, 4, 6, 3\)"),
        (lambda x: np.where(x > 100, np.nan, x), "X holds NaN or infinity"),
        (lambda x: x.astype(str), "X: images should be numbers, got <U"),
    ],
)
def test_other_images_than_those_of_the_training_are_refused(
    compared: Path, arrays: Any, change: Any, message: str
) -> None:
    network = ddcnn.load(compared, "cnn-dnn", trust=True)
    images = arrays[0].copy()
    images[0, 0, 0, 0] = 255
    with pytest.raises(ddcnn.DdcnnError, match=message) as error:
        network.predict_proba(change(images))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("seeded")
def test_a_network_of_ones_own_predicts_numbers() -> None:
    from ddcnn.aggregation import Average
    from ddcnn.decomposition import Grid
    from tests.strategies.tiny import tiny

    network = ddcnn.CNNDNN(Grid((1, 1)), [tiny(1, 3, (4, 4), width=1)], Average(), image_size=(4, 4))
    assert set(network.predict(torch.rand(5, 1, 4, 4)).tolist()) <= {0, 1, 2}
    assert network.training  # as it was


def test_fit_returns_a_network_and_leaves_nothing(arrays: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = arrays
    network = ddcnn.fit(images, labels, grid=(2, 1), epochs=1, config=SMALL)
    assert not list(tmp_path.iterdir())
    assert network.local_cnns.members == 2
    assert network.input.classes == ("0", "1")
    found = network.predict_proba(images)
    again = ddcnn.fit(torch.from_numpy(images), labels, grid="2x1", epochs=1, config=config(), seed=0)
    np.testing.assert_array_equal(again.predict_proba(images), found)
    other = ddcnn.fit(images, labels, grid="2x1", epochs=1, config=SMALL, seed=1)
    assert not np.array_equal(other.predict_proba(images), found)


def test_fit_writes_a_run_without_a_test_part(arrays: Any, tmp_path: Path) -> None:
    images, labels = arrays
    network = ddcnn.fit(images, labels, config=SMALL, out=tmp_path / "run")
    np.testing.assert_allclose(
        ddcnn.load(tmp_path / "run", trust=True).predict_proba(images), network.predict_proba(images), atol=1e-6
    )
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert (split["test"], len(split["train"]) + len(split["validation"])) == ([], 80)
    results = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert results["strategies"][0]["test_accuracy"] is None
    assert results["strategies"][0]["validation_accuracy"] is not None
    assert "No test accuracy was measured" in write_report(tmp_path / "run").read_text()
    with pytest.raises(ddcnn.DdcnnError, match="leaves no image for the test; give others"):
        ddcnn.evaluate(tmp_path / "run", data=arrays, trust=True)


def test_workers_are_given_the_weights(arrays: Any) -> None:
    images, labels = arrays
    weights = np.where(labels == 1, 1.0, 0.0)
    found = []
    for sections in ({}, {"compute": SMALL["compute"] | {"group": 1}}):
        values = SMALL | {"training": {"epochs": 2, "batch_size": 20}} | sections
        network = ddcnn.fit(images, labels, sample_weight=weights, grid="2x1", aggregation="average", config=values)
        found.append(network.predict_proba(images))
    np.testing.assert_allclose(*found, atol=1e-5)
    plain = ddcnn.fit(images, labels, grid="2x1", aggregation="average", config=values)
    assert found[0][:, 1].mean() > plain.predict_proba(images)[:, 1].mean()


class Interrupting(Progress):
    def epoch(self, row: dict[str, Any]) -> None:
        raise InterruptionError(15)


def test_resume_needs_the_same_images(arrays: Any, tmp_path: Path) -> None:
    images, labels = arrays
    out = tmp_path / "run"
    with pytest.raises(InterruptionError):
        ddcnn.train(config(out), arrays, progress=Interrupting())
    with pytest.raises(ddcnn.DdcnnError, match="given in memory and are not kept"):
        ddcnn.resume(out, trust=True)
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    with pytest.raises(ddcnn.DdcnnError, match="began with other data"):
        ddcnn.resume(out, (changed, labels), trust=True)
    with pytest.raises(ddcnn.DdcnnError, match="began with other data"):
        ddcnn.resume(out, (images, labels, np.arange(80) // 2), trust=True)
    network = ddcnn.resume(out, arrays, trust=True).networks["cnn-dnn"]
    straight = ddcnn.train(config(tmp_path / "straight"), arrays).networks["cnn-dnn"]
    np.testing.assert_array_equal(network.predict_proba(images), straight.predict_proba(images))


def test_folds_keep_groups_apart(arrays: Any, tmp_path: Path) -> None:
    images, labels = arrays
    patients = np.arange(80) // 4
    values = config(tmp_path / "run", data={"folds": "2"}, training={"epochs": 1, "batch_size": 20})
    found = ddcnn.compare(values, (images, labels, patients))
    tested = []
    for fold in range(2):
        split = json.loads((found.run / "folds" / str(fold) / "split.json").read_text())
        parts = [{int(patients[i]) for i in split[part]} for part in ("train", "validation", "test")]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 20
        tested += split["test"]
    assert sorted(tested) == list(range(80))


@pytest.mark.parametrize(
    ("data", "sections", "message"),
    [
        ("one", {}, r"labels are missing; give X and y"),
        ((1, 2, 3, 4), {}, r"data should be \(X, y\) or \(X, y, groups\), got 4 parts"),
        (None, {"data": {"window": [0, 1]}}, r"data\.window is for files, and these images are given in memory"),
        (None, {"data": {"limit_train": 1}}, r"data\.limit_train = 1 is below the number of classes"),
        (None, {"decomposition": {"grid": "9x9"}}, "9"),
    ],
)
def test_nothing_is_written_for_images_that_cannot_be_used(
    arrays: Any, tmp_path: Path, data: Any, sections: dict[str, Any], message: str
) -> None:
    given = arrays if data is None else arrays[0] if data == "one" else data
    with pytest.raises(ddcnn.DdcnnError, match=message):
        ddcnn.train(config(tmp_path / "run", **sections), given)
    assert not list(tmp_path.iterdir())


def test_a_data_set_that_was_read_keeps_its_name(arrays: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=arrays[0], labels=arrays[1])
    source = f"npz:{tmp_path / 'x.npz'}"
    values = config(tmp_path / "run", data={"source": source}, strategy="global")
    ddcnn.train(values, ddcnn.open_data(values.data))
    assert Config.read(tmp_path / "run" / "config.yaml").data.source == source
    assert ddcnn.evaluate(tmp_path / "run", trust=True)["part"] == "test"


@pytest.fixture(scope="module")
def square() -> tuple[np.ndarray, np.ndarray]:
    """40 grey images of 8x8: width and height can be exchanged."""
    draw = np.random.default_rng(1)
    return draw.integers(0, 256, (40, 8, 8), dtype=np.uint8), np.arange(40) % 2


@pytest.mark.parametrize(
    ("layout", "given"),
    [
        ("NWH", lambda x: x[:, 0].transpose(0, 2, 1)),
        ("NCWH", lambda x: x.transpose(0, 1, 3, 2)),
        ("NWHC", lambda x: x.transpose(0, 3, 2, 1)),
    ],
)
def test_later_images_have_the_layout_of_those_of_the_training(
    square: Any, tmp_path: Path, layout: str, given: Any
) -> None:
    """What is trained on images that lie otherwise is the same network, and says the same of the same images."""
    X, y = square[0][:, None], square[1]
    turned = given(X)
    straight = ddcnn.fit(X, y, layout="NCHW", grid=(2, 1), config=SMALL)
    expected, wrong = straight.predict_proba(X), straight.predict_proba(X.transpose(0, 1, 3, 2))
    assert np.abs(expected - wrong).max() > 1e-4
    fitted = ddcnn.fit(turned, y, layout=layout.lower(), grid=(2, 1), config=SMALL, out=tmp_path / "run")
    for network in (fitted, ddcnn.load(tmp_path / "run", trust=True)):
        for images in (turned, torch.from_numpy(turned), turned.astype(np.float64)):
            np.testing.assert_allclose(network.predict_proba(images), expected, atol=1e-6)
            found = network.explain(images)
            np.testing.assert_allclose(found.probabilities.numpy(), expected, atol=1e-6)
        assert network.predict(turned).tolist() == [str(k) for k in expected.argmax(1)]
        np.testing.assert_allclose(network(torch.from_numpy(X)).softmax(1).detach().numpy(), expected, atol=1e-6)
        others = X if layout == "NWH" else X[:, 0]  # too many or too few axes for that layout
        np.testing.assert_allclose(network.predict_proba(others), expected, atol=1e-6)


def test_channels_stay_last_where_their_number_is_that_of_rows() -> None:
    draw = np.random.default_rng(2)
    images, y = draw.integers(0, 256, (40, 4, 4, 4), dtype=np.uint8), np.arange(40) % 2
    network = ddcnn.fit(images, y, config=SMALL)  # read as NHWC
    with torch.no_grad():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).softmax(1).numpy()
    np.testing.assert_allclose(network.predict_proba(images), expected, atol=1e-6)


def test_evaluate_and_resume_read_images_by_the_layout_of_the_training(square: Any, tmp_path: Path) -> None:
    X, y = square
    turned = X.transpose(0, 2, 1)
    data = ddcnn.as_dataset(turned, y, layout="NWH")
    ddcnn.train(config(tmp_path / "straight"), (X, y))
    straight = ddcnn.evaluate(tmp_path / "straight", data=(X, y), trust=True)
    with pytest.raises(InterruptionError):
        ddcnn.train(config(tmp_path / "run"), data, progress=Interrupting())
    with pytest.raises(ddcnn.DdcnnError, match="began with other data"):
        ddcnn.resume(tmp_path / "run", (X, y), trust=True)
    ddcnn.resume(tmp_path / "run", (turned, y), trust=True)
    for own in ((turned, y), data, ddcnn.as_dataset(X, y)):  # who makes a data set says what is what
        found = ddcnn.evaluate(tmp_path / "run", data=own, trust=True)
        assert (found["part"], found["samples"]) == ("test", 8)
        assert found["loss"] == pytest.approx(straight["loss"], abs=1e-6)
    assert ddcnn.evaluate(tmp_path / "run", data=(X, y), trust=True)["part"] == "all"
    expected = ddcnn.evaluate(tmp_path / "straight", data=(X[:20], y[:20]), trust=True)
    for told, images in (("NWH", turned), ("NHW", X)):
        np.savez(tmp_path / "w.npz", images=images[:20], labels=y[:20], layout=told)
        found = ddcnn.evaluate(tmp_path / "run", data=DataConfig(source=f"npz:{tmp_path / 'w.npz'}"), trust=True)
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    np.savez(tmp_path / "w.npz", images=turned[:20], labels=y[:20])
    with pytest.raises(ddcnn.DdcnnError, match=r"w\.npz does not say which axis is what, .*layout='NWH'\), or 'NHW'$"):
        ddcnn.evaluate(tmp_path / "run", data=DataConfig(source=f"npz:{tmp_path / 'w.npz'}"), trust=True)


def test_what_folds_say_does_not_depend_on_the_layout_of_the_arrays(square: Any, tmp_path: Path) -> None:
    from ddcnn.experiments.out_of_fold import out_of_fold

    X, y = square[0][:, None], square[1]
    found = []
    for name, images, layout in (("a", X, "NCHW"), ("b", X.transpose(0, 1, 3, 2), "NCWH")):
        dataset = ddcnn.as_dataset(images, y, layout=layout)
        ddcnn.train(config(tmp_path / name), dataset)
        found.append(out_of_fold(tmp_path / name, dataset, trust=True)[0])
    np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_masks_of_0_and_1_are_not_taken_as_0_and_255(kind: type, square: Any) -> None:
    X, y = square
    masks = X > 127
    network = ddcnn.fit(masks.astype(kind), y, config=SMALL)
    expected = network.predict_proba(masks)
    np.testing.assert_array_equal(network.predict_proba(masks.astype(np.float32)), expected)
    for values in (np.uint8(255) * masks, 255.0 * masks):
        with pytest.raises(
            ddcnn.DdcnnError, match=r"^X: the network was trained on uint8 in 0\.\.1, got values in 0\.\.255"
        ):
            network.predict_proba(values)
    other = ddcnn.fit(np.uint8(255) * masks, y, config=SMALL)
    with pytest.raises(ddcnn.DdcnnError, match=r"in 0\.\.255, got values in 0\.\.1; they look scaled to 0\.\.1"):
        other.predict_proba(masks)


def test_masked_images_are_refused_wherever_they_are_given(compared: Path, arrays: Any) -> None:
    images, labels = arrays
    masked = np.ma.masked_array(images, images > 240)
    network = ddcnn.load(compared, "cnn-dnn", trust=True)
    calls: list[Any] = [
        lambda: ddcnn.fit(masked, labels, config=SMALL),
        lambda: ddcnn.evaluate(compared, data=(masked, labels), trust=True),
        lambda: network.predict(masked),
        lambda: network.predict_proba(masked),
        lambda: network.explain(masked),
    ]
    for call in calls:
        with pytest.raises(ddcnn.DdcnnError, match=r"^X has masked values, [\d,]+ of them; fill them") as error:
            call()
        assert "\n" not in str(error.value)
    whole = np.ma.masked_array(images, False)
    np.testing.assert_array_equal(network.predict_proba(whole), network.predict_proba(images))


@pytest.mark.parametrize("config", ["x.yaml", None, 3, [1]])
def test_what_is_no_configuration(config: Any) -> None:
    kind = type(config).__name__
    with pytest.raises(ConfigError, match=f"config should be a ddcnn.Config or nested sections, .* got {kind}"):
        as_config(config)
    with pytest.raises(ConfigError, match="training"):
        ddcnn.fit(np.zeros((4, 8, 8)), [0, 1] * 2, epochs=1, config={"training": 3})


def test_what_is_no_run() -> None:
    with pytest.raises(RunError, match="a run is named by the path of its folder, got NoneType"):
        ddcnn.load(None)


def test_a_configuration_as_nested_sections(arrays: Any, tmp_path: Path) -> None:
    values = {
        "model": {"name": "tests.strategies.tiny:tiny"},
        "training": {"epochs": 1},
        "aggregation": {"epochs": 1},
        "strategy": "local",
        "out": str(tmp_path / "run"),
    }
    assert ddcnn.train(values, arrays).run == tmp_path / "run"
    assert ddcnn.plan(values, arrays, measure=False).stages
