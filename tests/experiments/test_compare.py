import json

import numpy as np
import pytest
import torch
from torch import nn

import ddcnn
from ddcnn.errors import ConfigError, DataError, DecompositionError, FusionError, ModelError, RunError, TrainingError
from ddcnn.runs import RunFolder
from ddcnn.training import Progress

NAMES = ["global", "average", "vote", "cnn-dnn", "coherent", "transfer"]


@pytest.fixture(scope="module")
def compared(source, tmp_path_factory):
    config = ddcnn.Config.parse(
        {
            "data": {"source": source},
            "training": {"epochs": 3, "batch_size": 16, "lr": 0.02},
            "aggregation": {"epochs": 4, "batch_size": 16, "hidden": 8},
            "compute": {"device": "cpu", "precision": "float32", "backend": "fused"},
            "model": {"name": "resnet20", "width_factor": 0.25},
            "decomposition": {"grid": "2x3", "overlap": "0x1"},
            "out": tmp_path_factory.mktemp("runs") / "bars",
        }
    )
    return ddcnn.compare(config, command="ddcnn compare ...")


def test_the_results_say_what_they_should(compared):
    results = compared.results
    assert set(results) == {
        *(
            "data",
            "model",
            "decomposition",
            "grid",
            "members",
            "seed",
            "device",
            "strategies",
            "subdomains",
            "details",
            "run",
        )
    }
    assert [row["name"] for row in results["strategies"]] == NAMES
    for row in results["strategies"]:
        assert set(row) == {
            "name",
            "label",
            "sentence",
            "train_accuracy",
            "validation_accuracy",
            "test_accuracy",
            "test_auc",
            "test_f1",
            "test_nll",
            "test_brier",
            "test_ece",
            "handed_over",
            "parameters",
            "epochs",
            "seconds",
            "critical_path_seconds",
            "peak_memory_bytes",
        }
        assert 0 <= row["test_accuracy"] <= 1
        numbers = 3 if row["name"] == "global" else 6 * 3
        assert row["handed_over"] == {"features": "probability", "numbers": numbers}
    epochs = {row["name"]: row["epochs"] for row in results["strategies"]}
    assert epochs == {"global": 3, "average": 3, "vote": 3, "cnn-dnn": 3, "coherent": 3, "transfer": 6}
    seconds = {row["name"]: row["seconds"] for row in results["strategies"]}
    assert seconds["transfer"] > seconds["cnn-dnn"] > seconds["average"] == seconds["vote"]
    assert [s["box"] for s in results["subdomains"]][:2] == [[[0, 8], [0, 7]], [[0, 8], [5, 13]]]
    for row in results["subdomains"]:
        assert set(row) == {"index", "name", "box", "parameters", "test_accuracy", "best_epoch", "diverged_epoch"}
        assert row["diverged_epoch"] is None


