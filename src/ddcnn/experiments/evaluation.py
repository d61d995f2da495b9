"""Evaluate a trained network again, on the test part of its own data or on other data with the same classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddcnn.config import DataConfig
from ddcnn.data import Split, open_data
from ddcnn.data.batches import Batches
from ddcnn.data.lazy import as_images
from ddcnn.data.sources import is_foreign
from ddcnn.errors import DataError, RunError
from ddcnn.experiments.decisions import confusion
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import best_strategy, load
from ddcnn.runs.run_validation import read_config, read_data, untrusted
from ddcnn.training import accuracy_of, auc, macro_f1, member_losses, predict_scores


def evaluate(
    run: Path | str, *, data: DataConfig | None = None, strategy: str | None = None, trust: bool = False
) -> dict[str, Any]:
    """Return accuracy, cross-entropy, confusion and accuracy per subdomain (None: missing) of a strategy of a run.

    Parameters
    ----------
    run
        The folder of the run.
    data
        Other data, all of which is used. Of the run's own data (None, or the same source), only the test part is.
    strategy, trust
        As in `ddcnn.load`; of a run that is not trusted, no folder that it names is used as `data.directory`.

    Raises
    ------
    RunError, DataError
        The run cannot be read, or the data has other classes or another image shape than the run's.
    """
    network = load(run, strategy, trust=trust)
    folder = RunFolder(run)
    expected = folder.read_json("data.json")
    config, source = data or own_data(folder, trust=trust), read_config(folder).data.source
    dataset = open_data(config)
    for what, got, wanted in (
        ("classes", list(dataset.classes), expected["classes"]),
        ("images of shape", list(dataset.images.shape[1:]), expected["image_shape"]),
    ):
        if got != wanted:
            raise DataError(f"{config.source} has {what} {got}, but the run was trained on {wanted}")
    part = torch.arange(len(dataset.labels))
    if config.source == source:
        part = Split.from_json(folder.read_text("split.json")).test
        if not len(part):
            raise RunError(f"{folder.path / 'split.json'} leaves no image for the test; train again")
        if int(part.max()) >= len(dataset.labels):
            raise DataError(f"{config.source} has {len(dataset.labels)} images, fewer than when the run was trained")
    labels = dataset.labels[part]
    subdomains = network.local_cnns.subdomains
    batches = Batches(as_images(dataset.images), dataset.labels, part, subdomains=subdomains)
    local = predict_scores(network.local_cnns, batches).softmax(2)
    with torch.no_grad():
        scores = network.decide(local)
    counts = confusion(labels, scores.argmax(1), len(dataset.classes))
    return {
        "run": str(folder.path),
        "strategy": strategy or best_strategy(folder),
        "data": config.source,
        "part": "test" if config.source == source else "all",
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


def own_data(folder: RunFolder, *, trust: bool) -> DataConfig:
    """Return which data a run was trained on.

    Raises
    ------
    RunError
        They are to be resized to what no image of the run had; or the run names the folder that they are in, or are
        downloaded to, and is not trusted.
    """
    folder.manifest()  # a run that is not complete has nothing to say
    config, size = read_config(folder).data, tuple(read_data(folder, trust=trust)["image_shape"][1:])
    if config.image_size not in (None, size) and config.image_size * len(size) != size:
        raise RunError(
            f"{folder.path / 'config.yaml'}: data.image_size = {config.image_size} does not fit the images of "
            f"data.json, {size}; train again"
        )
    if is_foreign(config.source) and not trust:
        raise RunError(untrusted(folder, config.source))
    if config.directory is not None and not trust:
        raise RunError(
            f"{folder.path / 'config.yaml'} names the folder of its data, {str(config.directory)!r}, where files would "
            f"be written as well; if that is right, name it with --data-dir, or say --trust"
        )
    return config
