"""`ddcnn doctor`: what it finds and what it advises."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddcnn.planning.checkup import EXTRAS, advice

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_what_is_here(call: Callable) -> None:
    code, out, err = call("doctor", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["versions"]["torch"]
    assert found["threads"] == torch.get_num_threads()
    assert found["devices"][0]["device"] == "cpu"
    assert len(found["devices"]) == 1 + torch.cuda.device_count()
    assert found["devices"][0]["bfloat16_speed"] > 0
    assert all(free > 0 for free in found["disk_free"].values())
    assert set(found["extras"]) == set(EXTRAS)


def test_tables(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "ray", ("clusters", ("no-such-package-here",)))
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    assert "no: pip install 'ddcnn[ray]'" in out
    assert "memory free" in out


def test_extras_are_those_of_the_package() -> None:
    with PROJECT.open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    everything = extras.pop("all")
    assert everything == [f"ddcnn[{','.join(EXTRAS)}]"]
    del extras["dev"], extras["docs"]  # for those who work on it
    names = {extra: [one.partition(">")[0].partition("[")[0] for one in needs] for extra, needs in extras.items()}
    assert names == {extra: list(packages) for extra, (_, packages) in EXTRAS.items()}


def test_advice() -> None:
    fine = {"load": 0.1, "cores": 4, "threads": 4, "memory_free": 2**34, "disk_free": {"/here": 2**34}}
    assert advice(fine) == []
    assert advice(fine | {"load": 3.0, "threads": 8, "memory_free": 2**29, "disk_free": {"/here": 2**28}}) == [
        "others use this machine: load 3 on 4 cores; what auto measures may be off",
        "8 threads share 4 cores; set OMP_NUM_THREADS=4",
        "512 MiB of memory are free; give --memory, or end other programs",
        "256 MiB are free in /here; free some space, or choose another disk",
    ]
    assert advice(fine | {"load": None, "memory_free": None, "disk_free": {"/here": None}}) == []
