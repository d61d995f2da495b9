"""The command line called in this process, with stand-ins for what takes time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ddcnn.aggregation import build_aggregation
from ddcnn.cli import main
from ddcnn.config import Config
from ddcnn.decomposition import Grid
from ddcnn.models import Normalization, build
from ddcnn.network import CNNDNN
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import save_networks

CLASSES = ["cat", "dog", "[red]x"]  # the last one looks like markup


class Trained(NamedTuple):
    network: CNNDNN
    aggregation: str
    shares_local_cnns: bool = False
    whole_image: bool = False


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command line as ``ddcnn`` would."""
    for name in ("GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, out, err)

    return run


@pytest.fixture
def refused(call: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a command line that cannot be done; return the line it says."""

    def run(*arguments: object) -> str:
        code, out, err = call(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.strip()

    return run


@dataclass
class Asked:
    """What the stand-ins of ``compare`` and ``train`` were asked to do."""

    name: str = ""
    config: Config = field(default_factory=Config)
    command: str = ""


@dataclass
class Answer:
    results: dict[str, Any]
    run: Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    seen = Asked()

    def stand_in(name: str) -> Callable[..., Answer]:
        def run(config: Config, *, progress: Any, command: str) -> Answer:
            seen.name, seen.config, seen.command = name, config, command
            print("a network of the user prints something")
            progress.note("precision float32: [because]")
            progress.begin("local", epochs=2, steps=2, members=4)
            for epoch in (1, 2):
                for _ in range(2):
                    progress.advance(8, lambda: (0.5, 0.75))
                row = {"train_loss": [0.5, 0.7], "train_accuracy": [0.75], "validation_accuracy": [0.5, None]}
                progress.epoch({"stage": "local", "epoch": epoch, **row})
            progress.end()
            rows = [{"name": "global", "test_accuracy": 0.9}, {"name": "vote", "test_accuracy": None}]
            return Answer({"data": "d", "strategies": rows, "subdomains": [], "details": {}}, config.out or Path())

        return run

    monkeypatch.setattr("ddcnn.experiments.compare", stand_in("compare"))
    monkeypatch.setattr("ddcnn.experiments.train", stand_in("train"))
    monkeypatch.setattr("ddcnn.report.write_report", lambda run: run / "report.html")
    return seen


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 16x16 colour images, 2x1 subdomains, 3 classes; nothing was trained."""
    return make_run(tmp_path_factory.mktemp("cli") / "run", channels=3, size=(16, 16), image_type="uint8")


@pytest.fixture(scope="session")
def degraded_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without the first local CNN."""
    path = tmp_path_factory.mktemp("cli") / "degraded"
    return make_run(path, channels=3, size=(16, 16), image_type="uint8", missing=[0])


@pytest.fixture(scope="session")
def float_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8x8 one-channel float images."""
    return make_run(
        tmp_path_factory.mktemp("cli") / "float", channels=1, size=(8, 8), image_type="float32", grid=(1, 1)
    )


def make_run(
    path: Path,
    *,
    channels: int,
    size: tuple[int, int],
    image_type: str,
    grid: tuple[int, int] = (2, 1),
    missing: Sequence[int] = (),
) -> Path:
    config = Config.parse(
        {
            "out": path,
            "decomposition": {"grid": grid},
            "model": {"width_factor": 0.02},
            "aggregation": {"hidden": [4]},
            "compute": {"backend": "looped", "precision": "float32", "device": "cpu"},
        }
    )
    folder = RunFolder(path)
    folder.create(force=False)
    folder.write_text("config.yaml", config.to_yaml())
    mean, std = [0.5] * channels, [0.25] * channels
    folder.write_json(
        "data.json",
        {
            "name": "made",
            "classes": CLASSES,
            "image_shape": [channels, *size],
            "image_type": image_type,
            "mean": mean,
            "std": std,
            "source": {},
        },
    )
    names = ("cnn-dnn", "global")
    rows = [{"name": name, "validation_accuracy": 0.8 - 0.1 * n} for n, name in enumerate(names)]
    subdomains = [{"index": n, "missing": n in missing} for n in range(len(Grid(grid)))]
    folder.write_json("comparison.json", {"strategies": rows, "subdomains": subdomains})
    networks = {name: _network(config, name, channels, size, mean, std) for name in names}
    results = {
        "cnn-dnn": Trained(networks["cnn-dnn"].without(missing), "dense", shares_local_cnns=True),
        "global": Trained(networks["global"], "average", whole_image=True),
    }
    save_networks(folder, results)
    folder.seal()
    return path


def _network(
    config: Config, name: str, channels: int, size: tuple[int, int], mean: list[float], std: list[float]
) -> CNNDNN:
    grid = Grid((1, 1) if name == "global" else config.decomposition.grid)
    width = 1.0 if name == "global" else 0.02
    kind = "average" if name == "global" else "dense"
    modules = [build("vgg9", channels, 3, s.shape, width=width, seed=s.index) for s in grid.subdomains(size)]
    last = build_aggregation(kind, len(grid), 3, config.aggregation)
    normalization = Normalization(torch.tensor(mean), torch.tensor(std))
    return CNNDNN(grid, modules, last, image_size=size, normalization=normalization, backend="looped")
