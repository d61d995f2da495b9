"""From options to a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddcnn.cli.options import FIELDS, build_config, in_words_of_options
from ddcnn.config import Config
from ddcnn.errors import ConfigError, DataError

VALUES = {
    "--threshold": ("0.25", 0.25),
    "--track": ("mlflow", "mlflow"),
    "--data": ("cifar10", "cifar10"),
    "--data-dir": ("files", Path("files")),
    "--offline": (None, True),
    "--limit-train": ("100", 100),
    "--limit-val": ("10", 10),
    "--image-size": ("64x48", (64, 48)),
    "--folds": ("5x2", (5, 2)),
    "--patience": ("7", 7),
    "--augment": ("no", False),
    "--class-weights": ("balanced", "balanced"),
    "--group-pattern": ("(p[0-9]+)_", "(p[0-9]+)_"),
    "--on-bad-file": ("warn", "warn"),
    "--model": ("resnet20", "resnet20"),
    "--grid": ("4x3", (4, 3)),
    "--decomposition": ("grid", "grid"),
    "--overlap": ("2x1", (2, 1)),
    "--coarse": (None, "auto"),
    "--width-factor": ("0.25", 0.25),
    "--strategy": ("transfer", "transfer"),
    "--init": ("shared", "shared"),
    "--weights": ("w.safetensors", Path("w.safetensors")),
    "--aggregation": ("vote", "vote"),
    "--features": ("logit", "logit"),
    "--calibrate": (None, True),
    "--aggregate-on": ("crossfit", "crossfit"),
    "--recipe": ("paper", "paper"),
    "--epochs": ("3", 3),
    "--batch-size": ("16", 16),
    "--lr": ("1e-2", 0.01),
    "--seed": ("7", 7),
    "--device": ("cpu", "cpu"),
    "--precision": ("bfloat16", "bfloat16"),
    "--backend": ("looped", "looped"),
    "--memory": ("8GB", 8_000_000_000),
    "--engine": ("processes", "processes"),
    "--workers": ("3", 3),
    "--threads": ("2", 2),
    "--ray-address": ("auto", "auto"),
    "--out": ("there", Path("there")),
    "--force": (None, True),
}


def value_of(config: Config, dotted: str) -> object:
    value: object = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def test_every_option_sets_its_field_and_no_other(call: Callable, asked) -> None:
    for field in (one for one in FIELDS if one.option != "--costs"):  # which goes with another one
        text, expected = VALUES[field.option]
        assert call("train", "--out", "o", field.option, *([] if text is None else [text])).code == 0
        assert value_of(asked.config, field.field) == expected
        others = Config.parse({"recipe": asked.config.recipe})
        for other in FIELDS:
            if other.field not in (field.field, "out"):
                assert value_of(asked.config, other.field) == value_of(others, other.field)


def test_costs_are_read_from_their_file(call: Callable, asked, refused: Callable, tmp_path: Path) -> None:
    file = tmp_path / "costs.yaml"
    file.write_text("ill: {healthy: 20}\n")
    assert call("train", "--out", "o", "--threshold", "cost", "--costs", file).code == 0
    assert asked.config.aggregation.costs == {"ill": {"healthy": 20}}
    assert "give both or neither" in refused("train", "--costs", file)
    file.write_text("ill")
    assert "costs.yaml should hold a mapping" in refused("train", "--threshold", "cost", "--costs", file)


def test_the_later_one_wins(call: Callable, asked, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("recipe: paper\nseed: 1\ntraining: {epochs: 11, lr: 0.5, batch_size: 9}\nforce: true\n")
    options = ["--config", file, "--epochs", 12, "--lr", 0.6, "--set", "training.lr=0.7", "--set", "training.shift=2"]
    assert call("compare", *options).code == 0
    training = asked.config.training
    assert training.schedule == "step"  # recipe
    assert (training.batch_size, asked.config.seed) == (9, 1)  # file
    assert training.epochs == 12  # option
    assert (training.lr, training.shift) == (0.7, 2)  # --set
    assert not asked.config.force  # is said anew each time


def test_a_saved_configuration_repeats_the_run(tmp_path: Path) -> None:
    config = Config.parse({"recipe": "paper", "out": "o", "training": {"epochs": 3}})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert build_config({}, tmp_path / "config.yaml", []) == config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--epochs", "0"], "--epochs '0' is not valid: Input should be greater"),
        (["--epochs", "x"], "--epochs 'x' is not valid: Input should be a valid integer"),
        (["--lr", "nan"], "--lr "),
        (["--grid", "axb"], "--grid 'axb' is not valid: give whole numbers with x between them, such as 2x2"),
        (["--grid", "2by2"], "--grid '2by2' is not valid: give whole numbers with x between them, such as 2x2"),
        (["--grid", "2x1.5"], "--grid '1.5' is not valid: Input should be a valid integer"),
        (["--image-size", "64 x"], "--image-size '64 x' is not valid: give whole numbers with x between them"),
        (["--aggregation", "mean"], "aggregation 'mean' is unknown: one of: attention, average, dense, gated"),
        (["--recipe", "fst"], "--recipe 'fst' is unknown: did you mean 'fast'?"),
        (["--data", "cfar10"], "--data 'cfar10' is unknown: did you mean 'cifar10'?"),
        (["--model", "vgg"], "'vgg' is unknown: did you mean 'vgg9'?"),
        (["--epochs", "3", "--set", "training.epochs=0"], "training.epochs = 0 is not valid"),
        (["--set", "training.epoch=0"], "training.epoch is not a field of the configuration: did you mean 'epochs'?"),
        (["--set", "training"], "--set 'training' should look like"),
        (["--config", "nofile.yaml"], "nofile.yaml cannot be read"),
    ],
)
def test_errors_name_the_option_and_the_value(
    refused: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refused("compare", *arguments)
    assert not list(tmp_path.iterdir())


def test_words_of_options_keep_the_kind_of_error() -> None:
    with pytest.raises(DataError, match=r"^--data 'x' is unknown$"), in_words_of_options({"data.source": "x"}):
        raise DataError("data.source = 'x' is unknown")
    with pytest.raises(ConfigError, match=r"^training\.lr = 1"), in_words_of_options({"seed": 1}):
        raise ConfigError("training.lr = 1")


@pytest.mark.parametrize(
    ("arguments", "name", "options", "coarse"),
    [
        (["--decomposition", "voronoi:6,seed=3"], "voronoi", {"parts": 6, "seed": 3}, None),
        (["--decomposition", "rings:3x4", "--coarse"], "rings", {"parts": [3, 4]}, "auto"),
        (["--coarse", "8x6", "--grid", "2x2"], "grid", {}, (8, 6)),
        (["--coarse", "16", "--decomposition", "cells:Cells"], "cells:Cells", {}, (16,)),
        (["--decomposition", "boxes:0-4x0-8+4-8x0-8"], "boxes", {"parts": "0-4x0-8+4-8x0-8"}, None),
    ],
)
def test_decompositions_with_options(
    call: Callable, asked, arguments: list[str], name: str, options: dict, coarse: object
) -> None:
    assert call("train", "--out", "o", *arguments).code == 0
    cuts = asked.config.decomposition
    assert (cuts.name, cuts.options, cuts.coarse) == (name, options, coarse)
    assert Config.parse(asked.config.model_dump(mode="json")) == asked.config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--coarse", "0x4"], "--coarse '0x4' should be a size in pixels, 1 or more, such as 16x16, or auto"),
        (["--decomposition", "voronoi:"], "should look like voronoi:6 or voronoi:2x2,option=value"),
        (["--decomposition", "voronoi:6,7"], "should look like voronoi:6 or"),
        (
            ["--decomposition", "voronoi:6", "--grid", "4x4"],
            "--grid 4x4 is for the decomposition grid, not for 'voronoi'",
        ),
    ],
)
def test_decompositions_that_are_refused(refused: Callable, arguments: list[str], expected: str) -> None:
    assert expected in refused("train", "--out", "o", *arguments)
