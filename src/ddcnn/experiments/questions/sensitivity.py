"""Which hyper-parameters matter: a quasi-random search, whose choice is made on validation images alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddcnn.experiments.questions.importances import best_of, importances
from ddcnn.experiments.questions.question import Arms, Curve, Experiment, Findings, Pair, Table, Variant
from ddcnn.planning import Setup

TRIALS = 32  # a power of two: so many points of a Sobol sequence fill the space evenly
LR, BATCH = (1 / 16, 4.0), (1 / 4, 4.0)  # factors on what is configured
WIDTH, DEPTH = (16.0, 512.0), 3
REPEATS = 100  # resamples for each interval

_RESULTS = {"cnn-dnn": "CNN-DNN", "transfer": "transfer"}
_GIVEN, _TRIAL, _BEST = ", as configured", ", trial ", ", best of the search"
_VALIDATION = "validation_accuracy"


def variants(setup: Setup) -> Sequence[Variant]:
    """Return the configuration as it is, and trials of a search around it, each a transfer and with it a CNN-DNN.

    Learning rate, batch size and width are spread evenly over their logarithms, by a scrambled Sobol sequence.
    """
    training = setup.config.training
    assert training.batch_size is not None
    found = [Variant("given", {"strategy": "transfer"}, {name: label + _GIVEN for name, label in _RESULTS.items()})]
    for number, (lr, batch, width, depth) in enumerate(_points().tolist()):
        values = {
            "strategy": "transfer",
            "training": {
                "lr": float(f"{training.peak_lr * _between(LR, lr):.3g}"),
                "batch_size": max(1, round(training.batch_size * _between(BATCH, batch))),
            },
            "aggregation": {"hidden": [round(_between(WIDTH, width))] * (1 + int(DEPTH * depth))},
        }
        arms = {name: f"{label}{_TRIAL}{number:02}" for name, label in _RESULTS.items()}
        found.append(Variant(f"trial-{number:02}", values, arms, needed=False, like="given"))
    return found


def _points() -> np.ndarray:
    """Return the trials as points of the unit cube, (32, 4), each below 1."""
    from scipy.stats import qmc  # slow to import

    return np.asarray(qmc.Sobol(4, scramble=True, seed=np.random.default_rng(0)).random_base2(TRIALS.bit_length() - 1))


def _between(bounds: tuple[float, float], share: float) -> float:
    """Return what lies between two bounds, on a logarithmic scale."""
    low, high = bounds
    return float(low * (high / low) ** share)


def chosen(arms: Arms) -> Arms:
    """Return the arms whose test accuracies are told: as configured, and the trial with the best validation accuracy.

    Of the other trials no test accuracy is looked at.
    """
    told = {label + _GIVEN: arms[label + _GIVEN] for label in _RESULTS.values() if label + _GIVEN in arms}
    return told | {
        label + _BEST: arms[max(trials, key=trials.__getitem__)]
        for label in _RESULTS.values()
        if (trials := _validations(arms, label))
    }


def _validations(arms: Arms, label: str) -> dict[str, float]:
    """Return the mean validation accuracy of each trial, by its arm; a trial without one is left out."""
    found = {arm: [row[_VALIDATION] for row in rows] for arm, rows in arms.items() if arm.startswith(label + _TRIAL)}
    return {arm: float(np.mean(values)) for arm, values in found.items() if None not in values}


def parameters(config: Mapping[str, Any]) -> dict[str, float]:
    """Return what the search varies, of a configuration."""
    training, hidden = config["training"], config["aggregation"]["hidden"]
    return {
        "learning rate": training["lr"],
        "batch size": training["batch_size"],
        "DNN width": hidden[0],
        "DNN depth": len(hidden),
    }


def _more(findings: Findings) -> Sequence[Table | Curve]:
    known = {label: trials for label in _RESULTS.values() if (trials := _validations(findings.arms, label))}
    shares, best = [], []
    for label, trials in known.items():
        searched = [parameters(findings.configs[arm]) for arm in trials]
        found = importances(searched, list(trials.values()), repeats=REPEATS)
        shares += [
            (f"{label}: {name}", *(f"{100 * value:.0f}" for value in (one.share, one.low, one.high, one.chance)))
            for name, one in found.items()
        ]
        arm = max(trials, key=trials.__getitem__)
        for what, one in ((_GIVEN, label + _GIVEN), (f"{_BEST} ({arm.removeprefix(label + ', ')})", arm)):
            if one in findings.arms:
                best.append((label + what, *_row(findings, one)))
    return (
        Table(
            "What matters",
            ("main effect on the validation accuracy", "share of variance (%)", "95 % from", "to", "by chance below"),
            tuple(shares),
            "fANOVA on a random forest (Hutter et al. 2014, by Optuna): how much of the variance over the trials one "
            "parameter explains alone; the rest are interactions, and noise that the forest did not learn. Intervals: "
            "bootstrap over trials. By chance: 95 % point if accuracies are dealt to the trials at random; a share "
            "below it says nothing. All of it holds for the ranges that were searched.",
        ),
        Table(
            "As configured, and the best",
            ("result", "learning rate", "batch size", "DNN", "validation accuracy (%)"),
            tuple(best),
            "The best is chosen by its mean validation accuracy over the seeds, which is for that reason too good; its "
            "test accuracy, above, is not, for no choice was made by it.",
        ),
        Curve(
            "Best of so many trials",
            "trials",
            "validation accuracy (%)",
            {label: tuple(best_of(list(trials.values()))) for label, trials in known.items()},
            "What the best of n of these trials reaches if n are drawn at random: mean, and 95 % of the draws. At the "
            "right end all are drawn, and nothing is left to chance but the trials themselves.",
        ),
    )


def _row(findings: Findings, arm: str) -> tuple[str, str, str, str]:
    found = parameters(findings.configs[arm])
    dnn = "x".join(map(str, findings.configs[arm]["aggregation"]["hidden"]))
    accuracies = [row[_VALIDATION] for row in findings.arms[arm] if row[_VALIDATION] is not None]
    accuracy = f"{100 * float(np.mean(accuracies)):.2f}" if accuracies else "-"
    return f"{found['learning rate']:g}", f"{found['batch size']:g}", dnn, accuracy


SENSITIVITY = Experiment(
    "Which of learning rate, batch size, and width and depth of the DNN matters for CNN-DNN and transfer?",
    variants,
    pairs=tuple(Pair(label + _BEST, label + _GIVEN) for label in _RESULTS.values()),
    more=_more,
    chosen=chosen,
    needs={"optuna": "optuna"},
)
