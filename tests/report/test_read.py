import json

import pytest

from ddcnn.errors import RunError
from ddcnn.report.read import read_run
from ddcnn.report.results import Results


def test_reads_all_files(make_run):
    run = read_run(make_run())
    assert run.results.seed == 7
    assert len(run.rows) == 50
    assert "mnist5k" in run.config
    assert run.images.shape == (3, 1, 28, 28)


def test_not_a_folder(tmp_path):
    with pytest.raises(RunError, match="nowhere is not a run folder"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["comparison.json", "metrics.jsonl", "config.yaml", "environment.json"])
def test_missing_file_is_named(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name} is missing"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("comparison.json", b'{"data": ', r"comparison.json is damaged: Expecting value"),
        ("comparison.json", b"[]", r"comparison.json should hold a JSON object, got list"),
        ("comparison.json", b"[" * 100_000, r"comparison.json is damaged"),
        ("comparison.json", b'{"grid": ["x"]}', r"comparison.json: grid.0 = 'x' cannot be used"),
        ("comparison.json", b'{"strategies": [{}]}', r"strategies.0.name"),
        ("environment.json", b"\xff\xfe", r"environment.json is damaged: not UTF-8 at byte 0"),
        ("config.yaml", b"\xff", r"config.yaml is damaged: not UTF-8"),
        (
            "metrics.jsonl",
            b'{"stage": "local", "epoch": 1000000000}',
            r"should have a row for each epoch.* epoch 1,000,0",
        ),
        ("comparison.json", b'{"details": {"samples": {"test": -1}}}', r"details.samples.test = -1 cannot be used"),
        ("comparison.json", b'{"strategies": [{"name": "a", "seconds": 1e308}]}', r"seconds = 1e\+308 cannot be used"),
        ("comparison.json", b'{"details": {"confusion": {"a": [[%d]]}}}' % 10**30, r"a.0.0 = 1000000.* cannot be used"),
        (
            "comparison.json",
            b'{"strategies": [{"name": "%s"}]}' % (b"x" * 1000),
            r"strategies.0.name = 'xxx.* cannot be",
        ),
        ("metrics.jsonl", b'{"stage": "local", "epoch": 1}\n{"sta', r"metrics.jsonl line 2 is damaged"),
        ("metrics.jsonl", b'{"stage": "local", "epoch": 0}', r"metrics.jsonl line 1: epoch = 0 cannot be used"),
        (
            "examples.safetensors",
            b"\x00" * 4,
            r"examples.safetensors is not a safetensors file: it announces a header of",
        ),
    ],
)
def test_damaged_file_is_named(make_run, name, content, message):
    folder = make_run()
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("confusion", {"global": [[1, 2], [3]]}),
        ("confusion", {"global": [[1, -2], [3, 4]]}),
        ("samples", {"test": "many"}),
    ],
)
def test_damaged_details_are_named(make_run, key, value):
    folder = make_run(results={"details": {key: value}})
    with pytest.raises(RunError, match=r"comparison.json: details"):
        read_run(folder)


def test_boxes_of_different_axes(make_run):
    boxes = [[[0, 8], [0, 8]], [[0, 8]]]
    folder = make_run(results={"subdomains": [{"index": i, "box": box} for i, box in enumerate(boxes)]})
    with pytest.raises(RunError, match="boxes should have the same axes"):
        read_run(folder)


def test_nan_is_absent(make_run):
    folder = make_run()
    row = {"stage": "local", "epoch": 1, "validation_accuracy": [float("nan"), 0.5, None]}
    (folder / "metrics.jsonl").write_text(json.dumps(row))
    assert read_run(folder).rows[0].validation_accuracy == (None, 0.5, None)


def test_order_does_not_matter(make_run):
    results = {"strategies": [{"name": n} for n in ("transfer", "mine", "global")], "subdomains": []}
    assert [s.name for s in read_run(make_run(results=results)).results.strategies] == ["global", "transfer", "mine"]


@pytest.mark.parametrize(
    ("decomposition", "grid", "words"),
    [
        ("", [2, 2], "2 × 2 grid"),
        ("2x2", [2, 2], "2 × 2 grid"),
        ("2x2-overlap2-coarse8x8", [2, 2], "2 × 2 grid, overlap 2, coarse level 8 × 8"),
        ("voronoi6-seed3", [], "voronoi 6, seed 3"),
        ("triangles-2", [], "triangles 2"),
        ("boxes9-size0.5-coarse", [], "boxes 9, size 0.5, coarse level"),
        ("", [], ""),
        ("-y", [], ", y"),
    ],
)
def test_what_a_decomposition_is_called(decomposition, grid, words):
    results = Results.parse({"decomposition": decomposition, "grid": grid})
    assert results.cuts.replace("\N{NO-BREAK SPACE}", " ") == words
