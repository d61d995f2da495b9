"""How a process joins the other ranks, and how it leaves them: together, or with one message that says why."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ddcnn.engines.ranks import ALONE, Ranks, answered, patience
from ddcnn.errors import ConfigError, EndedError, InterruptionError

_SEEING_OFF = 3.0  # seconds; one that was killed never leaves a note
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """What the launcher told this process by environment variables.

    Attributes
    ----------
    rank, count
        Which of how many processes this is.
    local_rank, local_count
        The same on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place:
        """Read the variables that ``torchrun`` sets; without them, one process is all.

        Raises
        ------
        ConfigError
            Some are missing, or they are not what they should be.
        """
        if environment.get("WORLD_SIZE", "1") == "1":
            return cls()
        if missing := [name for name in _NEEDED if not environment.get(name)]:
            count = environment["WORLD_SIZE"]
            raise ConfigError(f"WORLD_SIZE is {count}, but {', '.join(missing)} is not set; start with torchrun")
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        texts = dict(zip(names, (environment.get(name, "") for name in names), strict=True))
        texts["LOCAL_RANK"] = texts["LOCAL_RANK"] or texts["RANK"]
        texts["LOCAL_WORLD_SIZE"] = texts["LOCAL_WORLD_SIZE"] or texts["WORLD_SIZE"]
        place = cls(*(int(text) if text.isdecimal() else -1 for text in texts.values()))
        if not (0 <= place.rank < place.count and 0 <= place.local_rank < place.local_count):
            told = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise ConfigError(f"ranks should count from 0 and stay below their number, got {told}; start with torchrun")
        return place


@contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """Join the other processes that ``torchrun`` has started; without it, be the only rank.

    A rank that raises lets the others know why before it goes. Its own error stays what it is; the others end with
    an `EndedError` that quotes it. Threads are set so that the ranks of a machine share its cores, unless the user
    has set OMP_NUM_THREADS.

    Parameters
    ----------
    device
        As in ``compute.device``: on ``auto`` and ``cuda`` each rank takes a GPU of its own, and NCCL connects them, if
        each machine has enough; else gloo does.

    Raises
    ------
    ConfigError
        The variables of the launcher make no sense, or the device is one GPU for all.
    RankError
        The others cannot be reached.
    """
    place = Place.of(os.environ)
    if place.count == 1:
        yield ALONE
        return
    if dist.is_initialized():
        raise ConfigError("a process group is there already; destroy it first: the ranks connect themselves")
    timeout = patience()
    with answered():
        store, _, _ = next(rendezvous("env://", place.rank, place.count, timeout=timeout))
    with _sharing_cores(place), _left(), _told(store, place):
        with answered():
            ranks = _connect(store, place, device)
        yield ranks
        ranks.total(torch.zeros(1))  # nobody leaves before all are through


def refuse_ranks(what: str) -> None:
    """Raise a `ConfigError` if there are several ranks: ``what`` is not spread over them."""
    with joined() as ranks:
        check_alone(ranks, what)


def check_alone(ranks: Ranks, what: str) -> None:
    """Raise a `ConfigError` if there are several ranks: ``what`` is not spread over them."""
    if not ranks.alone:
        raise ConfigError(
            f"{what} is not spread over ranks, but {ranks.count} were started; start it without torchrun, or use "
            "train --strategy coherent"
        )


def _connect(store: Store, place: Place, device: str) -> Ranks:
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"compute.device = {device!r} is one device for all ranks; use cuda: each takes its own")
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(place.local_rank % gpus)
    possible = gpus >= place.local_count and dist.is_nccl_available()
    store.set(f"nccl/{place.rank}", "yes" if possible else "no")
    nccl = all(store.get(f"nccl/{rank}") == b"yes" for rank in range(place.count))
    exchange = torch.device("cuda", place.local_rank) if nccl else torch.device("cpu")
    dist.init_process_group(
        "nccl" if nccl else "gloo",
        store=PrefixStore("ddcnn", store),
        rank=place.rank,
        world_size=place.count,
        timeout=patience(),
        device_id=exchange if nccl else None,
    )
    return Ranks(place.rank, place.count, place.local_rank, exchange, store=store)


@contextmanager
def _left() -> Iterator[None]:
    """Leave the process group: after an error of gloo's kind only, because NCCL would wait for who is gone."""
    try:
        yield
    except BaseException:
        if dist.is_initialized() and dist.get_backend() == "gloo":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def _told(store: Store, place: Place) -> Iterator[None]:
    """Leave a note of why this rank ends; if another was earlier, end with its reason."""
    try:
        yield
    except Exception as error:
        note = f"rank {place.rank} of {place.count} ended: {error}"
        first = note
        with suppress(RuntimeError):  # the store is gone too: then each rank says what it knows
            first = store.compare_set("ended", "", note).decode()
            _see_off(store, place)
        if first != note and not isinstance(error, InterruptionError):
            raise EndedError(first) from error
        raise


def _see_off(store: Store, place: Place) -> None:
    """Let rank 0, whose process holds the store, wait a little until all have left their notes and read the first."""
    store.add("left", 1)
    deadline = time.monotonic() + _SEEING_OFF
    while place.rank == 0 and store.add("left", 0) < place.count and time.monotonic() < deadline:
        time.sleep(0.02)


@contextmanager
def _sharing_cores(place: Place) -> Iterator[None]:
    before = torch.get_num_threads()
    if not _user_chose_threads():
        torch.set_num_threads(max(1, _cores() // place.local_count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _user_chose_threads() -> bool:
    """Tell whether OMP_NUM_THREADS is the user's: ``torchrun`` sets it to 1 for its workers where it is not."""
    value = os.environ.get("OMP_NUM_THREADS")
    if value != "1" or not dist.is_torchelastic_launched():
        return value is not None
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes()  # as it was started
    except OSError:
        return False
    return b"\0OMP_NUM_THREADS=" in b"\0" + launcher


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
