"""What does an aggregation cost a training step? Targets: attention and gates less than 3 %, features less than 1 %.

    python benchmarks/aggregations.py [--rounds 30] [--batch 128]

A step of the coherent model (ResNet20 and VGG9, 2x2, images of CIFAR-10's shape, random, resident on the device) is all
that a training step is. Each aggregation is timed in turns with the dense network on probabilities in this process,
five steps at once, after one turn as a warm-up. The ratio is the median of those of the rounds, with a 95 % interval of
that median (bootstrap): differences of one percent are smaller than what a machine varies from round to round. The last
column is what the aggregation alone takes, forward and backward, of such a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, in_turns, synchronize, write
from torch.nn.functional import cross_entropy

import ddcnn
from ddcnn.config import Config
from ddcnn.planning import Setup, prepare
from ddcnn.training import FadingLocalLosses, MemberOptimizer, PrecisionName, Step, WholeNetwork

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STEPS, CLASSES = 5, 10
PRECISIONS: tuple[PrecisionName, ...] = ("float32", "bfloat16")
PLAIN = "dense, probability"
OTHERS = ("dense, penultimate", "weighted, probability", "attention, probability", "attention, penultimate")
OTHERS += ("gated, probability", "gated, penultimate")


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# What an aggregation costs a training step",
        "",
        describe_machine(f"python benchmarks/aggregations.py --rounds {arguments.rounds}", DEVICE),
        "",
        f"Steps of the coherent model, 2x2, relative to {PLAIN}: the median of {arguments.rounds} rounds in turns, its",
        "95 % interval; and what the aggregation alone takes of such a step, forward and backward.",
        "",
        "| model | precision | aggregation, features | ms per step | ratio | aggregation alone |",
        "|---|---|---|---:|---:|---:|",
    ]
    for model in ("resnet20", "vgg9"):
        for precision in PRECISIONS:
            setups = {name: _setup(model, name, arguments.batch) for name in (PLAIN, *OTHERS)}
            seconds = in_turns({name: _steps(s, precision) for name, s in setups.items()}, arguments.rounds)
            alone = in_turns({name: _alone(s, arguments.batch) for name, s in setups.items()}, 10)
            base = np.median(seconds[PLAIN])
            for name, found in seconds.items():
                low, middle, high = _median(found / seconds[PLAIN])
                share = np.median(alone[name]) / base
                lines.append(
                    f"| {model} | {precision} | {name} | {1000 * np.median(found) / STEPS:.1f} | "
                    f"{middle:.3f} [{low:.3f}, {high:.3f}] | {share:.2%} |"
                )
                print(lines[-1], flush=True)
    write(arguments.out, "aggregations", lines, DEVICE)


def _setup(model: str, name: str, batch: int) -> Setup:
    aggregation, features = name.split(", ")
    config = Config.parse(
        {
            "model": {"name": model},
            "aggregation": {"name": aggregation, "features": features},
            "training": {"batch_size": batch, "lr": 0.01, "shift": 4, "flip": True},
            "compute": {"device": DEVICE.type, "backend": "fused"},
        }
    )
    images = np.random.default_rng(0).integers(0, 256, (2 * STEPS * batch, 32, 32, 3), dtype=np.uint8)
    return prepare(config, ddcnn.as_dataset(images, np.arange(len(images)) % CLASSES))


def _steps(setup: Setup, precision: PrecisionName) -> Callable[[], None]:
    """Return what takes some training steps of the coherent model."""
    networks = setup.networks
    aggregation = networks.aggregation(setup.config.aggregation.name)
    network = WholeNetwork(networks.network(networks.local_cnns(backend="fused"), aggregation), with_local_scores=True)
    network.train()
    step = Step(network, MemberOptimizer(network, setup.data.training), precision, FadingLocalLosses(1.0))
    samples = setup.data.split.train[: STEPS * setup.data.batch_size]
    batches = setup.data.batches(samples, networks.subdomains, augment=True)

    def run() -> None:
        for batch in batches.shuffled(1):
            step(batch, schedule=1e-3)
        synchronize(DEVICE)

    return run


def _alone(setup: Setup, batch: int) -> Callable[[], None]:
    """Return what takes an aggregation through as many steps, on fixed numbers; in float32, as always."""
    networks = setup.networks
    aggregation = networks.aggregation(setup.config.aggregation.name).train()
    widths = networks.feature_widths or [CLASSES] * len(networks.decomposition)
    handed = torch.rand(batch, len(widths), max(widths), device=DEVICE).softmax(-1).requires_grad_()
    labels = torch.arange(batch, device=DEVICE) % CLASSES

    def run() -> None:
        for _ in range(STEPS):
            cross_entropy(aggregation(handed), labels).backward()  # type: ignore[no-untyped-call]
        synchronize(DEVICE)

    return run


def _median(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the median of some ratios between the ends of its 95 % interval."""
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, 1), (2.5, 97.5))
    return float(low), float(np.median(ratios)), float(high)


if __name__ == "__main__":
    main()