def test_the_files_of_a_run_are_there_and_whole(compared):
    names = {p.relative_to(compared.run).as_posix() for p in compared.run.rglob("*") if p.is_file()}
    assert names == {
        *(f"locals/{n}.safetensors" for n in range(6)),
        *(f"{name}.safetensors" for name in ("global", "aggregation", "coherent", "transfer", "examples")),
        *("config.yaml", "environment.json", "data.json", "metrics.jsonl", "split.json"),
        *("comparison.json", "networks.json", "content.safetensors", "decisions.safetensors", "manifest.json"),
    }
    stages = [json.loads(line)["stage"] for line in (compared.run / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["global"] * 3 + ["local"] * 3 + ["dnn"] * 4 + ["coherent"] * 3 + ["transfer"] * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_network_decides_as_the_trained_one(compared, name):
    evaluated = ddcnn.evaluate(compared.run, strategy=name)
    row = next(r for r in compared.results["strategies"] if r["name"] == name)
    assert evaluated["accuracy"] == pytest.approx(row["test_accuracy"])
    assert evaluated["confusion"] == compared.results["details"]["confusion"][name]
    images = torch.arange(5 * 16 * 18).mul(7).remainder(256).to(torch.uint8).view(5, 1, 16, 18)
    trained = compared.networks[name].eval()
    with torch.no_grad():
        torch.testing.assert_close(ddcnn.load(compared.run, name)(images), trained(images), rtol=1e-4, atol=1e-5)


def test_the_network_that_is_loaded_by_default_validates_best(compared):
    rows = compared.results["strategies"]
    best = max(row["validation_accuracy"] for row in rows)
    last = [row["name"] for row in rows if row["validation_accuracy"] == best][-1]  # among equals
    assert ddcnn.evaluate(compared.run)["strategy"] == last
    with pytest.raises(RunError, match="did you mean 'coherent'"):
        ddcnn.load(compared.run, "coherant")


def test_a_run_is_repeated_by_its_own_configuration(compared, tmp_path):
    config = ddcnn.Config.read(compared.run / "config.yaml", {"out": tmp_path / "again"})
    ddcnn.compare(config)

    def checksums(run):
        sums = json.loads((run / "manifest.json").read_text())["sha256"]
        return {name: value for name, value in sums.items() if name.endswith(".safetensors")}

    assert checksums(tmp_path / "again") == checksums(compared.run)


def test_test_images_have_no_part_in_the_training(compared, make_config, tmp_path):
    split = json.loads((compared.run / "split.json").read_text())
    with np.load(compared.results["data"].removeprefix("npz:")) as data:
        images, labels = data["images"].copy(), data["labels"]
    images[split["test"]] = 0
    np.savez(tmp_path / "dark.npz", images=images, labels=labels)
    config = ddcnn.Config.read(
        compared.run / "config.yaml", {"data": {"source": f"npz:{tmp_path}/dark.npz"}, "out": tmp_path / "dark"}
    )
    ddcnn.compare(config)
    for name in ("global", "aggregation", "transfer", "locals/3"):
        a, b = (run / f"{name}.safetensors" for run in (compared.run, tmp_path / "dark"))
        assert a.read_bytes() == b.read_bytes(), name


@pytest.mark.parametrize(
    ("strategy", "aggregation", "names"),
    [
        ("global", "dense", ["global"]),
        ("local", "vote", ["vote"]),
        ("local", "dense", ["cnn-dnn"]),
        ("coherent", "average", ["coherent"]),
        ("transfer", "dense", ["cnn-dnn", "transfer"]),
        ("transfer", "average", ["average", "transfer"]),
    ],
)
def test_one_strategy_alone(make_config, strategy, aggregation, names):
    trained = ddcnn.train(make_config(strategy=strategy, aggregation={"name": aggregation}, training={"epochs": 1}))
    assert [row["name"] for row in trained.results["strategies"]] == names
    results = json.loads((trained.run / "comparison.json").read_text())
    for row in results["strategies"]:  # whichever validates best, the one that was asked for is meant
        row["validation_accuracy"] = float(row["name"] != names[-1])
    folder = RunFolder(trained.run)
    folder.write_json("comparison.json", results)
    folder.seal()
    found = ddcnn.evaluate(trained.run)
    assert (found["samples"], found["strategy"]) == (18, names[-1])


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"decomposition": {"grid": "20x2"}}, DecompositionError, "grid 20x2 is finer than the images, 16x18"),
        ({"decomposition": {"grid": "2x2x2"}}, DecompositionError, "3 axes, but the images are 16x18"),
        ({"decomposition": {"grid": "4x4"}, "model": {"name": "vgg9"}}, ModelError, "at least 8 pixels"),
        ({"model": {"name": "vgg"}}, ModelError, "did you mean 'vgg9'"),
        ({"model": {"options": {"depth": 3}}}, ModelError, "cannot be built with options"),
        (
            {"model": {"name": "tests.strategies.tiny:with_dense_norm"}, "training": {"batch_size": 1}},
            ModelError,
            "does not fit the image, 16x18 pixels, in batches of 1: .*; it takes batches of 2, so use a larger",
        ),
        ({"compute": {"device": "gpu"}}, ConfigError, "compute.device = 'gpu' cannot be used"),
        ({"data": {"source": "npz:absent.npz"}}, DataError, "absent.npz"),
        ({"data": {"limit_train": 2}}, DataError, "limit_train"),
        ({"training": {"subdomains": {4: {}}}}, ConfigError, "^training.subdomains.4: there is no such .* use 0 to 3$"),
        ({"training": {"subdomains": {-1: {}}}}, ConfigError, "^training.subdomains.-1: there is no such subdomain"),
    ],
)
def test_what_cannot_be_used_leaves_no_run(make_config, sections, error, message, tmp_path):
    with pytest.raises(error, match=message) as caught:
        ddcnn.compare(make_config(**sections))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_vote_has_no_gradient(make_config, tmp_path):
    with pytest.raises(ConfigError, match="no gradient"):
        ddcnn.train(make_config(strategy="coherent", aggregation={"name": "vote"}))
    assert not (tmp_path / "run").exists()


