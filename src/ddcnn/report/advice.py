"""What a run suggests to do next, from its numbers alone."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from ddcnn.report.curves import Curves
from ddcnn.report.labels_and_formats import percent, stage_label, strategy_label
from ddcnn.report.results import Results, StrategyResults
from ddcnn.report.svg import mean_of
from ddcnn.report.uncertainty import against_global, at_chance, baseline, class_counts, interval

OVERFITTED = 0.2
"""Training minus validation accuracy from which a network has learnt its training images by heart."""

_RISING = 0.02  # gain of the validation accuracy over the last fifth of the epochs
_WIDE = 0.05  # half of a 95 % interval
_UNEQUAL = 3  # times as many images of one class as of another
_NAMED = 5  # subdomains or classes in a sentence


@dataclass(frozen=True)
class Advice:
    """What was found, what to try, and words of a command that do it."""

    found: str
    try_: str
    options: tuple[str, ...] = ()


def overfitted(results: Results) -> list[StrategyResults]:
    """Return the strategies whose training accuracy is far above their validation accuracy."""
    return [
        s
        for s in results.strategies
        if s.train_accuracy is not None
        and s.validation_accuracy is not None
        and s.train_accuracy - s.validation_accuracy > OVERFITTED
    ]


def warning(results: Results) -> str:
    """Return what a reader should know before all else; empty if that is nothing."""
    gaps = [
        f"{strategy_label(s.name)} {percent(s.train_accuracy, ' %')} against {percent(s.validation_accuracy, ' %')}"
        for s in overfitted(results)
    ]
    return f"Over-fitted: accuracy on the training against the validation images: {', '.join(gaps)}." if gaps else ""


def advice(results: Results, panels: Curves) -> list[Advice]:
    """Return what to do next, the most urgent first; empty where no test accuracy was measured."""
    if results.best is None:
        return []
    rules = (_diverged, _chance, _overfitted, _rising, _undone, _blind, _weak, _unequal, _few, _behind)
    found = [one for rule in rules if (one := rule(results, panels)) is not None]
    return [*found, _use(results)]


def _diverged(results: Results, _: Curves) -> Advice | None:
    lost = [str(s.index) for s in results.subdomains if s.diverged_epoch]
    if not lost:
        return None
    found = f"The training of {_listed(lost, 'local CNN', 'local CNNs')} diverged."
    return Advice(
        found, "Lower the learning rate, or limit the gradients.", ("--lr 0.02", "--set training.clip_norm=1")
    )


def _chance(results: Results, _: Curves) -> Advice | None:
    known = [s for s in results.strategies if s.test_accuracy is not None]
    floor = baseline(results)
    if floor is None or len(at_chance(results)) < len(known):
        return None
    source = f"ddcnn data info {shlex.quote(results.data or 'SOURCE')}"
    return Advice(
        f"Nothing is shown to be better than {floor[1]}.",
        f"Look at images and labels first ({source}); then train longer, or with another learning rate.",
        ("--epochs 50", "--lr 0.02"),
    )


def _overfitted(results: Results, _: Curves) -> Advice | None:
    names = [strategy_label(s.name) for s in overfitted(results)]
    if not names:
        return None
    return Advice(
        f"{', '.join(names)}: far better on the training images than on others, so learnt by heart.",
        "More images help most. Else try stronger augmentation, more weight decay, softer labels, smaller local CNNs, "
        "or a DNN that learns from images that the local CNNs have not seen.",
        (
            "--set training.shift=2",
            "--set training.rotation=10",
            "--set training.weight_decay=0.005",
            "--set training.label_smoothing=0.1",
            "--width-factor 0.25",
            "--aggregate-on crossfit",
        ),
    )


def _rising(results: Results, panels: Curves) -> Advice | None:
    names = []
    trained = {name: validation for name, (_, validation) in panels.items() if not name.startswith("dnn")}
    for name, validation in trained.items():
        line = mean_of(validation)
        start = len(line) - 1 - max(1, len(line) // 5)
        if len(line) > 1 and np.isfinite(line[[start, -1]]).all() and line[-1] - line[start] > _RISING:
            names.append(stage_label(name))
    if not names or overfitted(results):
        return None
    return Advice(
        f"Still rising when the training ended: {', '.join(names)}.",
        "Train longer.",
        (f"--epochs {2 * max(len(validation) for validation in trained.values())}",),
    )


def _undone(results: Results, _: Curves) -> Advice | None:
    """Judge by the validation images: transfer begins with the local CNNs and the DNN of the CNN-DNN."""
    known = {s.name: s.validation_accuracy for s in results.strategies}
    began, ended, images = known.get("cnn-dnn"), known.get("transfer"), results.details.samples.get("validation")
    if began is None or ended is None or not images or began - ended <= (began * (1 - began) / images) ** 0.5:
        return None
    shares = f"{percent(ended, ' %')} against {percent(began, ' %')}"
    return Advice(
        f"Transfer ended below the CNN-DNN that it began with: {shares} of the validation images.",
        "Its learning rate undoes what the local CNNs have learnt, or its epochs are too few to learn it again: lower "
        "the rate, or train it longer (transfer.epochs).",
        ("--set transfer.lr_factor=0.1",),
    )


def _blind(results: Results, _: Curves) -> Advice | None:
    floor, samples = baseline(results), results.details.samples.get("test")
    if floor is None or not samples or len(results.subdomains) < 2:
        return None
    margin = 2 * (floor[0] * (1 - floor[0]) / samples) ** 0.5
    blind = [
        s.index for s in results.subdomains if s.test_accuracy is not None and s.test_accuracy <= floor[0] + margin
    ]
    if not blind:
        return None
    return Advice(
        f"{_listed([str(n) for n in blind], 'Subdomain', 'Subdomains')}: not shown to be better than {floor[1]}.",
        "Perhaps too little is seen there of what tells the classes apart. Larger or overlapping subdomains see more.",
        _to_see_more(results),
    )


def _weak(results: Results, _: Curves) -> Advice | None:
    ranked = sorted(results.strategies, key=lambda s: -(s.test_accuracy or 0.0))
    matrix = results.details.confusion.get(ranked[0].name) or ()
    classes = results.details.classes
    whole = ranked[0].test_accuracy or 0.0
    found = [(row[k] / sum(row), k) for k, row in enumerate(matrix) if sum(row)]
    weak = [(share, k) for share, k in sorted(found) if share < whole - OVERFITTED]
    if not weak or len(classes) != len(matrix):
        return None
    words = ", ".join(f"{classes[k]} ({percent(share, ' %')})" for share, k in weak[:_NAMED])
    return Advice(
        f"Much harder than other classes for {strategy_label(ranked[0].name)}: {words}.",
        "Look at what they are taken for, and whether their labels are right; more images of them help most.",
    )


def _unequal(results: Results, _: Curves) -> Advice | None:
    counts = [n for n in class_counts(results) if n]
    if len(counts) < 2 or max(counts) < _UNEQUAL * min(counts):
        return None
    return Advice(
        f"One class has {max(counts) / min(counts):.0f} times as many images as another.",
        "Judge by precision, recall and F1 of each class, and let rare classes weigh more.",
        ("--set training.class_weights=balanced", "--set training.sampling=balanced"),
    )


def _few(results: Results, _: Curves) -> Advice | None:
    bounds = [pair for s in results.strategies if (pair := interval(results, s))]
    if results.details.folds or not bounds or max(high - low for low, high in bounds) < 2 * _WIDE:
        return None
    return Advice(
        "The test set is too small for fine differences.",
        "Cross-validation tests every image once.",
        ("--folds 5",),
    )


def _behind(results: Results, _: Curves) -> Advice | None:
    found = against_global(results)
    if found is None or found[1][1] >= 0:
        return None
    return Advice(
        f"{strategy_label(found[0].name)} is behind the global CNN.",
        "Let subdomains overlap, cut into fewer of them, or give each local CNN more channels.",
        (*_to_see_more(results), "--width-factor 0.75"),
    )


def _to_see_more(results: Results) -> tuple[str, ...]:
    """Return the option by which local CNNs see more: the subdomains of a grid overlap, others take a coarse level."""
    if not results.decomposition or results.decomposition[0].isdigit():  # older runs have grids, and do not say so
        return ("--overlap 4",)
    return () if "coarse" in results.decomposition else ("--coarse",)


def _use(results: Results) -> Advice:
    run = results.run + ("/folds/0" if results.details.folds else "")
    run, answering = shlex.quote(run) if results.run else "RUN", results.answering
    assert answering is not None, "there is a test accuracy, so there is a strategy"
    name = "" if answering.name == results.trained else f" --strategy {shlex.quote(answering.name)}"
    why = "It is the best strategy on the validation images" if name else "It is the strategy that was trained"
    return Advice(
        "To use what was trained:",
        "predict your own images, and evaluate on labelled images that the run has not seen. Here "
        f"{strategy_label(answering.name)} answers. {why}; --strategy takes another one.",
        (f"ddcnn predict {run} IMAGE{name}", f"ddcnn evaluate {run} --data folder:PATH{name}"),
    )


def _listed(names: list[str], one: str, more: str) -> str:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"{one if len(names) == 1 else more} {shown}"
