"""How many workers pay: local CNNs need nothing of each other, so they can be trained at the same time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ddcnn.config import ComputeConfig
from ddcnn.cores import usable_cores
from ddcnn.experiments.trials import Trials
from ddcnn.planning import Setup, Work
from ddcnn.strategies.local_task import group_work
from ddcnn.text import duration

START = 3.4  # seconds until worker processes work, and their results are collected: benchmarks/results/engines-*
_PAYS = 0.5  # of a worker: it works at least half as well as the first one


@dataclass(frozen=True)
class Hands:
    """Who trains local CNNs.

    Attributes
    ----------
    count
        Workers.
    threads
        Of each; None: those of this process.
    """

    count: int = 1
    threads: int | None = None

    @classmethod
    def of(cls, compute: ComputeConfig, device: str) -> Hands:
        """Return what a configuration asks for; nothing is started."""
        if compute.engine == "in_process":
            return cls()
        cores = usable_cores()
        gpu = device == "cuda"
        count = compute.workers or (1 if gpu else max(1, cores // (compute.threads or 1)))
        return cls(count, None if gpu else compute.threads or max(1, cores // count))

    @property
    def here(self) -> bool:
        """Whether it is this process."""
        return self.threads is None and self.count == 1

    def threads_of(self, work: Work) -> int | None:
        """Return with how many threads a training is done; None: with those of this process."""
        return self.threads if work.placed else None


@dataclass(frozen=True)
class Share:
    """The local CNNs among some workers.

    Attributes
    ----------
    workers
        Their number.
    where
        ``"here"``: they share the cores of this machine; ``"elsewhere"``: each has a machine like this one.
    seconds
        Time of all local CNNs.
    """

    workers: int
    where: str
    seconds: float


def seconds_of(setup: Setup, works: Sequence[Work], hands: Hands, trials: Trials) -> float:
    """Return how long trainings take; workers share those that an engine places."""
    total, elsewhere = 0.0, list[float]()
    for work in works:
        seconds = _training(setup, work, trials, hands.threads_of(work))
        if work.placed and not hands.here:
            elsewhere += [seconds] * work.times
        else:
            total += work.times * seconds
    return total + (START + longest(elsewhere, hands.count) if elsewhere else 0.0)


def longest(seconds: Sequence[float], workers: int) -> float:
    """Return when the last of some tasks is done, which go in order of their length to the worker that is free first.

    >>> longest([3.0, 2.0, 2.0], 2)
    4.0
    """
    ends = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


def shared(setup: Setup, works: Sequence[Work], trials: Trials) -> tuple[Share, ...]:
    """Return how long the local CNNs take with 1, 2, 4, ... workers: here, and elsewhere with a machine for each.

    A group takes as long as one local CNN alone, and for each further one an equal part of what all take more.
    """
    placed, N = [work for work in works if work.placed and work.stage == "local"], len(setup.networks.decomposition)
    if not placed or N == 1:
        return ()
    once = {str(work.alike): work for work in placed}.values()
    one_round = sum(work.times * _training(setup, work, trials) for work in once)
    together = sum(work.times * _training(setup, work, trials) for work in placed)

    def needed(indices: Sequence[int], threads: int | None) -> float:
        """Return the seconds in which a worker trains these local CNNs, in all rounds."""
        part = group_work(setup, indices, placed[0].train.indices, "local")
        part = replace(part, alike=("local", "part", len(indices)))
        return together / one_round * _training(setup, part, trials, threads)

    found = [Share(1, "here", together)]
    count = min(usable_cores(), N)
    if setup.compute.device.type == "cpu" and count > 1:
        seconds = needed(range(-(-N // count)), max(1, usable_cores() // count))
        found.append(Share(count, "here", START + seconds))
    alone = min(needed([max(range(N), key=lambda n: setup.networks.subdomains[n].pixels)], None), together)
    for count in sorted({*(2**i for i in range(1, N.bit_length())), N}):
        group = -(-N // count)
        found.append(Share(count, "elsewhere", alone + (together - alone) * (group - 1) / (N - 1)))
    return tuple(found)


def recommended(shares: Sequence[Share], hands: Hands, seconds: float | None) -> Iterator[str]:
    """Say how many workers pay."""
    if not shares or seconds is None:
        return
    first, *others = shares
    here = [share for share in others if share.where == "here"]
    if here and hands.here and first.seconds - here[0].seconds > 0.1 * seconds:
        yield (
            f"--engine processes --workers {here[0].workers} trains the local CNNs in {duration(here[0].seconds)} "
            f"instead of {duration(first.seconds)}"
        )
    elsewhere = [share for share in others if share.where == "elsewhere"]
    pay = [s for s in elsewhere if first.seconds / s.seconds >= _PAYS * s.workers]
    if pay and first.seconds > 10 * START:
        yield (
            f"on other machines like this one up to {pay[-1].workers} workers pay: the local CNNs then take "
            f"{duration(pay[-1].seconds)} instead of {duration(first.seconds)} (--engine ray)"
        )


def _training(setup: Setup, work: Work, trials: Trials, threads: int | None = None) -> float:
    """Return the seconds of one training, with its validation."""
    trial = trials.of(setup, work, threads)
    return work.steps * trial.step + work.epochs * work.looks * trial.look
