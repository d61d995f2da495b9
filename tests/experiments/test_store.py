"""A run whose images are in a store ends as one whose images are in memory, bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ddcnn
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.errors import DataError


def _rows(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("rotation", [0.0, 20.0])
@pytest.mark.parametrize("strategy", ["transfer", "global"])
def test_the_same_as_from_memory(make_config, source, tmp_path, strategy, rotation):
    sections = {
        "strategy": strategy,
        "model": {"name": "tests.strategies.tiny:tiny"},
        "decomposition": {"grid": "2x3", "overlap": 1},
        "training": {"epochs": 3, "shift": 2, "flip": True, "patience": 1},  # some local CNNs stop before others
        "transfer": {"epochs": 1},
    }
    config = make_config("memory", **sections)
    write_store(ddcnn.open_data(config.data), tmp_path / "bars.zarr", Grid((2, 3)), workers=1)  # without the overlap
    ddcnn.train(config)
    stored = ddcnn.train(make_config("store", data={"source": f"zarr:{tmp_path / 'bars.zarr'}"}, **sections))
    assert _rows(tmp_path / "store") == _rows(tmp_path / "memory")
    files = sorted(path.relative_to(tmp_path / "memory") for path in (tmp_path / "memory").rglob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        assert (tmp_path / "store" / file).read_bytes() == (tmp_path / "memory" / file).read_bytes(), file
    assert "times the bytes of its subimages" in stored.results["details"]["choices"]["store"]
    again = ddcnn.evaluate(tmp_path / "store", trust=True)
    assert again["accuracy"] == stored.results["strategies"][-1]["test_accuracy"]


def test_a_damaged_chunk_ends_a_run_with_its_name(make_config, source, tmp_path):
    write_store(ddcnn.open_data(make_config().data), tmp_path / "bars.zarr", Grid((2, 2)), workers=1)
    shard = tmp_path / "bars.zarr/subdomains/3/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"bars\.zarr: sample \d+, subdomain 3 is damaged: its SHA-256 differs"):
        ddcnn.train(
            make_config(
                data={"source": f"zarr:{tmp_path / 'bars.zarr'}"},
                strategy="local",
                model={"name": "tests.strategies.tiny:tiny"},
            )
        )
