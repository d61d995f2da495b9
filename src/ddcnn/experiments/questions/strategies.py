"""The paper's table, with the controls that it lacks: as many epochs, as many operations, the same critical path."""

from __future__ import annotations

from collections.abc import Sequence

from ddcnn.experiments.questions.operations import operations
from ddcnn.experiments.questions.question import Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.questions.trajectories import at_equal_path
from ddcnn.planning import Setup

COMPARED = {
    "global": "global CNN",
    "average": "average",
    "vote": "vote",
    "cnn-dnn": "CNN-DNN",
    "coherent": "coherent",
    "transfer": "transfer",
}
AS_LONG = "coherent, epochs of transfer"
AS_MANY = "global CNN, operations of transfer"


def variants(setup: Setup) -> Sequence[Variant]:
    """Return the comparison, and the two controls.

    Transfer trains the local CNNs and then the coherent model, so coherent has as many epochs as both phases together.
    A global CNN costs more operations per image; it has so many epochs that its operations are those of transfer.
    """
    epochs = both_phases(setup)
    whole, local = operations(setup.networks)
    as_many = max(1, round(epochs * local / whole))
    return (
        Variant("compare", {}, COMPARED, job="compare"),
        Variant("coherent-as-long", {"strategy": "coherent", "training": {"epochs": epochs}}, {"coherent": AS_LONG}),
        Variant("global-operations", {"strategy": "global", "training": {"epochs": as_many}}, {"global": AS_MANY}),
    )


def both_phases(setup: Setup) -> int:
    """Return the epochs of both phases of transfer together."""
    training, transfer = setup.config.training, setup.config.transfer
    return training.epochs + (transfer.epochs or training.epochs)


def _more(findings: Findings) -> Sequence[Table | Curve]:
    return (at_equal_path(findings, list(COMPARED.values())),)


STRATEGIES = Experiment(
    "Which strategy is most accurate, and what is left of the gain of transfer at equal effort?",
    variants,
    pairs=(
        Pair("CNN-DNN", "average"),
        Pair("CNN-DNN", "vote"),
        Pair("CNN-DNN", "global CNN"),
        Pair("coherent", "CNN-DNN"),
        Pair("transfer", "coherent"),
        Pair("transfer", AS_LONG),
        Pair("transfer", "global CNN"),
        Pair("transfer", AS_MANY),
    ),
    more=_more,
)
