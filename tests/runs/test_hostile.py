"""A run that a stranger sent, or a disk that forgets: nothing is loaded, and the file is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ddcnn
from ddcnn.errors import DdcnnError, RunError
from ddcnn.report import write_report
from ddcnn.runs.folder import RunFolder
from tests.runs.edits import change, put

ALL = 2500  # bytes: of a larger file, so many are tried
STRATEGIES = ["cnn-dnn", "transfer"]


def test_a_run_that_nobody_touched(run: RunFolder) -> None:
    for name in STRATEGIES:
        assert ddcnn.load(run.path, name)(torch.zeros(1, 1, 16, 18, dtype=torch.uint8)).shape == (1, 3)
    write_report(run.path)
    run.check()


def test_every_byte_that_differs_is_found_and_its_file_named(run: RunFolder) -> None:
    rng = random.Random(0)
    files = sorted(p for p in run.path.rglob("*") if p.is_file())
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        few = 60 if path.suffix in (".safetensors", ".html", ".jsonl") else ALL
        positions = range(len(content)) if len(content) <= few else rng.sample(range(len(content)), few)
        with path.open("r+b", buffering=0) as file:
            for position in positions:
                file.seek(position)
                file.write(bytes([content[position] ^ rng.randint(1, 255)]))
                with pytest.raises(RunError) as caught:
                    RunFolder(run.path).check()
                assert str(path) in str(caught.value)
                file.seek(position)
                file.write(content[position : position + 1])
    RunFolder(run.path).check()


NAMES = ["manifest.json", "config.yaml", "data.json", "comparison.json", "split.json", "environment.json"]
NAMES += ["metrics.jsonl", "locals/3.safetensors", "aggregation.safetensors", "transfer.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_whoever_reads_the_run_is_told(run: RunFolder, name: str) -> None:
    path = run.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    page = (run.path / "report.html").read_bytes()
    for read in (ddcnn.load, ddcnn.evaluate, write_report):
        with pytest.raises(RunError) as caught:
            read(run.path)
        assert str(path) in str(caught.value)
    assert (run.path / "report.html").read_bytes() == page


CONFIGS = [
    (("model", "width_factor", 1e9), "describes no network for these images: Storage size calculation overflowed"),
    (("model", "width_factor", 1e300), "describes no network"),
    (("model", "width_factor", 1e4), "locals/0.safetensors does not fit"),
    (("model", "width_factor", 0.06), "locals/0.safetensors does not fit"),
    (("model", "name", "resnet20"), "locals/0.safetensors does not fit"),
    (("model", "name", "vgg10"), "model 'vgg10' is unknown: did you mean 'vgg9'"),
    (("model", "options", {"batch_norm": False}), "locals/0.safetensors does not fit"),
    (("model", "options", {"dropout": 1}), "describes no network"),
    (("aggregation", "hidden", [10**9]), "aggregation.safetensors does not fit"),
    (("aggregation", "hidden", [10**9, 10**9]), "aggregation.safetensors does not fit"),
    (("aggregation", "hidden", [10**400]), "describes no network|not valid"),
    (("aggregation", "hidden", [4] * 65), "hidden"),
    (("aggregation", "hidden", [-1]), "describes no network"),
    (("aggregation", "shortcut", False), "aggregation.safetensors does not fit"),
    (("decomposition", "grid", [100_000, 100_000]), "a decomposition into 10,000,000,000 subdomains is too large"),
    (("decomposition", "grid", [10**9] * 30), "is too large"),
    (("decomposition", "grid", [3, 2]), "locals/4.safetensors is missing"),
    (("decomposition", "grid", [1, 2]), "locals/0.safetensors does not fit"),
    (("decomposition", "grid", [2, 2, 1]), "has 3 axes"),
    (("decomposition", "overlap", [10**12]), "locals/0.safetensors does not fit"),
    (("decomposition", "overlap", [-1]), "overlap should be 0"),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("place", "message"), CONFIGS, ids=map(str, range(len(CONFIGS))))
def test_a_config_that_asks_for_what_the_files_do_not_have(run: RunFolder, place: tuple, message: str) -> None:
    change(run, "config.yaml", put(*place))
    with pytest.raises(DdcnnError, match=message) as caught:
        ddcnn.load(run.path, "cnn-dnn")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


DATA = [
    (("image_shape", (1, 10**6, 10**6)), "are larger than 2,147,483,648, the most of a run that is not trusted"),
    (("image_shape", (1, 0, 18)), "image_shape.1 cannot be used"),
    (("image_shape", (1, 18)), "image_shape cannot be used"),
    (("image_shape", (1, "16", 18)), "image_shape.1 cannot be used"),
    (("image_shape", (1, 16.5, 18)), "image_shape.1 cannot be used"),
    (("image_shape", (2, 16, 18)), "mean and std should have one number for each of 2 channels"),
    (("image_shape", (1, 8, 18)), "describes no network"),
    (("image_shape", None), "image_shape cannot be used"),
    (("classes", [str(n) for n in range(10**5)]), "does not fit"),
    (("classes", ["a", "\u200b", "c"]), "classes.1 cannot be used: .* no name of a class: it holds no visible"),
    (("classes", ["a"]), "classes cannot be used"),
    (("image_type", "float64"), "image_type cannot be used"),
    (("mean", [1e999]), "Infinity is not a number"),
    (("std", [0.0]), "std.0 cannot be used"),
    (("std", []), "one number for each of 1 channels, got 1 and 0"),
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("place", "message"), DATA, ids=map(str, range(len(DATA))))
def test_data_that_are_none(run: RunFolder, place: tuple, message: str) -> None:
    change(run, "data.json", lambda values: values | {place[0]: place[1]})
    with pytest.raises(RunError, match=message) as caught:
        ddcnn.load(run.path)
    assert "\n" not in str(caught.value)


def test_large_images_of_a_run_that_is_trusted(run: RunFolder) -> None:
    """Of ResNet20 the parameters say nothing of the size of the images."""
    change(run, "data.json", lambda values: values | {"image_shape": [1, 10**6, 10**6]})
    with pytest.raises(RunError, match=r"say so: trust=True, or --trust"):
        ddcnn.load(run.path)
    with pytest.raises(RunError, match="does not fit"):  # the files are still looked at
        ddcnn.load(run.path, trust=True)


STRATEGY_ROWS = [
    None,
    [],
    {},
    [1],
    [{}],
    [{"name": "cnn-dnn", "validation_accuracy": "x"}],
    [{"name": "../../x", "validation_accuracy": 1.0}],
    [{"name": ["vote"]}],
]


@pytest.mark.parametrize("rows", STRATEGY_ROWS, ids=map(str, range(len(STRATEGY_ROWS))))
def test_strategies_that_are_none(run: RunFolder, rows: Any) -> None:
    change(run, "comparison.json", lambda values: values | {"strategies": rows})
    with pytest.raises(RunError, match=r"comparison\.json should list strategies \(cnn-dnn, transfer\)"):
        ddcnn.load(run.path)


def test_what_is_said_to_be_missing_costs_little(run: RunFolder, monkeypatch: Any) -> None:
    """Local CNNs that are missing have no file that shows how large they are."""
    for name in ("1", "2", "3"):
        (run.path / "locals" / f"{name}.safetensors").unlink()
    rows = [{"index": 0}, *({"index": n, "missing": True} for n in (1, 2, 3)), None, {"index": "x", "missing": True}]
    change(run, "comparison.json", lambda values: values | {"subdomains": rows})
    assert ddcnn.load(run.path, "cnn-dnn").missing == (1, 2, 3)
    monkeypatch.setattr("ddcnn.runs.run_validation._MOST_STANDING_IN", 100)
    with pytest.raises(RunError, match=r"3 missing local CNNs of more than 100 parameters are refused; if you trust"):
        ddcnn.load(run.path, "cnn-dnn")
    assert ddcnn.load(run.path, "cnn-dnn", trust=True).missing == (1, 2, 3)


MASKED = ["voronoi:6", "triangles", "rings:4", "sectors:5"]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", MASKED)
def test_masks_that_no_memory_holds_are_not_made(run: RunFolder, name: str) -> None:
    """Masks are as large as the images, once per subdomain, and no file shows that somebody had them."""
    change(run, "data.json", lambda values: values | {"image_shape": [1, 2**15, 2**15]})
    change(run, "config.yaml", lambda values: values | {"decomposition": {"name": name}})
    with pytest.raises(RunError, match=r"masks of [0-9,]+ pixels in all are too large, .*; if you trust the run"):
        ddcnn.load(run.path, "cnn-dnn")


def test_masks_of_a_run_that_is_trusted(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    change(run, "config.yaml", lambda values: values | {"decomposition": {"name": "voronoi:4"}})
    monkeypatch.setattr("ddcnn.runs.run_validation._MOST_MASKED", 4 * 16 * 18 - 1)
    with pytest.raises(RunError, match=r"masks of 1,152 pixels in all are too large"):
        ddcnn.load(run.path, "cnn-dnn")
    assert ddcnn.load(run.path, "cnn-dnn", trust=True).local_cnns.members == 4


def retensor(run: RunFolder, name: str, edit: Callable[[dict], Any]) -> None:
    tensors = load_file(run.path / name)
    edit(tensors)
    save_file(tensors, run.path / name)
    run.seal()


TENSORS = {
    "another shape": (lambda t: t.update({"scale": torch.ones(2)}), r"of 'scale' expected F32 \(\), got F32 \(2,\)"),
    "another type": (lambda t: t.update({"scale": t["scale"].half()}), r"expected F32 \(\), got F16 \(\)"),
    "one too many": (lambda t: t.update({"x": torch.ones(2)}), r"of 'x' expected nothing, got F32 \(2,\)"),
    "one too few": (lambda t: t.pop("scale"), r"of 'scale' expected F32 \(\), got nothing"),
}


@pytest.mark.parametrize(("edit", "message"), TENSORS.values(), ids=TENSORS)
def test_parameters_of_another_network(run: RunFolder, edit: Callable, message: str) -> None:
    retensor(run, "aggregation.safetensors", edit)
    with pytest.raises(
        RunError, match=rf"aggregation\.safetensors does not fit config.yaml and data.json: .*{message}"
    ):
        ddcnn.load(run.path, "cnn-dnn")


def test_parameters_of_no_part(run: RunFolder) -> None:
    retensor(run, "transfer.safetensors", lambda t: t.update({"locals.7.x": torch.ones(1)}))
    with pytest.raises(RunError, match=r"holds 'locals\.7\.x', which is no part of transfer"):
        ddcnn.load(run.path, "transfer")