def test_one_model_has_no_values_of_subdomains(make_config, tmp_path):
    with pytest.raises(ConfigError, match=r"^training.subdomains is for local CNNs, but strategy coherent trains one"):
        ddcnn.train(make_config(strategy="coherent", training={"subdomains": {1: {"lr": 0.1}}}))
    assert not (tmp_path / "run").exists()


def test_a_subdomain_that_diverges_is_named_and_the_run_goes_on(make_config):
    notes = Notes()
    comparison = ddcnn.train(make_config(training={"epochs": 2, "subdomains": {"2": {"lr": 1e38}}}), progress=notes)
    text = "loss became NaN or infinite in epoch 1; its parameters are those it began with; a smaller learning rate"
    assert [line for line in notes.lines if "loss" in line] == [
        f"local, subdomain 2 (rows 8..15, columns 0..8): {text} may help"
    ]
    rows = comparison.results["subdomains"]
    assert [row["diverged_epoch"] for row in rows] == [None, None, 1, None]
    assert rows[2]["best_epoch"] == 0
    assert min(row["best_epoch"] for row in rows if row["index"] != 2) > 0
    states = [comparison.networks["cnn-dnn"].local_cnns.member_state(n) for n in range(4)]
    assert all(value.isfinite().all() for state in states for value in state.values())
    assert "subdomains:\n    '2':\n      lr: 1.0e+38" in (comparison.run / "config.yaml").read_text()


def test_a_model_that_diverges_as_a_whole_ends_the_run_in_one_line(make_config):
    with pytest.raises(
        TrainingError, match=r"^global: the loss became NaN .* use a smaller learning rate than 1e\+38$"
    ):
        ddcnn.train(make_config(strategy="global", training={"epochs": 1, "lr": 1e38}))


class Interrupted(Progress):
    def epoch(self, row):
        if row["stage"] == "local":
            raise KeyboardInterrupt


def test_an_interrupted_run_is_not_taken_for_a_whole_one(make_config):
    config = make_config()
    with pytest.raises(KeyboardInterrupt):
        ddcnn.compare(config, progress=Interrupted())
    with pytest.raises(RunError, match="did not finish"):
        ddcnn.load(config.out)
    with pytest.raises(RunError, match="--force"):
        ddcnn.compare(config)


class Notes(Progress):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


class Untraceable(nn.Module):
    """A network of the user's whose forward depends on numbers."""

    def __init__(self, in_channels, classes, image_size, *, width):
        super().__init__()
        self.head = nn.Linear(in_channels, classes)

    def forward(self, x):
        x = x.mean((2, 3))
        return self.head(x if x.sum() > 0 else 2 * x)


def test_a_network_that_cannot_be_fused_runs_in_turn_and_says_so(make_config, monkeypatch):
    monkeypatch.setitem(ddcnn.models.MODELS, "untraceable", Untraceable)
    model = {"name": "untraceable", "width_factor": None}
    notes = Notes()
    config = make_config(model=model, compute={"backend": "auto"}, training={"epochs": 1})
    comparison = ddcnn.compare(config, progress=notes)
    assert any(line.startswith("backend looped: ") and "reads numbers out of a tensor" in line for line in notes.lines)
    assert "backend: looped" in (comparison.run / "config.yaml").read_text()
    with pytest.raises(FusionError, match="cannot be fused"):
        ddcnn.compare(make_config("other", model=model))


def test_auto_is_decided_and_recorded(make_config):
    notes = Notes()
    config = make_config(compute={"precision": "auto", "backend": "auto"}, training={"epochs": 1})
    comparison = ddcnn.train(config, progress=notes)
    saved = ddcnn.Config.read(comparison.run / "config.yaml").compute
    assert (saved.precision, saved.backend) == ("float32", "fused")
    why = "the run is too short to measure others"
    assert comparison.results["details"]["choices"] == {"precision": f"float32: {why}", "backend": f"fused: {why}"}
    assert len([line for line in notes.lines if line.startswith(("precision ", "backend "))]) == 2
