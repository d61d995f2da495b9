"""What networks say of images that they did not see: the test parts of runs, put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from ddcnn.data import Dataset
from ddcnn.data.content import content_of
from ddcnn.data.splits import Split
from ddcnn.errors import RunError
from ddcnn.runs.folder import RunFolder
from ddcnn.runs.networks import load


def out_of_fold(
    path: Path, dataset: Dataset, strategy: str | None = None, *, trust: bool = False
) -> tuple[Float[np.ndarray, "n K"], Bool[np.ndarray, " n"]]:
    """Return the probability of each class, and which samples were in a test part: of others it is 0.

    With ``data.folds`` each sample is in the test part of one fold, and all are known. Where a sample is in several,
    because of several seeds or repeats, it is the mean.

    Parameters
    ----------
    path
        A run, a comparison over folds, or an experiment.
    dataset
        The images, as the runs have seen them.
    strategy, trust
        As of `ddcnn.load`.

    Raises
    ------
    RunError
        No run there is complete, or one has seen other images or labels.
    """
    runs = [run for run in [path, *sorted([*path.glob("folds/*"), *path.glob("cells/*")])] if _has_test(run)]
    if not runs:
        raise RunError(
            f"{path} holds no complete run with test images; give that of ddcnn compare --folds 5, or an experiment"
        )
    content = content_of(dataset)
    total, times = np.zeros((len(content), len(dataset.classes))), np.zeros(len(content), int)
    for run in runs:
        folder = RunFolder(run)
        seen = folder.read_tensors("content.safetensors").get("digests", content[:0])
        if not torch.equal(seen, content):
            raise RunError(f"{run} has seen other images or labels; give the data as they were given to it")
        test = Split.from_json(folder.read_text("split.json")).test
        network = load(run, strategy, trust=trust)
        network.input = None  # these are (n, C, *S), whatever layout the arrays had
        total[test] += network.predict_proba(dataset.images[test])
        times[test] += 1
    known = times > 0
    total[known] /= times[known, None]
    return total, known


def _has_test(run: Path) -> bool:
    folder = RunFolder(run)
    if not (folder.is_complete() and folder.has("split.json") and folder.has("content.safetensors")):
        return False
    return len(Split.from_json(folder.read_text("split.json")).test) > 0
