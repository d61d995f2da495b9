"""How a process joins the other ranks, and how it leaves them: together, or with one message that says why."""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore  # as torch.distributed exports it, where type checkers do not see it
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ddcnn.cores import usable_cores
from ddcnn.engines.launcher_environment import LauncherEnvironment
from ddcnn.engines.ranks import ALONE, Ranks, answered, patience
from ddcnn.errors import ConfigError, EndedError, InterruptionError

_LONGEST_NAME = 256  # characters of the name of a machine
_SEEING_OFF = 5.0  # seconds; one that was killed never leaves a note


@contextmanager
def joined(device: str = "cpu", replicas: int = 1) -> Iterator[Ranks]:
    """Join the other processes that ``torchrun`` has started; without it, be the only rank.

    Where a process group is there already, as in a training function of Ray Train, its processes are the ranks; the
    group stays. A process that ends with an error must then end, or the others wait for it.

    A rank that raises lets the others know why before it goes. Its own error stays what it is; the others end with
    an `EndedError` that quotes it. Threads are set so that the ranks of a machine share its cores, unless the user
    has set OMP_NUM_THREADS.

    Parameters
    ----------
    device
        As in ``compute.device``: on ``auto`` and ``cuda`` each rank takes a GPU of its own, and NCCL connects them, if
        each machine has enough; else gloo does.
    replicas
        Into how many groups the ranks are divided, which each have all subdomains: as in ``compute.replicas``.

    Raises
    ------
    ConfigError
        The variables of the launcher make no sense, or the device is one GPU for all.
    RankError
        The others cannot be reached.
    """
    found = dist.is_initialized()
    environment = LauncherEnvironment.of_group(os.environ) if found else LauncherEnvironment.of(os.environ)
    if environment.count == 1:
        yield ALONE
        return
    if environment.count % replicas:
        raise ConfigError(
            f"{environment.count} ranks cannot form {replicas} replicas of equal size; start a multiple of them"
        )
    if not found:
        _import_what_would_hold_the_group()
    with answered():
        store = _store_beside_group(environment) if found else _store_of_launcher(environment)
    with _sharing_cores(environment), _seen_off(store, environment), _left(found), _told(store, environment):
        with answered():
            ranks = _connected(store, environment) if found else _connect(store, environment, device)
            if replicas > 1:
                shape = (replicas, environment.count // replicas)
                mesh = init_device_mesh(ranks.exchange.type, shape, mesh_dim_names=("replica", "subdomain"))
                ranks = replace(ranks, replicas=replicas, mesh=mesh)
        try:
            yield ranks
            ranks.all_sum(torch.zeros(1))  # nobody leaves before all are through
        finally:
            ranks.store = ranks.mesh = None  # whose threads would outlive the group


def _import_what_would_hold_the_group() -> None:
    """Import what optimisers and the meta device import when they are first used.

    Imported while there is a process group, it keeps that from ever going: threads of gloo outlive the group, others do
    not come to know that this rank has left it, and now and then a thread aborts the process at its end.
    """
    importlib.import_module("torch._dynamo")


def launched() -> bool:
    """Tell whether this process has been started as one of several ranks."""
    return dist.is_initialized() or LauncherEnvironment.of(os.environ).count > 1


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


def _store_of_launcher(environment: LauncherEnvironment) -> Store:
    found: tuple[Store, int, int] = next(rendezvous("env://", environment.rank, environment.count, timeout=patience()))
    return found[0]


def _store_beside_group(environment: LauncherEnvironment) -> Store:
    """Return a store for short notes, which rank 0 holds: a process group has one of its own, but does not show it."""
    store: Store | None = None
    address = torch.zeros(_LONGEST_NAME + 1, dtype=torch.int32)
    if environment.rank == 0:
        name = os.environ.get("MASTER_ADDR") or socket.gethostname()
        store = held = TCPStore(name, 0, environment.count, is_master=True, timeout=patience(), wait_for_workers=False)
        address[: len(name) + 1] = torch.tensor([held.port, *name.encode()])
    there = address.to(_exchange(environment))
    dist.broadcast(there, 0)
    port, *codes = there.tolist()
    if store is None:
        name = bytes(codes).rstrip(b"\0").decode()
        store = TCPStore(name, port, environment.count, is_master=False, timeout=patience())
    return store


def _exchange(environment: LauncherEnvironment) -> torch.device:
    """Return where the numbers that a process group exchanges have to be."""
    if "nccl" not in dist.get_backend():
        return torch.device("cpu")
    return torch.device("cuda", environment.local_rank % torch.cuda.device_count())


def _connected(store: Store, environment: LauncherEnvironment) -> Ranks:
    """Return the ranks of the process group that is there."""
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank % torch.cuda.device_count())
    return Ranks(environment.rank, environment.count, environment.local_rank, _exchange(environment), store=store)


def _connect(store: Store, environment: LauncherEnvironment, device: str) -> Ranks:
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"compute.device = {device!r} is one device for all ranks; use cuda: each takes its own")
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(environment.local_rank % gpus)
    possible = gpus >= environment.local_count and dist.is_nccl_available()
    store.set(f"nccl/{environment.rank}", "yes" if possible else "no")
    nccl = all(store.get(f"nccl/{rank}") == b"yes" for rank in range(environment.count))
    exchange = torch.device("cuda", environment.local_rank) if nccl else torch.device("cpu")
    dist.init_process_group(
        "nccl" if nccl else "gloo",
        store=PrefixStore("ddcnn", store),
        rank=environment.rank,
        world_size=environment.count,
        timeout=patience(),
        device_id=exchange if nccl else None,
    )
    return Ranks(environment.rank, environment.count, environment.local_rank, exchange, store=store)


@contextmanager
def _left(found: bool) -> Iterator[None]:
    """Leave the process group: after an error of gloo's kind only, because NCCL would wait for who is gone.

    One that was ``found`` belongs to whoever made it.
    """
    try:
        yield
    except BaseException:
        if not found and dist.is_initialized() and dist.get_backend() == "gloo":
            dist.destroy_process_group()
        raise
    if not found:
        dist.destroy_process_group()


@contextmanager
def _told(store: Store, environment: LauncherEnvironment) -> Iterator[None]:
    """Leave a note of why this rank ends; if another was earlier, end with its reason."""
    try:
        yield
    except Exception as error:
        note = f"rank {environment.rank} of {environment.count} ended: {error}"
        first = note
        with suppress(RuntimeError):  # the store is gone too: then each rank says what it knows
            first = store.compare_set("ended", "", note).decode()
        if first != note and not isinstance(error, InterruptionError):
            raise EndedError(first) from error
        raise


@contextmanager
def _seen_off(store: Store, environment: LauncherEnvironment) -> Iterator[None]:
    """After an error, let rank 0, which holds the store, wait a little until all have left notes and read the first.

    The group is left before that, or ranks that wait for this one in it would not come to know.
    """
    try:
        yield
    except Exception:
        with suppress(RuntimeError):
            store.add("left", 1)
            deadline = time.monotonic() + _SEEING_OFF
            while environment.rank == 0 and store.add("left", 0) < environment.count and time.monotonic() < deadline:
                time.sleep(0.02)
        raise


@contextmanager
def _sharing_cores(environment: LauncherEnvironment) -> Iterator[None]:
    before = torch.get_num_threads()
    if not _user_chose_threads():
        torch.set_num_threads(max(1, usable_cores() // environment.local_count))
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
