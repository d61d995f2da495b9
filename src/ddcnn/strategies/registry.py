"""Strategies by name, in the order in which they are compared."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.errors import ConfigError
from ddcnn.planning import Setup, Work
from ddcnn.registry import Registry
from ddcnn.strategies.coherent import COHERENT
from ddcnn.strategies.compose import COMPOSE
from ddcnn.strategies.global_cnn import GLOBAL
from ddcnn.strategies.initialization import INITIALIZATIONS, check_start
from ddcnn.strategies.local import LOCAL
from ddcnn.strategies.strategy import Strategy, StrategyContext, StrategyResult
from ddcnn.strategies.thresholds import set_thresholds
from ddcnn.strategies.transfer import TRANSFER
from ddcnn.training.closed_form import Solvable, check_unweighted
from ddcnn.training.local_objectives import check_local_objective

_OURS = (GLOBAL, LOCAL, COHERENT)

STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    ConfigError,
    {"global": GLOBAL, "local": LOCAL, "coherent": COHERENT, "transfer": TRANSFER, "compose": COMPOSE},
    of=Strategy,
)


def needed_for(names: list[str]) -> list[str]:
    """Return strategies and those that they build on, each once, in the order in which they can be trained.

    >>> needed_for(["transfer"])
    ['local', 'transfer']
    """
    ordered: list[str] = []
    for name in names:
        for one in [*needed_for(list(STRATEGIES.find(name).after)), name]:
            if one not in ordered:
                ordered.append(one)
    return ordered


def works_of(name: str, setup: Setup, aggregations: Sequence[str]) -> list[Work]:
    """Describe the trainings of a strategy, without those that it builds on."""
    strategy = STRATEGIES.find(name)
    describe = strategy.works or next(one.works for one in _OURS if one.trains == strategy.trains)
    assert describe is not None
    return describe(setup, aggregations)


def run_strategies(names: list[str], context: StrategyContext) -> dict[str, StrategyResult]:
    """Train strategies, and those that they build on, and choose thresholds; return all results by name."""
    results: dict[str, StrategyResult] = {}
    for name in needed_for(names):
        results |= STRATEGIES.find(name).run(context, results)
    set_thresholds(context, results)
    return results


def check_strategies(names: list[str], setup: Setup) -> None:
    """Raise a `DdcnnError` if strategies cannot be trained on a setup: called before anything is written."""
    for name in needed_for(names):
        STRATEGIES.find(name).check(setup)
    if check_local_objective(setup.config.training.local_objective):
        _ = setup.networks.widths  # it looks at features, so there must be some
    check_start(setup)
    if setup.config.init.way == "trained" and "local" not in needed_for(names):
        raise ConfigError(
            f"init.name = trained is for what is trained after local CNNs, and strategy {names[0]} trains none before; "
            "use local or transfer, or begin with their parameters: --weights RUN alone"
        )
    if isinstance(setup.networks.global_module(), Solvable):
        check_unweighted(setup.data.training, setup.config.model.name, weighted=bool(setup.data.weights))


def known_results() -> dict[str, tuple[str, str]]:
    """Return what readers call each result, and what it is, in the order in which they are compared.

    >>> list(known_results())
    ['global', 'average', 'vote', 'weighted', 'cnn-dnn', 'attention', 'gated', 'coherent', 'transfer', 'compose']
    """
    found: dict[str, tuple[str, str]] = {}
    for name, strategy in STRATEGIES.items():
        if strategy.trains == "subdomains":
            found |= {one.result: (one.label, one.sentence) for one in AGGREGATIONS.values()}
        else:
            found[name] = (strategy.label, strategy.sentence)
    return found


def known_stages() -> dict[str, str]:
    """Return what readers call each stage of training."""
    before = {name: label for one in INITIALIZATIONS.values() for name, label in one.stages.items()}
    return before | {name: label for strategy in STRATEGIES.values() for name, label in strategy.stages.items()}
