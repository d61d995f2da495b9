"""`Session`: a run that is under way: its setup, its folder, its workers, and who is told."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.groups import groups_in_two
from ddcnn.data.source_paths import read_by, source_folder
from ddcnn.engines import ALONE, Engine, Ranks, build_engine
from ddcnn.experiments.job import Job
from ddcnn.experiments.plan import costs_of, epochs_within, in_one_line, works_of_job
from ddcnn.experiments.record import Begun, Comparison, Recorder, finish_run, open_run, reopen_run, write_facts
from ddcnn.experiments.trials import Trials, worth_trying
from ddcnn.experiments.workers import Hands
from ddcnn.machine import staying_below
from ddcnn.planning import MemoryPlan, Setup, Threads, choose_threads, computing_with, decide, keep_threads, prepare
from ddcnn.runs.folder import CHECKPOINTS, RunFolder
from ddcnn.strategies import StrategyContext, StrategyResult, check_strategies
from ddcnn.text import size_text
from ddcnn.tracking import open_tracker
from ddcnn.training import Progress, Several, StageTimer, Workspace, peak_of_process

_MOST_NAMED = 20


@dataclass(frozen=True)
class RunOptions:
    """What a run is done with, beside its configuration.

    Attributes
    ----------
    progress
        Who is told how it goes.
    command
        How it was started.
    engine
        Where local CNNs are trained; None: as the configuration says.
    resuming
        Whether the run was begun before.
    ranks
        The processes over which a coherent model is spread.
    time_limit
        Seconds from `began` in which it is to be done, by as many epochs as fit; None: no limit.
    began
        When it began, by `time.monotonic`.
    """

    progress: Progress
    command: str
    engine: Engine | None
    resuming: bool = False
    ranks: Ranks = ALONE
    time_limit: float | None = None
    began: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Session:
    """A run that is under way. It is a context: workers end with it. Of several ranks one has the folder."""

    setup: Setup
    job: Job
    folder: RunFolder | None
    recorder: Progress
    workspace: Workspace
    engine: Engine
    choices: dict[str, str]
    plan: MemoryPlan | None
    command: str
    contexts: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(cls, config: Config, job: str, options: RunOptions, dataset: Dataset | None = None) -> Session:
        """Begin a run, or go on with it; whatever cannot be used is found before its folder is made."""
        with ExitStack() as contexts:
            return cls._of(config, Job.of(job, config), options, dataset, contexts)

    @classmethod
    def _of(
        cls, config: Config, job: Job, options: RunOptions, dataset: Dataset | None, contexts: ExitStack
    ) -> Session:
        assert config.out is not None
        tracker = None if config.track is None else open_tracker(config.track)
        plan, ranks, command = None, options.ranks, options.command
        folder = RunFolder(config.out) if ranks.first else None
        begun = line = None
        if options.resuming:
            begun = reopen_run(folder or RunFolder(config.out), sweep=ranks.first)
        elif folder is not None:
            sources, images = read_by(config), source_folder(config.data)
            folder.check_free(force=config.force, sources=sources, images=images)
        setup = prepare(config, dataset, ranks, begun.proofs if begun else ())
        check_strategies(list(job.strategies), setup)
        engine = options.engine or build_engine(config.compute, setup.compute.device.type)
        threads = _threads(setup, engine, begun)
        contexts.enter_context(computing_with(threads.count))
        if begun is None:
            _tell_of_files(setup, options.progress)
            options.progress.note(f"data {_described(setup)}")
            setup, choices, plan = decide(setup, job.whole_images, engine.workers)
            choices |= threads.choices
            setup, line = _planned(setup, job, options, engine)
            if folder is not None:
                open_run(folder, setup, job=job.name, command=command, choices=choices, threads=threads.to_keep)
        else:
            begun.check(setup)
            choices, command = begun.choices | threads.choices, begun.command or command
            if folder is not None:
                write_facts(folder, setup, command)
        if not ranks.alone:
            choices["ranks"] = ranks.line(len(setup.networks.decomposition))
        for what, text in choices.items():
            options.progress.note(f"{what} {text}")
        if line is not None:
            options.progress.note(f"plan {line}")
        workspace = Workspace(config.out / CHECKPOINTS, setup.fingerprint, options.progress.note)
        recorder = options.progress
        if folder is not None:  # every epoch is written before others hear of it
            recorder = Several(Recorder(folder), recorder)
        if tracker is not None and ranks.first:
            contexts.enter_context(tracker.of_run(setup.config, recorder.note, resuming=options.resuming))
            recorder = Several(recorder, tracker)
        return cls(setup, job, folder, recorder, workspace, engine, choices, plan, command, contexts.pop_all())

    def __enter__(self) -> Session:
        """Open the engine, and look to it that the memory stays below its limit."""
        self.contexts.enter_context(self.engine)
        self.contexts.enter_context(staying_below(self.setup.compute.limit))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine, and let others have the folder."""
        self.contexts.__exit__(kind, error, trace)
        if self.folder is not None:
            self.folder.release()
        if error is not None and self.folder is not None and self.folder.replaced is not None:
            self.recorder.note(
                f"the run that was there before is kept in {self.folder.replaced} until this one is done"
            )

    def context(self) -> StrategyContext:
        """Return what strategies are given."""
        return StrategyContext(self.setup, self.engine, self.recorder, self.workspace, self.job.aggregations)

    def finish(self, results: dict[str, StrategyResult], trained: str | None) -> Comparison:
        """Evaluate what was trained, write everything, and seal the run.

        Parameters
        ----------
        trained
            The result that was asked for; None: all of them, to be compared.
        """
        self.recorder.note(f"evaluating {', '.join(results)}")
        stages: dict[str, StageTimer] = {stage.name: stage for one in results.values() for stage in one.stages}
        choices = self.choices
        if self.plan is not None:
            peak = max(stage.peak_memory_bytes or 0 for stage in stages.values())
            if self.setup.compute.limit is not None:  # of a process, which did more than to train
                peak = max(peak, peak_of_process() or 0)
            choices = choices | {"memory": f"{choices['memory']}, measured peak {size_text(peak)}"}
        found = finish_run(
            self.folder,
            self.setup,
            results,
            trained=trained,
            stages=list(stages.values()),
            choices=choices,
            command=self.command,
        )
        self.recorder.found(found.results)
        return found


