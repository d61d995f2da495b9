"""`Session`: a run that is under way: its setup, its folder, its workers, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.files import named_paths, source_folder
from ddcnn.data.groups import groups_in_two
from ddcnn.engines import ALONE, Engine, Ranks, build_engine
from ddcnn.experiments.record import Begun, Comparison, Recorder, finish_run, open_run, reopen_run, write_facts
from ddcnn.machine import staying_below
from ddcnn.planning import MemoryPlan, Setup, Threads, choose_threads, computing_with, decide, keep_threads, prepare
from ddcnn.runs.folder import CHECKPOINTS, RunFolder
from ddcnn.strategies import STRATEGIES, StrategyContext, StrategyResult, needed_for
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
    """

    progress: Progress
    command: str
    engine: Engine | None
    resuming: bool = False
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Session:
    """A run that is under way. It is a context: workers end with it. Of several ranks one has the folder."""

    setup: Setup
    folder: RunFolder | None
    recorder: Progress
    workspace: Workspace
    engine: Engine
    choices: dict[str, str]
    plan: MemoryPlan | None
    command: str
    contexts: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(
        cls, config: Config, job: str, strategies: Sequence[str], options: RunOptions, dataset: Dataset | None = None
    ) -> Session:
        """Begin a run, or go on with it; whatever cannot be used is found before its folder is made."""
        with ExitStack() as contexts:
            return cls._of(config, job, strategies, options, dataset, contexts)

    @classmethod
    def _of(
        cls,
        config: Config,
        job: str,
        strategies: Sequence[str],
        options: RunOptions,
        dataset: Dataset | None,
        contexts: ExitStack,
    ) -> Session:
        assert config.out is not None
        tracker = None if config.track is None else open_tracker(config.track)
        plan, ranks, command = None, options.ranks, options.command
        folder = RunFolder(config.out) if ranks.first else None
        begun = None
        if options.resuming:
            begun = reopen_run(folder or RunFolder(config.out), sweep=ranks.first)
        elif folder is not None:
            sources, images = named_paths(config.data), source_folder(config.data)
            folder.check_free(force=config.force, sources=sources, images=images)
        setup = prepare(config, dataset, ranks, begun.proofs if begun else ())
        engine = options.engine or build_engine(config.compute, setup.compute.device.type)
        threads = _threads(setup, engine, begun)
        contexts.enter_context(computing_with(threads.count))
        if begun is None:
            _tell_of_files(setup, options.progress)
            setup, choices, plan = decide(setup, whole_images(strategies), engine)
            choices |= threads.choices
            if folder is not None:
                open_run(folder, setup, job=job, command=command, choices=choices, threads=threads.to_keep)
        else:
            begun.check(setup)
            choices, command = begun.choices | threads.choices, begun.command or command
            if folder is not None:
                write_facts(folder, setup, command)
        if not ranks.alone:
            choices["ranks"] = ranks.line(len(setup.networks.decomposition))
        for what, text in choices.items():
            options.progress.note(f"{what} {text}")
        workspace = Workspace(config.out / CHECKPOINTS, setup.fingerprint, options.progress.note)
        recorder = options.progress
        if folder is not None:  # every epoch is written before others hear of it
            recorder = Several(Recorder(folder), recorder)
        if tracker is not None and ranks.first:
            contexts.enter_context(tracker.of_run(setup.config, recorder.note, resuming=options.resuming))
            recorder = Several(recorder, tracker)
        return cls(setup, folder, recorder, workspace, engine, choices, plan, command, contexts.pop_all())

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

    def context(self, aggregations: Sequence[str]) -> StrategyContext:
        """Return what strategies are given."""
        return StrategyContext(self.setup, self.engine, self.recorder, self.workspace, tuple(aggregations))

    def finish(self, results: dict[str, StrategyResult], trained: str | None) -> Comparison:
        """Evaluate what was trained, write everything, and seal the run.

        Parameters
        ----------
        trained
            The result that was asked for; None: all of them, to be compared.
        """
        stages: dict[str, StageTimer] = {stage.name: stage for one in results.values() for stage in one.stages}
        choices = self.choices
        if self.plan is not None:
            peak = max(stage.peak_memory_bytes or 0 for stage in stages.values())
            if self.setup.compute.limit is not None:  # of a process, which did more than to train
                peak = max(peak, peak_of_process() or 0)
            choices = choices | {"memory": f"{choices['memory']}, measured peak {peak / 1e9:.2f} GB"}
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


def whole_images(strategies: Sequence[str]) -> list[str]:
    """Return what strategies train on whole images: the global CNN, the coherent model, or neither."""
    trained = [STRATEGIES.find(name).trains for name in needed_for(list(strategies))]
    return [what for what in dict.fromkeys(trained) if what != "subdomains"]


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
