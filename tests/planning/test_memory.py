"""The memory plan: what holds is chosen, what cannot hold is said."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from ddcnn.config import Config, DataConfig
from ddcnn.data import open_data
from ddcnn.data.lazy import Resident
from ddcnn.data.store import write_store
from ddcnn.decomposition import Grid
from ddcnn.engines import ALONE
from ddcnn.errors import ConfigError, DataError
from ddcnn.models import Normalization
from ddcnn.network_factory import NetworkFactory
from ddcnn.planning import MemoryPlan, Setup, choose_fastest, memory, prepare, setup
from ddcnn.planning.memory import largest
from ddcnn.strategies import LocalProbabilities
from ddcnn.training import Progress
from tests.setups import train_local


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same images as an array and as a store."""
    path = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(0)
    np.savez(path / "d.npz", images=rng.integers(0, 256, (40, 8, 12), dtype=np.uint8), labels=np.arange(40) % 2)
    write_store(open_data(DataConfig(source=f"npz:{path / 'd.npz'}")), path / "s.zarr", Grid((2, 3)), workers=1)
    return path


@pytest.fixture
def problem(folder: Path) -> Callable[..., Setup]:
    def make(memory: str | None, *, store: bool = True, grid: str = "2x3") -> Setup:
        values = {
            "data": {"source": f"zarr:{folder / 's.zarr'}" if store else f"npz:{folder / 'd.npz'}"},
            "decomposition": {"grid": grid},
            "model": {"name": "tests.strategies.tiny:tiny", "width_factor": 0.2},
            "training": {"epochs": 1, "batch_size": 8},
            "compute": {"device": "cpu", "precision": "float32", "backend": "looped", "memory": memory},
        }
        return prepare(Config.parse(values))

    return make


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a local CNN need 10 MB and 1 MB per image, the coherent model 100 MB, with nothing there before."""
    steps: list[int] = []

    def step(self: object, build: Callable[[], torch.nn.Module], batch: int) -> int:
        members = getattr(network := build(), "members", 1)
        steps.append(members)
        return 10**6 * ((10 + batch) * members if hasattr(network, "subdomains") else 100)

    monkeypatch.setattr(memory._Trial, "step", step)
    monkeypatch.setattr(memory, "_used", lambda device: 0)
    monkeypatch.setattr(memory, "_RESERVE", 0)
    return steps


def plan_memory(setup: Setup, whole: tuple[str, ...]) -> tuple[Setup, MemoryPlan | None]:
    """Plan, and return the setup that follows."""
    data, compute, plan = memory.plan_memory(setup.data, setup.networks, setup.compute, whole)
    return setup.with_compute(compute, data), plan


def test_largest_measures_no_size_that_may_not_fit() -> None:
    def measure(size: int) -> int:
        seen.append(size)
        return 50 + 10 * size

    for most, room, expected in ((8, 10**6, 8), (32, 350, 30), (32, 60, 1), (3, 10**6, 3), (1, 10**6, 1)):
        seen: list[int] = []
        size, needed = largest(measure, most, room)
        assert size == expected
        assert needed == 50 + 10 * size <= room
        assert max(seen) == size  # nothing larger was tried
    assert largest(measure, 32, 59) == (0, 60)
    assert largest(measure, 32, 59, least=2) == (0, 70)


@pytest.mark.parametrize(("limit", "group"), [("1GB", 6), ("60MB", 3), ("19MB", 1)])
def test_the_group_size_follows_the_limit(
    problem: Callable[..., Setup], measured: list[int], limit: str, group: int
) -> None:
    planned, plan = plan_memory(problem(limit), ())
    assert plan is not None
    assert plan.group == group
    assert plan.expected <= plan.limit
    with closing(planned.data.batches(planned.data.split.train, ()).in_order()) as batches:
        assert len(next(batches)) == 8  # no more than in a step, for which the limit was measured
    groups = planned.compute.groups(planned.owned)
    assert sorted(n for members in groups for n in members) == list(range(6))
    assert max(map(len, groups)) <= group


def test_a_backend_that_needs_too_much_is_no_candidate(
    problem: Callable[..., Setup], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {"looped": 10**6, "fused": 2 * 10**6, "vmapped": 5 * 10**6}
    tried: list[tuple[str, int]] = []

    def step(self: object, build: Callable[[], torch.nn.Module], batch: int) -> int:
        network = build()
        tried.append((network.backend, network.members))
        return needs[network.backend] * network.members

    monkeypatch.setattr(memory._Trial, "step", step)
    monkeypatch.setattr(memory, "_used", lambda device: 0)
    monkeypatch.setattr(memory, "_RESERVE", 0)
    setup = problem("14MB")
    automatic = setup.with_compute(setup.compute.with_(backend="auto", memory=14 * 10**6))
    planned, plan = plan_memory(automatic, ())
    assert plan is not None
    assert (plan.group, plan.too_large) == (6, ("vmapped",))
    assert 12 * 10**6 < plan.expected < 14 * 10**6
    assert all(needs[backend] * members <= 14 * 10**6 for backend, members in tried)
    compute, reasons = choose_fastest(planned.data, planned.networks, planned.compute, ALONE, plan)
    assert compute.backend in ("fused", "looped")
    assert reasons["backend"].endswith("; vmapped would need more memory than there may be")


@pytest.mark.parametrize("resident", [True, False])
def test_images_are_resident_where_there_is_room_beside_a_step(
    problem: Callable[..., Setup], measured: list[int], resident: bool
) -> None:
    needed = 40 * 96 + 8 * 96 * 16  # all images, and a batch: where each pixel comes from, and as floats
    streamed = problem("1GB")
    _, without = plan_memory(streamed, ())
    assert without is not None
    peak = without.expected - needed
    limit = peak + needed - (not resident)
    planned, plan = plan_memory(streamed.with_compute(streamed.compute.with_(memory=limit)), ())
    assert plan is not None
    assert plan.group == 6
    assert (plan.resident, isinstance(planned.data.images, Resident)) == (resident, resident)
    assert plan.expected == peak + (needed if resident else 0)


def test_without_a_limit_nothing_changes(problem: Callable[..., Setup], measured: list[int]) -> None:
    streamed = problem(None)
    planned, plan = plan_memory(streamed, ("global", "coherent"))
    assert plan is None
    assert planned.data is streamed.data
    assert not measured


@pytest.mark.parametrize(
    ("limit", "whole", "message"),
    [
        (
            "16MiB",
            (),
            r"is too little: [0-9.]+ KiB are in use before .* of one local CNN at batch size 8 needs up to 45\.8 MiB",
        ),
        ("1MiB", (), ".* a step of one local CNN at batch size 8 needs more than is left; use a smaller batch size"),
        ("86MiB", ("coherent",), ".* a step of the coherent network at batch size 8 needs more than is left"),
    ],
)
def test_what_cannot_hold_is_said_before_the_training(
    problem: Callable[..., Setup], measured: list[int], limit: str, whole: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"compute.memory = {limit[:-3]} MiB ") + message):
        plan_memory(problem(limit), whole)


def test_what_is_in_use_is_needed_whatever_is_trained(
    problem: Callable[..., Setup], measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_used", lambda device: 540 * 2**20)
    message = "compute.memory = 300 MiB is too little: 540 MiB are in use before the training, .*; give more than that"
    with pytest.raises(ConfigError, match=f"^{message}$"):
        plan_memory(problem("300MiB"), ())
    with pytest.raises(ConfigError, match="use a smaller batch size, a finer grid or more memory"):
        plan_memory(problem("545MiB"), ())


def test_images_that_do_not_fit_are_refused_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be used, less what this process has already, is what the reader is given."""
    np.savez_compressed(tmp_path / "d.npz", images=np.zeros((400, 200, 200), np.uint8), labels=np.arange(400) % 2)
    monkeypatch.setattr(setup, "resident_memory", lambda: 990_000_000)
    config = Config.parse(
        {
            "data": {"source": f"npz:{tmp_path / 'd.npz'}"},
            "model": {"name": "tests.strategies.tiny:tiny"},
            "compute": {"device": "cpu", "memory": "1GB"},
        }
    )
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refused:
            prepare(config)
        assert tracemalloc.get_traced_memory()[1] < 2e6  # of 16 MB
    finally:
        tracemalloc.stop()
    assert str(refused.value) == (
        f"npz:{tmp_path / 'd.npz'}: 400 images of 1x200x200 take 15.3 MiB, more than the 9.54 MiB that may be used of "
        "954 MiB, less what is in use already; make a store of them with ddcnn data prepare, or allow more (--memory)"
    )
    monkeypatch.setattr(setup, "resident_memory", lambda: 980_000_000)
    assert len(prepare(config).data.images) == 400
    monkeypatch.setattr(setup, "resident_memory", lambda: 2**30)  # nothing is left: the plan says what is in use
    assert len(prepare(config).data.images) == 400
    small = config.model_copy(update={"compute": config.compute.model_copy(update={"memory": 15_000_000})})
    with pytest.raises(DataError, match=r"take 15\.3 MiB, more than the 14\.3 MiB that may be used; make a store"):
        prepare(small)


