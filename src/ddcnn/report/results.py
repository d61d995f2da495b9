"""The typed form of `comparison.json` and of a row of `metrics.jsonl`; any value may be null."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ddcnn.errors import RunError
from ddcnn.report.labels_and_formats import STRATEGIES, by, rank
from ddcnn.text import printable


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LARGEST = 10**15  # nothing that is counted or timed is more, and drawings of more fail
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Number = Annotated[float | None, BeforeValidator(_finite)]
Positive = Annotated[Annotated[float, Field(ge=0, le=_LARGEST)] | None, BeforeValidator(_finite)]
Accuracy = Annotated[Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_finite)]
Text = Annotated[str, BeforeValidator(printable)]


class _Record(BaseModel):
    """Unknown fields are kept out, null means absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, Mapping) else values


class HandedOverResults(_Record):
    """What local CNNs hand over to the aggregation of a strategy: which numbers, and how many of one image."""

    features: Text = ""
    numbers: Count | None = None


class StrategyResults(_Record):
    """What one strategy reached, and at what cost; over folds, the means, with their 95 % intervals by name.

    ``thresholds`` are those by which it decides, where they were chosen.
    """

    name: Annotated[Text, Field(max_length=100)]
    train_accuracy: Accuracy = None
    validation_accuracy: Accuracy = None
    test_accuracy: Accuracy = None
    test_auc: Accuracy = None
    test_f1: Accuracy = None
    test_nll: Positive = None
    test_brier: Positive = None
    test_ece: Accuracy = None
    handed_over: HandedOverResults | None = None
    thresholds: tuple[Accuracy, ...] = ()
    intervals: dict[str, tuple[Accuracy, Accuracy] | None] = {}
    parameters: Positive = None
    epochs: Positive = None
    seconds: Positive = None
    critical_path_seconds: Positive = None
    peak_memory_bytes: Positive = None


class SubdomainResults(_Record):
    """One subdomain.

    ``box`` is (start, stop) per axis, in pixels; ``sees`` says what it sees, if that is not its box; ``missing``: the
    run has no local CNN for it.
    """

    index: int
    box: tuple[tuple[int, int], ...] = ()
    sees: Text = ""
    parameters: Positive = None
    test_accuracy: Accuracy = None
    best_epoch: Positive = None
    diverged_epoch: Positive = None
    missing: bool = False


class SubdomainDetails(_Record):
    """Accuracies of one local CNN; ``class_accuracy`` has K entries."""

    index: int
    train_accuracy: Accuracy = None
    validation_accuracy: Accuracy = None
    test_accuracy: Accuracy = None
    class_accuracy: tuple[Accuracy, ...] = ()


class Stage(_Record):
    """What one stage of training cost."""

    name: Text
    seconds: Positive = None
    critical_path_seconds: Positive = None
    peak_memory_bytes: Positive = None


class MissingSets(_Record):
    """Test accuracies of one strategy with so many subdomains ``missing``, over so many ``sets`` of them."""

    missing: Annotated[int, Field(ge=1)] | None = None
    sets: Positive = None
    mean: Accuracy = None
    min: Accuracy = None
    max: Accuracy = None


class Missing(_Record):
    """Test accuracies of one strategy with subdomains missing: only this ``one``, N values; ``random`` sets."""

    one: tuple[Accuracy, ...] = ()
    random: tuple[MissingSets, ...] = ()


class ReliabilityBin(_Record):
    """Decisions whose probabilities lie in one bin: mean probability, share that is right, and how many there are."""

    confidence: Accuracy = None
    accuracy: Accuracy = None
    count: Positive = None


class Details(_Record):
    """What the tables leave out.

    ``image_shape`` is (C, *S), ``plane`` the axes of the slices of a volume, ``folds`` the number of folds and of
    repeats; confusion matrices are K x K counts, rows = true class. ``missing`` and
    ``reliability`` are by strategy; ``mistakes`` names the strategy whose mistakes are in `mistakes.safetensors`.
    """

    command: Text = ""
    classes: tuple[Text, ...] = ()
    image_shape: tuple[int, ...] = ()
    plane: tuple[int, int] = (-2, -1)
    samples: dict[str, Count | None] = {}
    folds: tuple[Annotated[int, Field(ge=1)], ...] = ()
    stages: tuple[Stage, ...] = ()
    confusion: dict[str, tuple[tuple[Count, ...], ...] | None] = {}
    subdomains: tuple[SubdomainDetails, ...] = ()
    missing: dict[str, Missing | None] = {}
    reliability: dict[str, tuple[ReliabilityBin, ...] | None] = {}
    mistakes: Text = ""
    choices: dict[str, Any] = {}
    versions: dict[str, Any] = {}

    @model_validator(mode="after")
    def _square(self) -> Details:
        for name, matrix in self.confusion.items():
            if matrix is not None and any(len(row) != len(matrix) for row in matrix):
                raise ValueError(f"the confusion matrix of {name!r} should be square")
        return self


