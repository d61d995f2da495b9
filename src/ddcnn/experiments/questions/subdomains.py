"""How accuracy changes with the number of subdomains, on one level and on two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddcnn.experiments.questions.question import ACCURACY, Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.statistics import spread
from ddcnn.planning import Setup

CUTS = (1, 2, 4, 8)
TWO_LEVELS = ", two levels"
LEVELS: Mapping[str, Mapping[str, Any]] = {"": {"coarse": None}, TWO_LEVELS: {"coarse": "auto"}}
"""What is laid over ``decomposition``, by what is added to the name of an arm."""

_RESULTS = {"cnn-dnn": "CNN-DNN", "transfer": "transfer"}


def variants(setup: Setup) -> Sequence[Variant]:
    """Return a transfer, and with it a CNN-DNN, per grid and level; grids too fine for the images are left out."""
    axes = len(setup.networks.image_size)
    found = []
    for level, values in LEVELS.items():
        for cuts in CUTS[bool(level) :]:  # of one subdomain, a coarse level is the same image
            grid = {"name": "grid", "grid": [cuts] * axes, **values}
            arms = {result: _arm(label, cuts, level) for result, label in _RESULTS.items()}
            name = f"{cuts}{level.replace(', ', '-').replace(' ', '-')}"
            over = {"strategy": "transfer", "decomposition": grid}
            found.append(Variant(name, over, arms, needed=cuts == 1))
    return found


def _arm(label: str, cuts: int, level: str) -> str:
    return f"{label}, {cuts} per axis{level}"


def _more(findings: Findings) -> Sequence[Table | Curve]:
    lines = {}
    for level in LEVELS:
        for label in _RESULTS.values():
            points = []
            for cuts in CUTS:
                values = findings.values(_arm(label, cuts, level), ACCURACY)
                if values:
                    found = spread(values, findings.share)
                    points.append((float(cuts), found.mean, *(found.interval or (found.mean, found.mean))))
            lines[f"{label}{level}"] = tuple(points)
    return (
        Curve("Accuracy over the number of cuts", "subdomains per axis", "test accuracy (%)", lines, log=True,
              note="Channels fall with the square root of the number of subdomains, so that all local CNNs together "
                   "have about as many parameters as the global CNN."),
    )  # fmt: skip


SUBDOMAINS = Experiment(
    "What becomes of the accuracy with more and more subdomains, and does a coarse level keep it?",
    variants,
    pairs=(
        *(Pair(_arm(label, n, ""), _arm(label, 1, "")) for label in _RESULTS.values() for n in CUTS[1:]),
        *(Pair(_arm(label, n, TWO_LEVELS), _arm(label, n, "")) for label in _RESULTS.values() for n in CUTS[1:]),
    ),
    defaults={"model": {"name": "resnet20"}},
    more=_more,
)
