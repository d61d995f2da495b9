"""Train the local CNNs of a setup, in groups, as tasks of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ddcnn.engines import Failure, Task
from ddcnn.errors import TrainingError
from ddcnn.models import LocalCNNs
from ddcnn.strategies.initialization.start import Start
from ddcnn.strategies.local_task import GroupResult, LocalInputs, collect_group, joined, train_group
from ddcnn.strategies.strategy import StrategyContext
from ddcnn.training import History


def train_groups(
    context: StrategyContext,
    samples: Tensor,
    stage: str,
    *,
    start: Start | None = None,
    function: Callable[..., GroupResult] = train_group,
) -> tuple[LocalCNNs, History, tuple[int, ...]]:
    """Train all local CNNs, as tasks of the engine; those of a group that fails are tried again one by one.

    Parameters
    ----------
    samples, stage
        What they are trained on, and what that is called.
    start
        Where they begin; None: at random.
    function
        Of a task: as `ddcnn.strategies.local_task.train_group`.

    Returns
    -------
    network, history, missing
        All local CNNs, how they were trained, and the subdomains whose local CNN could not be trained.
    """
    setup, progress, workspace = context.setup, context.progress, context.workspace
    groups = setup.compute.groups(setup.owned)
    names = [stage] if len(groups) == 1 else [f"{stage}/subdomains {group[0]}-{group[-1]}" for group in groups]

    def run(groups: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[GroupResult | Failure]:
        pairs = zip(groups, names, strict=True)
        tasks = [_task(context, group, samples, name, start or Start(), function) for group, name in pairs]
        return context.engine.run(tasks, progress, None if workspace is None else workspace.folder)

    found = dict(zip(groups, run(groups, names), strict=True))
    failed = {group: one for group, one in found.items() if isinstance(one, Failure)}
    for failure in failed.values():
        progress.note(f"{failure.name} failed: {failure.reason}")
    again = [(index,) for group, one in failed.items() if len(group) > 1 and not one.final for index in group]
    if again:
        found |= dict(zip(again, run(again, [f"{stage}/subdomain {index}" for (index,) in again]), strict=True))
    results = {group: one for group, one in found.items() if isinstance(one, GroupResult)}
    if not results:
        raise TrainingError(next(iter(failed.values())).reason)
    network = setup.networks.local_cnns(backend=setup.compute.backend)
    for group, result in results.items():
        for n, state in zip(group, result.states, strict=True):
            network.load_member_state(n, state)
    missing = tuple(n for n in range(network.members) if not any(n in group for group in results))
    for n in missing:
        progress.note(f"{network.name(n)} is missing: the decision is made without it")
    return network, joined(results, network.members), missing


def _task(
    context: StrategyContext,
    group: tuple[int, ...],
    samples: Tensor,
    name: str,
    start: Start,
    function: Callable[..., GroupResult],
) -> Task[GroupResult]:
    arguments = {"indices": list(group), "samples": samples.tolist(), "stage": name} | start.about
    checkpoints = context.checkpoints(name, arguments)
    return Task(name, function, LocalInputs(context.setup, start.local), arguments, checkpoints, collect_group)
