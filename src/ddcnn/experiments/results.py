"""What trained networks reached: the content of ``comparison.json``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ddcnn.aggregation import HandedOver
from ddcnn.decomposition import Subdomain
from ddcnn.experiments.decisions import judge, judge_local
from ddcnn.experiments.missing import without_some
from ddcnn.network import CNNDNN
from ddcnn.planning import Setup
from ddcnn.strategies import StrategyResult
from ddcnn.strategies.registry import known_results
from ddcnn.training import class_figures

_PARTS = ("train", "validation", "test")


def comparison_of(setup: Setup, results: dict[str, StrategyResult]) -> dict[str, Any]:
    """Return the results of all strategies and subdomains, on each part of the data."""
    config, dataset = setup.config, setup.data.dataset
    local = next((one for one in results.values() if one.shares_local_cnns), None)
    by_subdomain = [] if local is None else judge_local(setup, local)
    decisions = {name: judge(setup, result) for name, result in results.items()}
    degraded = {name: found for name, one in results.items() if (found := judge_missing(setup, one)) is not None}
    return {
        "data": config.data.source,
        "model": config.model.name,
        "decomposition": setup.networks.decomposition.describe(),
        "grid": list(setup.networks.decomposition.layout),
        "members": len(setup.networks.decomposition),
        "seed": config.seed,
        "device": setup.compute.device.type,
        "strategies": [
            {
                "name": name,
                **_labels(name),
                **{f"{part}_accuracy": value for part, value in decisions[name].accuracy.items()},
                "test_auc": decisions[name].auc,
                "test_f1": decisions[name].f1,
                **{f"test_{measure}": value for measure, value in decisions[name].sureness.items()},
                **({} if result.network.thresholds is None else {"thresholds": list(result.network.thresholds)}),
                "handed_over": _handed_over(result.network, setup.data.classes),
                "parameters": sum(p.numel() for p in result.network.parameters()),
                "epochs": result.epochs,
                "seconds": result.seconds,
                "critical_path_seconds": result.critical_path_seconds,
                "peak_memory_bytes": result.peak_memory_bytes,
            }
            for name, result in results.items()
        ],
        "subdomains": [] if local is None else _subdomains(local, by_subdomain),
        "details": {
            "classes": list(dataset.classes),
            "image_shape": list(dataset.images.shape[1:]),
            "plane": [axis % len(dataset.image_size) for axis in dataset.plane],
            "samples": {part: len(getattr(setup.data.split, part)) for part in _PARTS},
            "confusion": {name: one.confusion for name, one in decisions.items()},
            "class_figures": {name: class_figures(one.confusion) for name, one in decisions.items()},
            "reliability": {name: one.reliability for name, one in decisions.items()},
            "subdomains": [{"index": n} | row for n, row in enumerate(by_subdomain)],
            "missing": degraded,
        },
    }


def _labels(name: str) -> dict[str, str]:
    known = known_results().get(name)
    return {} if known is None else {"label": known[0], "sentence": known[1]}


def _handed_over(network: CNNDNN, classes: int) -> dict[str, Any]:
    """Return what local CNNs hand over to the aggregation, and how many numbers of one image."""
    over = network.handed or HandedOver.of("probability", network.local_cnns.members, classes)
    return {"features": over.features, "numbers": over.numbers}


def _subdomains(local: StrategyResult, judged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    network, history, missing = local.network.local_cnns, local.histories["local"], local.network.missing
    return [
        {
            "index": subdomain.index,
            "name": subdomain.name,
            "box": [list(axis) for axis in subdomain.box],
            **_sees(subdomain),
            "parameters": sum(p.numel() for p in network.extract(n).parameters()),
            "test_accuracy": judged[n]["test_accuracy"],
            "best_epoch": history.best_epochs[n],
            "diverged_epoch": history.diverged[n],
        }
        | ({"missing": True} if n in missing else {})
        for n, subdomain in enumerate(network.subdomains)
    ]


def _sees(subdomain: Subdomain) -> dict[str, str]:
    """Say what a subdomain sees where that is not its box."""
    size = tuple(stop - start for start, stop in subdomain.box)
    return {} if subdomain.shape == size and subdomain.inside is None else {"sees": subdomain.sees}


def judge_missing(setup: Setup, result: StrategyResult) -> dict[str, Any] | None:
    """Evaluate a result on the test part with subdomains missing."""
    device = setup.compute.device
    result.network.aggregation.eval()
    labels: Tensor = setup.data.dataset.labels[setup.data.split.test]
    handed = result.local_probabilities.handed("test", result.network.handed).to(device)
    return without_some(result.network, handed, labels.to(device), setup.config.seed)