class Results(_Record):
    """A whole `comparison.json`. Strategies come in the order of the report, subdomains by index."""

    data: Text = ""
    model: Text = ""
    decomposition: Text = ""
    grid: tuple[Annotated[int, Field(ge=1)], ...] = ()
    members: Count | None = None
    seed: int | None = None
    device: Text = ""
    run: Text = ""
    trained: Text = ""
    strategies: tuple[StrategyResults, ...] = ()
    subdomains: tuple[SubdomainResults, ...] = ()
    details: Details = Details()

    @model_validator(mode="after")
    def _same_axes(self) -> Results:
        boxes = [s.box for s in self.subdomains if s.box]
        if any(len(box) != len(boxes[0]) or any(a >= b for a, b in box) for box in boxes):
            raise ValueError("boxes should have the same axes, and start < stop on each")
        return self

    @classmethod
    def parse(cls, values: Any, source: str = "comparison.json") -> Results:
        """Check and order the content of `comparison.json`.

        Raises
        ------
        RunError
            One line that names the field and the value.
        """
        results = parse(cls, values, source)
        strategies = sorted(results.strategies, key=lambda s: rank(s.name, STRATEGIES))
        subdomains = sorted(results.subdomains, key=lambda s: s.index)
        return results.model_copy(update={"strategies": tuple(strategies), "subdomains": tuple(subdomains)})

    def strategy(self, name: str) -> StrategyResults | None:
        """Return the strategy of that name, if it is part of the run."""
        return next((s for s in self.strategies if s.name == name), None)

    @property
    def cuts(self) -> str:
        """What readers call the decomposition; empty if it is not known."""
        grid = f"{by(self.grid)} grid" if self.grid else ""
        first, *more = re.sub(r"-(?=\d+$)", "", self.decomposition).split("-")
        if not more and first in ("", "x".join(map(str, self.grid))):
            return grid
        words = [f"{word} {by(tuple(numbers.split('x')))}".strip() for word, numbers in map(_word, (first, *more))]
        return ", ".join([f"{words[0]} grid" if first[:1].isdigit() else words[0], *words[1:]])

    @property
    def volume(self) -> bool:
        """Whether images have three axes."""
        return len(self.details.image_shape) > 3 or len(self.grid) > 2

    @property
    def ranked(self) -> bool:
        """Whether AUC and F1 say more than accuracy: there are two classes, or they are not equally frequent."""
        if all(s.test_auc is None and s.test_f1 is None for s in self.strategies):
            return False
        matrix = next((m for m in self.details.confusion.values() if m), ())
        counts = [sum(row) for row in matrix]
        return len(counts) == 2 or (bool(counts) and max(counts) > 1.5 * min(counts))

    @property
    def answering(self) -> StrategyResults | None:
        """The strategy to use: the one that was trained; of a comparison, the best on the validation images.

        Among equals it is the last, as in `ddcnn.runs.networks.best_strategy`.
        """
        asked = self.strategy(self.trained)
        return asked or max(reversed(self.strategies), key=lambda s: s.validation_accuracy or 0.0, default=None)

    @property
    def best(self) -> float | None:
        """The best test accuracy of all strategies."""
        return max((s.test_accuracy for s in self.strategies if s.test_accuracy is not None), default=None)


def _word(text: str) -> tuple[str, str]:
    """Divide a part of a description into its word and its numbers.

    >>> _word("voronoi6"), _word("2x2"), _word("given")
    (('voronoi', '6'), ('', '2x2'), ('given', ''))
    """
    word = text.rstrip("0123456789x.")
    return {"coarse": "coarse level"}.get(word, word), text[len(word) :]


class Row(_Record):
    """One epoch of one stage, for M members trained at once."""

    stage: Text
    epoch: Annotated[int, Field(ge=1)]
    train_accuracy: tuple[Number, ...] = ()
    validation_accuracy: tuple[Number, ...] = ()


_T = TypeVar("_T", bound=_Record)


def parse(record: type[_T], values: Any, source: str) -> _T:
    """Check values that came from a file; what does not fit is a `RunError` that names the place."""
    try:
        return record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        place = f"{source}: {field} = {first['input']!r:.80}" if field else source
        raise RunError(f"{place} cannot be used: {first['msg']}") from None
