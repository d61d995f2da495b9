"""Whether skip connections smooth the loss, and whether it is for that reason that coherent training is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ddcnn.experiments.questions.question import ACCURACY, Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.experiments.questions.surface import along_direction, along_line, barrier, curvature, drawn
from ddcnn.experiments.statistics import Spread, paired
from ddcnn.planning import Setup, Work, open_images
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load
from ddcnn.runs.run_validation import read_config
from ddcnn.strategies import STRATEGIES, Results, StrategyContext, StrategyResult

IMAGES = 128  # of the training, on which the loss is looked at
MODELS = {"VGG9": "vgg9", "ResNet20": "resnet20"}
RESULTS = {"cnn-dnn": "CNN-DNN", "coherent": "coherent", "transfer": "transfer"}
SHARES, STEPS = [n / 10 for n in range(11)], [n / 4 for n in range(-4, 5)]
_ENDS = {"transfer": "cnn-dnn", "coherent": "transfer"}  # where the line begins whose figures an arm has
_HERE = "ddcnn.experiments.questions.loss_surface"


def _train(context: StrategyContext, earlier: Results) -> dict[str, StrategyResult]:
    return {name: STRATEGIES[name].run(context, earlier)[name] for name in ("coherent", "transfer")}


def _works(setup: Setup, aggregations: Sequence[str]) -> list[Work]:
    found = []
    for name in ("coherent", "transfer"):
        works = STRATEGIES[name].works
        assert works is not None
        found += works(setup, aggregations)
    return found


BOTH = replace(STRATEGIES["transfer"], run=_train, works=_works, compared=False)
"""Local CNNs and DNN, then the coherent model, from them and from random parameters, in one run."""


def variants(_setup: Setup) -> Sequence[Variant]:
    """Return all three results of both architectures, each with and without skip connections.

    Coherent has no local losses, as published: they would smooth its loss by other means.
    """
    return [
        Variant(
            f"{name}-{'skip' if skip else 'plain'}",
            {
                "strategy": f"{_HERE}:BOTH",
                "model": {"name": name, "options": {"skip": skip}},
                "coherent": {"local_weight": 0.0},
            },
            {result: arm(result, model, skip=skip) for result in RESULTS},
            needed=False,
        )
        for model, name in MODELS.items()
        for skip in (False, True)
    ]


def arm(result: str, model: str, *, skip: bool) -> str:
    """Return what readers call an arm: ``coherent, VGG9 without skips``."""
    return f"{RESULTS[result]}, {model} {'with' if skip else 'without'} skips"


def examine(run: Path, name: str) -> dict[str, float]:
    """Return what the loss on some training images, without augmentation, is like around a result of a run.

    Parameters
    ----------
    run, name
        The folder of a run of `BOTH`, and the result.

    Returns
    -------
    by_name
        ``"loss"``; the figures of `curvature`; ``"direction -1"``, ... of `along_direction`; of transfer, from the
        local CNNs and their DNN, and of coherent, from transfer: ``"line 0"``, ... of `along_line`, and ``"barrier"``.
    """
    folder = RunFolder(run)
    dataset = open_images(read_config(folder))
    samples = drawn(torch.tensor(folder.read_json("split.json")["train"]), IMAGES)
    images, labels = dataset.images[samples], dataset.labels[samples]
    network = load(run, name, trust=True, backend="looped").eval()
    loss = nn.CrossEntropyLoss()
    around = along_direction(network, loss, images, labels, STEPS)
    found = {"loss": around[STEPS.index(0.0)], **curvature(network, loss, images, labels)}
    found |= {f"direction {step:g}": value for step, value in zip(STEPS, around, strict=True)}
    if (start := _ENDS.get(name)) is not None:
        first = load(run, start, trust=True, backend="looped")
        between = along_line(first, network, loss, images, labels, SHARES)
        found |= {f"line {share:g}": value for share, value in zip(SHARES, between, strict=True)}
        found["barrier"] = barrier(between)
    return found


def _more(findings: Findings) -> Sequence[Table | Curve]:
    columns = {
        "loss": "loss",
        "largest eigenvalue": "eigenvalue 1",
        "trace": "trace",
        "filter-wise curvature": "filter-wise",
        "barrier": "barrier",
    }
    rows = [
        (name, *(_range(findings.values(name, measure)) for measure in columns.values()))
        for name in (arm(result, model, skip=skip) for model in MODELS for skip in (False, True) for result in RESULTS)
        if name in findings.arms
    ]
    where = f"On {IMAGES} training images, batch norm in evaluation mode. "
    return (
        Table(
            "The loss around what was trained",
            ("result", *columns),
            tuple(rows),
            f"{where}Median, and the least and most over the seeds. Of the Hessian of the loss: largest eigenvalue, "
            "trace, and curvature along random directions as long as the filters, which alone can be compared between "
            "architectures, since batch norm makes the others hang on the length of the filters. Barrier: how far the "
            "loss rises above the straight line to transfer; the line of transfer begins at the local CNNs and their "
            "DNN, that of coherent ends there.",
        ),
        Table(
            "What skip connections change",
            ("with against without", "figure", "change", "95 % from", "to", "p"),
            tuple(row for model in MODELS for row in _changes(findings, model)),
            "Paired over the seeds, t-test, not corrected for their number. The hypothesis says that skip connections "
            "lower the curvature of coherent (a factor below 1) and its barrier, and raise what it gains over CNN-DNN.",
        ),
        _curve(findings, "transfer", "line", "From the local CNNs (0) to transfer (1)", "share of the way"),
        _curve(findings, "coherent", "line", "From transfer (0) to coherent (1)", "share of the way"),
        _curve(findings, "coherent", "direction", "Around coherent", "length of a random filter-wise direction"),
    )


def _changes(findings: Findings, model: str) -> list[tuple[str, ...]]:
    """Return what skip connections change in one architecture, a row per figure."""
    found: list[tuple[str, ...]] = []
    for figure, measure in (("largest eigenvalue", "eigenvalue 1"), ("filter-wise curvature", "filter-wise")):
        both = [findings.values(arm("coherent", model, skip=skip), measure) for skip in (True, False)]
        if all(both) and len(both[0]) == len(both[1]) and min(map(min, both)) > 0:
            skipping, plain = ([math.log(value) for value in values] for values in both)
            result = paired(skipping, plain)
            found.append((model, f"{figure} of coherent, factor", *_factor(result.difference), _p(result.t_p)))
    barriers = [findings.values(arm("coherent", model, skip=skip), "barrier") for skip in (True, False)]
    gains = [_gains(findings, model, skip=skip) for skip in (True, False)]
    for figure, values, scale in (
        ("barrier from transfer to coherent", barriers, 1.0),
        ("gain of coherent over CNN-DNN, points", gains, 100.0),
    ):
        if all(values) and len(values[0]) == len(values[1]):
            result = paired(values[0], values[1])
            change = result.difference
            ends = ["-", "-"] if change.interval is None else [f"{scale * end:+.2f}" for end in change.interval]
            found.append((model, figure, f"{scale * change.mean:+.2f}", *ends, _p(result.t_p)))
    return found


def _gains(findings: Findings, model: str, *, skip: bool) -> list[float]:
    """Return by how much coherent is better than CNN-DNN, per seed."""
    coherent, apart = (findings.values(arm(name, model, skip=skip), ACCURACY) for name in ("coherent", "cnn-dnn"))
    return [a - b for a, b in zip(coherent, apart, strict=True)]


def _factor(change: Spread) -> tuple[str, str, str]:
    ends = ("-", "-") if change.interval is None else tuple(f"{math.exp(min(end, 50)):.2f}" for end in change.interval)
    return f"{math.exp(change.mean):.2f}", ends[0], ends[1]


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.3g}" for value in values) or "-"
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def _curve(findings: Findings, result: str, kind: str, title: str, x: str) -> Curve:
    at: Mapping[str, Sequence[float]] = {"line": SHARES, "direction": STEPS}
    lines = {}
    for model in MODELS:
        for skip in (False, True):
            name = arm(result, model, skip=skip)
            points = [(value, findings.values(name, f"{kind} {value:g}")) for value in at[kind]]
            lines[name] = tuple((x, float(np.mean(y)), min(y), max(y)) for x, y in points if y)
    note = "Mean over the seeds, and the least and most."
    if kind == "line":
        note += " The statistics of batch norm are measured anew at each point."
    return Curve(title, x, "loss on training images", lines, note, percent=False)


LOSS_SURFACE = Experiment(
    "Is coherent training better than CNN-DNN because skip connections smooth the loss?",
    variants,
    pairs=tuple(
        Pair(arm(result, model, skip=skip), arm("cnn-dnn", model, skip=skip))
        for model in MODELS
        for skip in (False, True)
        for result in ("coherent", "transfer")
    ),
    defaults={"model": {"name": "resnet20"}},  # fits images of any size; the variants have their own
    examine=examine,
    more=_more,
)
