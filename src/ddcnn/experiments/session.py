"""A session: a problem, its folder, its workers, and who is told; what every job needs from begin to end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from ddcnn.config import Config
from ddcnn.data import Dataset
from ddcnn.data.store import Stored, reading
from ddcnn.engines import ALONE, Engine, Ranks, build_engine
from ddcnn.experiments.record import Comparison, Recorder, finish_run, open_run, reopen_run
from ddcnn.machine import staying_below
from ddcnn.runs.folder import CHECKPOINTS, RunFolder
from ddcnn.strategies import LocalResult, Plan, Problem, StrategyResult, plan_memory, prepare, resolve
from ddcnn.training import Progress, StageTimer, Workspace, peak_of_process

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

    problem: Problem
    folder: RunFolder | None
    recorder: Progress
    workspace: Workspace
    engine: Engine
    choices: dict[str, str]
    plan: Plan | None
    command: str
    contexts: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(
        cls,
        config: Config,
        job: str,
        whole: Sequence[str],
        options: RunOptions,
        dataset: Dataset | None = None,
    ) -> Session:
        """Begin a run, or go on with it; whatever cannot be used is found before its folder is made."""
        assert config.out is not None
        progress, plan, ranks = options.progress, None, options.ranks
        folder, choices, command = None, dict[str, str](), options.command
        if ranks.first and not options.resuming:
            RunFolder(config.out).check_free(force=config.force)
        problem = prepare(config, dataset, ranks)
        engine = options.engine or build_engine(config.compute, problem.device.type)
        if not options.resuming:
            _tell_bad_files(problem, progress)
            problem, choices, plan = _decided(problem, whole, engine)
            if ranks.first:
                folder = RunFolder(config.out)
                open_run(folder, problem, job=job, command=options.command, choices=choices)
        elif ranks.first:
            folder = RunFolder(config.out)
            choices = reopen_run(folder, problem)
            command = str(folder.read_json("environment.json").get("command", command))  # by which it was begun
        if not ranks.alone:
            choices["ranks"] = ranks.line(math.prod(config.decomposition.grid))
        for what, text in choices.items():
            progress.note(f"{what} {text}")
        workspace = Workspace(config.out / CHECKPOINTS, problem.fingerprint, progress.note)
        recorder = progress if folder is None else Recorder(folder, progress)
        return cls(problem, folder, recorder, workspace, engine, choices, plan, command)

    def __enter__(self) -> Session:
        """Open the engine, and look to it that the memory stays below its limit."""
        self.contexts.enter_context(self.engine)
        self.contexts.enter_context(staying_below(self.problem.limit))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.contexts.__exit__(kind, error, trace)

    def finish(self, trained: dict[str, StrategyResult], local: LocalResult | None) -> Comparison:
        """Evaluate what was trained, write everything, and seal the run."""
        stages: dict[str, StageTimer] = {stage.name: stage for t in trained.values() for stage in t.stages}
        choices = self.choices
        if self.plan is not None:
            peak = max(stage.peak_memory_bytes or 0 for stage in stages.values())
            if self.problem.limit is not None:  # of a process, which did more than to train
                peak = max(peak, peak_of_process() or 0)
            choices = choices | {"memory": f"{choices['memory']}, measured peak {peak / 1e9:.2f} GB"}
        return finish_run(
            self.folder if self.problem.ranks.first else None,
            self.problem,
            trained,
            local=local,
            stages=list(stages.values()),
            choices=choices,
            command=self.command,
        )


def _decided(problem: Problem, whole: Sequence[str], engine: Engine) -> tuple[Problem, dict[str, str], Plan | None]:
    """Decide what depends on this machine: how many local CNNs at once, on which backend, in which precision."""
    subdomains = math.prod(problem.config.decomposition.grid)
    problem, plan = plan_memory(problem, whole)
    if engine.workers > 1:
        share = math.ceil(subdomains / engine.workers)
        problem = problem.with_compute(group=min(problem.group or share, share))
    problem, choices = resolve(problem, plan)
    if plan is not None:
        choices["memory"] = plan.line(subdomains)
    if not problem.ranks.alone:
        choices["ranks"] = problem.ranks.line(subdomains)
    if isinstance(problem.images, Stored):
        choices["store"] = reading(problem.images.store, problem.decomposition)
    return problem, choices, plan


def _tell_bad_files(problem: Problem, progress: Progress) -> None:
    bad = problem.dataset.bad_files
    if problem.config.data.on_bad_file == "warn":
        for one in bad[:_MOST_NAMED]:
            progress.note(f"left out: {one.reason}")
    if bad:
        progress.note(f"{len(bad)} file{'s are' if len(bad) > 1 else ' is'} left out, named in bad_files.json")
