"""One coherent model spread over several processes: which subdomains each owns, and what they exchange.

Every rank computes the local probabilities of its own subdomains, or what else they hand over to the aggregation. One
all-gather then gives all ranks (B, N, K), from where each computes the same decision and the same loss, with its own
copy of the aggregation. Backward needs no communication: a rank keeps the part of the gradient that belongs to its own
subdomains.

Ranks can also form replicas, each of which has all subdomains and computes a share of each batch. The probabilities of
the whole batch are then gathered, too, and only the gradients of local CNNs are summed over the replicas.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import Store

from ddcnn.errors import ConfigError, RankError

Result = TypeVar("Result")

_LONG = timedelta(days=1)  # the others may wait for a download


@dataclass(eq=False)
class Ranks:
    """The processes that share one coherent model; by itself, one process that has it all.

    Attributes
    ----------
    rank, count
        Which of how many this is, from 0.
    local_rank
        The same among those on this machine.
    exchange
        Where numbers that are exchanged have to be: a GPU for NCCL, else the CPU.
    received
        How many numbers that subdomains hand over were received so far, those of this rank included.
    store
        Where ranks leave each other short notes; None: there are no others.
    replicas
        How many groups of ranks each have all subdomains, and a share of each batch.
    mesh
        (replica, subdomain), where there are replicas.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    exchange: torch.device = field(default_factory=lambda: torch.device("cpu"))
    received: int = 0
    store: Store | None = None
    replicas: int = 1
    mesh: DeviceMesh | None = None

    @property
    def replica(self) -> int:
        """Of which replica this is a rank."""
        return self.rank // self._shares

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that shows progress and writes the run."""
        return self.rank == 0

    def line(self, subdomains: int) -> str:
        """Return in one line who has what.

        >>> Ranks(0, 2).line(5)
        '2 over gloo, of which each owns 3 or 2 of 5 subdomains'
        """
        backend = "gloo" if self.exchange.type == "cpu" else "NCCL"
        numbers = dict.fromkeys(len(part) for part in shares(subdomains, self._shares))
        each = " or ".join(map(str, numbers))
        replicas = f" in {self.replicas} replicas" if self.replicas > 1 else ""
        return f"{self.count} over {backend}{replicas}, of which each owns {each} of {subdomains} subdomains"

    def owned(self, subdomains: int) -> tuple[int, ...]:
        """Return the subdomains of this rank: neighbours, and of all ranks' numbers none differs by more than one.

        Raises
        ------
        ConfigError
            There are fewer subdomains than ranks.

        Examples
        --------
        >>> [Ranks(rank, 2).owned(5) for rank in range(2)]
        [(0, 1, 2), (3, 4)]
        """
        return shares(subdomains, self._shares)[self.rank % self._shares]

    def gather(
        self, p: Float[Tensor, "B n F"], subdomains: int, widths: Sequence[int] | None = None
    ) -> Float[Tensor, "B N F"]:
        """Return what all subdomains hand over; gradients reach what is of this rank alone.

        Parameters
        ----------
        p
            What the subdomains of this rank hand over: probabilities, or so many numbers as ``widths`` says.
        widths
            How many numbers each of N subdomains hands over, at most F; None: all F. No others are exchanged.
        """
        if self._shares == 1:
            return p
        numbers = [len(part) for part in shares(subdomains, self._shares)]
        if widths is not None and len(set(widths)) > 1:
            return self._gather_uneven(p, subdomains, widths)
        sent = p.new_zeros(p.shape[0], max(numbers), p.shape[2], device=self.exchange)
        sent[:, : p.shape[1]] = p.detach()
        parts = self._gathered(sent, "subdomain", self._shares)
        rows = [part[:, :number].to(p.device) for part, number in zip(parts, numbers, strict=True)]
        rows[self.rank % self._shares] = p
        return torch.cat(rows, 1)

    def _gather_uneven(
        self, p: Float[Tensor, "B n F"], subdomains: int, widths: Sequence[int]
    ) -> Float[Tensor, "B N F"]:
        """Gather different numbers of values per subdomain, one subdomain after the other."""
        parts = [[widths[n] for n in part] for part in shares(subdomains, self._shares)]
        sent = p.new_zeros(p.shape[0], max(map(sum, parts)), device=self.exchange)
        own = parts[self.rank % self._shares]
        packed = torch.cat([p.detach()[:, i, :width] for i, width in enumerate(own)], 1)
        sent[:, : packed.shape[1]] = packed
        rows = []
        for found, part in zip(self._gathered(sent, "subdomain", self._shares), parts, strict=True):
            values = found[:, : sum(part)].to(p.device).split(part, 1)
            rows.append(torch.stack([F.pad(value, (0, p.shape[2] - value.shape[1])) for value in values], 1))
        rows[self.rank % self._shares] = p
        return torch.cat(rows, 1)

    def gather_replicas(self, p: Float[Tensor, "b N K"]) -> Float[Tensor, "B N K"]:
        """Return the probabilities of a whole batch, of which each replica has a share of the same size.

        Gradients reach those of this replica alone.
        """
        if self.replicas == 1:
            return p
        rows = [part.to(p.device) for part in self._gathered(p.detach().to(self.exchange), "replica", self.replicas)]
        rows[self.replica] = p
        return torch.cat(rows)

    def sum_over_replicas(self, tensors: Sequence[Tensor], factor: float = 1.0) -> None:
        """Replace tensors by their sums over all replicas, times a factor; by the same bits in each."""
        if self.replicas == 1 or not tensors:
            return
        content = torch.cat([tensor.detach().to(self.exchange).view(-1) for tensor in tensors])
        with answered():
            dist.all_reduce(content, group=self._group("replica"))
        content *= factor
        parts = content.split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sums over all ranks, the same bits on each."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def all_max(self, values: Tensor) -> Tensor:
        """Return the maxima over all ranks."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace the numbers of tensors by those that rank 0 has."""
        if self.alone or not tensors:
            return
        there = [tensor.detach().to(self.exchange).contiguous() for tensor in tensors]
        content = torch.cat([tensor.view(-1).view(torch.uint8) for tensor in there])
        with answered():
            dist.broadcast(content, 0)
        parts = content.split([tensor.nbytes for tensor in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))

    def union(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of all ranks by name, on the CPU; of a name that several have, those of the first.

        They travel as safetensors, which can hold nothing but numbers.
        """
        if self.alone:
            return dict(state)
        own = save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
        everything: dict[str, Tensor] = {}
        for owner in range(self.count):
            everything = load(self.shared(own, owner)) | everything
        return everything

    def shared(self, content: bytes, owner: int = 0) -> bytes:
        """Return the bytes that one rank has."""
        length = self.all_sum(torch.tensor([len(content) if owner == self.rank else 0]))
        if self.alone or not int(length):
            return content if self.alone else b""
        sent = torch.empty(int(length), dtype=torch.uint8)
        if owner == self.rank:
            sent = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        sent = sent.to(self.exchange)
        with answered():
            dist.broadcast(sent, owner)
        return sent.cpu().numpy().tobytes()

    def same(self, what: str, digest: bytes) -> None:
        """Make sure that all ranks have the same 32 bytes.

        Raises
        ------
        ConfigError
            This rank has others than rank 0: ``what`` says of what they are the digest.
        """
        mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        expected = mine.clone()
        self.broadcast_([expected])
        if not torch.equal(mine, expected):
            raise ConfigError(f"{what} differ from those of rank 0; start all ranks with the same command and data")

    def local_rank0_first(self, function: Callable[[], Result]) -> Result:
        """Run a function on one rank of each machine, and then on its others, which find what that has left there."""
        if self.store is None:
            return function()
        key = f"went first/{self.rank - self.local_rank}"
        if self.local_rank:
            with answered():
                self.store.wait([key], _LONG)
            return function()
        try:
            return function()
        finally:
            self.store.set(key, "")

    @property
    def _shares(self) -> int:
        """How many ranks share the subdomains."""
        return self.count // self.replicas

    def _group(self, axis: str) -> dist.ProcessGroup | None:
        """Return the ranks along one axis of the mesh, this one among them; without replicas, all."""
        return None if self.mesh is None else self.mesh.get_group(axis)

    def _gathered(self, sent: Tensor, axis: str, count: int) -> list[Tensor]:
        parts = [torch.empty_like(sent) for _ in range(count)]
        with answered():
            dist.all_gather(parts, sent.contiguous(), group=self._group(axis))
        self.received += count * sent.numel()
        return parts

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.alone:
            return values
        there = values.detach().to(self.exchange, copy=True)
        with answered():
            dist.all_reduce(there, operation)
        return there.to(values.device)


ALONE = Ranks()


def shares(subdomains: int, ranks: int) -> list[tuple[int, ...]]:
    """Return the subdomains of each rank.

    Raises
    ------
    ConfigError
        There are fewer subdomains than ranks.
    """
    if subdomains < ranks:
        raise ConfigError(f"{ranks} ranks cannot share {subdomains} subdomains; start at most {subdomains} ranks")
    return [tuple(part.tolist()) for part in np.array_split(np.arange(subdomains), ranks)]


@contextmanager
def answered() -> Iterator[None]:
    """Turn what PyTorch says of a lost connection into an error of ours.

    Raises
    ------
    RankError
        Another rank has gone, or has not answered in time.
    """
    try:
        yield
    except RuntimeError as error:
        raise RankError(
            "another rank is gone (killed, or its machine or network failed) or did not answer within "
            f"{patience().total_seconds():g} seconds; what was done is in the run's checkpoints: resume it"
        ) from error


def patience() -> timedelta:
    """Return how long a rank waits for the others: 10 minutes, or ``$DDCNN_RANK_TIMEOUT`` seconds.

    Raises
    ------
    ConfigError
        The variable is no positive number.
    """
    text = os.environ.get("DDCNN_RANK_TIMEOUT", "600")
    try:
        seconds = float(text)
        if not 0 < seconds < 1e8:
            raise ValueError
    except ValueError:
        raise ConfigError(f"DDCNN_RANK_TIMEOUT should be a positive number of seconds, got {text!r}") from None
    return timedelta(seconds=seconds)
