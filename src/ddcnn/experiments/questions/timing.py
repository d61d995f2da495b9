"""How long until an accuracy, on one machine and with a worker per subdomain."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.question import Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.questions.strategies import COMPARED
from ddcnn.experiments.questions.trajectories import times_to_accuracy
from ddcnn.planning import Setup


def variants(_setup: Setup) -> Sequence[Variant]:
    """Return one comparison of all strategies."""
    return (Variant("compare", {}, COMPARED, job="compare"),)


def _more(findings: Findings) -> Sequence[Table | Curve]:
    return tuple(times_to_accuracy(findings, parallel=parallel) for parallel in (False, True))


TIMING = Experiment(
    "How long does each strategy train until an accuracy, on one machine and with a worker per subdomain?",
    variants,
    pairs=(Pair("transfer", "global CNN"), Pair("CNN-DNN", "global CNN")),
    more=_more,
)
