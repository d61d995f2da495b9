"""What a decision is worth without some of the local CNNs, and what subdomain dropout helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ddcnn.aggregation import AGGREGATIONS as KNOWN
from ddcnn.aggregation import HandedOver
from ddcnn.aggregation.registry import Aggregation
from ddcnn.config import AggregationConfig
from ddcnn.experiments.questions.frozen import frozen
from ddcnn.experiments.questions.question import Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.statistics import spread
from ddcnn.planning import Setup

_HERE = "ddcnn.experiments.questions.missing"


def _with_dropout(percent: int) -> Aggregation:
    def build(over: HandedOver, config: AggregationConfig) -> nn.Module:
        return KNOWN["dense"].build(over, config.model_copy(update={"subdomain_dropout": percent / 100}))

    label = f"CNN-DNN, dropout {percent} %"
    sentence = f"The DNN is trained without {percent} % of its subdomains."
    return Aggregation(build, f"dropout-{percent}", label, sentence, takes=KNOWN["dense"].takes)


DROPOUT_0, DROPOUT_10, DROPOUT_25 = _with_dropout(0), _with_dropout(10), _with_dropout(25)
_DROPOUTS = (DROPOUT_0, DROPOUT_10, DROPOUT_25)
FROZEN = frozen("average", "vote", *(f"{_HERE}:DROPOUT_{percent}" for percent in (0, 10, 25)))


def variants(_setup: Setup) -> Sequence[Variant]:
    """Return one training of local CNNs, with all aggregations on it."""
    arms = {"average": "average", "vote": "vote"} | {one.result: one.label for one in _DROPOUTS}
    return (Variant("frozen", {"strategy": f"{_HERE}:FROZEN"}, arms),)


def measures(found: Mapping[str, Any], name: str) -> dict[str, float]:
    """Return the mean accuracy without 1, 2, 4, ... subdomains, by ``"without 1"`` and so on."""
    rows = found["details"]["missing"].get(name, {}).get("random", [])
    return {f"without {row['missing']}": row["mean"] for row in rows}


def _more(findings: Findings) -> Sequence[Table | Curve]:
    lines, counts = {}, []
    for arm, rows in findings.arms.items():
        counts = sorted(
            {int(name.split()[1]) for row in rows for name in row["measures"] if name.startswith("without ")}
        )
        points = []
        for count in (0, *counts):
            values = findings.values(arm, f"without {count}") if count else findings.values(arm)
            found = spread(values, findings.share)
            points.append((float(count), found.mean, *(found.interval or (found.mean, found.mean))))
        lines[arm] = tuple(points)
    cells = tuple((arm, *(f"{100 * point[1]:.1f}" for point in points)) for arm, points in lines.items())
    note = "All sets of missing subdomains if there are few, else 10 drawn at random, the same for all results; mean."
    columns = ("test accuracy (%) without", "none", *map(str, counts))
    return (
        Table("Without some of the subdomains", columns, cells, note),
        Curve("Without some of the subdomains", "missing subdomains", "test accuracy (%)", lines, note),
    )


MISSING = Experiment(
    "How accurate is a decision without some of the subdomains, with and without subdomain dropout?",
    variants,
    pairs=(
        Pair(DROPOUT_25.label, DROPOUT_0.label),
        Pair(DROPOUT_25.label, DROPOUT_0.label, "without 1"),
        Pair(DROPOUT_25.label, DROPOUT_0.label, "without 2"),
        Pair(DROPOUT_10.label, DROPOUT_0.label, "without 1"),
        Pair(DROPOUT_0.label, "average", "without 1"),
        Pair(DROPOUT_0.label, "average", "without 2"),
    ),
    measures=measures,
    more=_more,
)
