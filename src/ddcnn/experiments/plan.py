"""`plan`: what a run will cost here, before it begins: parameters, operations, memory, exchange, time, workers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from ddcnn.config import Config
from ddcnn.engines import refuse_ranks
from ddcnn.errors import ConfigError
from ddcnn.experiments.given_images import Given, as_config, taken
from ddcnn.experiments.job import Job
from ddcnn.experiments.trials import Trials
from ddcnn.experiments.workers import Hands, Share, recommended, seconds_of, shared
from ddcnn.machine import resident_memory
from ddcnn.planning import Setup, Work, choose_threads, computing_with, decide, prepare
from ddcnn.planning.checkup import available_memory
from ddcnn.strategies import STRATEGIES, needed_for, works_of
from ddcnn.strategies.initialization import INITIALIZATIONS, start_works
from ddcnn.strategies.registry import known_stages
from ddcnn.text import duration, size_text
from ddcnn.training import Progress

HOW = (
    "predicted: a few training steps and a look at some images were timed here and now, with the network of each "
    "stage, and multiplied by their numbers; early stops make it shorter"
)
_NUMBER = 4  # bytes: float32
_EVALUATION = "evaluation"


@dataclass(frozen=True)
class PlannedStage:
    """A stage of training.

    Attributes
    ----------
    name, label
        As in ``metrics.jsonl``, and for readers.
    parameters
        Numbers that are trained, of all local CNNs together.
    operations
        Floating-point operations per image, forward and backward.
    activations, memory
        Bytes that a batch keeps for the backward pass; and those of parameters, gradients, optimiser and best epoch
        with them: of all that is trained at once, without images, Python and libraries.
    batch_size, epochs, steps
        Images per step; epochs and steps in all.
    exchanged_per_step, exchanged
        Bytes that go between ranks if the coherent model is spread over some; 0: nothing is exchanged.
    seconds, peak
        Predicted time, and largest memory of this process or of the GPU, in bytes; None: not measured.
    """

    name: str
    label: str
    parameters: int
    operations: int
    activations: int
    memory: int
    batch_size: int
    epochs: int
    steps: int
    exchanged_per_step: int
    exchanged: int
    seconds: float | None = None
    peak: int | None = None


@dataclass(frozen=True)
class Plan:
    """What a run will cost on this machine; nothing is written.

    Attributes
    ----------
    stages
        In the order in which they are trained.
    evaluation_seconds
        Time to evaluate what was trained; None: not measured.
    evaluation_peak
        Largest memory of it in bytes; None: not measured.
    epochs
        Of each stage, after a time limit was kept.
    runs
        How many such runs there are: folds.
    workers
        How long the local CNNs take with more workers.
    choices
        Precision, backend, memory and threads that were decided on, and why.
    advice
        What is recommended, one line each.
    """

    stages: tuple[PlannedStage, ...]
    evaluation_seconds: float | None
    evaluation_peak: int | None
    epochs: int
    runs: int
    workers: tuple[Share, ...]
    choices: dict[str, str]
    advice: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Time of all trainings and their evaluation; None: not measured."""
        known = [stage.seconds for stage in self.stages]
        if None in known or self.evaluation_seconds is None:
            return None
        return self.runs * (sum(s for s in known if s is not None) + self.evaluation_seconds)

    @property
    def peak(self) -> int | None:
        """The largest memory of a stage, or of the evaluation, in bytes; None: not measured."""
        peaks = [self.evaluation_peak, *(stage.peak for stage in self.stages)]
        return max((peak for peak in peaks if peak is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self) | {"seconds": self.seconds, "peak": self.peak, "how": HOW}


def plan(
    config: Config | Mapping[str, Any],
    data: Given = None,
    *,
    job: str = "compare",
    measure: bool = True,
    time_limit: float | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Return what a run would cost on this machine: nothing is trained on, nothing is written.

    Parameters
    ----------
    config, data, progress
        As in `ddcnn.compare`.
    job
        ``"compare"``: all strategies; ``"train"``: ``config.strategy`` alone.
    measure
        Whether a few steps of each stage are timed; else there are counts, and neither times nor peaks.
    time_limit
        Seconds that the run may take: the plan is for as many epochs as fit beside what preparing has taken here.

    Raises
    ------
    DdcnnError
        What the run itself would raise before it begins; or the time is too short.
    """
    refuse_ranks("plan")
    began = time.monotonic()
    config = as_config(config)
    asked = Job.of(job, config)
    asked.check(config)
    config, dataset = taken(config, data)
    folds = math.prod(config.data.folds) if config.data.folds is not None and config.data.fold is None else 1
    if folds > 1:
        config = config.model_copy(update={"data": config.data.model_copy(update={"fold": 0})})
    if time_limit is not None and not measure:
        raise ConfigError("a time limit needs a measurement; leave out --no-measure")
    with ExitStack() as contexts:
        setup, choices, hands = ready(prepare(config, dataset), asked, contexts, measure=measure)
        trials = Trials() if measure else None
        if time_limit is not None and trials is not None:
            setup = setup.with_epochs(epochs_within(setup, asked, hands, trials, time_limit / folds, began))
        for what, text in choices.items():
            (progress or Progress()).note(f"{what} {text}")
        return replace(plan_of(setup, asked, hands, trials), runs=folds, choices=choices)


def ready(setup: Setup, job: Job, contexts: ExitStack, *, measure: bool = True) -> tuple[Setup, dict[str, str], Hands]:
    """Decide, as a run does, what is left at ``auto``; the threads that are chosen stay until ``contexts`` end."""
    compute = setup.config.compute
    hands = Hands.of(compute, setup.compute.device.type)
    asked = compute.threads if hands.here else None
    threads = choose_threads(asked, setup.compute.device)
    contexts.enter_context(computing_with(threads.count))
    if measure:
        setup, choices, _ = decide(setup, job.whole_images, hands.count)
        return setup, choices | threads.choices, hands
    plain = {"precision": "float32", "backend": "looped"}
    unknown = {name: value for name, value in plain.items() if getattr(compute, name) == "auto"}
    return setup.with_compute(setup.compute.with_(**unknown)), threads.choices, hands


class Cost(NamedTuple):
    """What a stage is predicted to take: its label, seconds, and the largest memory in bytes; None: not known."""

    label: str
    seconds: float
    peak: int | None


def costs_of(setup: Setup, job: Job, hands: Hands, trials: Trials) -> dict[str, Cost]:
    """Return what each stage of a run takes, and in the end its evaluation."""
    works = works_of_job(setup, job)
    found = {
        name: Cost(
            known_stages().get(name, name),
            _seconds(setup, parts, works, hands, trials),
            _peak(setup, parts, works, hands, trials),
        )
        for name, parts in _by_stage(works).items()
    }
    return found | {_EVALUATION: _evaluation(setup, job, works, trials)}


def in_one_line(costs: Iterable[Cost]) -> str:
    """Return what a run takes.

    >>> in_one_line([Cost("global CNN", 30.0, 2**29), Cost("evaluation", 0.2, None)])
    'about 30 s: global CNN 30 s; peak memory 512 MiB'
    """
    costs = list(costs)
    times = ", ".join(f"{cost.label} {duration(cost.seconds)}" for cost in costs if cost.seconds >= 1)
    peak = max((cost.peak or 0 for cost in costs), default=0)
    total = duration(sum(cost.seconds for cost in costs))
    return f"about {total}{': ' if times else ''}{times}" + (f"; peak memory {size_text(peak)}" if peak else "")


def plan_of(setup: Setup, job: Job, hands: Hands, trials: Trials | None) -> Plan:
    """Return the plan of a run in which nothing is left at ``auto``; without trials there are only counts."""
    works, counted = works_of_job(setup, job), trials or Trials()
    costs = {} if trials is None else costs_of(setup, job, hands, trials)
    stages = tuple(_stage(setup, name, parts, counted, costs.get(name)) for name, parts in _by_stage(works).items())
    shares = () if trials is None else shared(setup, works, trials)
    evaluation = costs.get(_EVALUATION)
    seconds, peak = (None, None) if evaluation is None else (evaluation.seconds, evaluation.peak)
    plan = Plan(stages, seconds, peak, setup.config.training.epochs, 1, shares, {}, ())
    return replace(plan, advice=tuple(_advice(setup, plan, hands)))


def works_of_job(setup: Setup, job: Job) -> list[Work]:
    """Describe all trainings of a job."""
    names = needed_for(list(job.strategies))
    return start_works(setup) + [work for name in names for work in works_of(name, setup, job.aggregations)]


def epochs_within(setup: Setup, job: Job, hands: Hands, trials: Trials, limit: float, began: float) -> int:
    """Return the largest number of epochs with which a run takes at most so long.

    Parameters
    ----------
    limit
        Seconds from ``began``, by `time.monotonic`: preparing has taken a part of them, and the trials take another.

    Raises
    ------
    ConfigError
        Not even one epoch fits.
    """

    def predicted(epochs: int) -> float:
        costs = costs_of(setup.with_epochs(epochs), job, hands, trials).values()
        return sum((cost.seconds for cost in costs), 0.0)

    first, second = predicted(1), predicted(2)
    prepared = time.monotonic() - began
    if prepared + first > limit:
        which = "" if setup.config.data.fold is None else " for each fold"
        raise ConfigError(
            f"a time limit of {duration(limit)}{which} is too short: preparing has taken {duration(prepared)}, and one "
            f"epoch of each stage and the evaluation take {duration(first)} here; give more time, fewer images "
            "or a smaller network"
        )
    return 1 + int((limit - prepared - first) / max(second - first, 1e-9))


def _by_stage(works: Sequence[Work]) -> dict[str, list[Work]]:
    stages: dict[str, list[Work]] = {}
    for work in works:
        stages.setdefault(work.stage, []).append(work)
    return stages


def _stage(setup: Setup, name: str, parts: Sequence[Work], counted: Trials, cost: Cost | None) -> PlannedStage:
    largest = max((counted.footprint(setup, work) for work in parts), key=lambda found: found.memory)
    once = _once(parts)
    batch = min(parts[0].train.batch_size, len(parts[0].train))
    steps = sum(work.times * work.steps for work in parts)
    per_step = _NUMBER * batch * max(work.exchanged for work in parts)
    return PlannedStage(
        name,
        known_stages().get(name, name),
        sum(counted.footprint(setup, work).parameters * work.times for work in once),
        sum(counted.footprint(setup, work).operations * work.times for work in once),
        largest.activations,
        largest.memory,
        batch,
        parts[0].epochs * len(parts) // len(once),
        steps,
        per_step,
        per_step * steps,
        None if cost is None else cost.seconds,
        None if cost is None else cost.peak,
    )


def _peak(setup: Setup, parts: Sequence[Work], works: Sequence[Work], hands: Hands, trials: Trials) -> int | None:
    peaks = [trials.of(setup, work, hands.threads_of(work)).peak for work in parts]
    if any(work.looked_at for work in parts):
        peaks += [trials.of(setup, work).look_peak for work in _of_local_cnns(setup, works)]
    return max((peak for peak in peaks if peak is not None), default=None)


def _of_local_cnns(setup: Setup, works: Sequence[Work]) -> list[Work]:
    """Return the trainings of local CNNs whose results are looked at: not those that find where they begin."""
    begun = INITIALIZATIONS.find(setup.config.init.way).stages
    return [work for work in works if work.placed and work.stage not in begun]


def _once(parts: Sequence[Work]) -> list[Work]:
    """Return the trainings on one set of samples: those of folds are the same networks again."""
    return [*{str(work.alike): work for work in parts}.values()]


def _seconds(setup: Setup, parts: Sequence[Work], works: Sequence[Work], hands: Hands, trials: Trials) -> float:
    looked_at = sum(work.looked_at for work in parts)
    return seconds_of(setup, parts, hands, trials) + looked_at * _look(setup, works, trials)


def _look(setup: Setup, works: Sequence[Work], trials: Trials) -> float:
    """Return the seconds in which all local CNNs look at an image."""
    once = _once(_of_local_cnns(setup, works))
    return sum((work.times * trials.of(setup, work).look for work in once), 0.0)


def _evaluation(setup: Setup, job: Job, works: Sequence[Work], trials: Trials) -> Cost:
    """Return what it takes to look at all images with all that was trained, as far as that has not happened before."""
    split, total, peaks = setup.data.split, 0.0, []
    images = len(split.train) + len(split.validation) + len(split.test)
    for name in needed_for(list(job.strategies)):
        if STRATEGIES.find(name).trains == "subdomains":
            total += (images - sum(work.looked_at for work in works)) * _look(setup, works, trials)
            looking = [trials.of(setup, work) for work in _of_local_cnns(setup, works)]
        else:
            looking = [trials.of(setup, works_of(name, setup, job.aggregations)[-1])]
            total += images * looking[0].look
        peaks += [trial.look_peak for trial in looking if trial.look_peak is not None]
    return Cost(_EVALUATION, total, max(peaks, default=None))


def _advice(setup: Setup, plan: Plan, hands: Hands) -> list[str]:
    lines = list(recommended(plan.workers, hands, plan.seconds))
    device, free = setup.compute.device.type, available_memory()
    more = (plan.peak or 0) - resident_memory()
    if device == "cpu" and free is not None and more > free:
        needed, left = size_text(more, unlike=free), size_text(free, unlike=more)
        lines.append(f"{needed} more are needed, {left} are free: give --memory, or a smaller --batch-size")
    return lines
