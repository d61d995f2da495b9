import hashlib
import json
import pickle

import pytest
import torch

from ddcnn.errors import RunError
from ddcnn.run import RunFolder, write_atomic


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(force=False)
    run.write_text("config.yaml", "seed: 0\n")
    run.write_json("data.json", {"a": 1})
    run.write_tensors("locals/0.safetensors", {"w": torch.arange(6.0).view(2, 3).T})
    run.add_metrics({"epoch": 1})
    run.add_metrics({"epoch": 2})
    run.seal()
    return run


def test_what_is_written_is_read(folder):
    assert folder.read_json("data.json") == {"a": 1}
    assert torch.equal(folder.read_tensors("locals/0.safetensors")["w"], torch.arange(6.0).view(2, 3).T)
    assert [json.loads(line)["epoch"] for line in folder.read_text("metrics.jsonl").splitlines()] == [1, 2]
    folder.check()


def test_the_manifest_holds_the_checksum_of_every_file(folder):
    sums = folder.read_json("manifest.json")["sha256"]
    files = {p.relative_to(folder.path).as_posix() for p in folder.path.rglob("*") if p.is_file()}
    assert set(sums) == files - {"manifest.json"}
    for name, found in sums.items():
        assert found == hashlib.sha256((folder.path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["config.yaml", "data.json", "locals/0.safetensors", "metrics.jsonl"])
def test_a_flipped_bit_is_named(folder, name):
    path = folder.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunError, match=name):
        folder.check()


def test_a_missing_file_is_named(folder):
    (folder.path / "data.json").unlink()
    with pytest.raises(RunError, match=r"data\.json cannot be read"):
        folder.check()


def test_an_unfinished_run_is_not_a_run(folder):
    (folder.path / "manifest.json").unlink()
    with pytest.raises(RunError, match="did not finish"):
        folder.check()
    with pytest.raises(RunError, match="is not a folder"):
        RunFolder(folder.path / "absent").check()


def test_a_manifest_cannot_reach_outside_the_run(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    folder.write_json("manifest.json", {"sha256": {"../secret": "0"}})
    with pytest.raises(RunError, match="lies outside"):
        folder.check()


def test_a_pickle_is_not_loaded(folder):
    (folder.path / "locals/0.safetensors").write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(RunError, match="not a safetensors file"):
        folder.read_tensors("locals/0.safetensors")


def test_nothing_is_overwritten_without_force(folder):
    with pytest.raises(RunError, match="--force"):
        folder.create(force=False)
    folder.create(force=True)
    assert list(folder.path.iterdir()) == []


def test_only_a_run_is_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not a run of ddcnn"):
        RunFolder(tmp_path).create(force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    with pytest.raises(RunError, match=r"a\.json cannot be written: No space left on device"):
        RunFolder(tmp_path).write_text("a.json", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_not_a_number_is_not_written(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("data.json", {"a": float("nan")})
    assert folder.read_json("data.json") == {"a": 1}
