"""Evaluate a trained network again, on the test part of its own data or on other data with the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddcnn.config import Config, DataConfig
from ddcnn.data import Split, open_data
from ddcnn.data.batches import Batches
from ddcnn.errors import DataError
from ddcnn.experiments.decisions import confusion
from ddcnn.run import RunFolder
from ddcnn.strategies.saved import best_strategy, load
from ddcnn.training import accuracy_of, auc, macro_f1, member_losses, predict_scores


def evaluate(run: Path | str, *, data: DataConfig | None = None, strategy: str | None = None) -> dict[str, Any]:
    """Return accuracy, cross-entropy, confusion and accuracy per subdomain (None: missing) of a strategy of a run.

    Parameters
    ----------
    run
        The folder of the run.
    data
        Other data, all of which is used. Of the run's own data (None, or the same source), only the test part is.
    strategy
        As in `ddcnn.load`.

    Raises
    ------
    RunError, DataError
        The run cannot be read, or the data has other classes or another image shape than the run's.
    """
    network = load(run, strategy)
    folder = RunFolder(run)
    expected = folder.read_json("data.json")
    own = Config.read(folder.path / "config.yaml").data
    config = data or own
    dataset = open_data(config)
    for what, got, wanted in (
        ("classes", list(dataset.classes), expected["classes"]),
        ("images of shape", list(dataset.images.shape[1:]), expected["image_shape"]),
    ):
        if got != wanted:
            raise DataError(f"{config.source} has {what} {got}, but the run was trained on {wanted}")
    part = torch.arange(len(dataset.labels))
    if config.source == own.source:
        part = Split.from_json(folder.read_text("split.json")).test
        if int(part.max()) >= len(dataset.labels):
            raise DataError(f"{config.source} has {len(dataset.labels)} images, fewer than when the run was trained")
    labels = dataset.labels[part]
    subdomains = network.local_cnns.subdomains
    batches = Batches(dataset.images, dataset.labels, part, transform=network.normalization, subdomains=subdomains)
    local = predict_scores(network.local_cnns, batches).softmax(2)
    with torch.no_grad():
        scores = network.decide(local)
    counts = confusion(labels, scores.argmax(1), len(dataset.classes))
    return {
        "run": str(folder.path),
        "strategy": strategy or best_strategy(folder),
        "data": config.source,
        "part": "test" if config.source == own.source else "all",
        "samples": len(part),
        "accuracy": float((scores.argmax(1) == labels).float().mean()),
        "auc": auc(scores.double().log_softmax(1), labels),
        "f1": macro_f1(counts),
        "loss": float(member_losses(scores.unsqueeze(1), labels)[0]),
        "classes": {
            name: {"accuracy": row[k] / sum(row) if sum(row) else None, "samples": sum(row)}
            for k, (name, row) in enumerate(zip(dataset.classes, counts, strict=True))
        },
        "confusion": counts,
        "subdomains": [
            {"index": n, "accuracy": None if n in network.missing else accuracy}
            for n, accuracy in enumerate(accuracy_of(local, labels).tolist())
        ],
    }
