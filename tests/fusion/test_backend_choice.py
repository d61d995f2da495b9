"""The choice of a backend: what is measured, what is dropped, what is remembered."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddcnn.errors import FusionError
from ddcnn.fusion.backend_choice import fastest, measure, ratio
from ddcnn.machine import cache_folder


class Clock:
    """Time that passes only while a candidate runs, whatever else the machine does."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(Clock, "now", 0.0)
    clock = Clock()
    monkeypatch.setattr("ddcnn.fusion.backend_choice.time", SimpleNamespace(perf_counter=clock))
    return clock


def _waits(seconds: float, count: list[int] | None = None) -> Callable[[], None]:
    def run() -> None:
        if count is not None:
            count[0] += 1
        Clock.now += seconds

    return run


def _fails() -> None:
    raise FusionError("not possible")


def test_turns() -> None:
    counts = [[0], [0]]
    times = measure({"a": _waits(0.002, counts[0]), "b": _waits(0.002, counts[1])}, rounds=3)
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert counts == [[4], [4]]  # one turn to warm up
    assert all(s == pytest.approx(0.002) for seconds in times.values() for s in seconds)


def test_what_is_far_slower_runs_no_more() -> None:
    count = [0]
    times = measure({"fast": _waits(0.001), "slow": _waits(0.05, count)}, rounds=5)
    assert len(times["fast"]) == 5
    assert len(times["slow"]) == 1
    assert count == [2]


def test_what_fails_is_no_candidate() -> None:
    assert list(measure({"a": _fails, "b": _waits(0.001)}, rounds=1)) == ["b"]
    with pytest.raises(FusionError, match=r"^not possible$"):
        measure({"a": _fails})


def test_a_measurement_is_remembered_for_the_same_facts() -> None:
    first = fastest({"a": _waits(0.001), "b": _waits(0.02)}, ["network", 4])
    assert first[0] == "a"
    assert fastest({"a": _fails, "b": _fails}, ["network", 4]) == first
    with pytest.raises(FusionError):
        fastest({"a": _fails, "b": _fails}, ["network", 5])
    assert len(json.loads((cache_folder() / "backends.json").read_text())) == 1


def test_a_cache_that_cannot_be_written_costs_a_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DDCNN_DATA", str(tmp_path / "file"))
    assert fastest({"a": _waits(0.001)}, [])[0] == "a"


def _nested(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def _nested_values(path: Path) -> None:
    path.write_text(json.dumps({"a": json.loads("[" * 900 + "]" * 900), "b": {"fused": {}}, "c": 3}))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)  # sparse: it takes no room on the disk


POISON: dict[str, Callable[[Path], object]] = {
    "nested": _nested,
    "nested-values": _nested_values,
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "huge": _huge,
    "no-text": lambda path: path.write_bytes(b"\xff\xfe{"),
    "empty": lambda path: path.write_text(""),
    "cut-off": lambda path: path.write_text("{"),
    "no-object": lambda path: path.write_text("[1]"),
    "nan": lambda path: path.write_text('{"a": NaN}'),
    "dangling-link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "link-to-itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_poisoned_cache_costs_a_new_measurement(poison: Callable[[Path], object]) -> None:
    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / "backends.json"
    poison(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = fastest({"a": _waits(0.001), "b": _waits(0.02)}, ["network", 4])
    assert first[0] == "a"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB: it was not read
    if path.is_dir():  # what is not a file of ours stays
        assert list(cache_folder().iterdir()) == [path]
    else:
        assert list(json.loads(path.read_text()).values()) == [first[1]]
        assert fastest({"a": _fails, "b": _fails}, ["network", 4]) == first


@pytest.mark.parametrize("seconds", [{}, {"a": -1.0}, {"a": "1"}, {"c": 1.0}, [1.0], None])
def test_a_measurement_that_makes_no_sense_is_made_again(seconds: object) -> None:
    fastest({"a": _waits(0.001)}, ["network"])
    path = cache_folder() / "backends.json"
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), seconds)))
    assert fastest({"a": _waits(0.003)}, ["network"]) == ("a", {"a": pytest.approx(0.003)})


def test_ratio_in_words() -> None:
    assert ratio({"a": 1.0}, "a") == ""
    assert ratio({"a": 1.0, "b": 3.0, "c": 2.0}, "a") == "measured 3.00x as fast as b, 2.00x as fast as c"
