"""The result of a run in one plain sentence, computed from its numbers."""

from __future__ import annotations

import math

from ddcnn.report.labels_and_formats import percent, strategy_label
from ddcnn.report.results import Results, StrategyResults

_TRAINED_AS_ONE = ("global", "coherent", "transfer")
_WAYS = {"cnn-dnn": "with a CNN-DNN", "average": "by average probability", "vote": "by majority vote"}


def verdict(results: Results) -> str:
    """Return one sentence: what the local CNNs reach, what training on brings, what the global CNN reaches.

    >>> local, whole = {"name": "cnn-dnn", "test_accuracy": 0.977}, {"name": "global", "test_accuracy": 0.988}
    >>> verdict(Results.parse({"grid": [2, 2], "strategies": [local, whole]}))
    '4 local CNNs, trained independently, reach 97.7 % with a CNN-DNN; the global CNN reaches 98.8 %.'
    """
    parts = [part for part in (_local(results), _coherent(results), _global(results)) if part]
    if not parts:
        return "No test accuracy was measured in this run."
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."


def number_of_subdomains(results: Results) -> int:
    """Return N."""
    return len(results.subdomains) or results.members or math.prod(results.grid)


def _local(results: Results) -> str:
    measured = [s for name in _WAYS if (s := _measured(results, name))] or [
        s for s in results.strategies if s.name not in _TRAINED_AS_ONE and s.test_accuracy is not None
    ]
    if not measured:
        return ""
    chosen = measured[0]  # the DNN, or else the better one of the two without
    if chosen.name != "cnn-dnn":
        chosen = max(measured, key=lambda s: s.test_accuracy or 0)
    way = _WAYS.get(chosen.name, f"with {strategy_label(chosen.name)}")
    N = number_of_subdomains(results)
    reach = "reaches" if N == 1 else "reach"
    return f"{_local_cnns(results)} {reach} {percent(chosen.test_accuracy, ' %')} {way}"


def _local_cnns(results: Results) -> str:
    N = number_of_subdomains(results)
    name = "1 local CNN" if N == 1 else f"{N} local CNNs"
    each = "" if N == 1 else " each"
    share = _share(results)
    return f"{name}{f' with {share} of the parameters{each}' if share else ''}, trained independently,"


def _share(results: Results) -> str:
    """Return the parameters of one local CNN as a simple fraction of those of the global CNN."""
    whole = results.strategy("global")
    local = [s.parameters for s in results.subdomains if s.parameters]
    if whole is None or not whole.parameters or not local:
        return ""
    share = sum(local) / len(local) / whole.parameters
    parts = round(1 / share)
    if parts < 2:
        return f"{share:.0%}"
    return f"1/{parts}" if abs(share * parts - 1) < 0.03 else f"about 1/{parts}"


def _coherent(results: Results) -> str:
    ways = {
        "transfer": "trained on as one model (transfer)",
        "coherent": "trained from scratch as one model (coherent)",
    }
    measured = [(s, way) for name, way in ways.items() if (s := _measured(results, name))]
    if not measured:
        return ""
    strategy, way = measured[0]
    accuracy = percent(strategy.test_accuracy, " %")
    N = number_of_subdomains(results)
    if _local(results):
        return f"{way} {'it reaches' if N == 1 else 'they reach'} {accuracy}"
    return f"{N} local CNN{'' if N == 1 else 's'} with a DNN, {way}, reach{'es' if N == 1 else ''} {accuracy}"


def _global(results: Results) -> str:
    whole = _measured(results, "global")
    return f"the {strategy_label('global')} reaches {percent(whole.test_accuracy, ' %')}" if whole else ""


def _measured(results: Results, name: str) -> StrategyResults | None:
    strategy = results.strategy(name)
    return strategy if strategy and strategy.test_accuracy is not None else None