def test_a_plan_from_real_measurements(problem: Callable[..., Setup]) -> None:
    _, plan = plan_memory(problem("100GiB", store=False, grid="1x2"), ("coherent",))
    if plan is None or plan.expected < 2**27:
        pytest.skip("this system does not tell how much memory is used")
    assert (plan.group, plan.resident) == (2, True)
    assert plan.expected < 4 * 2**30
    line = plan.line(2)
    assert line.startswith("100 GiB at most: 2 of 2 local CNNs at once, images resident, planned peak ")
    with pytest.raises(ConfigError, match="is too little"):
        plan_memory(problem("1MB", store=False), ())


@pytest.mark.parametrize(("size", "where"), [(128, "meta"), (16, "cpu")])
def test_a_network_is_checked_against_large_input_without_being_computed(size: int, where: str) -> None:
    computed: list[str] = []

    def forward(self: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        computed.append(x.device.type)
        return original(self, x)

    original = torch.nn.Conv2d.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Conv2d, "forward", forward)
        config = Config.parse({"model": {"name": "tests.strategies.tiny:tiny"}, "decomposition": {"grid": "1x1"}})
        NetworkFactory(config, 1, 2, (size, size), Normalization(torch.zeros(1), torch.ones(1))).check()
    assert set(computed) == {where}


def test_groups_in_turn_are_the_same_networks(problem: Callable[..., Setup], measured: list[int]) -> None:
    together, _ = plan_memory(problem("1GB"), ())
    in_turn, _ = plan_memory(problem("40MB"), ())
    assert [len(group) for group in in_turn.compute.groups(in_turn.owned)] == [2, 2, 2]
    rows: list[str] = []

    class Watcher(Progress):
        def epoch(self, row: dict) -> None:
            rows.append(row["stage"])

    expected, found = (train_local(p, progress=Watcher()) for p in (together, in_turn))
    assert rows == ["local", "local/subdomains 0-1", "local/subdomains 2-3", "local/subdomains 4-5"]
    assert (found.stage.epochs, found.history.steps) == (expected.stage.epochs, expected.history.steps) == (1, 3)
    assert found.history.best_epochs == expected.history.best_epochs
    for n in range(6):
        states = expected.network.member_state(n), found.network.member_state(n)
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    samples = torch.arange(10)
    a, b = (
        LocalProbabilities(p, expected.network).outputs_of_samples(samples).probabilities for p in (together, in_turn)
    )
    assert torch.equal(a, b)