def as_rank(options: RunOptions, ranks: Ranks) -> RunOptions:
    """Return the options of one of several ranks: only the first one shows progress."""
    return replace(options, ranks=ranks, progress=options.progress if ranks.first else Progress())


def _threads(setup: Setup, engine: Engine, begun: Begun | None) -> Threads:
    """Return with how many threads this process computes."""
    asked = setup.config.compute.threads if engine.serial else None  # else they are those of the workers
    device, alone = setup.compute.device, setup.ranks.alone
    if begun is None:
        return choose_threads(asked, device, alone=alone)
    return keep_threads(asked, begun.threads, device, alone=alone)


def _planned(setup: Setup, job: Job, options: RunOptions, engine: Engine) -> tuple[Setup, str | None]:
    """Return the run for as many epochs as the time allows, and its plan in one line; None: over ranks there is none.

    Where trials would take more than a small part of the time, there are none, and the line has no times.
    """
    if not setup.ranks.alone:
        return setup, None
    hands, limit = Hands.of(setup.config.compute, setup.compute.device.type), options.time_limit
    if options.engine is not None:
        hands = Hands(engine.workers, None if engine.serial else 1)
    trials = Trials(careful=limit is not None)
    if limit is not None:
        setup = setup.with_epochs(epochs_within(setup, job, hands, trials, limit, options.began))
    works = works_of_job(setup, job)
    if limit is None and not worth_trying(setup, works):
        return setup, f"{sum(work.times * work.steps for work in works):,} short steps: not timed beforehand"
    line = in_one_line(costs_of(setup, job, hands, trials).values())
    return setup, line if limit is None else f"{setup.config.training.epochs} epochs fit: {line}"


def _described(setup: Setup) -> str:
    """Return what is trained on."""
    dataset, split = setup.data.dataset, setup.data.split
    size = "x".join(map(str, dataset.image_size))
    parts = ", ".join(f"{len(getattr(split, part)):,} {part}" for part in ("train", "validation", "test"))
    return f"{len(dataset.labels):,} images of {size} pixels in {len(dataset.classes)} classes: {parts}"


def _tell_of_files(setup: Setup, progress: Progress) -> None:
    """Say what was done to files, which are left out, and what belongs together."""
    for note in setup.data.dataset.notes:
        progress.note(f"data: {note}")
    data = setup.data
    if data.dataset.groups is not None:
        count, split = len(data.dataset.groups.unique()), data.split
        progress.note(f"groups: {count:,}, each kept in one part of the split")
        if torn := groups_in_two(split.train, split.validation, split.test, groups=data.dataset.groups):
            progress.note(f"leakage: {torn:,} groups are in more than one official part: the test looks too good")
    bad = setup.data.dataset.bad_files
    if setup.config.data.on_bad_file == "warn":
        for one in bad[:_MOST_NAMED]:
            progress.note(f"left out: {one.reason}")
    if bad:
        progress.note(f"{len(bad)} file{'s are' if len(bad) > 1 else ' is'} left out, named in bad_files.json")
