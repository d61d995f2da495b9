"""Real training steps, taken before a training: how long they take here, and how much memory they need."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import nn

from ddcnn.data.batches import Batches
from ddcnn.data.two_views import TwoViews
from ddcnn.planning.work import Work
from ddcnn.seeds import own_random_numbers
from ddcnn.training import Distribution, MemberOptimizer, StageTimer, Step, TrainableMembers, predict_scores
from ddcnn.training.objective import cross_entropy_of
from ddcnn.training.replay import replay_of
from ddcnn.training.weight_average import WeightAverage

_LONG = 1.0  # seconds: a careful measurement goes on so long
_TOO_LONG = 4.0  # seconds: what has taken so long is not done again
_MOST = 100  # turns


@dataclass(frozen=True)
class Trial:
    """What was measured of a training.

    Attributes
    ----------
    step
        Seconds of a step of training, in which its batch is cut and moved.
    look
        Seconds in which it looks at one sample without training.
    peak, look_peak
        Largest memory of this process, or of the GPU, in the training, and when it looks at many images at once; None:
        not known.
    """

    step: float
    look: float
    peak: int | None
    look_peak: int | None = None


def try_out(work: Work, *, careful: bool = True) -> Trial:
    """Measure a training by a few of its own steps, on its own images, with a network of its own form.

    Neither random numbers nor anything else that a run depends on is moved.

    Parameters
    ----------
    careful
        Whether short steps are taken until there are enough of them for a median; else two of them count.
    """
    device, seconds = work.train.device, _LONG if careful else 0.0
    with own_random_numbers(device, 0):
        with StageTimer("trial", device) as training:
            network = work.network()
            step = step_of(work, network)
            with closing(endless(step, work.train)) as steps:
                pace = _timed(partial(next, steps), device, seconds)
            _ = copied(network)
            images = _at_once(work)
            validation = replace(images, indices=work.validation.indices[: len(images)])
            predict_scores(network, validation, precision=work.precision)
        with StageTimer("look", device) as looking:
            run = partial(predict_scores, network, images, precision=work.precision)
            look = _timed(run, device, seconds) / len(images)
    return Trial(pace, look, training.peak_memory_bytes, looking.peak_memory_bytes)


def step_of(work: Work, network: TrainableMembers) -> Step:
    """Return the step by which such a network is trained."""
    objective = work.objective
    if objective is None:
        labels = work.train.labels[work.train.indices.to(work.train.device)]
        objective = cross_entropy_of(work.training, labels, work.classes)
    optimizer = MemberOptimizer(network, work.training, work.own)
    average = None if work.training.ema is None else WeightAverage(network, work.training.ema)
    distribution = Distribution()
    replay = replay_of(network, objective, distribution, after=2) if work.graphs else None
    return Step(
        network, optimizer, work.precision, objective, distribution, work.training.sam, average=average, replay=replay
    )


def endless(step: Step, batches: Batches | TwoViews) -> Generator[None, None, None]:
    """Train, epoch after epoch; it pauses after each step."""
    cast(nn.Module, step.network).train()
    for epoch in itertools.count(1):
        with closing(batches.shuffled(epoch)) as found:
            for batch in found:
                step(batch)
                yield


def copied(network: TrainableMembers) -> list[dict[str, torch.Tensor]]:
    """Return a copy of all states, as a training keeps one of its best epoch."""
    return [{k: v.clone() for k, v in network.member_state(n).items()} for n in range(network.members)]


def _at_once(work: Work) -> Batches:
    """Return as many images as are looked at at once, where nothing is trained."""
    known = torch.cat([work.validation.indices, work.train.indices])
    everything = replace(work.validation, indices=known)
    with closing(everything.in_order()) as batches:
        size = len(next(batches))
    return replace(everything, indices=known[:size])


def _timed(run: Callable[[], object], device: torch.device, least: float) -> float:
    """Return the median of the seconds that something takes; the first time, or two if it is short, do not count."""
    seconds: list[float] = []
    skipped = 2 if least else 1
    while len(seconds) < skipped + 2 or (sum(seconds[skipped:]) < least and len(seconds) < _MOST):
        if len(seconds) > 1 and sum(seconds) > _TOO_LONG:
            return statistics.median(seconds[1:])
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[skipped:])
